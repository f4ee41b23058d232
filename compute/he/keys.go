package he

import (
	"fmt"
	"io"
	"log/slog"

	"fednode/compute/he/ring"
)

// A SecretKey is a ternary polynomial, or a sum of such. No way of printing it
// shows anything of it. It is not comparable; Wipe it after use.
type SecretKey struct {
	_      [0]func() // not comparable: == would not be constant time
	p      *Parameters
	bounds KeyBounds
	value  ring.Poly // of the key ring, as values
}

const redactedKey = "BFV secret key (redacted)"

// NewSecretKey draws a uniform ternary key from crypto/rand.
func NewSecretKey(p *Parameters) *SecretKey {
	src := ring.FreshSource()
	defer src.Wipe()
	small := make([]int32, p.N())
	defer clear(small)
	src.Ternary(small)
	return secretOf(p, small)
}

func secretOf(p *Parameters, small []int32) *SecretKey {
	sk := &SecretKey{p: p, bounds: OwnBounds, value: p.qp.NewPoly()}
	p.qp.SetSigned(sk.value, small)
	p.qp.NTT(sk.value)
	return sk
}

// SecretKeyOf takes over a key given as values of the key ring, whose coefficients
// and errors keep to bounds: the sum of what parties hold, in tests and recovery.
func SecretKeyOf(p *Parameters, value ring.Poly, bounds KeyBounds) (*SecretKey, error) {
	if err := bounds.check(); err != nil {
		return nil, err
	}
	if err := checkPoly(p.qp, value); err != nil {
		return nil, err
	}
	return &SecretKey{p: p, bounds: bounds, value: value}, nil
}

// Value returns the key as values of the key ring: not a copy, and secret.
func (sk *SecretKey) Value() ring.Poly { return sk.value }

// Bounds returns how large the key and the errors of keys made from it may be.
func (sk *SecretKey) Bounds() KeyBounds { return sk.bounds }

// Wipe overwrites the key. It must not be used afterwards.
func (sk *SecretKey) Wipe() {
	sk.value.Wipe()
	sk.value = nil
}

func (sk *SecretKey) String() string               { return redactedKey }
func (sk *SecretKey) GoString() string             { return redactedKey }
func (sk *SecretKey) Format(f fmt.State, _ rune)   { io.WriteString(f, redactedKey) }
func (sk *SecretKey) LogValue() slog.Value         { return slog.StringValue(redactedKey) }
func (sk *SecretKey) MarshalText() ([]byte, error) { return []byte(redactedKey), nil }

func (sk *SecretKey) live() error {
	if sk == nil || sk.value == nil {
		return fmt.Errorf("%w: the secret key was wiped", ErrNoKey)
	}
	return nil
}

func checkPoly(r *ring.Ring, p ring.Poly) error {
	if len(p) != len(r.Moduli) {
		return fmt.Errorf("%w: a polynomial of %d rows, not %d", ErrMismatch, len(p), len(r.Moduli))
	}
	for i, m := range r.Moduli {
		if len(p[i]) != r.N {
			return fmt.Errorf("%w: a row of %d residues, not %d", ErrMismatch, len(p[i]), r.N)
		}
		var over uint64
		for _, x := range p[i] {
			over |= (m.Q - 1 - x) | x // the top bit says that x ≥ q
		}
		if over>>63 != 0 {
			return fmt.Errorf("%w: a residue is not below its prime", ErrMalformed)
		}
	}
	return nil
}

// A PublicKey encrypts: (b, a) with b + a·s = e modulo Q·P.
type PublicKey struct {
	p      *Parameters
	bounds KeyBounds
	seed   ring.Seed
	b, a   ring.Poly // values
}

// PublicMask expands the polynomial a of public keys from a seed: parties who
// share a seed make keys that add up.
func (p *Parameters) PublicMask(seed ring.Seed) ring.Poly {
	a := p.qp.NewPoly()
	p.qp.Uniform(a, seed, "public")
	return a
}

// SwitchMask expands the polynomial a of digit i of a switching key from a seed.
func (p *Parameters) SwitchMask(seed ring.Seed, digit int) ring.Poly {
	a := p.qp.NewPoly()
	p.qp.Uniform(a, seed, fmt.Sprintf("switch/%d", digit))
	return a
}

