package flow

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/transport"
)

// Timestamps on disk and wire: RFC 3339, UTC, milliseconds (FORMATS).
const timeFormat = "2006-01-02T15:04:05.000Z"

func stamp(t time.Time) string { return t.UTC().Format(timeFormat) }

// An AgreementState says how far a definition has come.
type AgreementState string

// Agreement states.
const (
	Pending   AgreementState = "pending"   // this organisation has not signed yet
	Accepted  AgreementState = "accepted"  // signed here, not by everybody
	InForce   AgreementState = "in-force"  // signed by all participants
	Refused   AgreementState = "refused"   // refused here
	Withdrawn AgreementState = "withdrawn" // a participant took its signature back
)

// An Agreement is a definition with the signatures gathered for it.
type Agreement struct {
	Hash        string                         `json:"hash"`
	State       AgreementState                 `json:"state"`
	Definition  *Definition                    `json:"definition"`
	Acceptances map[transport.OrgID]Acceptance `json:"acceptances"`
	Received    string                         `json:"received"`
	Reason      string                         `json:"reason,omitempty"` // why it was refused or withdrawn
}

// StepDeclaration is what the agent behind a step takes and gives, as its organisation declares on acceptance.
type StepDeclaration struct {
	ID       string   `json:"id"`
	Inputs   []string `json:"inputs"`             // data types the agent cannot do without
	Optional []string `json:"optional,omitempty"` // data types it uses when it gets them
	Outputs  []string `json:"outputs"`
}

// An Acceptance is one participant's signature under a definition: Ed25519 by its message key over
// `fednode/agreement-acceptance/v1\n` + the canonical form of the acceptance without its signature.
type Acceptance struct {
	Agreement    string            `json:"agreement"`
	FederationID string            `json:"federation_id"`
	Organization transport.OrgID   `json:"organization_id"`
	KeyID        string            `json:"key_id"`
	AcceptedAt   string            `json:"accepted_at"`
	Steps        []StepDeclaration `json:"steps"`
	CallOut      []string          `json:"call_out,omitempty"` // steps whose agent may give this organisation's restricted data to a service
	Signature    string            `json:"signature,omitempty"`
}

func (a Acceptance) signedBytes() ([]byte, error) {
	a.Signature = ""
	return domain("fednode/agreement-acceptance/v1\n", a)
}

// domain returns prefix followed by the canonical form of v.
func domain(prefix string, v any) ([]byte, error) {
	c, err := jcs.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte(prefix), c...), nil
}

// sign returns the strict base64 Ed25519 signature of msg.
func sign(key crypto.Signer, msg []byte) (string, error) {
	sig, err := key.Sign(rand.Reader, msg, crypto.Hash(0))
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sig), nil
}

func verify(pub ed25519.PublicKey, msg []byte, signature string) bool {
	sig, err := base64.StdEncoding.Strict().DecodeString(signature)
	return err == nil && len(sig) == ed25519.SignatureSize && ed25519.Verify(pub, msg, sig)
}

// Verify checks the acceptance against its organisation's key in the member set and against the definition.
func (a Acceptance) Verify(d *Definition, hash string, members memberSet) error {
	if a.Agreement != hash {
		return fmt.Errorf("acceptance of %s is for agreement %.12s…, not %.12s…", a.Organization, a.Agreement, hash)
	}
	if a.FederationID != members.FederationID() {
		return fmt.Errorf("acceptance of %s is for another federation", a.Organization)
	}
	if !d.Participant(a.Organization) {
		return fmt.Errorf("acceptance by %s, which is not a participant", a.Organization)
	}
	m, ok := members.Get(a.Organization)
	if !ok {
		return fmt.Errorf("acceptance by %s, which is not a member", a.Organization)
	}
	pub, ok := m.MessageKey(a.KeyID)
	if !ok {
		return fmt.Errorf("acceptance by %s names key %q, which its member entry does not hold", a.Organization, a.KeyID)
	}
	msg, err := a.signedBytes()
	if err != nil {
		return err
	}
	if !verify(pub, msg, a.Signature) {
		return fmt.Errorf("acceptance by %s: signature does not verify", a.Organization)
	}
	return a.declaresOwnSteps(d)
}

// declaresOwnSteps checks that the declarations are for exactly the steps that the definition gives the organisation.
func (a Acceptance) declaresOwnSteps(d *Definition) error {
	declared := map[string]bool{}
	for _, s := range a.Steps {
		declared[s.ID] = true
	}
	for _, s := range d.Workflow.Steps {
		if own := s.Organization == a.Organization; own != declared[s.ID] {
			return fmt.Errorf("acceptance by %s: declarations do not match its steps (at %s)", a.Organization, s.ID)
		}
		delete(declared, s.ID)
	}
	if len(declared) != 0 {
		return fmt.Errorf("acceptance by %s declares steps that the definition does not have", a.Organization)
	}
	return nil
}

// complete reports whether every participant has signed.
func (a *Agreement) complete() bool {
	for _, p := range a.Definition.Participants {
		if _, ok := a.Acceptances[p.ID]; !ok {
			return false
		}
	}
	return true
}

