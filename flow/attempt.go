package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// An attemptKey is the idempotency key of one execution; the federation is the node's own.
type attemptKey struct {
	Initiator transport.OrgID
	Run       RunID
	Step      string
	Attempt   int
}

func (k attemptKey) String() string {
	return fmt.Sprintf("%s/%s/%s/%d", k.Initiator, k.Run, k.Step, k.Attempt)
}

// An attempt is the executor's journal record of one key. It outlives the run's deadline, so that a late redelivery is
// known for what it is.
type attempt struct {
	Commitment string          `json:"commitment"` // of the request's payload
	State      string          `json:"state"`      // accepted, done or closed
	Reply      json.RawMessage `json:"reply,omitempty"`
	Salt       []byte          `json:"salt,omitempty"` // of the reply's payload commitment
	Reason     string          `json:"reason,omitempty"`
	Expires    string          `json:"expires"`
	Begun      time.Duration   `json:"begun_ns"` // the node's age then
	Lasts      time.Duration   `json:"lasts_ns"` // until Expires, as of then
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// last has the record kept until a time, as it is now by both clocks.
func (a *attempt) last(e *Engine, until time.Time) {
	a.Expires, a.Begun, a.Lasts = stamp(until), e.age.now(), until.Sub(e.c.Now())
}

const (
	attemptAccepted = "accepted"
	attemptDone     = "done"
	attemptClosed   = "closed"
)

// A flight is an attempt under way in this process; deliveries of the same key wait for it together.
type flight struct {
	commitment string
	cancel     context.CancelCauseFunc
	done       chan struct{} // closed when out is set, or when the flight was given up: it could not begin, or the node stops
	task       *task
	out        *outcome // nil if given up
}

// handleStep serves a step-execution-request: once per key, whatever is delivered.
func (e *Engine) handleStep(ctx context.Context, r *transport.Request) error {
	t, err := e.parseTask(r)
	if err != nil {
		return err
	}
	commitment := r.Envelope.PayloadCommitment()
	f, first := e.join(t, commitment)
	if !first {
		if f.commitment != commitment {
			return e.conflict(ctx, r, t)
		}
		return e.await(ctx, r, f)
	}
	begun, err := e.begin(ctx, r, f)
	if !begun {
		e.giveUp(f)
		return err
	}
	return e.await(ctx, r, f)
}

func (e *Engine) parseTask(r *transport.Request) (*task, error) {
	env := r.Envelope
	t := &task{key: attemptKey{r.From.ID, env.WorkflowID, env.StepID, env.Binding.Attempt}}
	if err := jcs.Unmarshal(r.Payload, &t.request); err != nil {
		return nil, &transport.Error{Code: transport.CodeMalformed, Text: "step-execution-request: " + err.Error()}
	}
	a, err := e.Agreement(env.Binding.Agreement)
	if errors.Is(err, ErrNotFound) || err == nil && a.State == Accepted {
		return nil, &transport.Error{Code: transport.CodeNotInForce, Text: "the agreement is not in force here"}
	}
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(a.Definition.Workflow.Steps, func(s Step) bool { return s.ID == t.key.Step })
	if i < 0 || a.Definition.Workflow.Steps[i].Organization != e.c.Org || a.Definition.Workflow.Steps[i].Agent != t.request.AgentID {
		return nil, &transport.Error{Code: transport.CodeDenied, Text: "the agreement gives us no such step with this agent"}
	}
	if a.Definition.Initiator() != r.From.ID {
		return nil, &transport.Error{Code: transport.CodeDenied, Text: "runs of this agreement are " + string(a.Definition.Initiator()) + "'s to drive"}
	}
	t.agreement, t.step = a, a.Definition.Workflow.Steps[i]
	t.expires = env.Binding.Expires()
	if t.key.Run == "" || strings.Contains(string(env.WorkflowID), "/") || t.key.Attempt < 1 || len(t.request.Input.Artifacts) > 64 {
		return nil, &transport.Error{Code: transport.CodeMalformed, Text: "workflow_id, attempt or inputs out of bounds"}
	}
	return t, nil
}

// join returns the flight of a key, beginning one if there is none.
func (e *Engine) join(t *task, commitment string) (f *flight, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flights[t.key]; f != nil {
		return f, false
	}
	f = &flight{commitment: commitment, done: make(chan struct{}), task: t}
	e.flights[t.key] = f
	return f, true
}

func (e *Engine) giveUp(f *flight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flights, f.task.key)
	close(f.done)
}

