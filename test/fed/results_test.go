package fed

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"fednode/flow"
	"fednode/transport"
)

// made is an output as a hostile executor returns it, of the lease that serveDocument hands out.
func made(change object) object {
	o := object{"artifact_id": "art-1", "type": "classification", "version": 1, "media_type": "application/json", "size": len(Lease),
		"commitment": commitment(salt(9), []byte(Lease)), "origin": "org-a"}
	for k, v := range change {
		o[k] = v
	}
	return object{"status": "completed", "outputs": []any{o}}
}

// TestVersionsAreTheInitiatorsToNumber has an executor claim a version that nothing later could supersede.
func TestVersionsAreTheInitiatorsToNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: executor(func(*Hostile, *transport.Request) object { return made(object{"version": 1 << 52}) })})
		run := f.Finish(f.Begin(f.Agree(short), "lease.txt", Lease).ID)
		for _, a := range run.Artifacts {
			if a.Type == "classification" && a.Version != 1 || a.Version > 2 {
				t.Errorf("%s by %s has version %d", a.Type, a.MadeBy, a.Version)
			}
		}
		if run.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", run.State, run.Error)
		}
	})
}

// reviewed is short with a review at org-c of what org-b made.
var reviewed = strings.NewReplacer("name: short", "name: reviewed", "next: null, timeout: 60s}", "next: review, timeout: 60s}\n    - {id: review, organization: org-c, agent: document-reviewer, next: null}",
	"workflow:", "  - {id: org-c, role: reviewer}\nworkflow:", "{from: org-b, to: org-a,", "{from: org-a, to: org-c, data_types: [document]}\n    - {from: org-b, to: org-c,").Replace(short)

// TestAWrongCommitmentIsFoundByWhoeverFetches has org-b commit to other bytes than it hands out. org-c refuses them, the
// run fails and says whose fault it is, and a run without org-b's lie completes after it.
func TestAWrongCommitmentIsFoundByWhoeverFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{1: true}, Handlers: executor(func(*Hostile, *transport.Request) object {
			return made(object{"commitment": commitment(salt(9), []byte("another classification"))})
		})})
		run := f.Finish(f.Begin(f.Agree(reviewed), "lease.txt", Lease).ID)
		if run.State != flow.StateFailed || run.Error == nil || !strings.Contains(run.Error.Text, "classification from org-b") || !strings.Contains(run.Error.Text, "commitment") {
			t.Errorf("run is %s: %v", run.State, run.Error)
		}
		held, err := f.Orgs[2].Node.Engine.Holdings(run.ID)
		if err != nil || len(held) != 0 {
			t.Errorf("org-c holds %+v, %v", held, err)
		}
		f.Verify()
	})
}

// TestWhatAPeerSaysOfItsFailureIsTamed has an executor fail with what would change a terminal, and with no error at all.
func TestWhatAPeerSaysOfItsFailureIsTamed(t *testing.T) {
	for what, c := range map[string]struct {
		e    object
		code string
	}{
		"an escape sequence": {object{"code": "agent-failed", "text": "\x1b[2J\x1b[31mall is well\nrun completed"}, "agent-failed"},
		"an endless text":    {object{"code": "agent-failed", "text": strings.Repeat("well ", 100_000)}, "agent-failed"},
		"a code of words":    {object{"code": "all is\nwell", "text": ""}, "malformed"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: executor(func(*Hostile, *transport.Request) object {
					return object{"status": "failed", "error": c.e}
				})})
				run := f.Finish(f.Begin(f.Agree(short), "lease.txt", Lease).ID)
				if run.State != flow.StateFailed || run.Error == nil || run.Error.Code != c.code || strings.ContainsAny(run.Error.Text, "\x1b\n") || len(run.Error.Text) > 4096 {
					t.Errorf("run is %s: %.200v", run.State, run.Error)
				}
			})
		})
	}
}

// TestTwoResultsForOneKey has an executor answer every delivery of one key with another result. The initiator, which
// crashes before it has kept the first, uses and records one.
func TestTwoResultsForOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answered atomic.Int64
		var f *Federation
		f = New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: executor(func(*Hostile, *transport.Request) object {
			n := answered.Add(1)
			if n == 1 {
				f.Network.Cut(f.Orgs[0], f.Orgs[1], true) // the first answer does not arrive
			}
			return made(object{"artifact_id": fmt.Sprintf("art-%d", n)})
		})})
		run := f.Begin(f.Agree(short), "lease.txt", Lease)
		f.Wait("the first answer", func() bool { return answered.Load() == 1 })
		f.Orgs[0].Crash()
		f.Orgs[0].Start()
		f.Network.Cut(f.Orgs[0], f.Orgs[1], false)
		end := f.Finish(run.ID)
		if end.State != flow.StateCompleted || answered.Load() < 2 || len(end.Steps[1].Outputs) != 1 || end.Steps[1].Outputs[0] == "art-1" {
			t.Errorf("run is %s after %d answers with %v: %v", end.State, answered.Load(), end.Steps[1].Outputs, end.Error)
		}
		if n := len(f.Orgs[0].entries(t, "reply-received", string(run.ID)+"/classify/1")); n != 1 {
			t.Errorf("%d replies are on record", n)
		}
		f.Verify()
	})
}

func TestCancellingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a := f.Agree(Gated)
		for range 5 {
			run := f.Begin(a, "lease.txt", Lease)
			if _, err := f.Orgs[0].Node.Engine.Cancel(context.Background(), "tester", string(run.ID)); err != nil {
				t.Fatal(err)
			}
			if end := f.Finish(run.ID); end.State != flow.StateCancelled {
				t.Errorf("run is %s: %v", end.State, end.Error)
			}
		}
		f.Verify()
	})
}
