// Package hsm holds an organisation's private keys and seals what a node keeps
// on disk. It knows nothing of messages, peers or policy.
//
// Its nouns:
//
//   - Keyring: a directory of age-encrypted files under one passphrase. It is
//     opened once per process, which costs one scrypt derivation.
//   - Key: a private key opened by URI. It signs and never shows itself.
//   - Sealer: envelope and stream encryption under a key that belongs to the
//     keyring, for whatever other packages put on disk.
//
// What it promises:
//
//   - A key is encrypted at rest, and the public age tool opens every file
//     (age -d -i keyring.age keys/message.key). Only the explicit Unprotected
//     source leaves the keyring without a passphrase.
//   - Files and directories that another user could read or has written, and
//     symbolic links, are refused before they are read, with the command that
//     mends them.
//   - A key file appears whole or not at all and is never overwritten.
//   - Sealed bytes open unaltered, under the associated data they were sealed
//     with, or not at all. A sealed stream can be read from any offset.
//   - Private keys, passphrases and seal keys do not appear in errors, in logs
//     or under any fmt verb. What Go lets us overwrite is overwritten on Close.
//
// Key URIs name where a key lives. The scheme file: is served here; tpm: and
// pkcs11: (RFC 7512) are reserved and refused by name.
//
// Key files are PKCS#8 in PEM (RFC 5958, RFC 7468) inside the age v1 format
// (age-encryption.org/v1), armored.
package hsm
