package threshold

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// A tamper is what a dishonest dealer does otherwise.
type tamper struct {
	secret  func(r *ring.Ring, f ring.Poly) // before it deals
	dealt   func(v *dealing, d *deal)       // before it commits
	sent    func(d *deal)                   // what it sends is not what it committed to
	opened  func(d *deal)                   // before it opens
	shown   func(d *deal)                   // before it answers complaints
	accuses []int
}

func call[T any](f func(T), x T) {
	if f != nil {
		f(x)
	}
}

// dishonest is dealing.run with a tamper.
func (v *dealing) dishonest(ctx context.Context, x tamper) (*dealt, error) {
	src := ring.FreshSource()
	f, e := smallPoly(v.ring, src.Ternary), smallPoly(v.ring, src.Binomial)
	if x.secret != nil {
		x.secret(v.ring, f)
	}
	own := v.newDeal(f, e)
	if x.dealt != nil {
		x.dealt(v, own)
	}
	views := make([]*view, len(v.dealers))
	excluded := make(map[int]error)
	coin := make([]byte, 2*saltSize)
	rand.Read(coin)
	coins, err := v.commit(ctx, own, coin, views)
	if err != nil {
		return nil, err
	}
	sent := &deal{to: map[int]sharePacket{}}
	for place, packet := range own.to {
		sent.to[place] = bytes.Clone(packet)
	}
	call(x.sent, sent)
	if err := v.distribute(ctx, sent, views); err != nil {
		return nil, err
	}
	call(x.opened, own)
	challenge, err := v.open(ctx, own, coin, coins, views, excluded)
	if err != nil {
		return nil, err
	}
	if err = v.respond(ctx, own, challenge, views, excluded); err != nil {
		return nil, err
	}
	call(x.shown, own)
	for _, dealer := range x.accuses {
		views[dealer].packet = nil
	}
	views[v.session.Self()].packet = own.to[v.session.Self()]
	if err = v.complain(ctx, own, challenge, views, excluded); err != nil {
		return nil, err
	}
	return v.sum(views, excluded)
}

// deals has five parties, the second one dishonest, deal over a ring with threshold 3, and returns what each has.
func deals(t *testing.T, r *ring.Ring, x tamper) ([]*sharing, []error) {
	t.Helper()
	out := make([]*sharing, 5)
	errs := inSession(t, newMembers(t, orgs(5)...), func(s *compute.Session, m *member) (err error) {
		if s.Self() != 1 {
			out[s.Self()], err = generate(t.Context(), s, r, 3)
			return err
		}
		v, seed, err := newDealing(t.Context(), s, r, 3)
		if err != nil {
			return err
		}
		made, err := v.dishonest(t.Context(), x)
		if err != nil {
			return err
		}
		out[1], err = v.accept(t.Context(), made, seed)
		return err
	})
	return out, errs
}

// secretOf interpolates from the shares of some places.
func secretOf(r *ring.Ring, shares []ring.Poly, places ...int) ring.Poly {
	var points []uint64
	for _, at := range places {
		points = append(points, uint64(at+1))
	}
	sum := r.NewPoly()
	for j, at := range places {
		r.Add(sum, sum, weighted(r, shares[at], points, j))
	}
	return sum
}

// checkSharing: any three shares make the same secret, a sum of at most dealers ternary polynomials, which belongs to
// the public key.
func checkSharing(t *testing.T, r *ring.Ring, made []*sharing, dealers int, sets ...[]int) {
	t.Helper()
	var f, e []ring.Poly
	for _, m := range made {
		f, e = append(f, m.f), append(e, m.e)
	}
	mask := r.NewPoly()
	r.Uniform(mask, made[0].seed, "public")
	first := secretOf(r, f, sets[0]...)
	for _, set := range sets {
		s, x := secretOf(r, f, set...), secretOf(r, e, set...)
		if !r.Equal(s, first) {
			t.Errorf("%v have another secret than %v", set, sets[0])
		}
		y := r.NewPoly()
		r.Mul(y, mask, s)
		r.Sub(y, x, y)
		if !r.Equal(y, made[0].public[0]) {
			t.Errorf("%v: the public key is not that of the secret", set)
		}
		r.INTT(s)
		r.INTT(x)
		if size, errors := float64(he.Magnitude(r, s)), float64(he.Magnitude(r, x)); size > float64(dealers) || size < 2 || errors > float64(dealers*ring.ErrorBound) {
			t.Errorf("%v: secret up to %g, error up to %g, of %d dealers", set, size, errors, dealers)
		}
	}
}

