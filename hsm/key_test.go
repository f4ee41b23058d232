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
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
	//lint:ignore SA1019 there is no other way to the words
	words := k.(*fileKey).priv.(*ecdsa.PrivateKey).D.Bits()
	k.Close()
	for _, w := range words {
		if w != 0 {
			t.Fatal("scalar words are left after Close")
		}
	}
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
