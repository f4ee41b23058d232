package fed

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/node"
	"fednode/transport"
)

func (f *Federation) status(o *Org) node.Status {
	f.t.Helper()
	st, err := o.Node.Status()
	f.must(err)
	return st
}

// confirmed is how long ago, by the organisation's own copy, a quorum confirmed the governance log.
func (f *Federation) confirmed(o *Org) time.Duration {
	return time.Since(f.status(o).Governance.Confirmed)
}

// cutOff separates an organisation from all others, or joins it to them again.
func (f *Federation) cutOff(o *Org, cut bool) {
	for _, other := range f.Orgs {
		if other != o {
			f.Network.Cut(o, other, cut)
		}
	}
}

// idle are limits for tests that span days, in which idle connections say little.
func idle() transport.Limits {
	return transport.Limits{KeepAlive: 10 * time.Minute, IdleTimeout: 30 * time.Minute}
}

// TestGovernanceIsRenewed wants the members' confirmation of the log never to be much older than an hour, and nobody to
// write anything into it for that.
func TestGovernanceIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 4, Limits: idle()})
		before := f.status(f.Orgs[0]).Governance
		for range 5 {
			time.Sleep(time.Hour + 7*time.Minute)
			for _, o := range f.Orgs {
				if age := f.confirmed(o); age > 70*time.Minute {
					t.Errorf("%s: confirmed %v ago", o.ID, age)
				}
			}
		}
		if now := f.status(f.Orgs[2]).Governance; now.Size != before.Size || now.Root != before.Root || now.Alarm != "" {
			t.Errorf("%+v, before %+v", now, before)
		}
	})
}

// TestMissedGovernanceIsCaughtUp has a member sleep through renewals, and know of them before it serves.
func TestMissedGovernanceIsCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 4, Agents: map[int]string{0: ApproveAll}, Limits: idle()})
		a := f.Agree(Workflow)
		d := f.Orgs[3]
		f.must(d.Stop())
		time.Sleep(30 * time.Hour) // three of four are a quorum
		if age := f.confirmed(f.Orgs[0]); age > 70*time.Minute {
			t.Errorf("without org-d: confirmed %v ago", age)
		}
		d.Start()
		f.Wait("org-d to catch up", func() bool { return f.confirmed(d) < 70*time.Minute })
		b := f.Orgs[1]
		f.must(b.Stop())
		time.Sleep(3 * time.Hour)
		b.Start()
		if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", run.State, run.Error)
		}
		if age := f.confirmed(b); age > 70*time.Minute {
			t.Errorf("org-b served with what it knew %v ago", age)
		}
	})
}

// TestStaleGovernance cuts the initiator off for longer than the charter allows: what is under way may end, denials
// work, and nothing begins, until the members are back.
func TestStaleGovernance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Limits = idle()
		f := New(t, o)
		a := f.Agree(Gated)
		run := f.Begin(a, "lease.txt", Lease)
		f.awaitGate("")
		org := f.Orgs[0]
		f.cutOff(org, true)
		time.Sleep(25 * time.Hour)
		if st := f.status(org); st.Governance.Alarm == "" || st.Health.Checks["governance"] == "ok" {
			t.Errorf("after a day: %+v", st.Governance)
		}
		time.Sleep(6 * 24 * time.Hour)
		ctx := context.Background()
		_, err := org.Node.Engine.Start(ctx, "tester", a.Hash, flow.Input{Type: "document", Name: "x", MediaType: "text/plain", Data: []byte(Lease)}, "normal")
		var refused *transport.Error
		if !errors.As(err, &refused) || refused.Code != transport.CodeStaleGovernance || !strings.Contains(err.Error(), "168h") {
			t.Errorf("a new run: %v", err)
		}
		d, err := flow.ParseDefinition("short.yaml", []byte(short))
		f.must(err)
		if _, err := org.Node.Engine.Submit(ctx, "tester", d); !errors.As(err, &refused) || refused.Code != transport.CodeStaleGovernance {
			t.Errorf("a new signature: %v", err)
		}
		if end := f.Finish(run.ID); !end.State.Final() {
			t.Errorf("run is %s", end.State)
		}
		if _, err := org.Node.Engine.Withdraw(ctx, "tester", a.Hash, "no more"); err != nil && strings.Contains(err.Error(), "stale") {
			t.Errorf("a denial: %v", err)
		}
		if w, err := org.Node.Engine.Agreement(a.Hash); err != nil || w.State != flow.Withdrawn {
			t.Errorf("the agreement is %s: %v", w.State, err)
		}
		f.cutOff(org, false)
		f.Wait("the members to confirm", func() bool { return f.confirmed(org) < time.Hour })
		if _, err := org.Node.Engine.Submit(ctx, "tester", d); err != nil {
			t.Errorf("once they are back: %v", err)
		}
	})
}
