package he

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// bigOnPublic are the files and functions that may use math/big, each with public operands alone: primes, products of
// primes, tables made of them.
var bigOnPublic = map[string]string{
	"ring/modulus.go":  "IsPrime",
	"convert.go":       "product word remainder newConversion newExtend newScale newLevelTables",
	"plain.go":         "newPlainModulus",
	"program/range.go": "all of it: ranges come from declared bounds, programs and numbers of rows",
}

// remainders are all uses of % in the package and those below, by file. None has a random or a secret operand: they
// reduce indices, lengths and public primes. Random residues are drawn by rejection (Ring.Uniform) or by the high word
// of a product (Source.Ternary).
var remainders = map[string]string{
	"keys.go":              "steps % half | ((steps % half) + half) % half",
	"multiply.go":          "i % level | i % blocks",
	"switch.go":            "i % level",
	"plain.go":             "t % uint64(2*p.N()) | hi % digits",
	"ring/modulus.go":      "m.Q % order",
	"ring/ntt.go":          "uint64(n) % m.Q | bits.Len(uint(t.n)) % 2",
	"ring/source.go":       "bitLen % 64",
	"ring/vector_amd64.go": "uint64(two52) % m.Q | bits.Len(uint(t.n)) % 2 | length % 8 | len(hi) % 8",
}

// TestSourceKeepsItsPromises reads the source: no math/rand anywhere, no math/big on secrets, no remainder but those
// listed above.
func TestSourceKeepsItsPromises(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		for _, im := range f.Imports {
			if name := strings.Trim(im.Path.Value, `"`); strings.HasPrefix(name, "math/rand") {
				t.Errorf("%s imports %s: randomness comes from crypto/rand", path, name)
			} else if name == "math/big" && bigOnPublic[path] == "" {
				t.Errorf("%s imports math/big, which is not constant time", path)
			}
		}
		if strings.HasPrefix(path, "program/") {
			return nil // plans and files of columns: nothing there is secret-dependent arithmetic on residues
		}
		for _, decl := range f.Decls {
			function, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "big" && x.Obj == nil {
						if function == nil || !contains(bigOnPublic[path], " ", function.Name.Name) {
							t.Errorf("%s: math/big outside the functions that work on public numbers", set.Position(n.Pos()))
						}
					}
				case *ast.BinaryExpr:
					if n.Op == token.REM && !contains(remainders[path], " | ", expression(n)) {
						t.Errorf("%s: %s is no remainder of public numbers on the list", set.Position(n.Pos()), expression(n))
					}
				case *ast.AssignStmt:
					if n.Tok == token.REM_ASSIGN {
						t.Errorf("%s: a remainder that is not on the list", set.Position(n.Pos()))
					}
				}
				return true
			})
		}
		return nil
	})
	must(t, err)
	if files < 15 {
		t.Fatalf("only %d files were read", files)
	}
}

func contains(list, separator, x string) bool {
	for _, item := range strings.Split(list, separator) {
		if item == x {
			return true
		}
	}
	return false
}

// expression writes the operands of a remainder as the list above has them.
func expression(n ast.Expr) string {
	switch n := n.(type) {
	case *ast.Ident:
		return n.Name
	case *ast.BasicLit:
		return n.Value
	case *ast.ParenExpr:
		return "(" + expression(n.X) + ")"
	case *ast.SelectorExpr:
		return expression(n.X) + "." + n.Sel.Name
	case *ast.BinaryExpr:
		if n.Op == token.MUL {
			return expression(n.X) + "*" + expression(n.Y)
		}
		return expression(n.X) + " " + n.Op.String() + " " + expression(n.Y)
	case *ast.CallExpr:
		var args []string
		for _, a := range n.Args {
			args = append(args, expression(a))
		}
		return expression(n.Fun) + "(" + strings.Join(args, ", ") + ")"
	}
	return "?"
}
