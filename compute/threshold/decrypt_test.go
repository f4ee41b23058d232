package threshold

import (
	"crypto"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// byFiles has the members of a set release shares of ct under a session's name.
func byFiles(t testing.TB, members []*member, name string, ct *he.Ciphertext, set ...int) ([]*DecryptionShare, error) {
	t.Helper()
	var out []*DecryptionShare
	for _, i := range set {
		m := members[i]
		d, err := m.share.DecryptionShare(m.store, m.key, SessionID(name), ct, set)
		if err != nil {
			return nil, err
		}
		// The way of a file or a message.
		if d, err = m.share.ParseShare(m.share.MarshalShare(d)); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// TestDecryptionByFiles: shares of any three parties give the plaintext, and only together, of their own session,
// ciphertext, set and sharing.
func TestDecryptionByFiles(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 5)
	k := members[0].share.Key
	want := []int64{1, -2, 3, 8, -8}
	ct, other := encrypt(t, k, want), encrypt(t, k, want)
	shares, err := byFiles(t, members, "monday", ct, 0, 2, 4)
	must(t, err)
	pt, err := k.Combine(SessionID("monday"), ct, shares)
	must(t, err)
	wantValues(t, pt, false, want)

	foreign := func(what string, err error, name string) {
		t.Helper()
		if !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
		wantParty(t, err, name, ErrForeign)
	}
	_, err = k.Combine(SessionID("tuesday"), ct, shares)
	foreign("another session", err, "org-00")
	_, err = k.Combine(SessionID("monday"), other, shares)
	foreign("another ciphertext", err, "org-00")
	_, err = k.Combine(SessionID("monday"), ct, []*DecryptionShare{shares[0], shares[1], shares[1]})
	foreign("a party twice", err, "org-02")
	more, err := byFiles(t, members, "monday", ct, 0, 1, 4)
	must(t, err)
	_, err = k.Combine(SessionID("monday"), ct, []*DecryptionShare{shares[0], shares[1], more[2]})
	foreign("another set", err, "org-04")
	_, err = k.Combine(SessionID("monday"), ct, shares[:2])
	wantError(t, err, ErrPolicy)

	again := generated(t, small(t), smallPolicy, 5)
	_, err = again[0].share.ParseShare(k.MarshalShare(shares[0]))
	wantError(t, err, ErrForeign)
	b := k.MarshalShare(shares[0])
	b[200] ^= 4
	_, err = k.ParseShare(b)
	wantError(t, err, ErrMalformed)
	says(t, err, "does not verify")
	_, err = members[0].share.DecryptionShare(members[0].store, members[1].key, SessionID("x"), ct, []int{0, 1, 2})
	wantError(t, err, ErrPolicy)
	for _, set := range [][]int{{0, 1}, {0, 1, 1}, {1, 2, 3}, {0, 1, 5}, {0, 2, 1}, {0, 1, 2, 3}, {-1, 0, 1}} {
		_, err = members[0].share.DecryptionShare(members[0].store, members[0].key, SessionID("x"), ct, set)
		wantError(t, err, ErrPolicy)
	}
}

// TestWrongSharesDoNotDecrypt: of three shares, one changed at random makes noise, and no numbers come out.
func TestWrongSharesDoNotDecrypt(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 3)
	k := members[0].share.Key
	ct := encrypt(t, k, []int64{1, 2, 3})
	errs := inSession(t, members, func(s *compute.Session, m *member) error {
		if s.Self() == 1 {
			m.share.f[0][0] ^= 1 // one residue of its share
			defer func() { m.share.f[0][0] ^= 1 }()
		}
		_, err := m.share.Decrypt(t.Context(), s, m.store, ct)
		return err
	})
	wantError(t, errs[0], ErrShares)
	wantError(t, errors.Join(errs...), he.ErrNoise)
}

// TestSkilfulSharesAreNamed: org-03 adds a plaintext of its choice to its shares, which no noise shows. Five parties
// get the right result and name it; four know that something is wrong; three are deceived, as the package doc says.
func TestSkilfulSharesAreNamed(t *testing.T) {
	p := small(t)
	members := generated(t, p, smallPolicy, 5)
	k := members[0].share.Key
	want := []int64{1, 2, 3}
	deceive := func(set ...int) ([]*Decryption, []error) {
		chosen := pick(members, set...)
		out := make([]*Decryption, len(chosen))
		ct := encrypt(t, k, want)
		errs := inSession(t, chosen, func(s *compute.Session, m *member) (err error) {
			if m != members[3] {
				out[s.Self()], err = m.share.Decrypt(t.Context(), s, m.store, ct)
				return err
			}
			return skilful(t, s, m, ct)
		})
		return out, errs
	}
	out, errs := deceive(0, 1, 2, 3, 4)
	for _, i := range []int{0, 1, 2, 4} {
		must(t, errs[i])
		wantValues(t, out[i].Plaintext, false, want)
		if got := fmt.Sprint(out[i].Suspects); got != "[[org-03]]" {
			t.Errorf("party %d suspects %s", i, got)
		}
	}
	_, errs = deceive(0, 1, 2, 3)
	wantError(t, errs[0], ErrShares)
	out, errs = deceive(0, 1, 3)
	must(t, errs[0])
	wantValues(t, out[0].Plaintext, false, []int64{5, 2, 3})
}

// skilful is Decrypt with ⌊Q/17⌋·4 added to every share.
func skilful(t testing.TB, s *compute.Session, m *member, ct *he.Ciphertext) error {
	k, ctx := m.share, t.Context()
	_, places, err := k.pointsOf(s.Roster())
	if err != nil {
		return err
	}
	sets, err := subsets(places, k.policy.Threshold)
	if err != nil {
		return err
	}
	whole, _ := hashCiphertext(ct)
	if err := s.Agree(ctx, "decryption: ciphertext", k.agreement("decrypt", whole[:])); err != nil {
		return err
	}
	own, err := k.release(m.store, m.key, s.ID(), ct, slices.DeleteFunc(sets, func(set []int) bool { return !slices.Contains(set, k.self) }))
	if err != nil {
		return err
	}
	// Q/17·4 is (Q-1)/17·4 or so: 4/17 of Q in every residue is -r/17·4 mod q_i, r = Q mod 17.
	r := k.p.Ring(ct.Level())
	q := uint64(1)
	for _, x := range r.Primes() {
		q = q * (x % 17) % 17
	}
	shift := smallPoly(r, func(c []int32) { c[0] = -4 * int32(q) })
	inverse := make([]uint64, len(r.Moduli))
	for i, mod := range r.Moduli {
		inverse[i] = mod.Inv(17)
	}
	r.MulScalar(shift, shift, inverse)
	for _, d := range own {
		r.Add(d.h[0], d.h[0], shift)
		if d.signature, err = m.key.Sign(nil, d.signedText(k.p), noHash); err != nil {
			return err
		}
	}
	_, err = k.swap(ctx, s, ct, own)
	return err
}

// TestSeveralExplanations: a liar that lies only in sets with one other party is suspected together with it, not it alone.
func TestSeveralExplanations(t *testing.T) {
	k := &Key{policy: Policy{Threshold: 3}}
	for _, name := range orgs(5) {
		party, _ := identity(name)
		k.parties = append(k.parties, party)
	}
	places := []int{0, 1, 2, 3, 4}
	sets, err := subsets(places, 3)
	must(t, err)
	p := small(t)
	right, err := p.EncodeCoefficients([]int64{1})
	must(t, err)
	wrong, err := p.EncodeCoefficients([]int64{2})
	must(t, err)
	judge := func(lies func(set []int) *he.Plaintext) (*Decryption, error) {
		var results []*he.Plaintext
		for _, set := range sets {
			results = append(results, lies(set))
		}
		return k.judge(sets, places, results)
	}
	with := func(set []int, all ...int) bool {
		return !slices.ContainsFunc(all, func(x int) bool { return !slices.Contains(set, x) })
	}
	for _, c := range []struct {
		lies func(set []int) *he.Plaintext
		want string
	}{
		{func([]int) *he.Plaintext { return right }, "[]"},
		{func(set []int) *he.Plaintext {
			if with(set, 2) {
				return nil
			}
			return right
		}, "[[org-02]]"},
		{func(set []int) *he.Plaintext {
			if with(set, 2) {
				return wrong
			}
			return right
		}, "[[org-02]]"},
		{func(set []int) *he.Plaintext {
			if with(set, 2, 4) {
				return wrong
			}
			return right
		}, "[[org-02] [org-04]]"},
		{func(set []int) *he.Plaintext {
			if with(set, 0, 1, 2) {
				return nil
			}
			return right
		}, "[[org-00] [org-01] [org-02]]"},
	} {
		d, err := judge(c.lies)
		must(t, err)
		if got := fmt.Sprint(d.Suspects); got != c.want || !d.Plaintext.Equal(right) {
			t.Errorf("suspects %s, want %s", got, c.want)
		}
	}
	_, err = judge(func(set []int) *he.Plaintext {
		if with(set, 2) || with(set, 3) {
			return nil
		}
		return right
	})
	wantError(t, err, ErrShares)
}

// TestNoiseIsFloodedForTheWorst: the error of a share is as large as the modulus permits, whatever the ciphertext says
// of itself, and 2^40 times the noise that is accepted.
func TestNoiseIsFloodedForTheWorst(t *testing.T) {
	p := small(t)
	members := generated(t, p, smallPolicy, 3)
	k := members[0].share.Key
	f, err := k.policy.flooding(p, p.MaxLevel(), 0)
	must(t, err)
	if ratio := math.Ldexp(1, f.bits) / float64(f.worst); ratio < 1<<40 {
		t.Errorf("flood of 2^%d over noise of 2^%.1f", f.bits, f.worst.Bits())
	}
	limit := float64(p.Capacity(p.MaxLevel()))
	if total := 3*math.Ldexp(1, f.bits) + float64(f.worst); total > limit || total < limit/2.01 {
		t.Errorf("three floods are 2^%.2f of 2^%.2f", math.Log2(total), math.Log2(limit))
	}
	ct := encrypt(t, k, []int64{1})
	r := p.Ring(ct.Level())
	for _, noise := range []he.Noise{1, f.worst} {
		claims, err := he.CiphertextOf(p, ct.Level(), [][]ring.Poly{{ct.Poly(0, 0).Clone(), ct.Poly(0, 1).Clone()}}, noise, ct.Bounds())
		must(t, err)
		d, err := members[1].share.DecryptionShare(members[1].store, members[1].key, SessionID(fmt.Sprint(noise)), claims, []int{0, 1, 2})
		must(t, err)
		plain := r.NewPoly()
		r.Mul(plain, ct.Poly(0, 1), weighted(r, members[1].share.f, []uint64{1, 2, 3}, 1))
		r.Sub(plain, d.h[0], plain)
		_, source := hashCiphertext(claims)
		use := useOf("decrypt", SessionID(fmt.Sprint(noise)), []int{0, 1, 2}, source)
		r.Sub(plain, plain, members[1].share.pairs.mask(r, 1, []int{0, 1, 2}, use, 0))
		r.INTT(plain)
		if got := he.Magnitude(r, plain).Bits(); got > float64(f.bits) || got < float64(f.bits)-0.1 {
			t.Errorf("claimed noise of %g: flood of 2^%.2f, want 2^%d", noise, got, f.bits)
		}
	}
	over, err := he.CiphertextOf(p, ct.Level(), [][]ring.Poly{{ct.Poly(0, 0).Clone(), ct.Poly(0, 1).Clone()}}, f.worst*1.01, ct.Bounds())
	must(t, err)
	_, err = members[1].share.DecryptionShare(members[1].store, members[1].key, SessionID("over"), over, []int{0, 1, 2})
	wantError(t, err, he.ErrNoise)
}

// TestPoliciesRefused: by name, what is not safe.
func TestPoliciesRefused(t *testing.T) {
	p := small(t)
	for what, c := range map[string]struct {
		p      *he.Parameters
		policy Policy
		want   error
		says   string
	}{
		"unsmudged":        {p, Policy{Threshold: 2, Smudging: 39, Quota: 1}, ErrUnsmudged, "at least 2^40"},
		"no smudging":      {p, Policy{Threshold: 2, Smudging: -1, Quota: 1}, ErrUnsmudged, "at least 2^40"},
		"unlimited":        {p, Policy{Threshold: 2}, ErrUnlimited, "say how often"},
		"in fact no limit": {p, Policy{Threshold: 2, Quota: 1 << 30}, ErrUnlimited, "is none"},
		"one decrypts":     {p, Policy{Threshold: 1, Quota: 1}, ErrPolicy, "threshold of 1"},
		"four of three":    {p, Policy{Threshold: 4, Quota: 1}, ErrPolicy, "threshold of 4"},
		"no room":          {parameters(t, he.Set4096, he.T16), Policy{Threshold: 2, Quota: 1}, ErrNoRoom, "larger parameters"},
		"no room for more": {p, Policy{Threshold: 2, Smudging: 60, Quota: 1}, ErrNoRoom, "larger parameters"},
	} {
		errs := inSession(t, newMembers(t, orgs(3)...), func(s *compute.Session, m *member) error {
			_, err := Generate(t.Context(), s, m.store, c.p, c.policy)
			return err
		})
		if err := errors.Join(errs...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		} else {
			says(t, err, c.says)
		}
	}
	if _, err := (Policy{Threshold: 3, Quota: 1}).Capacity(parameters(t, he.Set8192, he.T16), 4, 5); err != nil {
		t.Error(err)
	}
}

// TestPoliciesThatDiffer: parties that do not mean the same do not make a key.
func TestPoliciesThatDiffer(t *testing.T) {
	errs := inSession(t, newMembers(t, orgs(3)...), func(s *compute.Session, m *member) error {
		policy := Policy{Threshold: 2, Quota: 1}
		if s.Self() == 1 {
			policy.Quota = 9
		}
		_, err := Generate(t.Context(), s, m.store, small(t), policy)
		return err
	})
	wantParty(t, errs[0], "org-01", compute.ErrMisbehaved)
	wantParty(t, errs[2], "org-01", compute.ErrMisbehaved)
}

// TestWhoMayDecrypt: parties of the key, with their keys, enough of them, and agreed on the ciphertext.
func TestWhoMayDecrypt(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 4)
	k := members[0].share.Key
	ct, other := encrypt(t, k, []int64{1}), encrypt(t, k, []int64{1})
	decrypt := func(s *compute.Session, m *member) error {
		_, err := m.share.Decrypt(t.Context(), s, m.store, ct)
		return err
	}
	wantError(t, inSession(t, members[:2], decrypt)[0], ErrPolicy)
	outsider := newMembers(t, "org-99")[0]
	outsider.share = members[0].share
	wantError(t, inSession(t, []*member{members[1], members[2], outsider}, decrypt)[0], ErrPolicy)
	errs := inSession(t, members[:3], func(s *compute.Session, m *member) error {
		mine := ct
		if s.Self() == 2 {
			mine = other
		}
		_, err := m.share.Decrypt(t.Context(), s, m.store, mine)
		return err
	})
	wantParty(t, errs[0], "org-02", compute.ErrMisbehaved)
	members[0].share.Wipe()
	wantError(t, inSession(t, members[:3], decrypt)[0], ErrNoShare)
}

