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
//	Σ y_i·matrix[j][i] + v·matrix[j][n] + x_j·matrix[j][n+1]   mod target_j
//
// with v = round(Σ y_i·fraction_i): fraction_i is 1/m_i for extend and the
// fractional part of A/m_i for scale. Fractions are 64-bit fixed point, truncated,
// so v errs before its rounding by at most Σ y_i·2^-64 < n·2^-14. It is below Σ y_i,
// and the primes are small enough that this is below 2^52.
type conversion struct {
	from, to *ring.Ring
	pre      []uint64   // (M/m_i)^-1 mod m_i
	fraction []uint64   // 2^64 times a number in [0, 1)
	matrix   [][]uint64 // by target: the weights of y_i, of v and, if the target is part of the source, of x_j
	own      bool       // it is
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
		c.pre = append(c.pre, m.Inv(remainder(quotient, m.Q)))
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
		c.matrix[j] = append(c.matrix[j], t.Neg(remainder(whole, t.Q)))
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
	c.own = own
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
		c.matrix[j] = append(c.matrix[j], 1)
		if own {
			// y_j·A/m_j = x_j·(M/m_j)^-1·(A/m_j) mod m_j.
			y := t.Inv(remainder(new(big.Int).Div(whole, word(t.Q)), t.Q))
			c.matrix[j] = append(c.matrix[j], t.Mul(y, remainder(new(big.Int).Div(a, word(t.Q)), t.Q)))
		}
	}
	return c
}

// block is the number of coefficients converted at once: y stays in the first cache.
const block = 256

// A strip is the intermediate of one block: y by source prime, and v·2^64 + rest.
type strip struct {
	y       [maxSource][block]uint64
	v, rest [block]uint64
	rows    [maxSource + 2][]uint64
}

// maxSource is the largest number of source primes, that of the largest set.
const maxSource = 8

// run converts coefficients from to from+block of in. Where own is set, same
// holds the rows of the target basis in the source.
func (c *conversion) run(s *strip, out, in, same ring.Poly, at int) {
	n := c.prepare(s, in, at)
	s.rows[n] = s.v[:]
	for j, m := range c.to.Moduli {
		terms := n + 1
		if c.own {
			s.rows[terms] = same[j][at : at+block]
			terms++
		}
		m.CombineRow(out[j][at:at+block], s.rows[:terms], c.matrix[j])
	}
}

// prepare computes y, v and the rest of its rounding, and returns the number of
// source primes.
func (c *conversion) prepare(s *strip, in ring.Poly, at int) int {
	n := len(c.from.Moduli)
	for i, m := range c.from.Moduli {
		s.rows[i] = s.y[i][:]
		m.ScaleRow(s.rows[i], in[i][at:at+block], c.pre[i])
	}
	ring.FixedDot(s.v[:], s.rest[:], s.rows[:n], c.fraction)
	return n
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
