package he

import (
	"fmt"

	"fednode/compute/he/ring"
)

// A Ciphertext is an encrypted Plaintext. Its zero value is a destination for any
// operation, which takes storage as it needs it. It is not safe for concurrent
// writing.
type Ciphertext struct {
	p      *Parameters
	level  int
	degree int // 1, or 2 after Mul
	noise  Noise
	bounds KeyBounds
	seed   *ring.Seed // of c1, in fresh ciphertexts of EncryptSecret
	part   []part     // by plaintext prime
}

// A part holds c0, c1 and room for c2: values of the ring of some level.
type part struct{ c [3]ring.Poly }

// Parameters returns what ct was encrypted under.
func (ct *Ciphertext) Parameters() *Parameters { return ct.p }

// Level returns the number of primes of ct's modulus.
func (ct *Ciphertext) Level() int { return ct.level }

// Degree is 1, or 2 for a product that was not relinearised.
func (ct *Ciphertext) Degree() int { return ct.degree }

// Noise returns the worst-case bound of ct's noise.
func (ct *Ciphertext) Noise() Noise { return ct.noise }

// Bounds returns the bounds of the secret and of the errors that ct rests on.
func (ct *Ciphertext) Bounds() KeyBounds { return ct.bounds }

// Budget returns the bits of noise that ct can still take by the worst-case bound.
func (ct *Ciphertext) Budget() float64 { return ct.p.Capacity(ct.level).Bits() - ct.noise.Bits() }

// Poly returns polynomial i ≤ Degree of a part, as values of Ring(Level): not a
// copy, not to be changed.
func (ct *Ciphertext) Poly(part, i int) ring.Poly {
	if i > ct.degree {
		return nil
	}
	return ct.part[part].c[i][:ct.level]
}

// shape makes ct a ciphertext of the given form, keeping storage that fits.
func (ct *Ciphertext) shape(p *Parameters, level, degree int) {
	if ct.p == nil || ct.p.id != p.id {
		*ct = Ciphertext{part: make([]part, len(p.plain))}
	}
	ct.p = p
	for k := range ct.part {
		for i := range degree + 1 {
			if len(ct.part[k].c[i]) < level {
				grown := p.Ring(level).NewPoly()
				for row := range ct.part[k].c[i] {
					copy(grown[row], ct.part[k].c[i][row])
				}
				ct.part[k].c[i] = grown
			}
		}
	}
	ct.level, ct.degree, ct.seed = level, degree, nil
}

// Clone returns a copy that shares nothing with ct.
func (ct *Ciphertext) Clone() *Ciphertext {
	out := new(Ciphertext)
	out.set(ct)
	return out
}

func (ct *Ciphertext) set(a *Ciphertext) {
	if ct == a {
		return
	}
	ct.shape(a.p, a.level, a.degree)
	ct.noise, ct.bounds, ct.seed = a.noise, a.bounds, a.seed
	r := a.p.Ring(a.level)
	for k := range a.part {
		for i := range a.degree + 1 {
			r.Copy(ct.part[k].c[i], a.part[k].c[i])
		}
	}
}

// usable refuses ciphertexts of other parameters and zero values.
func (p *Parameters) usable(cts ...*Ciphertext) error {
	for _, ct := range cts {
		switch {
		case ct == nil || ct.p == nil:
			return fmt.Errorf("%w: an empty ciphertext", ErrMismatch)
		case ct.p.id != p.id:
			return fmt.Errorf("%w: a ciphertext of %s, not %s", ErrMismatch, ct.p, p)
		case ct.level != cts[0].level:
			return fmt.Errorf("%w: ciphertexts of levels %d and %d; ModSwitch the higher", ErrMismatch, cts[0].level, ct.level)
		}
	}
	return nil
}

func (ct *Ciphertext) String() string {
	if ct.p == nil {
		return "empty ciphertext"
	}
	return fmt.Sprintf("ciphertext of %s, level %d, degree %d, %.1f bits of budget", ct.p, ct.level, ct.degree, ct.Budget())
}
