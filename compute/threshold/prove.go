package threshold

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// A trial is a joint decryption of an encryption of zero that everyone knows to be
// one: it shows that keys and shares belong together and are as small as they should
// be, and reveals c0 + c1·s but for a flood of 2^MinSmudging times its bound.
type trial struct {
	session *compute.Session
	ring    *ring.Ring
	share   ring.Poly // this party's additive share of s, nil if it takes no part
	pairs   pairs     // its secrets with other holders
	self    int       // its place in the key
	set     []int     // and those of all who take part
	parts   []bool    // by place in the session, who takes part
	name    string
}

// run returns ErrProof unless |c0 + c1·s| ≤ bound could hold. Of each trial, all
// parties have the same c0 and c1, values of the ring.
func (t *trial) run(ctx context.Context, c0, c1 []ring.Poly, bound float64) error {
	r := t.ring
	bits := int(math.Ceil(math.Log2(bound))) + MinSmudging
	shares := 0
	for _, yes := range t.parts {
		if yes {
			shares++
		}
	}
	limit := bound + float64(shares)*math.Ldexp(1, bits)
	if whole := he.Noise(modulus(r)); !(limit < float64(whole)/4) {
		return t.session.Fail(fmt.Errorf("%w: %s: noise of 2^%.1f, flooded, does not fit the modulus", ErrNoRoom, t.name, math.Log2(bound)))
	}
	size := he.PolySize(r)
	var payload []byte
	if t.share != nil {
		src := ring.FreshSource()
		defer src.Wipe()
		use := t.use(c1)
		for k := range c1 {
			h := floodedShare(r, src, c1[k], t.share, bits)
			mask := t.pairs.mask(r, t.self, t.set, use, k)
			r.Add(h, h, mask)
			mask.Wipe()
			payload = he.AppendPoly(payload, r, h)
		}
	}
	round := t.name
	all, err := t.session.Simultaneous(ctx, round, payload, size*len(c1))
	if err != nil {
		return err
	}
	sums := make([]ring.Poly, len(c0))
	for k := range sums {
		sums[k] = r.NewPoly()
		r.Copy(sums[k], c0[k])
	}
	for i, b := range all {
		if want := size * len(c1); t.parts[i] && len(b) != want || !t.parts[i] && len(b) != 0 {
			return t.session.Blame(i, round, fmt.Errorf("%w: %d bytes of proof", compute.ErrMisbehaved, len(b)))
		}
		for k := 0; k < len(sums) && t.parts[i]; k++ {
			var h ring.Poly
			if h, b, err = he.TakePoly(b, r); err != nil {
				return t.session.Blame(i, round, fmt.Errorf("%w: %w", compute.ErrMisbehaved, err))
			}
			r.Add(sums[k], sums[k], h)
		}
	}
	for _, x := range sums {
		r.INTT(x)
		if got := he.Magnitude(r, x); float64(got) > limit {
			return t.session.Fail(fmt.Errorf("%w: %s: an encryption of zero decrypts to 2^%.1f, at most 2^%.1f is right; a secret is too large, or a party computed wrongly",
				ErrProof, t.name, got.Bits(), math.Log2(limit)))
		}
	}
	return nil
}

// use is what the shares of a trial are masked under.
func (t *trial) use(c1 []ring.Poly) [32]byte {
	h := sha256.New()
	for _, c := range c1 {
		h.Write(he.AppendPoly(nil, t.ring, c))
	}
	return useOf(t.name, t.session.ID(), t.set, [32]byte(h.Sum(nil)))
}

func modulus(r *ring.Ring) float64 {
	q := 1.0
	for _, m := range r.Moduli {
		q *= float64(m.Q)
	}
	return q
}

// floodedShare returns c1·share + e, values, e uniform in ±2^bits.
func floodedShare(r *ring.Ring, src *ring.Source, c1, share ring.Poly, bits int) ring.Poly {
	e, h := r.NewPoly(), r.NewPoly()
	defer e.Wipe()
	r.UniformSigned(e, src, bits)
	r.NTT(e)
	r.Mul(h, c1, share)
	r.Add(h, h, e)
	return h
}
