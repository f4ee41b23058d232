package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// retireBefore is how long before its own certificate expires a connection takes no new calls.
	retireBefore = time.Minute
	// keepUnused is how long a connection without calls is kept.
	keepUnused = 10 * time.Minute
	// maxAddresses bounds how many addresses of a peer are tried at once.
	maxAddresses = 8
)

// A dialer keeps one outbound connection to org, dialled when it is first needed and again after a loss.
type dialer struct {
	n     *Node
	org   OrgID
	only  []string // endpoints that are tried; default all
	asker net.Addr // at whose wish; default this node's own

	mu      sync.Mutex
	link    *link
	expires time.Time // of our own certificate on link
	old     []*link   // retired, still in use
	dialing *dialing
	last    string // address that worked last
	lane    Lane   // that worked last

	quicSince time.Time     // when QUIC came to be used
	pause     time.Duration // before QUIC is tried again
	returning *time.Timer   // to that; nil if it is not planned
}

// A dialing is one attempt to connect that all who wait share.
type dialing struct {
	done chan struct{}
	link *link
	err  error

	began  time.Time
	cancel func() // ends what is under way; d.mu guards it, and began
	anew   bool   // it was ended because the peer has just been heard of
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
			d.attend(l)
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

// lost takes a connection out of use whose loss a call has seen, maybe before the connection itself: the next one dials.
func (d *dialer) lost(l *link) {
	d.mu.Lock()
	if d.link == l {
		d.link = nil
	}
	d.mu.Unlock()
	l.close("", "lost")
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
		for again := true; again; {
			ctx, cancel := context.WithCancel(d.n.ctx)
			d.mu.Lock()
			at.began, at.cancel, at.anew = time.Now(), cancel, false
			d.mu.Unlock()
			at.link, at.err = d.dialWithin(ctx)
			cancel()
			d.mu.Lock()
			again = at.link == nil && at.anew
			d.mu.Unlock()
		}
		d.n.dialled(d.org, at.err)
		d.mu.Lock()
		d.dialing = nil
		if at.link != nil {
			d.take(at.link)
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

// hopeless is after what time a dialing is begun anew, if the peer connects by itself: until then it may have been away, or
// its way here cut.
const hopeless = time.Second

// heard begins a dialing to a member anew that has just connected, for whose first packets nobody may have been there.
func (n *Node) heard(org OrgID) {
	n.mu.Lock()
	d := n.dialers[org]
	n.mu.Unlock()
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.dialing; at != nil && at.cancel != nil && !at.anew && time.Since(at.began) > hopeless {
		at.anew = true
		at.cancel()
	}
}

// dialTimeout bounds one dialing over all addresses.
const dialTimeout = 10 * time.Second

// dial tries the member's endpoints over some lanes, without names all that this node speaks: the one that worked last first, each next one a little later.
func (d *dialer) dial(lanes ...Lane) (*link, error) { return d.dialWithin(d.n.ctx, lanes...) }

func (d *dialer) dialWithin(ctx context.Context, lanes ...Lane) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	select {
	case <-d.n.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: this node is not serving", ErrUnreachable, d.org)
	}
	if len(lanes) == 0 {
		lanes = d.n.lanes()
	}
	targets, err := d.targets(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, d.org, err)
	}
	won, _, err := race(ctx, d.ways(targets, lanes...), func(o dialled) { o.conn.shut("", "another way was faster") })
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, d.org, err)
	}
	l, err := d.n.newLink(won.conn, won.cs, d.org)
	if err != nil {
		won.conn.shut(CodeNotMember, "not a member in good standing")
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	l.to = won.to
	return l, nil
}

// targets resolves the endpoints of the member record in force now.
func (d *dialer) targets(ctx context.Context) ([]target, error) {
	m, ok := d.n.c.Members().Get(d.org)
	if !ok || m.Suspended {
		return nil, &Error{CodeNotMember, string(d.org) + " is not a member in good standing"}
	}
	var targets []target
	var errs []error
	for _, e := range m.Endpoints {
		if len(d.only) > 0 && !slices.Contains(d.only, e) {
			continue
		}
		addrs, err := d.n.resolveFor(ctx, d.asker, e)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", e, err))
		}
		for _, a := range addrs {
			targets = append(targets, target{e, a})
		}
	}
	if len(targets) == 0 {
		return nil, errors.Join(append(errs, errors.New("the member record names no endpoint that resolves"))...)
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	slices.SortStableFunc(targets, func(a, b target) int { return rank(a.addr, last) - rank(b.addr, last) })
	return targets[:min(len(targets), maxAddresses)], nil
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

// recheck cuts off a former member, and lets go of a connection that nobody uses or to where the member no longer is.
func (d *dialer) recheck() {
	for _, l := range d.links() {
		if l.conn.Context().Err() == nil {
			if _, err := d.n.check(l); err == nil { // else it is closed now
				d.n.dialled(d.org, nil)
			}
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
	moved := !slices.Contains(l.member.Endpoints, l.to.endpoint)
	l.mu.Unlock()
	if unused || moved {
		d.retire()
	}
}
