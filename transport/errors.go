package transport

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/quic-go/quic-go"
)

// A Code says why a node refused. Codes are append-only: partners of other versions match on them.
type Code string

const (
	CodeDenied             Code = "denied"              // policy says no
	CodeInternal           Code = "internal"            // withheld: the reason is in the refusing node's own log
	CodeMalformed          Code = "malformed"           // the bytes are not what the message type calls for
	CodeNotFound           Code = "not-found"           // no such thing, or none for the asker
	CodeUnknownType        Code = "unknown-type"        // no handler for this message type
	CodeUnsupportedVersion Code = "unsupported-version" // envelope or frame version not spoken here
	CodeTooLarge           Code = "too-large"           // over a size limit
	CodeUnknownKey         Code = "unknown-key"         // key_id is not in the sender's member record
	CodeBadSignature       Code = "bad-signature"       // the signature does not verify
	CodeWrongSender        Code = "wrong-sender"        // the sender is not the mTLS peer
	CodeWrongRecipient     Code = "wrong-recipient"     // the message is for somebody else
	CodeWrongFederation    Code = "wrong-federation"    // the message is for another federation
	CodeNotMember          Code = "not-member"          // the peer is not, or no longer, a member in good standing
	CodeClockSkew          Code = "clock-skew"          // the two clocks differ too much; the text names both
	CodeExpired            Code = "expired"             // expires_at has passed
	CodeReplayed           Code = "replayed"            // this message_id was accepted before
	CodeBadProof           Code = "bad-proof"           // the message is not proven to be in the sender's log
	CodeLogRollback        Code = "log-rollback"        // the sender's log is shorter than it was
	CodeLogFork            Code = "log-fork"            // the sender's log has two roots for one size
	CodeGovernanceFork     Code = "governance-fork"     // the sender holds another governance log of the same size
	CodeStaleGovernance    Code = "stale-governance"    // the governance checkpoint is older than the charter allows
	CodeOverloaded         Code = "overloaded"          // no capacity now; try again later
	CodeRateLimited        Code = "rate-limited"        // the peer sends more than its share
	CodeTimeout            Code = "timeout"             // the deadline passed before there was an answer
	CodeCancelled          Code = "cancelled"           // the caller gave up
	CodeNotInForce         Code = "not-in-force"        // the agreement is not in force
	CodeClosed             Code = "closed"              // the attempt was closed before
	CodeConflict           Code = "conflict"            // another message was signed under the same key of work
	CodeLost               Code = "lost"                // what is asked for was held in memory only, and is gone
)

// wireCodes gives each code its number in QUIC stream and connection resets. Append only; 0 is never sent.
var wireCodes = [...]Code{"", CodeDenied, CodeInternal, CodeMalformed, CodeNotFound, CodeUnknownType, CodeUnsupportedVersion,
	CodeTooLarge, CodeUnknownKey, CodeBadSignature, CodeWrongSender, CodeWrongRecipient, CodeWrongFederation, CodeNotMember,
	CodeClockSkew, CodeExpired, CodeReplayed, CodeBadProof, CodeLogRollback, CodeLogFork, CodeGovernanceFork,
	CodeStaleGovernance, CodeOverloaded, CodeRateLimited, CodeTimeout, CodeCancelled, CodeNotInForce, CodeClosed,
	CodeConflict, CodeLost}

// number returns the code's number on the wire; an unlisted one counts as internal.
func (c Code) number() uint64 {
	for i, w := range wireCodes {
		if i > 0 && w == c {
			return uint64(i)
		}
	}
	return CodeInternal.number()
}

func codeOf(number uint64) Code {
	if number > 0 && number < uint64(len(wireCodes)) {
		return wireCodes[number]
	}
	return CodeInternal
}

// An Error is the only error that leaves a node. Text is for the partner's operator: it must not hold payloads,
// secrets or anything the partner may not know.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Text }

// ErrUnreachable is wrapped by the errors of [Node.Call] and [Node.Fetch] that mean that no connection to the peer came
// about, so that it has not seen the request.
var ErrUnreachable = errors.New("unreachable")

// ErrUnknownOutcome is wrapped by the errors of [Node.Call] that mean that the request was sent but no verified answer
// came back: the peer may have acted on it. Deliver again under a new message_id, same payload, salt and attempt.
var ErrUnknownOutcome = errors.New("outcome unknown")

// clipped returns e with a text that is short and valid UTF-8.
func (e *Error) clipped() Error {
	text := strings.ToValidUTF8(e.Text, "\uFFFD")
	return Error{e.Code, strings.ToValidUTF8(text[:min(len(text), maxRefusalText)], "")}
}

func refuse(c Code, format string, a ...any) *Error { return &Error{c, fmt.Sprintf(format, a...)} }

// fromStream turns a peer's stream or connection reset into the [Error] it stands for. Other errors stay as they are.
func fromStream(err error) error {
	var se *quic.StreamError
	if errors.As(err, &se) && se.Remote {
		return &Error{codeOf(uint64(se.ErrorCode)), "refused without a signed answer"}
	}
	var ae *quic.ApplicationError
	if errors.As(err, &ae) && ae.Remote && ae.ErrorCode != 0 {
		return &Error{codeOf(uint64(ae.ErrorCode)), "connection closed by the peer"}
	}
	return err
}

// Printable makes a text that a peer made up fit to be shown: what would move a terminal's cursor is a space.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
