package ring

import (
	"math/big"
	"math/bits"
	"slices"
	"testing"
)

// schoolbook returns a·b mod X^N+1 and q, b given by its coefficients other than 0.
func schoolbook(m *Modulus, a []uint64, b map[int]uint64) []uint64 {
	n := len(a)
	out := make([]uint64, n)
	for at, y := range b {
		for i, x := range a {
			hi, lo := bits.Mul64(x, y)
			_, p := bits.Div64(hi, lo, m.Q)
			if k := i + at; k < n {
				out[k] = (out[k] + p) % m.Q
			} else {
				out[k-n] = (out[k-n] + m.Q - p) % m.Q
			}
		}
	}
	return out
}

// TestProductsAgainstSchoolbook multiplies by way of the transform and by definition: dense polynomials at the
// smallest degree, one of them sparse at the others.
func TestProductsAgainstSchoolbook(t *testing.T) {
	for n := MinDegree; n <= MaxDegree; n *= 2 {
		for _, bitLen := range []int{27, 44, 50, 60} {
			primes, err := Primes(bitLen, n, 2)
			if err != nil {
				t.Fatal(err)
			}
			r, err := New(n, primes)
			if err != nil {
				t.Fatal(err)
			}
			w := words(n * bitLen)
			terms := 8
			if n == MinDegree {
				terms = n
			}
			a, b, product := r.NewPoly(), r.NewPoly(), r.NewPoly()
			want := r.NewPoly()
			for i, m := range r.Moduli {
				copy(a[i], w.row(n, m.Q))
				sparse := map[int]uint64{0: m.Q - 1, n - 1: m.Q - 1}
				for len(sparse) < terms {
					sparse[int(w.below(uint64(n)))] = w.below(m.Q)
				}
				for at, y := range sparse {
					b[i][at] = y
				}
				want[i] = schoolbook(m, a[i], sparse)
			}
			r.NTT(a)
			r.NTT(b)
			r.Mul(product, a, b)
			r.INTT(product)
			if !r.Equal(product, want) {
				t.Fatalf("N=%d, %d bits: the product differs from schoolbook's", n, bitLen)
			}
		}
	}
}

