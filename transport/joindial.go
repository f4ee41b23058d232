package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/store/jcs"
	"fednode/transport/pki"
)

// A JoinDialer connects to a member that has invited this organisation. The zero value uses the operating system's
// network and clock.
type JoinDialer struct {
	Resolve Resolver
	Packet  func() (net.PacketConn, error)                           // a socket to dial QUIC from; it is closed with the connection
	Stream  func(ctx context.Context, addr string) (net.Conn, error) // for TCP
	Now     func() time.Time                                         // wall clock
	Lanes   []Lane                                                   // default both
}

// DialJoin is [JoinDialer.Dial] over the operating system's network.
func DialJoin(ctx context.Context, endpoint string, verify func(chain []*x509.Certificate) error) (*JoinConn, error) {
	return JoinDialer{}.Dial(ctx, endpoint, verify)
}

// A JoinConn is a connection for one join request. Nothing but verify has judged the other end.
type JoinConn struct {
	Lane   Lane
	Remote net.Addr

	exporter []byte
	open     func(ctx context.Context) (joinStream, error)
	close    func() error
}

// Exporter is the keying material of the TLS session that the server's handler gets too: whoever MACs it with a secret
// shows that nobody sits between the two. It has JoinExporterSize bytes.
func (c *JoinConn) Exporter() []byte { return c.exporter }

// Close ends the connection.
func (c *JoinConn) Close() error { return c.close() }

// Dial connects to endpoint, "host:port". verify decides whether the server is whom the invitation names: it gets the
// chain as presented, leaf first, root last, with nothing verified but that the server holds the leaf's key; see
// [pki.VerifyPinned]. Errors wrap [ErrUnreachable].
func (d JoinDialer) Dial(ctx context.Context, endpoint string, verify func(chain []*x509.Certificate) error) (*JoinConn, error) {
	if d.Resolve == nil {
		d.Resolve = resolveDNS
	}
	if d.Packet == nil {
		d.Packet = func() (net.PacketConn, error) { return net.ListenPacket("udp", ":0") }
	}
	if d.Stream == nil {
		d.Stream = dialNet
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	addrs, err := d.Resolve(ctx, endpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, endpoint, err)
	}
	conf := d.tls(verify)
	var ways []way[*JoinConn]
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		ways = append(ways,
			way[*JoinConn]{"quic " + a.String(), raceDelay, func(ctx context.Context) (*JoinConn, error) { return d.quic(ctx, a, conf) }},
			way[*JoinConn]{"tcp " + a.String(), raceDelay, func(ctx context.Context) (*JoinConn, error) { return d.tcp(ctx, a, conf) }})
	}
	if len(d.Lanes) > 0 {
		ways = slices.DeleteFunc(ways, func(w way[*JoinConn]) bool {
			lane, _, _ := strings.Cut(w.name, " ")
			return !slices.Contains(d.Lanes, Lane(lane))
		})
	}
	c, _, err := race(ctx, ways, func(c *JoinConn) { _ = c.Close() })
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, endpoint, err)
	}
	return c, nil
}

func (d JoinDialer) tls(verify func(chain []*x509.Certificate) error) *tls.Config {
	c := baseTLS(joinProtocol)
	c.Time = d.Now
	c.InsecureSkipVerify = true // the invitation names the root; verify judges
	inner := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := inner(cs); err != nil {
			return err
		}
		if len(cs.PeerCertificates) > pki.MaxChain {
			return fmt.Errorf("certificate chain of %d; at most %d are allowed", len(cs.PeerCertificates), pki.MaxChain)
		}
		return verify(cs.PeerCertificates)
	}
	return c
}

func (d JoinDialer) quic(ctx context.Context, a net.Addr, conf *tls.Config) (*JoinConn, error) {
	socket, err := d.Packet()
	if err != nil {
		return nil, err
	}
	tr := &quic.Transport{Conn: socket, ConnectionIDLength: 8}
	end := func() error { return errors.Join(tr.Close(), socket.Close()) }
	conn, err := tr.Dial(ctx, udpAddr(a), conf, &quic.Config{HandshakeIdleTimeout: handshakeTimeout, MaxIdleTimeout: 30 * time.Second, MaxIncomingStreams: -1, MaxIncomingUniStreams: -1})
	if err != nil {
		return nil, errors.Join(err, end())
	}
	c := &JoinConn{Lane: LaneQUIC, Remote: conn.RemoteAddr(), close: func() error { return errors.Join(conn.CloseWithError(0, ""), end()) },
		open: func(ctx context.Context) (joinStream, error) { return conn.OpenStreamSync(ctx) }}
	if c.exporter, err = joinExporter(conn.ConnectionState().TLS); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (d JoinDialer) tcp(ctx context.Context, a net.Addr, conf *tls.Config) (*JoinConn, error) {
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := d.Stream(hctx, a.String())
	if err != nil {
		return nil, err
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(hctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	c := &JoinConn{Lane: LaneTCP, Remote: raw.RemoteAddr(), close: raw.Close}
	var used atomic.Bool
	c.open = func(context.Context) (joinStream, error) {
		if used.Swap(true) {
			return nil, errors.New("the connection was used for a request before")
		}
		return tcpJoin{t}, nil
	}
	if c.exporter, err = joinExporter(t.ConnectionState()); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// Do sends the one request of the connection and returns the reply. A refusal is an *[Error].
func (c *JoinConn) Do(ctx context.Context, request []byte) ([]byte, error) {
	if len(request) > MaxJoinRequest {
		return nil, fmt.Errorf("join request of %d bytes; at most %d", len(request), MaxJoinRequest)
	}
	s, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("join request: %w", fromStream(err))
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reply, err := exchangeJoin(s, request)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("join request: %w", fromStream(err))
	}
	return reply, nil
}

func exchangeJoin(s io.ReadWriter, request []byte) ([]byte, error) {
	if _, err := s.Write(appendFrame([]byte{joinVersion, 0, 0, 0}, request)); err != nil {
		return nil, err
	}
	var status [1]byte
	if _, err := io.ReadFull(s, status[:]); err != nil {
		return nil, err
	}
	b, err := readFrame(s, MaxJoinReply)
	if err != nil {
		return nil, err
	}
	switch status[0] {
	case joinReplied:
		return b, nil
	case joinRefused:
		refusal := new(Error)
		if err := jcs.Unmarshal(b, refusal); err != nil || len(refusal.Text) > maxRefusalText || checkType(string(refusal.Code)) != nil {
			return nil, &Error{CodeMalformed, "refusal of the join request"}
		}
		return nil, refusal
	}
	return nil, &Error{CodeMalformed, "status of the answer to the join request"}
}
