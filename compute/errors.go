package compute

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrRoster: the list of parties is not usable, or the keys are not those of it.
	ErrRoster = errors.New("roster not usable")
	// ErrMissing: a party did not send in time or its connection ended. Run again,
	// without it if need be.
	ErrMissing = errors.New("party is missing")
	// ErrMisbehaved: a party sent what the protocol does not allow, or what is not
	// signed by it for this session and round.
	ErrMisbehaved = errors.New("party misbehaved")
	// ErrEquivocated: a party signed two different messages for one broadcast.
	ErrEquivocated = errors.New("party said different things to different parties")
	// ErrInconsistent: a party's view of the session is not ours: another name,
	// roster or order of rounds. Compare what was started.
	ErrInconsistent = errors.New("party is in another session")
	// ErrAborted: a party gave up and said why. The reason is its own word.
	ErrAborted = errors.New("party gave up")
	// ErrOver: the session or the network has ended before.
	ErrOver = errors.New("session is over")
	// ErrTooLong: a frame exceeds the limit of the round.
	ErrTooLong = errors.New("frame too long")
)

// A PartyError names the party because of which a round failed.
type PartyError struct {
	Party string // its name in the roster
	Round string // the round's label
	Err   error  // wraps one of the errors above, or the protocol's own
}

func (e *PartyError) Error() string { return fmt.Sprintf("%s: %q: %v", e.Round, e.Party, e.Err) }

func (e *PartyError) Unwrap() error { return e.Err }
