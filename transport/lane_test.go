package transport

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// onLanes runs a test once with UDP, where QUIC is used, and once without.
func onLanes(t *testing.T, test func(t *testing.T, newWorld func(t testing.TB, names ...OrgID) *world)) {
	for _, lane := range []Lane{LaneQUIC, LaneTCP} {
		t.Run(string(lane), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test(t, func(t testing.TB, names ...OrgID) *world {
					w := newWorld(t, names...)
					w.blockUDP(lane == LaneTCP)
					return w
				})
			})
		})
	}
}

// within fails the test if fn takes longer.
func within(t *testing.T, limit time.Duration, what string, fn func()) {
	t.Helper()
	start := time.Now()
	fn()
	if d := time.Since(start); d > limit {
		t.Errorf("%s took %v; want at most %v", what, d, limit)
	}
}

func (p *peer) laneTo(to OrgID) Lane {
	for _, s := range p.Sessions() {
		if s.Org == to && !s.Inbound {
			return s.Lane
		}
	}
	return ""
}

func (p *peer) mustCall(t *testing.T, to OrgID) {
	t.Helper()
	if _, err := p.Call(t.Context(), ask(to), nil); err != nil {
		t.Errorf("call %s: %v", to, err)
	}
}

// wait lets time pass until fn is true, at most limit of it.
func wait(t *testing.T, limit time.Duration, what string, fn func() bool) {
	t.Helper()
	for start := time.Now(); !fn(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

func TestUDPBlockedFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		w.blockUDP(true)
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		within(t, 3*time.Second, "the first call", func() { a.mustCall(t, "org-b") })
		if l := a.laneTo("org-b"); l != LaneTCP {
			t.Errorf("lane %q", l)
		}
		within(t, 3*latency+10*time.Millisecond, "the second call", func() { a.mustCall(t, "org-b") })
		w.blockUDP(false)
		wait(t, 2*firstReturn+time.Second, "QUIC", func() bool { return a.laneTo("org-b") == LaneQUIC })
		a.mustCall(t, "org-b")
		b.wantLog(t, "request-received ok", "reply-sent ok", "request-received ok", "reply-sent ok", "request-received ok", "reply-sent ok")
		time.Sleep(time.Second)
		if n := len(a.Sessions()); n != 1 {
			t.Errorf("%d sessions: the TCP connection is kept", n)
		}
	})
}

// A connection that stood before is not trusted for ever: the call that finds it dead is answered all the same, once.
func TestUDPBlockedBetweenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		a.mustCall(t, "org-b")
		time.Sleep(time.Minute)
		w.blockUDP(true)
		within(t, 3*time.Second, "the call", func() { a.mustCall(t, "org-b") })
		if l := a.laneTo("org-b"); l != LaneTCP {
			t.Errorf("lane %q", l)
		}
		b.wantLog(t, "request-received ok", "reply-sent ok", "request-received ok", "reply-sent ok")
		a.verifyReceipts(t, w, 0)
		b.verifyReceipts(t, w, 2)
	})
}

// The peer is at work when UDP is cut off. The request is delivered again, under the same message id, so that it counts
// once; whether it does is for its sender to find out.
func TestUDPBlockedDuringACall(t *testing.T) {
	for name, h := range map[string]Handler{
		"accepted": func(ctx context.Context, r *Request) error {
			if err := r.Accept(ctx, nil); err != nil {
				return err
			}
			time.Sleep(20 * time.Second)
			return r.Reply(ctx, 1, ReplyOptions{}, nil)
		},
		"not accepted": func(ctx context.Context, r *Request) error {
			time.Sleep(20 * time.Second)
			return r.Reply(ctx, 1, ReplyOptions{}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "org-a", "org-b")
				a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
					n.Handle("slow", h)
					n.Handle("question", echo)
				})
				a.mustCall(t, "org-b")
				slow := make(chan error, 1)
				go func() {
					m := ask("org-b")
					m.Type = "slow"
					_, err := a.Call(t.Context(), m, nil)
					slow <- err
				}()
				time.Sleep(5 * time.Second)
				w.blockUDP(true)
				within(t, 3*time.Second, "the switch", func() {
					for a.laneTo("org-b") != LaneTCP {
						time.Sleep(10 * time.Millisecond)
					}
				})
				within(t, time.Second, "another call", func() { a.mustCall(t, "org-b") })
				if err := <-slow; !errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("the call that was cut off: %v; want %v", err, ErrUnknownOutcome)
				}
				time.Sleep(time.Minute)
				accepted := 0
				for _, r := range results(b.entries(t)) {
					if r == "request-received ok" {
						accepted++
					}
				}
				if accepted != 3 {
					t.Errorf("%d requests count; want 3:\n%q", accepted, results(b.entries(t)))
				}
			})
		})
	}
}

// A peer that works in silence is left alone.
func TestSilenceIsNoSwitch(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error {
				time.Sleep(25 * time.Second)
				return r.Reply(ctx, 1, ReplyOptions{}, nil)
			})
		})
		a.mustCall(t, "org-b")
		before := a.Sessions()
		a.mustCall(t, "org-b")
		if after := a.Sessions(); len(after) != 1 || w.lane() == LaneQUIC && after[0].Since != before[0].Since {
			t.Errorf("sessions %+v before, %+v after", before, after)
		}
	})
}

