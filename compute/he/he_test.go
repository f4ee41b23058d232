package he

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"testing"
)

// words is a deterministic stream of test words (SplitMix64).
type words uint64

func (w *words) next() uint64 {
	*w += 0x9e3779b97f4a7c15
	z := uint64(*w)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (w *words) below(q uint64) uint64 {
	hi, _ := bits.Mul64(w.next(), q)
	return hi
}

// values returns n integers in [-t/2, t/2].
func (w *words) values(n int, t uint64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(w.below(t)) - int64(t/2)
	}
	return out
}

// A world is what tests of one set share; keys cost most of their time.
type world struct {
	p    *Parameters
	sk   *SecretKey
	pk   *PublicKey
	keys *EvaluationKeys
	ev   *Evaluator
}

var worlds sync.Map

func newWorld(t testing.TB, set Set, plain ...uint64) *world {
	t.Helper()
	name := fmt.Sprint(set, plain)
	if w, ok := worlds.Load(name); ok {
		return w.(*world)
	}
	p, err := New(set, plain...)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{p: p, sk: NewSecretKey(p)}
	w.pk, err = w.sk.PublicKey()
	must(t, err)
	w.keys, err = w.sk.EvaluationKeys(p.GaloisElement(1), p.GaloisElement(-3), p.GaloisElement(64), p.SwapElement())
	must(t, err)
	w.ev, err = NewEvaluator(p, w.keys, 1)
	must(t, err)
	worlds.Store(name, w)
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// mulMod returns a·b mod t in [-t/2, t/2].
func mulMod(a, b int64, t uint64) int64 {
	hi, lo := bits.Mul64(residue(a, t), residue(b, t))
	_, r := bits.Div64(hi, lo, t)
	return centre(r, t)
}

func addMod(a, b int64, t uint64) int64 {
	return centre(residue(a+b, t), t)
}

func residue(x int64, t uint64) uint64 {
	r := x % int64(t)
	if r < 0 {
		r += int64(t)
	}
	return uint64(r)
}

func centre(x, t uint64) int64 {
	if x > t/2 {
		return int64(x) - int64(t)
	}
	return int64(x)
}

func (w *world) encrypt(t testing.TB, v []int64) *Ciphertext {
	t.Helper()
	pt, err := w.p.EncodeSlots(v)
	must(t, err)
	ct, err := w.pk.Encrypt(pt)
	must(t, err)
	return ct
}

// expect decrypts ct, compares its slots and checks that the bound holds.
func (w *world) expect(t testing.TB, what string, ct *Ciphertext, want []int64) {
	t.Helper()
	pt, err := w.sk.Decrypt(ct)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got, err := pt.Slots()
	must(t, err)
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: slot %d is %d, want %d", what, i, got[i], want[i])
		}
	}
	measured, err := w.sk.MeasureNoise(ct)
	must(t, err)
	if measured > ct.Noise() {
		t.Fatalf("%s: noise is 2^%.1f, the bound 2^%.1f", what, measured.Bits(), ct.Noise().Bits())
	}
	t.Logf("%s: noise 2^%.1f, bound 2^%.1f, capacity 2^%.1f", what, measured.Bits(), ct.Noise().Bits(), ct.p.Capacity(ct.level).Bits())
}

func each(f func(int) int64, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = f(i)
	}
	return out
}

func TestHomomorphism(t *testing.T) {
	for _, set := range Sets() {
		for _, plain := range []uint64{T16, WidePrimes(1)[0]} {
			t.Run(fmt.Sprintf("%s/%d", set, plain), func(t *testing.T) { testHomomorphism(t, newWorld(t, set, plain), plain) })
		}
	}
}

func testHomomorphism(t *testing.T, w *world, plain uint64) {
	r, n := words(plain), w.p.N()
	a, b := r.values(n, plain), r.values(n, plain)
	ca, cb := w.encrypt(t, a), w.encrypt(t, b)
	w.expect(t, "encrypted", ca, a)
	pt, err := w.p.EncodeSlots(b)
	must(t, err)
	cs, err := w.sk.Encrypt(pt)
	must(t, err)
	w.expect(t, "encrypted with the secret key", cs, b)
	dst := new(Ciphertext)
	must(t, w.ev.Add(dst, ca, cb))
	w.expect(t, "sum", dst, each(func(i int) int64 { return addMod(a[i], b[i], plain) }, n))
	must(t, w.ev.Sub(dst, ca, cb))
	w.expect(t, "difference", dst, each(func(i int) int64 { return addMod(a[i], -b[i], plain) }, n))
	must(t, w.ev.Neg(dst, ca))
	w.expect(t, "negative", dst, each(func(i int) int64 { return -a[i] }, n))
	must(t, w.ev.AddPlain(dst, ca, pt))
	w.expect(t, "plain sum", dst, each(func(i int) int64 { return addMod(a[i], b[i], plain) }, n))
	if err := w.ev.MulPlain(dst, ca, NewFactor(pt)); err == nil {
		w.expect(t, "plain product", dst, each(func(i int) int64 { return mulMod(a[i], b[i], plain) }, n))
	} else {
		wantError(t, err, ErrNoise)
	}
	must(t, w.ev.Rotate(dst, ca, 1))
	half := n / 2
	turned := func(steps int) []int64 {
		return each(func(i int) int64 { return a[i/half*half+(i+steps+half)%half] }, n)
	}
	w.expect(t, "rotation", dst, turned(1))
	must(t, w.ev.SwapRows(dst, ca))
	w.expect(t, "swap", dst, each(func(i int) int64 { return a[(i+half)%n] }, n))
	h, err := w.ev.Hoist(ca)
	must(t, err)
	must(t, w.ev.RotateHoisted(dst, h, -3))
	w.expect(t, "hoisted rotation", dst, turned(-3))
	testDepth(t, w, plain, a, b, ca, cb)
}

// testDepth multiplies until the bound refuses, at falling levels too.
func testDepth(t *testing.T, w *world, plain uint64, a, b []int64, ca, cb *Ciphertext) {
	x, ct := append([]int64(nil), a...), ca.Clone()
	fresh := cb.Clone()
	depth := 0
	for ; ; depth++ {
		next := new(Ciphertext)
		err := w.ev.MulRelin(next, ct, fresh)
		if err != nil {
			wantError(t, err, ErrNoise)
			break
		}
		two := new(Ciphertext)
		must(t, w.ev.Mul(two, ct, fresh))
		for i := range x {
			x[i] = mulMod(x[i], b[i], plain)
		}
		w.expect(t, fmt.Sprintf("product %d of degree 2", depth+1), two, x)
		must(t, w.ev.Relinearise(two, two))
		w.expect(t, fmt.Sprintf("product %d relinearised", depth+1), two, x)
		w.expect(t, fmt.Sprintf("product %d", depth+1), next, x)
		ct = next
		lower := new(Ciphertext)
		if depth == 0 && w.ev.ModSwitch(lower, ct) == nil {
			w.expect(t, "switched product", lower, x)
			must(t, w.ev.ModSwitch(fresh, fresh))
			ct = lower
		}
	}
	want := map[Set]map[uint64]int{Set4096: {T16: 1}, Set8192: {T16: 3}, Set16384: {T16: 7}}[w.p.Set()][plain]
	if depth < want {
		t.Errorf("depth %d, want at least %d", depth, want)
	}
	t.Logf("depth %d", depth)
}
