package flow

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"fednode/flow/agent"
	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
)

// A RunID names a run in all participants' logs.
type RunID = transport.RunID

// A State is that of a run or of a step in it.
type State string

// States of runs and steps.
const (
	StatePending   State = "pending"
	StateRunning   State = "running"
	StateWaiting   State = "waiting" // for a human's approval
	StateCompleted State = "completed"
	StateBlocked   State = "blocked" // a required input may not be shared with the step
	StateFailed    State = "failed"
	StateCancelled State = "cancelled"
)

// Final reports whether nothing will change any more.
func (s State) Final() bool {
	return s == StateCompleted || s == StateBlocked || s == StateFailed || s == StateCancelled
}

// A Run is one passage of an input through a workflow, as its initiator keeps it.
type Run struct {
	ID        RunID         `json:"id"`
	Agreement string        `json:"agreement"`
	Workflow  string        `json:"workflow"`
	Label     string        `json:"label,omitempty"` // the input's name; known to the initiator only
	Priority  string        `json:"priority"`
	State     State         `json:"state"`
	Created   string        `json:"created"`
	Finished  string        `json:"finished,omitempty"`
	Steps     []StepRun     `json:"steps"`
	Artifacts []ArtifactRef `json:"artifacts"`
	Error     *StepError    `json:"error,omitempty"`
}

// A StepRun is the initiator's record of a step: status, commitments and references, never content.
type StepRun struct {
	ID           string          `json:"id"`
	Organization transport.OrgID `json:"organization_id"`
	Agent        string          `json:"agent"`
	State        State           `json:"state"`
	Attempt      int             `json:"attempt"`
	Started      string          `json:"started,omitempty"`
	Finished     string          `json:"finished,omitempty"`
	Outputs      []string        `json:"outputs,omitempty"` // artifact ids
	Withheld     []Withheld      `json:"withheld,omitempty"`
	Automatic    bool            `json:"automatic,omitempty"` // approved by a rule, not by a human
	Error        *StepError      `json:"error,omitempty"`
	Headline     string          `json:"headline,omitempty"` // filled in for this organisation's own steps; memory only

	Request json.RawMessage `json:"request,omitempty"` // payload of the attempt under way, for redelivery
	Salt    []byte          `json:"salt,omitempty"`
}

// again makes the step pending, for a new attempt.
func (s *StepRun) again() {
	s.State, s.Outputs, s.Error, s.Request, s.Salt = StatePending, nil, nil, nil, nil
}

// Withheld says that an artifact type was not passed on, and why.
type Withheld struct {
	Type   string          `json:"type"`
	From   transport.OrgID `json:"from"`
	To     transport.OrgID `json:"to"`
	Reason string          `json:"reason"`
}

// A StepError says why a step did not complete.
type StepError struct {
	Code   string          `json:"code"`
	Text   string          `json:"text"`
	Holder transport.OrgID `json:"holder,omitempty"` // with code "lost": who no longer holds an input
}

func (e *StepError) Error() string { return e.Code + ": " + e.Text }

// maxErrorText is how much of what a peer says is kept, in bytes.
const maxErrorText = 2048

// tame makes an error that a peer made up fit to be kept and shown to people; false if it cannot be one.
func (e *StepError) tame() bool {
	e.Text = printable(e.Text)
	return nameRE().MatchString(e.Code) && len(e.Holder) <= 128
}

// printable makes a text that a peer made up fit to be kept and shown.
func printable(s string) string { return transport.Printable(s[:min(len(s), maxErrorText)]) }

// An Input is the document that a run starts from.
type Input struct {
	Type      string // data type; default "document"
	Name      string // for entitled holders only
	MediaType string // of the original bytes
	Data      []byte
}

var typeRE = regexp.MustCompile(`^[a-zA-Z0-9!#$&^_.+-]{1,64}/[a-zA-Z0-9!#$&^_.+-]{1,64}$`)

// Start begins a run of the agreement in force that name (its workflow's name, hash or prefix of it) names.
func (e *Engine) Start(ctx context.Context, user User, name string, in Input, priority string) (*Run, error) {
	a, err := e.Agreement(name)
	if err != nil {
		return nil, err
	}
	if a.Definition.Initiator() != e.c.Org {
		return nil, fmt.Errorf("%w: runs of %s are started by its initiator, %s", ErrMisuse, a.Definition.Name, a.Definition.Initiator())
	}
	switch a.State {
	case InForce:
	case Withdrawn:
		return nil, fmt.Errorf("%w: agreement %.12s… is withdrawn (%s); submit a new version", ErrMisuse, a.Hash, a.Reason)
	default:
		n, of := a.Signed()
		return nil, fmt.Errorf("%w: agreement %.12s… is %s, signed %d/%d; the others sign with fednode flow accept %.12s", ErrMisuse, a.Hash, a.State, n, of, a.Hash)
	}
	if in.Type == "" {
		in.Type = "document"
	}
	in.Name = agent.Label(in.Name)
	if len(in.Data) > MaxArtifact {
		return nil, fmt.Errorf("%w: input is %d bytes; at most %d", ErrMisuse, len(in.Data), MaxArtifact)
	}
	if len(in.Data) == 0 {
		return nil, fmt.Errorf("%w: input %s is empty", ErrMisuse, in.Name)
	}
	if !typeRE.MatchString(in.MediaType) {
		in.MediaType = "application/octet-stream"
	}
	if priority == "" {
		priority = "normal"
	}
	if !slices.Contains([]string{"low", "normal", "high"}, priority) {
		return nil, fmt.Errorf("%w: priority %q; use low, normal or high", ErrMisuse, priority)
	}
	if err := e.c.UpToDate(ctx); err != nil {
		return nil, err
	}
	req := policy.Request{Subject: string(e.c.Org), Action: "run.start", Resource: a.Definition.Name, Recipient: string(e.c.Org), Agreement: a.policyView()}
	dec := e.decide(req)
	run := newRun(e, a, in, priority)
	if dec.Effect != policy.Allow {
		err := e.c.DB.Update(ctx, func(tx *store.Tx) error { return e.recordDecision(tx, req, dec, string(run.ID)) })
		return nil, errors.Join(denial(dec), err)
	}
	h, err := e.own(run, in)
	if err != nil {
		return nil, err
	}
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		if err := e.recordDecision(tx, req, dec, string(run.ID)); err != nil {
			return err
		}
		entry := ledger.Entry{Type: "run-started", Category: ledger.Authorization, Action: "run.start", Resource: "agreement:" + a.Hash, Result: "ok", Reference: string(run.ID)}
		if err := e.recordByUser(tx, user, entry); err != nil {
			return err
		}
		if err := put(tx, bucketHoldings, h.key(), h); err != nil {
			return err
		}
		return put(tx, bucketRuns, string(run.ID), run)
	})
	if err != nil {
		e.artifacts.drop(h)
		return nil, err
	}
	e.m.runs.Inc()
	e.publish(Event{Run: run.ID, State: string(run.State)})
	e.startDriver(run.ID)
	return run, nil
}

