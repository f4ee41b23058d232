package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The TCP lane is HTTP/2 as net/http speaks it, under an ALPN name of our own: one POST per request, its body the
// request's bytes, its answer's body the answer's. A reset with a code, for which HTTP/2 has no room, is the field
// codeField: of the header, status 400, if nothing of an answer was sent; else of the trailer.
const (
	codeField = "Fednode-Code"

	// maxFields bounds the fields of a request or an answer, in bytes. There are four of a few bytes each.
	maxFields = 2 << 10
	// Windows are how much is held for a reader that is slow, in bytes: of one request, in which a whole envelope fits; of
	// all on one inbound connection; of one answer, which may be an artifact from far away. The latter two are just under
	// the largest that net/http takes.
	h2Request = 1 << 20
	h2Inbound = 4<<20 - 1
	h2Answer  = 4<<20 - 1
	h2Frame   = 64 << 10
)

// errLost means that the connection has ended under a request.
var errLost = errors.New("connection lost")

// h2Config bounds what a connection holds in memory. Outbound there is no bound over all streams: it is this node that
// opens them, and one that nobody reads must not hold up the others.
func (n *Node) h2Config(stream, connection int) *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: n.limit.StreamsPerConn, StrictMaxConcurrentRequests: true, MaxReadFrameSize: h2Frame,
		MaxReceiveBufferPerStream: stream, MaxReceiveBufferPerConnection: connection,
		SendPingTimeout: n.limit.KeepAlive, PingTimeout: max(n.limit.IdleTimeout-n.limit.KeepAlive, time.Second)}
}

// inboundH2Config leaves keeping the connection alive to the peer, who has dialled it.
func (n *Node) inboundH2Config() *http.HTTP2Config {
	c := n.h2Config(h2Request, h2Inbound)
	c.SendPingTimeout = max(n.limit.IdleTimeout-c.PingTimeout/2, time.Second)
	c.PingTimeout /= 2
	return c
}

func h2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true) // net/http sees what is inside of our TLS
	return p
}

// A tcpConn is a TLS connection on the TCP lane.
type tcpConn struct {
	net.Conn // TLS
	raw      net.Conn
	client   *http.ClientConn // outbound only
	link     *link            // inbound only

	ctx   context.Context
	end   context.CancelCauseFunc
	count atomic.Uint64 // bytes read
	once  sync.Once
	first chan struct{} // closed when the peer's first bytes are here
}

func newTCPConn(t *tls.Conn) *tcpConn {
	c := &tcpConn{Conn: t, raw: t.NetConn(), first: make(chan struct{})}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	return c
}

func (*tcpConn) lane() Lane                 { return LaneTCP }
func (c *tcpConn) Context() context.Context { return c.ctx }
func (c *tcpConn) received() uint64         { return c.count.Load() }

func (c *tcpConn) Read(p []byte) (int, error) {
	k, err := c.Conn.Read(p)
	if k > 0 {
		c.count.Add(uint64(k))
		c.once.Do(func() { close(c.first) })
	}
	return k, c.failed(err)
}

func (c *tcpConn) Write(p []byte) (int, error) {
	k, err := c.Conn.Write(p)
	return k, c.failed(err)
}

// failed ends the connection's context before whoever uses it learns of err, so that they know what it means.
func (c *tcpConn) failed(err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(fmt.Errorf("%w: %w", errLost, err))
	}
	return err
}

// Close ends the connection without a word of TLS, which could block for as long as the peer doesn't read: every frame
// of ours says how long it is, so nothing that is cut off passes for whole.
func (c *tcpConn) Close() error {
	c.end(fmt.Errorf("%w: closed", errLost))
	return c.raw.Close()
}

// farewell is how long a connection stays that is ended with a code, for requests under way to be told it.
const farewell = 250 * time.Millisecond

func (c *tcpConn) shut(code Code, text string) {
	if code == "" || c.link == nil {
		_ = c.Close() // the error is that it is closed already
		return
	}
	c.end(fmt.Errorf("%w: %s", errLost, text))
	time.AfterFunc(farewell, func() { _ = c.Close() })
}

// connect makes c speak HTTP/2, and waits for the peer's first bytes: a TLS 1.3 client believes in the connection before
// the server has judged its certificate.
func (c *tcpConn) connect(ctx context.Context, n *Node) (err error) {
	tr := &http.Transport{Protocols: h2Only(), HTTP2: n.h2Config(h2Answer, 0), DisableCompression: true, MaxResponseHeaderBytes: maxFields,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	if c.client, err = tr.NewClientConn(ctx, "http", "peer:443"); err != nil {
		return err
	}
	select {
	case <-c.first:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *tcpConn) open(ctx context.Context) (stream, error) {
	if c.ctx.Err() != nil {
		return nil, context.Cause(c.ctx)
	}
	if c.client.Err() != nil { // it has run out of stream numbers, or speaks no HTTP/2
		_ = c.Close()
		return nil, context.Cause(c.ctx)
	}
	s := &asked{c: c}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.body.more = sync.NewCond(&s.body.mu)
	return s, nil
}

// An asked is the asker's end of a stream. What is written waits for the first read, which sends it: a request that is
// whole by then goes out in one piece.
type asked struct {
	c      *tcpConn
	ctx    context.Context // of the HTTP request
	cancel context.CancelCauseFunc
	body   outbox

	mu       sync.Mutex
	deadline *time.Timer // of reading

	begun  bool // by the one who reads
	answer *http.Response
	err    error
}

func (s *asked) Context() context.Context         { return s.ctx }
func (s *asked) Write(p []byte) (int, error)      { return s.body.write(p) }
func (s *asked) Close() error                     { return s.body.finish(io.EOF) }
func (s *asked) SetWriteDeadline(time.Time) error { return nil } // writing does not wait

func (s *asked) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadline == nil {
		s.deadline = time.AfterFunc(time.Until(t), func() { s.cancel(os.ErrDeadlineExceeded) })
	} else {
		s.deadline.Reset(time.Until(t))
	}
	return nil
}

func (s *asked) abort(c Code) {
	s.release(&Error{c, "given up"})
}

// release ends the stream and frees what it holds.
func (s *asked) release(cause error) {
	s.cancel(cause)
	_ = s.body.finish(cause)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadline != nil {
		s.deadline.Stop()
	}
}

func (s *asked) Read(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.err = s.begin()
	}
	if s.err != nil {
		return 0, s.err
	}
	k, err := s.answer.Body.Read(p)
	switch {
	case err == io.EOF && s.answer.Trailer.Get(codeField) != "":
		s.err = refusedWith(s.answer.Trailer)
	case err == io.EOF:
		s.err = err
	case err != nil:
		s.err = s.failure(err)
	default:
		return k, nil
	}
	s.release(s.err)
	return k, s.err
}

