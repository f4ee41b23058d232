package transport

import (
	"context"
	"fmt"
	"net"
	"time"
)

// A connection whose packets are dropped looks like one whose peer is thinking. So while calls wait on it in silence, the
// peer is asked for a sign of life; if there is none, and a new connection comes about, the calls are moved there.
const (
	// quietAfter is how long it may be silent, and signWithin how long the sign may take.
	quietAfter = time.Second
	signWithin = time.Second

	// firstReturn and lastReturn are the pauses between attempts to get back to QUIC, doubled each time.
	firstReturn = 5 * time.Second
	lastReturn  = 5 * time.Minute
	// settledAfter is how long QUIC must have worked for the next pause to be the first again.
	settledAfter = time.Minute
)

// attend watches over l as long as it has users. l.mu is held.
func (d *dialer) attend(l *link) {
	if l.watched {
		return
	}
	l.watched, l.heard = true, l.conn.received()
	time.AfterFunc(quietAfter, func() { d.look(l) })
}

// look compares what was received with last time.
func (d *dialer) look(l *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == 0 || l.conn.Context().Err() != nil {
		l.watched = false
		return
	}
	heard := l.conn.received()
	quiet := heard == l.heard
	l.heard = heard
	if quiet && d.n.spawn(func() { d.suspect(l, heard) }) {
		return
	}
	time.AfterFunc(quietAfter, func() { d.look(l) })
}

// suspect asks for a sign of life and moves l's users to a new connection if there is none.
func (d *dialer) suspect(l *link, heard uint64) {
	silent := func() bool { return l.conn.received() == heard && l.conn.Context().Err() == nil }
	ctx, cancel := context.WithTimeout(d.n.ctx, signWithin)
	_, _ = ping(ctx, l.conn) // any packet is a sign: a refusal, an acknowledgement
	if silent() {
		<-ctx.Done()
	}
	cancel()
	if silent() && d.replacement(l) && silent() {
		d.n.c.Logger.Info("peer is silent here and answers elsewhere; calls are moved", "peer", d.org, "lane", l.conn.lane())
		l.forsaken.Store(true)
		l.close("", "silent")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = l.conn.received()
	time.AfterFunc(quietAfter, func() { d.look(l) })
}

// replacement takes new calls away from l and reports whether there is another connection for them.
func (d *dialer) replacement(l *link) bool {
	d.mu.Lock()
	if d.link == l {
		d.retire()
	}
	if d.usable() != nil {
		d.mu.Unlock()
		return true
	}
	at := d.begin()
	d.mu.Unlock()
	<-at.done
	return at.err == nil
}

// take makes l the connection for new calls. d.mu is held.
func (d *dialer) take(l *link) {
	if d.link != nil && d.link != l {
		d.retire()
	}
	lane := l.conn.lane()
	d.link, d.last, d.expires = l, l.to.addr.String(), d.n.c.Leaf.Leaf().Leaf.NotAfter
	if lane != d.lane {
		if d.lane != "" {
			d.n.c.Logger.Info("lane changed", "peer", d.org, "lane", lane, "before", d.lane)
		}
		d.n.m.lane(d.org, lane)
	}
	switch {
	case lane == LaneQUIC:
		d.quicSince = time.Now()
	case d.pause == 0 || d.lane == LaneQUIC && time.Since(d.quicSince) > settledAfter:
		d.pause = firstReturn
	}
	d.lane = lane
	if lane == LaneTCP {
		d.planReturn()
	}
}

// planReturn sees to it that QUIC is tried again. d.mu is held.
func (d *dialer) planReturn() {
	if d.returning == nil {
		d.returning = time.AfterFunc(jitter(2*d.pause), func() { d.n.spawn(d.tryReturn) })
	}
}

// tryReturn goes back to QUIC if that works again. Calls under way end where they are.
func (d *dialer) tryReturn() {
	d.mu.Lock()
	d.returning = nil
	over := d.usable() == nil || d.lane != LaneTCP
	d.mu.Unlock()
	if over {
		return // the next call tries both lanes anyway
	}
	l, err := d.dial(LaneQUIC)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.pause = min(2*d.pause, lastReturn)
		if d.usable() != nil && d.lane == LaneTCP {
			d.planReturn()
		}
		return
	}
	d.take(l)
}

// ping asks the peer's node for a sign of life and returns how long it took.
func ping(ctx context.Context, c conn) (time.Duration, error) {
	start := time.Now()
	s, err := c.open(ctx)
	if err != nil {
		return 0, err
	}
	stop := abortWith(ctx, s)
	defer stop()
	defer s.abort(CodeCancelled)
	if _, err := s.Write(header{kind: kindPing}.append(nil)); err != nil {
		return 0, err
	}
	if err := s.Close(); err != nil {
		return 0, err
	}
	if err := readEnd(s); err != nil {
		return 0, fromStream(err)
	}
	return time.Since(start), nil
}

// Probe connects to a member on one lane, at all endpoints of its record or some, beside the connections in use, and
// returns the round-trip time to its node and where that was reached. Errors wrap [ErrUnreachable], and
// [ErrOwnCertificate] or a class of package pki's if it was reached, and one of the two refuses the other's certificate.
// With an asker, the node that has it done from there, nothing nearer to this node than to that is called.
func (n *Node) Probe(ctx context.Context, org OrgID, lane Lane, asker net.Addr, endpoints ...string) (time.Duration, net.Addr, error) {
	if err := n.callable(org); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	d := &dialer{n: n, org: org, only: endpoints, asker: asker}
	l, err := d.dialWithin(ctx, lane)
	if refusesCertificate(err) {
		err = fmt.Errorf("%w: %w", ErrOwnCertificate, err)
	}
	if err != nil {
		return 0, nil, err
	}
	defer l.close("", "probe is over")
	rtt, err := ping(ctx, l.conn)
	if refusesCertificate(err) {
		err = fmt.Errorf("%w: %w", ErrOwnCertificate, err)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %s over %s: %w", ErrUnreachable, org, lane, err)
	}
	return rtt, l.conn.RemoteAddr(), nil
}

// A Session is a connection to a member.
type Session struct {
	Org     OrgID     `json:"organization_id"`
	Lane    Lane      `json:"lane"`
	Inbound bool      `json:"inbound"`
	Remote  string    `json:"remote"`
	Since   time.Time `json:"since"`
	Calls   int       `json:"calls"` // under way; outbound only
	// RTT is the connection's own estimate of the round-trip time in nanoseconds, 0 if there is none yet.
	RTT time.Duration `json:"rtt"`
	// Expires is when the first of the peer's certificates does.
	Expires time.Time `json:"certificate_expires"`
}

// Sessions returns the connections to members, in no order.
func (n *Node) Sessions() (out []Session) {
	n.mu.Lock()
	inbound, dialers := n.connections()
	n.mu.Unlock()
	add := func(l *link, in bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.conn.Context().Err() == nil {
			out = append(out, Session{l.org, l.conn.lane(), in, l.conn.RemoteAddr().String(), l.since, l.users, l.conn.rtt(), l.notAfter})
		}
	}
	for _, l := range inbound {
		add(l, true)
	}
	for _, d := range dialers {
		for _, l := range d.links() {
			add(l, false)
		}
	}
	return out
}
