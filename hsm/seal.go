package hsm

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	sealKeySize = 32
	// sealVersion is the first byte of what Seal returns.
	sealVersion = 1
	// SealOverhead is how many bytes longer sealed data is than its plaintext:
	// version, 24-byte nonce, 16-byte tag.
	SealOverhead = 1 + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
)

// Sealer encrypts what a node keeps on disk, under a key that stays in the
// keyring. Associated data is authenticated, not stored: it names what the
// bytes are and where they belong, so that one sealed value cannot stand in for
// another. A Sealer is safe for concurrent use. The zero Sealer is closed.
type Sealer struct {
	_ [0]func()
	k *sealKeys
}

// sealKeys are the two keys derived from the seal key, one per use.
type sealKeys struct {
	mu      sync.RWMutex
	value   cipher.AEAD // Seal; nil once closed
	wrap    cipher.AEAD // file keys of SealStream
	secrets [2][]byte
}

func newSealer(key []byte) (Sealer, error) {
	if len(key) != sealKeySize {
		return Sealer{}, fmt.Errorf("seal key of %d bytes, want %d: %w", len(key), sealKeySize, ErrCorrupt)
	}
	k := &sealKeys{}
	for i, use := range []string{"fednode/seal/v1", "fednode/seal-stream/v1"} {
		secret, err := hkdf.Key(sha256.New, key, nil, use, chacha20poly1305.KeySize)
		if err != nil {
			return Sealer{}, err
		}
		k.secrets[i] = secret
	}
	var err error
	if k.value, err = chacha20poly1305.NewX(k.secrets[0]); err != nil {
		return Sealer{}, err
	}
	if k.wrap, err = chacha20poly1305.NewX(k.secrets[1]); err != nil {
		return Sealer{}, err
	}
	return Sealer{k: k}, nil
}

// close forgets the keys. The copies inside the ciphers cannot be overwritten;
// they go with the garbage.
func (s Sealer) close() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.k.value, s.k.wrap = nil, nil
	for _, secret := range s.k.secrets {
		clear(secret)
	}
}

// ciphers returns the value and wrap ciphers, or ErrClosed.
func (s Sealer) ciphers() (value, wrap cipher.AEAD, err error) {
	if s.k == nil {
		return nil, nil, fmt.Errorf("sealer: %w", ErrClosed)
	}
	s.k.mu.RLock()
	defer s.k.mu.RUnlock()
	if s.k.value == nil {
		return nil, nil, fmt.Errorf("sealer: %w", ErrClosed)
	}
	return s.k.value, s.k.wrap, nil
}

// Seal returns plaintext encrypted with XChaCha20-Poly1305 under a random
// nonce: version (1 byte) ‖ nonce (24) ‖ ciphertext and tag. The nonces are long
// enough for any number of values. Streams are for what does not fit in memory.
func (s Sealer) Seal(plaintext, aad []byte) ([]byte, error) {
	value, _, err := s.ciphers()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+value.NonceSize(), SealOverhead+len(plaintext))
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, err
	}
	return value.Seal(out, out[1:], plaintext, aad), nil
}

// Unseal returns the plaintext of what Seal returned for the same aad. The
// error wraps ErrUnseal if the bytes or the aad differ in anything.
func (s Sealer) Unseal(sealed, aad []byte) ([]byte, error) {
	value, _, err := s.ciphers()
	if err != nil {
		return nil, err
	}
	if len(sealed) < SealOverhead {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrUnseal, len(sealed))
	}
	if sealed[0] != sealVersion {
		return nil, fmt.Errorf("%w: format version %d is unknown, this build knows %d", ErrUnseal, sealed[0], sealVersion)
	}
	nonce, ciphertext := sealed[1:1+value.NonceSize()], sealed[1+value.NonceSize():]
	plaintext, err := value.Open(nil, nonce, ciphertext, aad)
	if err != nil {
		return nil, fmt.Errorf("%w: altered, of another keyring, or not what it is taken for", ErrUnseal)
	}
	return plaintext, nil
}

const sealerText = "sealer (redacted)"

// String shows nothing of the key.
func (s Sealer) String() string { return sealerText }

// Format prints the same under every verb.
func (s Sealer) Format(f fmt.State, _ rune) { io.WriteString(f, sealerText) }

// LogValue logs nothing of the key.
func (s Sealer) LogValue() slog.Value { return slog.StringValue(sealerText) }

// MarshalText writes nothing of the key.
func (s Sealer) MarshalText() ([]byte, error) { return []byte(sealerText), nil }
