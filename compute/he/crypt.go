package he

import (
	"fmt"
	"math"
	"math/bits"

	"fednode/compute/he/ring"
)

// Encrypt encrypts under a public key, at the highest level, with randomness from
// crypto/rand: modulo Q·P and then divided by P, which leaves little more noise
// than rounding (Kim–Polyakov–Zucca, section 3.3).
func (pk *PublicKey) Encrypt(pt *Plaintext) (*Ciphertext, error) {
	p := pt.p
	if !p.SameLattice(pk.p) {
		return nil, fmt.Errorf("%w: a public key of %s, a plaintext of %s", ErrMismatch, pk.p, p)
	}
	noise := p.NoisePublicKey(pk.bounds)
	if err := p.room("a fresh ciphertext", noise, p.MaxLevel()); err != nil {
		return nil, err
	}
	ct := new(Ciphertext)
	ct.shape(p, p.MaxLevel(), 1)
	ct.noise, ct.bounds = noise, pk.bounds
	e := newEncryption(p)
	defer e.wipe()
	for k := range p.plain {
		e.encrypt(pk, ct.part[k].c[:2], pt.part[k], k)
	}
	return ct, nil
}

// An encryption is the secret scratch of Encrypt.
type encryption struct {
	p            *Parameters
	src          *ring.Source
	small        []int32
	u, product   ring.Poly // of the key ring
	message, row ring.Poly
}

func newEncryption(p *Parameters) *encryption {
	return &encryption{p: p, src: ring.FreshSource(), small: make([]int32, p.N()),
		u: p.qp.NewPoly(), product: p.qp.NewPoly(), message: p.q.NewPoly(), row: ring.NewPoly(1, p.N())}
}

func (e *encryption) wipe() {
	e.src.Wipe()
	clear(e.small)
	for _, p := range []ring.Poly{e.u, e.product, e.message, e.row} {
		p.Wipe()
	}
}

// encrypt sets c0 = (b·u + e0)/P + round(Q·m/t), c1 = (a·u + e1)/P. With r the
// part of the numerator modulo P, rounding gives (b·u + e0 - r)/P, and e0, the
// message and r pass through one NTT: (b·u - NTT(r - e0 - P·message))/P.
func (e *encryption) encrypt(pk *PublicKey, c []ring.Poly, message []uint64, part int) {
	p, special := e.p, e.p.Special()
	last := len(e.u) - 1
	e.src.Ternary(e.small)
	p.qp.SetSigned(e.u, e.small)
	p.qp.NTT(e.u)
	p.scaled(e.message, message, part, last)
	for i, half := range []ring.Poly{pk.b, pk.a} {
		p.qp.Mul(e.product, half, e.u)
		p.qp.INTTRow(last, e.product[last])
		e.src.Binomial(e.small)
		r := e.product[last]
		for k, x := range e.small {
			// r + ⌊P/2⌋, so that subtracting it from r mod q_j centres r.
			r[k] = special.Add(special.Add(r[k], special.ReduceSigned(int64(x))), special.Q/2)
		}
		for j, m := range p.q.Moduli {
			e.divide(c[i][j], j, m, r, i == 0)
		}
	}
}

func (e *encryption) divide(out []uint64, j int, m *ring.Modulus, r []uint64, withMessage bool) {
	p, row := e.p, e.row[0]
	half, pm, shoup := p.half[j], p.pMod[j], m.Shoup(p.pMod[j])
	message := e.message[j]
	for k := range row {
		x := m.ReduceWord(r[k]) + m.Q - half
		x += m.Q - m.ReduceSigned(int64(e.small[k]))
		if withMessage {
			x += m.Q - m.MulShoup(message[k], pm, shoup)
		}
		row[k] = m.ReduceWord(x)
	}
	p.q.NTTRow(j, row)
	m.SubRow(row, e.product[j], row)
	m.ScaleRow(out, row, p.pInv[j])
}

