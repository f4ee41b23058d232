package fed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/node"
	"fednode/transport"
)

// at returns how an organisation's copy of the governance log has a member.
func (f *Federation) at(o *Org, id transport.OrgID) node.MemberView {
	f.t.Helper()
	all := o.Node.Members()
	i := slices.IndexFunc(all, func(m node.MemberView) bool { return m.ID == id })
	if i < 0 {
		f.t.Fatalf("%s does not know %s", o.ID, id)
	}
	return all[i]
}

// everywhere waits until every running organisation has the member at this sequence.
func (f *Federation) everywhere(id transport.OrgID, sequence int64) {
	f.t.Helper()
	f.Wait("the members to learn", func() bool {
		return !slices.ContainsFunc(f.Orgs, func(o *Org) bool { return o.Node != nil && f.at(o, id).Sequence != sequence })
	})
}

func TestSuspensionIsAtOnceAndLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		a := f.Agree(Workflow)
		org, b := f.Orgs[0], f.Orgs[1]
		ctx := context.Background()
		f.must(org.Node.Suspend(ctx, "tester", b.ID, "stolen key"))
		began := time.Now()
		run := f.Finish(f.Begin(a, "lease.txt", Lease).ID)
		if run.State == flow.StateCompleted || run.Error == nil || run.Error.Code != string(transport.CodeNotMember) || !strings.Contains(run.Error.Text, "stolen key") {
			t.Errorf("run is %s: %+v", run.State, run.Error)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the step was refused after %v", took)
		}
		if !f.at(org, b.ID).Suspended || f.at(f.Orgs[2], b.ID).Suspended {
			t.Error("a suspension is the suspending node's alone")
		}
		if err := org.Node.Suspend(ctx, "tester", org.ID, ""); !errors.Is(err, flow.ErrMisuse) {
			t.Errorf("suspended itself: %v", err)
		}
		f.must(org.Stop())
		org.Start()
		if !f.at(org, b.ID).Suspended {
			t.Error("forgotten by a restart")
		}
		found := false
		for _, e := range org.Node.Log.Entries(0, org.Node.Log.Head().Size) {
			found = found || bytes.Contains(e, []byte(`"member-suspended"`))
		}
		if !found {
			t.Error("it is not on record")
		}
		f.must(org.Node.Resume(ctx, "tester", b.ID))
		if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Errorf("after resuming, run is %s: %v", run.State, run.Error)
		}
	})
}

// TestSuspensionClosesSessions has the suspended member in the middle of a step for the suspending one.
func TestSuspensionClosesSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		f.awaitGate("")
		began := time.Now()
		f.must(f.Orgs[0].Node.Suspend(context.Background(), "tester", f.Orgs[1].ID, "gone"))
		end := f.Finish(run.ID)
		if took := time.Since(began); end.State == flow.StateCompleted || took > 5*time.Second {
			t.Errorf("run is %s after %v: %v", end.State, took, end.Error)
		}
	})
}

func (o *Org) edit(old, new string) {
	o.f.t.Helper()
	path := filepath.Join(o.Dir, node.ConfigName)
	text, err := os.ReadFile(path)
	o.f.must(err)
	if !strings.Contains(string(text), old) {
		o.f.t.Fatalf("%s does not say %s", path, old)
	}
	o.f.must(os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o600))
}

// TestEndpointsChange has a member move, without any restart; the first of its new endpoints leads nowhere.
func TestEndpointsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		a := f.Agree(Workflow)
		b := f.Orgs[1]
		b.edit(`  - "`+b.addr.String()+`"`, `  - "10.9.9.9:443"`+"\n"+`  - "`+b.addr.String()+`"`)
		_, err := b.Node.Renew(context.Background(), "tester", false, false)
		f.must(err)
		f.everywhere(b.ID, 2)
		for _, o := range f.Orgs {
			if got := f.at(o, b.ID).Endpoints; !slices.Equal(got, []string{"10.9.9.9:443", b.addr.String()}) {
				t.Errorf("%s has %v", o.ID, got)
			}
		}
		f.must(f.Orgs[0].Stop())
		f.Orgs[0].Start()
		if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", run.State, run.Error)
		}
	})
}