func newRun(e *Engine, a *Agreement, in Input, priority string) *Run {
	chain, _ := a.Definition.chain() // validated when the definition was parsed
	run := &Run{ID: RunID(newID("run")), Agreement: a.Hash, Workflow: a.Definition.Name, Label: in.Name, Priority: priority,
		State: StateRunning, Created: stamp(e.c.Now())}
	for _, s := range chain {
		run.Steps = append(run.Steps, StepRun{ID: s.ID, Organization: s.Organization, Agent: s.Agent, State: StatePending})
	}
	return run
}

// own takes the run's input into this organisation's store and lists it as the run's first artifact.
func (e *Engine) own(run *Run, in Input) (Holding, error) {
	c := &content{Name: in.Name, Salt: newSalt(), data: in.Data}
	ref := ArtifactRef{ID: newID("art"), Type: in.Type, Version: 1, MediaType: in.MediaType, Size: int64(len(in.Data)),
		Commitment: commit(c.Salt, in.Data), Origin: e.c.Org, Holders: []transport.OrgID{e.c.Org}}
	run.Artifacts = []ArtifactRef{ref}
	h := Holding{Run: run.ID, Agreement: run.Agreement, Artifact: ref, How: Owner, At: stamp(e.c.Now())}
	return h, e.artifacts.hold(&h, c)
}

func newSalt() []byte {
	salt := make([]byte, 32)
	rand.Read(salt)
	return salt
}

// Runs returns all runs that this organisation initiated, oldest first.
func (e *Engine) Runs() (out []*Run, err error) {
	err = e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketRuns, "", func(_ string, r Run) error {
			out = append(out, e.decorate(&r))
			return nil
		})
	})
	slices.SortStableFunc(out, func(a, b *Run) int { return strings.Compare(a.Created, b.Created) })
	return out, err
}

// Run returns a run that this organisation initiated, by its id or a unique prefix of at least 8 characters.
func (e *Engine) GetRun(id string) (*Run, error) {
	var found []*Run
	err := e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketRuns, id, func(_ string, r Run) error {
			found = append(found, e.decorate(&r))
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, err
	case len(id) < 8 || len(found) == 0:
		return nil, fmt.Errorf("run %q: %w; see fednode flow list", id, ErrNotFound)
	case len(found) > 1:
		return nil, fmt.Errorf("%w: run %q names %d runs; give more of its id", ErrMisuse, id, len(found))
	}
	return found[0], nil
}

// decorate fills in what is known in memory only, and leaves out what is for redelivery only.
func (e *Engine) decorate(r *Run) *Run {
	for i := range r.Steps {
		s := &r.Steps[i]
		s.Request, s.Salt = nil, nil
		s.Headline = e.heads.get(attemptKey{e.c.Org, r.ID, s.ID, s.Attempt})
	}
	return r
}

// Cancel stops a run of this organisation: the step under way is cancelled at its executor, and none follows.
func (e *Engine) Cancel(ctx context.Context, user User, id string) (*Run, error) {
	run, err := e.GetRun(id)
	if err != nil {
		return nil, err
	}
	if run.State.Final() {
		return run, fmt.Errorf("%w: run %s is %s", ErrMisuse, run.ID, run.State)
	}
	e.mu.Lock()
	cancel := e.drivers[run.ID]
	e.mu.Unlock()
	if cancel == nil {
		return run, fmt.Errorf("run %s is about to begin or to end, or the node is stopping; try again", run.ID)
	}
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		err := e.recordByUser(tx, user, ledger.Entry{Type: "run-cancelled", Category: ledger.Authorization, Action: "run.cancel",
			Resource: "run:" + string(run.ID), Result: "ok", Reference: string(run.ID)})
		if err != nil {
			return err
		}
		return put(tx, bucketCancels, string(run.ID), true)
	})
	if err != nil {
		return nil, err
	}
	cancel(errCancelled)
	return run, nil
}

var errCancelled = errors.New("the run was cancelled")
