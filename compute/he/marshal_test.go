package he

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew (a new version of the format)")

// reseal puts the right hash at the end of a file.
func reseal(file []byte) []byte {
	out := bytes.Clone(file)
	sum := sha256.Sum256(out[:len(out)-32])
	copy(out[len(out)-32:], sum[:])
	return out
}

func mustBytes(t testing.TB) func([]byte, error) []byte {
	return func(b []byte, err error) []byte { t.Helper(); must(t, err); return b }
}

func TestFilesRoundTrip(t *testing.T) {
	for _, set := range Sets() {
		w := newWorld(t, set, T16)
		r := words(set.N)
		v := r.values(w.p.N(), T16)
		pt, err := w.p.EncodeSlots(v)
		must(t, err)
		seeded, err := w.sk.Encrypt(pt)
		must(t, err)
		full := w.encrypt(t, v)
		low := new(Ciphertext)
		must(t, w.ev.ModSwitch(low, full))
		three := new(Ciphertext)
		must(t, w.ev.Mul(three, full, seeded))
		for _, ct := range []*Ciphertext{seeded, full, low, three} {
			file := mustBytes(t)(ct.Marshal())
			p, err := ParametersOf(file)
			must(t, err)
			back, err := p.ParseCiphertext(file)
			must(t, err)
			if again := mustBytes(t)(back.Marshal()); !bytes.Equal(again, file) {
				t.Fatal("a parsed ciphertext is written differently")
			}
			if ct != three {
				w.expect(t, "parsed", back, v)
			}
			t.Logf("%s: level %d, degree %d: %d bytes", set, ct.level, ct.degree, len(file))
		}
		secret := mustBytes(t)(w.sk.MarshalSecret())
		sk, err := w.p.ParseSecretKey(secret)
		must(t, err)
		if !w.p.qp.Equal(sk.value, w.sk.value) {
			t.Fatal("a parsed secret key is another")
		}
		pk, err := w.p.ParsePublicKey(w.pk.Marshal())
		must(t, err)
		ct, err := pk.Encrypt(pt)
		must(t, err)
		w.expect(t, "encrypted with a parsed key", ct, v)
		file := w.keys.Marshal()
		keys, err := w.p.ParseEvaluationKeys(file)
		must(t, err)
		if !bytes.Equal(keys.Marshal(), file) {
			t.Fatal("parsed evaluation keys are written differently")
		}
		t.Logf("%s: public key %d, evaluation keys (5) %d bytes", set, len(w.pk.Marshal()), len(file))
	}
}

func TestSwitchingKeyFileWithoutSeed(t *testing.T) {
	w := newWorld(t, Set4096, T16)
	k := *w.keys.relin
	k.seed = nil
	back, err := w.p.ParseSwitchingKey(w.p.MarshalSwitchingKey(&k))
	must(t, err)
	for i := range k.a {
		if !w.p.qp.Equal(back.a[i], k.a[i]) || !w.p.qp.Equal(back.b[i], k.b[i]) {
			t.Fatal("a parsed switching key is another")
		}
	}
}

// parsers are all of them; each must refuse what is not its own.
func (w *world) parsers() map[Kind]func([]byte) error {
	return map[Kind]func([]byte) error{
		KindCiphertext:     func(b []byte) error { _, err := w.p.ParseCiphertext(b); return err },
		KindPublicKey:      func(b []byte) error { _, err := w.p.ParsePublicKey(b); return err },
		KindEvaluationKeys: func(b []byte) error { _, err := w.p.ParseEvaluationKeys(b); return err },
		KindSwitchingKey:   func(b []byte) error { _, err := w.p.ParseSwitchingKey(b); return err },
		KindSecretKey:      func(b []byte) error { _, err := w.p.ParseSecretKey(b); return err },
	}
}

