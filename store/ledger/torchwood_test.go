package ledger

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// verifyByTorchwood has an implementation that shares no code with this one verify a whole export: checkpoint, tiles and
// every entry. It returns the entries.
func verifyByTorchwood(t *testing.T, fsys fs.FS, v note.Verifier) [][]byte {
	t.Helper()
	signed, err := fs.ReadFile(fsys, "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	cp, _, err := torchwood.VerifyCheckpoint(signed, torchwoodPolicy(v))
	if err != nil || cp.Origin != v.Name() || cp.Extension != "" {
		t.Fatalf("%+v, %v", cp, err)
	}
	tiles, err := torchwood.NewTileFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	client, err := torchwood.NewClient(tiles)
	if err != nil {
		t.Fatal(err)
	}
	var entries [][]byte
	for i, e := range client.AllEntries(t.Context(), cp.Tree, 0) {
		if i != int64(len(entries)) {
			t.Fatalf("entry %d after %d", i, len(entries))
		}
		entries = append(entries, slices.Clone(e))
	}
	if err := client.Err(); err != nil || int64(len(entries)) != cp.N {
		t.Fatalf("%d of %d entries, %v", len(entries), cp.N, err)
	}
	return entries
}

// torchwoodPolicy asks for the log's own signature, and its origin.
func torchwoodPolicy(v note.Verifier) torchwood.Policy {
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v))
}

func TestTorchwoodVerifies(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	policy := torchwoodPolicy(l.Verifier())
	want := 0
	for _, n := range []int{1, 2, 200, 53, 1, 400, 2000} {
		var batch [][]byte
		for range n {
			batch = append(batch, entryOf(want))
			want++
		}
		appendAll(t, db, l, batch...)
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			entries := verifyByTorchwood(t, files(t, l), l.Verifier())
			if len(entries) != want {
				t.Fatalf("%d entries, want %d", len(entries), want)
			}
			for i, e := range entries {
				if !bytes.Equal(e, entryOf(i)) {
					t.Fatalf("entry %d is %s", i, e)
				}
			}
			for _, i := range []int64{0, int64(want) / 2, int64(want) - 1} {
				p, err := l.Prove(i)
				if err != nil {
					t.Fatal(err)
				}
				if err := torchwood.VerifyProof(policy, tlog.RecordHash(entryOf(int(i))), p); err != nil {
					t.Errorf("proof of entry %d: %v", i, err)
				}
				if err := torchwood.VerifyProof(policy, tlog.RecordHash(entryOf(int(i)+1)), p); err == nil {
					t.Errorf("the proof of entry %d proves another", i)
				}
			}
		})
	}
}
