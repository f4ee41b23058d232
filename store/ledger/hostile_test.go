package ledger

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/sumdb/note"

	"fednode/store"
)

func TestOpenRefusals(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "node.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := NewSigner(origin, testKey())
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSigner(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := NewSigner("elsewhere", testKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"no key":          {Name: "own", Origin: origin},
		"no name":         {Origin: origin, Signer: s},
		"another origin":  {Name: "own", Origin: origin, Signer: elsewhere},
		"another key":     {Name: "own", Origin: origin, Signer: s, Verifier: other.(note.Verifier)},
		"another's voice": {Name: "own", Origin: origin, Signer: elsewhere, Verifier: s.(note.Verifier)},
	} {
		if _, err := Open(db, c); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for _, bad := range []string{"", "two words", "a+b", "a\nb"} {
		if _, err := NewSigner(bad, testKey()); err == nil {
			t.Errorf("a log is called %q", bad)
		}
	}
}

// TestForeignKey opens a log with another key than it was signed with.
func TestForeignKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	db, l := openLog(t, path)
	appendAll(t, db, l, entryOf(1))
	s, err := NewSigner(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(db, Config{Name: "own", Origin: origin, Signer: s}); err == nil {
		t.Error("opened")
	}
}

// TestDamagedBuckets takes parts of a log away, or changes them.
func TestDamagedBuckets(t *testing.T) {
	for name, damage := range map[string]func(tx *store.Tx, l *Log) error{
		"no tiles":        func(tx *store.Tx, l *Log) error { return tx.Bucket(l.tiles()).Tx().DeleteBucket([]byte(l.tiles())) },
		"no entries":      func(tx *store.Tx, l *Log) error { return tx.Bucket(l.tiles()).Tx().DeleteBucket([]byte(l.entries())) },
		"no checkpoint":   func(tx *store.Tx, l *Log) error { return tx.Bucket(l.heads()).Delete(checkpointKey) },
		"no partial tile": func(tx *store.Tx, l *Log) error { return tx.Bucket(l.tiles()).Delete(tileID{0, 1, 44}.key()) },
		"no full tile":    func(tx *store.Tx, l *Log) error { return tx.Bucket(l.tiles()).Delete(tileID{0, 0, 256}.key()) },
		"no last entry":   func(tx *store.Tx, l *Log) error { return tx.Bucket(l.entries()).Delete(indexKey(299)) },
		"a changed tile": func(tx *store.Tx, l *Log) error {
			key := tileID{0, 1, 44}.key()
			b := bytes.Clone(tx.Bucket(l.tiles()).Get(key))
			b[40] ^= 1
			return tx.Bucket(l.tiles()).Put(key, b)
		},
		"an old checkpoint": func(tx *store.Tx, l *Log) error {
			cp, err := signCheckpoint(origin, 299, bytes.Repeat([]byte{1}, 32), l.c.Signer)
			return errors.Join(err, tx.Bucket(l.heads()).Put(checkpointKey, cp))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "node.db")
			db, l := openLog(t, path)
			var batch [][]byte
			for i := range 300 {
				batch = append(batch, entryOf(i))
			}
			appendAll(t, db, l, batch...)
			if err := db.Update(t.Context(), func(tx *store.Tx) error { return damage(tx, l) }); err != nil {
				t.Fatal(err)
			}
			again, err := Open(db, l.c)
			if err != nil {
				return
			}
			// Full tiles are not read again at start; what depends on them must fail then.
			if _, err := again.Prove(1); name != "no full tile" || !errors.Is(err, ErrDamaged) {
				t.Errorf("opened, and proves: %v", err)
			}
		})
	}
}

// TestRefusedEntriesLeaveNothing has a caller that ignores what Append and Extend say.
func TestRefusedEntriesLeaveNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	db, l := openLog(t, path)
	empty := l.Checkpoint()
	bad := func() error {
		return db.Update(t.Context(), func(tx *store.Tx) error {
			for _, e := range [][]byte{nil, make([]byte, MaxEntry+1)} {
				if _, err := l.Append(tx, e); err == nil {
					t.Errorf("an entry of %d bytes was taken", len(e))
				}
			}
			return nil
		})
	}
	if err := bad(); err != nil {
		t.Fatal(err)
	}
	if l.Head().Size != 0 || !bytes.Equal(l.Checkpoint(), empty) {
		t.Errorf("head %v, checkpoint %q", l.Head(), l.Checkpoint())
	}
	appendAll(t, db, l, make([]byte, 1), bytes.Repeat([]byte{1}, MaxEntry))
	if err := bad(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, l = openLog(t, path); l.Head().Size != 2 {
		t.Errorf("head %v", l.Head())
	}
}

