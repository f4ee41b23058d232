package he

import (
	"math/bits"
	"testing"
)

// TestConversionsFitTheAssembly: its operands have 52 bits. y has those of its prime, v those of the sum of all y.
func TestConversionsFitTheAssembly(t *testing.T) {
	for _, set := range Sets() {
		for _, plain := range [][]uint64{{17}, {T16}, WidePrimes(3)} {
			p, err := New(set, plain...)
			if err != nil {
				t.Fatal(err)
			}
			for level, tables := range p.level {
				all := append([]*conversion{tables.toAux, tables.scaleAux, tables.fromAux}, append(tables.product, tables.decrypt...)...)
				for i, c := range all {
					v, rest := uint64(0), uint64(1)<<63
					for k, m := range c.from.Moduli {
						hi, lo := bits.Mul64(m.Q-1, c.fraction[k])
						var carry uint64
						rest, carry = bits.Add64(rest, lo, 0)
						v += hi + carry
					}
					if v >= 1<<52 {
						t.Errorf("%s, level %d, conversion %d: v up to %.3f·2^52", p, level+1, i, float64(v)/(1<<52))
					}
				}
			}
		}
	}
}
