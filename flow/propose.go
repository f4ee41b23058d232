package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

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

// maxUnsigned bounds what an initiator may leave here for the operator to sign.
const maxUnsigned = 64

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
	var unsigned []transport.OrgID
	for _, org := range e.others(a) {
		if _, signed := a.Acceptances[org]; !signed {
			unsigned = append(unsigned, org)
		}
	}
	if len(unsigned) == 0 {
		return nil
	}
	if err := e.c.DB.Update(ctx, func(tx *store.Tx) error { return e.owe(tx, a, msgProposal, unsigned...) }); err != nil {
		return err
	}
	return e.deliver(ctx, a.Hash, msgProposal)
}

// settle tells the other participants once an agreement of ours has come into force, and returns it as it now stands.
func (e *Engine) settle(ctx context.Context, hash string) (*Agreement, error) {
	a, err := e.Agreement(hash)
	if err != nil || a.State != InForce {
		return a, err
	}
	if err := e.deliver(ctx, hash, msgInForce); err != nil {
		return a, fmt.Errorf("in force, but not everybody was told: %w", err)
	}
	return a, nil
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
			if _, known, err := get[Agreement](tx, bucketAgreements, a.Hash); err != nil || known {
				return err // it was proposed before, and may have been signed since
			}
			if err := e.makeRoom(tx, r.From.ID); err != nil {
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

// makeRoom refuses a further proposal of an initiator that has many here unsigned. One that it has withdrawn gives way.
func (e *Engine) makeRoom(tx *store.Tx, initiator transport.OrgID) error {
	unsigned, withdrawn, received := 0, "", ""
	err := each(tx, bucketAgreements, "", func(hash string, a Agreement) error {
		if _, signed := a.Acceptances[e.c.Org]; signed || a.Definition.Initiator() != initiator {
			return nil
		}
		unsigned++
		if a.State == Withdrawn && (withdrawn == "" || a.Received < received) {
			withdrawn, received = hash, a.Received
		}
		return nil
	})
	switch {
	case err != nil || unsigned < maxUnsigned:
		return err
	case withdrawn != "":
		return tx.Bucket(bucketAgreements).Delete([]byte(withdrawn))
	}
	return &transport.Error{Code: transport.CodeOverloaded, Text: fmt.Sprintf("%d proposals of %s wait here to be signed; withdraw those that are no longer meant", unsigned, initiator)}
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
