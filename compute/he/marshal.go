package he

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"fednode/compute/he/ring"
)

// polySize returns the bytes of a polynomial of a ring.
func polySize(r *ring.Ring) int {
	size := 0
	for _, m := range r.Moduli {
		size += r.N / 8 * m.Bits
	}
	return size
}

// Marshal returns ct as a file: level:8, degree:8, seeded:8, noise:64, the bounds of
// secret and errors: 64 each, the seed if there is one, and for each plaintext prime
// c0, c1 unless it is seeded, and c2 at degree 2. The bound of the noise is what
// its maker says: a reader who does not trust the maker must not rely on it.
func (ct *Ciphertext) Marshal() ([]byte, error) {
	if err := ct.p.usable(ct); err != nil {
		return nil, err
	}
	r := ct.p.Ring(ct.level)
	w := ct.p.create(KindCiphertext, 64+len(ct.part)*(ct.degree+1)*polySize(r))
	seeded := byte(0)
	if ct.seed != nil {
		seeded = 1
	}
	w.b = append(w.b, byte(ct.level), byte(ct.degree), seeded)
	w.float(float64(ct.noise))
	w.bounds(ct.bounds)
	if ct.seed != nil {
		w.b = append(w.b, ct.seed[:]...)
	}
	for k := range ct.part {
		for i := range ct.degree + 1 {
			if i != 1 || ct.seed == nil {
				w.poly(r, ct.part[k].c[i])
			}
		}
	}
	return w.finish(), nil
}

