package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// raceDelay is the head start of an address before the next is tried as well (RFC 8305 section 5).
	raceDelay = 250 * time.Millisecond
	// retireBefore is how long before its own certificate expires a connection takes no new calls.
	retireBefore = time.Minute
	// keepUnused is how long a connection without calls is kept.
	keepUnused = 10 * time.Minute
	// maxAddresses bounds how many addresses of a peer are tried at once.
	maxAddresses = 8
)

// A dialer keeps one outbound connection to org, dialled when it is first needed and again after a loss.
type dialer struct {
	n   *Node
	org OrgID

	mu      sync.Mutex
	link    *link
	expires time.Time // of our own certificate on link
	old     []*link   // retired, still in use
	dialing *dialing
	last    string // address that worked last
}

// A dialing is one attempt to connect that all who wait share.
type dialing struct {
	done chan struct{}
	link *link
	err  error
}

func (n *Node) dialer(org OrgID) *dialer {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.dialers[org]
	if d == nil {
		d = &dialer{n: n, org: org}
		n.dialers[org] = d
	}
	return d
}

// get returns a live connection; release must follow. reused says that it wasn't dialled for this call.
func (d *dialer) get(ctx context.Context) (l *link, reused bool, err error) {
	for reused = true; ; reused = false {
		d.mu.Lock()
		if l := d.usable(); l != nil {
			l.mu.Lock()
			l.users++
			l.lastUse = time.Now()
			l.mu.Unlock()
			d.mu.Unlock()
			return l, reused, nil
		}
		at := d.begin()
		d.mu.Unlock()
		select {
		case <-at.done:
			if at.err != nil {
				return nil, false, at.err
			}
		case <-ctx.Done():
			return nil, false, fmt.Errorf("%w: %s: %w", ErrUnreachable, d.org, context.Cause(ctx))
		}
	}
}

// warm begins to connect, if there is no connection, without waiting for it.
func (d *dialer) warm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.usable() == nil {
		d.begin()
	}
}

// usable returns the current connection if it can take a call. d.mu is held.
func (d *dialer) usable() *link {
	if d.link == nil {
		return nil
	}
	if d.link.conn.Context().Err() != nil {
		d.link = nil
		return nil
	}
	if d.n.c.Now().After(d.expires.Add(-retireBefore)) {
		d.retire()
		return nil
	}
	return d.link
}

// retire lets the calls on the current connection finish. d.mu is held.
func (d *dialer) retire() {
	l := d.link
	d.link = nil
	l.mu.Lock()
	l.retired = true
	idle := l.users == 0
	l.mu.Unlock()
	if idle {
		l.close("", "unused")
		return
	}
	d.old = append(slices.DeleteFunc(d.old, func(o *link) bool { return o.conn.Context().Err() != nil }), l)
}

func (d *dialer) release(l *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	l.lastUse = time.Now()
	if l.retired && l.users == 0 {
		l.close("", "unused")
	}
}

// begin joins or starts a dialing. d.mu is held.
func (d *dialer) begin() *dialing {
	if d.dialing != nil {
		return d.dialing
	}
	at := &dialing{done: make(chan struct{})}
	d.dialing = at
	run := func() {
		at.link, at.err = d.dial()
		d.mu.Lock()
		d.dialing = nil
		if at.link != nil {
			d.link = at.link
			d.expires = d.n.c.Leaf.Leaf().Leaf.NotAfter
		}
		d.mu.Unlock()
		close(at.done)
	}
	if !d.n.spawn(run) {
		d.dialing = nil
		at.err = fmt.Errorf("%w: %s: this node is closed", ErrUnreachable, d.org)
		close(at.done)
	}
	return at
}

// dialTimeout bounds one dialing over all addresses.
const dialTimeout = 10 * time.Second

// dial tries the member's endpoints, the one that worked last first, each next one a little later.
func (d *dialer) dial() (*link, error) {
	ctx, cancel := context.WithTimeout(d.n.ctx, dialTimeout)
	defer cancel()
	select {
	case <-d.n.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: this node is not serving", ErrUnreachable, d.org)
	}
	addrs, err := d.addresses(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, d.org, err)
	}
	type result struct {
		addr net.Addr
		conn *quic.Conn
		err  error
	}
	results := make(chan result, len(addrs))
	try := func(a net.Addr) {
		conn, err := d.n.tr.Dial(ctx, a, d.n.clientTLS(d.org), d.n.quicConfig())
		results <- result{a, conn, err}
	}
	started, finished := 0, 0
	var errs []error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for finished < len(addrs) {
		var next <-chan time.Time
		if started < len(addrs) {
			next = timer.C
		}
		select {
		case <-next:
			go try(addrs[started])
			started++
			timer.Reset(raceDelay)
		case r := <-results:
			finished++
			if r.err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", r.addr, fromStream(r.err)))
				timer.Reset(0)
				continue
			}
			rest := started - finished
			go func() { // the losers of the race
				for range rest {
					if r := <-results; r.err == nil {
						_ = r.conn.CloseWithError(0, "another address was faster")
					}
				}
			}()
			return d.adopt(r.conn, r.addr)
		}
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, d.org, errors.Join(errs...))
}

func (d *dialer) adopt(conn *quic.Conn, addr net.Addr) (*link, error) {
	l, err := d.n.newLink(quicConn{conn}, conn.ConnectionState().TLS, d.org)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnreachable, err), conn.CloseWithError(quic.ApplicationErrorCode(CodeNotMember.number()), "not a member in good standing"))
	}
	d.mu.Lock()
	d.last = addr.String()
	d.mu.Unlock()
	return l, nil
}

// addresses resolves the endpoints of the member record in force now.
func (d *dialer) addresses(ctx context.Context) ([]net.Addr, error) {
	m, ok := d.n.c.Members().Get(d.org)
	if !ok || m.Suspended {
		return nil, &Error{CodeNotMember, string(d.org) + " is not a member in good standing"}
	}
	var addrs []net.Addr
	var errs []error
	for _, e := range m.Endpoints {
		a, err := d.n.c.Resolve(ctx, e)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", e, err))
		}
		addrs = append(addrs, a...)
	}
	if len(addrs) == 0 {
		return nil, errors.Join(append(errs, errors.New("the member record names no endpoint that resolves"))...)
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	slices.SortStableFunc(addrs, func(a, b net.Addr) int { return rank(a, last) - rank(b, last) })
	return addrs[:min(len(addrs), maxAddresses)], nil
}

func rank(a net.Addr, last string) int {
	if a.String() == last {
		return 0
	}
	return 1
}

// links returns all connections of d.
func (d *dialer) links() []*link {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == nil {
		return d.old
	}
	return append([]*link{d.link}, d.old...)
}

// recheck cuts off a former member and lets go of a connection that nobody uses.
func (d *dialer) recheck() {
	for _, l := range d.links() {
		if l.conn.Context().Err() == nil {
			_, _ = d.n.check(l) // closes it if it must
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.usable()
	if l == nil {
		return
	}
	l.mu.Lock()
	unused := l.users == 0 && time.Since(l.lastUse) > keepUnused
	l.mu.Unlock()
	if unused {
		d.retire()
	}
}
