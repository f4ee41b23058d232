package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// maxAttempts bounds how often a step whose executor or source lost its memory is begun again.
const maxAttempts = 5

// codeGrantExpired is a step's failure because the initiator was away longer than its grants were good, or its executor
// remembers the attempt.
const codeGrantExpired = "grant-expired"

// stepRequest is the payload of a step-execution-request; its field names are the reference message's.
type stepRequest struct {
	AgentID             string        `json:"agent_id"`
	Input               stepInput     `json:"input"`
	ExecutionParameters stepExecution `json:"execution_parameters"`
}

type stepInput struct {
	Artifacts []inputRef `json:"artifacts"`
}

type stepExecution struct {
	Timeout  int    `json:"timeout"` // seconds, from receipt
	Priority string `json:"priority"`
}

// stepResult is the payload of its reply: status and references, never content.
type stepResult struct {
	Status    string        `json:"status"` // "completed" or "failed"
	Outputs   []ArtifactRef `json:"outputs,omitempty"`
	Automatic bool          `json:"automatic,omitempty"`
	Error     *StepError    `json:"error,omitempty"`
}

// A driver takes one run through its steps. Only its own goroutine changes the run.
type driver struct {
	e       *Engine
	run     *Run
	a       *Agreement
	pending []func(*store.Tx) error // what the last reply left to record, with the next commit
}

// startDriver begins or resumes driving a run that is on record. While the node starts or stops it does nothing: [Engine.Run]
// begins with what is on record.
func (e *Engine) startDriver(id RunID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.base == nil || e.drivers[id] != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(e.base)
	e.drivers[id] = cancel // before the run is known to anybody who could cancel it
	e.work.Go(func() {
		defer cancel(nil)
		defer func() {
			e.mu.Lock()
			delete(e.drivers, id)
			e.mu.Unlock()
		}()
		switch err := e.drive(ctx, id); {
		case err == nil:
		case ctx.Err() != nil:
			e.c.Logger.Info("run interrupted; it resumes at the next start", "run", id)
		default:
			e.c.Logger.Error("run interrupted; it resumes at the next start", "run", id, "err", err)
		}
	})
}

func (e *Engine) drive(ctx context.Context, id RunID) error {
	d, cancelled := &driver{e: e}, false
	err := e.c.DB.View(func(tx *store.Tx) error {
		r, ok, err := get[Run](tx, bucketRuns, string(id))
		if err == nil && !ok {
			err = ErrNotFound
		}
		if d.run = &r; err != nil {
			return err
		}
		cancelled, _, err = get[bool](tx, bucketCancels, string(id))
		return err
	})
	if err != nil {
		return err
	}
	if cancelled { // before the node stopped, and it was not ended any more
		e.mu.Lock()
		e.drivers[id](errCancelled)
		e.mu.Unlock()
	}
	if d.a, err = e.Agreement(d.run.Agreement); err != nil {
		return err
	}
	started := time.Now()
	for !d.run.State.Final() {
		i := slices.IndexFunc(d.run.Steps, func(s StepRun) bool { return s.State != StateCompleted })
		if i < 0 {
			d.end(StateCompleted, nil)
			break
		}
		if err := d.step(ctx, i); err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errCancelled) {
				d.run.Steps[i].State = StateCancelled
				d.end(StateCancelled, &StepError{Code: "cancelled", Text: "by the initiator's operator"})
				break
			}
			return err
		}
	}
	return d.finish(context.WithoutCancel(ctx), time.Since(started))
}

// commit saves the run together with what the last reply left and with what extra adds, in one transaction.
func (d *driver) commit(ctx context.Context, extra func(*store.Tx) error) error {
	return d.e.c.DB.Update(ctx, d.saving(extra))
}

func (d *driver) saving(extra func(*store.Tx) error) func(*store.Tx) error {
	pending := d.pending
	return func(tx *store.Tx) error {
		tx.AfterCommit(func() { d.pending = d.pending[len(pending):] })
		for _, fn := range pending {
			if err := fn(tx); err != nil {
				return err
			}
		}
		if extra != nil {
			if err := extra(tx); err != nil {
				return err
			}
		}
		return put(tx, bucketRuns, string(d.run.ID), d.run)
	}
}

func (d *driver) publish(s *StepRun, text string) {
	d.e.publish(Event{Run: d.run.ID, Step: s.ID, Attempt: s.Attempt, Organization: string(s.Organization), State: string(s.State), Text: text})
}

// end sets the run's final state; finish makes it durable.
func (d *driver) end(state State, err *StepError) {
	d.run.State, d.run.Error, d.run.Finished = state, err, stamp(d.e.c.Now())
}

