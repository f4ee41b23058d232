package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlowStreamsAreReset(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		c := a.raw(t, "org-b")
		whole := a.forge(t, ask("org-b"), nil).bytes()
		start := time.Now()
		for _, n := range []int{1, headerSize, headerSize + 3, headerSize + 10, len(whole) - 1} {
			s, err := c.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(whole[:n]); err != nil {
				t.Fatal(err)
			}
			go func() { // one byte now and then doesn't help
				for i := n; i < len(whole) && s.Context().Err() == nil; i++ {
					time.Sleep(3 * time.Second)
					if _, err := s.Write(whole[i : i+1]); err != nil {
						return
					}
				}
			}()
			var e *Error
			if _, err := readFrame(s, 10); !errors.As(fromStream(err), &e) || e.Code != CodeTimeout {
				t.Errorf("after %d bytes: %v; want a reset with %s", n, err, CodeTimeout)
			}
		}
		if d := time.Since(start); d > 5*(b.limit.FrameTimeout+time.Second) {
			t.Errorf("it took %v", d)
		}
		synctest.Wait()
		if n := len(b.slots); n != 0 {
			t.Errorf("%d handlers are still taken", n)
		}
		b.wantLog(t)
	})
}

// One peer fills its share; it is told so, and another is served as if nothing were.
func TestFloodOfOnePeerLeavesOthersServed(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b", "org-c")
		hold := make(chan struct{})
		a, c := w.start("org-a", nil), w.start("org-c", nil)
		b := w.start("org-b", func(n *Node) {
			n.limit.HandlersPerPeer = 4
			n.Handle("question", func(ctx context.Context, r *Request) error {
				if r.From.ID == "org-a" {
					<-hold
				}
				return r.Reply(ctx, 1, ReplyOptions{}, nil)
			})
		})
		errs := make(chan error, 12)
		for range cap(errs) {
			go func() { _, err := a.Call(t.Context(), ask("org-b"), nil); errs <- err }()
		}
		for range cap(errs) - 4 {
			var e *Error
			if err := <-errs; !errors.As(err, &e) || e.Code != CodeOverloaded || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("over its share: %v", err)
			}
		}
		if _, err := c.Call(t.Context(), ask("org-b"), nil); err != nil {
			t.Errorf("the other peer: %v", err)
		}
		close(hold)
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if len(b.slots) != 0 {
			t.Error("handlers are still taken")
		}
	})
}

// A peer can't open more streams than it was given, however hard it tries.
func TestStreamsPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) { n.limit.StreamsPerConn = 3 })
		c := a.rawQUIC(t, "org-b")
		synctest.Wait()
		opened := 0
		for range 10 {
			s, err := c.OpenStream()
			if err != nil {
				break
			}
			opened++
			s.Write([]byte{1})
		}
		if opened != 3 {
			t.Errorf("%d streams at once; want 3", opened)
		}
	})
}

func TestRequestRate(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.limit.RequestsPerSecond, n.limit.RequestBurst = 1, 2
			n.Handle("question", echo)
		})
		count := func(calls int) (served int) {
			for range calls {
				_, err := a.Call(t.Context(), ask("org-b"), nil)
				var e *Error
				if err == nil {
					served++
				} else if !errors.As(err, &e) || e.Code != CodeRateLimited {
					t.Error(err)
				}
			}
			return served
		}
		if got := count(6); got != 2 {
			t.Errorf("%d of 6 served; the burst is 2", got)
		}
		time.Sleep(10 * time.Second)
		if got := count(6); got != 2 {
			t.Errorf("%d of 6 served after a pause", got)
		}
	})
}

func TestHandshakeGate(t *testing.T) {
	g := newGate(8, 2, 4)
	at := time.Unix(0, 0)
	var leave []func()
	enter := func(from net.Addr, at time.Time) bool {
		l, ok := g.enter(from, at)
		if ok {
			leave = append(leave, l)
		}
		return ok
	}
	ip := func(s string) net.Addr { return &net.UDPAddr{IP: net.ParseIP(s), Port: 1} }
	for i := range 4 {
		if !enter(ip("10.0.0.1"), at) {
			t.Fatalf("handshake %d refused", i)
		}
	}
	if enter(ip("10.0.0.1"), at) {
		t.Error("over the rate of one address")
	}
	if !enter(ip("10.0.0.2"), at) || !g.busy() {
		t.Error("another address must be admitted, and addresses be verified by now")
	}
	for _, a := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"} {
		if !enter(ip(a), at) {
			t.Errorf("%s refused", a)
		}
	}
	if enter(ip("10.0.0.3"), at) {
		t.Error("over the number of pending handshakes")
	}
	for _, l := range leave {
		l()
	}
	if !enter(ip("2001:db8::4"), at) || enter(ip("2001:db8::5"), at) {
		t.Error("addresses of one /64 share a bucket of four")
	}
	for i := range 3 * maxSources {
		if l, ok := g.enter(&net.UDPAddr{IP: net.IPv4(11, byte(i>>16), byte(i>>8), byte(i))}, at); ok {
			l()
		}
	}
	if len(g.sources) > maxSources+1 {
		t.Errorf("%d addresses are remembered", len(g.sources))
	}
	for range 4 {
		enter(ip("10.0.0.8"), at.Add(time.Hour))
	}
	if enter(ip("10.0.0.8"), at.Add(2*time.Hour)) {
		t.Error("one address holds more than half of the pending handshakes")
	}
	if len(g.sources) > 2 {
		t.Errorf("%d addresses are remembered an hour later", len(g.sources))
	}
}