// PublicKey returns a public key of sk with a fresh mask.
func (sk *SecretKey) PublicKey() (*PublicKey, error) {
	if err := sk.live(); err != nil {
		return nil, err
	}
	seed := ring.NewSeed()
	src := ring.FreshSource()
	defer src.Wipe()
	a := sk.p.PublicMask(seed)
	b := sk.p.maskedError(src, a, sk.value)
	return &PublicKey{p: sk.p, bounds: sk.bounds, seed: seed, b: b, a: a}, nil
}

// PublicKeyOf returns the public key (b, PublicMask(seed)) of a secret within
// bounds, such as a sum of parties' shares. It takes b over.
func PublicKeyOf(p *Parameters, seed ring.Seed, b ring.Poly, bounds KeyBounds) (*PublicKey, error) {
	if err := bounds.check(); err != nil {
		return nil, err
	}
	if err := checkPoly(p.qp, b); err != nil {
		return nil, err
	}
	return &PublicKey{p: p, bounds: bounds, seed: seed, b: b, a: p.PublicMask(seed)}, nil
}

// Bounds returns the bounds of the secret key that pk belongs to.
func (pk *PublicKey) Bounds() KeyBounds { return pk.bounds }

// Mask returns the seed of a, and B the other half, not to be changed.
func (pk *PublicKey) Mask() ring.Seed { return pk.seed }

// B returns b = e - a·s as values of the key ring, not to be changed.
func (pk *PublicKey) B() ring.Poly { return pk.b }

// maskedError returns e - a·s as values of the key ring, e fresh from src.
func (p *Parameters) maskedError(src *ring.Source, a, s ring.Poly) ring.Poly {
	b := p.ErrorPoly(src)
	neg := p.qp.NewPoly()
	defer neg.Wipe()
	p.qp.Mul(neg, a, s)
	p.qp.Sub(b, b, neg)
	return b
}

// ErrorPoly returns a centred binomial error as values of the key ring.
func (p *Parameters) ErrorPoly(src *ring.Source) ring.Poly {
	small := make([]int32, p.N())
	defer clear(small)
	src.Binomial(small)
	e := p.qp.NewPoly()
	p.qp.SetSigned(e, small)
	p.qp.NTT(e)
	return e
}

// A SwitchingKey moves ciphertexts from a secret s' to s: for each prime q_i of Q
// a pair with b_i + a_i·s = e_i + g_i·s' modulo Q·P, where the gadget g_i is P
// modulo q_i and 0 modulo all other primes.
type SwitchingKey struct {
	bounds KeyBounds
	seed   *ring.Seed  // of all a_i, if they come from one
	b, a   []ring.Poly // by digit; values of the key ring
}

// Digits returns the number of pairs of a switching key.
func (p *Parameters) Digits() int { return p.MaxLevel() }

// AddGadget sets out = out + g_digit·x, values of the key ring: the one row in
// which the gadget is not zero.
func (p *Parameters) AddGadget(out, x ring.Poly, digit int) {
	m := p.qp.Moduli[digit]
	row := make([]uint64, p.N())
	defer clear(row)
	m.ScaleRow(row, x[digit], p.pMod[digit])
	m.AddRow(out[digit], out[digit], row)
}

