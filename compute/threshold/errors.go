package threshold

import "errors"

// Errors that callers tell apart with errors.Is. Those of compute, which name a
// party, and those of he come through as they are.
var (
	// ErrPolicy: threshold, parties or sets do not make sense together.
	ErrPolicy = errors.New("threshold policy not usable")
	// ErrUnsmudged: the policy asks for less flooding than is safe.
	ErrUnsmudged = errors.New("threshold decryption without enough smudging")
	// ErrUnlimited: decryptions of a ciphertext would not be limited or not counted.
	ErrUnlimited = errors.New("threshold decryption without a limit")
	// ErrNoRoom: the modulus is too small for ciphertexts, flooding and shares.
	ErrNoRoom = errors.New("modulus leaves no room for smudging")
	// ErrQuota: the ciphertext was decrypted as often as the policy permits.
	ErrQuota = errors.New("decryption quota of the ciphertext is used up")
	// ErrReplayed: the session has had its share of this decryption already.
	ErrReplayed = errors.New("session was used before")
	// ErrForeign: a share of another key, sharing, session, ciphertext or set.
	ErrForeign = errors.New("share belongs to something else")
	// ErrDealing: a dealer's shares do not fit what it has published.
	ErrDealing = errors.New("wrong dealing")
	// ErrShares: decryption shares do not make a plaintext, or several.
	ErrShares = errors.New("decryption shares do not fit together")
	// ErrProof: a new key does not do what it should. Run the protocol again; if
	// it happens again, with other parties.
	ErrProof = errors.New("collective key does not prove itself")
	// ErrMalformed: the bytes are nothing of this package.
	ErrMalformed = errors.New("malformed")
	// ErrNoShare: the store has no share of the key, or a record is missing.
	ErrNoShare = errors.New("no share of the key")
)