// begin looks the key up in the journal, asks the policy, journals and logs the request and starts the execution. If
// it returns false, the request has been answered or err says how to refuse it.
func (e *Engine) begin(ctx context.Context, r *transport.Request, f *flight) (bool, error) {
	t := f.task
	var known attempt
	var ok bool
	err := e.c.DB.View(func(tx *store.Tx) (err error) {
		known, ok, err = get[attempt](tx, bucketAttempts, t.key.String())
		return err
	})
	if err != nil {
		return false, err
	}
	if ok {
		return false, e.answerKnown(ctx, r, t, known, f.commitment)
	}
	if !e.running() {
		return false, errNotRunning
	}
	if err := e.c.UpToDate(ctx); err != nil {
		return false, err
	}
	req := policy.Request{Subject: string(r.From.ID), Action: "step.execute", Resource: t.step.Agent, Purpose: t.step.purpose(),
		Recipient: string(e.c.Org), Agreement: t.agreement.policyView()}
	for _, in := range t.request.Input.Artifacts {
		req.Categories = append(req.Categories, in.Type)
	}
	dec := e.decide(req)
	if dec.Effect != policy.Allow {
		return false, r.Refuse(ctx, denial(dec), func(tx *store.Tx) error { return e.recordDecision(tx, req, dec, t.reference()) })
	}
	rec := attempt{Commitment: f.commitment, State: attemptAccepted}
	rec.last(e, later(t.expires, e.c.Now().Add(t.step.timeout())))
	err = r.Accept(ctx, func(tx *store.Tx) error {
		if err := e.recordDecision(tx, req, dec, t.reference()); err != nil {
			return err
		}
		return put(tx, bucketAttempts, t.key.String(), rec)
	})
	if err != nil {
		return false, err
	}
	e.publish(Event{Run: t.key.Run, Step: t.key.Step, Attempt: t.key.Attempt, Organization: string(e.c.Org), State: string(StateRunning)})
	err = e.spawn(func(ctx context.Context) { e.fly(ctx, f) })
	return err == nil, err
}

// answerKnown answers a key that is in the journal but not in flight.
func (e *Engine) answerKnown(ctx context.Context, r *transport.Request, t *task, known attempt, commitment string) error {
	switch {
	case known.State == attemptClosed:
		return &transport.Error{Code: transport.CodeClosed, Text: "this attempt was closed: " + known.Reason}
	case known.Commitment != commitment:
		return e.conflict(ctx, r, t)
	case known.State == attemptDone:
		return r.Reply(ctx, known.Reply, transport.ReplyOptions{Salt: known.Salt, Audit: stepAudit(t)}, nil)
	}
	return &transport.Error{Code: transport.CodeLost, Text: "the node restarted while the attempt ran; begin a new attempt"}
}

// conflict refuses a second, different request under one key. Both requests are in this organisation's log, signed by
// their sender: that is the evidence.
func (e *Engine) conflict(ctx context.Context, r *transport.Request, t *task) error {
	return r.Refuse(ctx, &transport.Error{Code: transport.CodeConflict, Text: "another request was signed under the same run, step and attempt"}, func(tx *store.Tx) error {
		return e.record(tx, ledger.Entry{Type: "evidence", Category: ledger.PolicyEnforcement, PolicyID: "once-only", OrganizationID: string(t.key.Initiator),
			Resource: "step:" + t.key.Step, Action: "step.execute", Result: "conflict", Reference: t.reference()})
	})
}

func stepAudit(t *task) transport.AuditInfo {
	return transport.AuditInfo{Category: ledger.DataAccess, Action: "step.execute", Resource: t.step.Agent, DataCategory: "step", Purpose: t.step.purpose()}
}

// fly executes the attempt on the engine's own context, so that it outlives the delivery that began it.
func (e *Engine) fly(ctx context.Context, f *flight) {
	timeout := time.Duration(f.task.request.ExecutionParameters.Timeout) * time.Second
	if timeout <= 0 || timeout > f.task.step.timeout() {
		timeout = f.task.step.timeout()
	}
	running := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	e.mu.Lock()
	f.cancel = cancel
	e.mu.Unlock()
	out := e.execute(ctx, f.task)
	if running.Err() != nil && out.result.Status != "completed" { // the node stops: the attempt is lost, as in a crash
		e.giveUp(f)
		return
	}
	e.mu.Lock()
	f.out = out
	e.mu.Unlock()
	if err := e.land(context.WithoutCancel(ctx), f); err != nil {
		e.c.Logger.Error("result could not be journalled; the attempt counts as lost", "attempt", f.task.key.String(), "err", err)
	}
	state := StateCompleted
	if out.result.Status != "completed" {
		state = StateFailed
	}
	e.publish(Event{Run: f.task.key.Run, Step: f.task.key.Step, Attempt: f.task.key.Attempt, Organization: string(e.c.Org), State: string(state)})
}

