package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"fednode/store"
)

const origin = "fednode/0123/org-a/log/0"

func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

// openLog opens a log of our own, with a fixed key, in a database that is closed with the test.
func openLog(t testing.TB, path string) (*store.DB, *Log) {
	t.Helper()
	db, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := NewSigner(origin, testKey())
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(db, Config{Name: "own", Origin: origin, Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	return db, l
}

func entryOf(n int) []byte { return fmt.Appendf(nil, `{"n":%d,"type":"test","v":1}`, n) }

func appendAll(t testing.TB, db *store.DB, l *Log, entries ...[]byte) {
	t.Helper()
	err := db.Update(context.Background(), func(tx *store.Tx) error {
		for _, e := range entries {
			if _, err := l.Append(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// model is the same log in memory, by x/mod's tlog.
type model struct {
	entries [][]byte
	hashes  []tlog.Hash
}

func (m *model) ReadHashes(ix []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(ix))
	for i, x := range ix {
		out[i] = m.hashes[x]
	}
	return out, nil
}

func (m *model) add(t testing.TB, e []byte) {
	t.Helper()
	hs, err := tlog.StoredHashes(int64(len(m.entries)), e, m)
	if err != nil {
		t.Fatal(err)
	}
	m.entries, m.hashes = append(m.entries, e), append(m.hashes, hs...)
}

func (m *model) root(t testing.TB) tlog.Hash {
	t.Helper()
	h, err := tlog.TreeHash(int64(len(m.entries)), m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var errRefused = errors.New("refused by the test")

// TestAgainstModel appends random batches, some of which fail, reopens at random, and compares with x/mod's tlog.
func TestAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(t.TempDir(), "node.db")
	db, l := openLog(t, path)
	m := &model{}
	for round := range 60 {
		n := rng.IntN(40)
		if round%10 == 0 {
			n = 300 + rng.IntN(300)
		}
		fails := rng.IntN(4) == 0
		batch := make([][]byte, n)
		for i := range batch {
			batch[i] = entryOf(rng.Int())
		}
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			for i, e := range batch {
				if index, err := l.Append(tx, e); err != nil || index != int64(len(m.entries)+i) {
					return fmt.Errorf("Append = %d, %v", index, err)
				}
			}
			if fails {
				return errRefused
			}
			return nil
		})
		if fails != errors.Is(err, errRefused) || !fails && err != nil {
			t.Fatalf("Update = %v, fails %v", err, fails)
		}
		if !fails {
			for _, e := range batch {
				m.add(t, e)
			}
		}
		if rng.IntN(5) == 0 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db, l = openLog(t, path)
		}
		head := l.Head()
		if head.Size != int64(len(m.entries)) || head.Root != m.root(t) {
			t.Fatalf("round %d: head %d %s; the model has %d %s", round, head.Size, head.Root, len(m.entries), m.root(t))
		}
		checkProofs(t, l, m, rng)
	}
}

func checkProofs(t *testing.T, l *Log, m *model, rng *rand.Rand) {
	t.Helper()
	size := int64(len(m.entries))
	if size == 0 {
		return
	}
	for range 10 {
		i := rng.Int64N(size)
		p, err := l.Prove(i)
		if err != nil {
			t.Fatal(err)
		}
		head, index, err := VerifyProof(p, m.entries[i], l.Verifier())
		if err != nil || index != i || head.Root != m.root(t) {
			t.Fatalf("VerifyProof(%d) = %v, %d, %v", i, head, index, err)
		}
		if _, _, err := VerifyProof(p, entryOf(-1), l.Verifier()); !errors.Is(err, ErrProof) {
			t.Fatalf("another entry verifies: %v", err)
		}
		old := 1 + rng.Int64N(size)
		c, err := l.Consistency(old, size)
		if err != nil {
			t.Fatal(err)
		}
		oldRoot, err := tlog.TreeHash(old, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(c, size, m.root(t), old, oldRoot); err != nil {
			t.Fatalf("consistency %d → %d: %v", old, size, err)
		}
	}
}

func TestEmptyLog(t *testing.T) {
	_, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	if h := l.Head(); h.Size != 0 || h.Root != (&model{}).root(t) {
		t.Errorf("head of an empty log: %v", h)
	}
	if _, err := l.Prove(0); !errors.Is(err, ErrNoEntry) {
		t.Errorf("Prove(0) = %v", err)
	}
	if _, err := l.Entry(0); !errors.Is(err, ErrNoEntry) {
		t.Errorf("Entry(0) = %v", err)
	}
	dir := t.TempDir()
	if err := l.Export(dir); err != nil {
		t.Fatal(err)
	}
	if h, err := VerifyDir(os.DirFS(dir), l.Verifier(), nil); err != nil || h != l.Head() {
		t.Errorf("exported before its first entry, it verifies as %v, %v", h, err)
	}
}

func TestConcurrentAppends(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 20 {
				if i%5 == 4 {
					err := db.Update(t.Context(), func(tx *store.Tx) error {
						l.Append(tx, entryOf(-1))
						panic("a change that fails")
					})
					if err == nil {
						t.Error("a panic was committed")
					}
					continue
				}
				appendAll(t, db, l, entryOf(w*100+i))
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, e := range l.Entries(0, l.Head().Size) {
		if bytes.Equal(e, entryOf(-1)) || seen[string(e)] {
			t.Fatalf("entry %d: %s", i, e)
		}
		seen[string(e)] = true
	}
	if len(seen) != 20*16 {
		t.Fatalf("%d entries, want %d", len(seen), 20*16)
	}
}

// TestExportVerifies flips every bit of an export, and cuts every file short: each must be found.
func TestExportVerifies(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	for i := range 3 {
		appendAll(t, db, l, entryOf(i))
	}
	dir := t.TempDir()
	if err := l.Export(dir); err != nil {
		t.Fatal(err)
	}
	n := 0
	head, err := VerifyDir(os.DirFS(dir), l.Verifier(), func(i int64, e []byte) error {
		if !bytes.Equal(e, entryOf(int(i))) {
			return fmt.Errorf("is %s", e)
		}
		n++
		return nil
	})
	if err != nil || head != l.Head() || n != 3 {
		t.Fatalf("VerifyDir = %v, %v, %d entries", head, err, n)
	}
	all := files(t, l)
	for path, f := range all {
		good := f.Data
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || !bytes.Equal(got, good) {
			t.Errorf("%s: %v", path, err)
		}
		try := func(what string, bad []byte) {
			f.Data = bad
			if _, err := VerifyDir(all, l.Verifier(), nil); err == nil {
				t.Errorf("%s: %s was not found", path, what)
			}
		}
		for i := range 8 * len(good) {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			try(fmt.Sprintf("flipped bit %d", i), bad)
		}
		try("cut", good[:len(good)-1])
		try("one byte more", append(bytes.Clone(good), 'x'))
		try("empty", nil)
		try("doubled", slices.Concat(good, good))
		f.Data = good
	}
}

func TestExportOfManyTiles(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	for size := range 5 {
		var batch [][]byte
		for i := range 1<<(3*size) + 250 {
			batch = append(batch, entryOf(i))
		}
		appendAll(t, db, l, batch...)
		dir := t.TempDir()
		if err := l.Export(dir); err != nil {
			t.Fatal(err)
		}
		if head, err := VerifyDir(os.DirFS(dir), l.Verifier(), nil); err != nil || head != l.Head() {
			t.Fatalf("size %d: %v, %v", l.Head().Size, head, err)
		}
	}
	if l.Head().Size < 4000 {
		t.Fatal("too few entries for the test to mean anything")
	}
}

func TestMirror(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	mdb, err := store.Open(filepath.Join(t.TempDir(), "mirror.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mdb.Close()
	m, err := Open(mdb, Config{Name: "gov", Origin: origin, Verifier: l.Verifier()})
	if err != nil {
		t.Fatal(err)
	}
	extend := func(entries [][]byte, cp []byte) error {
		return mdb.Update(t.Context(), func(tx *store.Tx) error { return m.Extend(tx, entries, cp) })
	}
	appendAll(t, db, l, entryOf(0), entryOf(1))
	old := l.Checkpoint()
	if err := extend([][]byte{entryOf(0), entryOf(1)}, old); err != nil {
		t.Fatal(err)
	}
	appendAll(t, db, l, entryOf(2))
	for name, c := range map[string]struct {
		entries [][]byte
		cp      []byte
	}{
		"another entry":   {[][]byte{entryOf(3)}, l.Checkpoint()},
		"entry missing":   {nil, l.Checkpoint()},
		"one too many":    {[][]byte{entryOf(2), entryOf(3)}, l.Checkpoint()},
		"old checkpoint":  {[][]byte{entryOf(2)}, old},
		"no checkpoint":   {[][]byte{entryOf(2)}, nil},
		"forged":          {[][]byte{entryOf(2)}, bytes.Replace(l.Checkpoint(), []byte("\n3\n"), []byte("\n4\n"), 1)},
		"empty entry":     {[][]byte{{}}, l.Checkpoint()},
		"from the start ": {[][]byte{entryOf(0), entryOf(1), entryOf(2)}, l.Checkpoint()},
	} {
		if err := extend(c.entries, c.cp); err == nil {
			t.Errorf("%s: taken", name)
		}
		if m.Head().Size != 2 {
			t.Fatalf("%s: changed the mirror", name)
		}
	}
	if err := extend([][]byte{entryOf(2)}, l.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	if m.Head() != l.Head() || !bytes.Equal(m.Checkpoint(), l.Checkpoint()) {
		t.Error("the mirror differs")
	}
	if err := mdb.Update(t.Context(), func(tx *store.Tx) error { _, err := m.Append(tx, entryOf(3)); return err }); err == nil {
		t.Error("a mirror was appended to")
	}
}
