package fed

import (
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/transport"
)

// blockUDP blocks UDP between everybody, or lets it through again.
func (f *Federation) blockUDP(blocked bool) {
	for i, a := range f.Orgs {
		for _, b := range f.Orgs[:i] {
			f.Network.BlockUDP(a, b, blocked)
		}
	}
}

// lane returns the lane on which o calls another organisation, or "".
func (o *Org) lane(to *Org) transport.Lane {
	for _, m := range o.Node.Members() {
		for _, s := range m.Sessions {
			if s.Org == to.ID && !s.Inbound {
				return s.Lane
			}
		}
	}
	return ""
}

// A federation whose firewalls know nothing but TCP founds, agrees and runs; when UDP comes to work, it is used.
func TestRunsCompleteWithoutUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		f.blockUDP(true)
		a := f.Agree(Workflow)
		if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Fatalf("%s: %v", run.State, run.Error)
		}
		for _, o := range f.Orgs[1:] {
			if l := f.Orgs[0].lane(o); l != transport.LaneTCP {
				t.Errorf("org-a calls %s over %q", o.ID, l)
			}
		}
		f.blockUDP(false)
		f.Wait("QUIC", func() bool { return f.Orgs[0].lane(f.Orgs[1]) == transport.LaneQUIC })
		if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Fatalf("%s: %v", run.State, run.Error)
		}
		f.Verify()
	})
}

// UDP comes and goes while runs are under way: all of them complete, and every receipt holds.
func TestRunsCompleteWhileUDPComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		a := f.Agree(Workflow)
		var runs []*flow.Run
		for i := range 12 {
			runs = append(runs, f.Begin(a, "lease.txt", Lease))
			time.Sleep(50 * time.Millisecond)
			f.blockUDP(i%2 == 0)
			time.Sleep(7 * time.Second)
		}
		for _, r := range runs {
			run := f.Finish(r.ID)
			if run.State != flow.StateCompleted {
				t.Errorf("%s: %v", run.State, run.Error)
			}
		}
		f.Verify()
	})
}
