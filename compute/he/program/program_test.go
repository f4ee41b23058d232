package program

import (
	"context"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"fednode/compute/he"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bounds reads name=min..max, separated by spaces.
func bounds(t testing.TB, text string) map[string]Range {
	t.Helper()
	out := map[string]Range{}
	for _, word := range strings.Fields(text) {
		name, r, _ := strings.Cut(word, "=")
		lo, hi, _ := strings.Cut(r, "..")
		var err error
		out[name], err = ParseRange(lo, hi)
		must(t, err)
	}
	return out
}

func plan(t testing.TB, program, columns string, rows int) *Plan {
	t.Helper()
	p, err := Parse(program)
	must(t, err)
	pl, err := New(p, bounds(t, columns), rows, Alone)
	must(t, err)
	return pl
}

// A keyed plan is one with keys.
type keyed struct {
	*Plan
	sk   *he.SecretKey
	pk   *he.PublicKey
	keys *he.EvaluationKeys
	id   KeyID
}

func withKeys(t testing.TB, pl *Plan) keyed {
	t.Helper()
	k := keyed{Plan: pl, sk: he.NewSecretKey(pl.Parameters())}
	var err error
	k.pk, err = k.sk.PublicKey()
	must(t, err)
	k.keys, err = k.sk.EvaluationKeys(pl.Elements()...)
	must(t, err)
	k.id = IDOf(k.pk.Marshal())
	return k
}

func values(name string, rows ...int64) Values {
	v := Values{Name: name}
	for _, x := range rows {
		v.Rows = append(v.Rows, he.NewInt(x))
	}
	return v
}

// run encrypts, passes everything through files, evaluates and decrypts.
func (k keyed) run(t testing.TB, columns ...Values) map[string]Values {
	t.Helper()
	ctx := context.Background()
	var tables []*Table
	for _, c := range columns {
		table, err := Encrypt(ctx, k.Plan, k.pk, k.id, []Values{c}, nil)
		must(t, err)
		file, err := table.Marshal()
		must(t, err)
		back, err := ParseTable(k.Plan, k.id, file)
		must(t, err)
		tables = append(tables, back)
	}
	result, err := Evaluate(ctx, k.Plan, k.keys, k.id, tables, 1, nil)
	must(t, err)
	file, err := result.Marshal()
	must(t, err)
	back, err := ParseTable(k.Plan, k.id, file)
	must(t, err)
	got, err := Decrypt(k.Plan, k.sk, back, nil)
	must(t, err)
	out := map[string]Values{}
	for _, v := range got {
		out[v.Name] = v
	}
	return out
}

func text(v Values) string {
	var out []string
	for _, x := range v.Rows {
		out = append(out, x.String())
	}
	return strings.Join(out, " ")
}

// rows computes row by row, sum adds.
func rows(a, b []int64, f func(a, b int64) int64) []int64 {
	out := make([]int64, len(a))
	for i := range out {
		out[i] = f(a[i], b[i])
	}
	return out
}

func sum(x []int64) (total int64) {
	for _, v := range x {
		total += v
	}
	return total
}

// TestPrograms holds results against the same computed in the clear, as Go has it.
func TestPrograms(t *testing.T) {
	type function = func(a, b int64) int64
	one := func(x int64) []int64 { return []int64{x} }
	each := func(f function) func(a, b []int64) []int64 {
		return func(a, b []int64) []int64 { return rows(a, b, f) }
	}
	total := func(f function) func(a, b []int64) []int64 {
		return func(a, b []int64) []int64 { return one(sum(rows(a, b, f))) }
	}
	for program, f := range map[string]func(a, b []int64) []int64{
		"sum(a * b)":                 total(func(a, b int64) int64 { return a * b }),
		"a * b":                      each(func(a, b int64) int64 { return a * b }),
		"a + 2*b - 3":                each(func(a, b int64) int64 { return a + 2*b - 3 }),
		"sum(a + 1)":                 total(func(a, b int64) int64 { return a + 1 }),
		"a**3 - b":                   each(func(a, b int64) int64 { return a*a*a - b }),
		"5 - a":                      each(func(a, b int64) int64 { return 5 - a }),
		"-a * 7":                     each(func(a, b int64) int64 { return -7 * a }),
		"let d = a - b; sum(d * d)":  total(func(a, b int64) int64 { return (a - b) * (a - b) }),
		"sum(3 * a * b * 2)":         total(func(a, b int64) int64 { return 6 * a * b }),
		"sum((a + 5) * (b - 7))":     total(func(a, b int64) int64 { return (a + 5) * (b - 7) }),
		"a*b*a*b + a*a*a*a":          each(func(a, b int64) int64 { return a*a*b*b + a*a*a*a }),
		`$env["a"] * (2 - 5)`:        each(func(a, b int64) int64 { return -3 * a }),
		"a - sum(a)":                 func(a, b []int64) []int64 { return rows(a, a, func(x, _ int64) int64 { return x - sum(a) }) },
		"sum(a - sum(b))":            func(a, b []int64) []int64 { return one(sum(a) - int64(len(a))*sum(b)) },
		"sum(-(a - sum(b))) * 2":     func(a, b []int64) []int64 { return one(-2 * (sum(a) - int64(len(a))*sum(b))) },
		"sum(sum(a) * (b + sum(b)))": func(a, b []int64) []int64 { return one(sum(a)*sum(b) + int64(len(a))*sum(a)*sum(b)) },
		"len(a)*sum(a*a) - sum(a)**2": func(a, b []int64) []int64 {
			return one(int64(len(a))*sum(rows(a, a, func(x, y int64) int64 { return x * y })) - sum(a)*sum(a))
		},
	} {
		t.Run(program, func(t *testing.T) {
			k := withKeys(t, plan(t, program, used(program, "a=-100..100 b=-50..1000"), 7))
			a, b := []int64{10, -20, 0, 100, 60}, []int64{3, 1000, 7, 1, -30}
			var in []Values
			for _, v := range []Values{values("a", a...), values("b", b...)} {
				if _, ok := k.bounds[v.Name]; ok {
					in = append(in, v)
				}
			}
			got := k.run(t, in...)["result"]
			want := text(values("", f(a, b)...))
			if text(got) != want {
				t.Errorf("%s is %s, want %s (%s)", program, text(got), want, k.Parameters())
			}
			r := k.Results()[0]
			lo, _ := new(big.Int).SetString(r.Min, 10)
			hi, _ := new(big.Int).SetString(r.Max, 10)
			for _, x := range got.Rows {
				if v := fromInt(x); v.Cmp(lo) < 0 || v.Cmp(hi) > 0 {
					t.Errorf("%s is beyond what was planned, %s..%s", x, lo, hi)
				}
			}
		})
	}
}

// TestColumnsOfSeveralCiphertexts: a sum goes over all of them, and the last is filled in part.
func TestColumnsOfSeveralCiphertexts(t *testing.T) {
	k := withKeys(t, plan(t, "total = sum(a + 1)\ntwice = 2*a - sum(a)", "a=-3..3", 9000))
	if k.Parameters().N() != 4096 {
		t.Fatalf("planned for %s: the test wants three ciphertexts", k.Parameters())
	}
	a := make([]int64, 8500)
	for i := range a {
		a[i] = int64(i%7) - 3
	}
	got := k.run(t, values("a", a...))
	if want := fmt.Sprint(sum(a) + 8500); text(got["total"]) != want {
		t.Errorf("total is %s, want %s", text(got["total"]), want)
	}
	if want := text(values("", rows(a, a, func(x, _ int64) int64 { return 2*x - sum(a) })...)); text(got["twice"]) != want {
		t.Error("twice differs")
	}
}

// TestWideResults: a result of more than 64 bits, over three plaintext primes.
func TestWideResults(t *testing.T) {
	k := withKeys(t, plan(t, "sum(a * b)", "a=0..1099511627776 b=-1099511627776..0", 3))
	if k.Parameters().Parts() < 2 {
		t.Errorf("planned for %s", k.Parameters())
	}
	a := []int64{1099511627776, 1099511627775, 1}
	b := []int64{-1099511627776, -1099511627776, -3}
	want := new(big.Int)
	for i := range a {
		want.Add(want, new(big.Int).Mul(big.NewInt(a[i]), big.NewInt(b[i])))
	}
	if got := text(k.run(t, values("a", a...), values("b", b...))["result"]); got != want.String() {
		t.Errorf("%s, want %s", got, want)
	}
}

// used keeps the bounds of columns that a program has.
func used(program, columns string) string {
	p, err := Parse(program)
	if err != nil {
		return columns
	}
	var out []string
	for _, word := range strings.Fields(columns) {
		for _, c := range p.Columns() {
			if strings.HasPrefix(word, c+"=") {
				out = append(out, word)
			}
		}
	}
	return strings.Join(out, " ")
}
