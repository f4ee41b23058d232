package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/transport"
)

// A notice is a message about an agreement that a participant has yet to answer. It is journalled in one transaction with
// what it tells of, and delivered until it is answered: at once by whoever caused it, and from then on, crashes or not, by
// [Engine.remind].
type notice struct {
	Agreement string          `json:"agreement"`
	To        transport.OrgID `json:"to"`
	Type      string          `json:"type"`
}

func (n notice) key() string { return n.Agreement + "/" + string(n.To) + "/" + n.Type }

// How often notices that could not be delivered are tried again. Whoever is away costs nothing but a try to connect; every
// question that is put, and every answer to it, stays in the log.
const (
	remindEvery = 5 * time.Second  // at first; the pause doubles
	remindAway  = 2 * time.Minute  // at most, while the participant cannot be reached
	remindLater = 30 * time.Minute // at most
)

// reminders remembers when notices were last tried; what it does not know is due.
type reminders struct {
	mu   sync.Mutex
	last map[string]reminder
}

type reminder struct {
	at    time.Time
	pause time.Duration
}

// try marks a notice as being tried now, and doubles the pause before it is due again, up to limit.
func (r *reminders) try(n notice, limit time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[string]reminder{}
	}
	r.last[n.key()] = reminder{time.Now(), min(max(remindEvery, 2*r.last[n.key()].pause), limit)}
}

func (r *reminders) due(n notice) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.last[n.key()]
	return time.Since(l.at) >= l.pause
}

func (r *reminders) forget(n notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, n.key())
}

// owe journals notices of a type. Whoever calls it delivers them once tx is committed.
func (e *Engine) owe(tx *store.Tx, a *Agreement, msgType string, to ...transport.OrgID) error {
	for _, org := range to {
		n := notice{a.Hash, org, msgType}
		e.reminders.try(n, remindLater)
		if err := put(tx, bucketNotices, n.key(), n); err != nil {
			return err
		}
	}
	return nil
}

// settled takes notices that have been answered, or mean nothing any more, out of the journal.
func (e *Engine) settled(tx *store.Tx, which ...notice) error {
	for _, n := range which {
		if err := tx.Bucket(bucketNotices).Delete([]byte(n.key())); err != nil {
			return err
		}
		tx.AfterCommit(func() { e.reminders.forget(n) })
	}
	return nil
}

// others are the participants but this organisation.
func (e *Engine) others(a *Agreement) (orgs []transport.OrgID) {
	for _, p := range a.Definition.Participants {
		if p.ID != e.c.Org {
			orgs = append(orgs, p.ID)
		}
	}
	return orgs
}

// notices returns what is owed of an agreement, or with "" of all.
func (e *Engine) notices(agreement string) (out []notice, err error) {
	err = e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketNotices, agreement, func(_ string, n notice) error {
			out = append(out, n)
			return nil
		})
	})
	return out, err
}

