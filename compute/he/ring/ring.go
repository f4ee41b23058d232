package ring

import (
	"fmt"
	"math/bits"
	"slices"
)

// The degrees a Ring may have.
const (
	MinDegree = 1024
	MaxDegree = 32768
)

// A Ring is Z_Q[X]/(X^N+1) with Q the product of distinct primes, each 1 mod 2N.
// It is immutable and safe for concurrent use.
type Ring struct {
	N      int
	Moduli []*Modulus // one for each row of a Poly
	limbs  []*transform
}

// A Poly holds one row of N residues for each prime of its ring, as coefficients
// or, after Ring.NTT, as values: a(ψ^(2·brv(i)+1)) at index i, brv reversing the
// log2(N) bits of i. Which of the two it is, its owner knows. Functions of a Ring
// read and write as many rows as the ring has primes; a Poly may have more.
type Poly [][]uint64

// New returns the ring of degree n, a power of two from MinDegree to MaxDegree,
// over distinct primes of at most MaxBits bits that are 1 mod 2n.
func New(n int, primes []uint64) (*Ring, error) {
	if n < MinDegree || n > MaxDegree || n&(n-1) != 0 {
		return nil, fmt.Errorf("ring degree %d is not a power of two from %d to %d", n, MinDegree, MaxDegree)
	}
	r := &Ring{N: n}
	for i, q := range primes {
		if slices.Contains(primes[:i], q) {
			return nil, fmt.Errorf("prime %d stands twice in the basis", q)
		}
		m, err := NewModulus(q)
		if err != nil {
			return nil, err
		}
		t, err := newTransform(m, n)
		if err != nil {
			return nil, err
		}
		r.Moduli, r.limbs = append(r.Moduli, m), append(r.limbs, t)
	}
	return r, nil
}

// Limbs returns the ring over primes from to to-1 of r. Tables are shared.
func (r *Ring) Limbs(from, to int) *Ring {
	return &Ring{N: r.N, Moduli: r.Moduli[from:to:to], limbs: r.limbs[from:to:to]}
}

// Join returns the ring over the primes of r and then those of o, which must be
// of the same degree. Tables are shared.
func (r *Ring) Join(o *Ring) *Ring {
	if r.N != o.N {
		panic("ring: joined rings differ in degree")
	}
	return &Ring{N: r.N, Moduli: slices.Concat(r.Moduli, o.Moduli), limbs: slices.Concat(r.limbs, o.limbs)}
}

// Primes returns the primes of r in order.
func (r *Ring) Primes() []uint64 {
	out := make([]uint64, len(r.Moduli))
	for i, m := range r.Moduli {
		out[i] = m.Q
	}
	return out
}

// NewPoly returns zero, its rows adjacent in memory.
func (r *Ring) NewPoly() Poly { return NewPoly(len(r.Moduli), r.N) }

// NewPoly returns rows × n zeros, adjacent in memory.
func NewPoly(rows, n int) Poly {
	p, words := make(Poly, rows), make([]uint64, rows*n)
	for i := range p {
		p[i] = words[i*n : (i+1)*n : (i+1)*n]
	}
	return p
}

// Wipe overwrites every row of p with zeros.
func (p Poly) Wipe() {
	for _, row := range p {
		clear(row)
	}
}

// Clone returns a copy of all rows of p.
func (p Poly) Clone() Poly {
	out := make(Poly, len(p))
	for i := range p {
		out[i] = slices.Clone(p[i])
	}
	return out
}

// Copy copies the rows of r's primes from a to out.
func (r *Ring) Copy(out, a Poly) {
	for i := range r.Moduli {
		copy(out[i], a[i])
	}
}

// Equal reports whether a and b are the same, in time that depends on shapes alone.
func (r *Ring) Equal(a, b Poly) bool {
	var diff uint64
	for i := range r.Moduli {
		x, y := a[i], b[i][:len(a[i])]
		for j := range x {
			diff |= x[j] ^ y[j]
		}
	}
	return diff == 0
}

// NTT turns coefficients, each below 4q, into values.
func (r *Ring) NTT(p Poly) {
	for i, t := range r.limbs {
		t.ntt(p[i])
	}
}

