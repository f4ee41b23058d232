package ledger

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A cosignature of version 1 (https://c2sp.org/tlog-cosignature): 8 bytes of time, big-endian seconds, then Ed25519.
const (
	algCosignature  = 0x04
	cosignatureTime = 8
	maxCosignature  = 1024 // bytes of a signature line
	keyIDSize       = 4
)

var errCosignature = errors.New("cosignature")

// cosigner verifies cosignatures by one key.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }

// Verify implements note.Verifier.
func (c cosigner) Verify(msg, sig []byte) bool {
	return len(sig) == cosignatureTime+ed25519.SignatureSize && ed25519.Verify(c.key, cosigned(binary.BigEndian.Uint64(sig), msg), sig[cosignatureTime:])
}

// cosigned returns what a cosigner signs of a checkpoint's text.
func cosigned(at uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text)
}

// NewCosignatureVerifier returns the verifier of cosignatures by the cosigner of that name and Ed25519 key.
func NewCosignatureVerifier(name string, key ed25519.PublicKey) (note.Verifier, error) {
	if _, err := VKey(name, key); err != nil {
		return nil, fmt.Errorf("cosigner %.80q: %w", name, err)
	}
	if name == "" || strings.ContainsAny(name, "+ \n") || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("cosigner %.80q: name or key is not one of a cosigner", name)
	}
	h := sha256.Sum256(append(append([]byte(name+"\n"), algCosignature), key...))
	return cosigner{name, binary.BigEndian.Uint32(h[:]), key}, nil
}

// Cosign returns the signature line, without its end, by which the cosigner says that it has seen this log grow by
// nothing but appending up to this checkpoint. Whether that is so is the caller's to know.
func Cosign(checkpoint []byte, name string, k crypto.Signer, now time.Time) (string, error) {
	pub, ok := k.Public().(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("%w by %s: the key is %T; cosigners sign with Ed25519", errCosignature, name, k.Public())
	}
	v, err := NewCosignatureVerifier(name, pub)
	if err != nil {
		return "", err
	}
	text, err := noteText(checkpoint)
	if err != nil {
		return "", err
	}
	at := uint64(now.Unix())
	sig, err := k.Sign(rand.Reader, cosigned(at, text), crypto.Hash(0))
	if err != nil {
		return "", fmt.Errorf("%w by %s: %w", errCosignature, name, err)
	}
	b := binary.BigEndian.AppendUint32(nil, v.KeyHash())
	b = append(binary.BigEndian.AppendUint64(b, at), sig...)
	if !v.Verify(text, b[keyIDSize:]) {
		return "", fmt.Errorf("%w by %s: the key made a signature that does not verify", errCosignature, name)
	}
	return "— " + name + " " + base64.StdEncoding.EncodeToString(b), nil
}

// noteText returns the signed text of a note, with its last newline.
func noteText(signed []byte) ([]byte, error) {
	i := bytes.LastIndex(signed, []byte("\n\n"))
	if i < 0 {
		return nil, fmt.Errorf("%w: not a signed note", errCheckpoint)
	}
	return signed[:i+1], nil
}

// CosignerOf returns the cosigner's name that a signature line bears. Nothing is verified.
func CosignerOf(line string) (string, error) {
	name, _, err := parseCosignature(line)
	return name, err
}

func parseCosignature(line string) (name string, sig []byte, err error) {
	rest, ok := strings.CutPrefix(line, "— ")
	name, b64, found := strings.Cut(rest, " ")
	sig, err = base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || !found || err != nil || len(line) > maxCosignature || len(sig) != keyIDSize+cosignatureTime+ed25519.SignatureSize ||
		base64.StdEncoding.EncodeToString(sig) != b64 {
		return "", nil, fmt.Errorf("%w: not a signature line of version 1", errCosignature)
	}
	return name, sig, nil
}

// VerifyCosignature checks that line is the verifier's cosignature of the checkpoint, and returns its time.
func VerifyCosignature(checkpoint []byte, line string, v note.Verifier) (time.Time, error) {
	name, sig, err := parseCosignature(line)
	if err != nil {
		return time.Time{}, err
	}
	text, err := noteText(checkpoint)
	if err != nil {
		return time.Time{}, err
	}
	at := binary.BigEndian.Uint64(sig[keyIDSize:])
	if name != v.Name() || binary.BigEndian.Uint32(sig) != v.KeyHash() || at > 1<<40 || !v.Verify(text, sig[keyIDSize:]) {
		return time.Time{}, fmt.Errorf("%w by %.80q does not verify", errCosignature, name)
	}
	return time.Unix(int64(at), 0).UTC(), nil
}
