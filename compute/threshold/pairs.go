package threshold

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"fednode/compute"
	"fednode/compute/he/ring"
)

// What holders release together is meant to tell their sum, c1·s flooded, and nothing
// else. Each share alone would tell more to holders outside the set: what they know of
// the sharing makes λ_j·S_j a fraction u/w of s, w a small number, plus something
// known, and the flood does not cover u/w·v unless w divides the noise v. So shares are
// masked by a sharing of zero: holders have a secret in pairs, which both expand for
// every release, one adding and one subtracting it.

// pairs are the secrets that a party has with the others, by place in the key; nothing
// at its own.
type pairs [][sha256.Size]byte

const pairSize = sha256.Size

func (p pairs) wipe() { clear(p) }

// pair makes the secrets of all holders of a dealing; both of two contribute.
func (v *dealing) pair(ctx context.Context) (pairs, error) {
	const round = "secrets of pairs"
	self := v.session.Self()
	out := make([][]byte, len(v.points))
	var holders int
	for place, x := range v.points {
		if x == 0 {
			continue
		}
		holders++
		if v.points[self] != 0 && place != self {
			out[place] = make([]byte, pairSize)
			rand.Read(out[place]) // never fails (Go 1.24)
		}
	}
	in, err := v.session.Exchange(ctx, round, out, pairSize)
	if err != nil {
		return nil, err
	}
	made := make(pairs, holders)
	id := v.session.ID()
	for place, b := range in {
		if len(b) != len(out[place]) {
			made.wipe()
			return nil, v.session.Blame(place, round, fmt.Errorf("%w: a secret of %d bytes, not %d", compute.ErrMisbehaved, len(b), len(out[place])))
		}
		if len(b) == 0 {
			continue
		}
		first, second := out[place], b
		if place < self {
			first, second = second, first
		}
		h := sha256.New()
		fmt.Fprintf(h, "fednode/threshold/pair/v1\n%x\n%d\n%d\n", id, min(place, self), max(place, self))
		h.Write(first)
		h.Write(second)
		h.Sum(made[v.points[place]-1][:0])
		clear(out[place])
		clear(b)
	}
	return made, nil
}

// mask returns this party's part of a sharing of zero among a set of places, for one
// use (see useOf) and one polynomial of it. The same use must never be masked for two
// different ciphertexts.
func (p pairs) mask(r *ring.Ring, self int, set []int, use [32]byte, at int) ring.Poly {
	out, x := r.NewPoly(), r.NewPoly()
	defer x.Wipe()
	for _, other := range set {
		if other == self {
			continue
		}
		h := sha256.New()
		h.Write([]byte("fednode/threshold/zero/v1\n"))
		h.Write(p[other][:])
		h.Write(use[:])
		r.Uniform(x, ring.Seed(h.Sum(nil)), fmt.Sprintf("threshold/zero/%d", at))
		if self < other {
			r.Add(out, out, x)
		} else {
			r.Sub(out, out, x)
		}
	}
	return out
}
