package transport

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fednode/transport/pki"
)

// TestReach has a member that answers, is away, and comes back.
func TestReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		b := w.start("org-b", nil)
		if r := a.Reach("org-b"); r != (Reach{}) {
			t.Errorf("before anything was tried: %+v", r)
		}
		a.mustCall(t, "org-b")
		if r := a.Reach("org-b"); r.Last.IsZero() || !r.Failed.IsZero() || r.Shown < 1 {
			t.Errorf("after a call: %+v", r)
		}
		if s := a.Sessions(); len(s) != 1 || s[0].RTT < 2*latency || s[0].RTT > 3*latency || s[0].Expires.Before(time.Now()) {
			t.Errorf("session %+v", s)
		}
		time.Sleep(3 * time.Second)
		if r := b.Reach("org-a"); time.Since(r.Last) > 2*time.Second || r.Shown < 2 {
			t.Errorf("seen from the other end: %+v", r)
		}
		known, err := b.KnownHead("org-a")
		if err != nil || known.Size < 1 || time.Since(known.Grown) > time.Minute {
			t.Errorf("org-b has seen %+v of org-a's log, %v", known, err)
		}
		w.partition(true)
		began := time.Now()
		for range 3 {
			if _, err := a.Call(t.Context(), Message{To: "org-b", Type: "question"}, nil); err == nil {
				t.Error("answered over a cut line")
			}
		}
		r := a.Reach("org-b")
		if r.Failed.Before(began) || r.Error == "" || r.Failed.Before(r.Last) {
			t.Errorf("while it is away: %+v", r)
		}
		w.partition(false)
		time.Sleep(time.Minute)
		a.mustCall(t, "org-b")
		if r := a.Reach("org-b"); !r.Failed.IsZero() || r.Error != "" {
			t.Errorf("after it came back: %+v", r)
		}
	})
}

// TestProbeSaysWhoRefusesWhose has certificates that the one or the other side refuses.
func TestProbeSaysWhoRefusesWhose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		var ahead atomic.Int64
		b := w.start("org-b", func(n *Node) { n.c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
		for _, lane := range []Lane{LaneQUIC, LaneTCP} {
			ahead.Store(int64(48 * time.Hour))
			if _, _, err := a.Probe(t.Context(), "org-b", lane, nil); !errors.Is(err, ErrOwnCertificate) || !errors.Is(err, ErrUnreachable) {
				t.Errorf("%s: org-b holds org-a's certificate for expired: %v", lane, err)
			}
			if _, _, err := b.Probe(t.Context(), "org-a", lane, nil); !errors.Is(err, pki.ErrExpired) {
				t.Errorf("%s: and asks itself: %v", lane, err)
			}
			ahead.Store(0)
		}
	})
}

func TestLocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		if l, err := a.Locate(t.Context(), "org-b"); err != nil || len(l) == 0 || len(l[0].Addrs) == 0 || l[0].Err != nil {
			t.Errorf("%+v, %v", l, err)
		}
		if l, err := a.Locate(t.Context(), "org-z"); err == nil {
			t.Errorf("a stranger: %+v", l)
		}
	})
}
