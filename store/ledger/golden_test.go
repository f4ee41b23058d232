package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"fednode/store"
)

const goldenRoot = "ak8unzlOlFW/KsYrfjBhUGDrCJdre2om4kczKzbXXC4="

var goldenDir = filepath.Join("..", "..", "test", "fed", "testdata", "ledger-v1")

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenVerifier(t *testing.T) note.Verifier {
	t.Helper()
	v, err := NewVerifier(string(bytes.TrimSpace(golden(t, "vkey"))))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The fixtures were written once. Logs and proofs like them are in archives: they must verify for ever.
func TestGoldenExport(t *testing.T) {
	v := goldenVerifier(t)
	dir := os.DirFS(filepath.Join(goldenDir, "log"))
	var entries [][]byte
	head, err := VerifyDir(dir, v, func(i int64, e []byte) error {
		entries = append(entries, bytes.Clone(e))
		_, err := ParseEntry(e)
		return err
	})
	if err != nil || head.Size != 300 || head.Root.String() != goldenRoot || len(entries) != 300 {
		t.Fatalf("%v, %v", head, err)
	}
	if again, err := HeadOf(entries); err != nil || again != head {
		t.Errorf("HeadOf = %v, %v", again, err)
	}
	verifyByTorchwood(t, dir, v)
	if !bytes.Equal(entries[7], golden(t, "entry-7.json")) {
		t.Errorf("entry 7 is %s", entries[7])
	}
}

func TestGoldenProof(t *testing.T) {
	v, entry, p := goldenVerifier(t), golden(t, "entry-7.json"), golden(t, "entry-7.tlog-proof")
	head, index, err := VerifyProof(p, entry, v)
	if err != nil || index != 7 || head.Size != 300 || head.Root.String() != goldenRoot {
		t.Errorf("%v, %d, %v", head, index, err)
	}
	if err := torchwood.VerifyProof(torchwoodPolicy(v), tlog.RecordHash(entry), p); err != nil {
		t.Error(err)
	}
}

// TestGoldenDatabase opens the database of this first version and reads all of it.
func TestGoldenDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	if err := os.WriteFile(path, golden(t, "node.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	v := goldenVerifier(t)
	l, err := Open(db, Config{Name: "own", Origin: v.Name(), Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	if head, err := VerifyDir(files(t, l), v, nil); err != nil || head.Size != 12 {
		t.Errorf("%v, %v", head, err)
	}
	if e, err := l.Entry(7); err != nil || !bytes.Equal(e, golden(t, "entry-7.json")) {
		t.Errorf("entry 7 is %s, %v", e, err)
	}
}
