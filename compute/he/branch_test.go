package he

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// branches are all conditions, but err != nil, of the files that touch keys, errors and plaintexts. They ask for lengths,
// levels, primes, what the processor has and whether something is there; none for the value of a residue. Exceptions, as
// the docs of their functions have them: w < m.Q rejects words of masks, which are public; bad, over and x.within end in
// an error; distance says that a ciphertext does not decrypt; sign, top and text are of printing.
var branches = map[string][]string{
	"convert.go": {
		`own`, `c.own`,
	},
	"crypt.go": {
		`!p.SameLattice(pk.p)`, `withMessage`, `!p.SameLattice(sk.p)`, `negative`, `j >= 0`,
		`ct == nil || ct.p == nil || !ct.p.SameLattice(sk.p)`, `i > 0`, `i == ct.degree`, `len(phases) != len(ct.part)`,
		`distance > 1 << 62`, `at < len(message)`,
	},
	"plain.go": {
		`t % uint64(2 * p.N()) == 1`, `top > 0`, `text == ""`, `sign != 0`,
		`len(digits) > 0 && (digits[0] == '-' || digits[0] == '+')`, `len(digits) == 0`, `bad >> 63 != 0`,
		`over | hi >> 62 != 0`, `text[0] == '-'`, `t.slots == nil`, `slots`, `count > p.N()`, `!x.within(limit)`, `!ok`,
		`index != nil`, `k >= 0`,
	},
	"keys.go": {
		`sk == nil || sk.value == nil`, `len(p) != len(r.Moduli)`, `len(p[i]) != r.N`, `over >> 63 != 0`, `seed != nil`,
		`len(k.b) != p.Digits() || len(k.a) != p.Digits()`, `step < p.N() / 2`,
		`g & 1 == 0 || g == 1 || g >= uint64(2 * p.N())`,
	},
	"ring/modulus.go": {
		`k < 4 || k > MaxBits`, `!IsPrime(q)`, `e > 0`, `e & 1 == 1`, `m.Q % order != 1`, `x < m.Q`,
		`m.Pow(root, uint64(n)) == m.Q - 1`, `bitLen > MaxBits || bitLen < 4 || n < 1`, `len(out) < count`,
		`bits.Len64(q) != bitLen`, `!skip[q] && IsPrime(q)`,
	},
	"ring/ntt.go": {
		`i < n`, `t.vector != nil`, `bits.Len(uint(t.n)) % 2 == 0`, `span > 4`, `!lazy`,
		`len(a) >= 4 && len(first) >= 2 && len(second) >= 4`, `m >= 16`, `m == 8`,
		`len(a) >= 4 && len(first) >= 4 && len(second) >= 2`,
	},
	"ring/ring.go": {
		`n < MinDegree || n > MaxDegree || n & (n - 1) != 0`, `slices.Contains(primes[:i], q)`, `r.N != o.N`,
	},
	"ring/rows.go": {
		`m.vectorMul(out, a, b)`, `m.vectorScale(out, a, s, shoup)`, `m.vectorDot(out, a, b)`, `from < len(out)`,
		`m.vectorCombine(out, rows, weights)`, `i + 4 <= len(rows)`, `i < len(rows)`,
		`vectorFixed(hi, lo, rows, fractions)`,
	},
	"ring/source.go": {
		`s.at == len(s.buf)`, `j < len(row)`, `w < m.Q`, `k >= 0`,
	},
	"ring/vector_amd64.go": {
		`m.Bits > vectorBits || !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512IFMA`, `!t.m.vector.use`, `i < len(pairs)`,
		`bits.Len(uint(t.n)) % 2 == 1`, `span > 8`, `step < t.n / 4`,
		`!m.vectorFits(len(out)) || len(a) == 0 || len(a) > vectorTerms`,
		`!m.vectorFits(len(out)) || len(rows) == 0 || len(rows) > vectorTerms`, `!m.vectorFits(len(out))`,
		`!cpu.X86.HasAVX512F || !cpu.X86.HasAVX512IFMA || len(hi) < 8 || len(hi) % 8 != 0 || len(rows) == 0`,
	},
}

// TestNoBranchDependsOnSecrets holds the conditions of those files against the list.
func TestNoBranchDependsOnSecrets(t *testing.T) {
	ringFiles, err := filepath.Glob("ring/*.go")
	must(t, err)
	for _, path := range append(ringFiles, "convert.go", "crypt.go", "plain.go", "keys.go") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, 0)
		must(t, err)
		hold := func(e ast.Expr) {
			if text := types.ExprString(e); text != "err != nil" && !slices.Contains(branches[filepath.ToSlash(path)], text) {
				t.Errorf("%s: %s is no condition on the list of those that depend on nothing secret", set.Position(e.Pos()), text)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				hold(n.Cond)
			case *ast.ForStmt:
				if n.Cond != nil {
					hold(n.Cond)
				}
			case *ast.CaseClause:
				for _, e := range n.List {
					hold(e)
				}
			}
			return true
		})
	}
}

// TestAssemblyBranchesOnLengthsAlone: every jump ends a loop that counts a length down, nothing is compared, and no
// address comes from a vector.
func TestAssemblyBranchesOnLengthsAlone(t *testing.T) {
	b, err := os.ReadFile("ring/vector_amd64.s")
	must(t, err)
	jump := regexp.MustCompile(`^\s*(J[A-Z]+|CMP[A-Z]*|TEST[A-Z]*|VPGATHER\w*|VPSCATTER\w*|CMOV\w*)\s`)
	count := regexp.MustCompile(`^\s*(SUBQ\s+\$\d+, (CX|R12)|DECQ (AX|BX))$`)
	last, jumps := "", 0
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if m := jump.FindStringSubmatch(line); m != nil {
			if jumps++; m[1] != "JNZ" || !count.MatchString(last) {
				t.Errorf("%q after %q", line, last)
			}
		}
		last = line
	}
	if jumps < 10 {
		t.Errorf("%d jumps were found", jumps)
	}
}