func smallRing(t testing.TB) *ring.Ring { return ringOf(t, 50) }

// ringOf returns a ring of degree 1024 and two primes.
func ringOf(t testing.TB, bits int) *ring.Ring {
	t.Helper()
	primes, err := ring.Primes(bits, 1024, 2)
	must(t, err)
	r, err := ring.New(1024, primes)
	must(t, err)
	return r
}

func TestHonestDealing(t *testing.T) {
	r := smallRing(t)
	made, errs := deals(t, r, tamper{})
	must(t, errors.Join(errs...))
	if len(made[0].excluded) > 0 {
		t.Errorf("excluded: %v", made[0].excluded)
	}
	checkSharing(t, r, made, 5, []int{0, 1, 2}, []int{2, 3, 4}, []int{4, 0, 3})
}

// change adds one to a residue of packet n's polynomial.
func change(d *deal, place, at int) { d.to[place][saltSize+at] ^= 1 }

// TestWrongDealersAreNamedAndExcluded: whatever dealer org-01 does to a share that others can see is wrong, all name
// it, and the key is that of the other four, its shares good at all parties.
func TestWrongDealersAreNamedAndExcluded(t *testing.T) {
	r := smallRing(t)
	size := he.PolySize(r)
	again := func(v *dealing, d *deal) { // packets anew, of changed polynomials
		for place, x := range v.points {
			packet := d.to[place][:saltSize]
			for _, c := range [][]ring.Poly{d.f, d.e, d.blind[0], d.blind[1]} {
				packet = he.AppendPoly(packet, v.ring, evaluate(v.ring, c, x))
			}
			d.to[place] = packet
		}
	}
	for what, x := range map[string]tamper{
		"a wrong share":           {dealt: func(_ *dealing, d *deal) { change(d, 3, 5) }},
		"a wrong error":           {dealt: func(_ *dealing, d *deal) { change(d, 3, size+5) }},
		"a wrong blinding":        {dealt: func(_ *dealing, d *deal) { change(d, 3, 3*size+5) }},
		"residues beyond a prime": {dealt: func(_ *dealing, d *deal) { copy(d.to[4][saltSize:], bytes.Repeat([]byte{0xff}, size)) }},
		"a share and error that fit": {dealt: func(v *dealing, d *deal) {
			// f + δ, e + a·δ: H can't tell, the low degree does.
			delta := smallPoly(r, func(c []int32) { c[0] = 1 })
			f, e := evaluate(r, d.f, 4), evaluate(r, d.e, 4)
			r.Add(f, f, delta)
			r.MulAdd(e, v.mask, delta)
			packet := he.AppendPoly(he.AppendPoly(d.to[3][:saltSize], r, f), r, e)
			d.to[3] = d.to[3][:cap(packet)][:v.packetSize()]
		}},
		"too high a degree": {dealt: func(v *dealing, d *deal) {
			f, e := d.f, d.e
			top, err := uniformPoly(r), r.NewPoly()
			r.Mul(err, v.mask, top) // H keeps its degree
			d.f, d.e = append(f[:3:3], top), append(e[:3:3], err)
			again(v, d)
			d.f, d.e = f, e
		}},
		"another opening":        {opened: func(d *deal) { d.open[7] ^= 1 }},
		"no opening":             {opened: func(d *deal) { d.open = nil }},
		"another polynomial":     {opened: func(d *deal) { d.f[1] = uniformPoly(r) }},
		"no answer to complaint": {sent: func(d *deal) { change(d, 3, 5) }, shown: func(d *deal) { d.to[3] = nil }},
		"another answer":         {sent: func(d *deal) { change(d, 3, 5) }, shown: func(d *deal) { change(d, 3, 9) }},
	} {
		t.Run(what, func(t *testing.T) {
			made, errs := deals(t, r, x)
			must(t, errors.Join(errs...))
			for i, m := range made {
				if len(m.excluded) != 1 {
					t.Fatalf("party %d excluded %v", i, m.excluded)
				}
				wantParty(t, m.excluded[1], "org-01", ErrDealing)
			}
			checkSharing(t, r, made, 4, []int{0, 1, 2}, []int{2, 3, 4}, []int{4, 0, 3})
		})
	}
}

