package he

import (
	"fmt"
	"math/big"
	"math/bits"
	"strings"

	"fednode/compute/he/ring"
)

// A plainModulus is one plaintext prime and, if it is 1 mod 2N, its slots.
type plainModulus struct {
	m      *ring.Modulus
	slots  *ring.Ring // nil without slots
	tInv   []uint64   // t^-1 mod q_j
	qMod   []uint64   // Q mod t, by level-1
	lift   []uint64   // q_j - t, what centring adds to values above t/2
	weight []uint64   // 1/t' mod t for the primes t' before it: see compose
}

func newPlainModulus(p *Parameters, t uint64) (*plainModulus, error) {
	m, err := ring.NewModulus(t)
	if err != nil {
		return nil, err
	}
	out := &plainModulus{m: m}
	if t%uint64(2*p.N()) == 1 {
		if out.slots, err = ring.New(p.N(), []uint64{t}); err != nil {
			return nil, err
		}
	}
	q := big.NewInt(1)
	for _, limb := range p.q.Moduli {
		out.tInv = append(out.tInv, limb.Inv(limb.ReduceWord(t)))
		out.qMod = append(out.qMod, remainder(q.Mul(q, word(limb.Q)), t))
		out.lift = append(out.lift, limb.Q-t)
	}
	for _, earlier := range p.plain {
		out.weight = append(out.weight, m.Inv(m.ReduceWord(earlier.m.Q)))
	}
	return out, nil
}

// An Int is a 128-bit two's complement integer: what several plaintext primes
// hold together.
type Int struct {
	Hi int64
	Lo uint64
}

// Int64 returns x and whether it fits.
func (x Int) Int64() (int64, bool) { return int64(x.Lo), x.Hi == int64(x.Lo)>>63 }

// NewInt returns x as an Int.
func NewInt(x int64) Int { return Int{x >> 63, uint64(x)} }

// String returns x in decimal.
func (x Int) String() string {
	sign := uint64(x.Hi >> 63)
	lo, carry := bits.Add64(x.Lo^sign, sign&1, 0)
	hi := (uint64(x.Hi) ^ sign) + carry
	const digits = 1e19 // the largest power of ten in a word
	top, hi := hi/digits, hi%digits
	middle, low := bits.Div64(hi, lo, digits)
	text := fmt.Sprintf("%d%019d", middle, low)
	if top > 0 {
		text = fmt.Sprintf("%d%019d%019d", top, middle, low)
	}
	if text = strings.TrimLeft(text, "0"); text == "" {
		text = "0"
	}
	if sign != 0 {
		text = "-" + text
	}
	return text
}

// ParseInt reads a decimal integer, with a sign or without, of at most 126 bits. It
// returns ErrRange for a larger one, ErrMalformed for anything else. Time depends on
// the length of the text alone, but for errors.
func ParseInt(text string) (Int, error) {
	digits := text
	if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
		digits = digits[1:]
	}
	if len(digits) == 0 {
		return Int{}, fmt.Errorf("%w: no digits", ErrMalformed)
	}
	var hi, lo, over, bad uint64
	for i := range len(digits) {
		d := uint64(digits[i]) - '0'
		bad |= (9 - d) | d // the top bit says that it is no digit
		over |= hi >> 59
		h, l := bits.Mul64(lo, 10)
		var carry uint64
		lo, carry = bits.Add64(l, d, 0)
		hi = hi*10 + h + carry
	}
	switch {
	case bad>>63 != 0:
		return Int{}, fmt.Errorf("%w: not a whole number", ErrMalformed)
	case over|hi>>62 != 0:
		return Int{}, fmt.Errorf("%w: more than 126 bits", ErrRange)
	}
	sign := uint64(0)
	if text[0] == '-' {
		sign = ^uint64(0)
	}
	lo, carry := bits.Add64(lo^sign, sign&1, 0)
	return Int{int64((hi ^ sign) + carry), lo}, nil
}

// Less reports whether x < y, in constant time.
func (x Int) Less(y Int) bool {
	const top = 1 << 63 // turns signed order into unsigned
	_, borrow := bits.Sub64(x.Lo, y.Lo, 0)
	_, borrow = bits.Sub64(uint64(x.Hi)^top, uint64(y.Hi)^top, borrow)
	return borrow == 1
}

// mod returns x mod m in constant time.
func (x Int) mod(m *ring.Modulus) uint64 {
	sign := uint64(x.Hi >> 63)
	lo, carry := bits.Add64(x.Lo^sign, sign&1, 0)
	hi := (uint64(x.Hi) ^ sign) + carry
	r := uint64(0)
	for _, w := range [4]uint64{hi >> 32, hi & 0xffffffff, lo >> 32, lo & 0xffffffff} {
		r = m.Reduce(r>>32, r<<32|w)
	}
	return r ^ sign&(r^m.Neg(r))
}

