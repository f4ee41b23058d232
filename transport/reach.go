package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"fednode/store"
	"fednode/transport/pki"
)

// ErrOwnCertificate is wrapped by the errors of [Node.Probe] that mean that the peer was reached and refuses this node's
// certificate: it is expired by the peer's clock, or the peer does not, or no longer, take this organisation for a member.
var ErrOwnCertificate = errors.New("the peer refuses this node's certificate")

// refusesCertificate reports whether err is a peer's refusal during or right after a handshake.
func refusesCertificate(err error) bool {
	var te *quic.TransportError
	if errors.As(err, &te) {
		return te.Remote && te.ErrorCode.IsCryptoError()
	}
	var alert tls.AlertError
	var op *net.OpError
	return errors.As(err, &alert) || errors.As(err, &op) && op.Op == "remote error"
}

// A Reach is what this node knows of whether it reaches a member.
type Reach struct {
	Last   time.Time `json:"last,omitzero"`   // when there was a live connection, to or from it, since this node started
	Failed time.Time `json:"failed,omitzero"` // since when connecting to it fails, if it does
	Error  string    `json:"error,omitempty"` // of the last try
	// Shown is how many entries of this organisation's own log are covered by the newest checkpoint that the member was
	// shown since this node started: with a request that it answered, or an answer that went out to it.
	Shown int64 `json:"shown"`
}

// Reach returns what is known of the way to a member.
func (n *Node) Reach(org OrgID) Reach {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.reach[org]; r != nil {
		return *r
	}
	return Reach{}
}

// reached changes what is known of a member.
func (n *Node) reached(org OrgID, change func(*Reach)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.reach[org]
	if r == nil {
		r = &Reach{}
		n.reach[org] = r
	}
	change(r)
}

// dialled notes how a try to connect ended.
func (n *Node) dialled(org OrgID, err error) {
	now := n.c.Now()
	n.reached(org, func(r *Reach) {
		switch {
		case err == nil:
			r.Last, r.Failed, r.Error = now, time.Time{}, ""
		case r.Failed.IsZero():
			r.Failed, r.Error = now, err.Error()
		default:
			r.Error = err.Error()
		}
	})
}

// A Location is an endpoint of a member's record and where that is.
type Location struct {
	Endpoint string
	Addrs    []net.Addr
	Err      error
}

// Locate resolves the endpoints of a member's record, this organisation's own included.
func (n *Node) Locate(ctx context.Context, org OrgID) ([]Location, error) {
	m, ok := n.c.Members().Get(org)
	if !ok {
		return nil, &Error{CodeNotMember, fmt.Sprintf("%.63s is not a member", org)}
	}
	out := make([]Location, len(m.Endpoints))
	for i, e := range m.Endpoints {
		out[i].Endpoint = e
		out[i].Addrs, out[i].Err = n.c.Resolve(ctx, e)
	}
	return out, nil
}

// A KnownHead is how much of a member's log this node has seen.
type KnownHead struct {
	Size  int64
	Grown time.Time // when it was last seen to grow; zero if nothing has been seen
}

// KnownHead returns how much of a member's log this node has seen.
func (n *Node) KnownHead(org OrgID) (out KnownHead, err error) {
	m, ok := n.c.Members().Get(org)
	if !ok {
		return out, &Error{CodeNotMember, fmt.Sprintf("%.63s is not a member", org)}
	}
	err = n.c.DB.View(func(tx *store.Tx) error {
		s, _, err := n.loadHead(tx.Bucket(bucketHead), m.LogOrigin())
		out = KnownHead{s.Size, s.Grown}
		return err
	})
	return out, err
}

// shown notes that a member has a proof against a checkpoint of size entries or more.
func (n *Node) shown(org OrgID, size int64) {
	n.reached(org, func(r *Reach) { r.Shown = max(r.Shown, size) })
}

func (c quicConn) rtt() time.Duration { return c.ConnectionStats().SmoothedRTT }

// rtt is the operating system's estimate, or 0 if the connection is none of its.
func (c *tcpConn) rtt() (d time.Duration) {
	t, ok := c.raw.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // the error is that it is closed
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			d = time.Duration(info.Rtt) * time.Microsecond
		}
	})
	return d
}

// Clock returns how far ahead the clock of a member's node is, to a second or so. It asks over the TCP lane and shows no
// certificate, so that it gets an answer where the clocks are so far apart that neither holds the other's for valid.
func (n *Node) Clock(ctx context.Context, org OrgID) (ahead time.Duration, err error) {
	d := &dialer{n: n, org: org}
	targets, err := d.targets(ctx)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", ErrUnreachable, org, err)
	}
	var ways []way[time.Duration]
	for _, to := range targets {
		ways = append(ways, way[time.Duration]{"tcp " + to.addr.String(), raceDelay, func(ctx context.Context) (time.Duration, error) {
			return n.askClock(ctx, org, to.addr)
		}})
	}
	ahead, _, err = race(ctx, ways, func(time.Duration) {})
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", ErrUnreachable, org, err)
	}
	return ahead, nil
}

func (n *Node) askClock(ctx context.Context, org OrgID, at net.Addr) (time.Duration, error) {
	raw, err := n.c.Dial(ctx, at.String())
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t := tls.Client(raw, n.clockTLS(org))
	if err := t.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+string(org)+"/health", nil)
	if err != nil {
		return 0, err
	}
	sent := n.c.Now()
	if err := req.Write(t); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(t, webFields)), req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	arrived := n.c.Now()
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("the answer's date: %w", err)
	}
	return there.Sub(sent.Add(arrived.Sub(sent) / 2).Truncate(time.Second)), nil
}

// clockTLS takes org's certificate as of the time at which it was made.
func (n *Node) clockTLS(org OrgID) *tls.Config {
	c := baseTLS("http/1.1")
	c.ServerName = string(org)
	c.InsecureSkipVerify = true // replaced by what follows
	negotiated := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := negotiated(cs); err != nil {
			return err
		}
		set := n.c.Members()
		m, ok := set.Get(org)
		if !ok || len(cs.PeerCertificates) == 0 {
			return fmt.Errorf("%s is not a member, or shows no certificate", org)
		}
		leaf := cs.PeerCertificates[0]
		_, err := pki.VerifyPeer(rawChain(cs), m.Roots, string(org), set.FederationID(), leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore)/2))
		return err
	}
	return c
}
