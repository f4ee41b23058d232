package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fednode/flow/agent"
	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
)

// A task is what one attempt is to do.
type task struct {
	key       attemptKey
	step      Step
	agreement *Agreement
	request   stepRequest
	expires   time.Time
	waiting   func() error // called when the step begins to wait for a human
	held      []Holding    // what was fetched for it
}

func (t *task) reference() string {
	return fmt.Sprintf("%s/%s/%d", t.key.Run, t.key.Step, t.key.Attempt)
}

// An outcome is what an attempt came to. Its holdings are journalled with it.
type outcome struct {
	result     stepResult
	salt       []byte
	holdings   []Holding
	commitment []byte // of an llm's prompt
	promptSalt []byte
}

func failed(code, format string, a ...any) *outcome {
	return &outcome{salt: newSalt(), result: stepResult{Status: "failed", Error: &StepError{Code: code, Text: fmt.Sprintf(format, a...)}}}
}

// execute fetches the inputs, runs the agent and takes its outputs in. It never fails otherwise than by an outcome
// that says so.
func (e *Engine) execute(ctx context.Context, t *task) *outcome {
	ag, ok := e.c.Agents.Get(t.step.Agent)
	if !ok {
		return failed("agent-missing", "%s has no agent %q any more", e.c.Org, t.step.Agent)
	}
	at := agent.Task{IdempotencyKey: e.c.Members().FederationID() + "/" + t.key.String(), Run: string(t.key.Run), Step: t.key.Step, Agent: t.step.Agent,
		Attempt: t.key.Attempt, Purpose: t.step.purpose()}
	inputs, held, serr := e.gather(ctx, t)
	if serr != nil {
		e.dropAll(held)
		return &outcome{salt: newSalt(), result: stepResult{Status: "failed", Error: serr}}
	}
	var restrictions []string
	for _, in := range inputs {
		at.Inputs = append(at.Inputs, in.artifact)
		restrictions = union(restrictions, in.restrictions)
	}
	at.NoStorage, at.NoExtraction = slices.Contains(restrictions, NoStorage), slices.Contains(restrictions, NoExtraction)
	at.OwnerAllowsCallOut = e.callOutAllowed(t, inputs)
	t.held = held
	res, automatic, serr := e.runAgent(ctx, ag, at, t)
	if serr != nil {
		e.dropAll(held)
		return &outcome{salt: newSalt(), holdings: released(held), result: stepResult{Status: "failed", Error: serr}}
	}
	out := &outcome{salt: newSalt(), holdings: held, commitment: res.PromptCommitment, promptSalt: res.PromptSalt, result: stepResult{Status: "completed", Automatic: automatic}}
	if serr := e.takeOutputs(ctx, t, out, inputs, res, restrictions); serr != nil {
		e.dropAll(out.holdings)
		return &outcome{salt: newSalt(), holdings: released(held), result: stepResult{Status: "failed", Error: serr}}
	}
	e.heads.set(t.key, res.Headline)
	return out
}

func (e *Engine) dropAll(held []Holding) {
	for _, h := range held {
		e.artifacts.drop(h)
	}
}

// released returns the records of what was received and is dropped again.
func released(held []Holding) (out []Holding) {
	for _, h := range held {
		h.Where = Released
		out = append(out, h)
	}
	return out
}

// runAgent waits for a slot and runs the agent, or for an approval step the rule or the human that approves.
func (e *Engine) runAgent(ctx context.Context, ag agent.Agent, at agent.Task, t *task) (res *agent.Result, automatic bool, serr *StepError) {
	if c, ok := e.c.Agents.Approval(t.step.Agent); ok {
		return e.approve(ctx, t, c, at)
	}
	if err := e.slots.acquire(ctx, t.request.ExecutionParameters.Priority); err != nil {
		return nil, false, &StepError{Code: "timeout", Text: "no agent slot became free in time; raise limits.slots or the step's timeout"}
	}
	defer e.slots.release()
	res, err := ag.Run(ctx, at)
	if err == nil {
		return res, false, nil
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, errCancelled) {
		return nil, false, &StepError{Code: "cancelled", Text: "by the initiator"}
	}
	if !errors.Is(cause, context.Canceled) { // the node stops: the attempt is lost, not failed
		// The initiator is told; without this line, nobody here would be.
		e.c.Logger.Warn("agent failed", "agent", t.step.Agent, "run", t.key.Run, "step", t.key.Step, "attempt", t.key.Attempt, "err", err)
	}
	if cause != nil {
		return nil, false, &StepError{Code: "timeout", Text: fmt.Sprintf("agent %s did not finish within the step's timeout of %v", t.step.Agent, t.step.timeout())}
	}
	var ae *agent.Error
	if errors.As(err, &ae) {
		return nil, false, &StepError{Code: "agent-" + string(ae.Kind), Text: ae.Error()}
	}
	return nil, false, &StepError{Code: "agent-failed", Text: "agent " + t.step.Agent + " failed; its node's log says why"}
}

