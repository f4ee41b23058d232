package ledger

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"fednode/store/jcs"
)

// MaxEntry is the largest entry, in bytes: tlog-tiles bundles carry 16-bit lengths.
const MaxEntry = 65535

// A Category is one of the five audit categories.
type Category string

// The audit categories.
const (
	Authentication       Category = "authentication"
	Authorization        Category = "authorization"
	DataAccess           Category = "data_access"
	PolicyEnforcement    Category = "policy_enforcement"
	FederationManagement Category = "federation_management"
)

// An Entry is one event in an organisation's own log. V and Type say how to read it; Category says which of the other
// fields it must have (see [Category.Fields]). It carries no payload and no personal data in the clear.
type Entry struct {
	V              int             `json:"v"`
	Type           string          `json:"type"`
	Category       Category        `json:"category"`
	Timestamp      string          `json:"timestamp"`         // RFC 3339 UTC, milliseconds
	UserID         string          `json:"user_id,omitempty"` // base64 HMAC-SHA-256 commitment, never the identifier
	OrganizationID string          `json:"organization_id,omitempty"`
	Resource       string          `json:"resource,omitempty"`
	Action         string          `json:"action,omitempty"`
	Result         string          `json:"result,omitempty"`
	DataCategory   string          `json:"data_category,omitempty"`
	Purpose        string          `json:"purpose,omitempty"`
	PolicyID       string          `json:"policy_id,omitempty"`
	Reference      string          `json:"reference,omitempty"`  // what it concerns, such as run/step/attempt
	Commitment     string          `json:"commitment,omitempty"` // base64 salted commitment to details kept elsewhere
	Envelope       json.RawMessage `json:"envelope,omitempty"`   // ledger form of a message
}

// Fields returns the names of the fields that an entry of the category must have, those of the audit configuration's
// include_fields, or nil for a category that does not exist.
func (c Category) Fields() []string {
	switch c {
	case Authentication:
		return []string{"timestamp", "user_id", "organization_id", "result"}
	case Authorization:
		return []string{"timestamp", "user_id", "organization_id", "resource", "action", "result"}
	case DataAccess:
		return []string{"timestamp", "user_id", "organization_id", "data_category", "purpose", "action"}
	case PolicyEnforcement:
		return []string{"timestamp", "policy_id", "resource", "action", "result"}
	case FederationManagement:
		return []string{"timestamp", "organization_id", "action", "result"}
	}
	return nil
}

func (e *Entry) field(name string) string {
	switch name {
	case "timestamp":
		return e.Timestamp
	case "user_id":
		return e.UserID
	case "organization_id":
		return e.OrganizationID
	case "resource":
		return e.Resource
	case "action":
		return e.Action
	case "result":
		return e.Result
	case "data_category":
		return e.DataCategory
	case "purpose":
		return e.Purpose
	}
	return e.PolicyID
}

func (e *Entry) check() error {
	if e.V < 1 || e.Type == "" {
		return fmt.Errorf("entry %q: v and type are required", e.Type)
	}
	fields := e.Category.Fields()
	if fields == nil {
		return fmt.Errorf("entry %s: category %q is not one of the five", e.Type, e.Category)
	}
	var missing []string
	for _, f := range fields {
		if e.field(f) == "" {
			missing = append(missing, f)
		}
	}
	if missing != nil {
		return fmt.Errorf("entry %s of category %s lacks %s", e.Type, e.Category, strings.Join(missing, ", "))
	}
	// Written back, because Parse takes a comma for the point.
	if t, err := time.Parse(timeFormat, e.Timestamp); err != nil || t.Year() < 1970 || t.Format(timeFormat) != e.Timestamp {
		return fmt.Errorf("entry %s: timestamp %.40q is not RFC 3339 UTC with milliseconds", e.Type, e.Timestamp)
	}
	for name, c := range map[string]string{"user_id": e.UserID, "commitment": e.Commitment} {
		if !isCommitment(c) {
			return fmt.Errorf("entry %s: %s is not the base64 of 32 bytes", e.Type, name)
		}
	}
	if len(e.Envelope) > 0 && e.Envelope[0] != '{' {
		return fmt.Errorf("entry %s: the envelope is not an object", e.Type)
	}
	return nil
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// isCommitment reports whether s is absent or of the form of an HMAC-SHA-256 commitment, which a name never is.
func isCommitment(s string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && (s == "" || len(b) == 32 && base64.StdEncoding.EncodeToString(b) == s)
}

// Marshal returns the entry's canonical form, the bytes of its leaf. It fails if a field that its category needs is
// missing, or if it is larger than MaxEntry.
func (e Entry) Marshal() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := jcs.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", e.Type, err)
	}
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("entry %s has %d bytes; at most %d", e.Type, len(b), MaxEntry)
	}
	return b, nil
}

// ParseEntry reads an entry strictly: canonical, with no field it does not know, and complete.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if len(b) > MaxEntry {
		return e, fmt.Errorf("entry of %d bytes; at most %d", len(b), MaxEntry)
	}
	if err := jcs.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("entry: %w", err)
	}
	again, err := e.Marshal()
	if err != nil {
		return e, err
	}
	if !bytes.Equal(again, b) {
		return e, fmt.Errorf("entry %s is not in the one form that it has", e.Type)
	}
	return e, nil
}
