package invite

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fednode/store/ledger"
)

func aToken(t testing.TB) (*Token, ed25519.PublicKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Sign(Token{FederationID: strings.Repeat("ab", 32), Invitee: "org-b", Inviter: "org-a", Root: sha256.Sum256([]byte("root")),
		Governance: ledger.Head{Size: 5, Root: ledger.Hash(sha256.Sum256([]byte("log")))}, Endpoints: []string{"fed.a.org:443", "[2001:db8::1]:8443"},
		Expires: time.Date(2026, 3, 1, 12, 0, 0, 123, time.UTC)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return tok, pub
}

func TestTokensAreReadAsWritten(t *testing.T) {
	tok, pub := aToken(t)
	text := tok.Text()
	if len(text) > 400 {
		t.Errorf("a token has %d characters", len(text))
	}
	for _, broken := range []string{text, " " + text + "\n", text[:70] + "\n" + text[70:140] + "\r\n  " + text[140:]} {
		got, err := Parse(broken)
		if err != nil {
			t.Fatal(err)
		}
		if got.Text() != text || got.ID() != tok.ID() || !bytes.Equal(got.Secret().Bytes(), tok.Secret().Bytes()) || got.Invitee != "org-b" || got.Inviter != "org-a" ||
			got.FederationID != tok.FederationID || got.Governance != tok.Governance || !got.Expires.Equal(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) || strings.Join(got.Endpoints, " ") != "fed.a.org:443 [2001:db8::1]:8443" {
			t.Errorf("read %v", got)
		}
		if !ed25519.Verify(pub, got.signedBytes(), got.signature) {
			t.Error("the signature does not verify")
		}
	}
}

// TestMistakesAreFound: one character wrong or missing, anywhere, is no token.
func TestMistakesAreFound(t *testing.T) {
	tok, _ := aToken(t)
	text := tok.Text()
	for i := range text {
		for _, wrong := range []string{text[:i], text[:i] + text[i+1:], text[:i] + "A" + text[i+1:], text[:i] + "!" + text[i+1:]} {
			if wrong == text {
				continue
			}
			if _, err := Parse(wrong); !errors.Is(err, ErrMalformed) {
				t.Fatalf("character %d: %v", i, err)
			}
		}
	}
	if _, err := Parse(text + strings.Repeat(" ", maxText)); !errors.Is(err, ErrMalformed) {
		t.Errorf("longer than any: %v", err)
	}
}

// TestAlterationsShow: whoever can make a checksum changes the secret, the words and the signature's verdict with
// whatever else is changed.
func TestAlterationsShow(t *testing.T) {
	tok, pub := aToken(t)
	raw := append(tok.body(), tok.signature...)
	parsed, words := 0, wordsOf(t, tok)
	for i := range raw {
		b := bytes.Clone(raw)
		b[i] ^= 4
		got, err := Parse(prefix + base64.RawURLEncoding.EncodeToString(append(b, checksum(b)...)))
		if err != nil {
			continue
		}
		parsed++
		if bytes.Equal(got.Secret().Bytes(), tok.Secret().Bytes()) {
			t.Errorf("byte %d: the same secret", i)
		}
		if ed25519.Verify(pub, got.signedBytes(), got.signature) {
			t.Errorf("byte %d: the signature still verifies", i)
		}
		if i%50 == 0 && i < len(raw)-ed25519.SignatureSize {
			if wordsOf(t, got) == words {
				t.Errorf("byte %d: the same words", i)
			}
		}
	}
	if parsed < 150 {
		t.Errorf("only %d alterations were tokens at all", parsed)
	}
}

func wordsOf(t testing.TB, tok *Token) string {
	t.Helper()
	w, err := tok.Words()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWhatIsNotSigned(t *testing.T) {
	good, _ := aToken(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Token){
		"federation":    func(x *Token) { x.FederationID = "AB" + x.FederationID[2:] },
		"invitee":       func(x *Token) { x.Invitee = "Org B" },
		"itself":        func(x *Token) { x.Invitee = x.Inviter },
		"no log":        func(x *Token) { x.Governance.Size = 0 },
		"no endpoint":   func(x *Token) { x.Endpoints = nil },
		"bad endpoint":  func(x *Token) { x.Endpoints = []string{"fed.a.org"} },
		"many":          func(x *Token) { x.Endpoints = strings.Fields(strings.Repeat("a.org:1 ", maxEndpoints+1)) },
		"before a time": func(x *Token) { x.Expires = time.Unix(-1, 0) },
	} {
		x := *good
		change(&x)
		if _, err := Sign(x, key); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

// TestSecretsDontPrint under any verb.
func TestSecretsDontPrint(t *testing.T) {
	tok, _ := aToken(t)
	all := ""
	for _, v := range []any{tok, *tok, tok.Secret(), []any{*tok, tok.Secret()}} {
		all += fmt.Sprintf("%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v)
	}
	all += tok.LogValue().String() + tok.Secret().LogValue().String()
	for _, secret := range []string{string(tok.nonce[:]), fmt.Sprintf("%x", tok.nonce), fmt.Sprint(tok.nonce), fmt.Sprintf("%x", tok.Secret().key), tok.Text()} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in %q", secret, all)
		}
	}
}

func TestWordList(t *testing.T) {
	seen := map[string]bool{}
	list := strings.Fields(wordList)
	for _, w := range list {
		if len(w) < 3 || len(w) > 8 || seen[w[:min(len(w), 4)]] || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("%q", w)
		}
		seen[w[:min(len(w), 4)]] = true
	}
	if len(list) != 1<<bitsPerWord {
		t.Errorf("%d words", len(list))
	}
}

func aRequest() Request {
	return Request{Ask: AskLog, Invitation: strings.Repeat("0a", 8), RootSHA256: strings.Repeat("0b", 32), Time: "2026-03-01T12:00:00.000Z", Offset: 7}
}

// TestRequestsAreBound to the invitation and to the session.
func TestRequestsAreBound(t *testing.T) {
	tok, _ := aToken(t)
	other, _ := aToken(t)
	exporter := bytes.Repeat([]byte{1}, 32)
	b, err := aRequest().Seal(tok.Secret(), exporter)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(tok.Secret(), exporter); err != nil {
		t.Error(err)
	}
	if r.Verify(other.Secret(), exporter) == nil || r.Verify(tok.Secret(), bytes.Repeat([]byte{2}, 32)) == nil {
		t.Error("good for another invitation, or in another session")
	}
	for name, change := range map[string]func(*Request){
		"ask": func(r *Request) { r.Ask = AskJoin }, "offset": func(r *Request) { r.Offset++ }, "time": func(r *Request) { r.Time = "2026-03-01T12:00:01.000Z" },
		"root": func(r *Request) { r.RootSHA256 = strings.Repeat("0c", 32) }, "mac": func(r *Request) { r.MAC = bytes.Clone(r.MAC); r.MAC[31] ^= 1 },
	} {
		x := *r
		change(&x)
		if x.Verify(tok.Secret(), exporter) == nil {
			t.Errorf("%s altered, and it verifies", name)
		}
	}
	for name, text := range map[string]string{
		"version": strings.Replace(string(b), `"v":1`, `"v":2`, 1), "unknown field": strings.Replace(string(b), `"v":1`, `"v":1,"w":1`, 1),
		"invitation": strings.Replace(string(b), strings.Repeat("0a", 8), "0A", 1), "negative": strings.Replace(string(b), `"offset":7`, `"offset":-7`, 1),
		"space": " " + string(b), "time": strings.Replace(string(b), "2026-03-01T", "2026-03-01 ", 1),
	} {
		if _, err := ParseRequest([]byte(text)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "test", "fed", "testdata", "invitation-v1", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The fixture was written once: tokens are in mails, and who made them may be of another version than who reads them.
func TestGoldenInvitation(t *testing.T) {
	tok, err := Parse(string(golden(t, "token")))
	if err != nil {
		t.Fatal(err)
	}
	exporter := bytes.Repeat([]byte{7}, 32)
	r, err := ParseRequest(golden(t, "request"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(tok.Secret(), exporter); err != nil {
		t.Error(err)
	}
	again, err := Request{Ask: r.Ask, Invitation: tok.ID(), RootSHA256: r.RootSHA256, Time: r.Time}.Seal(tok.Secret(), exporter)
	if err != nil || !bytes.Equal(again, golden(t, "request")) {
		t.Errorf("%s, %v", again, err)
	}
	got := fmt.Sprintf("%s\n%s\n%s\n%s %d %x\n%s\n%s\n%s\n", tok.FederationID, tok, wordsOf(t, tok), tok.Expires.Format(time.RFC3339), tok.Governance.Size, tok.Governance.Root[:],
		strings.Join(tok.Endpoints, " "), fmt.Sprintf("%x", tok.Root), fmt.Sprintf("%x", tok.Secret().Bytes()))
	if want := string(golden(t, "says")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	a, err := ParseAnswer(golden(t, "answer"))
	if err != nil || a.State != StateAwaiting || a.Standing.Need != 2 || a.Log.Size != 3 || string(a.Log.Data) != "log" || !a.Reach[0].OK {
		t.Errorf("%+v, %v", a, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(golden(f, "token")))
	tok, _ := aToken(f)
	f.Add(tok.Text())
	f.Add("fed1_")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(tok.Text())
		if err != nil || again.Text() != tok.Text() {
			t.Fatalf("%q is read, and what it is written as is not: %v", text, err)
		}
	})
}

// FuzzBody reads bodies whose checksum is right, as an attacker's are.
func FuzzBody(f *testing.F) {
	tok, _ := aToken(f)
	f.Add(append(tok.body(), tok.signature...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := Parse(prefix + base64.RawURLEncoding.EncodeToString(append(bytes.Clone(raw), checksum(raw)...)))
		if err == nil && !bytes.Equal(append(tok.body(), tok.signature...), raw) {
			t.Fatalf("%x is written as %x", raw, tok.body())
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add(golden(f, "request"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := ParseRequest(in)
		if err != nil {
			return
		}
		if r.Verify(Secret{key: make([]byte, 32)}, nil) == nil {
			t.Fatalf("%q verifies under a secret that nobody used", in)
		}
	})
}