// TestMirrorOfNothing takes in the checkpoint of an empty log, and must open again.
func TestMirrorOfNothing(t *testing.T) {
	s, err := NewSigner(origin, testKey())
	if err != nil {
		t.Fatal(err)
	}
	empty, err := HeadOf(nil)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := signCheckpoint(origin, 0, empty.Root[:], s)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(filepath.Join(t.TempDir(), "node.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := Config{Name: "gov", Origin: origin, Verifier: s.(note.Verifier)}
	m, err := Open(db, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(t.Context(), func(tx *store.Tx) error { return m.Extend(tx, nil, cp) }); err != nil {
		t.Fatal(err)
	}
	again, err := Open(db, c)
	if err != nil {
		t.Fatal(err)
	}
	if again.Head() != empty || !bytes.Equal(again.Checkpoint(), cp) {
		t.Errorf("head %v", again.Head())
	}
}

// TestIgnoredFork has a caller that ignores what Extend says: the batch commits, the mirror stays as it was.
func TestIgnoredFork(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	appendAll(t, db, l, entryOf(0), entryOf(1))
	m, err := Open(db, Config{Name: "gov", Origin: origin, Verifier: l.Verifier()})
	if err != nil {
		t.Fatal(err)
	}
	extend := func(entries ...[]byte) (err error) {
		failed := db.Update(t.Context(), func(tx *store.Tx) error { err = m.Extend(tx, entries, l.Checkpoint()); return nil })
		return errors.Join(err, failed)
	}
	if err := extend(entryOf(0), entryOf(7)); !errors.Is(err, ErrFork) {
		t.Errorf("another history: %v", err)
	}
	if err := extend(entryOf(0), entryOf(1)); err != nil {
		t.Error(err)
	}
	if again, err := Open(db, m.c); err != nil || again.Head() != l.Head() {
		t.Errorf("head %v, %v", again.Head(), err)
	}
}

func TestLateAppend(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	var late error
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := l.Append(tx, entryOf(0))
		tx.BeforeCommit("after the checkpoint", func() error { _, late = l.Append(tx, entryOf(1)); return nil })
		return err
	})
	if err != nil || late == nil {
		t.Errorf("Update = %v, late Append = %v", err, late)
	}
	if again, err := Open(db, l.c); err != nil || again.Head().Size != 1 {
		t.Errorf("head %v, %v", again.Head(), err)
	}
}

// A faulty key signs, wrongly, from the time that it is broken.
type faulty struct {
	ed25519.PrivateKey
	broken bool
}

func (f *faulty) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	sig, err := f.PrivateKey.Sign(r, msg, o)
	if f.broken {
		sig[0] ^= 1
	}
	return sig, err
}

func TestFaultyKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	db, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	k := &faulty{PrivateKey: testKey()}
	s, err := NewSigner(origin, k)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(db, Config{Name: "own", Origin: origin, Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, db, l, entryOf(0))
	k.broken = true
	err = db.Update(t.Context(), func(tx *store.Tx) error { _, err := l.Append(tx, entryOf(1)); return err })
	if err == nil {
		t.Error("a wrong signature was committed")
	}
	k.broken = false
	appendAll(t, db, l, entryOf(2))
	if again, err := Open(db, l.c); err != nil || again.Head().Size != 2 {
		t.Errorf("head %v, %v", again.Head(), err)
	}
}

