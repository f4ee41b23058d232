package threshold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// TestThreeOfFive: five organisations make a key and evaluation keys; a sum of products of encrypted columns, rotated,
// is decrypted by different threes, and right.
func TestThreeOfFive(t *testing.T) {
	p := parameters(t, he.Set8192, he.T16)
	members := newMembers(t, orgs(5)...)
	keys := make([]*he.EvaluationKeys, 5)
	must(t, errors.Join(inSession(t, members, func(s *compute.Session, m *member) (err error) {
		if m.share, err = Generate(t.Context(), s, m.store, p, Policy{Threshold: 3, Quota: 4}); err != nil {
			return err
		}
		keys[s.Self()], err = m.share.EvaluationKeys(t.Context(), s, p.GaloisElement(1), p.SwapElement())
		return err
	})...))
	n := p.N()
	x, y, z, want := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range x {
		x[i], y[i], z[i] = int64(i%199), int64(i%151)-75, int64(i)
	}
	for i := range want {
		row, at := i/(n/2)*(n/2), (i+1)%(n/2)
		want[i] = x[row+at]*y[row+at] + z[row+at]
	}
	ev, err := he.NewEvaluator(p, keys[4], 1)
	must(t, err)
	ct := new(he.Ciphertext)
	k := members[0].share.Key
	must(t, ev.MulRelin(ct, encrypt(t, k, x), encrypt(t, k, y)))
	must(t, ev.Add(ct, ct, encrypt(t, k, z)))
	must(t, ev.Rotate(ct, ct, 1))
	// Who had three shares would have the key, and could see that the noise keeps to its bound.
	secret := secretOf(p.KeyRing(), []ring.Poly{members[0].share.f, members[1].share.f, members[2].share.f}, 0, 1, 2)
	sk, err := he.SecretKeyOf(p, secret, k.Bounds())
	must(t, err)
	noise, err := sk.MeasureNoise(ct)
	must(t, err)
	if noise > ct.Noise() || ct.Bounds().Secret != 5 {
		t.Errorf("noise of 2^%.1f, bound 2^%.1f, bounds %v", noise.Bits(), ct.Noise().Bits(), ct.Bounds())
	}
	for _, set := range [][]int{{0, 1, 2}, {4, 1, 3}} {
		d := decrypted(t, pick(members, set...), ct)
		wantValues(t, d.Plaintext, true, want)
	}
	// A level less has room still.
	must(t, ev.ModSwitch(ct, ct))
	wantValues(t, decrypted(t, pick(members, 2, 3, 4), ct).Plaintext, true, want)
	// What was not relinearised has to be.
	must(t, ev.Mul(ct, encrypt(t, k, x), encrypt(t, k, y)))
	_, err = members[0].share.DecryptionShare(members[0].store, members[0].key, SessionID("product"), ct, []int{0, 1, 2})
	wantError(t, err, he.ErrMismatch)
}

// TestColumnInOneSession: a session decrypts as many ciphertexts as there are, each once.
func TestColumnInOneSession(t *testing.T) {
	members := generated(t, small(t), Policy{Threshold: 2, Quota: 2}, 2)
	var column []*he.Ciphertext
	for i := range 3 {
		column = append(column, encrypt(t, members[0].share.Key, []int64{int64(i)}))
	}
	errs := inSession(t, members, func(s *compute.Session, m *member) error {
		for i, ct := range column {
			d, err := m.share.Decrypt(t.Context(), s, m.store, ct)
			if err != nil {
				return err
			}
			wantValues(t, d.Plaintext, false, []int64{int64(i)})
		}
		_, err := m.share.Decrypt(t.Context(), s, m.store, column[1])
		return err
	})
	wantError(t, errors.Join(errs...), ErrReplayed)
}

// TestWrongEvaluationKeys: keys that a party has contributed something else to do not pass their trial.
func TestWrongEvaluationKeys(t *testing.T) {
	p := parameters(t, he.Set8192, he.T16)
	members := generated(t, p, Policy{Threshold: 2, Quota: 1}, 2)
	for what, elements := range map[string][]uint64{"relinearisation": nil, "Galois": {3}, "crafted": {3}} {
		errs := inSession(t, members, func(s *compute.Session, m *member) error {
			if s.Self() == 1 {
				m = &member{share: &KeyShare{Key: m.share.Key, self: 1, f: m.share.f.Clone(), e: m.share.e, pairs: m.share.pairs}}
				if what != "relinearisation" {
					return wrongGalois(t, s, m.share, elements, what == "crafted")
				}
				m.share.f[0][77] ^= 1
			}
			_, err := m.share.EvaluationKeys(t.Context(), s, elements...)
			return err
		})
		if !errors.Is(errors.Join(errs...), ErrProof) || errs[0] == nil {
			t.Errorf("%s: %v", what, errs)
		}
	}
}

