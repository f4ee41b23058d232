package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// A key that is taken away opens with its own passphrase and the public age library, and is the same key.
func TestExportedKeys(t *testing.T) {
	ring := newTestKeyring(t, PassphraseBytes([]byte("pw")))
	key, err := ring.Generate("file:keys/root.key", ECDSAP384)
	if err != nil {
		t.Fatal(err)
	}
	away := PassphraseBytes([]byte("another passphrase"))
	file, err := ring.export("file:keys/root.key", away, testWorkFactor)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := OpenExported(file, away)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	sig, err := opened.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Errorf("what the opened key signs is not the key's: %v", err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	identity, err := age.NewScryptIdentity("another passphrase")
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), identity)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN PRIVATE KEY-----")) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	_, err = OpenExported(file, PassphraseBytes([]byte("pw")))
	wantError(t, err, ErrWrongPassphrase)
	for _, damaged := range [][]byte{nil, file[:len(file)/2], bytes.Replace(file, []byte("A"), []byte("B"), 1), make([]byte, maxKeyFile+1)} {
		if _, err := OpenExported(damaged, away); err == nil {
			t.Errorf("%d bytes opened", len(damaged))
		}
	}
	_, err = ring.export("file:keys/none.key", away, testWorkFactor)
	wantError(t, err, ErrNotFound)
	if _, err := ring.export("file:keys/root.key", Passphrase{}, testWorkFactor); err == nil {
		t.Error("exported without a passphrase")
	}
}

func TestRemovedKeys(t *testing.T) {
	ring := newTestKeyring(t, PassphraseBytes([]byte("pw")))
	if _, err := ring.Generate("file:keys/root.key", ECDSAP384); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(ring.Dir(), "keys", "root.key")
	other := filepath.Join(t.TempDir(), "link")
	if err := os.Link(path, other); err != nil {
		t.Fatal(err)
	}
	if err := ring.Remove("file:keys/root.key"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if left, err := os.ReadFile(other); err != nil || len(bytes.Trim(left, "\x00")) > 0 {
		t.Errorf("what the disk holds of it: %q, %v", left, err)
	}
	if err := ring.Remove("file:keys/root.key"); err == nil {
		t.Error("removed twice")
	}
	_, err := ring.Open("file:keys/root.key")
	wantError(t, err, ErrNotFound)
}