func (w *world) files(t testing.TB) map[Kind][]byte {
	pt, err := w.p.EncodeSlots([]int64{1, -2, 3})
	must(t, err)
	ct, err := w.sk.Encrypt(pt)
	must(t, err)
	return map[Kind][]byte{
		KindCiphertext:     mustBytes(t)(ct.Marshal()),
		KindPublicKey:      w.pk.Marshal(),
		KindEvaluationKeys: w.keys.Marshal(),
		KindSwitchingKey:   w.p.MarshalSwitchingKey(w.keys.relin),
		KindSecretKey:      mustBytes(t)(w.sk.MarshalSecret()),
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	w := newWorld(t, Set4096, T16)
	foreign, err := New(Set8192, T16)
	must(t, err)
	others := (&world{p: foreign}).parsers()
	for kind, file := range w.files(t) {
		parse := w.parsers()[kind]
		must(t, parse(file))
		wantError(t, others[kind](file), ErrMismatch)
		for other, f := range w.parsers() {
			if other != kind {
				wantError(t, f(file), ErrMismatch)
			}
		}
		r := words(len(file))
		for range 64 {
			flipped := bytes.Clone(file)
			flipped[6+r.below(uint64(len(file)-6))] ^= 1 << r.below(8)
			wantError(t, parse(flipped), ErrMalformed)
			wantError(t, parse(file[:r.below(uint64(len(file)))]), ErrMalformed)
			short := bytes.Clone(file[:118+r.below(uint64(len(file)-118))])
			if parse(reseal(short)) == nil {
				t.Fatalf("a truncated %s of %d bytes with the right hash was accepted", kind, len(short))
			}
		}
		wantError(t, parse(reseal(append(bytes.Clone(file), 0))), ErrMalformed)
		newer := bytes.Clone(file)
		newer[4]++
		wantError(t, parse(reseal(newer)), ErrUnsupported)
	}
}

// TestResiduesBeyondTheirPrimeAreRefused: the hash does not protect from malice.
func TestResiduesBeyondTheirPrimeAreRefused(t *testing.T) {
	w := newWorld(t, Set4096, T16)
	for kind, file := range w.files(t) {
		bad := bytes.Clone(file)
		for i := range 16 {
			bad[len(bad)-33-i] = 0xff // the last residues: all ones
		}
		wantError(t, w.parsers()[kind](reseal(bad)), ErrMalformed)
	}
}

func TestLyingBoundsAreRefused(t *testing.T) {
	w := newWorld(t, Set4096, T16)
	ct := w.encrypt(t, []int64{1})
	for _, change := range []func(*Ciphertext){
		func(c *Ciphertext) { c.noise = -1 },
		func(c *Ciphertext) { c.noise = 1e300 },
		func(c *Ciphertext) { c.noise /= 0 * c.noise },
		func(c *Ciphertext) { c.bounds.Secret = 0 },
		func(c *Ciphertext) { c.bounds.Error = 1e300 },
	} {
		bad := ct.Clone()
		change(bad)
		_, err := w.p.ParseCiphertext(mustBytes(t)(bad.Marshal()))
		wantError(t, err, ErrMalformed)
	}
}

// goldenValues are in slots 0 … of the golden ciphertext.
var goldenValues = []int64{1, -2, 3, 32768, -32768}

// TestGoldenFiles opens files of every format version there has been.
func TestGoldenFiles(t *testing.T) {
	p, err := New(Set4096, T16)
	must(t, err)
	if *update {
		writeGolden(t, p)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		must(t, err)
		return b
	}
	sk, err := p.ParseSecretKey(read("secret.key"))
	must(t, err)
	pk, err := p.ParsePublicKey(read("public.key"))
	must(t, err)
	keys, err := p.ParseEvaluationKeys(read("evaluation.keys"))
	must(t, err)
	seeded, err := p.ParseCiphertext(read("seeded.ct"))
	must(t, err)
	ev, err := NewEvaluator(p, keys, 1)
	must(t, err)
	w := &world{p: p, sk: sk, pk: pk, ev: ev}
	w.expect(t, "golden ciphertext", seeded, goldenValues)
	product := new(Ciphertext)
	must(t, ev.MulRelin(product, seeded, w.encrypt(t, []int64{5, 6, 7, 2, 2})))
	w.expect(t, "golden product", product, []int64{5, -12, 21, -1, 1})
}

func writeGolden(t *testing.T, p *Parameters) {
	must(t, os.MkdirAll(filepath.Join("testdata", "v1"), 0o755))
	sk := NewSecretKey(p)
	pk, err := sk.PublicKey()
	must(t, err)
	keys, err := sk.EvaluationKeys()
	must(t, err)
	pt, err := p.EncodeSlots(goldenValues)
	must(t, err)
	ct, err := sk.Encrypt(pt)
	must(t, err)
	for name, b := range map[string][]byte{
		"secret.key": mustBytes(t)(sk.MarshalSecret()), "public.key": pk.Marshal(),
		"evaluation.keys": keys.Marshal(), "seeded.ct": mustBytes(t)(ct.Marshal()),
	} {
		must(t, os.WriteFile(filepath.Join("testdata", "v1", name), b, 0o644))
	}
}

// fuzzFile gives a parser of resealed bytes: the hash would stop every mutation.
func fuzzFile(f *testing.F, kind Kind) {
	w := newWorld(f, Set4096, T16)
	file := w.files(f)[kind]
	f.Add(file, false)
	f.Add(file[:len(file)/2], true)
	f.Add(file[:150], true)
	parse := w.parsers()[kind]
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) > 32 {
			b = reseal(b)
		}
		parse(b)
	})
}

func FuzzParseCiphertext(f *testing.F)     { fuzzFile(f, KindCiphertext) }
func FuzzParsePublicKey(f *testing.F)      { fuzzFile(f, KindPublicKey) }
func FuzzParseEvaluationKeys(f *testing.F) { fuzzFile(f, KindEvaluationKeys) }
func FuzzParseSwitchingKey(f *testing.F)   { fuzzFile(f, KindSwitchingKey) }
func FuzzParseSecretKey(f *testing.F)      { fuzzFile(f, KindSecretKey) }