// step takes step i as far as it goes: to completion, to a state that ends the run, or to a new attempt. An error
// means that the driver was stopped.
func (d *driver) step(ctx context.Context, i int) error {
	s := &d.run.Steps[i]
	def := d.definition(s.ID)
	extra, ok, err := d.prepare(ctx, s, def)
	if err != nil || !ok {
		return err
	}
	d.publish(s, "")
	var res *stepResult
	if s.Organization == d.e.c.Org {
		res, err = d.local(ctx, s, def, extra)
	} else {
		res, err = d.remote(ctx, s, def, extra)
	}
	if err != nil {
		return err
	}
	d.apply(s, res)
	return nil
}

func (d *driver) definition(id string) Step {
	i := slices.IndexFunc(d.a.Definition.Workflow.Steps, func(s Step) bool { return s.ID == id })
	return d.a.Definition.Workflow.Steps[i]
}

// prepare routes the step's inputs and makes its request. It returns what the first commit has to add, and false if
// the step cannot begin.
func (d *driver) prepare(ctx context.Context, s *StepRun, def Step) (extra func(*store.Tx) error, ok bool, err error) {
	if s.State == StateRunning || s.State == StateWaiting { // resumed: redeliver what was asked
		return nil, true, nil
	}
	e := d.e
	stale, err := d.upToDate(ctx, s, def)
	if err != nil {
		return nil, false, err
	}
	if d.a, err = e.Agreement(d.a.Hash); err != nil {
		return nil, false, err
	}
	decl, err := d.a.declaration(def)
	if err != nil {
		return nil, false, err
	}
	req := policy.Request{Subject: string(e.c.Org), Action: "step.execute", Resource: def.Agent, Categories: decl.Inputs, Purpose: def.purpose(),
		Recipient: string(def.Organization), Agreement: d.a.policyView()}
	dec := e.decide(req)
	inputs, withheld, missing := e.route(d.run, d.a, def, decl)
	s.Withheld, s.Attempt, s.Started = withheld, s.Attempt+1, stamp(e.c.Now())
	extra = func(tx *store.Tx) error {
		if err := e.recordDecision(tx, req, dec, d.reference(s)); err != nil {
			return err
		}
		return d.recordWithheld(tx, s)
	}
	switch {
	case stale != nil:
		d.stop(s, StateBlocked, &StepError{Code: string(transport.CodeStaleGovernance), Text: stale.Error()})
	case dec.Effect != policy.Allow:
		d.stop(s, StateBlocked, &StepError{Code: string(transport.CodeDenied), Text: reasonText(dec)})
	case missing != "":
		d.stop(s, StateBlocked, &StepError{Code: "blocked", Text: missing})
	}
	if d.run.State.Final() {
		d.pending = append(d.pending, extra)
		return nil, false, nil
	}
	s.State = StateRunning
	return extra, true, d.request(s, def, inputs)
}

// upToDate says why the members in force are not known, if that stays so for as long as the step may take: this node may be
// cut off, or its clock wrong, for a moment. err is why the driver was stopped.
func (d *driver) upToDate(ctx context.Context, s *StepRun, def Step) (stale, err error) {
	until := time.Now().Add(def.timeout())
	for {
		stale = d.e.c.UpToDate(ctx)
		left := time.Until(until)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case stale == nil || left <= 0:
			return stale, nil
		}
		if len(d.pending) > 0 { // a result is not to be in memory alone for as long as this takes
			if err := d.commit(ctx, nil); err != nil {
				return nil, err
			}
		}
		d.publish(s, "waits: "+stale.Error())
		pause(ctx, min(skewPause, left))
	}
}

// reference names an attempt in log entries.
func (d *driver) reference(s *StepRun) string {
	return fmt.Sprintf("%s/%s/%d", d.run.ID, s.ID, s.Attempt)
}

func (d *driver) recordWithheld(tx *store.Tx, s *StepRun) error {
	for _, w := range s.Withheld {
		d.e.m.violations.Inc()
		err := d.e.record(tx, ledger.Entry{Type: "withheld", Category: ledger.PolicyEnforcement, PolicyID: "agreement:" + d.a.Hash,
			Resource: w.Type, Action: "artifact.share", Result: "withheld", Reference: d.reference(s) + " " + string(w.From) + ">" + string(w.To)})
		if err != nil {
			return err
		}
	}
	return nil
}

// stop ends the run at this step.
func (d *driver) stop(s *StepRun, state State, err *StepError) {
	s.State, s.Error, s.Finished, s.Request, s.Salt = state, err, stamp(d.e.c.Now()), nil, nil
	d.end(state, err)
}

