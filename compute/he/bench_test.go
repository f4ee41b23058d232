package he

import (
	"syscall"
	"testing"
	"time"
)

// processorTime is what the process has used: on a busy machine it tells more than the clock.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmark(b *testing.B, set Set, workers int, f func(w *world, ev *Evaluator, x, y *Ciphertext) func() error) {
	w := newWorld(b, set, T16)
	ev, err := NewEvaluator(w.p, w.keys, workers)
	must(b, err)
	r := words(1)
	x, y := w.encrypt(b, r.values(w.p.N(), T16)), w.encrypt(b, r.values(w.p.N(), T16))
	op := f(w, ev, x, y)
	must(b, op())
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		must(b, op())
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
}

func mulRelin(_ *world, ev *Evaluator, x, y *Ciphertext) func() error {
	dst := new(Ciphertext)
	return func() error { return ev.MulRelin(dst, x, y) }
}

func rotate(_ *world, ev *Evaluator, x, _ *Ciphertext) func() error {
	dst := new(Ciphertext)
	return func() error { return ev.Rotate(dst, x, 1) }
}

func BenchmarkMulRelin4096(b *testing.B)  { benchmark(b, Set4096, 1, mulRelin) }
func BenchmarkMulRelin(b *testing.B)      { benchmark(b, Set8192, 1, mulRelin) }
func BenchmarkMulRelin2(b *testing.B)     { benchmark(b, Set8192, 2, mulRelin) }
func BenchmarkMulRelin16384(b *testing.B) { benchmark(b, Set16384, 1, mulRelin) }
func BenchmarkRotate(b *testing.B)        { benchmark(b, Set8192, 1, rotate) }
func BenchmarkRotate2(b *testing.B)       { benchmark(b, Set8192, 2, rotate) }
func BenchmarkRotateHoisted(b *testing.B) {
	benchmark(b, Set8192, 1, func(_ *world, ev *Evaluator, x, _ *Ciphertext) func() error {
		dst := new(Ciphertext)
		h, err := ev.Hoist(x)
		must(b, err)
		return func() error { return ev.RotateHoisted(dst, h, 1) }
	})
}

func BenchmarkAdd(b *testing.B) {
	benchmark(b, Set8192, 1, func(_ *world, ev *Evaluator, x, y *Ciphertext) func() error {
		dst := new(Ciphertext)
		return func() error { return ev.Add(dst, x, y) }
	})
}

func BenchmarkMulPlain(b *testing.B) {
	benchmark(b, Set8192, 1, func(w *world, ev *Evaluator, x, _ *Ciphertext) func() error {
		r := words(2)
		pt, err := w.p.EncodeSlots(r.values(w.p.N(), T16))
		must(b, err)
		f, dst := NewFactor(pt), new(Ciphertext)
		return func() error { return ev.MulPlain(dst, x, f) }
	})
}

func BenchmarkEncrypt(b *testing.B) {
	benchmark(b, Set8192, 1, func(w *world, _ *Evaluator, _, _ *Ciphertext) func() error {
		r := words(2)
		pt, err := w.p.EncodeSlots(r.values(w.p.N(), T16))
		must(b, err)
		return func() error { _, err := w.pk.Encrypt(pt); return err }
	})
}

func BenchmarkEncryptSecret(b *testing.B) {
	benchmark(b, Set8192, 1, func(w *world, _ *Evaluator, _, _ *Ciphertext) func() error {
		r := words(2)
		pt, err := w.p.EncodeSlots(r.values(w.p.N(), T16))
		must(b, err)
		return func() error { _, err := w.sk.Encrypt(pt); return err }
	})
}

func BenchmarkDecrypt(b *testing.B) {
	benchmark(b, Set8192, 1, func(w *world, _ *Evaluator, x, _ *Ciphertext) func() error {
		return func() error { _, err := w.sk.Decrypt(x); return err }
	})
}

func BenchmarkEncode(b *testing.B) {
	benchmark(b, Set8192, 1, func(w *world, _ *Evaluator, _, _ *Ciphertext) func() error {
		r := words(2)
		v := r.values(w.p.N(), T16)
		return func() error { _, err := w.p.EncodeSlots(v); return err }
	})
}