// TestComplaintsThatAreAnswered: a share that was lost on the way comes by the answer; a false complaint harms nobody
// but who makes it. Either way no dealer is excluded.
func TestComplaintsThatAreAnswered(t *testing.T) {
	r := smallRing(t)
	for what, x := range map[string]tamper{
		"another share sent than committed to": {sent: func(d *deal) { change(d, 3, 5) }},
		"two complain":                         {sent: func(d *deal) { change(d, 3, 5); change(d, 0, 5) }},
		"a false complaint":                    {accuses: []int{0, 4}},
	} {
		t.Run(what, func(t *testing.T) {
			made, errs := deals(t, r, x)
			must(t, errors.Join(errs...))
			for i, m := range made {
				if len(m.excluded) != 0 {
					t.Errorf("party %d excluded %v", i, m.excluded)
				}
			}
			checkSharing(t, r, made, 5, []int{0, 1, 2}, []int{2, 3, 4}, []int{4, 0, 3})
		})
	}
}

// TestLargeSecretsDoNotPass: shares of a large secret are consistent; the trial finds it.
func TestLargeSecretsDoNotPass(t *testing.T) {
	r := smallRing(t)
	_, errs := deals(t, r, tamper{secret: func(r *ring.Ring, f ring.Poly) {
		r.Uniform(f, ring.NewSeed(), "large")
	}})
	for i, err := range errs {
		if !errors.Is(err, ErrProof) && !errors.Is(err, compute.ErrAborted) {
			t.Errorf("party %d: %v", i, err)
		}
	}
	wantError(t, errors.Join(errs...), ErrProof)
}

// TestTooFewDealersLeft: with threshold parties, one that deals wrongly ends it, and is named.
func TestTooFewDealersLeft(t *testing.T) {
	r := smallRing(t)
	errs := inSession(t, newMembers(t, orgs(3)...), func(s *compute.Session, m *member) error {
		v, seed, err := newDealing(t.Context(), s, r, 3)
		if err != nil {
			return err
		}
		x := tamper{}
		if s.Self() == 1 {
			x.dealt = func(_ *dealing, d *deal) { change(d, 0, 5) }
		}
		made, err := v.dishonest(t.Context(), x)
		if err == nil {
			_, err = v.accept(t.Context(), made, seed)
		}
		return err
	})
	wantParty(t, errs[0], "org-01", ErrDealing)
	says(t, errs[0], "2 dealers are left, 3 are needed")
}

// TestFewerThanThresholdLearnNothing: for every other secret there is exactly one dealing that gives the same two
// shares and publishes the same; here it is made, and all that two parties see of it is the same bytes.
func TestFewerThanThresholdLearnNothing(t *testing.T) {
	r := smallRing(t)
	src := ring.FreshSource()
	v := &dealing{ring: r, mask: uniformPoly(r), threshold: 3, points: []uint64{1, 2, 3, 4, 5}}
	d := v.newDeal(smallPoly(r, src.Ternary), smallPoly(r, src.Binomial))
	challenge := [challenges]ring.Poly{uniformPoly(r), uniformPoly(r)}
	seen := func(d *deal, places ...int) (h [32]byte) {
		sum := sha256.New()
		for k := range d.f { // the opening, without its salt
			y := r.NewPoly()
			r.Mul(y, v.mask, d.f[k])
			r.Sub(y, d.e[k], y)
			sum.Write(he.AppendPoly(nil, r, y))
		}
		sum.Write(v.response(d, challenge))
		for _, at := range places {
			for _, c := range [][]ring.Poly{d.f, d.e, d.blind[0], d.blind[1]} {
				sum.Write(he.AppendPoly(nil, r, evaluate(r, c, v.points[at])))
			}
		}
		return [32]byte(sum.Sum(nil))
	}
	// L = 1 - 3/2·x + 1/2·x² vanishes at 1 and 2 and is 1 at 0.
	other := &deal{}
	delta := smallPoly(r, src.Ternary) // any difference of secrets
	l := [3][]uint64{r.Scalar(1), r.Scalar(-3), r.Scalar(1)}
	for i, m := range r.Moduli {
		half := m.Inv(2)
		l[1][i], l[2][i] = m.Mul(l[1][i], half), m.Mul(l[2][i], half)
	}
	for k := range l {
		y := r.NewPoly()
		r.MulScalar(y, delta, l[k])
		f, e := d.f[k].Clone(), d.e[k].Clone()
		r.Add(f, f, y)
		r.MulAdd(e, v.mask, y)
		other.f, other.e = append(other.f, f), append(other.e, e)
		for i := range challenge {
			g, z := d.blind[i][k].Clone(), r.NewPoly()
			r.Mul(z, challenge[i], y)
			r.Sub(g, g, z)
			other.blind[i] = append(other.blind[i], g)
		}
	}
	if r.Equal(d.f[0], other.f[0]) {
		t.Fatal("the secrets are the same")
	}
	if seen(d, 0, 1) != seen(other, 0, 1) {
		t.Error("two parties can tell two secrets apart")
	}
	if seen(d, 0, 1, 2) == seen(other, 0, 1, 2) {
		t.Error("three parties can't tell two secrets apart")
	}
}

