package threshold

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// MaxGalois bounds the rotation keys made at once.
const MaxGalois = 64

// A making is one run of EvaluationKeys at one party.
type making struct {
	k       *KeyShare
	s       *compute.Session
	r       *ring.Ring
	src     *ring.Source
	share   ring.Poly // additive, of s
	parties int
	places  []int // of the parties in the key
}

// EvaluationKeys makes the relinearisation key, and keys for the given Galois elements,
// with the parties of a session: threshold or more that hold shares of k. Nobody needs
// to be trusted with the result: it was tried before it is returned.
func (k *KeyShare) EvaluationKeys(ctx context.Context, s *compute.Session, elements ...uint64) (*he.EvaluationKeys, error) {
	points, share, err := k.joint(s)
	if err != nil {
		return nil, s.Fail(err)
	}
	defer share.Wipe()
	if len(elements) > MaxGalois {
		return nil, s.Fail(fmt.Errorf("%w: %d Galois elements at once; at most %d", ErrPolicy, len(elements), MaxGalois))
	}
	keys := he.NewEvaluationKeys(k.p)
	terms := make([]byte, 0, 8*len(elements))
	for _, g := range elements {
		if err := keys.SetGalois(g, nil); err != nil { // only to check the element
			return nil, s.Fail(err)
		}
		terms = binary.BigEndian.AppendUint64(terms, g)
	}
	if err := s.Agree(ctx, "evaluation keys: terms", k.agreement("evaluation keys", terms)); err != nil {
		return nil, err
	}
	_, places, err := k.pointsOf(s.Roster())
	if err != nil {
		return nil, s.Fail(err)
	}
	m := &making{k: k, s: s, r: k.p.KeyRing(), src: ring.FreshSource(), share: share, parties: len(points), places: places}
	defer m.src.Wipe()
	relin, err := m.relinearisation(ctx)
	if err != nil {
		return nil, err
	}
	keys.SetRelinearisation(relin)
	for _, g := range elements {
		key, err := m.galois(ctx, g)
		if err != nil {
			return nil, err
		}
		if err := keys.SetGalois(g, key); err != nil {
			return nil, s.Fail(err)
		}
	}
	if err := m.try(ctx, keys, elements); err != nil {
		return nil, err
	}
	return keys, s.Agree(ctx, "evaluation keys: result", k.agreement("evaluation keys made", keys.Marshal()))
}

// collect broadcasts rows of polynomials, one for each digit, and returns their sums
// over the parties. Together means that no party's depend on another's.
func (m *making) collect(ctx context.Context, round string, together bool, rows ...[]ring.Poly) ([][]ring.Poly, error) {
	digits, size := m.k.p.Digits(), he.PolySize(m.r)
	payload := make([]byte, 0, len(rows)*digits*size)
	for _, row := range rows {
		for _, x := range row {
			payload = he.AppendPoly(payload, m.r, x)
		}
	}
	send := m.s.Broadcast
	if together {
		send = m.s.Simultaneous
	}
	all, err := send(ctx, round, payload, len(payload))
	if err != nil {
		return nil, err
	}
	sums := make([][]ring.Poly, len(rows))
	for i := range sums {
		for range digits {
			sums[i] = append(sums[i], m.r.NewPoly())
		}
	}
	for i, b := range all {
		for _, row := range sums {
			for _, sum := range row {
				var x ring.Poly
				if x, b, err = he.TakePoly(b, m.r); err != nil {
					return nil, m.s.Blame(i, round, fmt.Errorf("%w: %w", compute.ErrMisbehaved, err))
				}
				m.r.Add(sum, sum, x)
			}
		}
		if len(b) != 0 {
			return nil, m.s.Blame(i, round, fmt.Errorf("%w: %d bytes too many", compute.ErrMisbehaved, len(b)))
		}
	}
	return sums, nil
}

