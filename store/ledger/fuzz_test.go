package ledger

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func FuzzParseEntry(f *testing.F) {
	for _, e := range examples() {
		b, err := e.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	e := examples()[2]
	e.Envelope = envelope(f)
	b, err := e.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"Action":"x","v":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := ParseEntry(in)
		if err != nil {
			return
		}
		if b, err := e.Marshal(); err != nil || !bytes.Equal(b, in) {
			t.Fatalf("%q is read, but written as %q, %v", in, b, err)
		}
	})
}

// FuzzVerifyProof has one log and one entry: whatever verifies must say the same of them as the proof that it came from.
func FuzzVerifyProof(f *testing.F) {
	db, l := openLog(f, filepath.Join(f.TempDir(), "node.db"))
	for i := range 9 {
		appendAll(f, db, l, entryOf(i))
	}
	for _, i := range []int64{3, 8, 0} {
		p, err := l.Prove(i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra eA==\nindex 1\n\n"))
	head := l.Head()
	f.Fuzz(func(t *testing.T, in []byte) {
		got, index, err := VerifyProof(in, entryOf(3), l.Verifier())
		if err == nil && (got != head || index != 3) {
			t.Fatalf("%q proves entry %d of %v", in, index, got)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	s, err := NewSigner(origin, testKey())
	if err != nil {
		f.Fatal(err)
	}
	good, err := signCheckpoint(origin, 7, bytes.Repeat([]byte{3}, 32), s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), "— x AAAAAAAA\n"...))
	f.Add([]byte(origin + "\n1\nAAAA\n\n— x AAAAAAAA\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		head, err := ParseCheckpoint(in, s.(note.Verifier))
		if err == nil && (head.Size != 7 || head.Root != [32]byte(bytes.Repeat([]byte{3}, 32))) {
			t.Fatalf("%q says %v", in, head)
		}
	})
}

func FuzzReadPath(f *testing.F) {
	db, l := openLog(f, filepath.Join(f.TempDir(), "node.db"))
	var batch [][]byte
	for i := range 260 {
		batch = append(batch, entryOf(i))
	}
	appendAll(f, db, l, batch...)
	for _, s := range []string{"checkpoint", "tile/0/000", "tile/0/001.p/4", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/4", "tile/0/x001/000", "tile/../x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		b, err := l.ReadPath(path)
		if (err == nil) != (len(b) > 0) {
			t.Fatalf("%q: %d bytes, %v", path, len(b), err)
		}
		if id, entries, err := parsePath(path); err == nil && !entries && id.path() != path {
			t.Fatalf("%q is read as %q", path, id.path())
		}
	})
}
