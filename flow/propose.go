package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// Payloads of the agreement messages.
type (
	proposal struct {
		Definition json.RawMessage `json:"definition"`
	}
	proposalReply struct {
		State      AgreementState `json:"state"`
		Reason     string         `json:"reason,omitempty"`
		Acceptance *Acceptance    `json:"acceptance,omitempty"`
	}
	acceptanceNote struct {
		Acceptance Acceptance `json:"acceptance"`
	}
	inForceNote struct {
		Acceptances []Acceptance `json:"acceptances"`
	}
	withdrawalNote struct {
		Reason string `json:"reason"`
	}
	acknowledged struct {
		OK bool `json:"ok"`
	}
)

func agreementAudit(action, hash string) transport.AuditInfo {
	return transport.AuditInfo{Category: ledger.FederationManagement, Action: action, Resource: "agreement:" + hash}
}

// Submit signs the definition for this organisation, its initiator, and proposes it to the other participants. It is
// idempotent: submitting again asks those who have not answered. The error names participants that could not be
// reached or that refused; the agreement as it stands is returned all the same.
func (e *Engine) Submit(ctx context.Context, user User, d *Definition) (*Agreement, error) {
	hash, err := d.Hash()
	if err != nil {
		return nil, err
	}
	if d.Initiator() != e.c.Org {
		return nil, fmt.Errorf("%w: the initiator of %s is %s; submit it there", ErrMisuse, d.Name, d.Initiator())
	}
	if err := e.checkParticipants(d); err != nil {
		return nil, err
	}
	a, err := e.Agreement(hash)
	if errors.Is(err, ErrNotFound) {
		a = &Agreement{Hash: hash, State: Pending, Definition: d, Acceptances: map[transport.OrgID]Acceptance{}, Received: stamp(e.c.Now())}
		if err = e.accept(ctx, user, a); err == nil {
			a, err = e.Agreement(hash)
		}
	}
	if err != nil {
		return nil, err
	}
	if a.State == Withdrawn {
		return a, fmt.Errorf("%w: agreement %.12s… was withdrawn (%s); submit a new version", ErrMisuse, hash, a.Reason)
	}
	err = e.propose(ctx, a)
	if a, err2 := e.settle(ctx, hash); err2 == nil {
		return a, err
	} else {
		return nil, errors.Join(err, err2)
	}
}

