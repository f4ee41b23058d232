package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/expr-lang/expr"

	"fednode/flow/agent"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
)

// An Approval is a step that waits, or waited, for a human.
type Approval struct {
	ID        string   `json:"id"` // idempotency key of the attempt
	Run       RunID    `json:"run"`
	Step      string   `json:"step"`
	Workflow  string   `json:"workflow"`
	Requested string   `json:"requested"`
	Expires   string   `json:"expires"`
	Verdict   *Verdict `json:"verdict,omitempty"`
}

// A Verdict is what was decided. Who decided stands in the log, as a commitment.
type Verdict struct {
	Approved  bool   `json:"approved"`
	Automatic bool   `json:"automatic"`
	Rule      string `json:"rule,omitempty"` // the rule that approved, when automatic
	Reason    string `json:"reason,omitempty"`
	At        string `json:"at"`
}

// approve serves an approval step: by the rule that the node's operator configured, if it holds, else by a human.
func (e *Engine) approve(ctx context.Context, t *task, c agent.ApprovalConfig, at agent.Task) (*agent.Result, bool, *StepError) {
	v := Verdict{At: stamp(e.c.Now())}
	if c.Automatic != "" {
		ok, err := holdsFor(c.Automatic, at.Inputs)
		if err != nil {
			e.c.Logger.Warn("approval rule failed; asking a human", "agent", t.step.Agent, "err", err)
		} else if ok {
			v.Approved, v.Automatic, v.Rule = true, true, c.Automatic
		}
	}
	if !v.Approved {
		var serr *StepError
		if v, serr = e.askHuman(ctx, t, c); serr != nil {
			return nil, false, serr
		}
	}
	if !v.Approved {
		return nil, false, &StepError{Code: "rejected", Text: "not approved: " + v.Reason}
	}
	data, err := jcs.Marshal(v)
	if err != nil {
		return nil, false, &StepError{Code: "internal", Text: err.Error()}
	}
	out := agent.Artifact{Type: "approval", Name: "approval.json", MediaType: "application/json", Data: data}
	headline := "approved"
	if v.Automatic {
		headline = "approved (automatic)"
	}
	return &agent.Result{Outputs: []agent.Artifact{out}, Headline: headline}, v.Automatic, nil
}

// holdsFor evaluates an approval rule over the step's JSON inputs, each under its data type with '-' as '_', for
// example `review_result.risk != "high"`.
func holdsFor(rule string, inputs []agent.Artifact) (bool, error) {
	env := map[string]any{}
	for _, in := range inputs {
		var v any
		if json.Unmarshal(in.Data, &v) == nil {
			env[strings.ReplaceAll(in.Type, "-", "_")] = v
		}
	}
	prog, err := expr.Compile(rule, expr.Env(env), expr.AsBool(), expr.AllowUndefinedVariables())
	if err != nil {
		return false, err
	}
	v, err := expr.Run(prog, env)
	if err != nil {
		return false, err
	}
	ok, _ := v.(bool)
	return ok, nil
}

// askHuman journals the request for approval and waits for `flow approve`, the step's timeout or its cancellation. A
// verdict given before a restart is found again.
func (e *Engine) askHuman(ctx context.Context, t *task, c agent.ApprovalConfig) (Verdict, *StepError) {
	id := t.key.String()
	ch := make(chan Verdict, 1)
	e.mu.Lock()
	e.waiting[id] = ch
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.waiting, id)
		e.mu.Unlock()
	}()
	expires := t.step.timeout()
	if d := time.Duration(c.Expires); d > 0 && d < expires {
		expires = d
	}
	ap := Approval{ID: id, Run: t.key.Run, Step: t.key.Step, Workflow: t.agreement.Definition.Name, Requested: stamp(e.c.Now()), Expires: stamp(e.c.Now().Add(expires))}
	var given *Verdict
	err := e.c.DB.Update(ctx, func(tx *store.Tx) error {
		old, ok, err := get[Approval](tx, bucketApprovals, id)
		if err != nil || ok && old.Verdict != nil {
			given = old.Verdict
			return err
		}
		for _, h := range t.held { // whoever decides may read what there is to decide on
			if err := put(tx, bucketHoldings, h.key(), h); err != nil {
				return err
			}
		}
		return put(tx, bucketApprovals, id, ap)
	})
	switch {
	case err != nil:
		return Verdict{}, &StepError{Code: "internal", Text: err.Error()}
	case given != nil:
		return *given, nil
	}
	if t.waiting != nil {
		if err := t.waiting(); err != nil {
			return Verdict{}, &StepError{Code: "internal", Text: err.Error()}
		}
	}
	e.publish(Event{Run: t.key.Run, Step: t.key.Step, Attempt: t.key.Attempt, Organization: string(e.c.Org), State: string(StateWaiting),
		Text: "awaits fednode flow approve " + string(t.key.Run)})
	timer := time.NewTimer(expires)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v, nil
	case <-timer.C:
		return Verdict{}, &StepError{Code: "timeout", Text: fmt.Sprintf("nobody approved within %v", expires)}
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errCancelled) {
			return Verdict{}, &StepError{Code: "cancelled", Text: "by the initiator"}
		}
		return Verdict{}, &StepError{Code: "timeout", Text: "nobody approved in time"}
	}
}

// Decide gives a human's verdict on the step of run that waits for one at this organisation. It is durable on return.
func (e *Engine) Decide(ctx context.Context, user User, run string, approved bool, reason string) (*Approval, error) {
	if len(reason) > 1024 {
		return nil, fmt.Errorf("%w: reason of %d bytes; at most 1024", ErrMisuse, len(reason))
	}
	open, err := e.Approvals()
	if err != nil {
		return nil, err
	}
	var found []Approval
	for _, a := range open {
		if len(run) >= 8 && strings.HasPrefix(string(a.Run), run) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no step of run %q waits for approval here: %w", run, ErrNotFound)
	case 1:
	default:
		return nil, fmt.Errorf("%w: run %q names %d steps that wait; give more of its id", ErrMisuse, run, len(found))
	}
	a := found[0]
	v := Verdict{Approved: approved, Reason: reason, At: stamp(e.c.Now())}
	a.Verdict = &v
	result := "rejected"
	if approved {
		result = "approved"
	}
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		old, ok, err := get[Approval](tx, bucketApprovals, a.ID)
		if err != nil {
			return err
		}
		if !ok || old.Verdict != nil {
			return fmt.Errorf("%w: the step has its verdict already", ErrMisuse)
		}
		entry := ledger.Entry{Type: "approval", Category: ledger.Authorization, Action: "approval.give", Resource: "step:" + a.Step, Result: result,
			Reference: string(a.Run) + "/" + a.Step}
		if err := e.recordByUser(tx, user, entry); err != nil {
			return err
		}
		return put(tx, bucketApprovals, a.ID, a)
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	ch := e.waiting[a.ID]
	e.mu.Unlock()
	if ch != nil {
		ch <- v
	}
	return &a, nil
}

// Approvals returns the steps that wait for a human at this organisation.
func (e *Engine) Approvals() (out []Approval, err error) {
	err = e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketApprovals, "", func(id string, a Approval) error {
			e.mu.Lock()
			_, waits := e.waiting[id]
			e.mu.Unlock()
			if a.Verdict == nil && waits {
				out = append(out, a)
			}
			return nil
		})
	})
	return out, err
}
