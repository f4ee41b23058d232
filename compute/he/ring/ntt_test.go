package ring

import (
	"math/bits"
	"slices"
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

func (w *words) row(n int, q uint64) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = w.below(q)
	}
	return out
}

func testTransform(t testing.TB, bitLen, n int) *transform {
	t.Helper()
	p, err := Primes(bitLen, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewModulus(p[0])
	if err != nil {
		t.Fatal(err)
	}
	tr, err := newTransform(m, n)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// slowNTT evaluates at ψ^(2·brv(i)+1), one point at a time.
func slowNTT(tr *transform, a []uint64, i int) uint64 {
	m, n := tr.m, tr.n
	psi, _ := m.primitiveRoot(n)
	at := bits.Reverse64(uint64(i)) >> (64 - bits.Len(uint(n-1)))
	x, sum := m.Pow(psi, 2*at+1), uint64(0)
	for _, c := range slices.Backward(a) {
		sum = m.Add(m.Mul(sum, x), c%m.Q)
	}
	return sum
}

func TestPlainNTTEvaluates(t *testing.T) {
	for _, bitLen := range []int{30, 44, 50, 60} {
		for n := 1024; n <= 32768; n *= 2 {
			tr := testTransform(t, bitLen, n)
			w := words(n + bitLen)
			in := w.row(n, 4*tr.m.Q) // the lazy input range
			a := slices.Clone(in)
			tr.plainNTT(a)
			for range 8 {
				i := int(w.below(uint64(n)))
				if got, want := a[i], slowNTT(tr, in, i); got != want {
					t.Fatalf("N=%d, %d bits: value %d is %d, want %d", n, bitLen, i, got, want)
				}
			}
			tr.plainINTT(a)
			for i := range a {
				if a[i] != in[i]%tr.m.Q {
					t.Fatalf("N=%d, %d bits: inverse differs at %d", n, bitLen, i)
				}
			}
		}
	}
}

func benchmarkRow(b *testing.B, bitLen int, f func(*transform, []uint64)) {
	tr := testTransform(b, bitLen, 8192)
	w := words(1)
	a := w.row(8192, tr.m.Q)
	for b.Loop() {
		f(tr, a)
	}
}

func BenchmarkPlainNTT60(b *testing.B)  { benchmarkRow(b, 60, (*transform).plainNTT) }
func BenchmarkPlainINTT60(b *testing.B) { benchmarkRow(b, 60, (*transform).plainINTT) }
func BenchmarkNTT44(b *testing.B)       { benchmarkRow(b, 44, (*transform).ntt) }
func BenchmarkINTT44(b *testing.B)      { benchmarkRow(b, 44, (*transform).intt) }
