package fed

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/node"
	"fednode/store/ledger"
	"fednode/transport"
)

// TestAClockThatIsSetForgetsNoAttempt has the executor's clock be wrong for a few minutes, forwards, while a step waits there
// or before its answer has arrived: it runs once all the same, and the initiator is accused of nothing.
func TestAClockThatIsSetForgetsNoAttempt(t *testing.T) {
	for by, decided := range map[time.Duration]bool{26 * time.Hour: false, 365 * 24 * time.Hour: true} {
		t.Run(by.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(t, gated())
				run, b := f.Begin(f.Agree(Gated), "lease.txt", Lease), f.Orgs[1]
				f.awaitGate("")
				f.Network.Cut(f.Orgs[0], b, true)
				if decided {
					f.approveAtB(run.ID)
				}
				b.Skew(by)
				time.Sleep(3 * time.Minute)
				b.Skew(0)
				if !decided {
					f.approveAtB(run.ID)
				}
				f.Network.Cut(f.Orgs[0], b, false)
				end := f.Finish(run.ID)
				if end.State != flow.StateCompleted || end.Steps[1].Attempt != 1 {
					t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
				}
				if n := len(b.entries(t, "step-executed", string(run.ID)+"/gate/")); n != 1 {
					t.Errorf("the step ran %d times", n)
				}
				if n := len(b.entries(t, "evidence", string(run.ID))); n != 0 {
					t.Errorf("%d pieces of evidence", n)
				}
				f.Verify()
			})
		})
	}
}

// TestAttemptsAreForgotten wants records of attempts to go, also from a node that is started every day.
func TestAttemptsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Limits = idle()
		f := New(t, o)
		run, b := f.Begin(f.Agree(Gated), "lease.txt", Lease), f.Orgs[1]
		f.awaitGate("")
		f.approveAtB(run.ID)
		f.Finish(run.ID)
		known := func() bool {
			all, err := b.Node.Engine.Executions(run.ID)
			f.must(err)
			return slices.ContainsFunc(all, func(x flow.Execution) bool { return x.Step == "gate" })
		}
		for day := range 3 {
			if !known() {
				t.Errorf("forgotten after %d times 20 h", day)
			}
			time.Sleep(20 * time.Hour)
			f.must(b.Stop())
			b.Start()
			if day == 0 {
				continue
			}
			time.Sleep(2 * time.Minute)
			if !known() {
				return
			}
		}
		t.Error("still known after 60 h")
	})
}

// TestAChairWhoseClockIsSetRenewsTheGovernanceLog starts the chair with a clock that is far behind for a minute, and then has
// all clocks be far ahead together for some hours.
func TestAChairWhoseClockIsSetRenewsTheGovernanceLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Limits: idle()})
		time.Sleep(8 * time.Hour) // no certificate is older than the clocks will be
		all := func(by time.Duration) {
			for _, o := range f.Orgs {
				o.Skew(by)
			}
		}
		renewed := func(when string) {
			t.Helper()
			time.Sleep(3 * time.Hour)
			for _, o := range f.Orgs {
				if age, alarm := f.confirmed(o), f.status(o).Governance.Alarm; age < 0 || age > 70*time.Minute || alarm != "" {
					t.Errorf("%s, %s: confirmed %v ago, %q", when, o.ID, age, alarm)
				}
			}
		}
		chair := f.Orgs[0]
		f.must(chair.Stop())
		chair.Skew(-7 * time.Hour)
		chair.Start()
		time.Sleep(time.Minute)
		chair.Skew(0)
		renewed("the chair started with a clock that was behind")
		chair.Skew(30 * 24 * time.Hour)
		time.Sleep(3 * time.Hour)
		chair.Skew(0)
		renewed("the chair's clock was ahead")
		all(30 * 24 * time.Hour)
		time.Sleep(3 * time.Hour)
		all(0)
		if alarm := f.status(f.Orgs[1]).Governance.Alarm; !strings.Contains(alarm, "yet to come") {
			t.Errorf("alarm %q", alarm)
		}
		if problems, mends := f.problems(f.Orgs[1], f.Orgs[0]); !slices.Contains(problems, node.CheckGovernance+" by org-b about org-b") || !strings.Contains(mends, "date -u") {
			t.Errorf("doctor: %v, %s", problems, mends)
		}
		renewed("all clocks were ahead")
	})
}

// TestCertificatesMadeWithAWrongClock starts a node whose clock is so far ahead that it has its certificates made anew, and
// mends the clock while it runs.
func TestCertificatesMadeWithAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run, b := f.Begin(f.Agree(Gated), "lease.txt", Lease), f.Orgs[1]
		f.must(b.Stop())
		b.Skew(300 * 24 * time.Hour)
		b.Start()
		time.Sleep(time.Minute)
		b.Skew(0)
		f.awaitGate("")
		f.approveAtB(run.ID)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
	})
}

// TestClocksThatAreMendedFailNoRun has a clock be wrong while a step is to begin, within what a step may take: the step begins
// when it has been mended, and not with grants that are good for longer than it.
func TestClocksThatAreMendedFailNoRun(t *testing.T) {
	for name, c := range map[string]struct {
		org int
		by  time.Duration
	}{"the executor's ahead": {1, 3 * time.Minute}, "the executor's far ahead": {1, 2 * 24 * time.Hour},
		"the initiator's behind": {0, -3 * time.Hour}, "the initiator's far ahead": {0, 3 * 24 * time.Hour}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := gated()
				o.Limits = idle()
				f := New(t, o)
				a := f.Agree(Gated)
				time.Sleep(3*time.Hour + time.Minute) // nothing is made before its issuer
				f.Orgs[c.org].Skew(c.by)
				run := f.Begin(a, "lease.txt", Lease)
				time.Sleep(10 * time.Minute)
				f.Orgs[c.org].Skew(0)
				f.awaitGate("")
				f.approveAtB(run.ID)
				if end := f.Finish(run.ID); end.State != flow.StateCompleted || end.Steps[1].Attempt > 2 {
					t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
				}
				for _, x := range f.Orgs[0].entries(t, "artifact-delivered", string(run.ID)+"/gate/") {
					if c.org == 0 && c.by > 0 && strings.HasPrefix(x.Reference, string(run.ID)+"/gate/1 ") {
						t.Errorf("delivered under a grant from the future: %+v", x)
					}
				}
				f.Verify()
			})
		})
	}
}