// Signed returns how many participants have signed, and of how many.
func (a *Agreement) Signed() (n, of int) { return len(a.Acceptances), len(a.Definition.Participants) }

// declaration returns what the agent of a step takes and gives. The definition's own inputs and outputs take
// precedence: named inputs are required, and outputs not named are dropped.
func (a *Agreement) declaration(step Step) (StepDeclaration, error) {
	acc := a.Acceptances[step.Organization]
	i := slices.IndexFunc(acc.Steps, func(s StepDeclaration) bool { return s.ID == step.ID })
	if i < 0 {
		return StepDeclaration{}, errors.New("no declaration for step " + step.ID)
	}
	d := acc.Steps[i]
	if step.Inputs != nil {
		d.Inputs, d.Optional = step.Inputs, nil
	}
	if step.Outputs != nil {
		d.Outputs = step.Outputs
	}
	return d, nil
}

// policyView is the agreement as the decision point sees it.
func (a *Agreement) policyView() *policy.Agreement {
	v := &policy.Agreement{Hash: a.Hash, Name: a.Definition.Name, Version: a.Definition.Version, Initiator: string(a.Definition.Initiator()),
		InForce: a.State == InForce, Withdrawn: a.State == Withdrawn}
	for _, p := range a.Definition.Participants {
		v.Participants = append(v.Participants, string(p.ID))
	}
	for _, s := range a.Definition.Governance.DataSharing {
		v.Sharing = append(v.Sharing, policy.Sharing{From: string(s.From), To: string(s.To), DataTypes: s.DataTypes, Restrictions: s.Restrictions})
	}
	for _, s := range a.Definition.Workflow.Steps {
		v.Steps = append(v.Steps, policy.Step{ID: s.ID, Organization: string(s.Organization), Agent: s.Agent, Purpose: s.purpose()})
	}
	return v
}

func (s Step) purpose() string {
	if s.Purpose != "" {
		return s.Purpose
	}
	return s.ID
}

func (s Step) timeout() time.Duration {
	if s.Timeout > 0 {
		return time.Duration(s.Timeout)
	}
	return DefaultStepTimeout
}

func (s Step) priority() string {
	if s.Priority != "" {
		return s.Priority
	}
	return "normal"
}

// Agreements returns all agreements that this organisation knows, by the time it learnt of them.
func (e *Engine) Agreements() (out []*Agreement, err error) {
	err = e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketAgreements, "", func(_ string, a Agreement) error {
			out = append(out, &a)
			return nil
		})
	})
	slices.SortStableFunc(out, func(a, b *Agreement) int { return strings.Compare(a.Received, b.Received) })
	return out, err
}

// Agreement returns the agreement with the given hash or unique prefix of at least four digits, or by the unique name
// of a definition in force.
func (e *Engine) Agreement(hash string) (*Agreement, error) {
	if len(hash) == 64 {
		var a Agreement
		var ok bool
		err := e.c.DB.View(func(tx *store.Tx) (err error) {
			a, ok, err = get[Agreement](tx, bucketAgreements, hash)
			return err
		})
		if err == nil && !ok {
			err = fmt.Errorf("agreement %.12s…: %w", hash, ErrNotFound)
		}
		return &a, err
	}
	all, err := e.Agreements()
	if err != nil {
		return nil, err
	}
	var found []*Agreement
	for _, a := range all {
		if len(hash) >= 4 && strings.HasPrefix(a.Hash, hash) || a.Definition.Name == hash && a.State == InForce {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("agreement %q: %w; see fednode flow list --agreements", hash, ErrNotFound)
	case 1:
		return found[0], nil
	}
	which := make([]string, len(found))
	for i, a := range found {
		which[i] = fmt.Sprintf("%.12s (%s %s)", a.Hash, a.Definition.Name, a.Definition.Version)
	}
	return nil, fmt.Errorf("%w: %q names %d agreements: %s; name one by its hash", ErrMisuse, hash, len(found), strings.Join(which, ", "))
}

// checkParticipants compares the participants with the member set: each is a member, and an endpoint that the
// definition names is one of the member's.
func (e *Engine) checkParticipants(d *Definition) error {
	members := e.c.Members()
	var errs []error
	for _, p := range d.Participants {
		m, ok := members.Get(p.ID)
		if !ok {
			errs = append(errs, fmt.Errorf("participant %s is not a member of this federation; see fednode members list", p.ID))
			continue
		}
		if p.Endpoint == "" {
			continue
		}
		if hp, err := hostPort(p.Endpoint); err != nil || !slices.Contains(m.Endpoints, hp) {
			errs = append(errs, fmt.Errorf("participant %s: endpoint %s is not in its member entry (%s); correct or leave out the endpoint",
				p.ID, p.Endpoint, strings.Join(m.Endpoints, ", ")))
		}
	}
	return errors.Join(errs...)
}

// hostPort returns the host:port of an https URL, 443 being the default.
func hostPort(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", fmt.Errorf("endpoint %q: want https://host[:port]/…", endpoint)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