// A Plaintext is a polynomial modulo each plaintext prime: N coefficients each.
// It is made by EncodeSlots, EncodeCoefficients or Decrypt.
type Plaintext struct {
	p    *Parameters
	part [][]uint64
}

func newPlaintext(p *Parameters) *Plaintext {
	return &Plaintext{p, ring.NewPoly(len(p.plain), p.N())}
}

// Wipe overwrites the plaintext with zeros.
func (pt *Plaintext) Wipe() { ring.Poly(pt.part).Wipe() }

// Slots returns how many integers a plaintext packs: N, as two rows of N/2, or 0
// where a plaintext prime is not 1 mod 2N.
func (p *Parameters) Slots() int {
	for _, t := range p.plain {
		if t.slots == nil {
			return 0
		}
	}
	return p.N()
}

// Range returns the largest absolute value of an integer in a slot: half the
// product of the plaintext primes, rounded down.
func (p *Parameters) Range() Int {
	hi, lo := p.plainProduct()
	return Int{int64(hi >> 1), hi<<63 | lo>>1}
}

func (p *Parameters) plainProduct() (hi, lo uint64) {
	lo = 1
	for _, t := range p.plain {
		h, l := bits.Mul64(lo, t.m.Q)
		hi, lo = hi*t.m.Q+h, l
	}
	return hi, lo
}

func (p *Parameters) needSlots() error {
	for _, t := range p.plain {
		if t.slots == nil {
			return fmt.Errorf("%w: %d is not 1 mod %d", ErrSlots, t.m.Q, 2*p.N())
		}
	}
	return nil
}

// EncodeSlots packs at most Slots integers, the rest zero. Products and sums of
// ciphertexts act slot by slot. It returns ErrSlots without slots, ErrRange if an
// integer exceeds Range in absolute value.
func (p *Parameters) EncodeSlots(values []int64) (*Plaintext, error) {
	return p.encode(len(values), func(i int) Int { return NewInt(values[i]) }, true)
}

// EncodeWide is EncodeSlots for integers of more than 64 bits.
func (p *Parameters) EncodeWide(values []Int) (*Plaintext, error) {
	return p.encode(len(values), func(i int) Int { return values[i] }, true)
}

// EncodeCoefficients puts integers at the coefficients of the plaintext, which
// needs no slots. Products are then negacyclic convolutions.
func (p *Parameters) EncodeCoefficients(values []int64) (*Plaintext, error) {
	return p.encode(len(values), func(i int) Int { return NewInt(values[i]) }, false)
}

// EncodeConstant returns the plaintext with x in every slot: a polynomial of degree
// 0, by which products add the least noise.
func (p *Parameters) EncodeConstant(x Int) (*Plaintext, error) {
	return p.encode(1, func(int) Int { return x }, false)
}

func (p *Parameters) encode(count int, value func(int) Int, slots bool) (*Plaintext, error) {
	if slots {
		if err := p.needSlots(); err != nil {
			return nil, err
		}
	}
	if count > p.N() {
		return nil, fmt.Errorf("%w: %d values; a plaintext of %s has room for %d", ErrRange, count, p.set, p.N())
	}
	limit := p.Range()
	pt := newPlaintext(p)
	for i := range count {
		x := value(i)
		if !x.within(limit) {
			pt.Wipe()
			return nil, fmt.Errorf("%w: value %d exceeds ±%s", ErrRange, i, limit)
		}
		at := i
		if slots {
			at = int(p.slotAt[i])
		}
		for k, t := range p.plain {
			pt.part[k][at] = x.mod(t.m)
		}
	}
	if slots {
		for k, t := range p.plain {
			t.slots.INTTRow(0, pt.part[k])
		}
	}
	return pt, nil
}

// within reports |x| ≤ limit.
func (x Int) within(limit Int) bool {
	lo, borrow := bits.Sub64(0, limit.Lo, 0)
	hi, _ := bits.Sub64(0, uint64(limit.Hi), borrow)
	return !limit.Less(x) && !x.Less(Int{int64(hi), lo})
}

// slotIndex returns where the NTT modulo t has slot i: the value at ψ^(3^i) for
// the first row, ψ^(-3^i) for the second, so that X → X^3 turns both rows.
func slotIndex(n int) []uint32 {
	out := make([]uint32, n)
	shift := 64 - bits.Len(uint(n-1))
	e, mask := uint64(1), uint64(2*n-1)
	for i := range n / 2 {
		out[i] = uint32(bits.Reverse64((e-1)/2) >> shift)
		out[i+n/2] = uint32(bits.Reverse64((-e&mask-1)/2) >> shift)
		e = e * 3 & mask
	}
	return out
}

