package he

import (
	"fmt"
	"slices"

	"fednode/compute/he/ring"
)

// This file is for protocols that make keys and ciphertexts jointly: it turns
// polynomials that such a protocol ends with to objects of this package.

// PolySize returns the bytes that AppendPoly adds for a polynomial of r.
func PolySize(r *ring.Ring) int { return polySize(r) }

// AppendPoly appends the rows of p that r has primes for, packed as in files.
func AppendPoly(b []byte, r *ring.Ring, p ring.Poly) []byte {
	w := writer{slices.Grow(b, polySize(r))}
	w.poly(r, p)
	return w.b
}

// TakePoly reads what AppendPoly wrote and returns the bytes after it. It returns
// ErrMalformed for too few bytes or residues that are not below their prime.
func TakePoly(b []byte, r *ring.Ring) (ring.Poly, []byte, error) {
	in := reader{b: b}
	p := in.poly(r)
	if in.err != nil {
		return nil, nil, in.err
	}
	return p, in.b, nil
}

// Magnitude returns the largest absolute value of coefficients x mod Q, taken in
// [-Q/2, Q/2), in time that does not depend on them.
func Magnitude(r *ring.Ring, x ring.Poly) Noise { return magnitude(r, x) }

// CiphertextOf returns the ciphertext with polynomials c0, c1 and perhaps c2 for each
// plaintext prime, values of Ring(level), which it takes over. The noise bound and
// the bounds of the key are the caller's word. It returns ErrNoise if a ciphertext
// of that noise might not decrypt.
func CiphertextOf(p *Parameters, level int, parts [][]ring.Poly, noise Noise, bounds KeyBounds) (*Ciphertext, error) {
	if err := bounds.check(); err != nil {
		return nil, err
	}
	if level < 1 || level > p.MaxLevel() || len(parts) != p.Parts() {
		return nil, fmt.Errorf("%w: %d parts at level %d are no ciphertext of %s", ErrMismatch, len(parts), level, p)
	}
	if !(noise >= 1) {
		return nil, fmt.Errorf("%w: a noise bound of %g", ErrRange, float64(noise))
	}
	if err := p.room("a ciphertext", noise, level); err != nil {
		return nil, err
	}
	degree := len(parts[0]) - 1
	ct := &Ciphertext{p: p, level: level, degree: degree, noise: noise, bounds: bounds, part: make([]part, len(parts))}
	for k, c := range parts {
		if degree < 1 || degree > 2 || len(c) != degree+1 {
			return nil, fmt.Errorf("%w: %d polynomials in part %d of a ciphertext", ErrMismatch, len(c), k)
		}
		for i := range c {
			if err := checkPoly(p.Ring(level), c[i]); err != nil {
				return nil, err
			}
			ct.part[k].c[i] = c[i]
		}
	}
	return ct, nil
}

// Equal reports whether two plaintexts are the same, in time that depends on their
// shapes alone.
func (pt *Plaintext) Equal(o *Plaintext) bool {
	if pt.p.id != o.p.id {
		return false
	}
	var diff uint64
	for k, row := range pt.part {
		for i, x := range row {
			diff |= x ^ o.part[k][i]
		}
	}
	return diff == 0
}