// Encrypt encrypts under the secret key, at the highest level. Half of a fresh
// ciphertext comes from a seed and takes no room in its file; its noise is the
// least there is.
func (sk *SecretKey) Encrypt(pt *Plaintext) (*Ciphertext, error) {
	if err := sk.live(); err != nil {
		return nil, err
	}
	p := pt.p
	if !p.SameLattice(sk.p) {
		return nil, fmt.Errorf("%w: a secret key of %s, a plaintext of %s", ErrMismatch, sk.p, p)
	}
	ct := new(Ciphertext)
	ct.shape(p, p.MaxLevel(), 1)
	ct.noise, ct.bounds = p.NoiseSecretKey(), sk.bounds
	seed := ring.NewSeed()
	ct.expand(seed)
	e := newEncryption(p)
	defer e.wipe()
	for k := range p.plain {
		c := &ct.part[k].c
		e.src.Binomial(e.small)
		p.q.SetSigned(e.u, e.small)
		p.scaled(e.message, pt.part[k], k, p.MaxLevel())
		p.q.Add(c[0], e.u, e.message)
		p.q.NTT(c[0])
		p.q.Mul(e.product, c[1], sk.value)
		p.q.Sub(c[0], c[0], e.product)
	}
	return ct, nil
}

// expand sets c1 of every part from a seed.
func (ct *Ciphertext) expand(seed ring.Seed) {
	ct.seed = &seed
	for k := range ct.part {
		ct.p.q.Uniform(ct.part[k].c[1], seed, fmt.Sprintf("ciphertext/%d", k))
	}
}

// Decrypt returns the plaintext of ct. It returns ErrNoise, and no numbers, if the
// bound of ct's noise or the noise it finds leaves less than one bit: that is also
// what a wrong key or a damaged ciphertext looks like.
func (sk *SecretKey) Decrypt(ct *Ciphertext) (*Plaintext, error) {
	pt, _, err := sk.decrypt(ct)
	return pt, err
}

// MeasureNoise returns the noise of ct, ‖phase - round(Q·m/t)‖ over its parts. It
// needs the key, and the result depends on it: keep it. Errors are as Decrypt's.
func (sk *SecretKey) MeasureNoise(ct *Ciphertext) (Noise, error) {
	pt, _, err := sk.decrypt(ct)
	if err != nil {
		return 0, err
	}
	defer pt.Wipe()
	r := ct.p.Ring(ct.level)
	ideal := r.NewPoly()
	defer ideal.Wipe()
	var found Noise
	for k, phase := range sk.phases(ct) {
		ct.p.scaled(ideal, pt.part[k], k, ct.level)
		r.Sub(phase, phase, ideal)
		found = max(found, magnitude(r, phase))
		phase.Wipe()
	}
	return found, nil
}

// magnitude returns ‖x‖ for coefficients x mod Q taken in [-Q/2, Q/2), by the
// mixed radix digits of x and -x: x = d_1 + q_1·(d_2 + q_2·(…)).
func magnitude(r *ring.Ring, x ring.Poly) Noise {
	inverse := make([][]uint64, len(r.Moduli)) // of q_i mod q_j, i < j
	for j, m := range r.Moduli {
		for _, earlier := range r.Moduli[:j] {
			inverse[j] = append(inverse[j], m.Inv(m.ReduceWord(earlier.Q)))
		}
	}
	digits := make([]uint64, len(r.Moduli))
	defer clear(digits)
	compose := func(at int, negative bool) float64 {
		for j, m := range r.Moduli {
			d := x[j][at]
			if negative {
				d = m.Neg(d)
			}
			for i := range j {
				d = m.Mul(m.Sub(d, m.ReduceWord(digits[i])), inverse[j][i])
			}
			digits[j] = d
		}
		var out float64
		for j := len(digits) - 1; j >= 0; j-- {
			out = out*float64(r.Moduli[j].Q) + float64(digits[j])
		}
		return out
	}
	var found float64
	for at := range r.N {
		found = max(found, min(compose(at, false), compose(at, true)))
	}
	return Noise(found)
}

