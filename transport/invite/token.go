package invite

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/tlog"

	"fednode/store/ledger"
	"fednode/transport/member"
)

// Limits of a token.
const (
	prefix       = "fed1_"
	nonceSize    = 16
	checkSize    = 4
	maxText      = 4096 // characters
	maxEndpoints = 8
	maxEndpoint  = 262 // 253 of a DNS name, brackets, colon, port
)

// ErrMalformed is wrapped by what [Parse] returns.
var ErrMalformed = errors.New("not an invitation")

// A Token is an invitation. It holds a secret: whoever has it may ask to join in the invitee's name.
type Token struct {
	_            [0]func()
	FederationID string
	Invitee      member.OrgID
	Inviter      member.OrgID
	Root         [sha256.Size]byte // of the inviter's root certificate, DER
	Governance   ledger.Head       // of the governance log as the inviter had it in effect
	Endpoints    []string          // of the inviter, host:port
	Expires      time.Time         // whole seconds

	nonce     [nonceSize]byte
	signature []byte // by the inviter's message key
}

// Sign makes a token of t, whose fields are set, with a new secret.
func Sign(t Token, key crypto.Signer) (*Token, error) {
	t.Expires = t.Expires.UTC().Truncate(time.Second)
	rand.Read(t.nonce[:])
	if err := t.check(); err != nil {
		return nil, err
	}
	var err error
	t.signature, err = key.Sign(rand.Reader, t.signedBytes(), crypto.Hash(0))
	if err == nil && len(t.signature) != ed25519.SignatureSize {
		err = errors.New("the key is not Ed25519")
	}
	if err != nil {
		return nil, fmt.Errorf("sign invitation: %w", err)
	}
	return &t, nil
}

// Parse reads a token. White space in it, as from a line that was broken in a mail, is skipped.
func Parse(text string) (*Token, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: %d characters; at most %d", ErrMalformed, len(text), maxText)
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	b64, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return nil, fmt.Errorf("%w: it begins with %s; copy all of it from the inviter's fednode invite", ErrMalformed, prefix)
	}
	damaged := fmt.Errorf("%w: characters of it are missing or wrong; copy it again, all of it", ErrMalformed)
	b, err := base64.RawURLEncoding.Strict().DecodeString(b64)
	if err != nil || len(b) < checkSize+ed25519.SignatureSize {
		return nil, damaged
	}
	b, sum := b[:len(b)-checkSize], b[len(b)-checkSize:]
	if !bytes.Equal(sum, checksum(b)) {
		return nil, damaged
	}
	t := &Token{signature: b[len(b)-ed25519.SignatureSize:]}
	body := b[:len(b)-ed25519.SignatureSize]
	if err := t.decode(body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(t.body(), body) {
		return nil, fmt.Errorf("%w: it is not in its one form", ErrMalformed)
	}
	return t, nil
}

func checksum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:checkSize]
}

// Text is the token as it is handed over.
func (t *Token) Text() string {
	b := append(t.body(), t.signature...)
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, checksum(b)...))
}

