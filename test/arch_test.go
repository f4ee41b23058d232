package test

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers lists the top-level folders, lowest first. A package may import packages of its own folder and of any lower
// one. It is a statement of policy: do not change it to fix a build.
var layers = []string{"hsm", "compute", "store", "vpn", "transport", "flow", "node", "ui", "main", "test"}

// forbidden are names that say nothing about what lives there.
var forbidden = []string{"util", "utils", "common", "types", "errors", "log", "clock", "helpers", "misc"}

type pkg struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func packages(t *testing.T) (out []pkg) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles", "fednode/...")
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(b))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	if len(out) < 10 {
		t.Fatalf("go list found %d packages", len(out))
	}
	return out
}

// folder returns the top-level folder of an import path of ours.
func folder(path string) (string, bool) {
	rest, ours := strings.CutPrefix(path+"/", "fednode/")
	f, _, _ := strings.Cut(rest, "/")
	if f == "" {
		f = "main"
	}
	return f, ours
}

func TestLayers(t *testing.T) {
	for _, p := range packages(t) {
		from, _ := folder(p.ImportPath)
		rank := slices.Index(layers, from)
		if rank < 0 {
			t.Errorf("%s: folder %s is not in the house: %v", p.ImportPath, from, layers)
			continue
		}
		for _, name := range strings.Split(p.ImportPath, "/") {
			if slices.Contains(forbidden, name) {
				t.Errorf("%s: a package called %s says nothing about what lives there", p.ImportPath, name)
			}
		}
		for _, im := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if to, ours := folder(im); ours && slices.Index(layers, to) > rank {
				t.Errorf("%s imports %s: %s is above %s", p.ImportPath, im, to, from)
			}
		}
	}
}

// TestPackageDocs wants exactly one package comment in every package, and it must say more than its name.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		var docs []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				docs = append(docs, name)
				if p.ImportPath != "fednode" && len(strings.Fields(f.Doc.Text())) < 25 {
					t.Errorf("%s: the package doc says too little: what it is, its three nouns, what it promises", p.ImportPath)
				}
			}
		}
		if len(p.GoFiles) > 0 && len(docs) != 1 {
			t.Errorf("%s has %d package docs (%v), want one", p.ImportPath, len(docs), docs)
		}
	}
}

// TestNoInit keeps wiring explicit: no init functions but the one that an ADR records.
func TestNoInit(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "\nfunc init()") && p.ImportPath != "fednode/transport/pki" {
				t.Errorf("%s has an init function; node.New wires everything explicitly", file)
			}
		}
	}
}

// TestOneModule wants no second go.mod outside packaging.
func TestOneModule(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "go.mod" && filepath.Dir(path) != ".." && !strings.HasPrefix(path, filepath.Join("..", "packaging")) {
			t.Errorf("%s: modules of their own live under packaging", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