// masked returns e ± a·s, a fresh error e.
func (m *making) masked(a, s ring.Poly, negative bool) ring.Poly {
	out, y := m.k.p.ErrorPoly(m.src), m.r.NewPoly()
	defer y.Wipe()
	m.r.Mul(y, a, s)
	if negative {
		m.r.Sub(out, out, y)
	} else {
		m.r.Add(out, out, y)
	}
	return out
}

// relinearisation is MHE's RelinKeyGen. For every digit of the gadget g, with a from
// the common reference string, s_i the additive shares of s and u_i ephemeral:
//
//	first   h0 = Σ e - u_i·a + g·s_i         h1 = Σ e + s_i·a
//	second  h0' = Σ e + s_i·h0               h1' = Σ e + (u_i - s_i)·h1
//	key     (b, a) = (h0' + h1', h1)
//
// so that b + h1·s = g·s² + s·e_h0 + u·e_h1 + e_h0' + e_h1', where s_i·a's error
// cancels. The first round is simultaneous: whoever came last could otherwise make
// h0 a constant and read s_i from s_i·h0.
func (m *making) relinearisation(ctx context.Context) (*he.SwitchingKey, error) {
	p := m.k.p
	coin, err := m.s.Coin(ctx, "common reference string: relinearisation")
	if err != nil {
		return nil, err
	}
	u := smallPoly(m.r, m.src.Ternary)
	defer u.Wipe()
	var h0, h1 []ring.Poly
	for d := range p.Digits() {
		a := p.SwitchMask(ring.Seed(coin), d)
		x := m.masked(a, u, true)
		p.AddGadget(x, m.share, d)
		h0, h1 = append(h0, x), append(h1, m.masked(a, m.share, false))
	}
	first, err := m.collect(ctx, "relinearisation: first", true, h0, h1)
	if err != nil {
		return nil, err
	}
	difference := m.r.NewPoly()
	defer difference.Wipe()
	m.r.Sub(difference, u, m.share)
	for d := range p.Digits() {
		h0[d] = m.masked(first[0][d], m.share, false)
		h1[d] = m.masked(first[1][d], difference, false)
		m.r.Add(h0[d], h0[d], h1[d]) // only their sum is needed
	}
	second, err := m.collect(ctx, "relinearisation: second", false, h0)
	if err != nil {
		return nil, err
	}
	key, err := he.SwitchingKeyOf(p, nil, second[0], first[1], m.relinBounds())
	if err != nil {
		return nil, m.s.Fail(err)
	}
	return key, nil
}

// EvaluationBounds returns the bounds of evaluation keys at degree n that so many
// parties make for a key of so many dealers: those of the relinearisation key, |s·e_h0| ≤
// N·S·E, |u·e_h1| ≤ N·T·E with E = T·ErrorBound, and two more errors of E. Galois keys
// have less.
func EvaluationBounds(n, dealers, parties int) he.KeyBounds {
	s, t := Bounds(dealers).Secret, float64(parties)
	e := t * ring.ErrorBound
	return he.KeyBounds{Secret: s, Error: float64(n)*(s+t)*e + 2*e}
}

func (m *making) relinBounds() he.KeyBounds {
	return EvaluationBounds(m.r.N, int(m.k.bounds.Secret), m.parties)
}

// galois is MHE's RotKeyGen: b = Σ e - a·turned(s_i) + g·s_i.
func (m *making) galois(ctx context.Context, g uint64) (*he.SwitchingKey, error) {
	p := m.k.p
	coin, err := m.s.Coin(ctx, fmt.Sprintf("common reference string: Galois %d", g))
	if err != nil {
		return nil, err
	}
	turned := m.r.NewPoly()
	defer turned.Wipe()
	p.TurnSecret(turned, m.share, g)
	seed := ring.Seed(coin)
	var b []ring.Poly
	for d := range p.Digits() {
		x := m.masked(p.SwitchMask(seed, d), turned, true)
		p.AddGadget(x, m.share, d)
		b = append(b, x)
	}
	sums, err := m.collect(ctx, fmt.Sprintf("Galois key %d", g), false, b)
	if err != nil {
		return nil, err
	}
	bounds := he.KeyBounds{Secret: m.k.bounds.Secret, Error: float64(m.parties) * ring.ErrorBound}
	key, err := he.SwitchingKeyOf(p, &seed, sums[0], nil, bounds)
	if err != nil {
		return nil, m.s.Fail(err)
	}
	return key, nil
}

