package fed

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/store/ledger"
	"fednode/transport"
)

// Gated is a workflow that waits at org-b for a human before it goes on there.
const Gated = `name: gated
version: 1.0.0
type: federated
participants:
  - {id: org-a, role: initiator}
  - {id: org-b, role: processor}
workflow:
  steps:
    - {id: upload, organization: org-a, agent: document-uploader, next: gate}
    - {id: gate, organization: org-b, agent: gate, next: classify, timeout: 1h}
    - {id: classify, organization: org-b, agent: document-classifier, next: null, timeout: 30s}
governance:
  data_sharing:
    - {from: org-a, to: org-b, data_types: [document], restrictions: [no-storage]}
`

const gate = "agents:\n  gate: {kind: approval, inputs: [document]}\n"

func gated() Options { return Options{Orgs: 2, Agents: map[int]string{1: gate}} }

// awaitGate waits until a step waits for a human at org-b, and returns its attempt's id.
func (f *Federation) awaitGate(not string) string {
	f.t.Helper()
	return f.Orgs[1].awaitGate(not)
}

// awaitGate waits until a step waits for a human there, one at most, and returns its attempt's id, which is another than not.
func (o *Org) awaitGate(not string) string {
	o.f.t.Helper()
	id := ""
	o.f.Wait("a step that waits at "+string(o.ID), func() bool {
		open, err := o.Node.Engine.Approvals()
		o.f.must(err)
		if len(open) == 1 && open[0].ID != not {
			id = open[0].ID
		}
		return id != ""
	})
	return id
}

func (f *Federation) approveAtB(run flow.RunID) {
	f.t.Helper()
	_, err := f.Orgs[1].Node.Engine.Decide(context.Background(), "tester", string(run), true, "")
	f.must(err)
}

// entries returns the own log's entries of a type whose reference begins with prefix.
func (o *Org) entries(t testing.TB, typ, prefix string) (out []ledger.Entry) {
	t.Helper()
	l := o.Node.Log
	for i, b := range l.Entries(0, l.Head().Size) {
		e, err := ledger.ParseEntry(b)
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		if e.Type == typ && strings.HasPrefix(e.Reference, prefix) {
			out = append(out, e)
		}
	}
	return out
}

func TestRunsCompleteOverALossyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Seed: 7, Latency: 20 * time.Millisecond, Agents: map[int]string{0: ApproveAll}})
		f.Network.Lose(0.15)
		a := f.Agree(Workflow)
		for range 3 {
			if run := f.Finish(f.Begin(a, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
				t.Errorf("run is %s: %v", run.State, run.Error)
			}
		}
		f.Network.Lose(0)
		f.Verify()
	})
}

func TestWhatEachOrganisationSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		run := f.Finish(f.Begin(f.Agree(Workflow), "lease.txt", Lease).ID)
		saw := func(i int) (out []string) {
			held, err := f.Orgs[i].Node.Engine.Holdings(run.ID)
			f.must(err)
			for _, h := range held {
				out = append(out, h.Artifact.Type+" "+h.How)
				if h.Where == flow.InMemory {
					t.Errorf("%s still holds %s in memory", f.Orgs[i].ID, h.Artifact.Type)
				}
				if i > 0 && h.Where == flow.OnDisk {
					t.Errorf("%s stored %s", f.Orgs[i].ID, h.Artifact.Type)
				}
			}
			slices.Sort(out)
			return slices.Compact(out)
		}
		for i, want := range [][]string{
			{"approval made", "document made", "document owner", "review-result received"},
			{"classification made", "document made", "document received", "pii-findings made"},
			{"classification received", "document received", "review-result made"},
		} {
			if got := saw(i); !slices.Equal(got, want) {
				t.Errorf("%s saw %v; want %v", f.Orgs[i].ID, got, want)
			}
		}
		withheld := f.Orgs[0].entries(t, "withheld", string(run.ID))
		if len(withheld) != 1 || withheld[0].Resource != "pii-findings" {
			t.Errorf("withheld: %+v", withheld)
		}
	})
}

// traces looks for the lease's words in what an organisation has on disk. Its name, in lower case, is for its owner to
// keep in its own journal.
func (f *Federation) traces(o *Org) {
	f.t.Helper()
	err := filepath.WalkDir(o.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, word := range []string{"castellane", "Castellane", "tenant shall pay", "DE89 3704"} {
			if bytes.Contains(b, []byte(word)) && !(o.ID == "org-a" && word == "castellane") {
				f.t.Errorf("%s holds %q in %s", o.ID, word, d.Name())
			}
		}
		return err
	})
	f.must(err)
}