// SwitchingKeyOf returns the switching key of pairs (b_i, a_i), which it takes
// over. If seed is given, a is ignored and expanded from it by SwitchMask.
func SwitchingKeyOf(p *Parameters, seed *ring.Seed, b, a []ring.Poly, bounds KeyBounds) (*SwitchingKey, error) {
	if err := bounds.check(); err != nil {
		return nil, err
	}
	k := &SwitchingKey{bounds: bounds, b: b, a: a}
	if seed != nil {
		k.seed, k.a = new(ring.Seed), nil
		*k.seed = *seed
		for i := range p.Digits() {
			k.a = append(k.a, p.SwitchMask(*seed, i))
		}
	}
	if len(k.b) != p.Digits() || len(k.a) != p.Digits() {
		return nil, fmt.Errorf("%w: a switching key of %d and %d polynomials, not %d", ErrMismatch, len(k.b), len(k.a), p.Digits())
	}
	for i := range k.b {
		if err := checkPoly(p.qp, k.b[i]); err != nil {
			return nil, err
		}
		if err := checkPoly(p.qp, k.a[i]); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// switchingKey returns the key from the secret other to sk.
func (sk *SecretKey) switchingKey(src *ring.Source, other, own ring.Poly) *SwitchingKey {
	seed := ring.NewSeed()
	k := &SwitchingKey{bounds: sk.bounds, seed: &seed}
	for i := range sk.p.Digits() {
		a := sk.p.SwitchMask(seed, i)
		b := sk.p.maskedError(src, a, own)
		sk.p.AddGadget(b, other, i)
		k.a, k.b = append(k.a, a), append(k.b, b)
	}
	return k
}

// EvaluationKeys are what an Evaluator may hold of a secret's owner. They are
// public. Nil fields mean that the operation is not possible.
type EvaluationKeys struct {
	p      *Parameters
	relin  *SwitchingKey
	galois map[uint64]*SwitchingKey // by Galois element
}

// EvaluationKeys returns a relinearisation key and keys for the given Galois
// elements: see GaloisElement and SwapElement.
func (sk *SecretKey) EvaluationKeys(elements ...uint64) (*EvaluationKeys, error) {
	if err := sk.live(); err != nil {
		return nil, err
	}
	src := ring.FreshSource()
	defer src.Wipe()
	square := sk.p.qp.NewPoly()
	defer square.Wipe()
	sk.p.qp.Mul(square, sk.value, sk.value)
	keys := NewEvaluationKeys(sk.p)
	keys.relin = sk.switchingKey(src, square, sk.value)
	turned := sk.p.qp.NewPoly()
	defer turned.Wipe()
	for _, g := range elements {
		if err := sk.p.checkElement(g); err != nil {
			return nil, err
		}
		sk.p.TurnSecret(turned, sk.value, g)
		keys.galois[g] = sk.switchingKey(src, sk.value, turned)
	}
	return keys, nil
}

// NewEvaluationKeys returns an empty set, for collective keys.
func NewEvaluationKeys(p *Parameters) *EvaluationKeys {
	return &EvaluationKeys{p: p, galois: make(map[uint64]*SwitchingKey)}
}

// SetRelinearisation adds the switching key from s² to s.
func (k *EvaluationKeys) SetRelinearisation(key *SwitchingKey) { k.relin = key }

// SetGalois adds the switching key from s to TurnSecret(s, g).
func (k *EvaluationKeys) SetGalois(g uint64, key *SwitchingKey) error {
	if err := k.p.checkElement(g); err != nil {
		return err
	}
	k.galois[g] = key
	return nil
}

// TurnSecret sets out to the secret that a Galois key for g switches to: s(X^(1/g)),
// so that turning by g comes after switching and ends under s.
func (p *Parameters) TurnSecret(out, s ring.Poly, g uint64) {
	p.qp.Permute(out, s, p.qp.Permutation(inverseElement(g, p.N())))
}

// inverseElement returns 1/g mod 2n for odd g: g^(n-1), as g^n = 1 (n ≥ 2).
func inverseElement(g uint64, n int) uint64 {
	mask, r := uint64(2*n-1), uint64(1)
	for range n - 1 {
		r = r * g & mask
	}
	return r
}

// GaloisElement returns the element that turns both rows of slots left by steps
// places (right if negative): slot i of the result is slot i+steps.
func (p *Parameters) GaloisElement(steps int) uint64 {
	half := p.N() / 2
	g, mask := uint64(1), uint64(2*p.N()-1)
	for range ((steps % half) + half) % half {
		g = g * 3 & mask
	}
	return g
}

// SwapElement returns the Galois element that exchanges the two rows of slots.
func (p *Parameters) SwapElement() uint64 { return uint64(2*p.N() - 1) }

// SumElements returns the elements that InnerSum needs: all power-of-two turns
// and the exchange of rows.
func (p *Parameters) SumElements() []uint64 {
	var out []uint64
	for step := 1; step < p.N()/2; step *= 2 {
		out = append(out, p.GaloisElement(step))
	}
	return append(out, p.SwapElement())
}

func (p *Parameters) checkElement(g uint64) error {
	if g&1 == 0 || g == 1 || g >= uint64(2*p.N()) {
		return fmt.Errorf("%w: Galois element %d; take an odd number from 3 to %d", ErrRange, g, 2*p.N()-1)
	}
	return nil
}
