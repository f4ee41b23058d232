package hsm

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const (
	keyringFile = "keyring.age"
	sealKeyFile = "seal.key"
	pemSealKey  = "FEDNODE SEAL KEY"

	// maxKeyFile bounds an encrypted key file in bytes; ours have under 1 KiB.
	maxKeyFile = 64 << 10
	// maxPlainKey bounds what is inside one.
	maxPlainKey = 16 << 10

	// workFactor is log2 of scrypt's N for new keyrings: with age's r=8 and p=1
	// a derivation takes 64 MiB and about 0.35 s on the slow end of servers;
	// 17 would take 0.7 s and 128 MiB there.
	workFactor = 16
	// maxWorkFactor is what opening accepts. It admits a keyring re-encrypted
	// with the age tool (its default, 256 MiB) and refuses one made to exhaust
	// the node's memory.
	maxWorkFactor = 18
)

// Keyring is an open keyring directory: keyring.age (an age X25519 identity,
// encrypted to the passphrase), seal.key and any number of key files encrypted
// to that identity. It is safe for concurrent use.
type Keyring struct {
	_      [0]func()
	dir    string
	sealer Sealer

	mu       sync.RWMutex
	identity *age.X25519Identity // nil once closed
}

// CreateKeyring makes a keyring in dir, which is created with mode 0700 if
// missing, and opens it. The error wraps ErrExists if there is one already.
func CreateKeyring(dir string, p Passphrase) (*Keyring, error) {
	return createKeyring(dir, p, workFactor)
}

// createKeyring is CreateKeyring with scrypt's cost as a parameter: tests that
// derive many times choose a low one, products cannot.
func createKeyring(dir string, p Passphrase, logN int) (*Keyring, error) {
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), privateDir); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	path := filepath.Join(dir, keyringFile)
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("create keyring: %s: %w: open it, or move the directory away first", path, ErrExists)
	}
	if _, err := os.Lstat(filepath.Join(dir, sealKeyFile)); err == nil {
		return nil, fmt.Errorf("create keyring: %s is there without %s: %w: restore %s from a backup; if creating this keyring was interrupted, remove %s",
			sealKeyFile, path, ErrExists, keyringFile, sealKeyFile)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	k := &Keyring{dir: dir, identity: identity}
	seal := make([]byte, sealKeySize)
	defer clear(seal)
	if _, err := rand.Read(seal); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemSealKey, Bytes: seal})
	defer clear(text)
	if err := k.write(filepath.Join(dir, sealKeyFile), text); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	// The identity comes last: without it nothing here counts as a keyring.
	if err := writeIdentity(path, identity, p, logN, false); err != nil {
		os.Remove(filepath.Join(dir, sealKeyFile))
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	if k.sealer, err = newSealer(seal); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	return k, nil
}

// OpenKeyring opens the keyring in dir. It costs one scrypt derivation (about
// 0.35 s and 64 MiB, given back to the system before it returns), so a process
// opens its keyring once. Errors to handle: ErrNotFound, ErrWrongPassphrase,
// ErrUnprotected, ErrPermissions, ErrCorrupt.
func OpenKeyring(dir string, p Passphrase) (*Keyring, error) {
	if err := checkDir(dir); err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	path := filepath.Join(dir, keyringFile)
	file, err := readPrivate(path, maxKeyFile, ownerOnly)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	defer clear(file)
	identity, err := readIdentity(file, p)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %s: %w", path, err)
	}
	k := &Keyring{dir: dir, identity: identity}
	sealPath := filepath.Join(dir, sealKeyFile)
	text, err := k.read(sealPath)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	defer clear(text)
	seal, err := onePEM(text, pemSealKey)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %s %w: %w", sealPath, err, ErrCorrupt)
	}
	defer clear(seal)
	if k.sealer, err = newSealer(seal); err != nil {
		return nil, fmt.Errorf("open keyring: %s: %w", sealPath, err)
	}
	return k, nil
}

