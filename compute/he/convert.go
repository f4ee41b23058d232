package he

import (
	"math/big"
	"math/bits"

	"fednode/compute/he/ring"
)

// A conversion maps residues of x in a source basis m_1 … m_n (product M) to
// residues in a target basis, in one of two ways (Halevi–Polyakov–Shoup,
// sections 2.2 and 2.3):
//
//	extend: x itself, as the representative of x mod M with |x| ≤ M·(1/2+2^-10)
//	scale:  round(x·A/M) for a constant A that the target moduli divide
//
// With y_i = x_i·(M/m_i)^-1 mod m_i, x = Σ y_i·M/m_i - v·M, so that either is
//
//	Σ y_i·matrix[i][j] + v·correction[j] + x_j·own[j]   mod target_j
//
// with v = round(Σ y_i·fraction_i): fraction_i is 1/m_i for extend and the
// fractional part of A/m_i for scale. Fractions are 64-bit fixed point, truncated,
// so v errs before its rounding by at most Σ y_i·2^-64 < n·2^-14.
type conversion struct {
	from, to   *ring.Ring
	pre        []uint64   // (M/m_i)^-1 mod m_i
	preShoup   []uint64   //
	fraction   []uint64   // 2^64 times a number in [0, 1)
	matrix     [][]uint64 // by target, then source
	correction []uint64   // by target
	own        []uint64   // by target; nil if the target is not part of the source
}

func product(r *ring.Ring) *big.Int {
	out := big.NewInt(1)
	for _, m := range r.Moduli {
		out.Mul(out, word(m.Q))
	}
	return out
}

func word(x uint64) *big.Int { return new(big.Int).SetUint64(x) }

// remainder returns x mod q for a public x.
func remainder(x *big.Int, q uint64) uint64 { return new(big.Int).Mod(x, word(q)).Uint64() }

func newConversion(from, to *ring.Ring, whole *big.Int) *conversion {
	c := &conversion{from: from, to: to}
	for _, m := range from.Moduli {
		quotient := new(big.Int).Div(whole, word(m.Q))
		pre := m.Inv(remainder(quotient, m.Q))
		c.pre, c.preShoup = append(c.pre, pre), append(c.preShoup, m.Shoup(pre))
	}
	c.matrix = make([][]uint64, len(to.Moduli))
	return c
}

// newExtend returns the conversion of x mod M to another basis.
func newExtend(from, to *ring.Ring) *conversion {
	whole := product(from)
	c := newConversion(from, to, whole)
	for _, m := range from.Moduli {
		fraction, _ := bits.Div64(1, 0, m.Q)
		c.fraction = append(c.fraction, fraction)
	}
	for j, t := range to.Moduli {
		for _, m := range from.Moduli {
			c.matrix[j] = append(c.matrix[j], remainder(new(big.Int).Div(whole, word(m.Q)), t.Q))
		}
		c.correction = append(c.correction, t.Neg(remainder(whole, t.Q)))
	}
	return c
}

// newScale returns the conversion of x mod M to round(x·A/M). If own, the source
// is the basis given here and the target together, and x_j counts for target j.
func newScale(from, to *ring.Ring, a *big.Int, own bool) *conversion {
	whole := product(from)
	if own {
		whole.Mul(whole, product(to))
	}
	c := newConversion(from, to, whole)
	floors := make([]*big.Int, len(from.Moduli))
	for i, m := range from.Moduli {
		rest := new(big.Int)
		floors[i], rest = new(big.Int).DivMod(a, word(m.Q), rest)
		fraction, _ := bits.Div64(rest.Uint64(), 0, m.Q)
		c.fraction = append(c.fraction, fraction)
	}
	for j, t := range to.Moduli {
		for i := range from.Moduli {
			c.matrix[j] = append(c.matrix[j], remainder(floors[i], t.Q))
		}
		c.correction = append(c.correction, 1)
		if own {
			// y_j·A/m_j = x_j·(M/m_j)^-1·(A/m_j) mod m_j.
			y := t.Inv(remainder(new(big.Int).Div(whole, word(t.Q)), t.Q))
			c.own = append(c.own, t.Mul(y, remainder(new(big.Int).Div(a, word(t.Q)), t.Q)))
		}
	}
	return c
}

// block is the number of coefficients converted at once: y stays in the first cache.
const block = 256

// A strip is the intermediate of one block: y by source prime, v, and sums.
type strip struct {
	y      [16][block]uint64
	v      [block]uint64
	hi, lo [block]uint64
}