// TestAClockThatStaysWrongIsNamed when the step's time is over.
func TestAClockThatStaysWrongIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(strings.Replace(Gated, "timeout: 1h", "timeout: 2m", 1))
		f.Orgs[1].Skew(3 * time.Minute)
		end := f.Finish(f.Begin(a, "lease.txt", Lease).ID)
		if end.State != flow.StateFailed || end.Error.Code != "timeout" || !strings.Contains(end.Error.Text, "set the clock that is wrong") {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
	})
}

// TestAWrongClockFillsNoLog has an executor refuse because of the clocks for hours.
func TestAWrongClockFillsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Limits = idle()
		f := New(t, o)
		a := f.Agree(strings.Replace(Gated, "timeout: 1h", "timeout: 12h", 1))
		f.Orgs[1].Skew(3 * time.Minute)
		run := f.Begin(a, "lease.txt", Lease)
		time.Sleep(6 * time.Hour)
		f.Orgs[1].Skew(0)
		f.awaitGate("")
		f.approveAtB(run.ID)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
		if n := len(f.Orgs[0].entries(t, "reply-received", string(run.ID)+"/gate/")); n < 15 || n > 60 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// TestAnInitiatorsClockThatIsSetStopsNoRun has it be so far ahead between two steps that it takes the governance log for
// stale: what is next waits for as long as it may take.
func TestAnInitiatorsClockThatIsSetStopsNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Limits = idle()
		f := New(t, o)
		run := f.Begin(f.Agree(strings.Replace(Gated, "timeout: 30s", "timeout: 10m", 1)), "lease.txt", Lease)
		f.awaitGate("")
		f.Orgs[0].Skew(8 * 24 * time.Hour)
		f.approveAtB(run.ID)
		time.Sleep(3 * time.Minute)
		f.Orgs[0].Skew(0)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
		f.Verify()
	})
}

// TestWhatIsDoneIsOnRecordWhileTheNextStepWaits has the initiator crash while it takes the governance log for stale.
func TestWhatIsDoneIsOnRecordWhileTheNextStepWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Agents: map[int]string{0: gate}, Limits: idle()})
		a, here := f.Orgs[0], strings.NewReplacer("org-b, agent: gate", "org-a, agent: gate", "timeout: 30s", "timeout: 1h")
		run := f.Begin(f.Agree(here.Replace(Gated)), "lease.txt", Lease)
		a.awaitGate("")
		a.Skew(8 * 24 * time.Hour)
		_, err := a.Node.Engine.Decide(t.Context(), "tester", string(run.ID), true, "")
		f.must(err)
		time.Sleep(3 * time.Minute)
		if r, err := a.Node.Engine.GetRun(string(run.ID)); err != nil || r.Steps[1].State != flow.StateCompleted || r.Steps[2].State != flow.StatePending {
			t.Errorf("while the last step waits: %+v, %v", r.Steps, err)
		}
		a.Crash()
		a.Skew(0)
		a.Start()
		if end := f.Finish(run.ID); end.State != flow.StateCompleted || end.Steps[1].Attempt != 1 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		if n := len(a.entries(t, "step-executed", string(run.ID)+"/gate/")); n != 1 {
			t.Errorf("%d results of the gate are on record", n)
		}
		f.Verify()
	})
}

// TestAnArtifactIsWholeAfterARefusal has a holder's clock go wrong in the middle of an artifact: what came before it was refused
// is no part of what comes afterwards.
func TestAnArtifactIsWholeAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Latency = 50 * time.Millisecond
		f := New(t, o)
		a, b := f.Orgs[0], f.Orgs[1]
		text := strings.Repeat(Lease, 4<<20/len(Lease))
		run := f.Begin(f.Agree(strings.Replace(Gated, ", restrictions: [no-storage]", "", 1)), "lease.txt", text)
		time.Sleep(600 * time.Millisecond)
		f.Network.Cut(a, b, true)
		a.Skew(3 * time.Minute)
		time.Sleep(2 * time.Minute)
		f.Network.Cut(a, b, false)
		time.Sleep(time.Minute)
		a.Skew(0)
		f.awaitGate("")
		f.Wait("its second delivery", func() bool { return len(a.entries(t, "artifact-delivered", string(run.ID)+"/gate/")) == 2 })
		refused := slices.ContainsFunc(b.entries(t, "reply-received", string(run.ID)+"/gate/"), func(x ledger.Entry) bool {
			return x.Result == string(transport.CodeClockSkew)
		})
		if !refused {
			t.Error("it was not refused")
		}
		held, err := b.Node.Engine.Holdings(run.ID)
		f.must(err)
		for _, h := range held {
			_, _, data, err := b.Node.Engine.Artifact(run.ID, h.Artifact.ID)
			if err != nil || string(data) != text {
				t.Errorf("%s has %d bytes, want %d: %v", h.Artifact.Type, len(data), len(text), err)
			}
		}
		if len(held) != 1 {
			t.Errorf("%d artifacts are held", len(held))
		}
		f.approveAtB(run.ID)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
	})
}
