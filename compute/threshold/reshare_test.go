package threshold

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// reshare runs a plan among members and gives them their new shares.
func reshare(t testing.TB, members []*member, plan Plan) []error {
	t.Helper()
	return inSession(t, members, func(s *compute.Session, m *member) error {
		var old *KeyShare
		for _, name := range plan.From {
			if name == m.party.Name {
				old = m.share
			}
		}
		next, err := Reshare(t.Context(), s, m.store, old, plan)
		if err == nil {
			m.share = next
		}
		return err
	})
}

// TestReshare: a key of 3 of 5 goes to 2 of 4, of whom two are new. What was encrypted before is decrypted after, the
// public key is the same, the old shares are gone from the disks and fit nothing.
func TestReshare(t *testing.T) {
	p := small(t)
	members := append(generated(t, p, smallPolicy, 5), newMembers(t, "org-07", "org-08")...)
	old := members[0].share.Key
	bystander := members[3].share
	want := []int64{7, -7, 1}
	ct := encrypt(t, old, want)
	shares, err := byFiles(t, members, "before", ct, 0, 1, 2)
	must(t, err)

	session := pick(members, 0, 1, 4, 5, 6) // org-00, 01 and 04 deal; 01, 04, 07 and 08 get
	plan := Plan{Parameters: p, From: []string{"org-00", "org-01", "org-04"}, To: []string{"org-01", "org-04", "org-07", "org-08"},
		Policy: Policy{Threshold: 2, Quota: 5}}
	must(t, errors.Join(reshare(t, session, plan)...))
	if members[0].share != nil {
		t.Error("a party that leaves has a share")
	}
	now := members[6].share.Key
	if now.ID() != old.ID() || now.Epoch() != 1 || !p.KeyRing().Equal(now.public[0], old.public[0]) {
		t.Errorf("%s became %s", old, now)
	}
	for _, m := range pick(members, 0, 1, 4) {
		entries, err := os.ReadDir(m.store.dir)
		must(t, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), stem(old.id, 0)) {
				t.Errorf("%s still has %s", m.party.Name, e.Name())
			}
		}
	}
	for _, set := range [][]int{{1, 4}, {5, 6}, {4, 6}} {
		d := decrypted(t, pick(members, set...), ct)
		wantValues(t, d.Plaintext, false, want)
	}
	k, err := members[5].store.Load(old.id)
	must(t, err)
	if k.Epoch() != 1 {
		t.Errorf("epoch %d was loaded", k.Epoch())
	}
	// Old shares and new ones do not mix, nor do decryption shares.
	members[3].share = bystander
	errs := inSession(t, pick(members, 1, 3), func(s *compute.Session, m *member) error {
		_, err := m.share.Decrypt(t.Context(), s, m.store, ct)
		return err
	})
	if errs[0] == nil || errs[1] == nil {
		t.Error("shares of two epochs decrypted together")
	}
	_, err = now.ParseShare(old.MarshalShare(shares[0]))
	wantError(t, err, ErrForeign)
	// The quota goes on: uses from before count.
	if _, source := hashCiphertext(ct); members[1].store.uses[old.id].bySource[source] != 2 {
		t.Errorf("%d uses of org-01 are counted", members[1].store.uses[old.id].bySource[source])
	}
	// And again, all back to three of three.
	must(t, errors.Join(reshare(t, pick(members, 1, 5, 6), Plan{Parameters: p, From: []string{"org-01", "org-08"},
		To: []string{"org-01", "org-07", "org-08"}, Policy: smallPolicy})...))
	wantValues(t, decrypted(t, pick(members, 6, 1, 5), ct).Plaintext, false, want)
}

// TestWrongReshare: a holder that deals something else than its share is named at once, one that deals a share of its
// own making with an error to match is found by the trial; the old shares stay.
func TestWrongReshare(t *testing.T) {
	p := small(t)
	plan := Plan{Parameters: p, From: orgs(3), To: orgs(3), Policy: smallPolicy}
	members := generated(t, p, smallPolicy, 3)
	ct := encrypt(t, members[0].share.Key, []int64{3})

	good := members[1].share.f.Clone()
	members[1].share.f[0][9] ^= 1
	errs := reshare(t, members, plan)
	wantParty(t, errs[0], "org-01", ErrDealing)
	wantParty(t, errs[2], "org-01", ErrDealing)

	r := p.KeyRing()
	delta := smallPoly(r, func(c []int32) { c[0] = 1 })
	e := members[1].share.e.Clone()
	r.Add(members[1].share.f, good, delta)
	r.MulAdd(members[1].share.e, p.PublicMask(members[1].share.seed), delta)
	wantError(t, errors.Join(reshare(t, members, plan)...), ErrProof)

	members[1].share.f, members[1].share.e = good, e
	wantValues(t, decrypted(t, members, ct).Plaintext, false, []int64{3})
	must(t, errors.Join(reshare(t, members, plan)...))
	wantValues(t, decrypted(t, members, ct).Plaintext, false, []int64{3})
}

