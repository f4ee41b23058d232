package transport

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The fixture was written once. Envelopes like it are in logs and archives: it must open for ever.
func TestGoldenEnvelope(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "test", "fed", "testdata", "envelope-v1", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var key struct {
		Alg    string `json:"alg"`
		Seed   []byte `json:"seed"`
		Public []byte `json:"public"`
	}
	if err := json.Unmarshal(read("key"), &key); err != nil || key.Alg != Ed25519 {
		t.Fatalf("key: %+v, %v", key, err)
	}
	e, err := ParseEnvelope(read("request.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(key.Public); err != nil {
		t.Error(err)
	}
	signed, err := e.SignedBytes()
	if err != nil || !bytes.Equal(signed, read("signed-bytes")) {
		t.Errorf("signed bytes, %v:\n%s", err, signed)
	}
	if form := formOf(t, e); !bytes.Equal(form, read("ledger-form.json")) {
		t.Errorf("ledger form:\n%s", form)
	}
	if err := VerifyLedgerForm(read("ledger-form.json"), key.Public); err != nil {
		t.Error(err)
	}
	// Ed25519 is deterministic (RFC 8032), so sealing the same again gives the same.
	again := *e
	again.Signature = ""
	if err := again.Seal(ed25519.NewKeyFromSeed(key.Seed)); err != nil || again.Signature != e.Signature {
		t.Errorf("sealed again: %v\n%s\nwant\n%s", err, again.Signature, e.Signature)
	}
}