// TestAMemberThatCannotBeReachedMendsItsRecord has a member advertise what leads nowhere, and then where it is: nobody can ask
// it for its cosignature, without which two and three members are no quorum, so that it has to bring it.
func TestAMemberThatCannotBeReachedMendsItsRecord(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(t, Options{Orgs: n})
				b := f.Orgs[1]
				b.edit(b.addr.String(), "10.9.9.9:443")
				_, err := b.Node.Renew(context.Background(), "tester", false, false)
				f.must(err)
				f.everywhere(b.ID, 2)
				for _, o := range f.Orgs { // nobody keeps a connection from before
					f.must(o.Stop())
				}
				for _, o := range f.Orgs {
					o.Start()
				}
				b.edit("10.9.9.9:443", b.addr.String())
				_, err = b.Node.Renew(context.Background(), "tester", false, false)
				f.must(err)
				began := time.Now()
				f.everywhere(b.ID, 3)
				if d := time.Since(began); d > time.Minute {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// TestMessageKeysRotate gives a member new message keys while runs go on; what the old ones signed verifies for ever.
func TestMessageKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		a := f.Agree(Workflow)
		b := f.Orgs[1]
		first := f.at(f.Orgs[0], b.ID).KeyIDs[0]
		for i, drop := range []bool{false, true} {
			_, err := b.Node.Renew(context.Background(), "tester", true, drop)
			f.must(err)
			if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
				t.Errorf("at once, run is %s: %v", run.State, run.Error)
			}
			f.everywhere(b.ID, int64(i+2))
			if keys := f.at(f.Orgs[2], b.ID).KeyIDs; len(keys) != 2-i || keys[0] == first || slices.Contains(keys, first) == drop {
				t.Errorf("after renewal %d: %v, at first %s", i+1, keys, first)
			}
			time.Sleep(2 * time.Minute)
			if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
				t.Errorf("with the new key, run is %s: %v", run.State, run.Error)
			}
		}
		f.must(b.Stop())
		b.Start()
		if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Errorf("after a restart, run is %s: %v", run.State, run.Error)
		}
		f.Verify()
	})
}

// TestMessageKeysRotateInHaste has a member drop a key that it has only just replaced, and still signs with.
func TestMessageKeysRotateInHaste(t *testing.T) {
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
			a := f.Agree(Workflow)
			b := f.Orgs[1]
			for i := range 2 {
				_, err := b.Node.Renew(context.Background(), "tester", true, drop && i == 1)
				f.must(err)
				f.everywhere(b.ID, int64(i+2))
			}
			time.Sleep(time.Second) // well within the minute for which a replaced key goes on signing
			for _, o := range []*Org{f.Orgs[0], f.Orgs[2]} {
				f.wantProblems(b, o, nil)
			}
			if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
				t.Errorf("run is %s: %v", run.State, run.Error)
			}
			time.Sleep(2 * time.Minute)
			f.wantProblems(b, f.Orgs[0], nil)
			f.Verify()
		})
	}
}

const strictCharter = `version: 1
sequence: 2
approvals: {member: all, record_update: self, charter: all}
freshness: {limit: 3d, alarm: 12h}
`

// TestCharterIsProposedAndApproved changes the charter from a member that is not the chair.
func TestCharterIsProposedAndApproved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Orgs[2]
		ctx := context.Background()
		hash, err := b.Node.ProposeCharter(ctx, "tester", "charter.yaml", []byte(strictCharter))
		f.must(err)
		known := func(o *Org, approved int) func() bool {
			return func() bool {
				all := o.Node.Candidates()
				return len(all) == 1 && all[0].Hash == hash && len(all[0].Standing.Approved) == approved && all[0].Sponsor == b.ID
			}
		}
		for _, o := range f.Orgs {
			f.Wait(string(o.ID)+" to hear of it", known(o, 1))
		}
		_, err = c.Node.Approve(ctx, "tester", "charter", false)
		f.must(err)
		f.Wait("two approvals", known(a, 2))
		_, err = c.Node.Approve(ctx, "tester", "charter", true) // and takes it back
		f.must(err)
		f.Wait("one approval", known(a, 1))
		_, err = a.Node.Approve(ctx, "tester", hash[:12], false)
		f.must(err)
		time.Sleep(time.Minute)
		if got := a.Node.Charter(); got.Sequence != 1 || !known(a, 2)() || !known(c, 2)() {
			t.Errorf("with an approval withdrawn: charter %d, %+v", got.Sequence, c.Node.Candidates())
		}
		_, err = c.Node.Approve(ctx, "tester", "charter", false)
		f.must(err)
		for _, o := range f.Orgs {
			f.Wait("the charter at "+string(o.ID), func() bool { return o.Node.Charter().Sequence == 2 && len(o.Node.Candidates()) == 0 })
		}
		if _, err := b.Node.ProposeCharter(ctx, "tester", "charter.yaml", []byte(strictCharter+"x: 1\n")); !errors.Is(err, flow.ErrMisuse) {
			t.Errorf("an unknown key: %v", err)
		}
	})
}

// TestRenewalWaitsForTheChair has the chair away: it is said clearly, and goes on by itself once the chair is back.
func TestRenewalWaitsForTheChair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		a, b := f.Orgs[0], f.Orgs[1]
		f.must(a.Stop())
		_, err := b.Node.Renew(context.Background(), "tester", true, false)
		f.must(err)
		f.Wait("org-b to say what it waits for", func() bool {
			all := b.Node.Candidates()
			return len(all) == 1 && strings.Contains(all[0].Waiting, "org-a (chair) cannot be reached")
		})
		f.must(b.Stop())
		time.Sleep(time.Hour)
		b.Start() // it has not forgotten
		a.Start()
		f.everywhere(b.ID, 2)
	})
}
