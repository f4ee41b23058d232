//go:build chaos

package fed

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"fednode/flow"
	"fednode/transport"
)

// The environment of chaos tests. A failure names its seed; with FEDNODE_CHAOS_SEED the same faults come again, once.
// FEDNODE_CHAOS_TIME is how long each test goes on with new seeds, by the clock on the wall; default 2m.
const (
	seedVariable = "FEDNODE_CHAOS_SEED"
	timeVariable = "FEDNODE_CHAOS_TIME"
)

// chaos runs a test with one seed after the other.
func chaos(t *testing.T, fn func(t *testing.T, rng *rand.Rand)) {
	once := func(seed uint64) bool {
		return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Logf("to repeat it: %s=%d go test -tags chaos -run '^%s$' ./test/fed", seedVariable, seed, strings.Split(t.Name(), "/")[0])
			fn(t, rand.New(rand.NewPCG(seed, 2)))
		})
	}
	if s := os.Getenv(seedVariable); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q: want a whole number", seedVariable, s)
		}
		once(seed)
		return
	}
	limit := 2 * time.Minute
	if s := os.Getenv(timeVariable); s != "" {
		var err error
		if limit, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", timeVariable, err)
		}
	}
	for end := wall(t).Add(limit); ; {
		if !once(rand.Uint64()>>32) || wall(t).After(end) {
			return
		}
	}
}

// wall is the clock on the wall, outside of any bubble.
func wall(t *testing.T) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Unix(ts.Unix())
}

// An episode is a federation to which things happen.
type episode struct {
	*Federation
	t          *testing.T
	rng        *rand.Rand
	agreements map[*Org]*flow.Agreement
	runs       []*driven
	ends       []spell // of what goes on
	happened   map[string]int
}

// A spell is what ends at a time, and how.
type spell struct {
	at  time.Time
	end func()
}

// A driven run is one whose start was acknowledged.
type driven struct {
	at        *Org
	id        flow.RunID
	completed bool // was seen to be
	cancelled bool // was acknowledged, while its last step had not begun
}

// TestChaos lets runs of several initiators cross a federation of three to five, while links are cut, slow or lossy, UDP
// is blocked, clocks are wrong, nodes crash, stop and start, and runs are cancelled. When all is well again, every run
// has to end, and what was promised must hold.
func TestChaos(t *testing.T) {
	chaos(t, func(t *testing.T, rng *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			n := 3 + rng.IntN(3)
			agents := map[int]string{}
			for i := range n {
				agents[i] = ApproveAll
			}
			e := &episode{Federation: New(t, Options{Orgs: n, Seed: rng.Uint64(), Latency: time.Duration(1+rng.IntN(40)) * time.Millisecond, Agents: agents}),
				t: t, rng: rng, agreements: map[*Org]*flow.Agreement{}, happened: map[string]int{}}
			for _, o := range e.Orgs[:2] {
				e.agreements[o] = e.AgreeAt(o, e.workflow(o))
			}
			for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); {
				time.Sleep(time.Duration(20+rng.IntN(1500)) * time.Millisecond)
				e.due(time.Now())
				e.happen()
			}
			e.due(time.Now().Add(time.Hour))
			e.settle()
		})
	})
}

// workflow is one whose steps are at organisations by chance. Whoever it leads to may have what its step needs.
func (e *episode) workflow(initiator *Org) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: chaos-%s\nversion: 1.0.0\ntype: federated\nparticipants:\n", initiator.ID)
	for _, o := range e.Orgs {
		role := "processor"
		if o == initiator {
			role = "initiator"
		}
		fmt.Fprintf(&b, "  - {id: %s, role: %s}\n", o.ID, role)
	}
	b.WriteString("workflow:\n  steps:\n")
	any := func() transport.OrgID { return e.Orgs[e.rng.IntN(len(e.Orgs))].ID }
	for _, s := range []struct {
		id, agent, next string
		at              transport.OrgID
	}{
		{"upload", "document-uploader", "classify", initiator.ID}, {"classify", "document-classifier", "detect", any()},
		{"detect", "pii-detector", "review", any()}, {"review", "document-reviewer", "approve", any()}, {"approve", "approval-agent", "null", initiator.ID},
	} {
		fmt.Fprintf(&b, "    - {id: %s, organization: %s, agent: %s, next: %s, timeout: %ds}\n", s.id, s.at, s.agent, s.next, 30+e.rng.IntN(90))
	}
	b.WriteString("governance:\n  data_sharing:\n")
	for _, from := range e.Orgs {
		for _, to := range e.Orgs {
			if from != to {
				fmt.Fprintf(&b, "    - {from: %s, to: %s, data_types: [document, classification], restrictions: [no-storage]}\n", from.ID, to.ID)
				fmt.Fprintf(&b, "    - {from: %s, to: %s, data_types: [review-result]}\n", from.ID, to.ID)
			}
		}
	}
	return b.String()
}

