// Package policy is the one decision point: everything that wants to do something with somebody's data asks it.
//
// Its three nouns: a [Request] is who wants to do what with which data, for what purpose, on which agreement; a rule
// comes from an agreement's data_sharing, from a governance policy, or from the node's own policy.yaml; a [Decision] is
// allow or deny, with every rule that had a say, and the obligations that come with an allow.
//
// It promises default deny and that deny overrides; that the order of rules is irrelevant; that a rule which fails to
// evaluate denies; and that deciding changes nothing, so that an explanation is the decision itself.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Effect is what a rule says, or what was decided.
type Effect string

// Effects. A governance policy never allows by itself: what it permits still needs an agreement or a local rule.
const (
	Allow  Effect = "allow"
	Deny   Effect = "deny"
	Permit Effect = "permit"
)

// Actions that are decided; append-only.
const (
	ActionAccept  = "agreement.accept" // sign a proposed definition without asking the operator
	ActionStart   = "run.start"        // begin a run
	ActionExecute = "step.execute"     // run an agent for a step
	ActionShare   = "artifact.share"   // pass an artifact to another organisation
	ActionCallOut = "agent.call-out"   // give data to an http or llm agent's service
)

// Actions returns the vocabulary of actions.
func Actions() []string {
	return []string{ActionAccept, ActionStart, ActionExecute, ActionShare, ActionCallOut}
}

// A Request is a question to the decision point.
type Request struct {
	Subject      string // organisation that wants to act
	Action       string
	Resource     string   // agent, artifact type or workflow
	Categories   []string // data types or categories concerned
	Purpose      string
	Recipient    string // organisation that gets the data, or runs the step
	Jurisdiction string // the recipient's
	Agreement    *Agreement
	Context      map[string]any // further facts, such as consent
}

// An Agreement is what a request rests on.
type Agreement struct {
	Hash         string
	Name         string
	Version      string
	Initiator    string
	Participants []string
	InForce      bool
	Withdrawn    bool
	Expires      time.Time // zero: never
	Sharing      []Sharing
	Steps        []Step
}

// Sharing is one data_sharing rule.
type Sharing struct {
	From, To                string
	DataTypes, Restrictions []string
}

// Step is one step's place.
type Step struct{ ID, Organization, Agent, Purpose string }

// A Decision is the answer, with its reasons.
type Decision struct {
	Effect      Effect       `json:"effect"`
	Reasons     []Reason     `json:"reasons"`
	Obligations []Obligation `json:"obligations"`
	Epoch       string       `json:"epoch"` // which policies decided: a hash of all of them
}

// A Reason is one rule that had a say.
type Reason struct {
	Source string `json:"source"` // agreement:HASH, governance:ID, or policy.yaml
	Rule   string `json:"rule"`
	Effect Effect `json:"effect"`
	Text   string `json:"text"`
}

// An Obligation binds whoever acts on an allow.
type Obligation struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Source string `json:"source"`
}

// String sums the decision up in a line.
func (d Decision) String() string {
	var b strings.Builder
	b.WriteString(string(d.Effect))
	for i, r := range d.Reasons {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %s %s (%s)", sep, r.Source, r.Rule, r.Effect, r.Text)
	}
	return b.String()
}

// Decide answers a request. It is pure: the same request under the same policies and clock has the same answer.
func (e *Engine) Decide(r Request) Decision {
	d := Decision{Effect: Deny, Epoch: e.epoch, Reasons: make([]Reason, 0, 4), Obligations: []Obligation{}}
	if !slices.Contains(actions, r.Action) {
		d.Reasons = append(d.Reasons, Reason{"fednode", "", Deny, fmt.Sprintf("action %q is not one of %s", r.Action, strings.Join(actions, ", "))})
		return d
	}
	now := e.now()
	r.Agreement.decide(&r, &d, now)
	for _, g := range e.governance {
		g.decide(&r, &d, now)
	}
	e.local.decide(&r, &d, now)
	allowed, denied := false, false
	for _, reason := range d.Reasons {
		allowed = allowed || reason.Effect == Allow
		denied = denied || reason.Effect == Deny
	}
	switch {
	case denied:
	case allowed:
		d.Effect = Allow
	default:
		d.Reasons = append(d.Reasons, Reason{"fednode", "", Deny, "no rule allows it (default deny)"})
	}
	if d.Effect == Deny {
		d.Obligations = d.Obligations[:0]
	}
	return d
}

var actions = Actions()

func (d *Decision) say(source, rule string, effect Effect, text string) {
	d.Reasons = append(d.Reasons, Reason{source, rule, effect, text})
}

func (d *Decision) oblige(name, value, source string) {
	o := Obligation{name, value, source}
	if !slices.Contains(d.Obligations, o) {
		d.Obligations = append(d.Obligations, o)
	}
}
