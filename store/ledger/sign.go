package ledger

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxCheckpoint bounds a signed checkpoint that somebody hands us, in bytes.
const maxCheckpoint = 64 << 10

// VKey returns the verifier key of a log in the form of signed notes: name+hash+base64.
func VKey(name string, pub ed25519.PublicKey) (string, error) {
	return note.NewEd25519VerifierKey(name, pub)
}

// NewVerifier returns the verifier of a vkey.
func NewVerifier(vkey string) (note.Verifier, error) { return note.NewVerifier(vkey) }

// signer signs notes with a key that never leaves where it is kept.
type signer struct {
	note.Verifier
	key crypto.Signer
}

// Sign implements note.Signer. It verifies what it signed: a log whose checkpoint does not verify cannot be opened again.
func (s signer) Sign(msg []byte) ([]byte, error) {
	sig, err := s.key.Sign(rand.Reader, msg, crypto.Hash(0))
	if err == nil && !s.Verify(msg, sig) {
		err = errors.New("the key made a signature that does not verify")
	}
	return sig, err
}

// NewSigner returns a signer of notes called name with k, which must be Ed25519.
func NewSigner(name string, k crypto.Signer) (note.Signer, error) {
	pub, ok := k.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("log key of %s is %T; logs are signed with Ed25519", name, k.Public())
	}
	vkey, err := VKey(name, pub)
	if err != nil {
		return nil, fmt.Errorf("log key of %s: %w", name, err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("log key of %s: %w", name, err)
	}
	return signer{v, k}, nil
}

// Head is what a checkpoint says of a log.
type Head struct {
	Size int64
	Root tlog.Hash
}

var errCheckpoint = errors.New("checkpoint")

// ParseCheckpoint verifies a signed checkpoint of the log whose origin is the verifier's name.
func ParseCheckpoint(signed []byte, v note.Verifier) (Head, error) {
	if len(signed) > maxCheckpoint {
		return Head{}, fmt.Errorf("%w of %d bytes; at most %d", errCheckpoint, len(signed), maxCheckpoint)
	}
	cp, rest, n, err := log.ParseCheckpoint(signed, v.Name(), v)
	if err != nil {
		return Head{}, fmt.Errorf("%w of %s: %w", errCheckpoint, v.Name(), err)
	}
	for _, s := range slices.Concat(n.Sigs, n.UnverifiedSigs) {
		// The note package decodes base64 leniently: another last character may stand for the same bytes.
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return Head{}, fmt.Errorf("%w of %s: signature by %.80q: %w", errCheckpoint, v.Name(), s.Name, err)
		}
	}
	if len(rest) != 0 || len(cp.Hash) != hashSize || cp.Size > 1<<48 {
		return Head{}, fmt.Errorf("%w of %s: extension lines, hash or size out of bounds", errCheckpoint, v.Name())
	}
	return Head{Size: int64(cp.Size), Root: tlog.Hash(cp.Hash)}, nil
}

// signCheckpoint returns the signed note for a head.
func signCheckpoint(origin string, size uint64, root []byte, s note.Signer) ([]byte, error) {
	text := log.Checkpoint{Origin: origin, Size: size, Hash: root}.Marshal()
	return note.Sign(&note.Note{Text: string(text)}, s)
}

// HeadOf returns the head of a log of exactly these entries.
func HeadOf(entries [][]byte) (h Head, err error) {
	var t Tree
	for _, e := range entries {
		if t, err = t.Append(e); err != nil {
			return h, err
		}
	}
	return t.Head(), nil
}

// LeafHash returns the leaf hash of an entry (RFC 6962 section 2.1).
func LeafHash(entry []byte) tlog.Hash { return tlog.RecordHash(entry) }
