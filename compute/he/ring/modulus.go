package ring

import (
	"fmt"
	"math/big"
	"math/bits"
)

// MaxBits is the size of the largest prime a Modulus may be. Lazy butterflies
// let values grow to 16q, which must fit 64 bits.
const MaxBits = 60

// A Modulus is a prime and the constants of reductions by it. It is immutable.
type Modulus struct {
	Q    uint64
	Bits int // bit length of Q

	shift uint   // Bits-3
	mu    uint64 // ⌊2^(Bits+61)/Q⌋
	one   uint64 // ⌊2^64/Q⌋, the Shoup quotient of 1

	vector vectorConstants
}

// NewModulus returns the modulus q, an odd prime of at most MaxBits bits.
func NewModulus(q uint64) (*Modulus, error) {
	k := bits.Len64(q)
	if k < 4 || k > MaxBits {
		return nil, fmt.Errorf("modulus %d has %d bits: take 4 to %d", q, k, MaxBits)
	}
	if !IsPrime(q) {
		return nil, fmt.Errorf("modulus %d is not prime", q)
	}
	// 2^(k+61) = 2^(k-3) · 2^64, and 2^(k-3) < q, as Div64 wants it.
	mu, _ := bits.Div64(1<<(k-3), 0, q)
	one, _ := bits.Div64(1, 0, q)
	m := &Modulus{Q: q, Bits: k, shift: uint(k - 3), mu: mu, one: one}
	m.vector = newVectorConstants(m)
	return m, nil
}

// IsPrime reports whether q is prime; exact for every 64-bit q (Baillie–PSW).
// It is for public moduli only.
func IsPrime(q uint64) bool { return new(big.Int).SetUint64(q).ProbablyPrime(0) }

// subtractIf returns x-c if x ≥ c, else x, without a branch. |x-c| < 2^63.
func subtractIf(x, c uint64) uint64 {
	d := x - c
	return d + c&uint64(int64(d)>>63)
}

// Reduce returns hi·2^64+lo mod q. The value must be below 2^(Bits+60): any
// product of two residues, and sums of 2^(60-Bits) such products.
//
// Barrett: with z the value, ⌊z/2^(k-3)⌋·⌊2^(k+61)/q⌋/2^64 is less than z/q by
// at most 2^(k-3)/q + z/2^(k+61) < 1/4 + 1/2, so its floor by at most 1.
func (m *Modulus) Reduce(hi, lo uint64) uint64 {
	c := hi<<(64-m.shift) | lo>>m.shift
	quotient, _ := bits.Mul64(c, m.mu)
	return subtractIf(lo-quotient*m.Q, m.Q)
}

// ReduceWord returns x mod q for any 64-bit x.
func (m *Modulus) ReduceWord(x uint64) uint64 {
	quotient, _ := bits.Mul64(x, m.one)
	return subtractIf(x-quotient*m.Q, m.Q)
}

// ReduceSigned returns x mod q, in [0, q), for |x| < 2^62.
func (m *Modulus) ReduceSigned(x int64) uint64 {
	sign := uint64(x >> 63)
	r := m.ReduceWord((uint64(x) ^ sign) - sign) // |x|
	return m.negateIf(r, sign)
}

// negateIf returns -r mod q where mask is all ones, r where it is zero.
func (m *Modulus) negateIf(r, mask uint64) uint64 {
	return r ^ mask&(r^m.Neg(r))
}

// Add returns a+b mod q for residues a, b.
func (m *Modulus) Add(a, b uint64) uint64 { return subtractIf(a+b, m.Q) }

// Sub returns a-b mod q for residues a, b.
func (m *Modulus) Sub(a, b uint64) uint64 {
	d := a - b
	return d + m.Q&uint64(int64(d)>>63)
}

// Neg returns -a mod q for a residue a.
func (m *Modulus) Neg(a uint64) uint64 { return subtractIf(m.Q-a, m.Q) }

// Mul returns a·b mod q for residues a, b.
func (m *Modulus) Mul(a, b uint64) uint64 { return m.Reduce(bits.Mul64(a, b)) }

// Pow returns a^e mod q. Its time depends on e alone.
func (m *Modulus) Pow(a, e uint64) uint64 {
	r := uint64(1)
	for ; e > 0; e >>= 1 {
		if e&1 == 1 {
			r = m.Mul(r, a)
		}
		a = m.Mul(a, a)
	}
	return r
}

// Inv returns 1/a mod q for a residue a ≠ 0 (Fermat).
func (m *Modulus) Inv(a uint64) uint64 { return m.Pow(a, m.Q-2) }

// Shoup returns ⌊w·2^64/q⌋ for a residue w, the quotient that MulShoup takes.
func (m *Modulus) Shoup(w uint64) uint64 {
	quotient, _ := bits.Div64(w, 0, m.Q)
	return quotient
}

// MulShoup returns x·w mod q for any 64-bit x, a residue w and its Shoup quotient.
func (m *Modulus) MulShoup(x, w, shoup uint64) uint64 {
	return subtractIf(mulLazy(x, w, shoup, m.Q), m.Q)
}

// mulLazy returns x·w mod q in [0, 2q) for any 64-bit x (Harvey, section 3).
func mulLazy(x, w, shoup, q uint64) uint64 {
	quotient, _ := bits.Mul64(x, shoup)
	return x*w - quotient*q
}

// primitiveRoot returns a primitive 2N-th root of unity: the least power of a
// candidate x^((q-1)/2N), x = 2, 3, …, whose N-th power is -1. The choice is
// part of what a seed and a file mean.
func (m *Modulus) primitiveRoot(n int) (uint64, error) {
	order := uint64(2 * n)
	if m.Q%order != 1 {
		return 0, fmt.Errorf("prime %d is not 1 mod %d: it has no negacyclic transform of that length", m.Q, order)
	}
	for x := uint64(2); x < m.Q; x++ {
		if root := m.Pow(x, (m.Q-1)/order); m.Pow(root, uint64(n)) == m.Q-1 {
			return root, nil
		}
	}
	return 0, fmt.Errorf("prime %d has no primitive root of order %d", m.Q, order)
}

// Primes returns the count largest primes below 2^bits that are 1 mod 2n and not
// in exclude, largest first. The list is a function of its arguments for good.
func Primes(bitLen, n, count int, exclude ...uint64) ([]uint64, error) {
	if bitLen > MaxBits || bitLen < 4 || n < 1 {
		return nil, fmt.Errorf("primes of %d bits for length %d: take at most %d bits", bitLen, n, MaxBits)
	}
	step := uint64(2 * n)
	skip := make(map[uint64]bool, len(exclude))
	for _, q := range exclude {
		skip[q] = true
	}
	var out []uint64
	for q := (uint64(1)<<bitLen-2)/step*step + 1; len(out) < count; q -= step {
		if bits.Len64(q) != bitLen {
			return nil, fmt.Errorf("there are only %d primes of %d bits that are 1 mod %d", len(out), bitLen, step)
		}
		if !skip[q] && IsPrime(q) {
			out = append(out, q)
		}
	}
	return out, nil
}
