package ui

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"fednode/flow"
	"fednode/flow/policy"
	"fednode/node"
	"fednode/store/ledger"
	"fednode/transport"
)

// A Problem is an answer other than success.
type Problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"` // not-found, misuse, denied, unavailable, failed
	Text   string `json:"text"`
}

func (p *Problem) Error() string { return p.Text }

// problem classifies an error of the node for its operator, who may read it in full.
func problem(err error) *Problem {
	var p *Problem
	var te *transport.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, flow.ErrNotFound):
		return &Problem{http.StatusNotFound, "not-found", err.Error()}
	case errors.Is(err, flow.ErrMisuse):
		return &Problem{http.StatusBadRequest, "misuse", err.Error()}
	case errors.As(err, &te) && te.Code == transport.CodeDenied:
		return &Problem{http.StatusForbidden, "denied", err.Error()}
	}
	return &Problem{http.StatusInternalServerError, "failed", err.Error()}
}

// AgreementReply is an agreement and, when something is left to do, what.
type AgreementReply struct {
	Agreement *flow.Agreement `json:"agreement"`
	Warning   string          `json:"warning,omitempty"` // participants that have not answered, and why
}

// VerdictRequest is a human's word on a step that waits for one.
type VerdictRequest struct {
	Approved bool   `json:"approved"`
	Reason   string `json:"reason,omitempty"`
}

// WithdrawRequest says why a signature is taken back.
type WithdrawRequest struct {
	Reason string `json:"reason"`
}

// SuspendRequest says why a member is suspended.
type SuspendRequest struct {
	Reason string `json:"reason,omitempty"`
}

// ApproveRequest names a candidate, by its organisation or the beginning of its hash.
type ApproveRequest struct {
	Name     string `json:"name"`
	Withdraw bool   `json:"withdraw,omitempty"`
}

// InviteRequest says who is invited, and for how long.
type InviteRequest struct {
	Organization transport.OrgID `json:"organization_id"`
	Seconds      int64           `json:"valid_seconds"`
}

// RevokeRequest names invitations, by their organisation or the beginning of an id.
type RevokeRequest struct {
	Name string `json:"name"`
}

// RenewRequest says what is new in this organisation's record beside its endpoints.
type RenewRequest struct {
	Rotate bool `json:"rotate,omitempty"` // a new message key
	Drop   bool `json:"drop,omitempty"`   // the earlier ones are not to be trusted any more
}

// DoctorRequest names the members to look at; none means all.
type DoctorRequest struct {
	Members []transport.OrgID `json:"members,omitempty"`
}

// CandidateReply names a candidate.
type CandidateReply struct {
	Hash string `json:"hash"`
}

// ExplainRequest is a question to the decision point that changes nothing.
type ExplainRequest struct {
	Subject      string         `json:"subject"`
	Action       string         `json:"action"`
	Resource     string         `json:"resource,omitempty"`
	Categories   []string       `json:"categories,omitempty"`
	Purpose      string         `json:"purpose,omitempty"`
	Recipient    string         `json:"recipient,omitempty"`
	Jurisdiction string         `json:"jurisdiction,omitempty"`
	Agreement    string         `json:"agreement,omitempty"` // hash, prefix, or name of the workflow in force
	Context      map[string]any `json:"context,omitempty"`
}

func (r ExplainRequest) policy() policy.Request {
	return policy.Request{Subject: r.Subject, Action: r.Action, Resource: r.Resource, Categories: r.Categories, Purpose: r.Purpose,
		Recipient: r.Recipient, Jurisdiction: r.Jurisdiction, Context: r.Context}
}

// An EntryQuery selects entries of the own log.
type EntryQuery struct {
	From      int64           // first index; negative: as many of the last ones that match
	Limit     int64           // how many at most
	Category  ledger.Category // or any
	Reference string          // beginning of the run or run/step that they are about, or any
}

// matches reports whether the query asks for the entry.
func (q EntryQuery) matches(e ledger.Entry) bool {
	return (q.Category == "" || e.Category == q.Category) && strings.HasPrefix(e.Reference, q.Reference)
}

// LogEntry is an entry of the node's own log with its index.
type LogEntry struct {
	Index int64           `json:"index"`
	Entry json.RawMessage `json:"entry"`
}

// Status is what `fednode status` shows.
type Status = node.Status
