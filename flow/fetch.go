package flow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"sync"
	"time"

	"fednode/flow/agent"
	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// fetchRequest is the payload of an artifact-fetch.
type fetchRequest struct {
	Grant Grant `json:"grant"`
}

// gathered is an input as the agent gets it.
type gathered struct {
	artifact     agent.Artifact
	restrictions []string
	origin       transport.OrgID
}

// gather brings all inputs of a task here, at once, and returns them in order with the holdings that are new.
func (e *Engine) gather(ctx context.Context, t *task) (inputs []gathered, held []Holding, serr *StepError) {
	refs := t.request.Input.Artifacts
	inputs = make([]gathered, len(refs))
	holdings := make([]*Holding, len(refs))
	errs := make([]*StepError, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { inputs[i], holdings[i], errs[i] = e.bring(ctx, t, ref) })
	}
	wg.Wait()
	for i := range refs {
		if holdings[i] != nil {
			held = append(held, *holdings[i])
		}
		if errs[i] != nil && serr == nil {
			serr = errs[i]
		}
	}
	return inputs, held, serr
}

// bring returns one input: from this organisation's own store, or straight from its holder.
func (e *Engine) bring(ctx context.Context, t *task, ref inputRef) (gathered, *Holding, *StepError) {
	h, ok, err := e.holding(t.key.Run, t.agreement.Hash, ref.ID)
	if err != nil {
		return gathered{}, nil, &StepError{Code: "internal", Text: err.Error()}
	}
	if ok && h.Artifact.Commitment == ref.Commitment {
		c, err := e.artifacts.get(h)
		if err == nil {
			return e.asInput(h, c), nil, nil
		}
		if !errors.Is(err, errGone) || ref.Grant == nil {
			return gathered{}, nil, &StepError{Code: string(transport.CodeLost), Text: "input " + ref.Type + " is no longer held", Holder: e.c.Org}
		}
	}
	if ref.Grant == nil {
		return gathered{}, nil, &StepError{Code: string(transport.CodeLost), Text: "input " + ref.Type + " is not held and no grant to fetch it was given", Holder: e.c.Org}
	}
	return e.fetch(ctx, t, ref)
}

func (e *Engine) holding(run RunID, agreement, id string) (h Holding, ok bool, err error) {
	err = e.c.DB.View(func(tx *store.Tx) (err error) {
		h, ok, err = get[Holding](tx, bucketHoldings, holdingKey(run, agreement, id))
		return err
	})
	return h, ok, err
}

func (e *Engine) asInput(h Holding, c *content) gathered {
	return gathered{artifact: agent.Artifact{Type: h.Artifact.Type, Name: c.Name, MediaType: h.Artifact.MediaType, Data: c.data},
		restrictions: h.Artifact.Restrictions, origin: h.Artifact.Origin}
}

// fetch brings an artifact straight from its holder, checks it against the commitment and holds it as its
// restrictions allow: those the initiator names and those of the agreement's own rules, whichever are stricter.
func (e *Engine) fetch(ctx context.Context, t *task, ref inputRef) (gathered, *Holding, *StepError) {
	if ref.Size < 0 || ref.Size > MaxArtifact {
		return gathered{}, nil, &StepError{Code: "malformed", Text: fmt.Sprintf("input %s of %d bytes; at most %d", ref.Type, ref.Size, MaxArtifact)}
	}
	restrictions, ok := t.agreement.Definition.sharing(ref.Grant.Holder, e.c.Org, ref.Type)
	if !ok {
		return gathered{}, nil, &StepError{Code: string(transport.CodeDenied), Text: fmt.Sprintf("no data_sharing rule from %s to %s : %s", ref.Grant.Holder, e.c.Org, ref.Type)}
	}
	restrictions = union(restrictions, ref.Restrictions)
	if ref.Origin == e.c.Org {
		restrictions = nil
	}
	buf := bytes.NewBuffer(make([]byte, 0, ref.Size))
	m := transport.Message{To: ref.Grant.Holder, Type: msgFetch, Run: string(t.key.Run), Step: t.key.Step, Attempt: t.key.Attempt,
		Payload: fetchRequest{*ref.Grant}, Agreement: t.agreement.Hash, ExpiresAt: t.expires,
		Audit: transport.AuditInfo{Category: ledger.DataAccess, Action: "artifact.fetch", Resource: ref.ID, DataCategory: ref.Type, Purpose: t.step.purpose()}}
	sink := transport.Sink{Writer: buf, Commitment: ref.Commitment, MaxSize: ref.Size}
	info, err := e.c.Node.Fetch(ctx, m, sink)
	wait := skewPause
	for refusal := new(transport.Error); errors.As(err, &refusal) && refusal.Code == transport.CodeClockSkew && pause(ctx, wait); wait = min(2*wait, maxSkewPause) {
		buf.Reset() // of what came before the refusal
		info, err = e.c.Node.Fetch(ctx, m, sink)
	}
	if err != nil {
		return gathered{}, nil, fetchError(ref, err)
	}
	_, params, _ := mime.ParseMediaType(info.MediaType)
	c := &content{Name: agent.Label(params["name"]), Salt: info.Salt, data: buf.Bytes(), until: e.keepUntil(t.agreement)}
	h := Holding{Run: t.key.Run, Agreement: t.agreement.Hash, Artifact: ref.ArtifactRef, How: Received, From: ref.Grant.Holder, At: stamp(e.c.Now())}
	h.Artifact.Restrictions, h.Artifact.Holders = restrictions, nil
	if err := e.artifacts.hold(&h, c); err != nil {
		return gathered{}, nil, &StepError{Code: "storage", Text: err.Error()}
	}
	return e.asInput(h, &content{Name: c.Name, Salt: c.Salt, data: bytes.Clone(c.data)}), &h, nil
}

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func fetchError(ref inputRef, err error) *StepError {
	var te *transport.Error
	switch {
	case errors.As(err, &te) && te.Code == transport.CodeExpired:
		return &StepError{Code: codeGrantExpired, Text: fmt.Sprintf("fetch %s from %s: %s", ref.Type, ref.Grant.Holder, te.Text), Holder: ref.Grant.Holder}
	case te != nil:
		return &StepError{Code: string(te.Code), Text: fmt.Sprintf("fetch %s from %s: %s", ref.Type, ref.Grant.Holder, te.Text), Holder: ref.Grant.Holder}
	}
	return &StepError{Code: "unreachable", Text: fmt.Sprintf("fetch %s from %s: %v", ref.Type, ref.Grant.Holder, err), Holder: ref.Grant.Holder}
}

