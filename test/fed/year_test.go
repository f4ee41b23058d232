package fed

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/transport/pki"
)

const day = 24 * time.Hour

// issuing returns until when the organisation's issuing CA is good, by its data directory.
func (o *Org) issuing() time.Time {
	o.f.t.Helper()
	certs, err := pki.LoadCertificates(filepath.Join(o.Dir, "certs", "issuing.crt"))
	o.f.must(err)
	return certs[0].NotAfter
}

// setClocks sets every organisation's clock, and waits until a quorum has confirmed the governance log by it.
func (f *Federation) setClocks(skew time.Duration) {
	f.t.Helper()
	for _, o := range f.Orgs {
		o.Skew(skew)
	}
	time.Sleep(70 * time.Minute)
}

// TestMoreThanAYearWithoutARestart has runs cross a federation now and then in which no node is started again, for longer
// than any of its issuing CAs is good.
func TestMoreThanAYearWithoutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}, Limits: idle()})
		a := f.Agree(Workflow)
		first := f.Orgs[0].issuing()
		for passed := time.Duration(0); passed <= 400*day; passed += 130 * day {
			f.setClocks(passed)
			if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
				t.Fatalf("after %v a run is %s: %v", passed, run.State, run.Error)
			}
		}
		for i, o := range f.Orgs {
			f.wantProblems(o, f.Orgs[(i+1)%len(f.Orgs)], nil)
			if until := o.issuing(); until.Before(first.Add(200 * day)) {
				t.Errorf("%s: the issuing CA is good until %v", o.ID, until)
			}
		}
		f.Verify()
	})
}

// TestRenewalClosesNoConnection has every organisation renew its issuing CA, identity and leaf while a call is under way:
// the call ends where it began, and new connections come about under the new ones.
func TestRenewalClosesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(Gated)
		begun := time.Now()
		f.setClocks(f.Orgs[0].issuing().Sub(begun) - 120*day - 80*time.Minute) // ten minutes before it is due
		run := f.Begin(a, "lease.txt", Lease)
		f.awaitGate("")
		type view struct {
			since       time.Time
			leaf, above time.Time
		}
		look := func(o *Org) view {
			st := f.status(o)
			if len(st.Peers) != 1 || st.Peers[0].Since.IsZero() {
				t.Fatalf("%s: %+v", o.ID, st.Peers)
			}
			return view{st.Peers[0].Since, st.Certificate, o.issuing()}
		}
		var before []view
		for _, o := range f.Orgs {
			before = append(before, look(o))
		}
		looked := time.Now()
		time.Sleep(20 * time.Minute)
		for i, o := range f.Orgs {
			now := look(o)
			if !now.above.After(before[i].above) || !now.leaf.After(before[i].leaf) {
				t.Errorf("%s: nothing was renewed: %+v, before %+v", o.ID, now, before[i])
			}
			if now.since.After(looked) || o == f.Orgs[0] && now.since != before[i].since {
				t.Errorf("%s: the connection in use is from %v, before from %v", o.ID, now.since, before[i].since)
			}
		}
		f.wantProblems(f.Orgs[0], f.Orgs[1], nil)
		f.approveAtB(run.ID)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted || end.Steps[1].Attempt != 1 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		f.Verify()
	})
}