// files returns a log's export in memory.
func files(t testing.TB, l *Log) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	if err := l.Files(func(path string, data []byte) error { out[path] = &fstest.MapFile{Data: data}; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestHostileExports changes larger exports at random: flipped bits, exchanged and missing files, moved entries.
func TestHostileExports(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	var batch [][]byte
	for i := range 600 {
		batch = append(batch, entryOf(i))
	}
	appendAll(t, db, l, batch...)
	good := files(t, l)
	var names []string
	for name := range good {
		names = append(names, name)
	}
	if _, err := VerifyDir(good, l.Verifier(), nil); err != nil || len(names) != 8 {
		t.Fatalf("%v, %d files", err, len(names))
	}
	rng := rand.New(rand.NewPCG(7, 8))
	try := func(what, name string, data []byte) {
		t.Helper()
		bad := fstest.MapFS{}
		for n, f := range good {
			bad[n] = f
		}
		if delete(bad, name); data != nil {
			bad[name] = &fstest.MapFile{Data: data}
		}
		if _, err := VerifyDir(bad, l.Verifier(), nil); err == nil {
			t.Errorf("%s: %s was not found", name, what)
		}
	}
	for _, name := range names {
		data := good[name].Data
		try("missing", name, nil)
		for range 15 {
			bad := bytes.Clone(data)
			bit := rng.IntN(8 * len(bad))
			bad[bit/8] ^= 1 << (bit % 8)
			try(fmt.Sprintf("flipped bit %d", bit), name, bad)
			cut := rng.IntN(len(data))
			try(fmt.Sprintf("cut at %d", cut), name, append([]byte{}, data[:cut]...))
			if other := good[names[rng.IntN(len(names))]].Data; !bytes.Equal(other, data) {
				try("another file", name, other)
			}
		}
	}
	bundle := good["tile/entries/000"].Data
	n := 2 + int(binary.BigEndian.Uint16(bundle))
	m := 2 + int(binary.BigEndian.Uint16(bundle[n:]))
	try("exchanged entries", "tile/entries/000", bytes.Join([][]byte{bundle[n : n+m], bundle[:n], bundle[n+m:]}, nil))
	try("an endless file", "tile/entries/000", bytes.Repeat([]byte{0xff}, 256*(2+MaxEntry)+1))
	if _, err := VerifyDir(endless{good}, l.Verifier(), nil); err == nil {
		t.Error("a checkpoint without end was read")
	}
	stop := errors.New("enough")
	if _, err := VerifyDir(good, l.Verifier(), func(int64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error is lost: %v", err)
	}
}

// endless has a checkpoint that never ends.
type endless struct{ fs.FS }

type endlessFile struct{ fs.File }

func (endlessFile) Read(b []byte) (int, error) { return len(b), nil }

func (e endless) Open(name string) (fs.File, error) {
	f, err := e.FS.Open(name)
	if name == "checkpoint" && err == nil {
		return endlessFile{f}, nil
	}
	return f, err
}

func TestNotCanonicalEntries(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	appendAll(t, db, l, entryOf(0), []byte(`{"v": 1}`))
	if _, err := VerifyDir(files(t, l), l.Verifier(), nil); err == nil || !strings.Contains(err.Error(), "entry 1") {
		t.Errorf("an entry with spaces verifies: %v", err)
	}
}

func TestReadPath(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	var batch [][]byte
	for i := range 300 {
		batch = append(batch, entryOf(i))
	}
	appendAll(t, db, l, batch...)
	for path, f := range files(t, l) {
		if got, err := l.ReadPath(path); err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s: %v", path, err)
		}
	}
	full, err := l.ReadPath("tile/0/000")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.ReadPath("tile/0/000.p/7"); err != nil || !bytes.Equal(got, full[:7*hashSize]) {
		t.Errorf("an earlier partial tile: %v", err)
	}
	for _, path := range []string{"tile/0/001", "tile/0/001.p/45", "tile/1/000", "tile/1/000.p/2", "tile/2/000.p/1", "tile/entries/001", "tile/entries/002.p/1",
		"tile/0/x999/x999/x999/x999/999"} {
		if b, err := l.ReadPath(path); !errors.Is(err, ErrNoEntry) && !errors.Is(err, errPath) || b != nil {
			t.Errorf("%s = %d bytes, %v", path, len(b), err)
		}
	}
	for _, path := range []string{"", "/", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/000", "tile/0/000.p/0",
		"tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/-1", "tile/0/000.p/", "tile/00/000", "tile/-1/000", "tile/6/000", "tile/+0/000", "tile/0/+00",
		"tile/0/../000", "tile/entries/", "tile/entries/x00/000", "Checkpoint", "checkpoint/", "tile/0/x001/x000", "tile/0/" + strings.Repeat("x001/", 100) + "000"} {
		if b, err := l.ReadPath(path); !errors.Is(err, errPath) || b != nil {
			t.Errorf("%q = %d bytes, %v", path, len(b), err)
		}
	}
}

func TestIndexPath(t *testing.T) {
	for n, want := range map[uint64]string{0: "000", 999: "999", 1000: "x001/000", 1234067: "x001/x234/067"} {
		if got := indexPath(n); got != want {
			t.Errorf("indexPath(%d) = %s, want %s", n, got, want)
		}
	}
}

// TestProofRefusals alters a proof bit by bit.
func TestProofRefusals(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	for i := range 5 {
		appendAll(t, db, l, entryOf(i))
	}
	p, err := l.Prove(3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(p) {
		bad := bytes.Clone(p)
		bad[i/8] ^= 1 << (i % 8)
		if _, _, err := VerifyProof(bad, entryOf(3), l.Verifier()); !errors.Is(err, ErrProof) {
			t.Errorf("flipped bit %d: %v", i, err)
		}
	}
	for i := range p {
		if _, _, err := VerifyProof(p[:i], entryOf(3), l.Verifier()); !errors.Is(err, ErrProof) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	extra := bytes.Replace(p, []byte("index "), []byte("extra eA==\nindex "), 1)
	hashes := bytes.Replace(p, []byte("\n\n"), []byte("\n"+strings.Repeat(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 65)+"\n"), 1)
	for what, bad := range map[string][]byte{"extra data": extra, "many hashes": hashes, "too long": append(bytes.Clone(p), make([]byte, maxProof)...), "none": nil} {
		if _, _, err := VerifyProof(bad, entryOf(3), l.Verifier()); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, index, err := VerifyProof(p, entryOf(3), l.Verifier()); err != nil || index != 3 {
		t.Errorf("%d, %v", index, err)
	}
}

func TestCheckpointRefusals(t *testing.T) {
	s, err := NewSigner(origin, testKey())
	if err != nil {
		t.Fatal(err)
	}
	v := s.(note.Verifier)
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for what, text := range map[string]string{
		"another origin":  "elsewhere\n1\n" + root + "\n",
		"extension":       origin + "\n1\n" + root + "\nextra\n",
		"short hash":      origin + "\n1\nAAAA\n",
		"negative size":   origin + "\n-1\n" + root + "\n",
		"monstrous size":  origin + "\n281474976710657\n" + root + "\n",
		"beyond 64 bits":  origin + "\n18446744073709551616\n" + root + "\n",
		"size in letters": origin + "\none\n" + root + "\n",
		"no hash":         origin + "\n1\n",
		"nothing":         "\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		if head, err := ParseCheckpoint(signed, v); err == nil {
			t.Errorf("%s: %v", what, head)
		}
	}
	good, err := note.Sign(&note.Note{Text: origin + "\n1\n" + root + "\n"}, s)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := ParseCheckpoint(good, v); err != nil || head.Size != 1 {
		t.Errorf("%v, %v", head, err)
	}
	if _, err := ParseCheckpoint(append(good, bytes.Repeat([]byte("— x AAAAAAAA\n"), 1<<13)...), v); err == nil {
		t.Error("a checkpoint of 100 KiB was read")
	}
}

// TestExportToBadPlace wants errors, not silence.
func TestExportToBadPlace(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	appendAll(t, db, l, entryOf(0))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Export(file); err == nil {
		t.Error("exported into a file")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Export(t.TempDir()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("exported from a closed database: %v", err)
	}
	for i, e := range l.Entries(0, 1) {
		if i != -1 || e != nil {
			t.Errorf("entry %d of a closed database: %s", i, e)
		}
	}
	err := db.Update(context.Background(), func(tx *store.Tx) error { _, err := l.Append(tx, entryOf(1)); return err })
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("appended to a closed database: %v", err)
	}
}