func TestUDPBlockedDuringAnArtifact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3 << 20
		w := newWorld(t, "org-a", "org-b")
		done := make(chan delivery, 16)
		a := w.start("org-a", nil)
		w.start("org-b", serveArtifact(size, done))
		var got bytes.Buffer
		var cut time.Time
		info, err := a.Fetch(t.Context(), fetchMessage(), Sink{Commitment: commitment(size), Writer: writerFunc(func(p []byte) (int, error) {
			if got.Len() > size/3 && cut.IsZero() {
				cut = time.Now()
				w.blockUDP(true)
			}
			return got.Write(p)
		})})
		if err != nil || !bytes.Equal(got.Bytes(), content(size)) {
			t.Fatalf("%d of %d bytes, %v", got.Len(), size, err)
		}
		if d := time.Since(cut); d > 4*time.Second {
			t.Errorf("the rest took %v", d)
		}
		if info.Attempts != 2 || a.laneTo("org-b") != LaneTCP {
			t.Errorf("%d attempts, lane %q", info.Attempts, a.laneTo("org-b"))
		}
	})
}

// A node's own firewall begins to refuse UDP: the connection's writes fail, and what went on over it goes on over TCP.
func TestOwnFirewallRefusesUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3 << 20
		w := newWorld(t, "org-a", "org-b")
		done := make(chan delivery, 16)
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) { serveArtifact(size, done)(n); n.Handle("question", echo) })
		a.mustCall(t, "org-b")
		w.router.mine.Store(true)
		a.mustCall(t, "org-b")
		w.router.mine.Store(false)
		for since := time.Now(); a.laneTo("org-b") != LaneQUIC; time.Sleep(time.Second) {
			if time.Since(since) > time.Minute {
				t.Fatal("not back on QUIC")
			}
		}
		var got bytes.Buffer
		_, err := a.Fetch(t.Context(), fetchMessage(), Sink{Commitment: commitment(size), Writer: writerFunc(func(p []byte) (int, error) {
			if got.Len() > size/3 {
				w.router.mine.Store(true)
			}
			return got.Write(p)
		})})
		if err != nil || !bytes.Equal(got.Bytes(), content(size)) {
			t.Fatalf("%d of %d bytes, %v", got.Len(), size, err)
		}
		if a.laneTo("org-b") != LaneTCP {
			t.Errorf("lane %q", a.laneTo("org-b"))
		}
	})
}

// Both ways are blocked, and open again: nothing is lost but time.
func TestTCPBlockedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		w.partition(true)
		within(t, dialTimeout+time.Second, "finding out", func() {
			_, err := a.Call(t.Context(), ask("org-b"), nil)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "quic 10.0.0.2:443") || !strings.Contains(err.Error(), "tcp 10.0.0.2:443") {
				t.Errorf("nothing passes: %v", err)
			}
		})
		w.partition(false)
		a.mustCall(t, "org-b")

		// In the middle of a call, for a time that connections survive.
		answered := make(chan error, 1)
		go func() { _, err := a.Call(t.Context(), ask("org-b"), nil); answered <- err }()
		w.partition(true)
		time.Sleep(15 * time.Second)
		w.partition(false)
		if err := <-answered; err != nil {
			t.Error(err)
		}
		b.wantLog(t, "request-received ok", "reply-sent ok", "request-received ok", "reply-sent ok")
	})
}

// UDP comes and goes. Every call is answered or of unknown outcome, none counts twice, and connections don't pile up.
func TestLaneFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		var mu sync.Mutex
		served := map[MessageID]int{}
		a := w.start("org-a", nil)
		b := w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error {
				time.Sleep(300 * time.Millisecond)
				if err := r.Accept(ctx, nil); err != nil {
					return err
				}
				mu.Lock()
				served[r.Envelope.MessageID]++
				mu.Unlock()
				return r.Reply(ctx, 1, ReplyOptions{}, nil)
			})
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var flapping sync.WaitGroup
		defer flapping.Wait()
		flapping.Go(func() {
			for blocked := true; ctx.Err() == nil; blocked = !blocked {
				time.Sleep(4 * time.Second)
				w.blockUDP(blocked)
			}
		})
		answered, unknown := 0, 0
		for ctx.Err() == nil {
			switch _, err := a.Call(t.Context(), ask("org-b"), nil); {
			case err == nil:
				answered++
			case errors.Is(err, ErrUnknownOutcome):
				unknown++
			default:
				t.Error(err)
			}
			if n := len(b.Sessions()); n >= b.limit.ConnsPerPeer {
				t.Errorf("%d sessions", n)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range served {
			if n != 1 {
				t.Errorf("%s counted %d times", id, n)
			}
		}
		if answered < 300 || unknown > 20 || len(served) < answered {
			t.Errorf("%d calls answered, %d unknown, %d served", answered, unknown, len(served))
		}
	})
}

// A member whose record names another address is called there, without restart, and its old connection let go.
func TestEndpointChange(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		serve := func(n *Node) { n.Handle("question", echo) }
		a, b := w.start("org-a", nil), w.start("org-b", serve)
		a.mustCall(t, "org-b")
		b.stop(t)
		w.move("org-b", kept{w.spare[0]})
		w.start("org-b", serve)
		a.Recheck()
		within(t, time.Second, "the call to the new address", func() { a.mustCall(t, "org-b") })
		if s := a.Sessions(); len(s) != 1 || s[0].Remote != "10.1.0.0:9" {
			t.Errorf("sessions %+v", s)
		}
	})
}

func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", nil)
		for _, lane := range []Lane{LaneQUIC, LaneTCP} {
			rtt, addr, err := a.Probe(t.Context(), "org-b", lane, nil)
			if err != nil || rtt < 2*latency || rtt > 3*latency || !strings.HasPrefix(addr.String(), "10.0.0.2:443") {
				t.Errorf("%s: %v to %v, %v", lane, rtt, addr, err)
			}
		}
		w.blockUDP(true)
		if _, _, err := a.Probe(t.Context(), "org-b", LaneQUIC, nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("UDP is blocked: %v", err)
		}
		if len(a.Sessions()) != 0 {
			t.Error("probes leave sessions behind")
		}
	})
}