// ChangePassphrase re-encrypts keyring.age under p and replaces it; key files
// and sealed data stay as they are. A copy of the old keyring.age still opens
// with the old passphrase.
func (k *Keyring) ChangePassphrase(p Passphrase) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.identity == nil {
		return fmt.Errorf("change passphrase of %s: %w", k.dir, ErrClosed)
	}
	if err := writeIdentity(filepath.Join(k.dir, keyringFile), k.identity, p, workFactor, true); err != nil {
		return fmt.Errorf("change passphrase: %w", err)
	}
	return nil
}

// Generate makes a key and writes it where uri says: file:keys/message.key in
// the keyring's directory, whose subdirectories it creates, or file:/PATH
// anywhere else. An existing file is never overwritten: ErrExists.
func (k *Keyring) Generate(uri string, alg Algorithm) (Key, error) {
	path, relative, err := parseFileURI(uri)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	if relative {
		if path, err = k.inside(path, makeDir); err != nil {
			return nil, fmt.Errorf("generate key %s: %w", uri, err)
		}
	}
	priv, err := alg.generate()
	if err != nil {
		return nil, fmt.Errorf("generate key %s: %w", uri, err)
	}
	text, err := marshalPrivate(priv)
	if err != nil {
		return nil, fmt.Errorf("generate key %s: %w", uri, err)
	}
	defer clear(text)
	if err := k.write(path, text); err != nil {
		wipePrivate(priv)
		return nil, fmt.Errorf("generate key %s: %w", uri, err)
	}
	return newFileKey(uri, priv)
}

// Open opens the key uri names. Errors to handle: ErrNotFound, ErrPermissions,
// ErrCorrupt, ErrScheme.
func (k *Keyring) Open(uri string) (Key, error) {
	path, relative, err := parseFileURI(uri)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	if relative {
		if path, err = k.inside(path, checkDir); err != nil {
			return nil, fmt.Errorf("open key %s: %w", uri, err)
		}
	}
	text, err := k.read(path)
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", uri, err)
	}
	defer clear(text)
	priv, err := parsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("open key %s: %s %w: %w", uri, path, err, ErrCorrupt)
	}
	return newFileKey(uri, priv)
}

// Sealer returns the sealer of this keyring's seal key. It works until Close.
func (k *Keyring) Sealer() Sealer { return k.sealer }

// Dir returns the keyring's directory.
func (k *Keyring) Dir() string { return k.dir }

// Close forgets the identity and overwrites the seal key. Keys opened before
// stay usable until they are closed themselves.
func (k *Keyring) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.identity = nil
	k.sealer.close()
	return nil
}

// inside joins a relative path to the keyring's directory and applies check to
// every directory on the way, the keyring's own included.
func (k *Keyring) inside(path string, check func(string) error) (string, error) {
	if err := checkDir(k.dir); err != nil {
		return "", err
	}
	dir := k.dir
	if parent := filepath.Dir(path); parent != "." {
		for name := range strings.SplitSeq(parent, "/") {
			dir = filepath.Join(dir, name)
			if err := check(dir); err != nil {
				return "", err
			}
		}
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// write encrypts text to the keyring's identity and writes it to a new file.
func (k *Keyring) write(path string, text []byte) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.identity == nil {
		return fmt.Errorf("keyring %s: %w", k.dir, ErrClosed)
	}
	file, err := encryptArmored(text, k.identity.Recipient())
	if err != nil {
		return fmt.Errorf("encrypt %s: %w", path, err)
	}
	return writePrivate(path, file, false)
}

// read reads and decrypts a file of the keyring; the caller wipes the result.
func (k *Keyring) read(path string) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.identity == nil {
		return nil, fmt.Errorf("keyring %s: %w", k.dir, ErrClosed)
	}
	file, err := readPrivate(path, maxKeyFile, ownerOnly)
	if err != nil {
		return nil, err
	}
	text, err := decryptArmored(file, k.identity)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("%s belongs to another keyring: %w: restore it from this keyring's backup", path, ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: restore it from a backup: %w", path, ErrCorrupt, err)
	}
	return text, nil
}