// propose asks every participant that has not signed, all at once, and keeps what they answer.
func (e *Engine) propose(ctx context.Context, a *Agreement) error {
	canonical, err := a.Definition.Canonical()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(a.Definition.Participants))
	for i, p := range a.Definition.Participants {
		if _, signed := a.Acceptances[p.ID]; signed {
			continue
		}
		wg.Go(func() {
			if err := e.proposeTo(ctx, a, p.ID, canonical); err != nil {
				errs[i] = fmt.Errorf("%s: %w", p.ID, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (e *Engine) proposeTo(ctx context.Context, a *Agreement, org transport.OrgID, canonical []byte) error {
	m := transport.Message{To: org, Type: msgProposal, Payload: proposal{canonical}, Agreement: a.Hash, Audit: agreementAudit("propose", a.Hash)}
	reply, err := e.c.Node.Call(ctx, m, nil)
	if err != nil {
		return err
	}
	var ans proposalReply
	if reply.Refusal == nil {
		if err := jcs.Unmarshal(reply.Payload, &ans); err != nil {
			return fmt.Errorf("answer to the proposal: %w", err)
		}
	}
	if ans.Acceptance != nil && ans.Acceptance.Organization != org {
		return fmt.Errorf("answer to the proposal holds the acceptance of %s", ans.Acceptance.Organization)
	}
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		if err := reply.Record(tx); err != nil {
			return err
		}
		if ans.Acceptance == nil {
			return nil
		}
		return e.addAcceptance(tx, a.Hash, *ans.Acceptance)
	})
	switch {
	case err != nil:
		return err
	case reply.Refusal != nil:
		return reply.Refusal
	case ans.State == Refused:
		return fmt.Errorf("refused: %s", ans.Reason)
	}
	return nil
}

// addAcceptance verifies a signature and keeps it with its agreement, which is in force once all are there.
func (e *Engine) addAcceptance(tx *store.Tx, hash string, acc Acceptance) error {
	a, ok, err := get[Agreement](tx, bucketAgreements, hash)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("agreement %.12s…: %w", hash, ErrNotFound)
	}
	if err := acc.Verify(a.Definition, hash, e.c.Members()); err != nil {
		return err
	}
	if a.State == Withdrawn {
		return fmt.Errorf("agreement %.12s… was withdrawn", hash)
	}
	a.Acceptances[acc.Organization] = acc
	if a.complete() && a.State != InForce {
		a.State = InForce
		err := e.record(tx, ledger.Entry{Type: "agreement-in-force", Category: ledger.FederationManagement, Action: "in-force",
			Resource: "agreement:" + hash, Result: "ok"})
		if err != nil {
			return err
		}
	}
	return put(tx, bucketAgreements, hash, a)
}

// settle tells the other participants once an agreement of ours has come into force, and returns it as it now stands.
func (e *Engine) settle(ctx context.Context, hash string) (*Agreement, error) {
	a, err := e.Agreement(hash)
	if err != nil || a.State != InForce {
		return a, err
	}
	note := inForceNote{}
	for _, p := range a.Definition.Participants {
		note.Acceptances = append(note.Acceptances, a.Acceptances[p.ID])
	}
	var wg sync.WaitGroup
	errs := make([]error, len(a.Definition.Participants))
	for i, p := range a.Definition.Participants {
		if p.ID != e.c.Org {
			wg.Go(func() {
				m := transport.Message{To: p.ID, Type: msgInForce, Payload: note, Agreement: hash, Audit: agreementAudit("in-force", hash)}
				if err := e.tell(ctx, m); err != nil {
					errs[i] = fmt.Errorf("tell %s that the agreement is in force: %w", p.ID, err)
				}
			})
		}
	}
	wg.Wait()
	return a, errors.Join(errs...)
}

// tell sends a message whose reply is a mere acknowledgement, and records that.
func (e *Engine) tell(ctx context.Context, m transport.Message) error {
	reply, err := e.c.Node.Call(ctx, m, nil)
	if err != nil {
		return err
	}
	if err := e.c.DB.Update(ctx, reply.Record); err != nil {
		return err
	}
	if reply.Refusal != nil {
		return reply.Refusal
	}
	return nil
}

// accept signs a for this organisation.
func (e *Engine) accept(ctx context.Context, user User, a *Agreement) error {
	if err := e.c.UpToDate(ctx); err != nil {
		return err
	}
	acc, err := e.sign(a)
	if err != nil {
		return err
	}
	return e.c.DB.Update(ctx, func(tx *store.Tx) error {
		return e.keepOwn(tx, user, a, acc)
	})
}

// keepOwn journals and logs this organisation's own signature under proposed.
func (e *Engine) keepOwn(tx *store.Tx, user User, proposed *Agreement, acc Acceptance) error {
	a, ok, err := get[Agreement](tx, bucketAgreements, proposed.Hash)
	if err != nil {
		return err
	}
	if !ok {
		a = *proposed
	}
	if a.State == Pending {
		a.State = Accepted
	}
	if err := put(tx, bucketAgreements, a.Hash, a); err != nil {
		return err
	}
	entry := ledger.Entry{Type: "agreement-accepted", Category: ledger.Authorization, Action: "agreement.accept",
		Resource: "agreement:" + a.Hash, Result: "accepted"}
	if err := e.recordByUser(tx, user, entry); err != nil {
		return err
	}
	return e.addAcceptance(tx, a.Hash, acc)
}

// sign declares this organisation's steps and signs the definition.
func (e *Engine) sign(a *Agreement) (Acceptance, error) {
	k := e.key.Load()
	acc := Acceptance{Agreement: a.Hash, FederationID: e.c.Members().FederationID(), Organization: e.c.Org,
		KeyID: k.id, AcceptedAt: stamp(e.c.Now()), Steps: []StepDeclaration{}}
	for _, s := range a.Definition.Workflow.Steps {
		if s.Organization != e.c.Org {
			if e.decide(callOut(a, s, nil)).Effect == policy.Allow {
				acc.CallOut = append(acc.CallOut, s.ID)
			}
			continue
		}
		ag, ok := e.c.Agents.Get(s.Agent)
		if !ok {
			return acc, fmt.Errorf("%w: step %s needs agent %q, which %s does not have; it has %s",
				ErrMisuse, s.ID, s.Agent, e.c.Org, strings.Join(e.agentNames(), ", "))
		}
		spec := ag.Spec()
		for _, t := range s.Outputs {
			if !slices.Contains(spec.Outputs, t) {
				return acc, fmt.Errorf("%w: step %s: agent %s makes no %q; it makes %s", ErrMisuse, s.ID, s.Agent, t, strings.Join(spec.Outputs, ", "))
			}
		}
		acc.Steps = append(acc.Steps, StepDeclaration{ID: s.ID, Inputs: nonNil(spec.Inputs), Optional: spec.Optional, Outputs: nonNil(spec.Outputs)})
	}
	msg, err := acc.signedBytes()
	if err != nil {
		return acc, err
	}
	acc.Signature, err = sign(k.key, msg)
	return acc, err
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (e *Engine) agentNames() (names []string) {
	for _, s := range e.c.Agents.Specs() {
		names = append(names, s.Name)
	}
	return names
}

// handleProposal validates a definition from its initiator and, if a rule of the local policy says so, signs it at
// once; else it waits for the operator's `flow accept`.
func (e *Engine) handleProposal(ctx context.Context, r *transport.Request) error {
	var p proposal
	if err := jcs.Unmarshal(r.Payload, &p); err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: "agreement-proposal: " + err.Error()}
	}
	d, err := decodeDefinition(p.Definition)
	if err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: "definition: " + err.Error()}
	}
	hash, err := d.Hash()
	if err != nil {
		return err
	}
	if hash != r.Envelope.Binding.Agreement || d.Initiator() != r.From.ID || !d.Participant(e.c.Org) {
		return &transport.Error{Code: transport.CodeMalformed, Text: "the definition is not the one named, not the sender's, or not ours to sign"}
	}
	a, err := e.Agreement(hash)
	switch {
	case errors.Is(err, ErrNotFound):
		a = &Agreement{Hash: hash, State: Pending, Definition: d, Acceptances: map[transport.OrgID]Acceptance{}, Received: stamp(e.c.Now())}
	case err != nil:
		return err
	}
	if acc, signed := a.Acceptances[e.c.Org]; signed {
		return r.Reply(ctx, proposalReply{State: a.State, Acceptance: &acc}, transport.ReplyOptions{Audit: agreementAudit("propose", hash)}, nil)
	}
	return e.answerProposal(ctx, r, a)
}

