package program

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"fednode/compute/he"
	"fednode/compute/he/ring"
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

func TestProgramsRefused(t *testing.T) {
	for program, says := range map[string]string{
		"":                                 "empty",
		"# nothing":                        "empty",
		"1 + 2":                            "uses no column",
		"a / 2":                            "can't be divided",
		"a % 2":                            "can't be divided",
		"a > 2":                            "no operation on encrypted numbers",
		"not a":                            "no operation on encrypted numbers",
		"a * 1.5":                          "not a whole number",
		"a ** b":                           "no whole constant",
		"a ** 65":                          "no whole constant",
		"max(a, b)":                        "can't be computed",
		"map(a, # * 2)":                    "can't be computed",
		"sum(a, b)":                        "sum",
		"sum(3)":                           "takes a column",
		"sum(sum(a))":                      "takes a column",
		"a ? b : a":                        "nothing that can be computed",
		`"text"`:                           "nothing that can be computed",
		"sum((a + sum(b)) * (b - sum(a)))": "multiply it out",
		"x = a\nx = b":                     "line 2: x is defined twice",
		"x = a\na = x + 1":                 "name of a result and of a column",
		"a + \u202eb":                      "a character that does not show, U+202E",
		"$env[\"\x1b[2J\"]":                "a character that does not show, U+001B",
		"a +":                              "unexpected",
	} {
		_, err := Parse(program)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", program, err, says)
		}
	}
}

func TestPlansRefused(t *testing.T) {
	for _, c := range []struct {
		program, bounds string
		rows            int
		unfit           bool
		says            string
	}{
		{"sum(price)", "prise=0..1", 5, false, "column price has no bounds; did you mean prise?"},
		{"sum(a)", "a=0..1 b=0..1", 5, false, "does not use column b"},
		{"sum(a)", "a=0..1", 0, false, "0 rows"},
		{"sum(a)", "a=0..1", MaxRows + 1, false, "rows; a plan has"},
		{"a ** 17 - a ** 16", "a=-1..1", 5, false, ""}, // five deep
		{"a ** 64 * a ** 64 * a ** 64 * a ** 64", "a=-1..1", 5, true, "noise: after"},
		{"a ** 64", "a=-1000..1000", 5, true, "numbers of up to 639 bits"},
		{"sum(a * b)", "a=-170141183460469231731687303715884105728..0 b=0..1", 5, true, "the widest plaintext"},
		{"let b = a**64; let c = b**64; let d = c**64; d**64", "a=-1..1", 5, true, "products in a row"},
		{"let b = a**64; let c = b**64; c", "a=-999..999", 5, true, "bits"},
	} {
		p, err := Parse(c.program)
		must(t, err)
		_, err = New(p, bounds(t, c.bounds), c.rows, Alone)
		if c.says == "" {
			must(t, err)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrUnfit) != c.unfit {
			t.Errorf("%s with %s: %v, want %q", c.program, c.bounds, err, c.says)
		}
	}
}

// TestProgramsThatGrowAreRefusedInTime: what doubles with every line must not take memory or time that doubles.
func TestProgramsThatGrowAreRefusedInTime(t *testing.T) {
	var squares, sums strings.Builder
	squares.WriteString("x0 = a\n")
	sums.WriteString("x0 = a + sum(b)\n")
	for i := range 60 {
		fmt.Fprintf(&squares, "x%d = x%d * x%d\n", i+1, i, i)
		fmt.Fprintf(&sums, "x%d = x%d + x%d\n", i+1, i, i)
	}
	p, err := Parse(squares.String())
	must(t, err)
	if _, err := New(p, bounds(t, "a=-9..9"), 5, Alone); !errors.Is(err, ErrUnfit) {
		t.Errorf("squares of squares: %v", err)
	}
	if p, err = Parse(sums.String() + "y = sum(x60)"); err != nil {
		t.Fatal(err)
	}
	if _, err := New(p, bounds(t, "a=-9..9 b=0..1"), 5, Alone); err != nil && !errors.Is(err, ErrUnfit) {
		t.Errorf("sums of sums: %v", err)
	}
}

// TestPlansHold plans random programs and computes them at the ends of their bounds, where noise and range are largest.
func TestPlansHold(t *testing.T) {
	for _, program := range []string{"sum(a * b) + sum(a) * sum(b)", "(a - b) ** 4 - a*b*a", "sum((a + b) ** 3)"} {
		k := withKeys(t, plan(t, program, "a=-90..90 b=-90..90", 5000))
		a, b := make([]int64, 5000), make([]int64, 5000)
		for i := range a {
			a[i], b[i] = 90, -90+180*int64(i&1)
		}
		got := k.run(t, values("a", a...), values("b", b...))["result"]
		var want []int64
		switch program[0] {
		case '(':
			want = rows(a, b, func(a, b int64) int64 { return (a-b)*(a-b)*(a-b)*(a-b) - a*a*b })
		default:
			want = []int64{sum(rows(a, b, func(a, b int64) int64 { return a * b })) + sum(a)*sum(b)}
			if strings.Contains(program, "3") {
				want = []int64{sum(rows(a, b, func(a, b int64) int64 { return (a + b) * (a + b) * (a + b) }))}
			}
		}
		if text(got) != text(values("", want...)) {
			t.Errorf("%s is wrong at the ends of its bounds", program)
		}
	}
}