// String names the directory.
func (k *Keyring) String() string { return "keyring " + k.dir }

// Format prints the directory under every verb.
func (k *Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue logs the directory.
func (k *Keyring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText writes the directory.
func (k *Keyring) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// writeIdentity writes the age identity file, encrypted unless p is Unprotected.
func writeIdentity(path string, identity *age.X25519Identity, p Passphrase, logN int, replace bool) error {
	plain := []byte("# fednode keyring: every other key of this directory opens with this age identity\n" + identity.String() + "\n")
	defer clear(plain)
	if p.source == sourceUnprotected {
		return writePrivate(path, plain, replace)
	}
	secret, err := p.read()
	if err != nil {
		return err
	}
	defer clear(secret)
	recipient, err := age.NewScryptRecipient(string(secret))
	if err != nil {
		return err
	}
	recipient.SetWorkFactor(logN)
	file, err := encryptArmored(plain, recipient)
	releaseDerivation()
	if err != nil {
		return err
	}
	return writePrivate(path, file, replace)
}

// readIdentity reads the age identity in a keyring file, which is foreign bytes.
func readIdentity(file []byte, p Passphrase) (*age.X25519Identity, error) {
	protected := bytes.HasPrefix(bytes.TrimLeft(file, " \t\r\n"), []byte(armor.Header))
	switch {
	case !protected && p.source != sourceUnprotected:
		return nil, fmt.Errorf("%w though one is configured (%s): was the file replaced? To go on without, configure unprotected", ErrUnprotected, p)
	case !protected:
		return parseIdentity(file)
	case p.source == sourceUnprotected:
		return nil, fmt.Errorf("%w: the keyring has a passphrase: configure its source in place of unprotected", ErrWrongPassphrase)
	}
	secret, err := p.read()
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	identity, err := age.NewScryptIdentity(string(secret))
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	plain, err := decryptArmored(file, identity)
	releaseDerivation()
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("%w, from %s (or the file was altered): correct the passphrase, or restore the file from a backup", ErrWrongPassphrase, p)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: restore it from a backup: %w", ErrCorrupt, err)
	}
	defer clear(plain)
	return parseIdentity(plain)
}

// parseIdentity reads an age identity file that holds one X25519 identity. Its
// errors never quote the input.
func parseIdentity(text []byte) (*age.X25519Identity, error) {
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil || len(identities) != 1 {
		return nil, fmt.Errorf("%w: not exactly one age identity: restore it from a backup", ErrCorrupt)
	}
	identity, ok := identities[0].(*age.X25519Identity)
	if !ok {
		return nil, fmt.Errorf("%w: the age identity is not of type X25519: restore it from a backup", ErrCorrupt)
	}
	return identity, nil
}

// releaseDerivation gives scrypt's memory back at once: a node that idles at
// 30 MB must not look like 100 MB until the scavenger comes round.
func releaseDerivation() { debug.FreeOSMemory() }

func encryptArmored(text []byte, to age.Recipient) ([]byte, error) {
	var file bytes.Buffer
	armored := armor.NewWriter(&file)
	w, err := age.Encrypt(armored, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := armored.Close(); err != nil {
		return nil, err
	}
	return file.Bytes(), nil
}

// decryptArmored returns the content of an armored age file of at most
// maxPlainKey bytes.
func decryptArmored(file []byte, with age.Identity) ([]byte, error) {
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), with)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxPlainKey+1))
	if err == nil && len(text) > maxPlainKey {
		err = fmt.Errorf("content is longer than %d bytes", maxPlainKey)
	}
	if err != nil {
		clear(text)
		return nil, err
	}
	return text, nil
}

// Exists reports whether dir holds a keyring, without opening it.
func Exists(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, keyringFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
