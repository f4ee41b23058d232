package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

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
	if err := e.settled(tx, notice{hash, acc.Organization, msgProposal}); err != nil {
		return err
	}
	if a.complete() && a.State != InForce {
		a.State = InForce
		if err := e.enterForce(tx, &a); err != nil {
			return err
		}
	}
	return put(tx, bucketAgreements, hash, a)
}

// enterForce records that an agreement is in force. Its initiator owes the others to tell them.
func (e *Engine) enterForce(tx *store.Tx, a *Agreement) error {
	err := e.record(tx, ledger.Entry{Type: "agreement-in-force", Category: ledger.FederationManagement, Action: "in-force",
		Resource: "agreement:" + a.Hash, Result: "ok"})
	if err != nil {
		return err
	}
	if initiator := a.Definition.Initiator(); initiator != e.c.Org {
		return e.settled(tx, notice{a.Hash, initiator, msgAcceptance})
	}
	return e.owe(tx, a, msgInForce, e.others(a)...)
}

// accept signs a for this organisation, which owes its initiator the signature.
func (e *Engine) accept(ctx context.Context, user User, a *Agreement) error {
	if err := e.c.UpToDate(ctx); err != nil {
		return err
	}
	acc, err := e.sign(a)
	if err != nil {
		return err
	}
	return e.c.DB.Update(ctx, func(tx *store.Tx) error {
		initiator := a.Definition.Initiator()
		if err := e.keepOwn(tx, user, a, acc); err != nil || initiator == e.c.Org {
			return err
		}
		return e.owe(tx, a, msgAcceptance, initiator)
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

// Accept signs a pending agreement on the operator's word and sends the signature to its initiator. hash may be
// shortened to a unique prefix.
func (e *Engine) Accept(ctx context.Context, user User, hash string) (*Agreement, error) {
	a, err := e.Agreement(hash)
	if err != nil {
		return nil, err
	}
	if _, signed := a.Acceptances[e.c.Org]; !signed {
		if a.State != Pending {
			return a, fmt.Errorf("%w: agreement %.12s… is %s", ErrMisuse, a.Hash, a.State)
		}
		if err := e.accept(ctx, user, a); err != nil {
			return nil, err
		}
	}
	if err := e.deliver(ctx, a.Hash, msgAcceptance); err != nil {
		err = fmt.Errorf("signed here, but the initiator was not told: %w", err)
		return a, err
	}
	return e.Agreement(a.Hash)
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
			e.c.Logger.Warn("agreement", "agreement", hash, "err", err)
		}
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
		if err := e.markWithdrawn(tx, a.Hash, reason); err != nil {
			return err
		}
		return e.owe(tx, a, msgWithdrawal, e.others(a)...)
	})
	if err != nil {
		return nil, err
	}
	if err = e.deliver(ctx, a.Hash, msgWithdrawal); err != nil {
		err = fmt.Errorf("withdrawn here, but not everybody was told: %w", err)
	}
	a, err2 := e.Agreement(a.Hash)
	return a, errors.Join(err, err2)
}

func (e *Engine) markWithdrawn(tx *store.Tx, hash, reason string) error {
	a, ok, err := get[Agreement](tx, bucketAgreements, hash)
	if err != nil || !ok {
		return errors.Join(err, ErrNotFound)
	}
	a.State, a.Reason = Withdrawn, reason
	var void []notice
	err = each(tx, bucketNotices, hash, func(_ string, n notice) error {
		void = append(void, n)
		return nil
	})
	if err := errors.Join(err, e.settled(tx, void...)); err != nil {
		return err
	}
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
		if now, _, err := get[Agreement](tx, bucketAgreements, hash); err != nil || now.State == Withdrawn {
			return err // that of whoever was first stands, and what is owed because of it
		}
		return e.markWithdrawn(tx, hash, string(r.From.ID)+": "+printable(n.Reason))
	})
}
