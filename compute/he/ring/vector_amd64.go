//go:build !purego

package ring

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

// vectorBits is the size of the largest prime that the assembly takes: values below 4q must fit 52 bits.
const vectorBits = 50

// vectorTerms bounds sums of products: 16·2^50·2^50 is 2^104.
const vectorTerms = 16

// vectorConstants are those of a modulus, in the order that the assembly reads them in.
type vectorConstants struct {
	q, twoQ, negQ, mask    uint64
	fold, foldShoup, shoup uint64 // 2^52 mod q with its quotient, ⌊2^52/q⌋
	use                    bool
}

func newVectorConstants(m *Modulus) (c vectorConstants) {
	const two52 = 1 << 52
	if m.Bits > vectorBits || !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512IFMA {
		return c
	}
	fold := uint64(two52) % m.Q
	return vectorConstants{q: m.Q, twoQ: 2 * m.Q, negQ: two52 - m.Q, mask: two52 - 1,
		fold: fold, foldShoup: m.Shoup(fold) >> 12, shoup: two52 / m.Q, use: true}
}

// vectorTables are the twiddles with quotients of 52 bits, apart: ⌊⌊w·2^64/q⌋/2^12⌋ is ⌊w·2^52/q⌋.
type vectorTables struct {
	forward, forwardShoup []uint64
	inverse, inverseShoup []uint64
	last                  [4]uint64
}

func newVectorTables(t *transform) *vectorTables {
	if !t.m.vector.use {
		return nil
	}
	v := &vectorTables{last: t.last}
	v.last[1] >>= 12
	v.last[3] >>= 12
	apart := func(pairs []uint64) (w, shoup []uint64) {
		for i := 0; i < len(pairs); i += 2 {
			w, shoup = append(w, pairs[i]), append(shoup, pairs[i+1]>>12)
		}
		return w, shoup
	}
	v.forward, v.forwardShoup = apart(t.forward)
	v.inverse, v.inverseShoup = apart(t.inverse)
	return v
}

// vectorNTT is plainNTT with the last three stages in one pass, those within a vector. Between stages values are
// below 4q.
func (t *transform) vectorNTT(a []uint64) {
	v, c := t.vector, &t.m.vector
	a = a[:t.n]
	w, ws := &v.forward[0], &v.forwardShoup[0]
	m, span := 1, t.n
	if bits.Len(uint(t.n))%2 == 1 { // an odd number of stages before the last three
		forwardOne52(&a[0], t.n/2, v.forward[1], v.forwardShoup[1], c)
		m, span = 2, t.n/2
	}
	for ; span > 8; m, span = 4*m, span/4 {
		forwardTwo52(&a[0], w, ws, m, span/4, c)
	}
	forwardLast52(&a[0], w, ws, t.n, c)
}

// vectorINTT is plainINTT with the first three stages in one pass. Between stages values are below 2q.
func (t *transform) vectorINTT(a []uint64) {
	v, c := t.vector, &t.m.vector
	a = a[:t.n]
	w, ws := &v.inverse[0], &v.inverseShoup[0]
	inverseFirst52(&a[0], w, ws, t.n, c)
	step := 8
	if bits.Len(uint(t.n))%2 == 1 {
		inverseOne52(&a[0], w, ws, t.n/16, 8, c)
		step = 16
	}
	for ; step < t.n/4; step *= 4 {
		inverseTwo52(&a[0], w, ws, t.n/(4*step), step, c)
	}
	inverseLast52(&a[0], w, ws, t.n/4, &v.last, c)
}

// vectorFits says whether the assembly takes rows of a length.
func (m *Modulus) vectorFits(length int) bool { return m.vector.use && length >= 8 && length%8 == 0 }

func (m *Modulus) vectorMul(out, a, b []uint64) bool {
	return m.vectorDot(out, [][]uint64{a}, [][]uint64{b})
}

func (m *Modulus) vectorDot(out []uint64, a, b [][]uint64) bool {
	if !m.vectorFits(len(out)) || len(a) == 0 || len(a) > vectorTerms {
		return false
	}
	b = b[:len(a)]
	for i := range a {
		_, _ = a[i][len(out)-1], b[i][len(out)-1]
	}
	dot52(&out[0], &a[0], &b[0], len(a), len(out), &m.vector)
	return true
}

func (m *Modulus) vectorCombine(out []uint64, rows [][]uint64, weights []uint64) bool {
	if !m.vectorFits(len(out)) || len(rows) == 0 || len(rows) > vectorTerms {
		return false
	}
	weights = weights[:len(rows)]
	for _, row := range rows {
		_ = row[len(out)-1]
	}
	combine52(&out[0], &rows[0], &weights[0], len(rows), len(out), &m.vector)
	return true
}

func (m *Modulus) vectorScale(out, a []uint64, s, shoup uint64) bool {
	if !m.vectorFits(len(out)) {
		return false
	}
	scale52(&out[0], &a[:len(out)][0], len(out), s, shoup>>12, &m.vector)
	return true
}

func vectorFixed(hi, lo []uint64, rows [][]uint64, fractions []uint64) bool {
	if !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512IFMA || len(hi) < 8 || len(hi)%8 != 0 || len(rows) == 0 {
		return false
	}
	lo, fractions = lo[:len(hi)], fractions[:len(rows)]
	for _, row := range rows {
		_ = row[len(hi)-1]
	}
	fixed52(&hi[0], &lo[0], &rows[0], &fractions[0], len(rows), len(hi))
	return true
}

// forwardOne52 is one stage on a whole row of 2·half values, its twiddle w.
//
//go:noescape
func forwardOne52(a *uint64, half int, w, ws uint64, c *vectorConstants)

// forwardTwo52 is two stages on m blocks of four quarters each, twiddles from m and from 2m on.
//
//go:noescape
func forwardTwo52(a, w, ws *uint64, m, quarter int, c *vectorConstants)

// forwardLast52 is the last three stages on n values, and the full reduction.
//
//go:noescape
func forwardLast52(a, w, ws *uint64, n int, c *vectorConstants)

// inverseFirst52 is the first three stages on n values.
//
//go:noescape
func inverseFirst52(a, w, ws *uint64, n int, c *vectorConstants)

// inverseOne52 is one stage on m blocks of two halves, twiddles from m on.
//
//go:noescape
func inverseOne52(a, w, ws *uint64, m, half int, c *vectorConstants)

// inverseTwo52 is two stages on m blocks of four quarters, twiddles from 2m and then from m on.
//
//go:noescape
func inverseTwo52(a, w, ws *uint64, m, quarter int, c *vectorConstants)

// inverseLast52 is the last two stages on four quarters, the division by n and the full reduction.
//
//go:noescape
func inverseLast52(a, w, ws *uint64, quarter int, last *[4]uint64, c *vectorConstants)

// dot52 sets out to Σ a[i]·b[i], word by word.
//
//go:noescape
func dot52(out *uint64, a, b *[]uint64, terms, words int, c *vectorConstants)

// combine52 sets out to Σ rows[i]·weights[i].
//
//go:noescape
func combine52(out *uint64, rows *[]uint64, weights *uint64, terms, words int, c *vectorConstants)

// scale52 sets out to a·w, ws the quotient of w.
//
//go:noescape
func scale52(out, a *uint64, words int, w, ws uint64, c *vectorConstants)

// fixed52 sets hi·2^64 + lo to 2^63 + Σ rows[i]·fractions[i].
//
//go:noescape
func fixed52(hi, lo *uint64, rows *[]uint64, fractions *uint64, terms, words int)
