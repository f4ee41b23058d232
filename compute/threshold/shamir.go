package threshold

import "fednode/compute/he/ring"

// Shamir sharing over R_QP at small integers, whose differences are below every
// prime and so units (TMHE, section 3.2). Everything here is linear in the residues:
// a polynomial over R_QP is one over the integers modulo each prime for each value.

// uniformPoly returns a uniform polynomial that nobody knows.
func uniformPoly(r *ring.Ring) ring.Poly {
	p := r.NewPoly()
	// Uniform takes time that tells how many words were rejected, which are
	// independent of those that were not.
	r.Uniform(p, ring.NewSeed(), "threshold/secret")
	return p
}

// sharingPolynomial returns the coefficients of a polynomial with value secret at 0,
// the others uniform. It takes secret over.
func sharingPolynomial(r *ring.Ring, secret ring.Poly, threshold int) []ring.Poly {
	out := []ring.Poly{secret}
	for len(out) < threshold {
		out = append(out, uniformPoly(r))
	}
	return out
}

// evaluate returns Σ c_k·x^k.
func evaluate(r *ring.Ring, c []ring.Poly, x uint64) ring.Poly {
	out := c[len(c)-1].Clone()
	for k := len(c) - 2; k >= 0; k-- {
		for i, m := range r.Moduli {
			m.ScaleRow(out[i], out[i], m.ReduceWord(x))
			m.AddRow(out[i], out[i], c[k][i])
		}
	}
	return out
}

// lagrange returns, for the point at place j of points, the residues of
// Π_{k≠j} x_k/(x_k - x_j): the weight of its share in the value at 0.
func lagrange(r *ring.Ring, points []uint64, j int) []uint64 {
	out := make([]uint64, len(r.Moduli))
	for i, m := range r.Moduli {
		numerator, denominator := uint64(1), uint64(1)
		for k, x := range points {
			if k != j {
				numerator = m.Mul(numerator, m.ReduceWord(x))
				denominator = m.Mul(denominator, m.Sub(m.ReduceWord(x), m.ReduceWord(points[j])))
			}
		}
		out[i] = m.Mul(numerator, m.Inv(denominator))
	}
	return out
}

// weighted returns λ_j·share, an additive share of the secret among points.
func weighted(r *ring.Ring, share ring.Poly, points []uint64, j int) ring.Poly {
	out := r.NewPoly()
	r.MulScalar(out, share, lagrange(r, points, j))
	return out
}

func wipe(polys ...ring.Poly) {
	for _, p := range polys {
		p.Wipe()
	}
}
