package ring

import "math/bits"

// block is how many sums are kept at once: 2 KiB of each operand stay in the first
// cache.
const block = 256

// AddRow sets out = a+b, residue by residue.
func (m *Modulus) AddRow(out, a, b []uint64) {
	a, b = a[:len(out)], b[:len(out)]
	for j := range out {
		out[j] = subtractIf(a[j]+b[j], m.Q)
	}
}

// SubRow sets out = a-b, residue by residue.
func (m *Modulus) SubRow(out, a, b []uint64) {
	a, b = a[:len(out)], b[:len(out)]
	for j := range out {
		d := a[j] - b[j]
		out[j] = d + m.Q&uint64(int64(d)>>63)
	}
}

// MulRow sets out = a·b, residue by residue.
func (m *Modulus) MulRow(out, a, b []uint64) {
	a, b = a[:len(out)], b[:len(out)]
	if m.vectorMul(out, a, b) {
		return
	}
	for j := range out {
		hi, lo := bits.Mul64(a[j], b[j])
		out[j] = m.Reduce(hi, lo)
	}
}

// MulAddRow sets out = out + a·b, residue by residue.
func (m *Modulus) MulAddRow(out, a, b []uint64) {
	a, b = a[:len(out)], b[:len(out)]
	for j := range out {
		hi, lo := bits.Mul64(a[j], b[j])
		lo, carry := bits.Add64(lo, out[j], 0)
		out[j] = m.Reduce(hi+carry, lo)
	}
}

// ScaleRow sets out = s·a for a residue s and words a below 4q.
func (m *Modulus) ScaleRow(out, a []uint64, s uint64) {
	a = a[:len(out)]
	shoup := m.Shoup(s)
	if m.vectorScale(out, a, s, shoup) {
		return
	}
	for j := range out {
		out[j] = subtractIf(mulLazy(a[j], s, shoup, m.Q), m.Q)
	}
}

// DotRow sets out = Σ a[i]·b[i], residue by residue, for at most 2^(60-Bits)
// terms; it is one reduction for all of them. out is none of the operands.
func (m *Modulus) DotRow(out []uint64, a, b [][]uint64) {
	if m.vectorDot(out, a, b) {
		return
	}
	m.plainDot(out, a, b)
}

func (m *Modulus) plainDot(out []uint64, a, b [][]uint64) {
	var hi, lo [block]uint64
	for from := 0; from < len(out); from += block {
		n := min(block, len(out)-from)
		hi, lo = [block]uint64{}, [block]uint64{}
		for i := range a {
			x, y := a[i][from:from+n], b[i][from:from+n]
			y = y[:len(x)]
			for j := range x {
				h, l := bits.Mul64(x[j], y[j])
				var carry uint64
				lo[j&(block-1)], carry = bits.Add64(lo[j&(block-1)], l, 0)
				hi[j&(block-1)] += h + carry
			}
		}
		for j := range n {
			out[from+j] = m.Reduce(hi[j], lo[j])
		}
	}
}

// CombineRow sets out = Σ rows[i]·weights[i] for residues weights and words below
// 2^52, at most 2^8 of them, of a sum below 2^104; it is one reduction for all. out is
// none of the rows.
func (m *Modulus) CombineRow(out []uint64, rows [][]uint64, weights []uint64) {
	if m.vectorCombine(out, rows, weights) {
		return
	}
	m.plainCombine(out, rows, weights)
}

func (m *Modulus) plainCombine(out []uint64, rows [][]uint64, weights []uint64) {
	var hi, lo [block]uint64
	for from := 0; from < len(out); from += block {
		n := min(block, len(out)-from)
		hi, lo = [block]uint64{}, [block]uint64{}
		i := 0
		for ; i+4 <= len(rows); i += 4 {
			w := (*[4]uint64)(weights[i:])
			addFour(hi[:n], lo[:n], rows[i][from:], rows[i+1][from:], rows[i+2][from:], rows[i+3][from:], w)
		}
		for ; i < len(rows); i++ {
			addTo(hi[:n], lo[:n], rows[i][from:], weights[i])
		}
		for j := range n {
			out[from+j] = m.Reduce(hi[j], lo[j])
		}
	}
}

// addTo adds x·w to hi·2^64 + lo.
func addTo(hi, lo, x []uint64, w uint64) {
	lo, x = lo[:len(hi)], x[:len(hi)]
	for j := range hi {
		h, l := bits.Mul64(x[j], w)
		var carry uint64
		lo[j], carry = bits.Add64(lo[j], l, 0)
		hi[j] += h + carry
	}
}

func addFour(hi, lo, x0, x1, x2, x3 []uint64, w *[4]uint64) {
	lo, x0, x1, x2, x3 = lo[:len(hi)], x0[:len(hi)], x1[:len(hi)], x2[:len(hi)], x3[:len(hi)]
	for j := range hi {
		h0, l0 := bits.Mul64(x0[j], w[0])
		h1, l1 := bits.Mul64(x1[j], w[1])
		l0, carry := bits.Add64(l0, l1, 0)
		h0 += h1 + carry
		h1, l1 = bits.Mul64(x2[j], w[2])
		l0, carry = bits.Add64(l0, l1, 0)
		h0 += h1 + carry
		h1, l1 = bits.Mul64(x3[j], w[3])
		l0, carry = bits.Add64(l0, l1, 0)
		h0 += h1 + carry
		lo[j], carry = bits.Add64(lo[j], l0, 0)
		hi[j] += h0 + carry
	}
}

// FixedDot sets hi·2^64 + lo to 2^63 + Σ rows[i]·fractions[i], word by word: with
// fractions in units of 2^-64, hi is the sum rounded to an integer, and lo/2^64 is
// the fraction that is left, plus one half. Words of rows are below 2^50.
func FixedDot(hi, lo []uint64, rows [][]uint64, fractions []uint64) {
	if vectorFixed(hi, lo, rows, fractions) {
		return
	}
	plainFixed(hi, lo, rows, fractions)
}

func plainFixed(hi, lo []uint64, rows [][]uint64, fractions []uint64) {
	lo = lo[:len(hi)]
	clear(hi)
	for j := range lo {
		lo[j] = 1 << 63
	}
	for i, x := range rows {
		addTo(hi, lo, x, fractions[i])
	}
}
