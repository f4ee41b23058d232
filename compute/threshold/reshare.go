package threshold

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// A Plan says how a key goes over to other parties, or to the same with new shares.
// It is the same at all parties of the session.
type Plan struct {
	Parameters *he.Parameters // of the key
	From       []string       // threshold parties that hold shares now, in the session's order
	To         []string       // parties that will, in the session's order
	Policy     Policy         // from now on
}

// Reshare deals a key anew. The session's parties are those of From and To; k is the
// share of a party of From, nil at the others. The public key, evaluation keys and
// ciphertexts stay valid; shares of the old sharing do not fit the new. The result is
// nil at a party that gets no share.
//
// When it returns, every party of To has its new share in its store and has decrypted
// with it, and this party's old shares are removed from its store; k is wiped. The
// holders that took no part must be told to Store.Forget theirs. If it fails before
// that, the old shares stay as they are; a party that learns that it succeeded at
// another promotes what it has (Store.Pending).
func Reshare(ctx context.Context, s *compute.Session, store *Store, k *KeyShare, plan Plan) (*KeyShare, error) {
	m, err := newMove(s, k, plan)
	if err != nil {
		return nil, s.Fail(err)
	}
	old, err := m.agree(ctx, k)
	if err != nil {
		return nil, err
	}
	made, err := m.deal(ctx, k, old)
	if err != nil {
		return nil, err
	}
	next := &KeyShare{
		Key: &Key{p: old.p, id: old.id, epoch: old.epoch + 1, sharing: s.ID(), policy: m.plan.Policy, parties: m.to,
			bounds: old.bounds, seed: old.seed, public: made.public},
		self: m.to.Index(s.Roster()[s.Self()].Name), f: made.f, e: made.e, pairs: made.pairs,
	}
	stored := next.agreement("reshared", next.marshalPublic())
	if next.self < 0 {
		next = nil
	} else if err := store.hold(next); err != nil {
		next.Wipe()
		return nil, s.Fail(err)
	}
	if err := s.Agree(ctx, "resharing: stored", stored); err != nil {
		return nil, err
	}
	if next != nil {
		if err := store.Promote(next.id, next.Epoch()); err != nil {
			return nil, err
		}
	}
	if k != nil {
		if err := store.Forget(old.id, int(old.epoch)+1); err != nil {
			return nil, fmt.Errorf("the key is reshared, but old shares of it are still there: %w", err)
		}
		k.Wipe()
	}
	return next, nil
}

// A move is a checked Plan.
type move struct {
	s       *compute.Session
	plan    Plan
	dealers []bool   // by place
	points  []uint64 // by place, new
	to      compute.Roster
}

func newMove(s *compute.Session, k *KeyShare, plan Plan) (*move, error) {
	var err error
	if plan.Policy, err = plan.Policy.normal(len(plan.To)); err != nil {
		return nil, err
	}
	if plan.Parameters == nil {
		return nil, fmt.Errorf("%w: a plan without parameters", ErrPolicy)
	}
	roster := s.Roster()
	m := &move{s: s, plan: plan, dealers: make([]bool, len(roster)), points: make([]uint64, len(roster))}
	var from, to []string
	for i, party := range roster {
		if slices.Contains(plan.From, party.Name) {
			m.dealers[i], from = true, append(from, party.Name)
		}
		if slices.Contains(plan.To, party.Name) {
			to, m.to = append(to, party.Name), append(m.to, party)
			m.points[i] = uint64(len(m.to))
		}
		if !m.dealers[i] && m.points[i] == 0 {
			return nil, fmt.Errorf("%w: %q is in the session, and neither holds nor gets a share", ErrPolicy, party.Name)
		}
	}
	if !slices.Equal(from, plan.From) || !slices.Equal(to, plan.To) {
		return nil, fmt.Errorf("%w: from %q to %q, in a session of %q", ErrPolicy, plan.From, plan.To, roster.Names())
	}
	if m.dealers[s.Self()] != (k != nil) {
		return nil, fmt.Errorf("%w: exactly the parties of From bring a share", ErrPolicy)
	}
	if k != nil {
		if err := k.live(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// agree compares plans and what the holders say of the key, and returns the key.
func (m *move) agree(ctx context.Context, k *KeyShare) (*Key, error) {
	const round = "resharing: key"
	id := m.plan.Parameters.ID()
	terms := sha256.Sum256(fmt.Appendf(nil, "fednode/threshold/resharing/v1\n%x\n%q\n%q\n%+v", id, m.plan.From, m.plan.To, m.plan.Policy))
	if err := m.s.Agree(ctx, "resharing: terms", terms); err != nil {
		return nil, err
	}
	var payload []byte
	if k != nil {
		payload = k.marshalPublic()
	}
	all, err := m.s.Broadcast(ctx, round, payload, maxPublic(m.plan.Parameters, MaxParties))
	if err != nil {
		return nil, err
	}
	var first []byte
	for i, b := range all {
		if m.dealers[i] && first == nil {
			first = b
		}
		if m.dealers[i] && !bytes.Equal(b, first) || !m.dealers[i] && len(b) > 0 {
			return nil, m.s.Blame(i, round, fmt.Errorf("%w: the key that it holds is not that of the others", compute.ErrMisbehaved))
		}
	}
	old, err := parseKey(m.plan.Parameters, first)
	if err != nil {
		return nil, m.s.Fail(fmt.Errorf("%w: the holders say of their key: %w", compute.ErrMisbehaved, err))
	}
	if len(m.plan.From) != old.policy.Threshold {
		return nil, m.s.Fail(fmt.Errorf("%w: %d parties deal; %s needs exactly %d", ErrPolicy, len(m.plan.From), old, old.policy.Threshold))
	}
	dealers := int(old.bounds.Secret)
	if err := m.plan.Policy.room(m.plan.Parameters, dealers); err != nil {
		return nil, m.s.Fail(err)
	}
	return old, nil
}

// deal has every dealer share its additive share λ_j·S_j and the error that goes with
// it. Its part of the public key must be λ_j·H(x_j), which everyone computes: the sum
// is H(0), the public key. That leaves a dealer free to change both by (δ, a·δ), which
// the trial of the new key finds, for a·δ is not small.
func (m *move) deal(ctx context.Context, k *KeyShare, old *Key) (*dealt, error) {
	var dealers compute.Roster
	for i, party := range m.s.Roster() {
		if m.dealers[i] {
			dealers = append(dealers, party)
		}
	}
	points, _, err := old.pointsOf(dealers)
	if err != nil {
		return nil, m.s.Fail(err)
	}
	r := old.p.KeyRing()
	v := &dealing{session: m.s, ring: r, mask: old.p.PublicMask(old.seed), threshold: m.plan.Policy.Threshold,
		dealers: m.dealers, points: m.points, strict: true}
	at := func(place int) int { return dealers.Index(m.s.Roster()[place].Name) }
	v.expected = func(dealer int) ring.Poly {
		return weighted(r, evaluate(r, old.public, points[at(dealer)]), points, at(dealer))
	}
	var f, e ring.Poly
	if k != nil {
		f, e = weighted(r, k.f, points, at(m.s.Self())), weighted(r, k.e, points, at(m.s.Self()))
	}
	made, err := v.run(ctx, f, e)
	if err != nil {
		return nil, err
	}
	if !r.Equal(made.public[0], old.public[0]) {
		made.wipe()
		return nil, m.s.Fail(fmt.Errorf("%w: the public key changed", ErrProof))
	}
	if err := (&sharing{made, old.seed}).prove(ctx, v, old.bounds); err != nil {
		made.wipe()
		return nil, err
	}
	return made, nil
}
