package invite

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"fednode/store/jcs"
	"fednode/transport/member"
)

// What can be asked with an invitation; append-only.
const (
	AskLog   = "log"   // the governance log, in pages
	AskReach = "reach" // whether the inviter reaches the asker's endpoints
	AskJoin  = "join"  // to be a member, and, asked again, how far that is
)

const requestVersion = 1

// A Request is what the holder of a token asks. It is sent as canonical JSON over fednode-join/1.
type Request struct {
	V          int                  `json:"v"`
	Ask        string               `json:"ask"`
	Invitation string               `json:"invitation"`  // ID of the token
	RootSHA256 string               `json:"root_sha256"` // of the asker's root certificate
	Time       string               `json:"time"`        // the asker's clock
	Offset     int64                `json:"offset,omitempty"`
	Member     *member.SignedRecord `json:"member,omitempty"`
	MAC        []byte               `json:"mac,omitempty"`
}

// sum is HMAC-SHA-256 over `fednode/join-request/v1\n`, the TLS session's exporter and the canonical request without
// its MAC.
func (r Request) sum(s Secret, exporter []byte) ([]byte, error) {
	r.MAC = nil
	b, err := jcs.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("join request: %w", err)
	}
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte("fednode/join-request/v1\n"))
	m.Write(exporter)
	m.Write(b)
	return m.Sum(nil), nil
}

// Seal MACs the request for one TLS session and returns what is sent.
func (r Request) Seal(s Secret, exporter []byte) (_ []byte, err error) {
	r.V = requestVersion
	if r.MAC, err = r.sum(s, exporter); err != nil {
		return nil, err
	}
	return jcs.Marshal(r)
}

// ParseRequest reads a request. Nothing about it is verified but its form.
func ParseRequest(b []byte) (*Request, error) {
	r := new(Request)
	if err := jcs.UnmarshalCanonical(b, r); err != nil {
		return nil, fmt.Errorf("join request: %w", err)
	}
	if r.V != requestVersion {
		return nil, fmt.Errorf("join request of version %d; this fednode knows %d", r.V, requestVersion)
	}
	if _, err := time.Parse(time.RFC3339, r.Time); err != nil || !isHex(r.Invitation, 8) || !isHex(r.RootSHA256, sha256.Size) || r.Offset < 0 || len(r.MAC) != sha256.Size {
		return nil, errors.New("join request: invitation, root, time, offset or MAC")
	}
	return r, nil
}

func isHex(s string, size int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == size && hex.EncodeToString(b) == s
}

// Verify checks the MAC, for the TLS session that the request came in.
func (r *Request) Verify(s Secret, exporter []byte) error {
	want, err := r.sum(s, exporter)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, r.MAC) {
		return errors.New("join request: the MAC is not that of the invitation in this session")
	}
	return nil
}

// Where a joiner stands.
const (
	StateInvited  = "invited"  // has not asked to join yet
	StateAwaiting = "awaiting" // approvals, or the members' cosignatures
	StateMember   = "member"
	StateRejected = "rejected"
)

// An Answer is the inviter's, to any request.
type Answer struct {
	Time  string  `json:"time"` // the inviter's clock
	State string  `json:"state"`
	Log   *Page   `json:"log,omitempty"`
	Reach []Reach `json:"reach,omitempty"`

	Hash     string           `json:"hash,omitempty"` // of the record that awaits approval
	Standing *member.Standing `json:"standing,omitempty"`
	Waiting  string           `json:"waiting,omitempty"` // for what, beside approvals
}

// A Page is a part of the governance log's bundle.
type Page struct {
	Size   int64  `json:"size"`   // of the whole bundle, in bytes
	SHA256 string `json:"sha256"` // of the whole bundle
	Data   []byte `json:"data"`   // from the offset asked for
}

// A Reach is how one endpoint of the joiner was reached over one lane.
type Reach struct {
	Endpoint string `json:"endpoint"`
	Lane     string `json:"lane"`
	OK       bool   `json:"ok"`
	Problem  string `json:"problem,omitempty"`
	Millis   int64  `json:"ms"`
}

// ParseAnswer reads an answer, which comes from a node whose root the token names.
func ParseAnswer(b []byte) (*Answer, error) {
	a := new(Answer)
	if err := jcs.UnmarshalCanonical(b, a); err != nil {
		return nil, fmt.Errorf("answer of the inviter: %w", err)
	}
	return a, nil
}

// Marshal returns the answer as it is sent.
func (a Answer) Marshal() ([]byte, error) { return jcs.Marshal(a) }
