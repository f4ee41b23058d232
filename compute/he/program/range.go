package program

import (
	"fmt"
	"math/big"

	"fednode/compute/he"
)

// A Range is the integers from Min to Max. Ranges are public: they come from declared bounds, never from data.
type Range struct{ min, max *big.Int }

// ParseRange reads MIN..MAX.
func ParseRange(lo, hi string) (Range, error) {
	r := Range{new(big.Int), new(big.Int)}
	for _, x := range []struct {
		text string
		to   *big.Int
	}{{lo, r.min}, {hi, r.max}} {
		if len(x.text) > 40 {
			return Range{}, fmt.Errorf("%.40s… has more digits than any plaintext holds", x.text)
		}
		if _, ok := x.to.SetString(x.text, 10); !ok {
			return Range{}, fmt.Errorf("%q is not an integer", x.text)
		}
	}
	if r.min.Cmp(r.max) > 0 {
		return Range{}, fmt.Errorf("%s..%s is empty: the smaller bound comes first", r.min, r.max)
	}
	return r, nil
}

func (r Range) String() string { return r.min.String() + ".." + r.max.String() }

// Bounds returns the ends of r in decimal.
func (r Range) Bounds() (min, max string) { return r.min.String(), r.max.String() }

// span returns the range of the given numbers.
func span(x ...*big.Int) Range {
	r := Range{x[0], x[0]}
	for _, v := range x[1:] {
		if v.Cmp(r.min) < 0 {
			r.min = v
		}
		if v.Cmp(r.max) > 0 {
			r.max = v
		}
	}
	return r
}

func point(x int64) Range { v := big.NewInt(x); return Range{v, v} }

func (r Range) add(o Range) Range {
	return Range{new(big.Int).Add(r.min, o.min), new(big.Int).Add(r.max, o.max)}
}

func (r Range) neg() Range { return Range{new(big.Int).Neg(r.max), new(big.Int).Neg(r.min)} }

func (r Range) mul(o Range) Range {
	p := func(a, b *big.Int) *big.Int { return new(big.Int).Mul(a, b) }
	return span(p(r.min, o.min), p(r.min, o.max), p(r.max, o.min), p(r.max, o.max))
}

// square is the range of x·x, which is not that of x·y for x, y in r: it has no negative numbers.
func (r Range) square() Range {
	s := r.mul(r)
	if s.min.Sign() < 0 {
		s.min = new(big.Int)
	}
	return s
}

// total is the range of sums of up to rows numbers.
func (r Range) total(rows int) Range {
	n := big.NewInt(int64(rows))
	return span(r.min, r.max, new(big.Int).Mul(r.min, n), new(big.Int).Mul(r.max, n))
}

func (r Range) join(o Range) Range { return span(r.min, r.max, o.min, o.max) }

// magnitude returns the largest absolute value.
func (r Range) magnitude() *big.Int {
	a, b := new(big.Int).Abs(r.min), new(big.Int).Abs(r.max)
	if a.Cmp(b) > 0 {
		return a
	}
	return b
}

// float returns the largest absolute value, rounded up a little.
func (r Range) float() float64 {
	f, _ := new(big.Float).SetInt(r.magnitude()).Float64()
	return f * (1 + 1.0/(1<<40))
}

// bits returns the bits of the plaintext modulus that r needs: values in [-T/2, T/2].
func (r Range) bits() int { return r.magnitude().BitLen() + 1 }

// fits says whether plaintexts of p hold r.
func (r Range) fits(p *he.Parameters) bool { return r.magnitude().Cmp(fromInt(p.Range())) <= 0 }

func fromInt(x he.Int) *big.Int {
	v := new(big.Int).Lsh(big.NewInt(x.Hi), 64)
	return v.Add(v, new(big.Int).SetUint64(x.Lo))
}

// toInt returns a number of at most 127 bits.
func toInt(x *big.Int) he.Int {
	lo := new(big.Int).And(x, new(big.Int).SetUint64(1<<64-1)) // two's complement, also for negative x
	return he.Int{Hi: new(big.Int).Rsh(x, 64).Int64(), Lo: lo.Uint64()}
}

// limits returns the ends of r, which is that of a column and so fits.
func (r Range) limits() (min, max he.Int) { return toInt(r.min), toInt(r.max) }