// TestMissingParty: whoever leaves in the middle of a decryption or of making a key is named.
func TestMissingParty(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 3)
	ct := encrypt(t, members[0].share.Key, []int64{1})
	for what, act := range map[string]func(s *compute.Session, m *member) error{
		"decryption": func(s *compute.Session, m *member) error {
			_, err := m.share.Decrypt(t.Context(), s, m.store, ct)
			return err
		},
		"key generation": func(s *compute.Session, m *member) error {
			_, err := Generate(t.Context(), s, m.store, small(t), smallPolicy)
			return err
		},
		"evaluation keys": func(s *compute.Session, m *member) error {
			_, err := m.share.EvaluationKeys(t.Context(), s)
			return err
		},
	} {
		nets := tcpNets(t, members)
		errs := over(t, nets, members, func(s *compute.Session, m *member) error {
			if s.Self() == 2 {
				return nets[2].Close()
			}
			return act(s, m)
		})
		wantParty(t, errs[0], "org-02", compute.ErrMissing)
		if errs[1] == nil {
			t.Errorf("%s without a party succeeded", what)
		}
	}
}

// TestOverTCP: everything once over connections, for integers of two plaintext primes.
func TestOverTCP(t *testing.T) {
	members := newMembers(t, orgs(3)...)
	policy, p := Policy{Threshold: 2, Quota: 3}, parameters(t, he.Set8192, he.WidePrimes(2)...)
	keys := make([]*he.EvaluationKeys, 3)
	must(t, errors.Join(over(t, tcpNets(t, members), members, func(s *compute.Session, m *member) (err error) {
		if m.share, err = Generate(t.Context(), s, m.store, p, policy); err == nil {
			keys[s.Self()], err = m.share.EvaluationKeys(t.Context(), s)
		}
		return err
	})...))
	want := []int64{16, 25, 9e16}
	ct := encrypt(t, members[0].share.Key, []int64{4, 5, -3e8})
	ev, err := he.NewEvaluator(p, keys[1], 1)
	must(t, err)
	must(t, ev.MulRelin(ct, ct, ct))
	must(t, errors.Join(over(t, tcpNets(t, members), members, func(s *compute.Session, m *member) error {
		d, err := m.share.Decrypt(t.Context(), s, m.store, ct)
		if err == nil {
			wantValues(t, d.Plaintext, true, want)
		}
		return err
	})...))
}

const noHash = crypto.Hash(0)
