package he

import "errors"

// Errors that callers tell apart with errors.Is. All carry the particulars.
var (
	// ErrInsecure: the parameters exceed the table of the standard. Choose others.
	ErrInsecure = errors.New("parameters are not secure")
	// ErrUnsupported: the parameters may be secure but are not on the list.
	ErrUnsupported = errors.New("parameters are not supported")
	// ErrSlots: t is not 1 mod 2N, so plaintexts have no slots. Take another t,
	// or encode coefficients.
	ErrSlots = errors.New("plaintext modulus has no slots")
	// ErrNoise: the result could decrypt to something else. Use larger
	// parameters, a smaller t or a shallower computation.
	ErrNoise = errors.New("noise budget exhausted")
	// ErrMismatch: objects of different parameters, levels or degrees meet.
	ErrMismatch = errors.New("objects do not fit together")
	// ErrNoKey: an evaluation key that the operation needs was not given.
	ErrNoKey = errors.New("evaluation key missing")
	// ErrRange: a number does not fit the plaintext modulus or the Go type.
	ErrRange = errors.New("number out of range")
	// ErrMalformed: the bytes are no object of this package. Refuse their sender.
	ErrMalformed = errors.New("malformed")
)