// callOutAllowed reports whether the data may leave the node for an http or llm agent's service: by this organisation's
// own policy and, where it is restricted, by the word that its owner gave when it signed the agreement.
func (e *Engine) callOutAllowed(t *task, inputs []gathered) bool {
	for _, in := range inputs {
		if in.origin != e.c.Org && len(in.restrictions) > 0 && !slices.Contains(t.agreement.Acceptances[in.origin].CallOut, t.step.ID) {
			return false
		}
		if e.decide(callOut(t.agreement, t.step, []string{in.artifact.Type})).Effect != policy.Allow {
			return false
		}
	}
	return true
}

// callOut is the question whether a step's agent may give data to a service outside its node.
func callOut(a *Agreement, s Step, categories []string) policy.Request {
	return policy.Request{Subject: string(s.Organization), Action: policy.ActionCallOut, Resource: s.Agent, Categories: categories,
		Purpose: s.purpose(), Recipient: string(s.Organization), Agreement: a.policyView()}
}

// takeOutputs holds what the agent made: of the declared types only, under the restrictions of its inputs.
func (e *Engine) takeOutputs(ctx context.Context, t *task, out *outcome, inputs []gathered, res *agent.Result, restrictions []string) *StepError {
	decl, err := t.agreement.declaration(t.step)
	if err != nil {
		return &StepError{Code: "internal", Text: err.Error()}
	}
	var origins []transport.OrgID
	ownTypes := map[string]bool{}
	for _, in := range inputs {
		ownTypes[in.artifact.Type] = true
		origins = append(origins, in.origin)
	}
	for _, o := range res.Outputs {
		if !slices.Contains(decl.Outputs, o.Type) {
			continue // minimisation: what the agreement does not name is not kept
		}
		if slices.Contains(restrictions, NoExtraction) && !ownTypes[o.Type] {
			if serr := e.checkExtraction(ctx, inputs, o); serr != nil {
				return serr
			}
		}
		if len(o.Data) > MaxArtifact {
			return &StepError{Code: "agent-output", Text: fmt.Sprintf("agent %s made a %s of %d bytes; at most %d", t.step.Agent, o.Type, len(o.Data), MaxArtifact)}
		}
		c := &content{Name: o.Name, Salt: newSalt(), data: o.Data, until: e.keepUntil(t.agreement)}
		h := Holding{Run: t.key.Run, Agreement: t.agreement.Hash, How: Made, At: stamp(e.c.Now()), Redacted: ownTypes[o.Type],
			Artifact: ArtifactRef{ID: newID("art"), Type: o.Type, MediaType: bareMediaType(o.MediaType), Size: int64(len(o.Data)), Commitment: commit(c.Salt, o.Data),
				MadeBy: t.key.Step, Origin: derivedOrigin(e.c.Org, origins), Restrictions: restrictions}}
		if err := e.artifacts.hold(&h, c); err != nil {
			return &StepError{Code: "storage", Text: err.Error()}
		}
		out.holdings = append(out.holdings, h)
		out.result.Outputs = append(out.result.Outputs, h.Artifact)
	}
	return nil
}

// keepOutcome journals the holdings of an attempt and logs what was done.
func (e *Engine) keepOutcome(tx *store.Tx, t *task, out *outcome) error {
	for _, h := range out.holdings {
		if err := put(tx, bucketHoldings, h.key(), h); err != nil {
			return err
		}
	}
	result := out.result.Status
	if out.result.Error != nil {
		result = out.result.Error.Code
	}
	return e.recordExecuted(tx, t, out, result)
}

func (e *Engine) recordExecuted(tx *store.Tx, t *task, out *outcome, result string) error {
	entry := ledger.Entry{Type: "step-executed", Category: ledger.PolicyEnforcement, PolicyID: "agreement:" + t.agreement.Hash,
		Resource: t.step.Agent, Action: "step.execute", Result: result, Reference: t.reference()}
	if out.commitment != nil {
		entry.Commitment = encode64(out.commitment)
		if err := tx.Bucket(bucketSalts).Put([]byte(entry.Commitment), out.promptSalt); err != nil {
			return err
		}
	}
	return e.record(tx, entry)
}

// keepUntil returns when in-memory artifacts are forgotten unless the run is closed before: when every step of the run
// could have timed out, and a grace. It is by the clock that cannot be set.
func (e *Engine) keepUntil(a *Agreement) time.Time {
	total := graceMemory
	for _, s := range a.Definition.Workflow.Steps {
		total += s.timeout()
	}
	return time.Now().Add(total)
}