// TestTurns compares an automorphism of values with that of coefficients.
func TestTurns(t *testing.T) {
	primes, err := Primes(44, 2048, 2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(2048, primes)
	if err != nil {
		t.Fatal(err)
	}
	w := words(7)
	a, turned, values, permuted := r.NewPoly(), r.NewPoly(), r.NewPoly(), r.NewPoly()
	for i, m := range r.Moduli {
		copy(a[i], w.row(r.N, m.Q))
	}
	r.Copy(values, a)
	r.NTT(values)
	for _, g := range []uint64{3, 5, 4095, 2049} {
		r.Automorphism(turned, a, g)
		r.NTT(turned)
		r.Permute(permuted, values, r.Permutation(g))
		if !r.Equal(turned, permuted) {
			t.Errorf("X → X^%d differs between values and coefficients", g)
		}
	}
}

func TestRingsRefused(t *testing.T) {
	good, err := Primes(44, 1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		n      int
		primes []uint64
	}{
		"a degree below the least":      {512, good},
		"a degree above the largest":    {65536, good},
		"a degree no power of two":      {1536, good},
		"a prime without the root":      {1024, []uint64{1<<31 - 1}},
		"a composite":                   {1024, []uint64{2049 * 2049}},
		"a prime of more than 60 bits":  {1024, []uint64{1<<61 - 1}},
		"the same prime twice":          {1024, []uint64{good[0], good[0]}},
		"nothing that could be a prime": {1024, []uint64{0}},
	} {
		if _, err := New(c.n, c.primes); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

// FuzzModulus holds every reduction against math/big.
func FuzzModulus(f *testing.F) {
	f.Add(uint64(1)<<60-93, uint64(1)<<60-94, uint64(1)<<60-94)
	f.Add(uint64(11), uint64(10), uint64(1)<<63)
	f.Add(uint64(65537), ^uint64(0), ^uint64(0))
	f.Fuzz(func(t *testing.T, q, a, b uint64) {
		m, err := NewModulus(q)
		if err != nil {
			return
		}
		big64 := func(x uint64) *big.Int { return new(big.Int).SetUint64(x) }
		mod := func(x *big.Int) uint64 { return x.Mod(x, big64(q)).Uint64() }
		check := func(what string, got uint64, want *big.Int) {
			if w := mod(want); got != w {
				t.Errorf("%s of %d, %d mod %d is %d, want %d", what, a, b, q, got, w)
			}
		}
		check("ReduceWord", m.ReduceWord(a), big64(a))
		if s := int64(a) >> 2; true {
			check("ReduceSigned", m.ReduceSigned(s), big.NewInt(s))
		}
		x, y := m.ReduceWord(a), m.ReduceWord(b)
		check("Add", m.Add(x, y), new(big.Int).Add(big64(a), big64(b)))
		check("Sub", m.Sub(x, y), new(big.Int).Sub(big64(a), big64(b)))
		check("Neg", m.Neg(x), new(big.Int).Neg(big64(a)))
		product := new(big.Int).Mul(big64(a), big64(b))
		check("Mul", m.Mul(x, y), new(big.Int).Set(product))
		check("MulShoup", m.MulShoup(a, y, m.Shoup(y)), product)
		if x != 0 {
			check("Inv", m.Mul(m.Inv(x), x), big.NewInt(1))
		}
		// The largest value that Reduce promises to take.
		hi, lo := a&(uint64(1)<<(m.Bits-4)-1), b
		wide := new(big.Int).Lsh(big64(hi), 64)
		check("Reduce", m.Reduce(hi, lo), wide.Add(wide, big64(lo)))
	})
}

// FuzzNTT holds the transforms in use against the plain ones, whatever this processor uses, and inverts them.
func FuzzNTT(f *testing.F) {
	for _, bitLen := range []uint8{27, 36, 44, 50, 51, 60} {
		f.Add(bitLen, uint8(0), uint64(bitLen), []byte{0xff, 0, 1})
		f.Add(bitLen, uint8(3), uint64(bitLen), []byte{})
	}
	f.Fuzz(func(t *testing.T, bitLen, logN uint8, seed uint64, head []byte) {
		n := MinDegree << (logN % 6)
		primes, err := Primes(20+int(bitLen)%41, n, 1)
		if err != nil {
			return
		}
		tr := testTransform(t, bits.Len64(primes[0]), n)
		w := words(seed)
		in := w.row(n, 4*tr.m.Q)
		for i, b := range head {
			if i < n && b < 8 { // edges of the lazy range
				in[i] = []uint64{0, 1, tr.m.Q - 1, tr.m.Q, 2*tr.m.Q - 1, 2 * tr.m.Q, 4*tr.m.Q - 1, 3 * tr.m.Q}[b]
			}
		}
		a, b := slices.Clone(in), slices.Clone(in)
		tr.ntt(a)
		tr.plainNTT(b)
		if !slices.Equal(a, b) {
			t.Fatalf("N=%d, q=%d: the transform in use differs from the plain one", n, tr.m.Q)
		}
		for i := range a {
			b[i] += tr.m.Q & -(w.next() & 1) // below 2q
			a[i] = b[i]
		}
		tr.intt(a)
		tr.plainINTT(b)
		if !slices.Equal(a, b) {
			t.Fatalf("N=%d, q=%d: the inverse in use differs from the plain one", n, tr.m.Q)
		}
		for i := range a {
			if a[i] != in[i]%tr.m.Q {
				t.Fatalf("N=%d, q=%d: the inverse differs from what was transformed at %d", n, tr.m.Q, i)
			}
		}
	})
}

// FuzzRows holds products of rows against math/bits.
func FuzzRows(f *testing.F) {
	for _, bitLen := range []uint8{27, 36, 44, 50, 51, 60} {
		f.Add(bitLen, uint8(4), uint64(bitLen))
	}
	f.Fuzz(func(t *testing.T, bitLen, terms uint8, seed uint64) {
		const n = 1024
		primes, err := Primes(20+int(bitLen)%41, n, 1)
		if err != nil {
			return
		}
		m, err := NewModulus(primes[0])
		if err != nil {
			t.Fatal(err)
		}
		w := words(seed)
		limit := 16
		if m.Bits > 56 {
			limit = 1 << (60 - m.Bits)
		}
		var a, b [][]uint64
		want := make([]uint64, n)
		for range 1 + int(terms)%limit {
			x, y := w.row(n, m.Q), w.row(n, m.Q)
			x[0], y[0] = m.Q-1, m.Q-1
			a, b = append(a, x), append(b, y)
			for j := range want {
				hi, lo := bits.Mul64(x[j], y[j])
				_, p := bits.Div64(hi, lo, m.Q)
				want[j] = (want[j] + p) % m.Q
			}
		}
		out := make([]uint64, n)
		m.DotRow(out, a, b)
		if !slices.Equal(out, want) {
			t.Fatalf("q=%d: the sum of %d products differs", m.Q, len(a))
		}
		clear(out)
		for i := range a {
			m.MulAddRow(out, a[i], b[i])
		}
		if !slices.Equal(out, want) {
			t.Fatalf("q=%d: %d products added differ", m.Q, len(a))
		}
		m.MulRow(out, a[0], b[0])
		for j := range out {
			if out[j] != m.Mul(a[0][j], b[0][j]) {
				t.Fatalf("q=%d: product %d differs", m.Q, j)
			}
		}
		m.ScaleRow(out, a[0], b[0][1])
		for j := range out {
			if out[j] != m.Mul(a[0][j], b[0][1]) {
				t.Fatalf("q=%d: multiple %d differs", m.Q, j)
			}
		}
	})
}

// FuzzSums holds weighted sums and multiples of rows, by whatever this processor uses, against the plain ones, at the
// edges of what they take too.
func FuzzSums(f *testing.F) {
	for _, bitLen := range []uint8{27, 36, 44, 49, 50, 51, 60} {
		f.Add(bitLen, uint8(9), uint64(bitLen), false)
		f.Add(bitLen, uint8(16), uint64(bitLen), true)
	}
	f.Fuzz(func(t *testing.T, bitLen, terms uint8, seed uint64, edge bool) {
		const n = 520 // two blocks and a bit
		primes, err := Primes(20+int(bitLen)%41, 1024, 1)
		if err != nil {
			return
		}
		m, err := NewModulus(primes[0])
		if err != nil {
			t.Fatal(err)
		}
		w := words(seed)
		var rows [][]uint64
		var weights, fractions []uint64
		for range 1 + int(terms)%vectorTermsTested {
			row := w.row(n, 1<<50)
			weight, fraction := w.below(m.Q), w.next()
			if edge {
				row[0], row[n-1], weight, fraction = 1<<50-1, 1<<50-1, m.Q-1, ^uint64(0)
			}
			rows, weights, fractions = append(rows, row), append(weights, weight), append(fractions, fraction)
		}
		got, want := make([]uint64, n), make([]uint64, n)
		m.CombineRow(got, rows, weights)
		m.plainCombine(want, rows, weights)
		if !slices.Equal(got, want) {
			t.Fatalf("q=%d: the weighted sum of %d rows differs from the plain one", m.Q, len(rows))
		}
		wide := slices.Clone(rows[:min(len(rows), 8)]) // as conversions have it: a row of 52 bits beside those of 50
		wide[0] = slices.Repeat([]uint64{1<<52 - 1}, n)
		widest, plain := make([]uint64, n), make([]uint64, n)
		m.CombineRow(widest, wide, weights[:len(wide)])
		m.plainCombine(plain, wide, weights[:len(wide)])
		if !slices.Equal(widest, plain) {
			t.Fatalf("q=%d: the weighted sum of %d rows, one of 52 bits, differs from the plain one", m.Q, len(wide))
		}
		for j, x := range []int{0, n - 1} {
			var sum big.Int
			for i := range rows {
				sum.Add(&sum, new(big.Int).Mul(new(big.Int).SetUint64(rows[i][x]), new(big.Int).SetUint64(weights[i])))
			}
			if sum.Mod(&sum, new(big.Int).SetUint64(m.Q)).Uint64() != want[x] {
				t.Fatalf("q=%d: weighted sum %d of %d rows is wrong", m.Q, j, len(rows))
			}
		}
		rest, plainRest := make([]uint64, n), make([]uint64, n)
		FixedDot(got, rest, rows, fractions)
		plainFixed(want, plainRest, rows, fractions)
		if !slices.Equal(got, want) || !slices.Equal(rest, plainRest) {
			t.Fatalf("the fixed-point sum of %d rows differs from the plain one", len(rows))
		}
		four := w.row(n, 4*m.Q)
		four[0] = 4*m.Q - 1
		m.ScaleRow(got, four, weights[0])
		for j, x := range four {
			if want := m.MulShoup(x, weights[0], m.Shoup(weights[0])); got[j] != want {
				t.Fatalf("q=%d: multiple %d is %d, want %d", m.Q, j, got[j], want)
			}
		}
		m.DotRow(got, [][]uint64{weightsRow(weights[0], n)}, [][]uint64{weightsRow(m.Q-1, n)})
		m.plainDot(want, [][]uint64{weightsRow(weights[0], n)}, [][]uint64{weightsRow(m.Q-1, n)})
		if !slices.Equal(got, want) {
			t.Fatalf("q=%d: a product differs from the plain one", m.Q)
		}
	})
}

// vectorTermsTested is one more than the assembly takes.
const vectorTermsTested = 17

func weightsRow(x uint64, n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = x
	}
	return out
}