// wrongGalois makes a right relinearisation key and a wrong Galois key: of another secret, or crafted to work on the
// public key's own a, whose digits are known beforehand.
func wrongGalois(t testing.TB, s *compute.Session, k *KeyShare, elements []uint64, crafted bool) error {
	points, share, err := k.joint(s)
	if err != nil {
		return err
	}
	terms := binary.BigEndian.AppendUint64(nil, elements[0])
	if err := s.Agree(t.Context(), "evaluation keys: terms", k.agreement("evaluation keys", terms)); err != nil {
		return err
	}
	m := &making{k: k, s: s, r: k.p.KeyRing(), src: ring.FreshSource(), share: share, parties: len(points), places: []int{0, 1}}
	keys := he.NewEvaluationKeys(k.p)
	relin, err := m.relinearisation(t.Context())
	if err != nil {
		return err
	}
	keys.SetRelinearisation(relin)
	right := m.share
	var key *he.SwitchingKey
	if crafted {
		key, err = craftedGalois(t, m, elements[0])
	} else {
		m.share = uniformPoly(m.r)
		key, err = m.galois(t.Context(), elements[0])
	}
	if err != nil {
		return err
	}
	m.share = right
	if err := keys.SetGalois(elements[0], key); err != nil {
		return err
	}
	return m.try(t.Context(), keys, elements)
}

// TestDepths: how many products, one on the other, three of five can still decrypt, by the proved bounds.
func TestDepths(t *testing.T) {
	policy := Policy{Threshold: 3, Quota: 1}
	for _, c := range []struct {
		set   he.Set
		plain uint64
		want  int
	}{
		{he.Set8192, he.T16, 2}, {he.Set8192, he.WidePrimes(1)[0], 1},
		{he.Set16384, he.T16, 6}, {he.Set16384, he.WidePrimes(1)[0], 4},
	} {
		p := parameters(t, c.set, c.plain)
		level := p.MaxLevel()
		limit, err := policy.Capacity(p, level, 5)
		must(t, err)
		depth := 0
		noise, keys := p.NoisePublicKey(Bounds(5)), EvaluationBounds(p.N(), 5, 5)
		for noise <= limit {
			depth++
			noise = p.NoiseMul(noise, noise, Bounds(5), level) + p.NoiseSwitch(keys, level)
		}
		if depth--; depth != c.want {
			t.Errorf("%s: %d products, want %d", p, depth, c.want)
		}
	}
}

// craftedGalois is galois with what d_2 is times too much in the key for d_1 and what d_1 is too little in that for d_2,
// d_1 and d_2 the digits of a: on a, they cancel.
func craftedGalois(t testing.TB, m *making, g uint64) (*he.SwitchingKey, error) {
	p := m.k.p
	coin, err := m.s.Coin(t.Context(), fmt.Sprintf("common reference string: Galois %d", g))
	if err != nil {
		return nil, err
	}
	a := p.PublicMask(m.k.seed)
	m.r.INTT(a)
	digit := func(row int) ring.Poly {
		out := m.r.NewPoly()
		for i, mod := range m.r.Moduli {
			for n, x := range a[row] {
				out[i][n] = mod.ReduceWord(x)
			}
		}
		m.r.NTT(out)
		return out
	}
	turned, seed := m.r.NewPoly(), ring.Seed(coin)
	p.TurnSecret(turned, m.share, g)
	var b []ring.Poly
	for d := range p.Digits() {
		x := m.masked(p.SwitchMask(seed, d), turned, true)
		p.AddGadget(x, m.share, d)
		b = append(b, x)
	}
	x, y := uniformPoly(m.r), m.r.NewPoly() // so large that no flood covers it
	m.r.Mul(y, x, digit(1))
	m.r.Add(b[0], b[0], y)
	m.r.Mul(y, x, digit(0))
	m.r.Sub(b[1], b[1], y)
	sums, err := m.collect(t.Context(), fmt.Sprintf("Galois key %d", g), false, b)
	if err != nil {
		return nil, err
	}
	return he.SwitchingKeyOf(p, &seed, sums[0], nil, he.KeyBounds{Secret: m.k.bounds.Secret, Error: float64(m.parties) * ring.ErrorBound})
}