// land makes the result known to the deliveries that wait. The first of them journals it together with its signed
// reply, in one transaction; if none waits, it is journalled here. Of an attempt that was closed meanwhile it is logged
// that it ran, and nothing is kept.
func (e *Engine) land(ctx context.Context, f *flight) error {
	close(f.done)
	late := false
	err := e.c.DB.Update(ctx, func(tx *store.Tx) error {
		rec, _, err := get[attempt](tx, bucketAttempts, f.task.key.String())
		if err != nil {
			return err
		}
		if late = rec.State == attemptClosed; !late {
			return e.keepAttempt(tx, f)
		}
		return e.recordExecuted(tx, f.task, f.out, "closed")
	})
	if late {
		e.dropAll(f.out.holdings)
	}
	e.mu.Lock()
	delete(e.flights, f.task.key)
	e.mu.Unlock()
	return err
}

// keepAttempt journals the flight's result if that has not been done.
func (e *Engine) keepAttempt(tx *store.Tx, f *flight) error {
	rec, ok, err := get[attempt](tx, bucketAttempts, f.task.key.String())
	if err != nil || ok && rec.State != attemptAccepted {
		return err
	}
	reply, err := jcs.Marshal(f.out.result)
	if err != nil {
		return err
	}
	rec.State, rec.Reply, rec.Salt = attemptDone, reply, f.out.salt
	if err := put(tx, bucketAttempts, f.task.key.String(), rec); err != nil {
		return err
	}
	return e.keepOutcome(tx, f.task, f.out)
}

// await answers one delivery with the flight's result.
func (e *Engine) await(ctx context.Context, r *transport.Request, f *flight) error {
	select {
	case <-f.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.out == nil {
		return &transport.Error{Code: transport.CodeOverloaded, Text: "the attempt could not begin, or the node is stopping; try again"}
	}
	return r.Reply(ctx, f.out.result, transport.ReplyOptions{Salt: f.out.salt, Audit: stepAudit(f.task)}, func(tx *store.Tx) error {
		rec, ok, err := get[attempt](tx, bucketAttempts, f.task.key.String())
		if err != nil {
			return err
		}
		if ok && rec.State == attemptClosed {
			return &transport.Error{Code: transport.CodeClosed, Text: "this attempt was closed: " + rec.Reason}
		}
		return e.keepAttempt(tx, f)
	})
}

// An Execution is a step that this organisation executes or executed, as its operator may see it.
type Execution struct {
	Initiator transport.OrgID `json:"initiator"`
	Run       RunID           `json:"run"`
	Step      string          `json:"step"`
	Attempt   int             `json:"attempt"`
	State     string          `json:"state"` // accepted, done or closed
	Error     *StepError      `json:"error,omitempty"`
	Headline  string          `json:"headline,omitempty"` // in memory only
}

// Executions returns the attempts in the journal, for runs of other organisations.
func (e *Engine) Executions(run RunID) (out []Execution, err error) {
	err = e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketAttempts, "", func(key string, a attempt) error {
			k, err := parseAttemptKey(key)
			if err != nil || run != "" && k.Run != run {
				return err
			}
			x := Execution{Initiator: k.Initiator, Run: k.Run, Step: k.Step, Attempt: k.Attempt, State: a.State, Headline: e.heads.get(k)}
			var res stepResult
			if a.Reply != nil && json.Unmarshal(a.Reply, &res) == nil {
				x.Error = res.Error
			}
			out = append(out, x)
			return nil
		})
	})
	return out, err
}

func parseAttemptKey(s string) (k attemptKey, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 {
		return k, fmt.Errorf("journal: attempt key %q", s)
	}
	k = attemptKey{Initiator: transport.OrgID(parts[0]), Run: RunID(parts[1]), Step: parts[2]}
	k.Attempt, err = strconv.Atoi(parts[3])
	return k, err
}