// due ends what is over by now.
func (e *episode) due(now time.Time) {
	slices.SortStableFunc(e.ends, func(a, b spell) int { return a.at.Compare(b.at) })
	for len(e.ends) > 0 && !e.ends[0].at.After(now) {
		end := e.ends[0].end
		e.ends = e.ends[1:]
		end()
	}
}

// lasts has end called after at most longest.
func (e *episode) lasts(longest time.Duration, end func()) {
	e.ends = append(e.ends, spell{time.Now().Add(time.Duration(e.rng.Int64N(int64(longest)))), end})
}

// happen does one thing by chance.
func (e *episode) happen() {
	a, b := e.Orgs[e.rng.IntN(len(e.Orgs))], e.Orgs[e.rng.IntN(len(e.Orgs))]
	what := "nothing"
	switch p := e.rng.IntN(100); {
	case p < 35:
		what = e.begin()
	case p < 40:
		what = e.cancelOne()
	case p < 60 && a != b:
		switch e.rng.IntN(4) {
		case 0:
			what = "cut"
			e.Network.Cut(a, b, true)
			e.lasts(time.Minute, func() { e.Network.Cut(a, b, false) })
		case 1:
			what = "delay"
			e.Network.Delay(a, b, time.Duration(e.rng.IntN(2000))*time.Millisecond)
			e.lasts(time.Minute, func() { e.Network.Delay(a, b, 0) })
		case 2:
			what = "no UDP"
			e.Network.BlockUDP(a, b, true)
			e.lasts(time.Minute, func() { e.Network.BlockUDP(a, b, false) })
		case 3:
			what = "loss"
			e.Network.Lose(e.rng.Float64() / 4)
			e.lasts(time.Minute, func() { e.Network.Lose(0) })
		}
	case p < 65:
		what = "skew"
		wrong, by := []*Org{a}, time.Duration(0)
		switch e.rng.IntN(8) {
		case 0, 1: // farther than is borne; certificates begin five minutes before they are made
			by = time.Duration(e.rng.Int64N(int64(8*time.Minute))) - 4*time.Minute
		case 2:
			by = time.Duration(e.rng.Int64N(int64(6 * 24 * time.Hour)))
		case 3: // one source of time leads all of them astray
			wrong, by = e.Orgs, time.Duration(e.rng.Int64N(int64(6*24*time.Hour)))
		default:
			by = time.Duration(e.rng.Int64N(int64(2*time.Minute))) - time.Minute
		}
		for _, o := range wrong {
			o.Skew(by)
			e.lasts(30*time.Second, func() { o.Skew(0) })
		}
	case p < 75 && a.Node != nil:
		if what = "stop"; e.rng.IntN(3) > 0 {
			what = "crash"
			a.Crash()
			e.traces(a)
		} else {
			e.must(a.Stop())
		}
		e.lasts(time.Minute, a.Start)
	}
	e.happened[what]++
	for _, r := range e.runs {
		if r.at.Node != nil && !r.completed {
			run, err := r.at.Node.Engine.GetRun(string(r.id))
			e.must(err) // it was acknowledged
			r.completed = run.State == flow.StateCompleted
		}
	}
}