// deliver tries all notices of a type that an agreement owes, all at once. The error names who did not answer, or refused.
func (e *Engine) deliver(ctx context.Context, hash, msgType string) error {
	owed, err := e.notices(hash)
	if err != nil {
		return err
	}
	owed = slices.DeleteFunc(owed, func(n notice) bool { return n.Type != msgType })
	errs := make([]error, len(owed))
	var wg sync.WaitGroup
	for i, n := range owed {
		wg.Go(func() {
			if err := e.deliverOne(ctx, n); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.To, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// errAwaits is wrapped by what a notice's delivery fails with that is tried again.
var errAwaits = errors.New("it will be told once it answers")

func (e *Engine) deliverOne(ctx context.Context, n notice) error {
	e.reminders.try(n, remindLater)
	a, err := e.Agreement(n.Agreement)
	if err != nil {
		return err
	}
	m, err := e.message(a, n)
	if err != nil {
		return err
	}
	reply, err := e.c.Node.Call(ctx, m, nil)
	if err != nil {
		return fmt.Errorf("%w; %w", err, errAwaits)
	}
	var ans proposalReply
	var nonsense error // it is an answer all the same: asked again, the participant would say it again
	if n.Type == msgProposal && reply.Refusal == nil {
		ans, nonsense = e.proposalAnswer(a, n.To, reply.Payload)
	}
	later := reply.Refusal != nil && passing(reply.Refusal.Code)
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		if err := reply.Record(tx); err != nil || later {
			return err
		}
		if err := e.settled(tx, n); err != nil || ans.Acceptance == nil {
			return err
		}
		if now, _, err := get[Agreement](tx, bucketAgreements, n.Agreement); err != nil || now.State == Withdrawn {
			return err
		}
		return e.addAcceptance(tx, n.Agreement, *ans.Acceptance)
	})
	switch {
	case err != nil:
		return err
	case later:
		return fmt.Errorf("%w; %w", reply.Refusal, errAwaits)
	case reply.Refusal != nil:
		return reply.Refusal
	case nonsense != nil:
		return fmt.Errorf("answer to the proposal: %w", nonsense)
	case ans.State == Refused:
		return fmt.Errorf("refused: %s", printable(ans.Reason))
	}
	return nil
}

// proposalAnswer reads what a participant answers to a proposal, and verifies its signature if it has signed.
func (e *Engine) proposalAnswer(a *Agreement, from transport.OrgID, payload []byte) (ans proposalReply, err error) {
	if err := jcs.Unmarshal(payload, &ans); err != nil {
		return proposalReply{}, err
	}
	acc := ans.Acceptance
	switch {
	case acc == nil:
		return ans, nil
	case acc.Organization != from:
		return proposalReply{}, fmt.Errorf("it holds the acceptance of %.63s", acc.Organization)
	}
	if err := acc.Verify(a.Definition, a.Hash, e.c.Members()); err != nil {
		return proposalReply{}, err
	}
	return ans, nil
}

// passing reports whether a refusal is about the moment and not about the message.
func passing(c transport.Code) bool {
	switch c {
	case transport.CodeOverloaded, transport.CodeRateLimited, transport.CodeTimeout, transport.CodeStaleGovernance, transport.CodeInternal,
		transport.CodeClockSkew, transport.CodeNotMember, transport.CodeReplayed:
		return true
	}
	return false
}

// message makes a notice's message from the agreement as it now stands.
func (e *Engine) message(a *Agreement, n notice) (m transport.Message, err error) {
	m = transport.Message{To: n.To, Type: n.Type, Agreement: a.Hash}
	switch n.Type {
	case msgProposal:
		var canonical []byte
		if canonical, err = a.Definition.Canonical(); err == nil {
			m.Payload, m.Audit = proposal{canonical}, agreementAudit("propose", a.Hash)
		}
	case msgAcceptance:
		m.Payload, m.Audit = acceptanceNote{a.Acceptances[e.c.Org]}, agreementAudit("accept", a.Hash)
	case msgInForce:
		note := inForceNote{}
		for _, p := range a.Definition.Participants {
			note.Acceptances = append(note.Acceptances, a.Acceptances[p.ID])
		}
		m.Payload, m.Audit = note, agreementAudit("in-force", a.Hash)
	case msgWithdrawal:
		m.Payload, m.Audit = withdrawalNote{a.Reason}, agreementAudit("withdraw", a.Hash)
	default:
		err = fmt.Errorf("journal %s: no notice is called %q", bucketNotices, n.Type)
	}
	return m, err
}

// remind tries notices again that are owed from earlier, until ctx ends.
func (e *Engine) remind(ctx context.Context) {
	t := time.NewTicker(remindEvery)
	defer t.Stop()
	for {
		owed, err := e.notices("")
		if err != nil {
			e.c.Logger.Error("notices of agreements could not be read", "err", err)
		}
		var wg sync.WaitGroup
		for _, n := range owed {
			if !e.reminders.due(n) {
				continue
			}
			wg.Go(func() {
				err := e.c.Node.Connect(ctx, n.To)
				if err == nil {
					err = e.deliverOne(ctx, n)
				} else {
					e.reminders.try(n, remindAway)
				}
				if err != nil && ctx.Err() == nil {
					e.c.Logger.Info("a participant was not told", "agreement", n.Agreement, "message_type", n.Type, "to", n.To, "err", err)
				}
			})
		}
		wg.Wait()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