// Slots returns the N integers of a plaintext, each in [-Range, Range]. It
// returns ErrRange if one does not fit: then use WideSlots.
func (pt *Plaintext) Slots() ([]int64, error) {
	wide, err := pt.WideSlots()
	if err != nil {
		return nil, err
	}
	return narrow(wide)
}

// WideSlots returns the N integers of a plaintext.
func (pt *Plaintext) WideSlots() ([]Int, error) {
	if err := pt.p.needSlots(); err != nil {
		return nil, err
	}
	values := ring.Poly(pt.part).Clone()
	defer values.Wipe()
	for k, t := range pt.p.plain {
		t.slots.NTTRow(0, values[k])
	}
	return pt.p.compose(values, pt.p.slotAt), nil
}

// Coefficients returns the N coefficients of a plaintext, as Slots does its slots.
func (pt *Plaintext) Coefficients() ([]int64, error) {
	return narrow(pt.p.compose(pt.part, nil))
}

func narrow(wide []Int) ([]int64, error) {
	out := make([]int64, len(wide))
	for i, x := range wide {
		var ok bool
		if out[i], ok = x.Int64(); !ok {
			return nil, fmt.Errorf("%w: value %d does not fit 64 bits", ErrRange, i)
		}
	}
	return out, nil
}

// compose returns the integers in (-T/2, T/2] with the given residues, T the
// product of the plaintext primes, by Garner's mixed radix: x = d1 + t1·(d2 +
// t2·d3), d_k = (…(r_k - d1)/t1 - d2)/t2 mod t_k. Constant time.
func (p *Parameters) compose(residues [][]uint64, index []uint32) []Int {
	out := make([]Int, p.N())
	limit := p.Range()
	topHi, topLo := p.plainProduct()
	for i := range out {
		at := i
		if index != nil {
			at = int(index[i])
		}
		var digit [maxPlain]uint64
		for k, t := range p.plain {
			d := residues[k][at]
			for e := range k {
				d = t.m.Mul(t.m.Sub(d, t.m.ReduceWord(digit[e])), t.weight[e])
			}
			digit[k] = d
		}
		var hi, lo uint64
		for k := len(p.plain) - 1; k >= 0; k-- {
			h, l := bits.Mul64(lo, p.plain[k].m.Q)
			var carry uint64
			lo, carry = bits.Add64(l, digit[k], 0)
			hi = hi*p.plain[k].m.Q + h + carry
		}
		// x > limit means limit-x borrows.
		_, borrow := bits.Sub64(limit.Lo, lo, 0)
		_, borrow = bits.Sub64(uint64(limit.Hi), hi, borrow)
		lo, carry := bits.Sub64(lo, topLo&-borrow, 0)
		hi, _ = bits.Sub64(hi, topHi&-borrow, carry)
		out[i] = Int{int64(hi), lo}
	}
	return out
}

// scaled sets out[j] = round(Q·m/t) mod q_j at a level. With r = (Q·m + ⌊t/2⌋)
// mod t it is (Q·m + ⌊t/2⌋ - r)/t, and Q vanishes modulo q_j.
func (p *Parameters) scaled(out ring.Poly, message []uint64, part, level int) {
	t := p.plain[part]
	half := t.m.Q / 2
	qMod := t.qMod[level-1]
	shoup := t.m.Shoup(qMod)
	for j, m := range p.q.Moduli[:level] {
		row := out[j][:len(message)]
		inv, invShoup := t.tInv[j], m.Shoup(t.tInv[j])
		for k, x := range message {
			r := t.m.Add(t.m.MulShoup(x, qMod, shoup), half)
			row[k] = m.MulShoup(half+m.Q-r, inv, invShoup)
		}
	}
}

// centred sets out[j] to the residues of message, taken in (-t/2, t/2].
func (p *Parameters) centred(out ring.Poly, message []uint64, part, level int) {
	t := p.plain[part]
	half := t.m.Q / 2
	for j := range p.q.Moduli[:level] {
		row, lift := out[j][:len(message)], t.lift[j]
		for k, x := range message {
			row[k] = x + lift&uint64(int64(half-x)>>63)
		}
	}
}

// norm1 returns the sum of |coefficients| of a message taken in (-t/2, t/2].
func (t *plainModulus) norm1(message []uint64) float64 {
	var sum uint64 // below 2^34 · 2^15
	half := t.m.Q / 2
	for _, x := range message {
		above := uint64(int64(half-x) >> 63)
		sum += x ^ above&(x^(t.m.Q-x))
	}
	return float64(sum)
}
