package hsm

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The fixture was written once. Keys and sealed files like it are on disks: it must open for ever.
func TestGoldenKeyring(t *testing.T) {
	golden := filepath.Join("..", "test", "fed", "testdata", "keyring-v1")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(golden, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"keyring.age", "seal.key", "message.key", "root.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), read(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := OpenKeyring(dir, PassphraseBytes([]byte("correct horse battery staple")))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	message, err := k.Open("file:message.key")
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(message.Public().(ed25519.PublicKey), []byte("message"), read("signature")) {
		t.Error("message.key is another key than the one that signed")
	}
	root, err := k.Open("file:root.key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Sign(nil, make([]byte, 48), crypto.SHA384); err != nil {
		t.Error(err)
	}
	value, err := k.Sealer().Unseal(read("value"), []byte("context"))
	if err != nil || string(value) != "sealed value" {
		t.Errorf("value %q, %v", value, err)
	}
	sealed := read("stream")
	stream, err := k.Sealer().OpenStream(bytes.NewReader(sealed), int64(len(sealed)), []byte("context"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := stream.From(0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	plain, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(plain, bytes.Repeat([]byte("sealed stream "), 10_000)) {
		t.Errorf("stream of %d bytes, %v", len(plain), err)
	}
}
