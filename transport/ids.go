package transport

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// A MessageID names one envelope, once. The sender draws it at random.
type MessageID string

// A RunID names one run of a workflow; on the wire it is workflow_id.
type RunID string

// NewMessageID returns a fresh id with 130 random bits.
func NewMessageID() MessageID { return MessageID("msg-" + strings.ToLower(rand.Text())) }

// maxName bounds message, run, step, instance and key names.
const maxName = 128

// checkName accepts 1 to 128 letters, digits and ._:- that begin with a letter or digit: safe in paths, URIs and logs.
func checkName(field, s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("%s has %d characters; 1 to %d are allowed", field, len(s), maxName)
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._:-", rune(c))) {
			return fmt.Errorf("%s: character %d is not allowed; use letters, digits and ._:-", field, i+1)
		}
	}
	return nil
}

// checkType accepts message types: lower-case words joined by single dashes.
func checkType(s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("message_type has %d characters; 1 to %d are allowed", len(s), maxName)
	}
	for word := range strings.SplitSeq(s, "-") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return fmt.Errorf("message_type is not made of lower-case words joined by dashes")
		}
	}
	return nil
}

// checkHash accepts a SHA-256 hash in lower-case hex.
func checkHash(field, s string) error {
	if len(s) != 64 || !isLowerHex(s) {
		return fmt.Errorf("%s is not 64 lower-case hex digits", field)
	}
	return nil
}

func isLowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// timeLayout is RFC 3339 in UTC with milliseconds, the only form of a time on the wire.
const timeLayout = "2006-01-02T15:04:05.000Z"

// A Time is a wall-clock instant in UTC, exact to the millisecond.
type Time struct{ time.Time }

// NewTime truncates t to what the wire can carry.
func NewTime(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalJSON writes RFC 3339 UTC with milliseconds.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalJSON accepts RFC 3339 UTC with milliseconds, and nothing else.
func (t *Time) UnmarshalJSON(b []byte) error {
	s := strings.TrimSuffix(strings.TrimPrefix(string(b), `"`), `"`)
	p, err := time.Parse(timeLayout, s)
	if err != nil || p.Format(timeLayout) != s || len(b) != len(s)+2 {
		return fmt.Errorf("a time is not RFC 3339 UTC with milliseconds, like %q", timeLayout)
	}
	t.Time = p
	return nil
}

// checkTraceparent accepts version 00 of https://www.w3.org/TR/trace-context/#traceparent-header.
func checkTraceparent(s string) error {
	p := strings.Split(s, "-")
	if len(p) != 4 || p[0] != "00" || len(p[1]) != 32 || len(p[2]) != 16 || len(p[3]) != 2 || !isLowerHex(p[1]+p[2]+p[3]) ||
		strings.Trim(p[1], "0") == "" || strings.Trim(p[2], "0") == "" {
		return fmt.Errorf("traceparent is not W3C trace context version 00, like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	}
	return nil
}

// childTrace continues the trace of parent, or begins a new one if parent isn't valid.
func childTrace(parent string) string {
	span := hex.EncodeToString(randomBytes(8))
	if checkTraceparent(parent) != nil {
		return "00-" + hex.EncodeToString(randomBytes(16)) + "-" + span + "-01"
	}
	return parent[:36] + span + parent[52:]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, see crypto/rand
	return b
}
