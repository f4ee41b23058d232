package threshold

import (
	"math/big"
	"testing"

	"fednode/compute/he/ring"
)

// TestSharesTellNothingOfTheNoise: two colluding holders, one of them outside the set that decrypts, know what a third's
// share of the secret has to do with the secret: S_1 = μ·s + what they know. λ·μ is a fraction of small numbers, here
// 4/3; times noise v that is no multiple of 3 it is v mod 3 thirds of Q, which no flood that decrypts covers. Noise
// modulo small numbers is linear in the secret: some such ciphertexts are the key.
func TestSharesTellNothingOfTheNoise(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 5)
	k := members[0].share.Key
	ct := encrypt(t, k, []int64{0})
	shares, err := byFiles(t, members, "collusion", ct, 0, 1, 3)
	must(t, err)
	r := k.p.Ring(ct.Level())
	c0, c1 := ct.Poly(0, 0), ct.Poly(0, 1)
	phase := func(set ...int) ring.Poly { // c0 + c1·s
		out := c0.Clone()
		for j, i := range set {
			y := weighted(r, members[i].share.f, pointsAt(set), j)
			r.Mul(y, y, c1)
			r.Add(out, out, y)
		}
		r.INTT(out)
		return out
	}
	noise := integers(r, phase(0, 1, 2))

	// What the colluders, at points 3 and 4, make of the share of point 1: with the
	// secret at 0 they interpolate S(1) = 1/2·s + S(3) - 1/2·S(4), and λ = 8/3.
	guess := shares[0].h[0].Clone()
	fraction := func(x ring.Poly, over, under uint64) ring.Poly {
		w, out := make([]uint64, len(r.Moduli)), r.NewPoly()
		for i, m := range r.Moduli {
			w[i] = m.Mul(over, m.Inv(under))
		}
		r.MulScalar(out, x, w)
		return out
	}
	y := r.NewPoly()
	r.Sub(y, members[2].share.f[:ct.Level()], fraction(members[3].share.f[:ct.Level()], 1, 2))
	r.Mul(y, y, c1)
	r.Sub(guess, guess, fraction(y, 8, 3))
	r.Add(guess, guess, fraction(c0, 4, 3))
	r.INTT(guess)

	q, three, right := big.NewInt(1), big.NewInt(3), 0
	for _, m := range r.Moduli {
		q.Mul(q, new(big.Int).SetUint64(m.Q))
	}
	third := new(big.Int).ModInverse(three, q)
	for i, w := range integers(r, guess) {
		best, found := new(big.Int), 0
		for rest := range int64(3) {
			d := new(big.Int).Mul(big.NewInt(4*rest), third)
			d.Sub(w, d).Mod(d, q)
			if d.Cmp(new(big.Int).Rsh(q, 1)) > 0 {
				d.Sub(q, d)
			}
			if rest == 0 || d.Cmp(best) < 0 {
				best, found = d, int(rest)
			}
		}
		if int64(found) == new(big.Int).Mod(noise[i], three).Int64() {
			right++
		}
	}
	// A third is luck, with a deviation of 30.
	if n := r.N; right > n/3+n/20 {
		t.Errorf("two parties know the noise modulo 3 at %d of %d coefficients", right, n)
	}
}

// integers returns the coefficients of a polynomial, the representatives around 0.
func integers(r *ring.Ring, p ring.Poly) []*big.Int {
	q := big.NewInt(1)
	for _, m := range r.Moduli {
		q.Mul(q, new(big.Int).SetUint64(m.Q))
	}
	out := make([]*big.Int, r.N)
	for n := range out {
		out[n] = new(big.Int)
		for i, m := range r.Moduli {
			own := new(big.Int).SetUint64(m.Q)
			rest := new(big.Int).Quo(q, own)
			x := new(big.Int).ModInverse(rest, own)
			x.Mul(x, rest).Mul(x, new(big.Int).SetUint64(p[i][n]))
			out[n].Add(out[n], x)
		}
		if out[n].Mod(out[n], q).Cmp(new(big.Int).Rsh(q, 1)) > 0 {
			out[n].Sub(out[n], q)
		}
	}
	return out
}
