package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"testing"
)

// Statistical tests draw from fixed seeds: they fail when the code changes, never by chance.
func testSource(label string) *Source { return NewSource(Seed{1, 2, 3}, label) }

// chiSquare fails if counts deviate from their expectations more than chance does once in a million draws, by the
// Wilson–Hilferty approximation of χ².
func chiSquare(t *testing.T, what string, counts []int, expected []float64) {
	t.Helper()
	var sum float64
	for i, c := range counts {
		if expected[i] < 5 {
			t.Fatalf("%s: class %d expects %.1f: too few for a χ² test", what, i, expected[i])
		}
		sum += (float64(c) - expected[i]) * (float64(c) - expected[i]) / expected[i]
	}
	k := float64(len(counts) - 1)
	z := (math.Cbrt(sum/k) - (1 - 2/(9*k))) / math.Sqrt(2/(9*k))
	if math.Abs(z) > 4.9 {
		t.Errorf("%s: χ² = %.1f with %.0f degrees of freedom, %.1f standard deviations away", what, sum, k, z)
	}
}

func flat(classes, draws int) []float64 {
	out := make([]float64, classes)
	for i := range out {
		out[i] = float64(draws) / float64(classes)
	}
	return out
}

func TestTernaryDistribution(t *testing.T) {
	const n = 1 << 20
	out := make([]int32, n)
	testSource("ternary").Ternary(out)
	counts, pairs := make([]int, 3), make([]int, 9)
	for i, x := range out {
		if x < -1 || x > 1 {
			t.Fatalf("%d is not ternary", x)
		}
		counts[x+1]++
		if i%2 == 1 {
			pairs[3*(out[i-1]+1)+x+1]++
		}
	}
	chiSquare(t, "ternary", counts, flat(3, n))
	chiSquare(t, "pairs of ternary values", pairs, flat(9, n/2))
}

// TestBinomialDistribution compares with the exact distribution, P(k) = C(42, 21+k)/2^42, and its tails.
func TestBinomialDistribution(t *testing.T) {
	const n, tail = 1 << 20, 13
	out := make([]int32, n)
	testSource("binomial").Binomial(out)
	probability := func(k int) float64 {
		f, _ := new(big.Float).SetInt(new(big.Int).Binomial(2*ErrorBound, int64(ErrorBound+k))).Float64()
		return math.Ldexp(f, -2*ErrorBound)
	}
	counts, expected := make([]int, 2*tail+1), make([]float64, 2*tail+1)
	for k := -ErrorBound; k <= ErrorBound; k++ {
		expected[min(max(k, -tail), tail)+tail] += n * probability(k)
	}
	var sum, squares float64
	for _, x := range out {
		if x < -ErrorBound || x > ErrorBound {
			t.Fatalf("error %d is beyond ±%d", x, ErrorBound)
		}
		counts[min(max(int(x), -tail), tail)+tail]++
		sum, squares = sum+float64(x), squares+float64(x)*float64(x)
	}
	chiSquare(t, "centred binomial", counts, expected)
	if mean := sum / n; math.Abs(mean) > 5*math.Sqrt(ErrorBound/2.0/n) {
		t.Errorf("the mean of errors is %g", mean)
	}
	if variance := squares / n; math.Abs(variance-ErrorBound/2.0) > 5*ErrorBound/2.0*math.Sqrt(2.0/n) {
		t.Errorf("the variance of errors is %g, want %g", variance, ErrorBound/2.0)
	}
	if sd := math.Sqrt(ErrorBound / 2.0); sd < 3.19 {
		t.Errorf("the standard deviation of errors, %.2f, is below the standard's 3.19", sd)
	}
}

