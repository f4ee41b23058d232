package he

import (
	"fmt"
	"math"

	"fednode/compute/he/ring"
)

// This file is the proof that decryption is correct. All bounds are worst case:
// they hold for every plaintext, every key within its declared bounds and every
// choice of randomness. ‖·‖ is the largest coefficient in absolute value; in
// Z[X]/(X^N+1), ‖a·b‖ ≤ N·‖a‖·‖b‖ and ‖a·b‖ ≤ ‖a‖·‖b‖₁.
//
// For a ciphertext of level l, Q the product of its primes and c_i taken in
// [-Q/2, Q/2), over the rationals
//
//	c0 + c1·s + c2·s² = (Q/t)·m + v + Q·k      with m in (-t/2, t/2], k integral
//
// and decryption, round(t/Q·(c0 + c1·s + c2·s²)) mod t, gives m if ‖v‖ < Q/(2t).
// Noise bounds ‖v‖. An operation is refused unless its result has ‖v‖ ≤ Q/(4t),
// which leaves one bit: Decrypt refuses to answer when it finds more than that.
//
// S bounds ‖s‖ (1 for a ternary key, the number of parties for a sum of such), so
// ‖s‖₁ ≤ N·S =: S1 and ‖k‖ ≤ (1/2+ε)·(1 + S1) + 1/2 + 1/4 < (1 + S1)/2 + 1 =: K,
// ε < 2^-10·(…) covering conversions that choose the representative by truncated
// fractions; their part is within the slack below.

// Noise is an upper bound of ‖v‖, at most 2^390, the largest Q.
type Noise float64

// slack covers rounding in these formulas and ε.
const slack = 1 + 1.0/256

// Bits returns log2 of the bound.
func (v Noise) Bits() float64 { return math.Log2(float64(v)) }

// KeyBounds declares how large a secret key and the errors of keys made from it
// may be. Keys of one party have OwnBounds; collective keys sum those of parties.
type KeyBounds struct {
	Secret float64 // of ‖s‖
	Error  float64 // of ‖e‖ in public and switching keys
}

// OwnBounds are the bounds of a ternary key with centred binomial errors.
var OwnBounds = KeyBounds{Secret: 1, Error: ring.ErrorBound}

func (b KeyBounds) check() error {
	// Larger keys would still be proved correct, but nothing makes them.
	if !(b.Secret >= 1 && b.Secret <= 1<<20 && b.Error >= 1 && b.Error <= 1<<60) {
		return fmt.Errorf("%w: key bounds %v", ErrRange, b)
	}
	return nil
}

func (b KeyBounds) join(o KeyBounds) KeyBounds {
	return KeyBounds{max(b.Secret, o.Secret), max(b.Error, o.Error)}
}

// Capacity returns the largest noise a ciphertext of a level may have: Q/(4t) of
// the largest plaintext prime.
func (p *Parameters) Capacity(level int) Noise {
	return Noise(p.modulusAt(level) / (4 * p.maxPlain()))
}

func (p *Parameters) maxPlain() float64 {
	var t uint64
	for _, m := range p.plain {
		t = max(t, m.m.Q)
	}
	return float64(t)
}

func (p *Parameters) s1(b KeyBounds) float64 { return float64(p.N()) * b.Secret }

// NoiseSecretKey is that of EncryptSecret: the error, and rounding of Q·m/t.
func (p *Parameters) NoiseSecretKey() Noise { return ring.ErrorBound + 1 }

// NoisePublicKey is that of Encrypt, modulo Q·P and then divided by P: with
// b + a·s = e, b·u + e0 + (a·u + e1)·s = e·u + e0 + e1·s over P, and rounding of
// both polynomials and of Q·m/t.
func (p *Parameters) NoisePublicKey(b KeyBounds) Noise {
	n, s1 := float64(p.N()), p.s1(b)
	inner := (n*b.Error + ring.ErrorBound*(1+s1)) / float64(p.Special().Q)
	return Noise((inner + (1+s1)/2 + 1) * slack)
}

