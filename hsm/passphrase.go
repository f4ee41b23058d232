package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// maxPassphrase bounds a passphrase in bytes.
const maxPassphrase = 1024

type passphraseSource int

const (
	sourceNone passphraseSource = iota // the zero Passphrase: refused
	sourceFile
	sourceCredential
	sourceEnv
	sourceBytes
	sourceUnprotected
)

// Passphrase says where the keyring's passphrase comes from. It is read when a
// keyring is created or opened. It prints as its source, never as its content.
// The zero Passphrase is refused: leaving a keyring unprotected takes Unprotected.
type Passphrase struct {
	_      [0]func()
	source passphraseSource
	where  string // path or name
	secret []byte
}

// PassphraseFile reads the passphrase from a file that only its owner, this
// process's user, can read. One trailing newline is not part of it.
func PassphraseFile(path string) Passphrase {
	return Passphrase{source: sourceFile, where: path}
}

// PassphraseCredential reads the passphrase from the systemd credential of that
// name: a file in $CREDENTIALS_DIRECTORY (systemd.exec(5), LoadCredential=).
// One trailing newline is not part of it.
func PassphraseCredential(name string) Passphrase {
	return Passphrase{source: sourceCredential, where: name}
}

// PassphraseEnv takes the passphrase from an environment variable, and the
// variable out of the environment, at once: child processes must not inherit
// it. Call it once and keep the result.
func PassphraseEnv(name string) Passphrase {
	p := Passphrase{source: sourceEnv, where: name}
	if value, ok := os.LookupEnv(name); ok {
		p.secret = []byte(value)
		os.Unsetenv(name)
	}
	return p
}

// PassphraseBytes is a passphrase the caller has, as after a prompt. It copies
// secret, which the caller may then overwrite.
func PassphraseBytes(secret []byte) Passphrase {
	return Passphrase{source: sourceBytes, secret: bytes.Clone(secret)}
}

// Unprotected declares that the keyring has no passphrase: whoever can read its
// directory has the keys.
func Unprotected() Passphrase {
	return Passphrase{source: sourceUnprotected}
}

// IsUnprotected reports whether p is Unprotected, so that a node can warn.
func (p Passphrase) IsUnprotected() bool { return p.source == sourceUnprotected }

// read returns a copy of the passphrase, which the caller wipes.
func (p Passphrase) read() ([]byte, error) {
	var secret []byte
	switch p.source {
	case sourceFile:
		text, err := readPrivate(p.where, maxPassphrase+2, ownerOnly)
		if err != nil {
			return nil, fmt.Errorf("passphrase file: %w", err)
		}
		secret = trimNewline(text)
	case sourceCredential:
		text, err := p.readCredential()
		if err != nil {
			return nil, err
		}
		secret = trimNewline(text)
	case sourceEnv:
		if p.secret == nil {
			return nil, fmt.Errorf("passphrase: environment variable %s is not set (the first read takes it out of the environment): %w", p.where, ErrNotFound)
		}
		secret = bytes.Clone(p.secret)
	case sourceBytes:
		secret = bytes.Clone(p.secret)
	default:
		return nil, errors.New("passphrase: no source is configured: name a file, an environment variable or a systemd credential, or say unprotected")
	}
	if len(secret) == 0 {
		return nil, fmt.Errorf("passphrase from %s is empty", p)
	}
	if len(secret) > maxPassphrase {
		clear(secret)
		return nil, fmt.Errorf("passphrase from %s is longer than %d bytes", p, maxPassphrase)
	}
	return secret, nil
}

func (p Passphrase) readCredential() ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("passphrase: systemd credential %q: $CREDENTIALS_DIRECTORY is not set: add LoadCredential=%s:PATH to the unit: %w", p.where, p.where, ErrNotFound)
	}
	if filepath.Base(p.where) != p.where || !filepath.IsLocal(p.where) {
		return nil, fmt.Errorf("passphrase: %q is not a credential name", p.where)
	}
	text, err := readPrivate(filepath.Join(dir, p.where), maxPassphrase+2, credential)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("passphrase: systemd credential %q: add LoadCredential=%s:PATH to the unit: %w", p.where, p.where, err)
	}
	if err != nil {
		return nil, fmt.Errorf("passphrase: systemd credential %q: %w", p.where, err)
	}
	return text, nil
}

// trimNewline drops the one line end that an editor or echo leaves.
func trimNewline(b []byte) []byte {
	if trimmed, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		return bytes.TrimSuffix(trimmed, []byte("\r"))
	}
	return b
}

// String names the source.
func (p Passphrase) String() string {
	switch p.source {
	case sourceFile:
		return "file " + p.where
	case sourceCredential:
		return "systemd credential " + p.where
	case sourceEnv:
		return "environment variable " + p.where
	case sourceBytes:
		return "memory (redacted)"
	case sourceUnprotected:
		return "unprotected"
	}
	return "no source"
}

// Format prints the source under every verb.
func (p Passphrase) Format(f fmt.State, _ rune) { io.WriteString(f, p.String()) }

// LogValue logs the source.
func (p Passphrase) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText writes the source.
func (p Passphrase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
