package compute

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bigOnPublic are the files that may use math/big, on numbers that are no secrets: the serial number of a certificate.
var bigOnPublic = []string{"tcp.go"}

// TestSourceKeepsItsPromises reads the source of this package and of threshold, as compute/he does its own: no
// math/rand, no math/big, and no remainder at all, so none of random bytes or of secrets.
func TestSourceKeepsItsPromises(t *testing.T) {
	files := 0
	for _, pattern := range []string{"*.go", "threshold/*.go"} {
		paths, err := filepath.Glob(pattern)
		must(t, err)
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			files++
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, 0)
			must(t, err)
			for _, im := range f.Imports {
				if name := strings.Trim(im.Path.Value, `"`); strings.HasPrefix(name, "math/rand") {
					t.Errorf("%s imports %s: randomness comes from crypto/rand", path, name)
				} else if name == "math/big" && !slices.Contains(bigOnPublic, path) {
					t.Errorf("%s imports math/big, which is not constant time", path)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BinaryExpr:
					if n.Op == token.REM {
						t.Errorf("%s: a remainder", set.Position(n.Pos()))
					}
				case *ast.AssignStmt:
					if n.Tok == token.REM_ASSIGN {
						t.Errorf("%s: a remainder", set.Position(n.Pos()))
					}
				}
				return true
			})
		}
	}
	if files < 15 {
		t.Fatalf("only %d files were read", files)
	}
}

// secretNames are what shares, secrets and their errors are called in threshold. Their residues are touched only by
// functions of compute/he/ring, which are constant time: no file of threshold indexes or compares them.
var secretNames = []string{"f", "e", "share", "u", "turned", "difference"}

// TestNoBranchOnSecrets: in threshold, no condition and no index reads a residue of a secret polynomial. Residues are
// the elements of rows: expressions with two indices.
func TestNoBranchOnSecrets(t *testing.T) {
	paths, err := filepath.Glob("threshold/*.go")
	must(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, 0)
		must(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			if r, ok := n.(*ast.RangeStmt); ok && r.Value != nil && slices.Contains(secretNames, lastName(r.X)) {
				t.Errorf("%s ranges over values of %s", set.Position(n.Pos()), lastName(r.X))
			}
			outer, ok := n.(*ast.IndexExpr)
			if !ok {
				return true
			}
			inner, ok := outer.X.(*ast.IndexExpr)
			if !ok {
				return true
			}
			if name := lastName(inner.X); slices.Contains(secretNames, name) {
				t.Errorf("%s reads a residue of %s", set.Position(n.Pos()), name)
			}
			return true
		})
	}
}

func lastName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}
