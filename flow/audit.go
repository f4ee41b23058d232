package flow

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"fednode/flow/policy"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
)

// A User is who asked for something through the local API: the caller's identifier as the operating system or the
// identity provider names it, for example "uid:1000". It is written to the log only as a salted commitment.
type User string

// itself is who acted where the node did something that no user asked for.
const itself User = "node"

// commitUser returns the HMAC-SHA-256 commitment to user and keeps its salt in a side table, keyed by the
// commitment, so that erasing the salt really forgets the user.
func commitUser(tx *store.Tx, user User) (string, error) {
	salt := make([]byte, 32)
	rand.Read(salt)
	mac := hmac.New(sha256.New, salt)
	mac.Write([]byte(user))
	c := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return c, tx.Bucket(bucketSalts).Put([]byte(c), salt)
}

// record appends an audit entry of this organisation to its own log.
func (e *Engine) record(tx *store.Tx, entry ledger.Entry) error {
	entry.V = 1
	entry.Timestamp = stamp(e.c.Now())
	if entry.OrganizationID == "" {
		entry.OrganizationID = string(e.c.Org)
	}
	b, err := entry.Marshal()
	if err != nil {
		return err
	}
	_, err = e.c.Log.Append(tx, b)
	return err
}

// recordByUser appends an entry about something that a user of this node did.
func (e *Engine) recordByUser(tx *store.Tx, user User, entry ledger.Entry) error {
	c, err := commitUser(tx, user)
	if err != nil {
		return err
	}
	entry.UserID = c
	return e.record(tx, entry)
}

// decide asks the one decision point.
func (e *Engine) decide(r policy.Request) policy.Decision {
	if r.Context == nil {
		r.Context = map[string]any{}
	}
	return e.policy.Load().Decide(r)
}

// recordDecision appends the decision; reference names what it was about, for example "run/step/attempt".
func (e *Engine) recordDecision(tx *store.Tx, r policy.Request, d policy.Decision, reference string) error {
	result := "deny"
	if d.Effect == policy.Allow {
		result = "allow"
	} else {
		e.m.violations.Inc()
	}
	e.m.decisions(result).Inc()
	return e.record(tx, ledger.Entry{Type: "policy-decision", Category: ledger.PolicyEnforcement, PolicyID: policyID(d),
		Resource: r.Resource, Action: r.Action, Result: result, Reference: reference})
}

// policyID names the rules that decided.
func policyID(d policy.Decision) string {
	var ids []string
	for _, r := range d.Reasons {
		if r.Effect != d.Effect {
			continue
		}
		id := r.Source
		if r.Rule != "" {
			id += "#" + r.Rule
		}
		if !slices.Contains(ids, id) && len(ids) < 8 {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "default-deny"
	}
	return strings.Join(ids, " ")
}

// denial is what a peer is told about a decision against it: the first reason, which names the rule, never data.
func denial(d policy.Decision) *transport.Error {
	return &transport.Error{Code: transport.CodeDenied, Text: reasonText(d)}
}

func reasonText(d policy.Decision) string {
	for _, r := range d.Reasons {
		if r.Effect == policy.Deny && r.Text != "" {
			return r.Text
		}
	}
	return "no rule allows it (default deny)"
}

// RecordOperation logs that a user had the node do something that concerns its membership. The log holds a salted
// commitment to the details.
func (e *Engine) RecordOperation(ctx context.Context, user User, entryType, action, resource, details string) error {
	return e.c.DB.Update(ctx, func(tx *store.Tx) error { return e.RecordOperationIn(tx, user, entryType, action, resource, details) })
}

// RecordOperationIn is RecordOperation in the transaction that does what is logged. Without a user it was the node itself.
func (e *Engine) RecordOperationIn(tx *store.Tx, user User, entryType, action, resource, details string) error {
	if user == "" {
		user = itself
	}
	return e.recordByUser(tx, user, ledger.Entry{Type: entryType, Category: ledger.Authorization, Action: action,
		Resource: resource, Result: "ok", Commitment: commit(newSalt(), []byte(details))})
}

// RecordApply logs that a user put a configuration into force. The log holds a salted commitment to its text.
func (e *Engine) RecordApply(ctx context.Context, user User, what string, data []byte) error {
	return e.c.DB.Update(ctx, func(tx *store.Tx) error {
		return e.recordByUser(tx, user, ledger.Entry{Type: "configuration-applied", Category: ledger.Authorization, Action: "apply",
			Resource: what, Result: "ok", Commitment: commit(newSalt(), data)})
	})
}