// ParseCiphertext reads a ciphertext of p. It returns ErrMismatch for a file of
// other parameters or another kind, ErrUnsupported for another version of the
// format, ErrMalformed for everything else, as all parsers of this package do.
func (p *Parameters) ParseCiphertext(file []byte) (*Ciphertext, error) {
	r, err := p.open(file, KindCiphertext)
	if err != nil {
		return nil, err
	}
	level, degree, seeded := int(r.byte()), int(r.byte()), r.byte()
	if r.err == nil && (level < 1 || level > p.MaxLevel() || degree < 1 || degree > 2 || seeded > 1 ||
		seeded == 1 && (degree != 1 || level != p.MaxLevel())) {
		return nil, fmt.Errorf("%w: a ciphertext of level %d, degree %d, seeded %d", ErrMalformed, level, degree, seeded)
	}
	noise, bounds := Noise(r.float()), r.bounds()
	if r.err != nil {
		return nil, r.err
	}
	if !(noise >= 1 && noise <= p.Capacity(level)) {
		return nil, fmt.Errorf("%w: a ciphertext with noise of %g at level %d", ErrMalformed, noise, level)
	}
	var seed ring.Seed
	if seeded == 1 {
		seed = r.seed()
	}
	ct := &Ciphertext{p: p, level: level, degree: degree, noise: noise, bounds: bounds, part: make([]part, p.Parts())}
	for k := range ct.part {
		for i := range degree + 1 {
			if i != 1 || seeded == 0 {
				ct.part[k].c[i] = r.poly(p.Ring(level))
			}
		}
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	if seeded == 1 {
		for k := range ct.part {
			ct.part[k].c[1] = p.q.NewPoly()
		}
		ct.expand(seed)
	}
	return ct, nil
}

// Marshal returns pk as a file: bounds, the seed of a, and b.
func (pk *PublicKey) Marshal() []byte {
	w := pk.p.create(KindPublicKey, 64+polySize(pk.p.qp))
	w.bounds(pk.bounds)
	w.b = append(w.b, pk.seed[:]...)
	w.poly(pk.p.qp, pk.b)
	return w.finish()
}

// ParsePublicKey reads a public key of p's lattice.
func (p *Parameters) ParsePublicKey(file []byte) (*PublicKey, error) {
	r, err := p.open(file, KindPublicKey)
	if err != nil {
		return nil, err
	}
	bounds, seed, b := r.bounds(), r.seed(), r.poly(p.qp)
	if err := r.done(); err != nil {
		return nil, err
	}
	return PublicKeyOf(p, seed, b, bounds)
}

// switching appends a switching key: seeded:8, bounds, the seed or all a, all b.
func (w *writer) switching(p *Parameters, k *SwitchingKey) {
	if k.seed != nil {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
	w.bounds(k.bounds)
	if k.seed != nil {
		w.b = append(w.b, k.seed[:]...)
	} else {
		for _, a := range k.a {
			w.poly(p.qp, a)
		}
	}
	for _, b := range k.b {
		w.poly(p.qp, b)
	}
}

func (r *reader) switching(p *Parameters) *SwitchingKey {
	seeded, bounds := r.byte(), r.bounds()
	if r.err == nil && seeded > 1 {
		r.err = fmt.Errorf("%w: a switching key seeded %d", ErrMalformed, seeded)
	}
	if r.err != nil {
		return nil
	}
	var seed *ring.Seed
	var a, b []ring.Poly
	if seeded == 1 {
		s := r.seed()
		seed = &s
	}
	for range p.Digits() {
		if seeded == 0 {
			a = append(a, r.poly(p.qp))
		}
	}
	for range p.Digits() {
		b = append(b, r.poly(p.qp))
	}
	if r.err != nil {
		return nil
	}
	k, err := SwitchingKeyOf(p, seed, b, a, bounds)
	r.fail(err)
	return k
}

// MarshalSwitchingKey returns a switching key of p as a file.
func (p *Parameters) MarshalSwitchingKey(k *SwitchingKey) []byte {
	w := p.create(KindSwitchingKey, 64+2*p.Digits()*polySize(p.qp))
	w.switching(p, k)
	return w.finish()
}

// ParseSwitchingKey reads a switching key of p's lattice.
func (p *Parameters) ParseSwitchingKey(file []byte) (*SwitchingKey, error) {
	r, err := p.open(file, KindSwitchingKey)
	if err != nil {
		return nil, err
	}
	k := r.switching(p)
	if err := r.done(); err != nil {
		return nil, err
	}
	return k, nil
}

// Marshal returns k as a file: the number of keys:32, and before each its Galois
// element:64, ascending; 0 is the relinearisation key.
func (k *EvaluationKeys) Marshal() []byte {
	elements := slices.Sorted(maps.Keys(k.galois))
	all := elements
	if k.relin != nil {
		all = append([]uint64{0}, elements...)
	}
	w := k.p.create(KindEvaluationKeys, len(all)*(64+k.p.Digits()*polySize(k.p.qp)))
	w.word(uint64(len(all)))
	for _, g := range all {
		w.word(g)
		if g == 0 {
			w.switching(k.p, k.relin)
		} else {
			w.switching(k.p, k.galois[g])
		}
	}
	return w.finish()
}

// ParseEvaluationKeys reads evaluation keys of p's lattice.
func (p *Parameters) ParseEvaluationKeys(file []byte) (*EvaluationKeys, error) {
	r, err := p.open(file, KindEvaluationKeys)
	if err != nil {
		return nil, err
	}
	keys := NewEvaluationKeys(p)
	count := r.word()
	if r.err == nil && count > uint64(p.N()) {
		return nil, fmt.Errorf("%w: %d evaluation keys", ErrMalformed, count)
	}
	last := uint64(0)
	for i := range count {
		g := r.word()
		if r.err == nil && i > 0 && g <= last {
			r.err = fmt.Errorf("%w: Galois elements not in order", ErrMalformed)
		}
		last = g
		k := r.switching(p)
		if r.err != nil {
			return nil, r.err
		}
		if g == 0 {
			keys.relin = k
		} else {
			r.fail(keys.SetGalois(g, k))
		}
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	return keys, nil
}

// secretWidth returns the bits of a coefficient in [-S, S], stored as x+S.
func secretWidth(b KeyBounds) int { return bits.Len64(2 * uint64(b.Secret)) }

// MarshalSecret returns sk as a file, bounds and N coefficients x+S. It is the
// secret: seal it before it reaches a disk, and clear it.
func (sk *SecretKey) MarshalSecret() ([]byte, error) {
	if err := sk.live(); err != nil {
		return nil, err
	}
	p, m := sk.p, sk.p.q.Moduli[0]
	row := slices.Clone(sk.value[0])
	defer clear(row)
	p.q.INTTRow(0, row)
	addConstant(row, m, uint64(sk.bounds.Secret))
	width := secretWidth(sk.bounds)
	w := p.create(KindSecretKey, 64+p.N()*width/8)
	w.bounds(sk.bounds)
	w.row(row, width)
	return w.finish(), nil
}

// ParseSecretKey reads a secret key of p's lattice.
func (p *Parameters) ParseSecretKey(file []byte) (*SecretKey, error) {
	r, err := p.open(file, KindSecretKey)
	if err != nil {
		return nil, err
	}
	bounds := r.bounds()
	if r.err != nil {
		return nil, r.err
	}
	row := make([]uint64, p.N())
	defer clear(row)
	r.row(row, secretWidth(bounds))
	if err := r.done(); err != nil {
		return nil, err
	}
	small := make([]int32, p.N())
	defer clear(small)
	s, over := uint64(bounds.Secret), uint64(0)
	for k, x := range row {
		over |= 2*s - x
		small[k] = int32(int64(x) - int64(s))
	}
	if over>>63 != 0 || float64(s) != bounds.Secret {
		return nil, fmt.Errorf("%w: a secret beyond its bound", ErrMalformed)
	}
	sk := secretOf(p, small)
	sk.bounds = bounds
	return sk, nil
}
