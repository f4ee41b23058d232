package hsm

import "errors"

// Classes of failure, matched with errors.Is. The wrapping error says where it
// happened and how to mend it.
var (
	// ErrWrongPassphrase: the keyring does not open with the passphrase given,
	// or it has one and none was given. Ask the operator; retrying is useless.
	ErrWrongPassphrase = errors.New("wrong passphrase")

	// ErrUnprotected: a passphrase is configured but the keyring has none, so
	// the keys are less protected than the operator believes.
	ErrUnprotected = errors.New("keyring has no passphrase")

	// ErrPermissions: another user can read or has written the file or
	// directory, or it is a symbolic link.
	ErrPermissions = errors.New("unsafe permissions")

	// ErrNotFound: no such keyring, key file, or passphrase source.
	ErrNotFound = errors.New("not found")

	// ErrExists: the keyring or key file is there already; nothing was written.
	ErrExists = errors.New("already exists")

	// ErrScheme: the key URI names a place this build does not hold keys in.
	ErrScheme = errors.New("unsupported key URI scheme")

	// ErrCorrupt: the file is not what this package writes: damaged, of another
	// keyring, or over its size limit.
	ErrCorrupt = errors.New("damaged key file")

	// ErrUnseal: sealed bytes were altered, truncated or reordered, or were
	// sealed by another keyring or with other associated data.
	ErrUnseal = errors.New("sealed data does not open")

	// ErrClosed: the key, sealer, stream or keyring was closed.
	ErrClosed = errors.New("closed")
)
