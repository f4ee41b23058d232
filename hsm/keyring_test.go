package hsm

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// testWorkFactor keeps scrypt out of the tests' running time.

const testWorkFactor = 2

func newTestKeyring(t testing.TB, p Passphrase) *Keyring {
	t.Helper()
	k, err := createKeyring(filepath.Join(t.TempDir(), "keys"), p, testWorkFactor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func wantError(t *testing.T, err, class error, texts ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("error %v, want class %q", err, class)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

// The public age library, given only the passphrase, opens every file.

func TestFilesAreAgeFiles(t *testing.T) {
	ring := newTestKeyring(t, PassphraseBytes([]byte("pw")))
	if _, err := ring.Generate("file:keys/message.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	scrypt, err := age.NewScryptIdentity("pw")
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string, id age.Identity) string {
		t.Helper()
		file, err := os.ReadFile(filepath.Join(ring.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		r, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), id)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if _, err := text.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	ids, err := age.ParseIdentities(strings.NewReader(open(keyringFile, scrypt)))
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	if text := open("keys/message.key", ids[0]); !strings.HasPrefix(text, "-----BEGIN PRIVATE KEY-----\n") {
		t.Error("key file is not PKCS#8 PEM")
	}
	if text := open(sealKeyFile, ids[0]); !strings.HasPrefix(text, "-----BEGIN FEDNODE SEAL KEY-----\n") {
		t.Error("seal key file is not PEM")
	}
}

func TestPassphraseErrors(t *testing.T) {
	ring := newTestKeyring(t, PassphraseBytes([]byte("right")))
	secret := "wrong-but-secret"
	_, err := OpenKeyring(ring.Dir(), PassphraseBytes([]byte(secret)))
	wantError(t, err, ErrWrongPassphrase, keyringFile)
	if strings.Contains(err.Error(), secret) {
		t.Error("the error quotes the passphrase")
	}
	_, err = OpenKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrWrongPassphrase, "has a passphrase")
	if _, err = OpenKeyring(ring.Dir(), Passphrase{}); err == nil {
		t.Error("opened without a source")
	}
	if _, err = OpenKeyring(ring.Dir(), PassphraseBytes(nil)); err == nil {
		t.Error("opened with an empty passphrase")
	}
	if _, err = CreateKeyring(filepath.Join(t.TempDir(), "k"), Passphrase{}); err == nil {
		t.Error("created without a source")
	}

	open := newTestKeyring(t, Unprotected())
	_, err = OpenKeyring(open.Dir(), PassphraseBytes([]byte("x")))
	wantError(t, err, ErrUnprotected)
	_, err = OpenKeyring(filepath.Join(t.TempDir(), "none"), Unprotected())
	wantError(t, err, ErrNotFound)
}

func TestFailedCreationLeavesNothingInTheWay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "keys")
	if _, err := createKeyring(dir, PassphraseBytes(nil), testWorkFactor); err == nil {
		t.Fatal("created with an empty passphrase")
	}
	if _, err := createKeyring(dir, PassphraseBytes([]byte("x")), testWorkFactor); err != nil {
		t.Fatal(err)
	}
}

func TestPassphraseSources(t *testing.T) {
	ring := newTestKeyring(t, PassphraseBytes([]byte("p w")))
	dir := t.TempDir()
	for name, text := range map[string]string{"lf": "p w\n", "crlf": "p w\r\n", "bare": "p w"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyring(ring.Dir(), PassphraseFile(path)); err != nil {
			t.Errorf("file with %s: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "two"), []byte("p w\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenKeyring(ring.Dir(), PassphraseFile(filepath.Join(dir, "two")))
	wantError(t, err, ErrWrongPassphrase)
	_, err = OpenKeyring(ring.Dir(), PassphraseFile(filepath.Join(dir, "missing")))
	wantError(t, err, ErrNotFound)

	t.Setenv("TEST_PASSPHRASE", "p w")
	p := PassphraseEnv("TEST_PASSPHRASE")
	if _, ok := os.LookupEnv("TEST_PASSPHRASE"); ok {
		t.Error("the variable is still in the environment")
	}
	for range 2 {
		if _, err := OpenKeyring(ring.Dir(), p); err != nil {
			t.Error(err)
		}
	}
	_, err = OpenKeyring(ring.Dir(), PassphraseEnv("TEST_PASSPHRASE"))
	wantError(t, err, ErrNotFound, "TEST_PASSPHRASE")

	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	// Group read is what systemd's ACL looks like; ownership decides here.
	if err := os.Chmod(filepath.Join(dir, "lf"), 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(ring.Dir(), PassphraseCredential("lf")); err != nil {
		t.Error(err)
	}
	_, err = OpenKeyring(ring.Dir(), PassphraseCredential("missing"))
	wantError(t, err, ErrNotFound, "LoadCredential=missing:")
	if _, err = OpenKeyring(ring.Dir(), PassphraseCredential("../lf")); err == nil {
		t.Error("a credential name left its directory")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	_, err = OpenKeyring(ring.Dir(), PassphraseCredential("lf"))
	wantError(t, err, ErrNotFound, "CREDENTIALS_DIRECTORY")
}

func TestChangePassphrase(t *testing.T) {
	ring := newTestKeyring(t, PassphraseBytes([]byte("old")))
	made, err := ring.Generate("file:x.key", Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.ChangePassphrase(Unprotected()); err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeyring(ring.Dir(), Unprotected())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := again.Open("file:x.key")
	if err != nil {
		t.Fatal(err)
	}
	if !made.Public().(ed25519.PublicKey).Equal(opened.Public()) {
		t.Error("another key")
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	pass := PassphraseBytes([]byte("pw"))
	ring := newTestKeyring(t, pass)
	if _, err := ring.Generate("file:x.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	other := newTestKeyring(t, pass)
	if _, err := other.Generate("file:x.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(ring.Dir(), "x.key")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other.Dir(), "x.key"))
	if err != nil {
		t.Fatal(err)
	}
	reencrypt := func(text string) []byte {
		file, err := encryptArmored([]byte(text), ring.identity.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	cases := map[string][]byte{
		"empty":             {},
		"plain text":        []byte("not a key"),
		"of another ring":   foreign,
		"oversize":          append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxKeyFile)...),
		"long content":      reencrypt(strings.Repeat("x", maxPlainKey+1)),
		"no PEM inside":     reencrypt("hello"),
		"seal key inside":   reencrypt("-----BEGIN FEDNODE SEAL KEY-----\nAAAA\n-----END FEDNODE SEAL KEY-----\n"),
		"garbage in PEM":    reencrypt("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"trailing data":     append(bytes.Clone(good), "x"...),
		"last line missing": good[:bytes.LastIndex(bytes.TrimSpace(good), []byte("\n"))],
	}
	for i := 0; i < len(good); i += 37 {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		cases[fmt.Sprintf("bit flipped in byte %d", i)] = bad
		cases[fmt.Sprintf("cut at %d", i)] = good[:i]
	}
	for name, file := range cases {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Open("file:x.key"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want %v", name, err, ErrCorrupt)
		}
	}
}

func TestExpensiveKeyringIsRefused(t *testing.T) {
	recipient, err := age.NewScryptRecipient("pw")
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(1)
	file, err := encryptArmored([]byte("x"), recipient)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := dearmor(file)
	if err != nil {
		t.Fatal(err)
	}
	// The work factor is the last argument of the scrypt stanza.
	line, rest, _ := bytes.Cut(raw[len("age-encryption.org/v1\n"):], []byte("\n"))
	line = append(bytes.TrimSuffix(line, []byte(" 1")), fmt.Sprintf(" %d", maxWorkFactor+1)...)
	var forged bytes.Buffer
	w := armor.NewWriter(&forged)
	fmt.Fprintf(w, "age-encryption.org/v1\n%s\n%s", line, rest)
	w.Close()
	_, err = readIdentity(forged.Bytes(), PassphraseBytes([]byte("pw")))
	wantError(t, err, ErrCorrupt, "work factor too large")
}

func dearmor(file []byte) ([]byte, error) {
	var raw bytes.Buffer
	_, err := raw.ReadFrom(armor.NewReader(bytes.NewReader(file)))
	return raw.Bytes(), err
}

func TestClosedKeyring(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	k, err := ring.Generate("file:x.key", Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	sealer := ring.Sealer()
	ring.Close()
	_, err = ring.Open("file:x.key")
	wantError(t, err, ErrClosed)
	_, err = ring.Generate("file:y.key", Ed25519)
	wantError(t, err, ErrClosed)
	_, err = sealer.Seal(nil, nil)
	wantError(t, err, ErrClosed)
	wantError(t, ring.ChangePassphrase(Unprotected()), ErrClosed)
	if _, err := k.Sign(rand.Reader, []byte("m"), crypto.Hash(0)); err != nil {
		t.Errorf("an open key died with its keyring: %v", err)
	}
}

func TestExists(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	if ok, err := Exists(ring.Dir()); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := Exists(filepath.Join(ring.Dir(), "none")); ok || err != nil {
		t.Error(ok, err)
	}
}

func FuzzReadIdentity(f *testing.F) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	recipient, err := age.NewScryptRecipient("pw")
	if err != nil {
		f.Fatal(err)
	}
	recipient.SetWorkFactor(1)
	file, err := encryptArmored([]byte(identity.String()), recipient)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add([]byte(identity.String() + "\n"))
	f.Add([]byte("# comment\n\n" + identity.String()))
	f.Add([]byte(armor.Header))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Work factors over 4 only cost time here.
		id, err := age.NewScryptIdentity("pw")
		if err != nil {
			t.Fatal(err)
		}
		id.SetMaxWorkFactor(4)
		plain, err := decryptArmored(b, id)
		if err == nil {
			b = plain
		}
		if got, err := parseIdentity(b); (err == nil) != (got != nil) {
			t.Errorf("identity and error: %v", err)
		}
	})
}

// BenchmarkOpenKeyring measures the one derivation a process pays at its start.

func BenchmarkOpenKeyring(b *testing.B) {
	pass := PassphraseBytes([]byte("correct horse battery staple"))
	dir := filepath.Join(b.TempDir(), "keys")
	if _, err := CreateKeyring(dir, pass); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenKeyring(dir, pass); err != nil {
			b.Fatal(err)
		}
	}
}
