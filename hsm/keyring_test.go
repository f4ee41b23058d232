package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func TestKeysSignAndReopen(t *testing.T) {
	pass := PassphraseBytes([]byte("correct horse"))
	ring := newTestKeyring(t, pass)
	for _, alg := range []Algorithm{Ed25519, ECDSAP384, ECDSAP256} {
		t.Run(string(alg), func(t *testing.T) {
			uri := "file:keys/deep/" + string(alg) + ".key"
			made, err := ring.Generate(uri, alg)
			if err != nil {
				t.Fatal(err)
			}
			again, err := OpenKeyring(ring.Dir(), pass)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			opened, err := again.Open(uri)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := AlgorithmOf(opened.Public()); err != nil || got != alg {
				t.Errorf("algorithm %q, %v", got, err)
			}
			if opened.URI() != uri {
				t.Errorf("URI %q, want %q", opened.URI(), uri)
			}
			message := []byte("message")
			switch pub := made.Public().(type) {
			case ed25519.PublicKey:
				signature, err := opened.Sign(rand.Reader, message, crypto.Hash(0))
				if err != nil || !ed25519.Verify(pub, message, signature) {
					t.Errorf("signature does not verify: %v", err)
				}
				if _, err := opened.Sign(rand.Reader, make([]byte, 64), crypto.SHA512); err == nil {
					t.Error("Ed25519 signed a digest")
				}
			case *ecdsa.PublicKey:
				digest := sha512.Sum384(message)
				signature, err := opened.Sign(rand.Reader, digest[:], crypto.SHA384)
				if err != nil || !ecdsa.VerifyASN1(pub, digest[:], signature) {
					t.Errorf("signature does not verify: %v", err)
				}
				if _, err := opened.Sign(rand.Reader, digest[:40], crypto.SHA384); err == nil {
					t.Error("ECDSA signed a digest of the wrong length")
				}
				if _, err := opened.Sign(rand.Reader, message, crypto.Hash(0)); err == nil {
					t.Error("ECDSA signed an undigested message")
				}
			}
			if _, err := opened.Sign(rand.Reader, message, nil); err == nil {
				t.Error("signed without options")
			}
			opened.Close()
			opened.Close()
			_, err = opened.Sign(rand.Reader, make([]byte, 48), opts(alg))
			wantError(t, err, ErrClosed)
		})
	}
}

func opts(alg Algorithm) crypto.SignerOpts {
	if alg == Ed25519 {
		return crypto.Hash(0)
	}
	return crypto.SHA384
}

