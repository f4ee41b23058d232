package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"fednode/hsm/durable"
)

// Export returns the private key that uri names as a file of its own, encrypted to a passphrase of its own: for a key
// that is taken off this machine, where the keyring is not. The public age tool opens it (age -d FILE), and so does
// [OpenExported].
func (k *Keyring) Export(uri string, p Passphrase) ([]byte, error) {
	return k.export(uri, p, workFactor)
}

func (k *Keyring) export(uri string, p Passphrase, logN int) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("export key %s: %w", uri, err) }
	path, err := k.keyFile(uri)
	if err != nil {
		return fail(err)
	}
	text, err := k.read(path)
	if err != nil {
		return fail(err)
	}
	defer clear(text)
	secret, err := p.read()
	if err != nil {
		return fail(err)
	}
	defer clear(secret)
	recipient, err := age.NewScryptRecipient(string(secret))
	if err != nil {
		return fail(err)
	}
	recipient.SetWorkFactor(logN)
	file, err := encryptArmored(text, recipient)
	releaseDerivation()
	if err != nil {
		return fail(err)
	}
	return file, nil
}

// keyFile returns the path that a file URI names.
func (k *Keyring) keyFile(uri string) (string, error) {
	path, relative, err := parseFileURI(uri)
	if err != nil || !relative {
		return path, err
	}
	return k.inside(path, checkDir)
}

// OpenExported opens the key in what [Keyring.Export] returned, without a keyring. Its URI is "exported".
func OpenExported(file []byte, p Passphrase) (Key, error) {
	if len(file) > maxKeyFile {
		return nil, fmt.Errorf("exported key of %d bytes, the limit is %d: %w", len(file), maxKeyFile, ErrCorrupt)
	}
	secret, err := p.read()
	if err != nil {
		return nil, fmt.Errorf("exported key: %w", err)
	}
	defer clear(secret)
	identity, err := age.NewScryptIdentity(string(secret))
	if err != nil {
		return nil, fmt.Errorf("exported key: %w", err)
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	text, err := decryptArmored(file, identity)
	releaseDerivation()
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("exported key: %w", ErrWrongPassphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("exported key: %w: %w", ErrCorrupt, err)
	}
	defer clear(text)
	priv, err := parsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("exported key: %w: %w", ErrCorrupt, err)
	}
	return newFileKey("exported", priv)
}

// Remove deletes a key's file, once the caller has it elsewhere. What the file had on the disk is overwritten as far as
// the file system does that in place; whoever must be sure keeps root keys off this disk from the start.
func (k *Keyring) Remove(uri string) error {
	path, err := k.keyFile(uri)
	if err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	if info, err := os.Stat(path); err == nil {
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, _ = f.Write(bytes.Repeat([]byte{0}, int(min(info.Size(), maxKeyFile)))) // it goes either way
			_ = f.Sync()
			_ = f.Close()
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove key %s: %w", uri, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}
