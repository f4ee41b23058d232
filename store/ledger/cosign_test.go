package ledger

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

const witness = "fednode/0123/org-b/cosigner"

var cosignedAt = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

func witnessKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)) }

// TestCosignaturesAreInterchangeable has another implementation verify this one's cosignature, and this one the other's.
func TestCosignaturesAreInterchangeable(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	appendAll(t, db, l, entryOf(0), entryOf(1))
	line, err := Cosign(l.Checkpoint(), witness, witnessKey(), cosignedAt)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := torchwood.NewCosignatureSigner(witness, witnessKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(append(l.Checkpoint(), line+"\n"...), note.VerifierList(l.Verifier(), theirs.Verifier()))
	if err != nil || len(n.Sigs) != 2 {
		t.Fatalf("%v, %d signatures verified", err, len(n.Sigs))
	}
	if at, err := torchwood.CosignatureTimestamp(n.Sigs[1]); err != nil || at != cosignedAt.Unix() {
		t.Errorf("time %d, %v", at, err)
	}
	v, err := NewCosignatureVerifier(witness, witnessKey().Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := VerifyCosignature(l.Checkpoint(), line, v); err != nil || !at.Equal(cosignedAt) {
		t.Errorf("own: %v, %v", at, err)
	}
	cosigned, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs[:1]}, theirs)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(cosigned)), "\n")
	if _, err := VerifyCosignature(l.Checkpoint(), lines[len(lines)-1], v); err != nil {
		t.Errorf("theirs: %v", err)
	}
	if name, err := CosignerOf(line); err != nil || name != witness {
		t.Errorf("by %q, %v", name, err)
	}
}

func TestCosignatureRefusals(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	appendAll(t, db, l, entryOf(0))
	first := l.Checkpoint()
	appendAll(t, db, l, entryOf(1))
	pub := witnessKey().Public().(ed25519.PublicKey)
	v, err := NewCosignatureVerifier(witness, pub)
	if err != nil {
		t.Fatal(err)
	}
	line, err := Cosign(l.Checkpoint(), witness, witnessKey(), cosignedAt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyCosignature(first, line, v); err == nil {
		t.Error("it cosigns another checkpoint")
	}
	for what, bad := range map[string]string{
		"nothing": "", "no name": "— " + line[strings.LastIndex(line, " ")+1:], "another name": strings.Replace(line, "org-b", "org-c", 1),
		"no dash": line[len("— "):], "a newline": line + "\n", "cut": line[:len(line)-4], "sloppy": strings.TrimRight(line, "=") + "=",
		"flipped": line[:len(line)-10] + "AAAA" + line[len(line)-6:], "long": line + strings.Repeat("A", 2000),
	} {
		if at, err := VerifyCosignature(l.Checkpoint(), bad, v); err == nil {
			t.Errorf("%s: verified, %v", what, at)
		}
	}
	plain, err := NewVerifier(must(VKey(witness, pub)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyCosignature(l.Checkpoint(), line, plain); err == nil {
		t.Error("a cosignature passes for a log's signature")
	}
	for _, name := range []string{"", "two words", "a+b", "a\nb"} {
		if _, err := Cosign(l.Checkpoint(), name, witnessKey(), cosignedAt); err == nil {
			t.Errorf("a cosigner is called %q", name)
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Cosign(l.Checkpoint(), witness, other, cosignedAt); err == nil {
		t.Error("cosigned with ECDSA")
	}
	if _, err := Cosign([]byte("no note"), witness, witnessKey(), cosignedAt); err == nil {
		t.Error("cosigned no checkpoint")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestTreesAndHeads compares the log's heads of old with a tree of its entries, and verifies the way between any two.
func TestTreesAndHeads(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	var tree, leaves Tree
	heads := []Head{tree.Head()}
	for i := range 300 {
		tree, leaves = must(tree.Append(entryOf(i))), must(leaves.AppendLeaf(LeafHash(entryOf(i))))
		heads = append(heads, tree.Head())
		if i%7 == 0 || i > 290 {
			appendAll(t, db, l, entries(int(l.Head().Size), i+1)...)
			if l.Head() != tree.Head() || leaves.Head() != tree.Head() {
				t.Fatalf("%d entries: %v, %v, %v", i+1, l.Head(), tree.Head(), leaves.Head())
			}
		}
	}
	for i, want := range heads {
		if got, err := l.HeadAt(int64(i)); err != nil || got != want {
			t.Errorf("head at %d: %v, want %v, %v", i, got, want, err)
		}
	}
	if _, err := l.HeadAt(301); err == nil {
		t.Error("a head of what is not there")
	}
	for _, old := range []int64{1, 2, 127, 128, 255, 256, 299, 300} {
		for _, size := range []int64{old, 256, 299, 300} {
			if size < old {
				continue
			}
			p := must(l.Consistency(old, size))
			if err := VerifyConsistency(heads[old], heads[size], p); err != nil {
				t.Errorf("%d to %d: %v", old, size, err)
			}
			forged := heads[size]
			forged.Root[0] ^= 1
			if err := VerifyConsistency(heads[old], forged, p); err == nil {
				t.Errorf("%d to another %d", old, size)
			}
		}
	}
	if VerifyConsistency(heads[0], heads[2], nil) == nil || VerifyConsistency(heads[3], heads[2], nil) == nil {
		t.Error("from nothing, or backwards")
	}
}

func entries(from, to int) (out [][]byte) {
	for i := from; i < to; i++ {
		out = append(out, entryOf(i))
	}
	return out
}

func TestAddCheckpoint(t *testing.T) {
	db, l := openLog(t, filepath.Join(t.TempDir(), "node.db"))
	appendAll(t, db, l, entries(0, 9)...)
	for _, old := range []int64{0, 3, 9} {
		var p []Hash
		if old > 0 {
			p = must(l.Consistency(old, 9))
		}
		gotOld, hashes, checkpoint, err := ParseAddCheckpoint(FormatAddCheckpoint(old, p, l.Checkpoint()))
		if err != nil || gotOld != old || !slices.Equal(hashes, p) || !bytes.Equal(checkpoint, l.Checkpoint()) {
			t.Errorf("from %d: %d, %v, %v", old, gotOld, hashes, err)
		}
	}
	for _, bad := range []string{"", "old\n\n", "old x\n\n", "old -1\n\n", "old 01\n\n", "new 1\n\n", "old 1\nxx\n\n", "old 1", "old 1\n" + strings.Repeat(Hash{}.String()+"\n", 65) + "\n"} {
		if _, _, _, err := ParseAddCheckpoint(bad); err == nil {
			t.Errorf("%.40q was read", bad)
		}
	}
}

func FuzzCosignature(f *testing.F) {
	checkpoint := must(signCheckpoint(origin, 1, bytes.Repeat([]byte{1}, 32), must(NewSigner(origin, testKey()))))
	good := must(Cosign(checkpoint, witness, witnessKey(), cosignedAt))
	v := must(NewCosignatureVerifier(witness, witnessKey().Public().(ed25519.PublicKey)))
	f.Add(good)
	f.Fuzz(func(t *testing.T, line string) {
		if _, err := VerifyCosignature(checkpoint, line, v); err == nil && line != good {
			t.Fatalf("%q verifies, and nobody signed it", line)
		}
	})
}