// begin sends what was written and waits for the head of the answer.
func (s *asked) begin() error {
	r := (&http.Request{Method: "POST", URL: &url.URL{Scheme: "http", Host: "peer", Path: "/"}, Header: http.Header{"User-Agent": {""}}, ContentLength: -1}).WithContext(s.ctx)
	if b, whole := s.body.whole(); whole {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	} else {
		r.Body = &s.body
	}
	answer, err := s.c.client.RoundTrip(r)
	if err != nil {
		err = s.failure(err)
		s.release(err)
		return err
	}
	s.answer = answer
	if answer.StatusCode != http.StatusOK {
		err := refusedWith(answer.Header)
		s.release(err)
		return err
	}
	return nil
}

func refusedWith(h http.Header) error {
	number, _ := strconv.ParseUint(h.Get(codeField), 10, 32)
	return &Error{codeOf(number), "refused without a signed answer"}
}

// failure says what an error of net/http's, which has no names for them, means.
func (s *asked) failure(err error) error {
	switch {
	case s.c.ctx.Err() != nil:
		return context.Cause(s.c.ctx)
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case s.c.client.Err() != nil: // what the peer said was no HTTP/2, or it is leaving
		_ = s.c.Close()
		return context.Cause(s.c.ctx)
	}
	return &Error{CodeInternal, "refused without a signed answer: " + err.Error()}
}

// An outbox is the body of an HTTP request that is written bit by bit. It holds what was not sent yet: a request, or the
// byte that acknowledges an artifact.
type outbox struct {
	mu    sync.Mutex
	more  *sync.Cond
	b     []byte
	ended error // after b
}

func (o *outbox) write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended != nil {
		return 0, io.ErrClosedPipe
	}
	o.b = append(o.b, p...)
	o.more.Broadcast()
	return len(p), nil
}

func (o *outbox) finish(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended == nil {
		o.ended = err
	}
	o.more.Broadcast()
	return nil
}

// whole returns all there is to send, if that is known.
func (o *outbox) whole() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b, o.ended == io.EOF
}

// Read is for net/http.
func (o *outbox) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.b) == 0 && o.ended == nil {
		o.more.Wait()
	}
	if len(o.b) == 0 {
		return 0, o.ended
	}
	k := copy(p, o.b)
	o.b = o.b[k:]
	return k, nil
}

// Close is for net/http: nothing more will be sent.
func (o *outbox) Close() error { return o.finish(io.ErrClosedPipe) }

// A served is the end of a stream that answers.
type served struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	r     *http.Request
	ended context.Context // with the connection
	wrote bool
}

func (s *served) Context() context.Context           { return s.r.Context() }
func (s *served) Read(p []byte) (int, error)         { return s.r.Body.Read(p) }
func (s *served) SetReadDeadline(t time.Time) error  { return s.c.SetReadDeadline(t) }
func (s *served) SetWriteDeadline(t time.Time) error { return s.c.SetWriteDeadline(t) }
func (s *served) Close() error                       { return s.c.Flush() } // the end follows when the handler returns

func (s *served) Write(p []byte) (int, error) {
	if s.ended.Err() != nil { // in its farewell, a connection carries codes only
		return 0, errLost
	}
	s.wrote = true
	return s.w.Write(p)
}

func (s *served) abort(c Code) {
	field, number := codeField, strconv.FormatUint(c.number(), 10)
	if s.wrote {
		field = http.TrailerPrefix + codeField
	}
	s.w.Header().Set(field, number)
	if !s.wrote {
		s.wrote = true
		s.w.WriteHeader(http.StatusBadRequest)
	}
}

// linkKey finds the *link of an inbound connection in its requests' contexts.
type linkKey struct{}

// h2Server serves the requests of inbound connections, whose handshake is complete and whose peers are members.
func (n *Node) h2Server() *http.Server {
	return &http.Server{Protocols: h2Only(), HTTP2: n.inboundH2Config(), MaxHeaderBytes: maxFields, ReadHeaderTimeout: handshakeTimeout,
		ErrorLog: slog.NewLogLogger(n.c.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, linkKey{}, c.(*tcpConn).link)
		},
		Handler: http.HandlerFunc(n.serveHTTP2)}
}

func (n *Node) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	l, ok := r.Context().Value(linkKey{}).(*link)
	if !ok || !n.enter() {
		return
	}
	defer n.work.Done()
	w.Header()["Date"], w.Header()["Content-Type"] = nil, nil // nothing compares clocks here, or guesses
	n.serveStream(l, &served{w: w, c: http.NewResponseController(w), r: r, ended: l.conn.Context()})
}
