package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"fednode/store/jcs"
	"fednode/transport/member"
)

// ParseEnvelope reads one envelope from foreign bytes. It refuses anything that another reader could understand
// differently: unknown and duplicate fields, numbers that are not exact in binary64, other forms of times, ids and
// base64; and what is over [MaxEnvelope] or nested deeper than package jcs allows. The payload it returns is
// canonical. The signature is not checked, see [Envelope.Verify].
func ParseEnvelope(data []byte) (*Envelope, error) {
	e, err := decodeEnvelope(data)
	if err != nil {
		return nil, err
	}
	if err := e.validate(); err != nil {
		return nil, &Error{CodeMalformed, "envelope: " + err.Error()}
	}
	return e, nil
}

// decodeEnvelope does the strict decoding alone.
func decodeEnvelope(data []byte) (*Envelope, error) {
	if len(data) > MaxEnvelope {
		return nil, refuse(CodeTooLarge, "envelope has %d bytes; at most %d", len(data), MaxEnvelope)
	}
	want, err := jcs.Transform(data)
	if err != nil {
		return nil, &Error{CodeMalformed, "envelope: " + err.Error()}
	}
	d := json.NewDecoder(bytes.NewReader(want))
	d.DisallowUnknownFields()
	e := new(Envelope)
	if err := d.Decode(e); err != nil {
		return nil, &Error{CodeMalformed, "envelope: " + err.Error()}
	}
	// encoding/json matches names in any case, takes null for absent and tolerates sloppy base64. What it has
	// understood must say again, byte for byte, what was sent.
	again, err := canonical(e)
	if err != nil {
		return nil, &Error{CodeMalformed, "envelope: " + err.Error()}
	}
	if !bytes.Equal(again, want) {
		return nil, &Error{CodeMalformed, "envelope: a field has another name, is empty, or is not in its exact form (case of names, times, base64)"}
	}
	return e, nil
}

// validate checks the parts that every envelope must have in good order, on the wire and before signing.
func (e *Envelope) validate() error {
	errs := []error{e.validateReference()}
	if len(e.Salt) != SaltSize {
		errs = append(errs, fmt.Errorf("salt has %d bytes; exactly %d random ones are required", len(e.Salt), SaltSize))
	}
	if e.Binding == nil {
		errs = append(errs, errors.New("binding is missing"))
	} else {
		errs = append(errs, e.Binding.validate())
	}
	return errors.Join(errs...)
}

// validateReference checks the fields of the reference message.json, which has no binding and no salt.
func (e *Envelope) validateReference() error {
	errs := []error{checkName("message_id", string(e.MessageID)), checkType(e.MessageType),
		checkAddress("sender", e.Sender), checkAddress("recipient", e.Recipient)}
	if e.Timestamp.IsZero() {
		errs = append(errs, errors.New("timestamp is missing"))
	}
	if e.WorkflowID != "" {
		errs = append(errs, checkName("workflow_id", string(e.WorkflowID)))
	}
	if e.StepID != "" {
		errs = append(errs, checkName("step_id", e.StepID))
	}
	if e.Traceparent != "" {
		errs = append(errs, checkTraceparent(e.Traceparent))
	}
	if len(e.Payload) == 0 {
		errs = append(errs, errors.New("payload is missing"))
	}
	g := e.Governance
	for _, f := range [...]struct{ name, text string }{{"processing_purpose", g.DataHandling.ProcessingPurpose},
		{"retention_period", g.DataHandling.RetentionPeriod}, {"detail_level", g.AuditRequirements.DetailLevel}} {
		if utf8.RuneCountInString(f.text) > maxText {
			errs = append(errs, fmt.Errorf("governance.%s is longer than %d characters", f.name, maxText))
		}
	}
	return errors.Join(errs...)
}

func checkAddress(field string, a Address) error {
	if err := member.OrgID(a.OrganizationID).Validate(); err != nil {
		return fmt.Errorf("%s.organization_id: %w", field, err)
	}
	if a.InstanceID == "" {
		return nil
	}
	return checkName(field+".instance_id", a.InstanceID)
}

func (b *Binding) validate() error {
	if b.Version != Version {
		return fmt.Errorf("binding.version is %d; this node speaks %d", b.Version, Version)
	}
	errs := []error{checkHash("binding.federation_id", b.FederationID), checkName("binding.key_id", b.KeyID)}
	if b.Alg != Ed25519 {
		errs = append(errs, fmt.Errorf("binding.alg is not %s", Ed25519))
	}
	if b.Agreement != "" {
		errs = append(errs, checkHash("binding.agreement", b.Agreement))
	}
	if b.InReplyTo != "" {
		errs = append(errs, checkHash("binding.in_reply_to", b.InReplyTo))
	}
	if _, _, err := b.governanceHead(); err != nil {
		errs = append(errs, err)
	}
	if b.Attempt < 0 || b.Attempt > 1<<20 {
		errs = append(errs, errors.New("binding.attempt is out of range"))
	}
	if b.ExpiresAt.IsZero() {
		errs = append(errs, errors.New("binding.expires_at is missing"))
	}
	return errors.Join(errs...)
}

// governanceHead splits governance_head into tree size and root hash (lower-case hex); -1 if it is absent.
func (b *Binding) governanceHead() (size int64, root string, err error) {
	if b.GovernanceHead == "" {
		return -1, "", nil
	}
	n, root, _ := strings.Cut(b.GovernanceHead, ":")
	size, err = strconv.ParseInt(n, 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != n || checkHash("", root) != nil {
		return -1, "", errors.New("binding.governance_head is not SIZE:ROOT with the root in lower-case hex")
	}
	return size, root, nil
}