// request makes the attempt's payload, with a grant for every input that has to be fetched.
func (d *driver) request(s *StepRun, def Step, inputs []inputRef) error {
	expires, k := d.e.c.Now().Add(def.timeout()+time.Minute), d.e.key.Load()
	for i := range inputs {
		in := &inputs[i]
		if in.From == "" {
			continue
		}
		in.Grant = &Grant{FederationID: d.e.c.Members().FederationID(), Agreement: d.a.Hash, Run: d.run.ID, Step: s.ID, Attempt: s.Attempt,
			Artifact: in.ID, Type: in.Type, Holder: in.From, Recipient: s.Organization, Initiator: d.e.c.Org, KeyID: k.id, ExpiresAt: stamp(expires)}
		if err := in.Grant.sign(k.key); err != nil {
			return err
		}
	}
	if inputs == nil {
		inputs = []inputRef{}
	}
	priority := def.priority()
	if rank(d.run.Priority) < rank(priority) || def.Priority == "" {
		priority = d.run.Priority
	}
	b, err := jcs.Marshal(stepRequest{AgentID: def.Agent, Input: stepInput{inputs},
		ExecutionParameters: stepExecution{Timeout: int(def.timeout() / time.Second), Priority: priority}})
	s.Request, s.Salt = b, newSalt()
	return err
}

// local executes a step of this organisation's own, without an envelope.
func (d *driver) local(ctx context.Context, s *StepRun, def Step, extra func(*store.Tx) error) (*stepResult, error) {
	if err := d.commit(ctx, extra); err != nil {
		return nil, err
	}
	var req stepRequest
	if err := json.Unmarshal(s.Request, &req); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, def.timeout())
	defer cancel()
	t := &task{key: attemptKey{d.e.c.Org, d.run.ID, s.ID, s.Attempt}, step: def, agreement: d.a, request: req, waiting: func() error {
		s.State, d.run.State = StateWaiting, StateWaiting
		d.publish(s, "awaits fednode flow approve "+string(d.run.ID))
		return d.commit(ctx, nil)
	}}
	out := d.e.execute(ctx, t)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		d.e.dropAll(out.holdings)
		return nil, cause
	}
	d.run.State = StateRunning
	d.pending = append(d.pending, func(tx *store.Tx) error { return d.e.keepOutcome(tx, t, out) })
	return &out.result, nil
}

// finish makes the run's end durable and tells the participants, who then forget what they hold in memory.
func (d *driver) finish(ctx context.Context, took time.Duration) error {
	e := d.e
	err := d.commit(ctx, func(tx *store.Tx) error {
		if err := tx.Bucket(bucketCancels).Delete([]byte(d.run.ID)); err != nil {
			return err
		}
		return e.record(tx, ledger.Entry{Type: "run-closed", Category: ledger.PolicyEnforcement, PolicyID: "agreement:" + d.a.Hash,
			Resource: "run:" + string(d.run.ID), Action: "run.close", Result: string(d.run.State), Reference: string(d.run.ID)})
	})
	if err != nil {
		return err
	}
	if d.run.State == StateCompleted {
		e.m.runsOK.Inc()
	}
	e.m.duration.Update(took.Seconds())
	text := ""
	if d.run.Error != nil {
		text = d.run.Error.Error()
	}
	e.tellClosed(ctx, d)
	if err := e.releaseRun(ctx, d.run.ID, d.a.Hash); err != nil {
		return err
	}
	e.publish(Event{Run: d.run.ID, State: string(d.run.State), Text: text})
	return nil
}

// tellClosed tells every other organisation that took part. One that cannot be reached forgets by itself when the
// attempt's deadline is over.
func (e *Engine) tellClosed(ctx context.Context, d *driver) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	told := map[transport.OrgID]bool{e.c.Org: true}
	var wg sync.WaitGroup
	for _, s := range d.run.Steps {
		if s.Attempt == 0 || told[s.Organization] {
			continue
		}
		told[s.Organization] = true
		wg.Go(func() {
			err := e.tell(ctx, transport.Message{To: s.Organization, Type: msgRunClosed, Run: string(d.run.ID), Agreement: d.a.Hash,
				Payload: runClosed{State: d.run.State}, Audit: transport.AuditInfo{Category: ledger.Authorization, Action: "run.close", Resource: "run:" + string(d.run.ID)}})
			if err != nil {
				e.c.Logger.Warn("participant was not told that the run is closed", "run", d.run.ID, "peer", s.Organization, "err", err)
			}
		})
	}
	wg.Wait()
}