// run converts coefficients from to from+block of in. Where own is set, same
// holds the rows of the target basis in the source.
func (c *conversion) run(s *strip, out, in, same ring.Poly, at int) {
	c.prepare(s, in, at)
	for j, m := range c.to.Moduli {
		dst := out[j][at : at+block]
		c.sum(s, j)
		w := c.correction[j]
		if c.own == nil {
			for k := range dst {
				h, l := bits.Mul64(s.v[k&(block-1)], w)
				l, carry := bits.Add64(l, s.lo[k&(block-1)], 0)
				dst[k] = m.Reduce(h+s.hi[k&(block-1)]+carry, l)
			}
			continue
		}
		x, o := same[j][at:at+block], c.own[j]
		for k := range dst {
			h, l := bits.Mul64(x[k&(block-1)], o)
			l, carry := bits.Add64(l, s.lo[k&(block-1)], 0)
			h += s.hi[k&(block-1)] + carry
			l, carry = bits.Add64(l, s.v[k&(block-1)], 0)
			dst[k] = m.Reduce(h+carry, l)
		}
	}
}

// prepare computes y and v; lo and hi hold the fixed-point sum besides.
func (c *conversion) prepare(s *strip, in ring.Poly, at int) {
	clear(s.hi[:])
	for k := range s.lo {
		s.lo[k] = 1 << 63 // one half
	}
	for i, m := range c.from.Moduli {
		x, y := in[i][at:at+block], &s.y[i]
		p, ps, f := c.pre[i], c.preShoup[i], c.fraction[i]
		for k := range y {
			z := m.MulShoup(x[k], p, ps)
			y[k] = z
			h, l := bits.Mul64(z, f)
			var carry uint64
			s.lo[k], carry = bits.Add64(s.lo[k], l, 0)
			s.hi[k] += h + carry
		}
	}
	s.v = s.hi
}

// sum sets hi, lo to Σ y_i·matrix[j][i], below n·2^100.
func (c *conversion) sum(s *strip, j int) {
	clear(s.hi[:])
	clear(s.lo[:])
	w := c.matrix[j]
	i := 0
	for ; i+4 <= len(w); i += 4 {
		sumFour(s, i, w[i], w[i+1], w[i+2], w[i+3])
	}
	for ; i < len(w); i++ {
		y, x := &s.y[i], w[i]
		for k := range y {
			h, l := bits.Mul64(y[k], x)
			var carry uint64
			s.lo[k], carry = bits.Add64(s.lo[k], l, 0)
			s.hi[k] += h + carry
		}
	}
}

func sumFour(s *strip, i int, w0, w1, w2, w3 uint64) {
	y0, y1, y2, y3 := &s.y[i], &s.y[i+1], &s.y[i+2], &s.y[i+3]
	for k := range y0 {
		h0, l0 := bits.Mul64(y0[k], w0)
		h1, l1 := bits.Mul64(y1[k], w1)
		l0, carry := bits.Add64(l0, l1, 0)
		h0 += h1 + carry
		h1, l1 = bits.Mul64(y2[k], w2)
		l0, carry = bits.Add64(l0, l1, 0)
		h0 += h1 + carry
		h1, l1 = bits.Mul64(y3[k], w3)
		l0, carry = bits.Add64(l0, l1, 0)
		h0 += h1 + carry
		s.lo[k], carry = bits.Add64(s.lo[k], l0, 0)
		s.hi[k] += h0 + carry
	}
}

// levelTables are the conversions of one level: Q its modulus, B the product of
// as many auxiliary primes.
type levelTables struct {
	q, aux, both *ring.Ring
	toAux        *conversion   // x mod Q to B
	scaleAux     *conversion   // round(x·B/Q) mod B
	fromAux      *conversion   // x mod B to Q
	product      []*conversion // round(x·t/B) mod Q of x mod Q·B, by plaintext prime
	decrypt      []*conversion // round(x·t/Q) of x mod Q, by plaintext prime
	dropInv      []uint64      // q_last^-1 mod q_j
	dropHalf     []uint64      // ⌊q_last/2⌋ mod q_j
}

func newLevelTables(p *Parameters, level int) *levelTables {
	q, aux := p.q.Limbs(0, level), p.aux.Limbs(0, level)
	l := &levelTables{q: q, aux: aux, both: q.Join(aux)}
	l.toAux, l.fromAux = newExtend(q, aux), newExtend(aux, q)
	l.scaleAux = newScale(q, aux, product(aux), false)
	for _, t := range p.plain {
		// round(x·t/B) = round(x·(t·Q)/(Q·B)): A = t·Q, which the q_j divide.
		a := product(q)
		l.product = append(l.product, newScale(aux, q, a.Mul(a, word(t.m.Q)), true))
		l.decrypt = append(l.decrypt, newScale(q, &ring.Ring{N: p.N()}, word(t.m.Q), false))
	}
	last := q.Moduli[level-1].Q
	for _, m := range q.Moduli[:level-1] {
		l.dropInv = append(l.dropInv, m.Inv(m.ReduceWord(last)))
		l.dropHalf = append(l.dropHalf, m.ReduceWord(last/2))
	}
	return l
}