// INTT turns values into coefficients.
func (r *Ring) INTT(p Poly) {
	for i, t := range r.limbs {
		t.intt(p[i])
	}
}

// NTTRow is NTT on the row of prime i.
func (r *Ring) NTTRow(i int, row []uint64) { r.limbs[i].ntt(row) }

// INTTRow is INTT on the row of prime i.
func (r *Ring) INTTRow(i int, row []uint64) { r.limbs[i].intt(row) }

// Add sets out = a+b. Operands of this and the following functions may be the
// same Poly unless the doc forbids it.
func (r *Ring) Add(out, a, b Poly) {
	for i, m := range r.Moduli {
		m.AddRow(out[i], a[i], b[i])
	}
}

// Sub sets out = a-b.
func (r *Ring) Sub(out, a, b Poly) {
	for i, m := range r.Moduli {
		m.SubRow(out[i], a[i], b[i])
	}
}

// Neg sets out = -a.
func (r *Ring) Neg(out, a Poly) {
	for i, m := range r.Moduli {
		o, x := out[i], a[i][:len(out[i])]
		for j := range o {
			o[j] = m.Neg(x[j])
		}
	}
}

// Mul sets out = a·b for values (point by point).
func (r *Ring) Mul(out, a, b Poly) {
	for i, m := range r.Moduli {
		m.MulRow(out[i], a[i], b[i])
	}
}

// MulAdd sets out = out + a·b for values.
func (r *Ring) MulAdd(out, a, b Poly) {
	for i, m := range r.Moduli {
		m.MulAddRow(out[i], a[i], b[i])
	}
}

// MulScalar sets out = s·a, with one residue of s for each prime.
func (r *Ring) MulScalar(out, a Poly, s []uint64) {
	for i, m := range r.Moduli {
		m.ScaleRow(out[i], a[i], s[i])
	}
}

// Scalar returns the residues of a signed word, as MulScalar takes them.
func (r *Ring) Scalar(x int64) []uint64 {
	out := make([]uint64, len(r.Moduli))
	for i, m := range r.Moduli {
		out[i] = m.ReduceSigned(x)
	}
	return out
}

// SetSigned sets the coefficients of out to those of a small polynomial, each
// below 2^30 in absolute value and below every prime.
func (r *Ring) SetSigned(out Poly, small []int32) {
	for i, m := range r.Moduli {
		row := out[i][:len(small)]
		for j, x := range small {
			row[j] = uint64(int64(x)) + m.Q&uint64(int64(x)>>63)
		}
	}
}

// Automorphism sets out = a(X^g) for coefficients and odd g; out is not a.
func (r *Ring) Automorphism(out, a Poly, g uint64) {
	n := uint64(r.N)
	for i, m := range r.Moduli {
		at := uint64(0)
		for _, x := range a[i] {
			// X^at is X^(at mod N) times (-1)^(at div N).
			out[i][at&(n-1)] = m.negateIf(x, -(at / n & 1))
			at = (at + g) & (2*n - 1)
		}
	}
}

// Permutation returns what Permute takes to map the values of a to those of
// a(X^g), g odd: value i of the result is value index[i] of a.
func (r *Ring) Permutation(g uint64) []uint32 {
	n := uint64(r.N)
	shift := 64 - bits.Len(uint(n-1))
	index := make([]uint32, n)
	for i := range index {
		e := (2*(bits.Reverse64(uint64(i))>>shift) + 1) * g & (2*n - 1)
		index[i] = uint32(bits.Reverse64((e-1)/2) >> shift)
	}
	return index
}

// Permute sets out[i] = a[index[i]] in every row; out is not a.
func (r *Ring) Permute(out, a Poly, index []uint32) {
	for i := range r.Moduli {
		PermuteRow(out[i], a[i], index)
	}
}

// PermuteRow sets out[i] = a[index[i]].
func PermuteRow(out, a []uint64, index []uint32) {
	out = out[:len(index)]
	for j, k := range index {
		out[j] = a[k]
	}
}