// trialWeight is the number of terms of the polynomial that makes a trial of evaluation
// keys unforeseeable: 2^89 of them at N = 4096.
const trialWeight = 8

// try decrypts encryptions of zero that the keys were used on: (b·u, a·u), for which
// (b + a·s)·u = e·u, turned by every element, and its square (b², 2ab, a²)·u,
// relinearised. u is a sum of few ±X^k, from a coin once the keys are there: keys can be
// crafted to work on a ciphertext that is known beforehand, and on no other.
func (m *making) try(ctx context.Context, keys *he.EvaluationKeys, elements []uint64) error {
	p := m.k.p
	ev, err := he.NewEvaluator(p, keys, 1)
	if err != nil {
		return m.s.Fail(err)
	}
	r, level := p.Ring(p.MaxLevel()), p.MaxLevel()
	coin, err := m.s.Coin(ctx, "trial of the evaluation keys: randomness")
	if err != nil {
		return err
	}
	u := sparsePoly(r, ring.NewSource(ring.Seed(coin), "threshold/trial"))
	b, a := m.k.public[0], p.PublicMask(m.k.seed)
	bu, au := r.NewPoly(), r.NewPoly()
	r.Mul(bu, b, u)
	r.Mul(au, a, u)
	zero, err := m.zero(p, level, trialWeight*m.k.bounds.Error, bu, au)
	if err != nil {
		return m.s.Fail(err)
	}
	b2, ab, a2 := r.NewPoly(), r.NewPoly(), r.NewPoly()
	r.Mul(b2, b, bu)
	r.Mul(ab, a, bu)
	r.Add(ab, ab, ab)
	r.Mul(a2, a, au)
	square, err := m.zero(p, level, trialWeight*float64(r.N)*m.k.bounds.Error*m.k.bounds.Error, b2, ab, a2)
	if err != nil {
		return m.s.Fail(err)
	}
	out := new(he.Ciphertext)
	if err := ev.Relinearise(out, square); err != nil {
		return m.s.Fail(err)
	}
	bound := out.Noise()
	c0, c1 := []ring.Poly{out.Poly(0, 0).Clone()}, []ring.Poly{out.Poly(0, 1).Clone()}
	for _, g := range elements {
		if err := ev.Turn(out, zero, g); err != nil {
			return m.s.Fail(err)
		}
		bound = max(bound, out.Noise())
		c0, c1 = append(c0, out.Poly(0, 0).Clone()), append(c1, out.Poly(0, 1).Clone())
	}
	all := slices.Repeat([]bool{true}, m.parties)
	t := &trial{session: m.s, ring: r, share: m.share, pairs: m.k.pairs, self: m.k.self, set: m.places, parts: all, name: "trial of the evaluation keys"}
	return t.run(ctx, c0, c1, float64(bound))
}

// sparsePoly returns a public sum of trialWeight terms ±X^k, as values.
func sparsePoly(r *ring.Ring, src *ring.Source) ring.Poly {
	return smallPoly(r, func(c []int32) {
		for range trialWeight {
			w := src.Word()
			c[w&uint64(r.N-1)] += 1 - 2*int32(w>>63)
		}
	})
}

// zero returns a ciphertext of zero with the given noise, the same in all parts.
func (m *making) zero(p *he.Parameters, level int, noise float64, c ...ring.Poly) (*he.Ciphertext, error) {
	var parts [][]ring.Poly
	for range p.Parts() {
		var own []ring.Poly
		for _, x := range c {
			own = append(own, x[:level])
		}
		parts = append(parts, own)
	}
	return he.CiphertextOf(p, level, parts, he.Noise(noise), m.k.bounds)
}
