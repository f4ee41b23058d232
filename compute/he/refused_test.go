package he

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
)

func TestParametersOffTheTableAreRefused(t *testing.T) {
	for _, c := range []struct {
		set  Set
		want error
		says string
	}{
		{Set{512, 14}, ErrInsecure, "degree 512"},
		{Set{3000, 54}, ErrInsecure, "degree 3000"},
		{Set{65536, 1700}, ErrInsecure, "degree 65536"},
		{Set{1024, 28}, ErrInsecure, "more than the standard's 27"},
		{Set{2048, 55}, ErrInsecure, "more than the standard's 54"},
		{Set{4096, 110}, ErrInsecure, "more than the standard's 109"},
		{Set{8192, 219}, ErrInsecure, "more than the standard's 218"},
		{Set{16384, 439}, ErrInsecure, "more than the standard's 438"},
		{Set{32768, 882}, ErrInsecure, "more than the standard's 881"},
		{Set{4096, 100}, ErrUnsupported, "take one of [4096/109 8192/218 16384/438]"},
		{Set{1024, 27}, ErrUnsupported, "take one of"},
		{Set{32768, 881}, ErrUnsupported, "take one of"},
		{Set{0, 0}, ErrInsecure, "degree 0"},
	} {
		_, err := New(c.set, T16)
		wantError(t, err, c.want)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q does not say %q", c.set, err, c.says)
		}
	}
}

// TestSetsKeepToTheTable counts the bits of the primes themselves, the special one included.
func TestSetsKeepToTheTable(t *testing.T) {
	for _, set := range Sets() {
		p := newWorld(t, set, T16).p
		whole := big.NewInt(1)
		for _, q := range p.KeyRing().Primes() {
			whole.Mul(whole, word(q))
		}
		if whole.BitLen() > MaxBits(set.N) || whole.BitLen() > set.Bits {
			t.Errorf("%s: Q·P has %d bits, the standard allows %d", set, whole.BitLen(), MaxBits(set.N))
		}
	}
}

func TestPlaintextModuliRefused(t *testing.T) {
	for what, plain := range map[string][]uint64{
		"none": {}, "a composite": {65536}, "an even number": {1 << 20}, "four": append(WidePrimes(3), T16),
		"the same twice": {T16, T16}, "one of 35 bits": {1<<34 + 25}, "zero": {0},
	} {
		if _, err := New(Set4096, plain...); err == nil {
			t.Errorf("plaintext moduli: %s was accepted", what)
		} else {
			wantError(t, err, ErrUnsupported)
		}
	}
}

// TestSlotsNeedTheRoot: 40961 = 5·2^13+1 has slots at N = 4096 and none at 8192; 257 has none at either.
func TestSlotsNeedTheRoot(t *testing.T) {
	for _, c := range []struct {
		set   Set
		plain []uint64
		slots int
	}{
		{Set4096, []uint64{40961}, 4096}, {Set8192, []uint64{40961}, 0}, {Set4096, []uint64{257}, 0},
		{Set4096, []uint64{T16, 257}, 0}, // one of two is enough to have none
	} {
		p, err := New(c.set, c.plain...)
		must(t, err)
		if p.Slots() != c.slots {
			t.Errorf("t = %v at %s claims %d slots, want %d", c.plain, c.set, p.Slots(), c.slots)
		}
		_, err = p.EncodeSlots([]int64{1, 2, 3})
		if c.slots > 0 {
			must(t, err)
			continue
		}
		wantError(t, err, ErrSlots)
		if says := fmt.Sprintf("is not 1 mod %d", 2*c.set.N); !strings.Contains(err.Error(), says) {
			t.Errorf("%q does not say %q", err, says)
		}
		pt, err := p.EncodeCoefficients([]int64{1, -2, 3})
		must(t, err)
		_, err = pt.Slots()
		wantError(t, err, ErrSlots)
		sk := NewSecretKey(p)
		ct, err := sk.Encrypt(pt)
		must(t, err)
		back, err := sk.Decrypt(ct)
		must(t, err)
		got, err := back.Coefficients()
		must(t, err)
		if got[0] != 1 || got[1] != -2 || got[2] != 3 || got[3] != 0 {
			t.Errorf("t = %v: coefficients came back as %v", c.plain, got[:4])
		}
	}
}

// TestExhaustedNoiseIsRefused: by the bound, whatever the noise; by the noise found, whatever the bound says.
func TestExhaustedNoiseIsRefused(t *testing.T) {
	w := newWorld(t, Set4096, T16)
	r := words(5)
	ct := w.encrypt(t, r.values(w.p.N(), T16))
	bound := ct.Clone()
	bound.noise = w.p.Capacity(bound.level) * 1.01
	_, err := w.sk.Decrypt(bound)
	wantError(t, err, ErrNoise)
	wantError(t, w.ev.Add(new(Ciphertext), ct, bound), ErrNoise)

	noisy := ct.Clone() // a value at one point is noise everywhere
	m := w.p.q.Moduli[0]
	noisy.part[0].c[0][0][0] = m.Add(noisy.part[0].c[0][0][0], m.Q/2)
	_, err = w.sk.Decrypt(noisy)
	wantError(t, err, ErrNoise)
	_, err = w.sk.MeasureNoise(noisy)
	wantError(t, err, ErrNoise)

	_, err = NewSecretKey(w.p).Decrypt(ct)
	wantError(t, err, ErrNoise)
	wiped := NewSecretKey(w.p)
	wiped.Wipe()
	_, err = wiped.Decrypt(ct)
	wantError(t, err, ErrNoKey)
}

func TestSecretKeysDoNotPrint(t *testing.T) {
	sk := newWorld(t, Set4096, T16).sk
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb, sk); got != redactedKey {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestIntInDecimal(t *testing.T) {
	r := words(3)
	for _, x := range append([]Int{{}, NewInt(1), NewInt(-1), NewInt(math.MaxInt64), NewInt(math.MinInt64), {math.MinInt64, 0},
		{math.MaxInt64, math.MaxUint64}, {0, 1e19}, {0, 1e19 - 1}}, Int{int64(r.next()), r.next()}, Int{int64(r.next() >> 20), r.next()}) {
		want := new(big.Int).Lsh(big.NewInt(x.Hi), 64)
		if want.Add(want, word(x.Lo)); x.String() != want.String() {
			t.Errorf("%v is written as %s, want %s", [2]any{x.Hi, x.Lo}, x.String(), want)
		}
	}
}