// handleFetch serves an artifact to a recipient that shows a grant, if this organisation's own policy lets it.
func (e *Engine) handleFetch(ctx context.Context, r *transport.Request) (*transport.Source, error) {
	var req fetchRequest
	if err := jcs.Unmarshal(r.Payload, &req); err != nil {
		return nil, &transport.Error{Code: transport.CodeMalformed, Text: "artifact-fetch: " + err.Error()}
	}
	g := req.Grant
	switch err := g.verify(e.c.Members(), e.c.Now()); {
	case errors.Is(err, errExpired):
		return nil, &transport.Error{Code: transport.CodeExpired, Text: err.Error()}
	case err != nil:
		return nil, &transport.Error{Code: transport.CodeDenied, Text: err.Error()}
	}
	a, err := e.Agreement(g.Agreement)
	if err != nil || g.Recipient != r.From.ID || g.Holder != e.c.Org || a.Definition.Initiator() != g.Initiator || g.Agreement != r.Envelope.Binding.Agreement {
		return nil, &transport.Error{Code: transport.CodeDenied, Text: "the grant is not for this recipient, holder and agreement"}
	}
	h, ok, err := e.holding(g.Run, g.Agreement, g.Artifact)
	if err != nil {
		return nil, err
	}
	if !ok || h.Artifact.Type != g.Type {
		return nil, &transport.Error{Code: transport.CodeNotFound, Text: "no such artifact in this run"}
	}
	i := slices.IndexFunc(a.Definition.Workflow.Steps, func(s Step) bool { return s.ID == g.Step && s.Organization == g.Recipient })
	if i < 0 {
		return nil, &transport.Error{Code: transport.CodeDenied, Text: "the agreement gives the recipient no such step"}
	}
	step := a.Definition.Workflow.Steps[i]
	if until, err := time.Parse(timeFormat, g.ExpiresAt); err != nil || until.Sub(e.c.Now()) > step.timeout()+grantMargin {
		return nil, &transport.Error{Code: transport.CodeExpired, Text: fmt.Sprintf("grant by %s is good until %s, longer than the step may take: its clock was ahead", g.Initiator, g.ExpiresAt)}
	}
	pr := shareRequest(a.policyView(), e.c.Org, r.From.ID, g.Type, step.purpose())
	dec := e.decide(pr)
	reference := fmt.Sprintf("%s/%s/%d", g.Run, g.Step, g.Attempt)
	if dec.Effect != policy.Allow {
		err := e.c.DB.Update(ctx, func(tx *store.Tx) error { return e.recordDecision(tx, pr, dec, reference) })
		return nil, errors.Join(denial(dec), err)
	}
	c, err := e.artifacts.get(h)
	if errors.Is(err, errGone) {
		return nil, &transport.Error{Code: transport.CodeLost, Text: "the artifact was in memory and is gone; begin again from its source"}
	}
	if err != nil {
		return nil, err
	}
	return e.outgoing(h, c, pr, dec, reference), nil
}

// outgoing is what transport streams; the delivery is logged when it is over.
func (e *Engine) outgoing(h Holding, c *content, pr policy.Request, dec policy.Decision, reference string) *transport.Source {
	mt := h.Artifact.MediaType
	if named := mime.FormatMediaType(mt, map[string]string{"name": c.Name}); c.Name != "" && named != "" && len(named) <= 256 {
		mt = named
	}
	s := &transport.Source{Size: int64(len(c.data)), Salt: c.Salt, MediaType: mt}
	s.Open = func(offset int64) (io.ReadCloser, error) { return offsetReader(c, offset) }
	s.Done = func(sent int64, err error) {
		result := "delivered"
		if err != nil {
			result = "interrupted"
		}
		// On a context of its own: the delivery happened, whatever became of the connection.
		note := func(ctx context.Context) {
			err := e.c.DB.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
				if err := e.recordDecision(tx, pr, dec, reference); err != nil {
					return err
				}
				return e.recordByUser(tx, itself, ledger.Entry{Type: "artifact-delivered", Category: ledger.DataAccess, DataCategory: h.Artifact.Type, Resource: h.Artifact.ID,
					Purpose: pr.Purpose, Action: "artifact.share", Result: result, Reference: reference + " " + pr.Subject + ">" + pr.Recipient})
			})
			if err != nil {
				e.c.Logger.Error("delivery could not be logged", "artifact", h.Artifact.ID, "err", err)
			}
		}
		if e.spawn(note) != nil { // the node starts or stops, and serves nonetheless
			note(context.Background())
		}
	}
	return s
}