// begin starts a run at one of the initiators.
func (e *episode) begin() string {
	o := e.Orgs[e.rng.IntN(2)]
	if o.Node == nil {
		return "nothing"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	run, err := o.Node.Engine.Start(ctx, "tester", e.agreements[o].Hash, flow.Input{Name: "lease.txt", MediaType: "text/plain", Data: []byte(Lease)}, "normal")
	if err != nil {
		e.t.Logf("%s begins no run: %v", o.ID, err)
		return "refused run"
	}
	e.runs = append(e.runs, &driven{at: o, id: run.ID})
	return "run"
}

func (e *episode) cancelOne() string {
	for _, i := range e.rng.Perm(len(e.runs)) {
		r := e.runs[i]
		if r.at.Node == nil {
			continue
		}
		if run, err := r.at.Node.Engine.Cancel(context.Background(), "tester", string(r.id)); err == nil {
			r.cancelled = run.Steps[len(run.Steps)-1].State == flow.StatePending
			return "cancelled run"
		}
	}
	return "nothing"
}

// borne are the codes that a run may fail with when networks, clocks and nodes do.
var borne = []string{"timeout", "unreachable", "cancelled", "closed", "expired", "grant-expired", string(transport.CodeLost), string(transport.CodeClockSkew), string(transport.CodeOverloaded)}

// settle waits until all runs have ended, and holds the federation to its promises.
func (e *episode) settle() {
	for _, o := range e.Orgs {
		if o.Node == nil {
			e.t.Fatalf("%s was not started again", o.ID)
		}
	}
	outcomes := map[string]int{}
	for _, r := range e.runs {
		var run *flow.Run
		e.Wait(fmt.Sprintf("the end of %s of %s", r.id, r.at.ID), func() bool {
			var err error
			run, err = r.at.Node.Engine.GetRun(string(r.id))
			e.must(err)
			return run.State.Final()
		})
		outcome := string(run.State)
		if run.Error != nil {
			outcome += " " + run.Error.Code
			if !slices.Contains(borne, run.Error.Code) {
				e.t.Errorf("%s of %s: %s: %v", r.id, r.at.ID, run.State, run.Error)
			}
		}
		outcomes[outcome]++
		if r.completed && run.State != flow.StateCompleted {
			e.t.Errorf("%s of %s had completed, and is %s", r.id, r.at.ID, run.State)
		}
		if r.cancelled && run.State == flow.StateCompleted {
			e.t.Errorf("%s of %s was cancelled, and is %s", r.id, r.at.ID, run.State)
		}
		e.once(r.at, run)
	}
	time.Sleep(2 * time.Hour) // until what nobody was told of is forgotten, too
	for _, o := range e.Orgs {
		held, err := o.Node.Engine.Holdings("")
		e.must(err)
		for _, h := range held {
			if h.Where == flow.InMemory {
				e.t.Errorf("%s still holds a %s of %s", o.ID, h.Artifact.Type, h.Run)
			}
		}
		e.traces(o)
	}
	receipts := e.Verify()
	for _, o := range e.Orgs {
		st, err := o.Node.Status()
		if e.must(err); st.Evidence != 0 {
			e.t.Errorf("%s has %d pieces of evidence against honest peers", o.ID, st.Evidence)
		}
	}
	e.t.Logf("%d organisations, %s; runs: %s; %d receipts", len(e.Orgs), counted(e.happened), counted(outcomes), receipts)
}

func counted(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(out, ", ")
}

// once wants, for every step of a run, at most one result of each attempt on record anywhere, and of a step that is
// completed exactly one that the run goes on from, in its executor's journal and in both logs.
func (e *episode) once(initiator *Org, run *flow.Run) {
	for _, s := range run.Steps {
		executor := e.Orgs[slices.IndexFunc(e.Orgs, func(o *Org) bool { return o.ID == s.Organization })]
		for attempt := 1; attempt <= s.Attempt; attempt++ {
			reference := fmt.Sprintf("%s/%s/%d", run.ID, s.ID, attempt)
			results, replies := 0, 0
			for _, x := range executor.entries(e.t, "step-executed", reference) {
				if x.Reference == reference {
					results++
				}
			}
			for _, x := range initiator.entries(e.t, "reply-received", reference) {
				if x.Reference == reference && x.Action == "step.execute" && x.Result == "ok" { // and not a refusal to begin now
					replies++
				}
			}
			used := s.State == flow.StateCompleted && attempt == s.Attempt
			if results > 1 || replies > 1 || used && results != 1 || used && executor != initiator && replies != 1 {
				e.t.Errorf("%s at %s: %d results and %d replies are on record", reference, executor.ID, results, replies)
			}
			if !used || executor == initiator {
				continue
			}
			journal, err := executor.Node.Engine.Executions(run.ID)
			e.must(err)
			n := 0
			for _, x := range journal {
				if x.Initiator == initiator.ID && x.Step == s.ID && x.Attempt == attempt && x.State == "done" && x.Error == nil {
					n++
				}
			}
			if n != 1 {
				e.t.Errorf("%s is %d times in the journal of %s", reference, n, executor.ID)
			}
		}
	}
}