// body is everything but the signature:
//
//	federation id (32) · root (32) · governance root (32) · nonce (16) · governance size (uvarint) · expiry, Unix
//	seconds (uvarint) · invitee · inviter · number of endpoints (uvarint) · endpoints
//
// Names and endpoints have their length before them (uvarint).
func (t *Token) body() []byte {
	id, err := hex.DecodeString(t.FederationID)
	if err != nil {
		id = nil // check has refused it
	}
	b := append(id, t.Root[:]...)
	b = append(b, t.Governance.Root[:]...)
	b = append(b, t.nonce[:]...)
	b = binary.AppendUvarint(b, uint64(t.Governance.Size))
	b = binary.AppendUvarint(b, uint64(t.Expires.Unix()))
	for _, s := range []string{string(t.Invitee), string(t.Inviter)} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Endpoints)))
	for _, s := range t.Endpoints {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

func (t *Token) decode(b []byte) error {
	r := &reader{b: b}
	t.FederationID = hex.EncodeToString(r.take(sha256.Size))
	copy(t.Root[:], r.take(sha256.Size))
	t.Governance.Root = tlog.Hash(r.take(sha256.Size))
	copy(t.nonce[:], r.take(nonceSize))
	t.Governance.Size = int64(r.number(1 << 40))
	t.Expires = time.Unix(int64(r.number(1<<40)), 0).UTC()
	t.Invitee, t.Inviter = member.OrgID(r.text(maxEndpoint)), member.OrgID(r.text(maxEndpoint))
	for range r.number(maxEndpoints) {
		t.Endpoints = append(t.Endpoints, r.text(maxEndpoint))
	}
	if r.short || len(r.b) > 0 {
		return errors.New("its fields don't fit")
	}
	return t.check()
}

// A reader takes fields off a body; once one is short, all are empty.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || n > len(r.b) {
		r.short = true
		return make([]byte, min(n, sha256.Size))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	if r.short || size <= 0 || n > limit {
		r.short = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) text(limit uint64) string { return string(r.take(int(r.number(limit)))) }

func (t *Token) check() error {
	if id, err := hex.DecodeString(t.FederationID); err != nil || len(id) != sha256.Size || hex.EncodeToString(id) != t.FederationID {
		return errors.New("federation id")
	}
	if err := errors.Join(t.Invitee.Validate(), t.Inviter.Validate()); err != nil {
		return err
	}
	switch {
	case t.Invitee == t.Inviter:
		return errors.New("an organisation does not invite itself")
	case t.Governance.Size < 1:
		return errors.New("governance log of no entries")
	case len(t.Endpoints) == 0 || len(t.Endpoints) > maxEndpoints:
		return fmt.Errorf("%d endpoints; 1 to %d are allowed", len(t.Endpoints), maxEndpoints)
	case t.Expires.Unix() < 0:
		return errors.New("expiry")
	}
	for _, e := range t.Endpoints {
		if err := member.CheckEndpoint(e); err != nil {
			return err
		}
	}
	return nil
}

func (t *Token) signedBytes() []byte { return append([]byte("fednode/invitation/v1\n"), t.body()...) }

// ID names the invitation, and says nothing of its secret.
func (t Token) ID() string {
	sum := sha256.Sum256(append([]byte("fednode/invitation-id/v1\n"), t.nonce[:]...))
	return hex.EncodeToString(sum[:8])
}

// Secret is what requests are MACed with: HMAC-SHA-256, keyed with the nonce, of everything else. So a token of which
// anything was altered has another one.
func (t *Token) Secret() Secret {
	m := hmac.New(sha256.New, t.nonce[:])
	m.Write([]byte("fednode/invitation-mac/v1\n"))
	m.Write(t.body())
	m.Write(t.signature)
	return Secret{key: m.Sum(nil)}
}

// Verify checks the token against the members in force: that its inviter is one, under the root that the token names,
// and has signed it. Whoever calls it has verified the set through [Token.Governance].
func (t *Token) Verify(set *member.Set) error {
	m, ok := set.Get(t.Inviter)
	if !ok || set.FederationID() != t.FederationID {
		return fmt.Errorf("%s, which the invitation says it is from, is not a member of %s", t.Inviter, set.Name())
	}
	known := false
	for _, r := range m.Roots {
		known = known || sha256.Sum256(r.Raw) == t.Root
	}
	if !known {
		return fmt.Errorf("the invitation names another root certificate than the members know of %s", t.Inviter)
	}
	for _, k := range m.Record().Record.Keys.Message {
		if ed25519.Verify(k.Public, t.signedBytes(), t.signature) {
			return nil
		}
	}
	return fmt.Errorf("the invitation is not signed with a key of %s: it was altered, or the key was replaced; ask for a new one", t.Inviter)
}

// redacted is what a token prints.
func (t Token) redacted() string {
	return fmt.Sprintf("invitation %s of %s by %s", t.ID(), t.Invitee, t.Inviter)
}

// String names the invitation without its secret.
func (t Token) String() string { return t.redacted() }

// Format prints the same under every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.redacted()) }

// LogValue logs the same.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.redacted()) }

// A Secret binds requests to an invitation. The inviter keeps it, sealed, in place of the token.
type Secret struct {
	_   [0]func()
	key []byte
}

// SecretOf takes up what [Secret.Bytes] gave.
func SecretOf(b []byte) (Secret, error) {
	if len(b) != sha256.Size {
		return Secret{}, fmt.Errorf("secret of an invitation: %d bytes", len(b))
	}
	return Secret{key: bytes.Clone(b)}, nil
}

// Bytes are for whoever seals them.
func (s Secret) Bytes() []byte { return bytes.Clone(s.key) }

// String never shows a secret.
func (Secret) String() string { return "secret of an invitation" }

// Format prints the same under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue logs the same.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
