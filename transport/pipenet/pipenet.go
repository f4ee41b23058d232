// Package pipenet is an in-memory network of streams, on which federations in one process have their TCP lane.
//
// Its three nouns: a [Network] with a latency; a [Host] on it, which listens and dials; a connection between two, with
// deadlines, a bounded buffer in each direction, and the usual ends.
//
// It promises to behave like TCP over the network that its filter describes: what is sent where nothing passes is not
// lost but late, connecting there takes until the caller gives up, and nobody learns that the other end was closed
// before something passes again. It works inside of testing/synctest bubbles.
package pipenet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how much one direction of a connection holds that was not read, in bytes.
const window = 256 << 10

// A Network carries streams between its hosts.
type Network struct {
	latency time.Duration
	blocked func(a, b string) bool

	mu        sync.Mutex
	listeners map[string]*listener
	ends      map[*end]struct{}
	port      int // of who dialled last
}

// New returns a network whose bytes take latency one way. blocked, if not nil, says between which hosts nothing passes;
// [Network.Wake] must be called when it comes to say something else.
func New(latency time.Duration, blocked func(a, b string) bool) *Network {
	if blocked == nil {
		blocked = func(string, string) bool { return false }
	}
	return &Network{latency: latency, blocked: blocked, listeners: map[string]*listener{}, ends: map[*end]struct{}{}, port: 32768}
}

// Wake looks again at what is blocked.
func (n *Network) Wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for e := range n.ends {
		e.in.wake()
		e.out.wake()
	}
	for _, l := range n.listeners {
		l.wake()
	}
}

// Crash loses what a host has sent and nobody has read yet, as when its power fails: of a host that is merely cut off, that
// arrives late.
func (n *Network) Crash(host net.IP) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for e := range n.ends {
		if e.remote.IP.Equal(host) {
			e.in.change(func() { e.in.queue, e.in.size = nil, 0 })
		}
	}
}

// A Host is an address on the network.
type Host struct {
	n    *Network
	addr *net.TCPAddr
}

// Host returns the host that listens at addr; its name, as the filter knows it, is addr.String().
func (n *Network) Host(addr *net.TCPAddr) *Host { return &Host{n, addr} }

// Listen accepts connections until the listener is closed.
func (h *Host) Listen() (net.Listener, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	name := h.addr.String()
	if h.n.listeners[name] != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, syscall.EADDRINUSE)
	}
	l := &listener{h: h, conns: make(chan *end), done: make(chan struct{}), awake: make(chan struct{})}
	h.n.listeners[name] = l
	return l, nil
}

// Dial connects to addr, "ip:port".
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	for {
		h.n.mu.Lock()
		l := h.n.listeners[addr]
		var awake chan struct{}
		if l != nil {
			awake = l.awake
		}
		h.n.mu.Unlock()
		if h.n.blocked(h.addr.String(), addr) {
			select {
			case <-awake:
				continue
			case <-ctx.Done():
				return nil, fmt.Errorf("dial %s: %w", addr, context.Cause(ctx))
			}
		}
		if l == nil {
			return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
		}
		return h.connect(ctx, l)
	}
}

func (h *Host) connect(ctx context.Context, l *listener) (net.Conn, error) {
	trip := time.NewTimer(2 * h.n.latency)
	defer trip.Stop()
	select {
	case <-trip.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	h.n.mu.Lock()
	h.n.port++
	from := &net.TCPAddr{IP: h.addr.IP, Port: h.n.port}
	h.n.mu.Unlock()
	dropped := func() bool { return h.n.blocked(h.addr.String(), l.h.addr.String()) }
	there, back := newPipe(h.n.latency, dropped), newPipe(h.n.latency, dropped)
	here := &end{n: h.n, in: back, out: there, local: from, remote: l.h.addr}
	far := &end{n: h.n, in: there, out: back, local: l.h.addr, remote: from}
	h.n.mu.Lock()
	h.n.ends[here], h.n.ends[far] = struct{}{}, struct{}{}
	h.n.mu.Unlock()
	var err error
	select {
	case l.conns <- far:
		return here, nil
	case <-l.done:
		err = syscall.ECONNREFUSED
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(fmt.Errorf("dial %s: %w", l.h.addr, err), here.Close(), far.Close())
}

type listener struct {
	h     *Host
	conns chan *end
	done  chan struct{}
	awake chan struct{} // closed and replaced by wake; Network.mu
	once  sync.Once
}

func (l *listener) wake() {
	close(l.awake)
	l.awake = make(chan struct{})
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.h.n.mu.Lock()
		defer l.h.n.mu.Unlock()
		delete(l.h.n.listeners, l.h.addr.String())
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.h.addr }

// An end is one of a connection's two.
type end struct {
	n             *Network
	in, out       *pipe
	local, remote *net.TCPAddr
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) LocalAddr() net.Addr         { return e.local }
func (e *end) RemoteAddr() net.Addr        { return e.remote }

func (e *end) Close() error {
	e.n.mu.Lock()
	delete(e.n.ends, e)
	e.n.mu.Unlock()
	e.in.change(func() { e.in.deaf = true })
	e.out.finish()
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.change(func() { e.in.readBy = e.in.until(t) })
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.change(func() { e.out.writeBy = e.out.until(t) })
	return nil
}

// A pipe is one direction of a connection.
type pipe struct {
	latency time.Duration
	dropped func() bool // whether nothing passes now

	mu              sync.Mutex
	changed         *sync.Cond
	queue           []segment
	size            int       // of queue, in bytes
	ended           time.Time // when the sender's end arrives; zero: not yet
	deaf            bool      // the reader is gone
	mute            bool      // the writer is gone
	readBy, writeBy time.Time
}

type segment struct {
	arrives time.Time
	b       []byte
}

func newPipe(latency time.Duration, dropped func() bool) *pipe {
	p := &pipe{latency: latency, dropped: dropped}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) wake() { p.change(func() {}) }

func (p *pipe) change(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.changed.Broadcast()
}

// until makes sure that whoever waits looks again at t. p.mu is held.
func (p *pipe) until(t time.Time) time.Time {
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), p.wake)
	}
	return t
}

func (p *pipe) finish() {
	p.change(func() {
		p.mute = true
		if p.ended.IsZero() {
			p.ended = p.until(time.Now().Add(p.latency))
		}
	})
}

func over(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.deaf:
			return 0, net.ErrClosed
		case over(p.readBy):
			return 0, os.ErrDeadlineExceeded
		case p.dropped():
		case len(p.queue) > 0 && over(p.queue[0].arrives):
			k := copy(b, p.queue[0].b)
			if p.queue[0].b = p.queue[0].b[k:]; len(p.queue[0].b) == 0 {
				p.queue = p.queue[1:]
			}
			p.size -= k
			p.changed.Broadcast()
			return k, nil
		case len(p.queue) == 0 && over(p.ended):
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (written int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		switch {
		case p.mute:
			return written, net.ErrClosed
		case over(p.writeBy):
			return written, os.ErrDeadlineExceeded
		case p.deaf && !p.dropped():
			return written, syscall.EPIPE
		case p.size < window:
			k := min(len(b), window-p.size)
			p.queue = append(p.queue, segment{p.until(time.Now().Add(p.latency)), append([]byte(nil), b[:k]...)})
			p.size += k
			written += k
			b = b[k:]
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
	return written, nil
}