func (e *Engine) answerProposal(ctx context.Context, r *transport.Request, a *Agreement) error {
	if err := e.c.UpToDate(ctx); err != nil {
		return err
	}
	req := policy.Request{Subject: string(r.From.ID), Action: "agreement.accept", Resource: a.Definition.Name, Recipient: string(e.c.Org), Agreement: a.policyView()}
	dec := e.decide(req)
	opts := transport.ReplyOptions{Audit: agreementAudit("propose", a.Hash)}
	if err := e.checkParticipants(a.Definition); err != nil {
		return r.Reply(ctx, proposalReply{State: Refused, Reason: err.Error()}, opts, nil)
	}
	acc, err := e.sign(a)
	if err != nil {
		return r.Reply(ctx, proposalReply{State: Refused, Reason: err.Error()}, opts, nil)
	}
	if dec.Effect != policy.Allow {
		return r.Reply(ctx, proposalReply{State: Pending, Reason: "awaits the operator: fednode flow accept " + a.Hash[:12]}, opts, func(tx *store.Tx) error {
			if err := e.recordDecision(tx, req, dec, a.Hash); err != nil {
				return err
			}
			return put(tx, bucketAgreements, a.Hash, a)
		})
	}
	return r.Reply(ctx, proposalReply{State: Accepted, Acceptance: &acc}, opts, func(tx *store.Tx) error {
		if err := e.recordDecision(tx, req, dec, a.Hash); err != nil {
			return err
		}
		return e.keepOwn(tx, "policy", a, acc)
	})
}

// Accept signs a pending agreement on the operator's word and sends the signature to its initiator. hash may be
// shortened to a unique prefix.
func (e *Engine) Accept(ctx context.Context, user User, hash string) (*Agreement, error) {
	a, err := e.Agreement(hash)
	if err != nil {
		return nil, err
	}
	acc, signed := a.Acceptances[e.c.Org]
	if !signed {
		if a.State != Pending {
			return a, fmt.Errorf("%w: agreement %.12s… is %s", ErrMisuse, a.Hash, a.State)
		}
		if err := e.accept(ctx, user, a); err != nil {
			return nil, err
		}
		if a, err = e.Agreement(a.Hash); err != nil {
			return nil, err
		}
		acc = a.Acceptances[e.c.Org]
	}
	if initiator := a.Definition.Initiator(); initiator != e.c.Org && a.State != InForce {
		m := transport.Message{To: initiator, Type: msgAcceptance, Payload: acceptanceNote{acc}, Agreement: a.Hash, Audit: agreementAudit("accept", a.Hash)}
		if err := e.tell(ctx, m); err != nil {
			return a, fmt.Errorf("signed here, but %s was not told; run the command again: %w", initiator, err)
		}
	}
	return a, nil
}

