package hsm

import (
	"bytes"
	"crypto"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// Export writes the private key that uri names into a new file of its own, encrypted to a passphrase of its own: for a
// key that is taken off this machine, where the keyring is not. The public age tool opens it (age -d FILE), and so does
// [OpenExported]. An existing file is never overwritten: ErrExists.
func (k *Keyring) Export(uri, path string, p Passphrase) error {
	return k.export(uri, path, p, workFactor)
}

func (k *Keyring) export(uri, path string, p Passphrase, logN int) error {
	from, err := k.keyFile(uri)
	if err != nil {
		return fmt.Errorf("export key: %w", err)
	}
	text, err := k.read(from)
	if err != nil {
		return fmt.Errorf("export key %s: %w", uri, err)
	}
	defer clear(text)
	secret, err := p.read()
	if err != nil {
		return fmt.Errorf("export key %s: %w", uri, err)
	}
	defer clear(secret)
	recipient, err := age.NewScryptRecipient(string(secret))
	if err != nil {
		return fmt.Errorf("export key %s: %w", uri, err)
	}
	recipient.SetWorkFactor(logN)
	file, err := encryptArmored(text, recipient)
	releaseDerivation()
	if err != nil {
		return fmt.Errorf("export key %s: %w", uri, err)
	}
	if err := writePrivate(path, file, false); err != nil {
		return fmt.Errorf("export key %s: %w", uri, err)
	}
	return nil
}

// keyFile returns the path that a file URI names.
func (k *Keyring) keyFile(uri string) (string, error) {
	path, relative, err := parseFileURI(uri)
	if err != nil || !relative {
		return path, err
	}
	return k.inside(path, checkDir)
}

// OpenExported opens what [Keyring.Export] wrote, and returns its public key: proof that file and passphrase are good.
func OpenExported(path string, p Passphrase) (crypto.PublicKey, error) {
	file, err := readPrivate(path, maxKeyFile, ownerOnly)
	if err != nil {
		return nil, fmt.Errorf("open exported key: %w", err)
	}
	secret, err := p.read()
	if err != nil {
		return nil, fmt.Errorf("open exported key: %w", err)
	}
	defer clear(secret)
	identity, err := age.NewScryptIdentity(string(secret))
	if err != nil {
		return nil, fmt.Errorf("open exported key: %w", err)
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	text, err := decryptArmored(file, identity)
	releaseDerivation()
	if err != nil {
		return nil, fmt.Errorf("open exported key %s: %w: %w", path, ErrWrongPassphrase, err)
	}
	defer clear(text)
	priv, err := parsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("open exported key %s: %w: %w", path, ErrCorrupt, err)
	}
	defer wipePrivate(priv)
	return priv.Public(), nil
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
	return syncDir(filepath.Dir(path))
}