// TestNoStorageLeavesNoTrace looks for the document's words in whatever the organisations that were not to store it
// have on disk, while the run goes on and after it, and for personal data also in the ledger of its owner.
func TestNoStorageLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Agents: map[int]string{1: gate}})
		run := f.Begin(f.Agree(Gated), "castellane-lease.txt", Lease)
		f.awaitGate("")
		f.traces(f.Orgs[1])
		f.approveAtB(run.ID)
		if run := f.Finish(run.ID); run.State != flow.StateCompleted {
			t.Fatalf("run is %s: %v", run.State, run.Error)
		}
		f.traces(f.Orgs[0]) // sealed; the name is in the initiator's own journal only
		f.traces(f.Orgs[1])
	})
}

func TestAPartitionDelaysARunAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(Gated)
		f.Network.Cut(f.Orgs[0], f.Orgs[1], true)
		run := f.Begin(a, "lease.txt", Lease)
		time.Sleep(5 * time.Minute)
		if r, err := f.Orgs[0].Node.Engine.GetRun(string(run.ID)); err != nil || r.State != flow.StateRunning {
			t.Fatalf("run is %s, %v", r.State, err)
		}
		f.Network.Cut(f.Orgs[0], f.Orgs[1], false)
		f.awaitGate("")
		f.approveAtB(run.ID)
		if run := f.Finish(run.ID); run.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", run.State, run.Error)
		}
		f.Verify()
	})
}

func TestATimeoutIsUnknownAndALateResultIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(strings.Replace(Gated, "timeout: 1h", "timeout: 60s", 1))
		run := f.Begin(a, "lease.txt", Lease)
		f.awaitGate("")
		f.Network.Cut(f.Orgs[0], f.Orgs[1], true)
		f.approveAtB(run.ID) // completes at org-b, but nobody hears of it
		end := f.Finish(run.ID)
		if end.State != flow.StateFailed || end.Error == nil || end.Error.Code != "timeout" || !strings.Contains(end.Error.Text, "unknown") {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
		if got := f.Orgs[0].entries(t, "attempt-closed", string(run.ID)+"/gate/1"); len(got) != 1 {
			t.Errorf("%d entries say that the attempt is closed", len(got))
		}
		f.Network.Cut(f.Orgs[0], f.Orgs[1], false)
		time.Sleep(10 * time.Minute)
		if r, err := f.Orgs[0].Node.Engine.GetRun(string(run.ID)); err != nil || r.State != flow.StateFailed || len(r.Steps[1].Outputs) != 0 {
			t.Errorf("run changed after its end: %+v, %v", r, err)
		}
		f.Verify()
	})
}

func TestACrashedExecutorSaysLostAndTheRunBeginsAgainFromTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		first := f.awaitGate("")
		f.Orgs[1].Crash()
		f.Orgs[1].Start()
		second := f.awaitGate(first)
		if !strings.HasSuffix(second, "/2") {
			t.Errorf("after the crash attempt %s waits", second)
		}
		f.approveAtB(run.ID)
		end := f.Finish(run.ID)
		if end.State != flow.StateCompleted || end.Steps[1].Attempt != 2 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		if n := len(f.Orgs[1].entries(t, "step-executed", string(run.ID)+"/gate/")); n != 1 {
			t.Errorf("%d results of the gate are on record", n)
		}
		f.Verify()
	})
}

// TestAStoppedExecutorFailsNoRun stops a node in good order while a step waits there: that is no timeout.
func TestAStoppedExecutorFailsNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		first := f.awaitGate("")
		f.must(f.Orgs[1].Stop())
		f.Orgs[1].Start()
		f.awaitGate(first)
		f.approveAtB(run.ID)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted || end.Steps[1].Attempt != 2 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		if n := len(f.Orgs[1].entries(t, "step-executed", string(run.ID)+"/gate/")); n != 1 {
			t.Errorf("%d results of the gate are on record", n)
		}
		f.Verify()
	})
}

// TestAStepAskedForWhileItsExecutorStops has org-b take its time to stop, since it tells org-c, which it cannot reach, that a
// run of its own is cancelled: a step of another's run that it is asked for meanwhile is done when it is back.
func TestAStepAskedForWhileItsExecutorStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{2: gate}})
		b := f.Orgs[1]
		swapped := strings.NewReplacer("name: gated", "name: of-b", "org-a", "org-b", "org-b", "org-c").Replace(Gated)
		a, own := f.Agree(strings.ReplaceAll(Gated, "agent: gate", "agent: document-classifier")), f.AgreeAt(b, swapped)
		other, err := b.Node.Engine.Start(t.Context(), "tester", own.Hash, flow.Input{Name: "lease.txt", MediaType: "text/plain", Data: []byte(Lease)}, "normal")
		f.must(err)
		f.Orgs[2].awaitGate("")
		f.Network.Cut(b, f.Orgs[2], true)
		_, err = b.Node.Engine.Cancel(t.Context(), "tester", string(other.ID))
		f.must(err)
		stopped := make(chan error)
		go func() { stopped <- b.Stop() }()
		time.Sleep(100 * time.Millisecond)
		run := f.Begin(a, "lease.txt", Lease)
		f.must(<-stopped)
		refused := 0
		for _, x := range f.Orgs[0].entries(t, "reply-received", string(run.ID)) {
			if x.Result == string(transport.CodeOverloaded) {
				refused++
			}
		}
		if refused == 0 {
			t.Error("org-b was not asked for a step while it stopped")
		}
		b.Start()
		if end := f.Finish(run.ID); end.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
	})
}

func TestACrashedInitiatorResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		f.awaitGate("")
		f.Orgs[0].Crash()
		f.approveAtB(run.ID) // while the initiator is away
		time.Sleep(time.Minute)
		f.Orgs[0].Start()
		end := f.Finish(run.ID)
		if end.State != flow.StateCompleted || end.Steps[1].Attempt != 1 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		if n := len(f.Orgs[1].entries(t, "step-executed", string(run.ID)+"/gate/")); n != 1 {
			t.Errorf("the step ran %d times", n)
		}
		f.Verify()
	})
}

// TestADeliveryIsOnRecordWhenTheNodeStops before it is over.
func TestADeliveryIsOnRecordWhenTheNodeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Latency = 50 * time.Millisecond
		f := New(t, o)
		a := f.Orgs[0]
		text := strings.Repeat(Lease, 4<<20/len(Lease))
		run := f.Begin(f.Agree(strings.Replace(Gated, ", restrictions: [no-storage]", "", 1)), "lease.txt", text)
		time.Sleep(600 * time.Millisecond)
		f.must(a.Stop())
		a.Start()
		f.awaitGate("")
		if all := a.entries(t, "artifact-delivered", string(run.ID)+"/gate/"); len(all) == 0 {
			t.Error("what was delivered while the node stopped is not on record")
		}
	})
}

// TestAnInitiatorThatWasAwayForDays comes back when its executor has forgotten the attempt, and has it not run a second time.
func TestAnInitiatorThatWasAwayForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := gated()
		o.Limits = idle()
		f := New(t, o)
		a, b := f.Orgs[0], f.Orgs[1]
		run := f.Begin(f.Agree(strings.Replace(Gated, ", restrictions: [no-storage]", "", 1)), "lease.txt", Lease)
		f.awaitGate("")
		a.Crash()
		f.approveAtB(run.ID)
		time.Sleep(2 * day)
		if all, err := b.Node.Engine.Executions(run.ID); err != nil || len(all) > 0 {
			t.Fatalf("org-b still knows the attempt: %v, %v", all, err)
		}
		a.Start()
		f.awaitGate("")
		f.approveAtB(run.ID)
		if end := f.Finish(run.ID); end.State != flow.StateCompleted || end.Steps[1].Attempt != 2 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		if n := len(b.entries(t, "step-executed", string(run.ID)+"/gate/1")); n != 1 {
			t.Errorf("the first attempt ran %d times", n)
		}
		f.Verify()
	})
}

// TestAnInitiatorThatWasAwayForLong comes back when the grants of its request are over, which nobody has seen yet.
func TestAnInitiatorThatWasAwayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(Gated)
		f.Network.Cut(f.Orgs[0], f.Orgs[1], true)
		run := f.Begin(a, "lease.txt", Lease)
		f.Wait("the gate to be asked", func() bool {
			r, err := f.Orgs[0].Node.Engine.GetRun(string(run.ID))
			f.must(err)
			return r.Steps[1].State == flow.StateRunning
		})
		f.Orgs[0].Crash()
		time.Sleep(3 * time.Hour)
		f.Network.Cut(f.Orgs[0], f.Orgs[1], false)
		f.Orgs[0].Start()
		f.awaitGate("")
		f.approveAtB(run.ID)
		end := f.Finish(run.ID)
		if end.State != flow.StateCompleted || end.Steps[1].Attempt != 2 {
			t.Errorf("run is %s after attempt %d: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
		f.Verify()
	})
}

// TestACancellationOutlivesACrash has the initiator crash after it has acknowledged that a run is cancelled, before it
// could end it.
func TestACancellationOutlivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		f.awaitGate("")
		f.Network.Cut(f.Orgs[0], f.Orgs[1], true) // so that telling org-b takes time
		if _, err := f.Orgs[0].Node.Engine.Cancel(context.Background(), "tester", string(run.ID)); err != nil {
			t.Fatal(err)
		}
		f.Orgs[0].Crash()
		f.Network.Cut(f.Orgs[0], f.Orgs[1], false)
		f.Orgs[0].Start()
		if end := f.Finish(run.ID); end.State != flow.StateCancelled {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
		f.Wait("org-b to stop", func() bool {
			open, err := f.Orgs[1].Node.Engine.Approvals()
			f.must(err)
			return len(open) == 0
		})
		f.Verify()
	})
}

func TestARestartKeepsWhatWasHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		run := f.Finish(f.Begin(f.Agree(Workflow), "lease.txt", Lease).ID)
		time.Sleep(time.Minute) // until everybody has been told
		for _, o := range f.Orgs {
			head := o.Node.Log.Head()
			f.must(o.Stop())
			o.Start()
			// It has asked since what the members decided meanwhile, on top of what it had.
			if kept, err := o.Node.Log.HeadAt(head.Size); err != nil || kept != head {
				t.Errorf("%s had %v, has %v, %v", o.ID, head, kept, err)
			}
		}
		again, err := f.Orgs[0].Node.Engine.GetRun(string(run.ID))
		if err != nil || again.State != flow.StateCompleted || len(again.Artifacts) != len(run.Artifacts) {
			t.Errorf("%+v, %v", again, err)
		}
		held, err := f.Orgs[0].Node.Engine.Holdings(run.ID)
		f.must(err)
		for _, h := range held {
			if _, _, data, err := f.Orgs[0].Node.Engine.Artifact(run.ID, h.Artifact.ID); err != nil || int64(len(data)) != h.Artifact.Size {
				t.Errorf("%s: %d of %d bytes, %v", h.Artifact.Type, len(data), h.Artifact.Size, err)
			}
		}
		f.Verify()
	})
}

func TestCancellationStopsTheStepAndRefusesItLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		f.awaitGate("")
		if _, err := f.Orgs[0].Node.Engine.Cancel(context.Background(), "tester", string(run.ID)); err != nil {
			t.Fatal(err)
		}
		if end := f.Finish(run.ID); end.State != flow.StateCancelled {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
		f.Wait("org-b to stop", func() bool {
			open, err := f.Orgs[1].Node.Engine.Approvals()
			f.must(err)
			return len(open) == 0
		})
		f.Wait("org-b to forget", func() bool {
			held, err := f.Orgs[1].Node.Engine.Holdings(run.ID)
			f.must(err)
			return !slices.ContainsFunc(held, func(h flow.Holding) bool { return h.Where == flow.InMemory })
		})
		f.Verify()
	})
}

func TestAStepThatNeedsWithheldDataIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		text := strings.Replace(Workflow, "agent: document-reviewer", "agent: document-reviewer\n      inputs: [document, pii-findings]", 1)
		end := f.Finish(f.Begin(f.Agree(text), "lease.txt", Lease).ID)
		if end.State != flow.StateBlocked || end.Error == nil || !strings.Contains(end.Error.Text, "pii-findings") || !strings.Contains(end.Error.Text, "no data_sharing rule") {
			t.Errorf("run is %s: %v", end.State, end.Error)
		}
		if n := len(f.Orgs[2].entries(t, "request-received", string(end.ID)+"/document-review")); n != 0 {
			t.Errorf("org-c was asked %d times", n)
		}
		f.Verify()
	})
}

func TestAWrongClockIsNamedOnBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2})
		f.Orgs[1].Skew(3 * time.Minute)
		d, err := flow.ParseDefinition("gated.yaml", []byte(strings.ReplaceAll(Gated, "agent: gate", "agent: approval-agent")))
		f.must(err)
		_, err = f.Orgs[0].Node.Engine.Submit(context.Background(), "tester", d)
		if err == nil || !strings.Contains(err.Error(), "clock") {
			t.Fatalf("a clock that is off by three minutes: %v", err)
		}
		f.Orgs[1].Skew(20 * time.Second)
		if _, err := f.Orgs[0].Node.Engine.Submit(context.Background(), "tester", d); err != nil {
			t.Errorf("a clock that is off by twenty seconds: %v", err)
		}
	})
}

func TestWithdrawalDeniesFromNowOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(Gated)
		run := f.Begin(a, "lease.txt", Lease)
		f.awaitGate("")
		if _, err := f.Orgs[1].Node.Engine.Withdraw(context.Background(), "tester", a.Hash, "contract\x1b[2J ended"); err != nil {
			t.Fatal(err)
		}
		f.approveAtB(run.ID)
		end := f.Finish(run.ID)
		if end.State == flow.StateCompleted {
			t.Error("the run went on under an agreement that was withdrawn")
		}
		_, err := f.Orgs[0].Node.Engine.Start(context.Background(), "tester", a.Hash, flow.Input{MediaType: "text/plain", Data: []byte(Lease)}, "")
		if err == nil || !strings.Contains(err.Error(), "withdrawn (org-b: contract [2J ended)") {
			t.Errorf("a new run: %v", err)
		}
		f.Verify()
	})
}
