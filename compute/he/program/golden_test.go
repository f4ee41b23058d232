package program

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"fednode/hsm"
)

var update = flag.Bool("update", false, "write the golden files anew (a new version of a format)")

// TestGoldenFiles opens a directory of keys and tables of every format version there has been.
func TestGoldenFiles(t *testing.T) {
	golden := filepath.Join("testdata", "v1")
	if *update {
		writeGolden(t, golden)
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(golden)))
	must(t, filepath.WalkDir(filepath.Join(dir, "keys"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() { // git keeps no modes
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
	k, err := OpenKeys(filepath.Join(dir, "keys"))
	must(t, err)
	keys, err := k.Evaluation()
	must(t, err)
	sk, err := k.Secret(hsm.Unprotected())
	must(t, err)
	defer sk.Wipe()
	table := func(name string) *Table {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		out, err := ParseTable(k.Plan, k.ID, b)
		must(t, err)
		return out
	}
	for what, results := range map[string]*Table{"stored": table("result.enc"), "computed": nil} {
		if results == nil {
			results, err = Evaluate(context.Background(), k.Plan, keys, k.ID, []*Table{table("columns.enc")}, 1, nil)
			must(t, err)
		}
		got, err := Decrypt(k.Plan, sk, results, nil)
		must(t, err)
		if len(got) != 1 || got[0].Name != "y" || text(got[0]) != "-1 2 23" {
			t.Errorf("%s results are %v", what, got)
		}
	}
}

func writeGolden(t *testing.T, dir string) {
	ctx := context.Background()
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o755))
	k, err := CreateKeys(filepath.Join(dir, "keys"), plan(t, "y = a * a - 2", "a=-9..9", 5), hsm.Unprotected())
	must(t, err)
	columns, err := Encrypt(ctx, k.Plan, k.Public, k.ID, []Values{values("a", 1, 2, 5)}, nil)
	must(t, err)
	keys, err := k.Evaluation()
	must(t, err)
	results, err := Evaluate(ctx, k.Plan, keys, k.ID, []*Table{columns}, 1, nil)
	must(t, err)
	for name, table := range map[string]*Table{"columns.enc": columns, "result.enc": results} {
		b, err := table.Marshal()
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
}