// connect tries a handshake with b under a certificate of the caller's choice.
func (w *world) connect(t *testing.T, to OrgID, cert func() *tls.Certificate, from *peer) error {
	t.Helper()
	conf := from.clientTLS(to)
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert(), nil }
	c, err := from.dialLane(t.Context(), w.lane(), target{addr: w.orgs[to].addr}, conf)
	if err != nil {
		return err
	}
	defer c.conn.shut("", "")
	// TLS 1.3 clients are done before the server has judged their certificate.
	s, err := c.conn.open(t.Context())
	if err != nil {
		return err
	}
	if _, err := s.Write(from.forge(t, ask(to), nil).bytes()); err != nil {
		return err
	}
	s.Close()
	_, err = readFrame(s, MaxEnvelope)
	return err
}

func TestCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		cert func(t *testing.T, w *world) *tls.Certificate
		ok   bool
	}{
		"own":                   {func(t *testing.T, w *world) *tls.Certificate { return w.orgs["org-a"].leaf() }, true},
		"stranger":              {func(t *testing.T, w *world) *tls.Certificate { return w.stranger(t, "org-x") }, false},
		"same name, other root": {func(t *testing.T, w *world) *tls.Certificate { return w.stranger(t, "org-a") }, false},
		"none":                  {func(t *testing.T, w *world) *tls.Certificate { return &tls.Certificate{} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
				w := newWorld(t, "org-a", "org-b")
				a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
				a.raw(t, "org-b")
				cert := c.cert(t, w)
				err := w.connect(t, "org-b", func() *tls.Certificate { return cert }, a)
				if (err == nil) != c.ok {
					t.Errorf("handshake and request: %v", err)
				}
				if !c.ok {
					b.wantLog(t)
				}
			})
		})
	}
}

func TestExpiredCertificates(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		c := a.raw(t, "org-b")
		old := w.orgs["org-a"].leaf()
		time.Sleep(time.Until(old.Leaf.NotAfter) - 10*time.Minute)
		w.renew(t)
		if c.Context().Err() != nil {
			t.Error("cut off before the certificate expired")
		}
		time.Sleep(10*time.Minute + 5*time.Second)
		if c.Context().Err() == nil {
			t.Error("the connection outlived the certificate it rests on")
		}
		if err := context.Cause(c.Context()); !connectionLost(err) {
			t.Errorf("the connection ended with %v; what is under way goes on over another only if it is lost", err)
		}
		if err := w.connect(t, "org-b", func() *tls.Certificate { return old }, a); err == nil {
			t.Error("connected with an expired certificate")
		}
		if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
			t.Errorf("with the renewed certificate: %v", err)
		}
		b.wantLog(t, "request-received ok", "reply-sent ok")
	})
}

// A member that is expelled loses its connections, both ways, and its running requests, at once.
func TestFormerMembersAreCutOff(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b", "org-c")
		began, ended := make(chan struct{}), make(chan struct{})
		serve := func(n *Node) {
			n.Handle("question", echo)
			n.Handle("long", func(ctx context.Context, r *Request) error {
				close(began)
				<-ctx.Done()
				close(ended)
				return ctx.Err()
			})
		}
		a, b, c := w.start("org-a", serve), w.start("org-b", serve), w.start("org-c", serve)
		for _, p := range []*peer{a, c} {
			if _, err := p.Call(t.Context(), ask("org-b"), nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Call(t.Context(), ask("org-a"), nil); err != nil {
			t.Fatal(err)
		}
		conns := []conn{a.raw(t, "org-b"), b.raw(t, "org-a")}
		long := make(chan error, 1)
		go func() {
			m := ask("org-b")
			m.Type = "long"
			_, err := a.Call(t.Context(), m, nil)
			long <- err
		}()
		<-began
		set := w.without(t, "org-a")
		b.set.Store(set)
		start := time.Now()
		<-ended
		for _, conn := range conns {
			<-conn.Context().Done()
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("cut off after %v", d)
		}
		if err := <-long; err == nil {
			t.Error("the running request was answered")
		}
		if _, err := a.Call(t.Context(), ask("org-b"), nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("a former member was served: %v", err)
		}
		if _, err := b.Call(t.Context(), ask("org-a"), nil); err == nil {
			t.Error("a former member was called")
		}
		if _, err := c.Call(t.Context(), ask("org-b"), nil); err != nil {
			t.Errorf("the other member: %v", err)
		}
	})
}

// In between two sweeps, a request on an open connection is refused too.
func TestMembershipIsCheckedForEveryRequest(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		f := a.forge(t, ask("org-b"), nil)
		c := a.raw(t, "org-b")
		if got, _ := send(t, c, a.forge(t, ask("org-b"), nil).bytes()); got != "reply" {
			t.Fatal(got)
		}
		set := w.without(t, "org-a")
		b.set.Store(set)
		if got, _ := send(t, c, f.bytes()); got != "reset not-member" {
			t.Errorf("%s; want reset not-member", got)
		}
		b.wantLog(t, "request-received ok", "reply-sent ok")
	})
}

func TestConnectionsPerPeer(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) { n.limit.ConnsPerPeer = 2 })
		a.raw(t, "org-b")
		alive := 0
		var conns []conn
		for range 5 {
			c, err := a.dialLane(t.Context(), w.lane(), target{addr: w.orgs["org-b"].addr}, a.clientTLS("org-b"))
			if err != nil {
				continue
			}
			defer c.conn.shut("", "")
			conns = append(conns, c.conn)
		}
		time.Sleep(time.Second)
		for _, c := range conns {
			if c.Context().Err() == nil {
				alive++
			}
		}
		if alive != 1 {
			t.Errorf("%d further connections are open; want 1", alive)
		}
	})
}