// TestSharesLookUniform: whatever the secret, each single share's residues are uniform (chi-square, 63 degrees of
// freedom; above 150 by chance in 1 of 10^8).
func TestSharesLookUniform(t *testing.T) {
	r := smallRing(t)
	for what, secret := range map[string]ring.Poly{
		"zero": r.NewPoly(),
		"ones": smallPoly(r, func(c []int32) {
			for i := range c {
				c[i] = 1
			}
		}),
	} {
		for x := uint64(1); x <= 2; x++ {
			bins := make([]float64, 64)
			total := 0.0
			for range 8 {
				share := evaluate(r, sharingPolynomial(r, secret.Clone(), 3), x)
				for i, m := range r.Moduli {
					for _, y := range share[i] {
						bins[int(float64(y)/float64(m.Q)*64)]++
						total++
					}
				}
			}
			chi := 0.0
			for _, n := range bins {
				chi += (n - total/64) * (n - total/64) / (total / 64)
			}
			if chi > 150 || chi < 20 {
				t.Errorf("secret of %s: chi-square of shares at %d is %.0f", what, x, chi)
			}
		}
	}
}

// TestSixtyFourParties: key generation among 64, over a small ring, and encryptions under the key that different
// parties open.
func TestSixtyFourParties(t *testing.T) {
	r := ringOf(t, 35)
	const n, threshold, bits, scale = 64, 2, 45, 60
	made := make([]*sharing, n)
	must(t, errors.Join(inSession(t, newMembers(t, orgs(n)...), func(s *compute.Session, m *member) (err error) {
		made[s.Self()], err = generate(t.Context(), s, r, threshold)
		return err
	})...))
	checkSharing(t, r, made, n, []int{0, 1}, []int{60, 5})
	src := ring.FreshSource()
	mask, message := r.NewPoly(), make([]int32, r.N)
	r.Uniform(mask, made[0].seed, "public")
	src.Ternary(message)
	u, c0, c1 := smallPoly(r, src.Ternary), smallPoly(r, src.Binomial), smallPoly(r, src.Binomial)
	r.MulAdd(c0, made[9].public[0], u)
	r.MulAdd(c1, mask, u)
	delta := r.Scalar(1)
	for i, m := range r.Moduli {
		delta[i] = m.Pow(2, scale)
	}
	scaled := smallPoly(r, func(c []int32) { copy(c, message) })
	r.MulScalar(scaled, scaled, delta)
	r.Add(c0, c0, scaled)
	for _, set := range [][]int{{1, 2}, {63, 31}} {
		phase := c0.Clone()
		points := pointsAt(set)
		for j, at := range set {
			r.Add(phase, phase, floodedShare(r, src, c1, weighted(r, made[at].f, points, j), bits))
		}
		r.Sub(phase, phase, scaled)
		r.INTT(phase)
		if noise := he.Magnitude(r, phase).Bits(); noise > bits+2 || noise < bits-2 {
			t.Errorf("%v open the message with noise of 2^%.1f", set, noise)
		}
	}
}
