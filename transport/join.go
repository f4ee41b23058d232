package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/store/jcs"
)

// Joining has an ALPN name and a message of its own: who joins has no member entry yet. The server shows its leaf up to
// the root, the client shows nothing; what proves the client is in its request and its handler's business.
//
//	request: version (1 byte) · reserved, zero (3 bytes) · one frame
//	answer:  status (1 byte) · one frame: the reply, or the JCS of an [Error]
//
// One request per connection, on either lane: over QUIC on the first stream the client opens, over TCP on the TLS
// connection itself.
const (
	joinProtocol = "fednode-join/1"
	joinVersion  = 1

	joinReplied byte = 1
	joinRefused byte = 2

	// joinLabel makes keying material of the TLS session (RFC 5705, RFC 8446 section 7.5), without context as in RFC 9266.
	joinLabel = "EXPORTER-fednode-join"
	// JoinExporterSize is the length of that material in bytes.
	JoinExporterSize = 32

	// MaxJoinRequest and MaxJoinReply bound the two messages, in bytes. A reply may hold a governance log.
	MaxJoinRequest = 64 << 10
	MaxJoinReply   = 4 << 20
)

// A JoinRequest is what a stranger asks. Nothing about it is verified.
type JoinRequest struct {
	Body     []byte
	Exporter []byte // binds Body to this TLS session: the same at both ends, and at nobody between them
	Remote   net.Addr
	Lane     Lane
}

// A JoinHandler answers strangers. Of its errors, an [Error] is told as it is, and any other as [CodeInternal], its text
// withheld. ctx ends after Limits.JoinTimeout.
type JoinHandler func(ctx context.Context, r JoinRequest) ([]byte, error)

// HandleJoin sets the handler of strangers' requests, at any time. Without one, or with nil, their protocol is not spoken.
func (n *Node) HandleJoin(h JoinHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.join = h
}

// joinTLS returns the server's side of joining.
func (n *Node) joinTLS() *tls.Config {
	c := baseTLS(joinProtocol)
	c.Time = n.c.Now
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.rootedLeaf() }
	return c
}

// rootedLeaf is the leaf with its chain, root included: all that a stranger has to hold it against is the root's hash.
func (n *Node) rootedLeaf() (*tls.Certificate, error) {
	leaf := *n.c.Leaf.Leaf()
	own, ok := n.c.Members().Get(n.c.Org)
	if !ok {
		return nil, fmt.Errorf("%s is not a member of its own federation", n.c.Org)
	}
	top, err := x509.ParseCertificate(leaf.Certificate[len(leaf.Certificate)-1])
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(own.Roots, func(r *x509.Certificate) bool { return top.CheckSignatureFrom(r) == nil })
	if i < 0 {
		return nil, fmt.Errorf("no root in the record of %s certifies its issuing CA", n.c.Org)
	}
	leaf.Certificate = append(slices.Clone(leaf.Certificate), own.Roots[i].Raw)
	return &leaf, nil
}

func (n *Node) joinable() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.join != nil
}

// serveStranger serves one QUIC connection of a stranger's.
func (n *Node) serveStranger(conn *quic.Conn) {
	admitted(conn)
	code := CodeRateLimited
	if leave, ok := n.joins.enter(conn.RemoteAddr(), time.Now()); ok {
		defer leave()
		ctx, cancel := context.WithTimeout(conn.Context(), n.limit.JoinTimeout)
		defer cancel()
		code = n.joinOnce(ctx, LaneQUIC, conn.RemoteAddr(), conn.ConnectionState().TLS, func() (joinStream, error) { return conn.AcceptStream(ctx) })
		if code == "" {
			<-ctx.Done() // the peer closes when it has read the answer
		}
	}
	n.m.joins(LaneQUIC, code)
	_ = conn.CloseWithError(closeNumber(code), "")
}