// TestResharePlans: what does not fit the session or the key is refused before anything is dealt.
func TestResharePlans(t *testing.T) {
	p := small(t)
	members := generated(t, p, smallPolicy, 4)
	for what, c := range map[string]struct {
		session []*member
		plan    Plan
	}{
		"two deal of three":   {members, Plan{p, orgs(2), orgs(4), smallPolicy}},
		"four deal of three":  {members, Plan{p, orgs(4), orgs(4), smallPolicy}},
		"a party for nothing": {members, Plan{p, orgs(3), orgs(3), smallPolicy}},
		"a party missing":     {members[:3], Plan{p, orgs(3), orgs(4), smallPolicy}},
		"no parameters":       {members, Plan{nil, orgs(3), orgs(4), smallPolicy}},
	} {
		if err := errors.Join(reshare(t, c.session, c.plan)...); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := errors.Join(reshare(t, members, Plan{p, orgs(3), orgs(4), Policy{Threshold: 3, Smudging: 8, Quota: 1}})...)
	wantError(t, err, ErrUnsmudged)
}

// TestSwitch: only the recipient's key opens the result, the noise is within its bound, and it counts as a decryption.
func TestSwitch(t *testing.T) {
	p := small(t)
	members := generated(t, p, Policy{Threshold: 3, Quota: 1}, 5)
	want := []int64{8, 0, -3}
	ct := encrypt(t, members[0].share.Key, want)
	recipient := he.NewSecretKey(p)
	pk, err := recipient.PublicKey()
	must(t, err)
	out := make([]*he.Ciphertext, 3)
	act := func(s *compute.Session, m *member) (err error) {
		out[s.Self()], err = m.share.Switch(t.Context(), s, m.store, ct, pk)
		return err
	}
	must(t, errors.Join(inSession(t, pick(members, 4, 0, 2), act)...))
	for _, switched := range out {
		pt, err := recipient.Decrypt(switched)
		must(t, err)
		wantValues(t, pt, false, want)
		noise, err := recipient.MeasureNoise(switched)
		must(t, err)
		if noise > switched.Noise() || float64(noise) < math.Ldexp(1, 40) {
			t.Errorf("noise of 2^%.1f, bound 2^%.1f", noise.Bits(), switched.Noise().Bits())
		}
	}
	_, err = he.NewSecretKey(p).Decrypt(out[0])
	wantError(t, err, he.ErrNoise)
	wantError(t, errors.Join(inSession(t, pick(members, 4, 0, 2), act)...), ErrQuota)
	wantError(t, errors.Join(inSession(t, pick(members, 1, 3), act)...), ErrPolicy)
	other, err := he.NewSecretKey(p).PublicKey()
	must(t, err)
	ct = encrypt(t, members[0].share.Key, want)
	errs := inSession(t, pick(members, 0, 1, 2), func(s *compute.Session, m *member) error {
		to := pk
		if s.Self() == 1 {
			to = other
		}
		_, err := m.share.Switch(t.Context(), s, m.store, ct, to)
		return err
	})
	wantParty(t, errs[0], "org-01", compute.ErrMisbehaved)
}

// TestLagrange: the weights at any three points add the values of a polynomial of degree two to its value at 0.
func TestLagrange(t *testing.T) {
	r := smallRing(t)
	secret := uniformPoly(r)
	c := sharingPolynomial(r, secret.Clone(), 3)
	for _, points := range [][]uint64{{1, 2, 3}, {128, 1, 77}, {5, 4, 3}} {
		sum := r.NewPoly()
		for j, x := range points {
			r.Add(sum, sum, weighted(r, evaluate(r, c, x), points, j))
		}
		if !r.Equal(sum, secret) {
			t.Errorf("points %v give another secret", points)
		}
	}
	if got := evaluate(r, []ring.Poly{secret}, 9); !r.Equal(got, secret) {
		t.Error("a constant is not constant")
	}
}
