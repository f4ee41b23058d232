package flow

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
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

// codeGrantExpired is a step's failure to fetch an input because the initiator was away longer than its grant was good.
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

// startDriver begins or resumes driving a run.
func (e *Engine) startDriver(id RunID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.base == nil {
		return errNotRunning
	}
	if e.drivers[id] != nil {
		return nil
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
	return nil
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
	if a, err := e.Agreement(d.a.Hash); err != nil {
		return nil, false, err
	} else {
		d.a = a
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
	stale := e.c.UpToDate(ctx)
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
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

// remote asks the step's organisation until it answers or the step's timeout is over. Redelivery uses the same
// payload and salt, so that the executor knows the attempt again.
func (d *driver) remote(ctx context.Context, s *StepRun, def Step, extra func(*store.Tx) error) (*stepResult, error) {
	timeout := def.timeout()
	tctx, cancel := context.WithTimeout(ctx, timeout+5*time.Second)
	defer cancel()
	m := transport.Message{To: s.Organization, Type: msgStep, Run: string(d.run.ID), Step: s.ID, Payload: s.Request, Salt: s.Salt,
		Agreement: d.a.Hash, Attempt: s.Attempt, ExpiresAt: d.e.c.Now().Add(timeout + time.Minute),
		Governance: d.governance(def, s),
		Audit:      transport.AuditInfo{Category: ledger.DataAccess, Action: "step.execute", Resource: def.Agent, DataCategory: "step", Purpose: def.purpose()}}
	backoff := 100 * time.Millisecond
	first, told := true, false
	for {
		with := d.saving(nil)
		if first {
			with = d.saving(func(tx *store.Tx) error {
				tx.AfterCommit(func() { first = false })
				if extra == nil {
					return nil
				}
				return extra(tx)
			})
		}
		reply, err := d.e.c.Node.Call(tctx, m, with)
		switch {
		case err == nil:
			d.pending = append(d.pending, reply.Record)
			if reply.Refusal == nil {
				return d.parseResult(reply.Payload), nil
			}
			if d.retryable(ctx, reply.Refusal, &told) {
				break
			}
			return &stepResult{Status: "failed", Error: &StepError{Code: string(reply.Refusal.Code), Text: string(s.Organization) + ": " + reply.Refusal.Text}}, nil
		case context.Cause(ctx) != nil: // stopping, or cancelled by the operator
			if errors.Is(context.Cause(ctx), errCancelled) {
				d.close(context.WithoutCancel(ctx), s, "cancelled")
			}
			return nil, context.Cause(ctx)
		case notMember(err) != nil:
			d.close(context.WithoutCancel(ctx), s, "not-member")
			return &stepResult{Status: "failed", Error: &StepError{Code: string(transport.CodeNotMember), Text: notMember(err).Text}}, nil
		case tctx.Err() == nil:
			d.publish(s, "no answer yet, asking again: "+err.Error())
		}
		if tctx.Err() != nil {
			d.close(context.WithoutCancel(ctx), s, "timeout")
			text := fmt.Sprintf("no answer from %s within %v; whether the step ran is unknown, and a late result will not be used", s.Organization, timeout)
			return &stepResult{Status: "failed", Error: &StepError{Code: "timeout", Text: text}}, nil
		}
		select {
		case <-time.After(backoff + jitter(backoff)):
		case <-tctx.Done():
		}
		backoff = min(2*backoff, 5*time.Second)
	}
}

// notMember returns the refusal to have anything to do with an organisation that is not a member here, or is suspended.
func notMember(err error) *transport.Error {
	var e *transport.Error
	if errors.As(err, &e) && e.Code == transport.CodeNotMember && !errors.Is(err, transport.ErrUnknownOutcome) && !errors.Is(err, transport.ErrUnreachable) {
		return e
	}
	return nil
}

// jitter returns a random duration below d, so that peers that failed together don't come back together.
func jitter(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:])
	return time.Duration(binary.NativeEndian.Uint64(b[:]) % uint64(d))
}

// retryable reports whether a refusal is one to try again after: the executor is busy, or has not learnt that the
// agreement is in force, which it is then told.
func (d *driver) retryable(ctx context.Context, refusal *transport.Error, told *bool) bool {
	switch refusal.Code {
	case transport.CodeOverloaded:
		return true
	case transport.CodeNotInForce:
		if *told {
			return false
		}
		*told = true
		_, err := d.e.settle(ctx, d.a.Hash)
		return err == nil
	}
	return false
}

func (d *driver) governance(def Step, s *StepRun) transport.Governance {
	var g transport.Governance
	g.DataHandling.StorageAllowed = true
	var req stepRequest
	if json.Unmarshal(s.Request, &req) == nil {
		for _, in := range req.Input.Artifacts {
			if slices.Contains(in.Restrictions, NoStorage) {
				g.DataHandling.StorageAllowed = false
			}
		}
	}
	g.DataHandling.ProcessingPurpose = def.purpose()
	g.DataHandling.RetentionPeriod = d.a.Definition.Governance.Audit.RetentionPeriod.String()
	if !g.DataHandling.StorageAllowed {
		g.DataHandling.RetentionPeriod = "0s"
	}
	g.AuditRequirements.DetailLevel = d.a.Definition.Governance.Audit.Level
	g.AuditRequirements.StoreResult = g.DataHandling.StorageAllowed
	return g
}

func (d *driver) parseResult(payload []byte) *stepResult {
	res := new(stepResult)
	if err := jcs.Unmarshal(payload, res); err != nil || res.Status != "completed" && (res.Error == nil || !res.Error.tame()) {
		return &stepResult{Status: "failed", Error: &StepError{Code: "malformed", Text: "the executor's result cannot be read"}}
	}
	return res
}

// close logs that the attempt's result will never be used, and tells its executor to stop.
func (d *driver) close(ctx context.Context, s *StepRun, why string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := d.commit(ctx, func(tx *store.Tx) error {
		return d.e.record(tx, ledger.Entry{Type: "attempt-closed", Category: ledger.PolicyEnforcement, PolicyID: "agreement:" + d.a.Hash,
			Resource: "step:" + s.ID, Action: "step.close", Result: why, Reference: d.reference(s)})
	})
	if err == nil {
		err = d.e.tell(ctx, transport.Message{To: s.Organization, Type: msgCancel, Run: string(d.run.ID), Step: s.ID, Agreement: d.a.Hash, Attempt: s.Attempt,
			Payload: cancellation{Reason: why}, Audit: transport.AuditInfo{Category: ledger.Authorization, Action: "step.cancel", Resource: s.ID}})
	}
	if err != nil {
		d.e.c.Logger.Warn("executor was not told that an attempt is closed", "run", d.run.ID, "step", s.ID, "peer", s.Organization, "err", err)
	}
}

// apply takes a result into the run. The artifact versions are the initiator's to number.
func (d *driver) apply(s *StepRun, res *stepResult) {
	if res.Status == "completed" {
		if err := d.adopt(s, res.Outputs); err != nil {
			res = &stepResult{Status: "failed", Error: err}
		}
	}
	switch {
	case res.Status == "completed":
		s.State, s.Finished, s.Automatic, s.Error, s.Request, s.Salt = StateCompleted, stamp(d.e.c.Now()), res.Automatic, nil, nil, nil
		d.publish(s, "")
		return
	case res.Error.Code == string(transport.CodeLost) && s.Attempt < maxAttempts:
		d.rewind(s, res.Error)
		return
	case res.Error.Code == codeGrantExpired && s.Attempt < maxAttempts:
		s.again()
		d.publish(s, "the grants ended before the inputs were fetched; beginning again with new ones")
		return
	}
	d.stop(s, StateFailed, res.Error)
	d.publish(s, res.Error.Error())
}

// adopt lists a step's outputs in the run, and its executor as a holder of its inputs.
func (d *driver) adopt(s *StepRun, outputs []ArtifactRef) *StepError {
	decl, err := d.a.declaration(d.definition(s.ID))
	if err != nil {
		return &StepError{Code: "malformed", Text: err.Error()}
	}
	var req stepRequest
	if err := json.Unmarshal(s.Request, &req); err != nil {
		return &StepError{Code: "internal", Text: "request: " + err.Error()}
	}
	var origins []transport.OrgID
	var restrictions []string
	for _, in := range req.Input.Artifacts {
		origins = append(origins, in.Origin)
		if in.Origin != s.Organization { // restrictions bind recipients, never the origin
			restrictions = union(restrictions, in.Restrictions)
		}
		for i := range d.run.Artifacts {
			if a := &d.run.Artifacts[i]; a.ID == in.ID && !slices.Contains(a.Holders, s.Organization) {
				a.Holders = append(a.Holders, s.Organization)
			}
		}
	}
	s.Outputs = nil
	for _, o := range outputs {
		if !slices.Contains(decl.Outputs, o.Type) {
			return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned a %q, which step %s does not declare", s.Organization, o.Type, s.ID)}
		}
		if c, err := base64.StdEncoding.Strict().DecodeString(o.Commitment); err != nil || len(c) != 32 || o.ID == "" || len(o.ID) > 64 || o.Size < 0 || o.Size > MaxArtifact || !typeRE.MatchString(o.MediaType) {
			return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned an output that is not well formed", s.Organization)}
		}
		if o.Origin != derivedOrigin(s.Organization, origins) || len(union(restrictions, o.Restrictions)) != len(o.Restrictions) {
			return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned a %q without the origin or the restrictions of its inputs", s.Organization, o.Type)}
		}
		version := 0
		for _, a := range d.run.Artifacts {
			if a.ID == o.ID {
				return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned an output under an id that is taken", s.Organization)}
			}
			if a.Type == o.Type {
				version = max(version, a.Version)
			}
		}
		o.Version = version + 1
		o.MadeBy, o.Holders = s.ID, []transport.OrgID{s.Organization}
		d.run.Artifacts = append(d.run.Artifacts, o)
		s.Outputs = append(s.Outputs, o.ID)
	}
	return nil
}

// rewind begins again after an organisation lost what it held in memory: it is no holder any more, and the earliest
// step whose outputs nobody holds now runs again, as a new, recorded attempt.
func (d *driver) rewind(s *StepRun, lost *StepError) {
	holder := lost.Holder
	if holder == "" {
		holder = s.Organization
	}
	gone := map[string]bool{} // steps to run again
	gone[s.ID] = true
	for i := range d.run.Artifacts {
		a := &d.run.Artifacts[i]
		if a.Origin == holder && a.MadeBy == "" {
			continue // the run's input is on its owner's disk
		}
		a.Holders = slices.DeleteFunc(a.Holders, func(o transport.OrgID) bool { return o == holder })
		if len(a.Holders) == 0 && a.MadeBy != "" {
			gone[a.MadeBy] = true
		}
	}
	again := false
	for i := range d.run.Steps {
		step := &d.run.Steps[i]
		again = again || gone[step.ID]
		if again && (step.State == StateCompleted || step.ID == s.ID) {
			step.again()
		}
	}
	d.run.Artifacts = slices.DeleteFunc(d.run.Artifacts, func(a ArtifactRef) bool { return len(a.Holders) == 0 })
	d.publish(s, fmt.Sprintf("%s lost its memory; beginning again from a source", holder))
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
