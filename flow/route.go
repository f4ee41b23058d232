package flow

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"fednode/flow/policy"
	"fednode/transport"
)

// A Grant is the initiator's word that a step may fetch one artifact from one holder. The holder still decides by its
// own policy. It is signed with the initiator's message key over `fednode/artifact-grant/v1\n` + its canonical form.
type Grant struct {
	FederationID string          `json:"federation_id"`
	Agreement    string          `json:"agreement"`
	Run          RunID           `json:"run"`
	Step         string          `json:"step"`
	Attempt      int             `json:"attempt"`
	Artifact     string          `json:"artifact_id"`
	Type         string          `json:"type"`
	Holder       transport.OrgID `json:"holder"`
	Recipient    transport.OrgID `json:"recipient"`
	Initiator    transport.OrgID `json:"initiator"`
	KeyID        string          `json:"key_id"`
	ExpiresAt    string          `json:"expires_at"`
	Signature    string          `json:"signature,omitempty"`
}

func (g Grant) signedBytes() ([]byte, error) {
	g.Signature = ""
	return domain("fednode/artifact-grant/v1\n", g)
}

func (g *Grant) sign(key crypto.Signer) error {
	msg, err := g.signedBytes()
	if err != nil {
		return err
	}
	g.Signature, err = sign(key, msg)
	return err
}

// grantMargin is how much longer than its step a grant may be good: the minute that it is, and what clocks may differ by.
const grantMargin = 5 * time.Minute

var errExpired = errors.New("expired")

// verify checks the grant's signature and validity at now; what it is for is the caller's to compare.
func (g Grant) verify(members memberSet, now time.Time) error {
	m, ok := members.Get(g.Initiator)
	if !ok || g.FederationID != members.FederationID() {
		return fmt.Errorf("grant by %s, which is not a member of this federation", g.Initiator)
	}
	pub, ok := m.MessageKey(g.KeyID)
	if !ok {
		return fmt.Errorf("grant by %s names key %q, which its member entry does not hold", g.Initiator, g.KeyID)
	}
	msg, err := g.signedBytes()
	if err != nil {
		return err
	}
	if !verify(pub, msg, g.Signature) {
		return fmt.Errorf("grant by %s: signature does not verify", g.Initiator)
	}
	until, err := time.Parse(timeFormat, g.ExpiresAt)
	if err != nil {
		return fmt.Errorf("grant by %s: expires_at is no time", g.Initiator)
	}
	if now.After(until) {
		return fmt.Errorf("grant by %s %w at %s", g.Initiator, errExpired, g.ExpiresAt)
	}
	return nil
}

// An inputRef is one input in a step request; the grant is absent where the executor holds the artifact already.
type inputRef struct {
	ArtifactRef
	From  transport.OrgID `json:"from,omitempty"`
	Grant *Grant          `json:"grant,omitempty"`
}

// route chooses for each data type that the step's agent takes the newest version in the run, and a holder that may
// pass it to the step's organisation. What no rule lets pass is withheld; if the step cannot do without it, missing
// says why.
func (e *Engine) route(run *Run, a *Agreement, step Step, decl StepDeclaration) (inputs []inputRef, withheld []Withheld, missing string) {
	for i, t := range slices.Concat(decl.Inputs, decl.Optional) {
		required := i < len(decl.Inputs)
		ref, ok := newest(run.Artifacts, t)
		if !ok {
			if required && missing == "" {
				missing = fmt.Sprintf("needs %s, which no earlier step makes", t)
			}
			continue
		}
		in, w := e.source(a, step, ref)
		if w != nil {
			withheld = append(withheld, *w)
			if required && missing == "" {
				missing = fmt.Sprintf("needs %s, withheld by %s: %s from %s to %s", t, w.From, w.Reason, w.From, w.To)
			}
			continue
		}
		inputs = append(inputs, in)
	}
	return inputs, withheld, missing
}

// newest returns the highest version of type t that anybody still holds.
func newest(all []ArtifactRef, t string) (best ArtifactRef, ok bool) {
	for _, r := range all {
		if r.Type == t && len(r.Holders) > 0 && (!ok || r.Version > best.Version) {
			best, ok = r, true
		}
	}
	return best, ok
}

// source finds a holder that may pass ref to the step's organisation. The holder decides again when it is asked; this
// is the early refusal.
func (e *Engine) source(a *Agreement, step Step, ref ArtifactRef) (inputRef, *Withheld) {
	to := step.Organization
	if slices.Contains(ref.Holders, to) {
		return inputRef{ArtifactRef: ref}, nil
	}
	var last *Withheld
	for _, from := range slices.Backward(ref.Holders) { // who got it last is nearest to the next step
		d := e.decide(shareRequest(a.policyView(), from, to, ref.Type, step.purpose()))
		if d.Effect != policy.Allow {
			last = &Withheld{Type: ref.Type, From: from, To: to, Reason: reasonText(d)}
			continue
		}
		if rule, ok := a.Definition.sharing(from, to, ref.Type); ok && to != ref.Origin {
			ref.Restrictions = union(ref.Restrictions, rule)
		}
		if to == ref.Origin { // restrictions bind recipients, never the origin
			ref.Restrictions = nil
		}
		return inputRef{ArtifactRef: ref, From: from}, nil
	}
	return inputRef{}, last
}

// shareRequest is the question whether an artifact of type t may pass from one organisation to another.
func shareRequest(a *policy.Agreement, from, to transport.OrgID, t, purpose string) policy.Request {
	return policy.Request{Subject: string(from), Action: "artifact.share", Resource: t, Categories: []string{t}, Purpose: purpose,
		Recipient: string(to), Agreement: a}
}