func (e *Engine) handleAcceptance(ctx context.Context, r *transport.Request) error {
	var n acceptanceNote
	if err := jcs.Unmarshal(r.Payload, &n); err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: "agreement-acceptance: " + err.Error()}
	}
	hash := r.Envelope.Binding.Agreement
	if n.Acceptance.Organization != r.From.ID {
		return &transport.Error{Code: transport.CodeMalformed, Text: "the acceptance is not the sender's"}
	}
	err := r.Reply(ctx, acknowledged{true}, transport.ReplyOptions{Audit: agreementAudit("accept", hash)}, func(tx *store.Tx) error {
		return e.addAcceptance(tx, hash, n.Acceptance)
	})
	if err != nil {
		return err
	}
	return e.spawn(func(ctx context.Context) {
		if _, err := e.settle(ctx, hash); err != nil {
			e.c.Logger.Warn("agreement in force, but not everybody was told", "agreement", hash, "err", err)
		}
	})
}

func (e *Engine) handleInForce(ctx context.Context, r *transport.Request) error {
	var n inForceNote
	if err := jcs.Unmarshal(r.Payload, &n); err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: "agreement-in-force: " + err.Error()}
	}
	hash := r.Envelope.Binding.Agreement
	return r.Reply(ctx, acknowledged{true}, transport.ReplyOptions{Audit: agreementAudit("in-force", hash)}, func(tx *store.Tx) error {
		for _, acc := range n.Acceptances {
			if acc.Organization == e.c.Org { // our own signature is only ever made here
				continue
			}
			if err := e.addAcceptance(tx, hash, acc); err != nil {
				return &transport.Error{Code: transport.CodeMalformed, Text: err.Error()}
			}
		}
		return nil
	})
}

// Withdraw takes this organisation's signature back: from now on whatever rests on the agreement is denied here, and
// the other participants are told.
func (e *Engine) Withdraw(ctx context.Context, user User, hash, reason string) (*Agreement, error) {
	a, err := e.Agreement(hash)
	if err != nil {
		return nil, err
	}
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		entry := ledger.Entry{Type: "agreement-withdrawn", Category: ledger.Authorization, Action: "agreement.withdraw",
			Resource: "agreement:" + a.Hash, Result: "withdrawn"}
		if err := e.recordByUser(tx, user, entry); err != nil {
			return err
		}
		return e.markWithdrawn(tx, a.Hash, reason)
	})
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range a.Definition.Participants {
		if p.ID != e.c.Org {
			m := transport.Message{To: p.ID, Type: msgWithdrawal, Payload: withdrawalNote{reason}, Agreement: a.Hash, Audit: agreementAudit("withdraw", a.Hash)}
			if err := e.tell(ctx, m); err != nil {
				errs = append(errs, fmt.Errorf("withdrawn here, but %s was not told: %w", p.ID, err))
			}
		}
	}
	a, err = e.Agreement(a.Hash)
	return a, errors.Join(append(errs, err)...)
}

func (e *Engine) markWithdrawn(tx *store.Tx, hash, reason string) error {
	a, ok, err := get[Agreement](tx, bucketAgreements, hash)
	if err != nil || !ok {
		return errors.Join(err, ErrNotFound)
	}
	a.State, a.Reason = Withdrawn, reason
	return put(tx, bucketAgreements, hash, a)
}

func (e *Engine) handleWithdrawal(ctx context.Context, r *transport.Request) error {
	var n withdrawalNote
	if err := jcs.Unmarshal(r.Payload, &n); err != nil || len(n.Reason) > 1024 {
		return &transport.Error{Code: transport.CodeMalformed, Text: "agreement-withdrawal: bad payload"}
	}
	hash := r.Envelope.Binding.Agreement
	a, err := e.Agreement(hash)
	if err != nil || !a.Definition.Participant(r.From.ID) {
		return &transport.Error{Code: transport.CodeNotFound, Text: "no such agreement with you"}
	}
	return r.Reply(ctx, acknowledged{true}, transport.ReplyOptions{Audit: agreementAudit("withdraw", hash)}, func(tx *store.Tx) error {
		return e.markWithdrawn(tx, hash, string(r.From.ID)+": "+n.Reason)
	})
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
	return nil, fmt.Errorf("%w: agreement %q names %d of them; give more digits of the hash", ErrMisuse, hash, len(found))
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