// NoiseAdd is that of a sum or difference: m_a + m_b exceeds (-t/2, t/2] by a
// multiple of t, and (Q/t)·t is Q.
func (p *Parameters) NoiseAdd(a, b Noise) Noise { return a + b }

// NoiseAddPlain is that of a sum with a plaintext: rounding of Q·m/t.
func (p *Parameters) NoiseAddPlain(a Noise) Noise { return a + 1 }

// NoiseMulPlain is that of a product with a plaintext whose coefficients, in
// (-t/2, t/2], sum to norm1 in absolute value: v·m.
func (p *Parameters) NoiseMulPlain(a Noise, norm1 float64) Noise {
	return Noise(float64(a) * max(norm1, 1) * slack)
}

// WorstPlain is the largest norm1 a plaintext can have.
func (p *Parameters) WorstPlain() float64 { return float64(p.N()) * p.maxPlain() / 2 }

// NoiseMul is that of a product before relinearisation. Writing A, B for the
// phases of a and b, the scaled tensor is t/Q·A·B + t/B'·A·ε + δ, where the second
// operand was scaled to the modulus B' ≥ Q with rounding ε = ε0 + ε1·s, and
// δ = δ0 + δ1·s + δ2·s² rounds the result; |ε_i|, |δ_i| ≤ 1 (1/2, and truncated
// fractions). Modulo Q,
//
//	t/Q·A·B = (Q/t)·m_a·m_b + m_a·v_b + m_b·v_a + t/Q·v_a·v_b + t·(v_a·k_b + v_b·k_a)
//
// and ‖t/B'·A·ε‖ ≤ t·N·(Q/B')·K·(1 + S1).
func (p *Parameters) NoiseMul(a, b Noise, keys KeyBounds, level int) Noise {
	n, s1, t := float64(p.N()), p.s1(keys), p.maxPlain()
	q := p.modulusAt(level)
	ratio := 1.0
	for _, m := range p.aux.Moduli[:level] {
		ratio /= float64(m.Q)
	}
	ratio *= q
	k := (1+s1)/2 + 1
	va, vb := float64(a), float64(b)
	v := n*(t/2)*(va+vb) + n*t/q*va*vb + n*t*k*(va+vb)
	v += t * n * ratio * k * (1 + s1)
	v += 1 + s1 + s1*s1*1
	return Noise(v * slack)
}

// NoiseSwitch is what key switching adds: Σ d_i·e_i/P with digits d_i in
// [0, q_i), and rounding of both polynomials by P.
func (p *Parameters) NoiseSwitch(keys KeyBounds, level int) Noise {
	var digits float64
	for _, m := range p.q.Moduli[:level] {
		digits += float64(m.Q)
	}
	n, s1 := float64(p.N()), p.s1(keys)
	return Noise((n*keys.Error*digits/float64(p.Special().Q) + (1+s1)/2 + 1) * slack)
}

// NoiseModSwitch is that of a ciphertext of one level less: v/q_l, and rounding of
// its polynomials, of which a relinearised one has two.
func (p *Parameters) NoiseModSwitch(a Noise, keys KeyBounds, level, degree int) Noise {
	s1, power, rounding := p.s1(keys), 1.0, 0.0
	for range degree + 1 {
		rounding += power / 2
		power *= s1
	}
	return Noise((float64(a)/float64(p.q.Moduli[level-1].Q) + rounding + 1) * slack)
}

// room returns ErrNoise, saying what failed, if a result might not decrypt.
func (p *Parameters) room(what string, v Noise, level int) error {
	if limit := p.Capacity(level); !(v <= limit) {
		return fmt.Errorf("%w: %s could have noise of 2^%.1f; at level %d of %s up to 2^%.1f decrypts correctly",
			ErrNoise, what, v.Bits(), level, p, limit.Bits())
	}
	return nil
}