func testRing(t testing.TB, bitLens ...int) *Ring {
	t.Helper()
	var primes []uint64
	for _, b := range bitLens {
		p, err := Primes(b, 4096, 1, primes...)
		if err != nil {
			t.Fatal(err)
		}
		primes = append(primes, p...)
	}
	r, err := New(4096, primes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUniformDistribution looks at the highest and at the lowest bits: what rejection, and what a remainder, would bend.
func TestUniformDistribution(t *testing.T) {
	r := testRing(t, 27, 44, 60)
	const rounds, classes = 32, 256
	p := r.NewPoly()
	high, low := make([][]int, 3), make([][]int, 3)
	for k := range r.Moduli {
		high[k], low[k] = make([]int, classes), make([]int, classes)
	}
	for round := range rounds {
		r.Uniform(p, Seed{byte(round)}, "test")
		for k, m := range r.Moduli {
			for _, x := range p[k] {
				if x >= m.Q {
					t.Fatalf("%d is not below %d", x, m.Q)
				}
				high[k][int(float64(x)/float64(m.Q)*classes)]++
				low[k][x&(classes-1)]++
			}
		}
	}
	for k := range r.Moduli {
		chiSquare(t, "high bits of uniform residues", high[k], flat(classes, rounds*r.N))
		chiSquare(t, "low bits of uniform residues", low[k], flat(classes, rounds*r.N))
	}
}

func TestUniformOfPrimeAbovePowerOfTwo(t *testing.T) {
	m, err := NewModulus(1073872897) // 2^30 + 2^17 + 1: half of all 31-bit words are rejected
	if err != nil {
		t.Fatal(err)
	}
	const n, classes = 1 << 18, 64
	row, counts := make([]uint64, n), make([]int, classes)
	m.uniformRow(row, testSource("rejection"))
	for _, x := range row {
		counts[x*classes/m.Q]++
	}
	chiSquare(t, "residues of a prime just above a power of two", counts, flat(classes, n))
}

// TestUniformIsForGood pins what a seed means: files hold seeds in place of polynomials.
func TestUniformIsForGood(t *testing.T) {
	r := testRing(t, 36, 44, 60)
	p := r.NewPoly()
	r.Uniform(p, Seed{0x5e, 0xed}, "pinned")
	h := sha256.New()
	for _, row := range p {
		for _, x := range row {
			h.Write(binary.LittleEndian.AppendUint64(nil, x))
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != pinnedUniform {
		t.Errorf("the polynomial of a seed changed: %s", got)
	}
}

const pinnedUniform = "dc587819300769c12559cc319f3f40439e080cdb1fc91bf898811556b00ecbd7"

// TestFloodingDistribution reads flooding values back by the Chinese remainder theorem.
func TestFloodingDistribution(t *testing.T) {
	r := testRing(t, 60, 50, 44, 36)
	modulus := big.NewInt(1)
	for _, m := range r.Moduli {
		modulus.Mul(modulus, new(big.Int).SetUint64(m.Q))
	}
	weight := make([]*big.Int, len(r.Moduli))
	for i, m := range r.Moduli {
		q := new(big.Int).SetUint64(m.Q)
		rest := new(big.Int).Div(modulus, q)
		weight[i] = new(big.Int).Mul(rest, new(big.Int).ModInverse(rest, q))
	}
	src := testSource("flooding")
	for _, bitLen := range []int{1, 40, 63, 64, 100, 127, 150} {
		p := r.NewPoly()
		counts := make([]int, 64)
		const classes, rounds = 64, 4
		limit := new(big.Int).Lsh(big.NewInt(1), uint(bitLen))
		for range rounds {
			r.UniformSigned(p, src, bitLen)
			for j := range r.N {
				x := new(big.Int)
				for i := range r.Moduli {
					x.Add(x, new(big.Int).Mul(weight[i], new(big.Int).SetUint64(p[i][j])))
				}
				x.Mod(x.Add(x, limit), modulus) // + 2^bitLen: in [0, 2^(bitLen+1))
				if x.BitLen() > bitLen+1 {
					t.Fatalf("a value of %d bits in [-2^%d, 2^%d)", x.BitLen(), bitLen, bitLen)
				}
				counts[x.Lsh(x, 6).Rsh(x, uint(bitLen+1)).Uint64()]++
			}
		}
		if bitLen == 1 { // four values, in every sixteenth class
			counts = []int{counts[0], counts[16], counts[32], counts[48]}
			chiSquare(t, "flooding by -2 … 1", counts, flat(4, rounds*r.N))
			continue
		}
		chiSquare(t, "flooding", counts, flat(classes, rounds*r.N))
	}
}

// TestStreamsAreApart: labels and seeds make different streams, the same make the same.
func TestStreamsAreApart(t *testing.T) {
	first := func(s *Source) (w [4]uint64) {
		for i := range w {
			w[i] = s.Word()
		}
		return w
	}
	a := first(NewSource(Seed{1}, "a"))
	if a != first(NewSource(Seed{1}, "a")) {
		t.Error("a stream is not a function of seed and label")
	}
	for what, b := range map[string][4]uint64{
		"label": first(NewSource(Seed{1}, "b")), "seed": first(NewSource(Seed{2}, "a")), "fresh seed": first(FreshSource()),
	} {
		if a == b {
			t.Errorf("another %s gives the same stream", what)
		}
	}
}