// serveStrangerTCP serves one connection of a stranger's on the TCP lane, where a refusal is the answer itself.
func (n *Node) serveStrangerTCP(t *tls.Conn) {
	ctx, cancel := context.WithTimeout(n.ctx, n.limit.JoinTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = t.NetConn().Close() })
	defer stop()
	code := CodeRateLimited
	if leave, ok := n.joins.enter(t.RemoteAddr(), time.Now()); ok {
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, n.limit.JoinTimeout-joinFarewell)
		defer cancel()
		code = n.joinOnce(ctx, LaneTCP, t.RemoteAddr(), t.ConnectionState(), func() (joinStream, error) { return tcpJoin{t}, nil })
	}
	n.m.joins(LaneTCP, code)
	if code != "" && t.SetDeadline(time.Now().Add(joinFarewell)) == nil {
		_, _ = t.Write(joinRefusal(&Error{code, ""}))
		_ = t.CloseWrite()
	}
	_ = t.NetConn().Close()
}

// joinFarewell is how long telling a stranger why may take.
const joinFarewell = time.Second

// tcpJoin is a connection that carries one request; its Close ends the sending direction.
type tcpJoin struct{ *tls.Conn }

func (c tcpJoin) Close() error { return c.CloseWrite() }

// A joinStream is what both lanes give one request.
type joinStream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// joinOnce takes a stranger's one request to its answer. It returns why there was none.
func (n *Node) joinOnce(ctx context.Context, lane Lane, remote net.Addr, cs tls.ConnectionState, open func() (joinStream, error)) (refused Code) {
	exporter, err := joinExporter(cs)
	if err != nil {
		return CodeInternal
	}
	s, err := open()
	if err != nil {
		return CodeTimeout
	}
	if at, ok := ctx.Deadline(); ok && s.SetDeadline(at) != nil {
		return CodeInternal
	}
	body, err := readJoinRequest(s)
	if err != nil {
		var e *Error
		switch {
		case errors.As(err, &e):
			return e.Code
		case isTimeout(err):
			return CodeTimeout
		}
		return CodeMalformed
	}
	if _, err := s.Write(n.answerJoin(ctx, JoinRequest{body, exporter, remote, lane})); err != nil || s.Close() != nil {
		return CodeCancelled
	}
	return ""
}

func joinExporter(cs tls.ConnectionState) ([]byte, error) {
	return cs.ExportKeyingMaterial(joinLabel, nil, JoinExporterSize)
}

func readJoinRequest(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	switch {
	case head[0] != joinVersion:
		return nil, refuse(CodeUnsupportedVersion, "join version %d; this node speaks %d", head[0], joinVersion)
	case head[1]|head[2]|head[3] != 0:
		return nil, &Error{CodeMalformed, "join header"}
	}
	return readFrame(r, MaxJoinRequest)
}

// answerJoin runs the handler and frames what it says. A panic costs this request, not the node.
func (n *Node) answerJoin(ctx context.Context, r JoinRequest) []byte {
	n.mu.Lock()
	h := n.join
	n.mu.Unlock()
	reply, err := func() (reply []byte, err error) {
		defer func() {
			if p := recover(); p != nil {
				n.c.Logger.Error("join handler panicked", "remote", r.Remote, "stack", string(debug.Stack()))
				err = errors.New("handler panicked")
			}
		}()
		if h == nil {
			return nil, &Error{CodeDenied, "this node invites nobody"} // it did when the connection began
		}
		return h(ctx, r)
	}()
	if err == nil && len(reply) > MaxJoinReply {
		err = fmt.Errorf("reply of %d bytes; at most %d", len(reply), MaxJoinReply)
	}
	if err == nil {
		return appendFrame([]byte{joinReplied}, reply)
	}
	var e *Error
	if !errors.As(err, &e) {
		n.c.Logger.Warn("join request failed; the stranger is told that the reason is withheld", "remote", r.Remote, "err", err)
		e = &Error{CodeInternal, "withheld"}
	}
	return joinRefusal(e)
}

func joinRefusal(e *Error) []byte {
	b, err := jcs.Marshal(e.clipped())
	if err != nil {
		b = []byte(`{"code":"internal","text":"withheld"}`)
	}
	return appendFrame([]byte{joinRefused}, b)
}
