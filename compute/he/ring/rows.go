package ring

import "math/bits"

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

// ScaleRow sets out = s·a for one residue s and any words a.
func (m *Modulus) ScaleRow(out, a []uint64, s uint64) {
	a = a[:len(out)]
	shoup := m.Shoup(s)
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
	const block = 256 // 2 KiB of each operand: the sums stay in the first cache
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
