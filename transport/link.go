package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/transport/member"
	"fednode/transport/pki"
)

// protocol is the ALPN name of this wire format, on every lane.
const protocol = "fednode/1"

// A link is one connection whose other end has proven to be org.
type link struct {
	conn conn
	org  OrgID
	raw  [][]byte // the peer's certificate chain

	mu       sync.Mutex
	set      *member.Set // against which raw was last verified
	member   *member.Member
	notAfter time.Time // of the shortest-lived certificate of the chain
	lastUse  time.Time

	// Of outbound links only:
	to      target
	users   int    // calls under way
	retired bool   // close when there are no users
	watched bool   // see dialer.attend
	heard   uint64 // conn.received when last looked at

	since    time.Time
	forsaken atomic.Bool // closed by us because the peer was silent on it
}

func (l *link) close(c Code, text string) {
	l.conn.shut(c, text)
}

// check returns the peer's member record in force now. It closes the connection if there is none, or if the peer's
// certificate no longer verifies; the latter is to the peer like any other loss of a connection.
func (n *Node) check(l *link) (*member.Member, error) {
	set, now := n.c.Members(), n.c.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set != set && !now.After(l.notAfter) {
		if m, ok := set.Get(l.org); ok && !m.Suspended && sameRoots(m, l.member) {
			l.set, l.member = set, m // nothing that its certificate was verified against is another
		}
	}
	if l.set != set || now.After(l.notAfter) {
		m, notAfter, err := verifyPeer(set, l.org, l.raw, now)
		if certificate := new(certificateError); errors.As(err, &certificate) { // a member has a newer one, and connects again
			n.c.Logger.Info("connection closed", "peer", l.org, "err", err)
			l.close("", "certificate over")
			return nil, fmt.Errorf("%w: %w", errLost, err)
		}
		if err != nil {
			n.c.Logger.Info("peer cut off", "peer", l.org, "err", err)
			l.close(CodeNotMember, "not a member in good standing")
			return nil, &Error{CodeNotMember, "the peer is not a member in good standing"}
		}
		l.set, l.member, l.notAfter = set, m, notAfter
	}
	return l.member, nil
}

func sameRoots(a, b *member.Member) bool {
	return slices.EqualFunc(a.Roots, b.Roots, func(x, y *x509.Certificate) bool { return x.Equal(y) })
}

// A certificateError is about the certificate that a member in good standing shows.
type certificateError struct {
	org OrgID
	err error
}

func (e *certificateError) Error() string { return fmt.Sprintf("certificate of %s: %v", e.org, e.err) }
func (e *certificateError) Unwrap() error { return e.err }

// verifyPeer verifies raw against org's own roots, and org against the member set.
func verifyPeer(set *member.Set, org OrgID, raw [][]byte, now time.Time) (*member.Member, time.Time, error) {
	m, ok := set.Get(org)
	if !ok {
		return nil, time.Time{}, fmt.Errorf("%s is not a member", org)
	}
	if m.Suspended {
		return nil, time.Time{}, fmt.Errorf("%s is suspended", org)
	}
	if _, err := pki.VerifyPeer(raw, m.Roots, string(org), set.FederationID(), now); err != nil {
		return nil, time.Time{}, &certificateError{org, err}
	}
	var notAfter time.Time
	for _, der := range raw {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, time.Time{}, &certificateError{org, err}
		}
		if notAfter.IsZero() || c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	return m, notAfter, nil
}

// newLink identifies the peer of a connection whose handshake is complete. want is "" for inbound connections.
func (n *Node) newLink(conn conn, cs tls.ConnectionState, want OrgID) (*link, error) {
	raw := rawChain(cs)
	l := &link{conn: conn, raw: raw, lastUse: time.Now(), since: time.Now()}
	var err error
	l.set, l.org = n.c.Members(), want
	if want == "" {
		if l.org, err = claimedOrg(raw); err != nil {
			return nil, err
		}
	}
	l.member, l.notAfter, err = verifyPeer(l.set, l.org, raw, n.c.Now())
	return l, err
}

// claimedOrg returns whom a leaf says it belongs to. Nothing is verified here.
func claimedOrg(raw [][]byte) (OrgID, error) {
	if len(raw) == 0 || len(raw) > pki.MaxChain {
		return "", fmt.Errorf("certificate chain of %d; 1 to %d are allowed", len(raw), pki.MaxChain)
	}
	leaf, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return "", err
	}
	org, err := pki.PeerOrg(leaf)
	return OrgID(org), err
}

// baseTLS speaks these protocols only, and insists on one.
func baseTLS(protocols ...string) *tls.Config {
	c := pki.BaseTLS()
	c.NextProtos = protocols
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if !slices.Contains(protocols, cs.NegotiatedProtocol) {
			return fmt.Errorf("protocol %q negotiated; %q is required", cs.NegotiatedProtocol, protocols)
		}
		return nil
	}
	return c
}

// tls returns what both ends share. The standard verification knows no per-organisation roots, so it is replaced:
// every handshake goes through verifyPeer, and there is no resumption that could bypass it.
func (n *Node) tls(want OrgID) *tls.Config {
	c := baseTLS(protocol)
	c.Time = n.c.Now
	c.InsecureSkipVerify = true
	negotiated := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := negotiated(cs); err != nil {
			return err
		}
		raw := rawChain(cs)
		org := want
		if org == "" {
			var err error
			if org, err = claimedOrg(raw); err != nil {
				return err
			}
		}
		_, _, err := verifyPeer(n.c.Members(), org, raw, n.c.Now())
		return err
	}
	return c
}

func rawChain(cs tls.ConnectionState) (raw [][]byte) {
	for _, c := range cs.PeerCertificates {
		raw = append(raw, c.Raw)
	}
	return raw
}

// serverTLS serves members, and strangers who say that they want to join and nothing else.
func (n *Node) serverTLS() *tls.Config {
	c := n.memberTLS()
	join := n.joinTLS()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if n.joinable() && slices.Equal(hello.SupportedProtos, join.NextProtos) {
			return join, nil
		}
		return nil, nil
	}
	return c
}

func (n *Node) memberTLS() *tls.Config {
	c := n.tls("")
	c.ClientAuth = tls.RequireAnyClientCert
	c.GetCertificate = n.c.Leaf.GetCertificate
	return c
}

func (n *Node) clientTLS(to OrgID) *tls.Config {
	c := n.tls(to)
	c.ServerName = string(to)
	c.GetClientCertificate = n.c.Leaf.GetClientCertificate
	return c
}

// pendingKey finds the *pending of an inbound connection in its context.
type pendingKey struct{}

// A pending is an inbound connection that has not proven who it is.
type pending struct {
	once  sync.Once
	leave func()
}

func (p *pending) done() { p.once.Do(p.leave) }

// admitted ends conn's being pending.
func admitted(conn *quic.Conn) {
	if p, ok := conn.Context().Value(pendingKey{}).(*pending); ok {
		p.done()
	}
}

// admit is asked before a handshake begins.
func (n *Node) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	leave, ok := n.gate.enter(info.RemoteAddr, time.Now())
	if !ok {
		n.m.handshake(LaneQUIC, "refused")
		return nil, errors.New("too many handshakes")
	}
	p := &pending{leave: leave}
	context.AfterFunc(ctx, p.done)
	return context.WithValue(ctx, pendingKey{}, p), nil
}
