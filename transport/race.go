package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// raceDelay is the head start of a way before the next is tried as well (RFC 8305 section 5).
const raceDelay = 250 * time.Millisecond

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
	results := make(chan result, len(ways))
	started, finished := 0, 0
	var errs []error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for finished < len(ways) {
		var next <-chan time.Time
		if started < len(ways) {
			next = timer.C
		}
		select {
		case <-next:
			i := started
			go func() {
				conn, err := ways[i].dial(ctx)
				results <- result{conn, i, err}
			}()
			if started++; started < len(ways) {
				timer.Reset(ways[started].wait)
			}
		case r := <-results:
			finished++
			if r.err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", ways[r.which].name, fromStream(r.err)))
				timer.Reset(0)
				continue
			}
			rest := started - finished
			go func() {
				for range rest {
					if r := <-results; r.err == nil {
						drop(r.conn)
					}
				}
			}()
			return r.conn, r.which, nil
		}
	}
	return first, 0, errors.Join(errs...)
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
