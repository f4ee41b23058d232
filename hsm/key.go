package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Key is a private key opened by URI. Public returns an ed25519.PublicKey or an
// *ecdsa.PublicKey. Sign follows crypto.Signer; after Close it returns ErrClosed.
// A Key is safe for concurrent use.
type Key interface {
	crypto.Signer
	// URI is the name the key was opened by.
	URI() string
	// Close forgets the private half. It may be called more than once.
	Close() error
}

// Algorithm names a signature algorithm a Key can have.
type Algorithm string

// The algorithms fednode uses: Ed25519 (RFC 8032) for messages and logs, ECDSA
// on P-384 for certificates of authorities and nodes, ECDSA on P-256 for
// hardware that has no P-384 (both FIPS 186-5).
const (
	Ed25519   Algorithm = "ed25519"
	ECDSAP384 Algorithm = "ecdsa-p384"
	ECDSAP256 Algorithm = "ecdsa-p256"
)

// AlgorithmOf returns the algorithm of a public key, or an error that names the
// kind of key if fednode does not use it.
func AlgorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch p := pub.(type) {
	case ed25519.PublicKey:
		return Ed25519, nil
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P384():
			return ECDSAP384, nil
		case elliptic.P256():
			return ECDSAP256, nil
		}
		return "", fmt.Errorf("ECDSA on %s is not used: take %s, %s or %s", p.Params().Name, Ed25519, ECDSAP384, ECDSAP256)
	}
	return "", fmt.Errorf("keys of type %T are not used: take %s, %s or %s", pub, Ed25519, ECDSAP384, ECDSAP256)
}

// generate makes a private key of the algorithm.
func (a Algorithm) generate() (crypto.Signer, error) {
	switch a {
	case Ed25519:
		_, priv, err := ed25519.GenerateKey(rand.Reader)
		return priv, err
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, fmt.Errorf("unknown key algorithm %q: take %s, %s or %s", string(a), Ed25519, ECDSAP384, ECDSAP256)
}

// fileKey is a Key whose private half was read from a file. Every way of
// printing it shows the URI, the algorithm and nothing else.
type fileKey struct {
	_   [0]func() // not comparable: private keys are not map keys, and == is not constant time
	uri string
	alg Algorithm
	pub crypto.PublicKey

	mu   sync.RWMutex
	priv crypto.Signer // nil once closed
}

func newFileKey(uri string, priv crypto.Signer) (*fileKey, error) {
	alg, err := AlgorithmOf(priv.Public())
	if err != nil {
		return nil, err
	}
	return &fileKey{uri: uri, alg: alg, pub: priv.Public(), priv: priv}, nil
}

func (k *fileKey) URI() string              { return k.uri }
func (k *fileKey) Public() crypto.PublicKey { return k.pub }

// Sign signs digest. Ed25519 signs the message itself, with opts.HashFunc() 0;
// ECDSA signs a digest of the length of opts.HashFunc() and returns ASN.1 DER.
func (k *fileKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil {
		return nil, fmt.Errorf("key %s: sign: no signer options", k.uri)
	}
	hash := opts.HashFunc()
	switch {
	case k.alg == Ed25519 && hash != 0:
		return nil, fmt.Errorf("key %s: sign: Ed25519 signs messages, not %s digests", k.uri, hash)
	case k.alg != Ed25519 && (hash == 0 || hash.Size() != len(digest)):
		return nil, fmt.Errorf("key %s: sign: digest of %d bytes does not fit its hash function", k.uri, len(digest))
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.priv == nil {
		return nil, fmt.Errorf("key %s: sign: %w", k.uri, ErrClosed)
	}
	return k.priv.Sign(random, digest, opts)
}

// Close overwrites the private half as far as Go's types allow. Copies that the
// runtime or the standard library made are left to the garbage collector.
func (k *fileKey) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	wipePrivate(k.priv)
	k.priv = nil
	return nil
}

func wipePrivate(priv crypto.Signer) {
	switch p := priv.(type) {
	case ed25519.PrivateKey:
		clear(p)
	case *ecdsa.PrivateKey:
		// The words of the scalar are reachable only through the field that
		// Go 1.26 deprecates for computing with; wiping is the exception.
		//lint:ignore SA1019 there is no other way to the words
		clear(p.D.Bits())
	}
}

func (k *fileKey) redacted() string {
	return fmt.Sprintf("%s (%s, private half redacted)", k.uri, k.alg)
}

func (k *fileKey) String() string               { return k.redacted() }
func (k *fileKey) Format(f fmt.State, _ rune)   { io.WriteString(f, k.redacted()) }
func (k *fileKey) LogValue() slog.Value         { return slog.StringValue(k.redacted()) }
func (k *fileKey) MarshalText() ([]byte, error) { return []byte(k.redacted()), nil }

const pemPrivateKey = "PRIVATE KEY" // RFC 7468 section 10

// marshalPrivate returns the PKCS#8 PEM of priv; the caller wipes it.
func marshalPrivate(priv crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// parsePrivate reads exactly one PKCS#8 PEM block. Its errors never quote the input.
func parsePrivate(text []byte) (crypto.Signer, error) {
	der, err := onePEM(text, pemPrivateKey)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("holds no PKCS#8 private key")
	}
	priv, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("holds a key of type %T, which cannot sign", parsed)
	}
	if _, err := AlgorithmOf(priv.Public()); err != nil {
		return nil, err
	}
	return priv, nil
}

// onePEM returns the content of the single PEM block of the given type that
// text must consist of; the caller wipes it.
func onePEM(text []byte, blockType string) ([]byte, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("holds no PEM block")
	case block.Type != blockType:
		clear(block.Bytes)
		return nil, fmt.Errorf("holds a PEM block of another type than %q", blockType)
	case len(rest) != 0:
		clear(block.Bytes)
		return nil, errors.New("holds more than one PEM block")
	}
	return block.Bytes, nil
}
