package threshold

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// A sharing is the result of making or redistributing a secret, before it is a key.
type sharing struct {
	*dealt
	seed ring.Seed
}

// Generate makes a collective key among all parties of a session, each of which deals
// and gets a share. The share is in the store, at every party, when it returns.
// Dealers that deal wrongly are excluded and reported by Key.Excluded; with fewer
// than threshold left it fails and names them.
func Generate(ctx context.Context, s *compute.Session, store *Store, p *he.Parameters, policy Policy) (*KeyShare, error) {
	roster := s.Roster()
	policy, err := policy.normal(len(roster))
	if err == nil {
		err = policy.room(p, len(roster))
	}
	if err != nil {
		return nil, s.Fail(err)
	}
	id := p.ID()
	terms := sha256.Sum256(fmt.Appendf(nil, "fednode/threshold/terms/v1\n%x\n%+v", id, policy))
	if err := s.Agree(ctx, "key generation: terms", terms); err != nil {
		return nil, err
	}
	made, err := generate(ctx, s, p.KeyRing(), policy.Threshold)
	if err != nil {
		return nil, err
	}
	k := &KeyShare{
		Key: &Key{p: p, sharing: s.ID(), policy: policy, parties: roster, seed: made.seed, public: made.public,
			bounds: Bounds(len(roster) - len(made.excluded)), id: newKeyID(p, made.seed, made.public[0])},
		self: s.Self(), f: made.f, e: made.e, pairs: made.pairs,
	}
	for i := range roster {
		if made.excluded[i] != nil {
			k.excluded = append(k.excluded, made.excluded[i])
		}
	}
	if err := keep(ctx, s, store, k); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

// keep stores a share, and puts it to use when all parties have stored theirs.
func keep(ctx context.Context, s *compute.Session, store *Store, k *KeyShare) error {
	if err := store.hold(k); err != nil {
		return s.Fail(err)
	}
	if err := s.Agree(ctx, "key stored", k.agreement("stored", k.marshalPublic())); err != nil {
		return err
	}
	return store.Promote(k.id, int(k.epoch))
}

// generate deals ternary secrets over a ring and tries the result.
func generate(ctx context.Context, s *compute.Session, r *ring.Ring, threshold int) (*sharing, error) {
	v, seed, err := newDealing(ctx, s, r, threshold)
	if err != nil {
		return nil, err
	}
	src := ring.FreshSource()
	defer src.Wipe()
	made, err := v.run(ctx, smallPoly(r, src.Ternary), smallPoly(r, src.Binomial))
	if err != nil {
		return nil, err
	}
	return v.accept(ctx, made, seed)
}

// newDealing prepares a dealing of all parties to all, with a mask from a coin.
func newDealing(ctx context.Context, s *compute.Session, r *ring.Ring, threshold int) (*dealing, ring.Seed, error) {
	n := len(s.Roster())
	coin, err := s.Coin(ctx, "common reference string: public key")
	if err != nil {
		return nil, ring.Seed{}, err
	}
	seed := ring.Seed(coin)
	v := &dealing{session: s, ring: r, mask: r.NewPoly(), threshold: threshold, dealers: make([]bool, n), points: make([]uint64, n)}
	r.Uniform(v.mask, seed, "public") // as he.Parameters.PublicMask has it
	for i := range n {
		v.dealers[i], v.points[i] = true, uint64(i+1)
	}
	return v, seed, nil
}

// accept tries what was dealt, if enough dealers are left.
func (v *dealing) accept(ctx context.Context, made *dealt, seed ring.Seed) (*sharing, error) {
	left := len(v.dealers) - len(made.excluded)
	if left < v.threshold {
		made.wipe()
		causes := slices.Collect(maps.Values(made.excluded))
		return nil, v.session.Fail(fmt.Errorf("%d dealers are left, %d are needed: %w", left, v.threshold, errors.Join(causes...)))
	}
	out := &sharing{made, seed}
	if err := out.prove(ctx, v, Bounds(left)); err != nil {
		made.wipe()
		return nil, err
	}
	return out, nil
}

// smallPoly returns a polynomial of a sampler's coefficients, as values.
func smallPoly(r *ring.Ring, sample func([]int32)) ring.Poly {
	small := make([]int32, r.N)
	defer clear(small)
	sample(small)
	out := r.NewPoly()
	r.SetSigned(out, small)
	r.NTT(out)
	return out
}

// prove gives the holders the secrets of their pairs and has the first threshold of them
// decrypt (b, a + e1), e1 from a coin: it is e + e1·s, small if e is and s is.
func (m *sharing) prove(ctx context.Context, v *dealing, bounds he.KeyBounds) error {
	var err error
	if m.pairs, err = v.pair(ctx); err != nil {
		return err
	}
	coin, err := v.session.Coin(ctx, "trial: randomness")
	if err != nil {
		return err
	}
	t := &trial{session: v.session, ring: v.ring, pairs: m.pairs, parts: make([]bool, len(v.points)), name: "trial of the key"}
	var points []uint64
	own := -1
	for place, x := range v.points {
		if x == 0 || len(points) == v.threshold {
			continue
		}
		if t.parts[place] = true; place == v.session.Self() {
			own = len(points)
			t.self = int(x) - 1
		}
		points, t.set = append(points, x), append(t.set, int(x)-1)
	}
	if own >= 0 {
		t.share = weighted(v.ring, m.f, points, own)
		defer t.share.Wipe()
	}
	c1 := smallPoly(v.ring, ring.NewSource(ring.Seed(coin), "threshold/trial").Binomial)
	v.ring.Add(c1, c1, v.mask)
	bound := bounds.Error + float64(v.ring.N)*ring.ErrorBound*bounds.Secret
	return t.run(ctx, m.public[:1], []ring.Poly{c1}, math.Ceil(bound))
}
