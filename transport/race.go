package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"
)

// raceDelay is the head start of a way before the next is tried as well (RFC 8305 section 5).
const raceDelay = 250 * time.Millisecond

// retryRefused is how long after a refused connection it is tried once more, for as long as another way is still being tried:
// what refuses on one lane may just be starting, and the other lane may be blocked.
const retryRefused = 500 * time.Millisecond

// A way is one of several to connect to somebody.
type way[T any] struct {
	name string
	wait time.Duration // head start of the one before
	dial func(ctx context.Context) (T, error)
}

// race tries ways in their order, each a little after the one before or as soon as that has failed, and returns what
// connected first. drop gets the others.
func race[T any](ctx context.Context, ways []way[T], drop func(T)) (first T, which int, err error) {
	type result struct {
		conn  T
		which int
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(ways)) // no way is dialled twice at once
	running := 0
	dial := func(i int, pause time.Duration) {
		running++
		go func() {
			conn, err := after(ctx, pause, ways[i].dial)
			results <- result{conn, i, err}
		}()
	}
	defer func() {
		go func() {
			for range running {
				if r := <-results; r.err == nil {
					drop(r.conn)
				}
			}
		}()
	}()
	started, failed := 0, make([]error, len(ways))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for slices.Contains(failed, nil) {
		var next <-chan time.Time
		if started < len(ways) {
			next = timer.C
		}
		select {
		case <-next:
			dial(started, 0)
			if started++; started < len(ways) {
				timer.Reset(ways[started].wait)
			}
		case r := <-results:
			running--
			if r.err == nil {
				return r.conn, r.which, nil
			}
			failed[r.which] = fmt.Errorf("%s: %w", ways[r.which].name, fromStream(r.err))
			if errors.Is(r.err, syscall.ECONNREFUSED) {
				dial(r.which, retryRefused)
			}
			timer.Reset(0)
		}
	}
	return first, 0, errors.Join(failed...)
}

// after calls dial once a pause is over.
func after[T any](ctx context.Context, pause time.Duration, dial func(context.Context) (T, error)) (none T, err error) {
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
	}
	return dial(ctx)
}

// A dialled is a connection to a member and how it came about.
type dialled struct {
	conn conn
	cs   tls.ConnectionState
	to   target
}

// A target is where a member may be reached.
type target struct {
	endpoint string // of its record
	addr     net.Addr
}

// ways orders the ways to targets: with QUIC first, or both lanes at once where QUIC did not work last time.
func (d *dialer) ways(targets []target, lanes ...Lane) (out []way[dialled]) {
	d.mu.Lock()
	last := d.lane
	d.mu.Unlock()
	for _, to := range targets {
		for i, lane := range lanes {
			w := way[dialled]{name: fmt.Sprintf("%s %s", lane, to.addr), wait: raceDelay}
			if i > 0 && last == LaneTCP {
				w.wait = 0
			}
			w.dial = func(ctx context.Context) (dialled, error) { return d.n.dialLane(ctx, lane, to, d.n.clientTLS(d.org)) }
			out = append(out, w)
		}
	}
	return out
}

// lanes are those this node speaks; it is ready.
func (n *Node) lanes() []Lane {
	if n.tcpOff {
		return []Lane{LaneQUIC}
	}
	return []Lane{LaneQUIC, LaneTCP}
}

func (n *Node) dialLane(ctx context.Context, lane Lane, to target, conf *tls.Config) (dialled, error) {
	if lane == LaneTCP {
		c, cs, err := n.dialTCP(ctx, to.addr, conf)
		if err != nil {
			return dialled{}, err
		}
		return dialled{c, cs, to}, nil
	}
	c, err := n.tr.Dial(ctx, udpAddr(to.addr), conf, n.quicConfig())
	if err != nil {
		return dialled{}, err
	}
	return dialled{quicConn{c}, c.ConnectionState().TLS, to}, nil
}

// udpAddr is a as quic-go wants it, whatever the resolver returned.
func udpAddr(a net.Addr) net.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return &net.UDPAddr{IP: t.IP, Port: t.Port, Zone: t.Zone}
	}
	return a
}