func TestCloseWipesKey(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	k, err := ring.Generate("file:a.key", Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	held := k.(*fileKey).priv.(ed25519.PrivateKey)
	k.Close()
	if !bytes.Equal(held, make([]byte, len(held))) {
		t.Error("private key bytes are left after Close")
	}
	k, err = ring.Generate("file:b.key", ECDSAP384)
	if err != nil {
		t.Fatal(err)
	}
	words := k.(*fileKey).priv.(*ecdsa.PrivateKey).D.Bits()
	k.Close()
	for _, w := range words {
		if w != 0 {
			t.Fatal("scalar words are left after Close")
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

func TestModesOnDisk(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	if _, err := ring.Generate("file:sub/x.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(ring.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil || files != 3 {
		t.Errorf("%d files (temporary ones left?), %v", files, err)
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

func TestNothingIsOverwritten(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	_, err := CreateKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrExists)
	if _, err := ring.Generate("file:x.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(ring.Dir(), "x.key")
	before, _ := os.ReadFile(path)
	_, err = ring.Generate("file:x.key", ECDSAP384)
	wantError(t, err, ErrExists, path)
	after, _ := os.ReadFile(path)
	if !bytes.Equal(before, after) {
		t.Error("the key file changed")
	}
	if err := os.Remove(filepath.Join(ring.Dir(), keyringFile)); err != nil {
		t.Fatal(err)
	}
	_, err = CreateKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrExists, "restore")
}

func TestOneOfManyGenerateWins(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		wg.Go(func() {
			_, err := ring.Generate("file:keys/same.key", Ed25519)
			results <- err
		})
	}
	wg.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d generated the same key file", won)
	}
}

func TestUnsafeFilesAreRefused(t *testing.T) {
	type place struct{ dir, key string }
	tests := []struct {
		name  string
		spoil func(t *testing.T, p place) error
		mend  func(p place) string
	}{
		{"file readable by group", func(t *testing.T, p place) error { return os.Chmod(p.key, 0o640) }, func(p place) string { return "chmod 600 " + p.key }},
		{"file readable by all", func(t *testing.T, p place) error { return os.Chmod(p.key, 0o604) }, func(p place) string { return "chmod 600 " + p.key }},
		{"subdirectory open", func(t *testing.T, p place) error { return os.Chmod(filepath.Dir(p.key), 0o750) }, func(p place) string { return "chmod 700 " + filepath.Dir(p.key) }},
		{"directory open", func(t *testing.T, p place) error { return os.Chmod(p.dir, 0o711) }, func(p place) string { return "chmod 700 " + p.dir }},
		{"file is a symlink", func(t *testing.T, p place) error {
			return errors.Join(os.Rename(p.key, p.key+".real"), os.Symlink(p.key+".real", p.key))
		}, func(p place) string { return p.key + " is a symbolic link" }},
		{"subdirectory is a symlink", func(t *testing.T, p place) error {
			d := filepath.Dir(p.key)
			return errors.Join(os.Rename(d, d+".real"), os.Symlink(d+".real", d))
		}, func(p place) string { return filepath.Dir(p.key) + " is a symbolic link" }},
		{"directory in place of file", func(t *testing.T, p place) error { return errors.Join(os.Remove(p.key), os.Mkdir(p.key, 0o700)) }, func(p place) string { return "not a regular file" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ring := newTestKeyring(t, Unprotected())
			if _, err := ring.Generate("file:sub/x.key", Ed25519); err != nil {
				t.Fatal(err)
			}
			p := place{ring.Dir(), filepath.Join(ring.Dir(), "sub", "x.key")}
			if err := tt.spoil(t, p); err != nil {
				t.Fatal(err)
			}
			_, err := ring.Open("file:sub/x.key")
			wantError(t, err, ErrPermissions, tt.mend(p))
		})
	}
}

func TestUnsafeKeyringIsRefused(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(ring.Dir(), link); err != nil {
		t.Fatal(err)
	}
	_, err := OpenKeyring(link, Unprotected())
	wantError(t, err, ErrPermissions, "symbolic link")
	for _, name := range []string{keyringFile, sealKeyFile} {
		path := filepath.Join(ring.Dir(), name)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeyring(ring.Dir(), Unprotected())
		wantError(t, err, ErrPermissions, "chmod 600 "+path)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(ring.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = OpenKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrPermissions, "chmod 700 "+ring.Dir())
	_, err = CreateKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrPermissions, "chmod 700 "+ring.Dir())
}

func TestAttributes(t *testing.T) {
	tests := []struct {
		name    string
		a       attributes
		trust   trust
		dir     bool
		refused string // empty: accepted
	}{
		{"own file", attributes{"/k", 0o600, 7}, ownerOnly, false, ""},
		{"own read-only file", attributes{"/k", 0o400, 7}, ownerOnly, false, ""},
		{"foreign file", attributes{"/k", 0o600, 8}, ownerOnly, false, "chown 7 /k"},
		{"root's file", attributes{"/k", 0o600, 0}, ownerOnly, false, "chown 7 /k"},
		{"quoted path", attributes{"/a b/it's", 0o640, 7}, ownerOnly, false, `chmod 600 '/a b/it'\''s'`},
		{"foreign directory", attributes{"/d", fs.ModeDir | 0o700, 8}, ownerOnly, true, "chown 7 /d"},
		{"file for directory", attributes{"/d", 0o700, 7}, ownerOnly, true, "not a directory"},
		{"root's credential by ACL", attributes{"/c", 0o440, 0}, credential, false, ""},
		{"own credential", attributes{"/c", 0o400, 7}, credential, false, ""},
		{"world-readable credential", attributes{"/c", 0o444, 0}, credential, false, "chmod 600 /c"},
		{"group-writable credential", attributes{"/c", 0o460, 0}, credential, false, "chmod 600 /c"},
		{"third party's credential", attributes{"/c", 0o400, 8}, credential, false, "chown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.a.check(7, tt.trust, tt.dir)
			if tt.refused == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, err, ErrPermissions, tt.refused)
		})
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

func TestURIs(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	outside := filepath.Join(t.TempDir(), "absolute key")
	for _, uri := range []string{"file:a.key", "file:./b.key", "FILE:c.key", "file:per%20cent.key", "file:" + strings.ReplaceAll(outside, " ", "%20"), "file://" + strings.ReplaceAll(outside+"2", " ", "%20")} {
		if _, err := ring.Generate(uri, Ed25519); err != nil {
			t.Errorf("%s: %v", uri, err)
		} else if _, err := ring.Open(uri); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	for _, uri := range []string{"tpm:0x81010001", "pkcs11:token=fed;object=message?pin-value=1234", "vault:x", "http://host/x"} {
		_, err := ring.Open(uri)
		wantError(t, err, ErrScheme)
		if strings.Contains(err.Error(), "1234") {
			t.Errorf("the error quotes a PIN: %v", err)
		}
		_, err = ring.Generate(uri, Ed25519)
		wantError(t, err, ErrScheme)
	}
	for _, uri := range []string{"", "x.key", "file:", "file:/", "file:dir/", "file:../x", "file:a/../../x", "file:..%2fx", "file:.", "file:x?y", "file:x#y", "file://host/x", "file:%00", "file:%zz", "file:" + strings.Repeat("a", maxURI)} {
		if k, err := ring.Open(uri); err == nil {
			t.Errorf("opened %q as %v", uri, k)
		}
		if k, err := ring.Generate(uri, Ed25519); err == nil {
			t.Errorf("generated %q as %v", uri, k)
		}
	}
	if _, err := ring.Generate("file:z.key", "rsa"); err == nil || !strings.Contains(err.Error(), `"rsa"`) {
		t.Error(err)
	}
	_, err := ring.Open("file:missing.key")
	wantError(t, err, ErrNotFound)
	if _, err := ring.Open("file:" + sealKeyFile); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the seal key opened as a signing key: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	secret := []byte("s3cret-passphrase")
	pass := PassphraseBytes(secret)
	ring := newTestKeyring(t, pass)
	k, err := ring.Generate("file:x.key", Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	seed := k.(*fileKey).priv.(ed25519.PrivateKey).Seed()
	forbidden := []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%d", secret), ring.identity.String(),
		string(seed), fmt.Sprintf("%x", seed), fmt.Sprintf("%X", seed), fmt.Sprintf("%d", seed), fmt.Sprintf("%v", seed)}
	for _, secret := range ring.sealer.k.secrets {
		forbidden = append(forbidden, string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%d", secret))
	}
	for name, v := range map[string]any{"key": k, "passphrase": pass, "keyring": ring, "sealer": ring.Sealer()} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
			fmt.Fprintf(&out, verb+"\n", v)
			fmt.Fprintf(&out, verb+"\n", struct{ V any }{v})
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		for _, f := range forbidden {
			if strings.Contains(out.String(), f) {
				t.Errorf("%s prints a secret", name)
			}
		}
	}
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

func FuzzParsePrivate(f *testing.F) {
	for _, alg := range []Algorithm{Ed25519, ECDSAP384, ECDSAP256} {
		priv, err := alg.generate()
		if err != nil {
			f.Fatal(err)
		}
		text, err := marshalPrivate(priv)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		priv, err := parsePrivate(b)
		if err != nil {
			return
		}
		k, err := newFileKey("file:x", priv)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(b)
		o := crypto.SignerOpts(crypto.SHA256)
		if k.alg == Ed25519 {
			o = crypto.Hash(0)
		}
		if _, err := k.Sign(rand.Reader, digest[:], o); err != nil {
			t.Errorf("accepted a key that cannot sign: %v", err)
		}
	})
}

func FuzzParseFileURI(f *testing.F) {
	for _, s := range []string{"file:a/b.key", "file:/abs", "file:///abs", "tpm:x", "pkcs11:a=b", "file:..%2f..", "file:a%00", "%", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		path, relative, err := parseFileURI(uri)
		if err != nil {
			return
		}
		if path == "" || strings.ContainsRune(path, 0) || relative != filepath.IsLocal(path) || relative == filepath.IsAbs(path) {
			t.Errorf("%q gives %q, relative %t", uri, path, relative)
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

func BenchmarkSign(b *testing.B) {
	ring := newTestKeyring(b, Unprotected())
	for _, alg := range []Algorithm{Ed25519, ECDSAP384, ECDSAP256} {
		b.Run(string(alg), func(b *testing.B) {
			k, err := ring.Generate("file:"+rand.Text(), alg)
			if err != nil {
				b.Fatal(err)
			}
			digest := make([]byte, 48)
			for b.Loop() {
				if _, err := k.Sign(rand.Reader, digest, opts(alg)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
