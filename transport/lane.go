package transport

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// A Lane is one of the two ways between nodes. Identities, checks, frames, limits and codes are the same on both.
type Lane string

const (
	LaneQUIC Lane = "quic" // QUIC over UDP: what is used where it works
	LaneTCP  Lane = "tcp"  // HTTP/2 over TLS over TCP, same port: where UDP is blocked
)

// A conn is a connection on either lane whose handshake is complete: a [quicConn] or a [tcpConn].
type conn interface {
	lane() Lane
	// open begins a request to the peer.
	open(ctx context.Context) (stream, error)
	// shut ends the connection at once, with all its streams; as far as the lane can tell the peer, with the code.
	shut(c Code, text string)
	// Context ends with the connection.
	Context() context.Context
	// received counts what arrived from the peer, in units of the lane's: it stands still while the peer is silent.
	received() uint64
	RemoteAddr() net.Addr
	// rtt estimates the round-trip time, 0 if it is not known.
	rtt() time.Duration
}

// A stream is one request and its answer.
type stream interface {
	io.ReadWriter
	// Close ends the sending direction.
	Close() error
	// abort ends both directions; what was not delivered is lost. The peer is told the code, as far as the lane can.
	abort(c Code)
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// Context ends when the peer gives up, when the connection ends, and when the sending direction is closed.
	Context() context.Context
}

type quicConn struct{ *quic.Conn }

func (quicConn) lane() Lane { return LaneQUIC }

func (c quicConn) open(ctx context.Context) (stream, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

func (c quicConn) shut(code Code, text string) {
	_ = c.CloseWithError(closeNumber(code), text) // the error is that it is closed already
}

func (c quicConn) received() uint64 { return c.ConnectionStats().PacketsReceived }

func closeNumber(c Code) quic.ApplicationErrorCode {
	if c == "" {
		return 0
	}
	return quic.ApplicationErrorCode(c.number())
}

type quicStream struct{ *quic.Stream }

func (s quicStream) abort(c Code) {
	s.CancelRead(quic.StreamErrorCode(c.number()))
	s.CancelWrite(quic.StreamErrorCode(c.number()))
}