func TestPlansRoundTripAndAlteredOnesAreRefused(t *testing.T) {
	pl := plan(t, "total = sum(price * quantity)\nmean = total * 2", "price=0..100000 quantity=0..1000", 5000)
	file := pl.Marshal()
	back, err := ParsePlan(file)
	must(t, err)
	if back.ID() != pl.ID() || !bytes.Equal(back.Marshal(), file) {
		t.Error("a parsed plan is another")
	}
	for from, to := range map[string]string{
		`"max": "100000"`:             `"max": "100001"`,
		`"rows": 5000`:                `"rows": 5001`,
		`price * quantity`:            `price + quantity`,
		`"depth": 1`:                  `"depth": 0`,
		`"parameters": "8192/218"`:    `"parameters": "8192/219"`,
		`"version": 1`:                `"version": 2`,
		`"parties": 1`:                `"parties": 65`,
		`"total": true`:               `"total": false`,
		`"key"`:                       `"kye"`,
		`"max": "500000000000"`:       `"max": "1"`,
		`"parameters": "8192/218",`:   `"parameters": "4096/109",`,
		`"plaintext_primes": [`:       `"plaintext_primes": [257,`,
		`"program": "total = sum(pri`: `"program": "total = sum(pry`,
	} {
		bad := strings.Replace(string(file), from, to, 1)
		if bad == string(file) {
			t.Errorf("%s is not in the plan", from)
			continue
		}
		if _, err := ParsePlan([]byte(bad)); err == nil {
			t.Errorf("a plan with %s was accepted", to)
		}
	}
}

func TestForeignTablesAreRefused(t *testing.T) {
	ctx := context.Background()
	one := withKeys(t, plan(t, "sum(a * b)", "a=0..9 b=0..9", 5))
	other := withKeys(t, plan(t, "sum(a * b)", "a=0..9 b=0..8", 5))
	again := withKeys(t, one.Plan)
	encrypt := func(k keyed, v ...Values) *Table {
		table, err := Encrypt(ctx, k.Plan, k.pk, k.id, v, nil)
		must(t, err)
		return table
	}
	a, b := encrypt(one, values("a", 1, 2, 3)), encrypt(one, values("b", 4, 5, 6))
	file, err := a.Marshal()
	must(t, err)
	for what, k := range map[string]keyed{"plan": other, "key": again} {
		if _, err := ParseTable(k.Plan, k.id, file); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), what) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	refused := func(what, says string, tables ...*Table) {
		t.Helper()
		if _, err := Evaluate(ctx, one.Plan, one.keys, one.id, tables, 1, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
	}
	refused("a foreign table", "does not belong here", a, encrypt(other, values("b", 4)))
	refused("a missing column", "no table has column b", a)
	refused("a column twice", "two tables have a column a", a, a, b)
	refused("another number of rows", "have 3 rows and columns b have 2", a, encrypt(one, values("b", 4, 5)))
	used := *b
	used.Columns = []Column{{Name: "b", Rows: 3, Parts: []*he.Ciphertext{b.Columns[0].Parts[0].Clone()}}}
	ev, err := he.NewEvaluator(one.Parameters(), nil, 1)
	must(t, err)
	must(t, ev.Add(used.Columns[0].Parts[0], used.Columns[0].Parts[0], used.Columns[0].Parts[0]))
	refused("a ciphertext that was computed with", "not freshly encrypted", a, &used)
	if _, err := Encrypt(ctx, one.Plan, one.pk, one.id, []Values{values("a", 1, 10, 11)}, nil); err == nil ||
		!strings.Contains(err.Error(), "row 2") || !strings.Contains(err.Error(), "0..9") || strings.Contains(err.Error(), "10") {
		t.Errorf("a number out of bounds: %v", err)
	}
	for n := range 40 {
		short := file[:len(file)*n/40]
		if _, err := ParseTable(one.Plan, one.id, short); err == nil {
			t.Errorf("a table cut to %d bytes was accepted", len(short))
		}
	}
	result, err := Evaluate(ctx, one.Plan, one.keys, one.id, []*Table{a, b}, 2, nil)
	must(t, err)
	if _, err := Decrypt(one.Plan, again.sk, result, nil); !errors.Is(err, he.ErrNoise) {
		t.Errorf("another secret key: %v", err)
	}
	refused("results in place of columns", "results", result, a, b)
}