// MeasuredBudget returns the bits of noise that ct can still take in fact, before
// Decrypt refuses it.
func (sk *SecretKey) MeasuredBudget(ct *Ciphertext) (float64, error) {
	noise, err := sk.MeasureNoise(ct)
	if err != nil {
		return 0, err
	}
	return ct.p.Capacity(ct.level).Bits() - max(noise.Bits(), 0), nil
}

func (sk *SecretKey) decrypt(ct *Ciphertext) (*Plaintext, Noise, error) {
	if err := sk.live(); err != nil {
		return nil, 0, err
	}
	if ct == nil || ct.p == nil || !ct.p.SameLattice(sk.p) {
		return nil, 0, fmt.Errorf("%w: a secret key of %s, and %v", ErrMismatch, sk.p, ct)
	}
	phases := sk.phases(ct)
	defer func() {
		for _, phase := range phases {
			phase.Wipe()
		}
	}()
	return ct.Decode(phases)
}

// phases returns c0 + c1·s + c2·s² of every part, as coefficients.
func (sk *SecretKey) phases(ct *Ciphertext) []ring.Poly {
	r := ct.p.Ring(ct.level)
	out := make([]ring.Poly, len(ct.part))
	for k := range out {
		out[k] = r.NewPoly()
		for i := ct.degree; i > 0; i-- {
			if i == ct.degree {
				r.Mul(out[k], ct.part[k].c[i], sk.value)
			} else {
				r.Add(out[k], out[k], ct.part[k].c[i])
				r.Mul(out[k], out[k], sk.value)
			}
		}
		r.Add(out[k], out[k], ct.part[k].c[0])
		r.INTT(out[k])
	}
	return out
}

// Decode turns the phases c0 + c1·s (+ c2·s²) of ct's parts, as coefficients of
// Ring(Level), to the plaintext, and returns the noise it found, with a resolution
// of 2^-20 of the modulus: round(t/Q·phase) mod t, and the distance to that
// integer. Threshold decryption makes phases from shares. Errors are as Decrypt's.
func (ct *Ciphertext) Decode(phases []ring.Poly) (*Plaintext, Noise, error) {
	p := ct.p
	if err := p.room("a ciphertext to decrypt", ct.noise, ct.level); err != nil {
		return nil, 0, err
	}
	if len(phases) != len(ct.part) {
		return nil, 0, fmt.Errorf("%w: %d phases of a ciphertext of %d parts", ErrMismatch, len(phases), len(ct.part))
	}
	tables := p.level[ct.level-1]
	pt := newPlaintext(p)
	var found Noise
	s := new(strip)
	for k, phase := range phases {
		if err := checkPoly(tables.q, phase); err != nil {
			pt.Wipe()
			return nil, 0, err
		}
		distance := decode(s, pt.part[k], phase, tables.decrypt[k], p.plain[k].m)
		*s = strip{}
		if distance > 1<<62 {
			pt.Wipe()
			return nil, 0, fmt.Errorf("%w: found in the ciphertext; or the key is another, or the ciphertext damaged", ErrNoise)
		}
		v := math.Ldexp(float64(distance), -64) * p.modulusAt(ct.level) / float64(p.plain[k].m.Q)
		found = max(found, Noise(v))
	}
	return pt, found, nil
}

// decode sets message to round(t/Q·phase) mod t and returns the largest distance
// to an integer in units of 2^-64.
func decode(s *strip, message []uint64, phase ring.Poly, c *conversion, t *ring.Modulus) uint64 {
	var distance uint64
	for at := 0; at < len(message); at += block {
		c.prepare(s, phase, at)
		for k := range s.v {
			message[at+k] = t.ReduceWord(s.v[k])
			// rest is the fraction plus one half: |rest - 2^63|, maximum in constant time.
			d := s.rest[k] - 1<<63
			sign := uint64(int64(d) >> 63)
			d = (d ^ sign) - sign
			_, borrow := bits.Sub64(distance, d, 0)
			distance ^= -borrow & (distance ^ d)
		}
	}
	return distance
}