func TestColumnsRead(t *testing.T) {
	names := []string{"price", "quantity"}
	got, err := ReadColumns(strings.NewReader("\ufeffid, quantity ,price\nx, 3,-7\ny,+4,170141183460469231731\n"), names, 5)
	must(t, err)
	if len(got) != 2 || text(got[0]) != "-7 170141183460469231731" || text(got[1]) != "3 4" {
		t.Errorf("%v", got)
	}
	// Lines within quotes, and after the last row.
	if got, err := ReadColumns(strings.NewReader("price,note\r\n1,\"a\r\n\r\nb\"\r\n2,\n\n\n"), names, 5); err != nil || text(got[0]) != "1 2" {
		t.Errorf("%v, %v", got, err)
	}
	for in, says := range map[string]string{
		"":                    "empty",
		"prize\n1\n":          "did you mean prize?",
		"price\n":             "no rows",
		"price\n1\n2\n3\n":    "more than 2 rows",
		"price\n1.5\n":        "line 2, column price",
		"price\n\"\"\n":       "no digits",
		"price,quantity\n1\n": "wrong number of fields",
		"price,price\n1,2\n":  "two columns are called price",
		"price\n1\n\n2\n":     "line 3 is empty",
		"\nprice\n1\n":        "line 1 is empty",
		"price\n" + strings.Repeat("9", 50) + "\n": "more than 126 bits",
	} {
		if _, err := ReadColumns(strings.NewReader(in), names, 2); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.30q: %v, want %q", in, err, says)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"sum(a * b)", "let x = a; x ** 3", "x = a\ny = x - sum(x)", `$env["a b"]`, "((((a", "-", "len(a) * 3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			return
		}
		b := map[string]Range{}
		for _, c := range p.Columns() {
			b[c] = point(1).join(point(-1))
		}
		if pl, err := draft(p, b, 10, Alone); err == nil {
			pl.need()
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	f.Add(plan(f, "sum(a * b)", "a=0..9 b=0..9", 5).Marshal())
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pl, err := ParsePlan(b); err == nil {
			if back, err := ParsePlan(pl.Marshal()); err != nil || back.ID() != pl.ID() {
				t.Errorf("an accepted plan does not come back: %v", err)
			}
		}
	})
}

func FuzzParseTable(f *testing.F) {
	k := withKeys(f, plan(f, "a + 1", "a=0..9", 5))
	table, err := Encrypt(context.Background(), k.Plan, k.pk, k.id, []Values{values("a", 1, 2)}, nil)
	must(f, err)
	file, err := table.Marshal()
	must(f, err)
	f.Add(file[:300], true)
	f.Add(file, false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal { // the hash would stop every mutation
			sum := sha256.Sum256(b)
			b = append(bytes.Clone(b), sum[:]...)
		}
		ParseTable(k.Plan, k.id, b)
	})
}

func FuzzReadColumns(f *testing.F) {
	f.Add("a,b\n1,2\n")
	f.Fuzz(func(t *testing.T, s string) { ReadColumns(strings.NewReader(s), []string{"a", "b"}, 10) })
}

// TestColumnThatShowsTheKey: (0, Q/t) is a ciphertext of the secret, as fresh as any. What comes of it is refused when it
// is decrypted, for it is not in the plan's range; so is a table that says that a column is a result.
func TestColumnThatShowsTheKey(t *testing.T) {
	k := withKeys(t, plan(t, "a + 1", "a=-1000..1000", 4096))
	p := k.Plan.Parameters()
	var parts [][]ring.Poly
	for _, prime := range p.PlainPrimes() {
		r := p.Ring(p.MaxLevel())
		rest := uint64(1) // Q mod t
		for _, q := range r.Primes() {
			rest = (rest % prime) * (q % prime) % prime
		}
		c1 := r.NewPoly()
		for i, m := range r.Moduli {
			for j := range c1[i] {
				c1[i][j] = m.Mul(m.Neg(m.ReduceWord(rest)), m.Inv(m.ReduceWord(prime)))
			}
		}
		parts = append(parts, []ring.Poly{r.NewPoly(), c1})
	}
	ct, err := he.CiphertextOf(p, p.MaxLevel(), parts, p.NoisePublicKey(he.OwnBounds), he.OwnBounds)
	must(t, err)
	column := []Column{{Name: "a", Rows: 4096, Parts: []*he.Ciphertext{ct}}}
	made := &Table{Plan: k.Plan.ID(), Key: k.id, Columns: column}
	results, err := Evaluate(context.Background(), k.Plan, k.keys, k.id, []*Table{made}, 1, nil)
	must(t, err)
	got, err := Decrypt(k.Plan, k.sk, results, nil)
	if !errors.Is(err, he.ErrRange) || got != nil {
		t.Errorf("%d columns, %v", len(got), err)
	}
	_, err = Decrypt(k.Plan, k.sk, &Table{Plan: k.Plan.ID(), Key: k.id, Results: true, Columns: column}, nil)
	if !errors.Is(err, he.ErrMismatch) {
		t.Error(err)
	}
}
