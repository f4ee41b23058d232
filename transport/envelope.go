package transport

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"fednode/store/jcs"
	"fednode/transport/member"
)

// An OrgID names an organisation in the federation.
type OrgID = member.OrgID

const (
	// Version is the envelope version this package speaks.
	Version = 1
	// MaxEnvelope bounds an envelope on the wire, in bytes.
	MaxEnvelope = 1 << 20
	// SaltSize is the exact size of a payload's or artifact's salt, in bytes.
	SaltSize = 32
	// Ed25519 is the one signature algorithm of envelopes, RFC 8032.
	Ed25519 = "Ed25519"

	signedPrefix = "fednode/envelope/v"
	maxText      = 256 // characters of a free text of governance
)

// The fields of the structs below are in the order of their JSON names, so that encoding/json writes them in RFC 8785
// form, see canonical.

// An Address names one end of a message.
type Address struct {
	InstanceID     string `json:"instance_id,omitempty"`
	OrganizationID OrgID  `json:"organization_id"`
}

// Governance is what the sender asks of whoever handles the payload. Its zero value asks for no storage at all.
type Governance struct {
	AuditRequirements AuditRequirements `json:"audit_requirements"`
	DataHandling      DataHandling      `json:"data_handling"`
}

// DataHandling limits what may be done with the payload and what it leads to.
type DataHandling struct {
	ProcessingPurpose string `json:"processing_purpose"`
	RetentionPeriod   string `json:"retention_period"`
	StorageAllowed    bool   `json:"storage_allowed"`
}

// AuditRequirements says how much of the handling goes on record.
type AuditRequirements struct {
	DetailLevel string `json:"detail_level"`
	StoreResult bool   `json:"store_result"`
}

// A Binding ties an envelope to one federation, key, agreement, attempt and time.
type Binding struct {
	Agreement      string `json:"agreement,omitempty"` // hash of the signed definition; governance messages carry none
	Alg            string `json:"alg"`
	Attempt        int    `json:"attempt"`
	ExpiresAt      Time   `json:"expires_at"`
	FederationID   string `json:"federation_id"`             // leaf hash of the genesis entry, lower-case hex
	GovernanceHead string `json:"governance_head,omitempty"` // "size:root", the sender's governance log; root in lower-case hex
	InReplyTo      string `json:"in_reply_to,omitempty"`     // on replies: [Envelope.Hash] of the request
	KeyID          string `json:"key_id"`
	Version        int    `json:"version"`
}

// Expires returns when the envelope stops being acceptable.
func (b *Binding) Expires() time.Time { return b.ExpiresAt.Time }

// An Envelope is one signed message. Payload is canonical (RFC 8785) in every Envelope that this package returns.
type Envelope struct {
	Binding     *Binding        `json:"binding,omitempty"`
	Governance  Governance      `json:"governance,omitzero"`
	MessageID   MessageID       `json:"message_id"`
	MessageType string          `json:"message_type"`
	Payload     json.RawMessage `json:"payload"`
	Recipient   Address         `json:"recipient"`
	Salt        []byte          `json:"salt,omitempty"`
	Sender      Address         `json:"sender"`
	Signature   string          `json:"signature"` // standard padded base64
	StepID      string          `json:"step_id,omitempty"`
	Timestamp   Time            `json:"timestamp"`
	Traceparent string          `json:"traceparent,omitempty"`
	WorkflowID  RunID           `json:"workflow_id,omitempty"`
}

// A ledgerForm is what is signed and what logs keep: the envelope with its payload replaced by the commitment to it.
type ledgerForm struct {
	Binding           *Binding   `json:"binding"`
	Governance        Governance `json:"governance,omitzero"`
	MessageID         MessageID  `json:"message_id"`
	MessageType       string     `json:"message_type"`
	PayloadCommitment string     `json:"payload_commitment"`
	Recipient         Address    `json:"recipient"`
	Sender            Address    `json:"sender"`
	Signature         string     `json:"signature,omitempty"`
	StepID            string     `json:"step_id,omitempty"`
	Timestamp         Time       `json:"timestamp"`
	Traceparent       string     `json:"traceparent,omitempty"`
	WorkflowID        RunID      `json:"workflow_id,omitempty"`
}

// Commit returns the commitment to data under salt: HMAC-SHA-256(salt, data) in standard base64. For a payload, data
// is its RFC 8785 form.
func Commit(salt, data []byte) string {
	m := hmac.New(sha256.New, salt)
	m.Write(data)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// PayloadCommitment returns the salted commitment to the payload, in base64.
func (e *Envelope) PayloadCommitment() string { return Commit(e.Salt, e.Payload) }

func (e *Envelope) form() ledgerForm {
	return ledgerForm{Binding: e.Binding, Governance: e.Governance, MessageID: e.MessageID, MessageType: e.MessageType,
		PayloadCommitment: e.PayloadCommitment(), Recipient: e.Recipient, Sender: e.Sender, StepID: e.StepID,
		Timestamp: e.Timestamp, Traceparent: e.Traceparent, WorkflowID: e.WorkflowID}
}

// canonical returns the RFC 8785 form of an Envelope or a ledgerForm. It spares the general transformation: fields are in
// order, numbers are small integers and the payload is canonical, so that encoding/json differs in nothing but the
// escaping of U+2028 and U+2029.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if bytes.Contains(out, []byte(`\u202`)) {
		return jcs.Transform(out)
	}
	return out, nil
}

// SignedBytes returns exactly what the signature is over: "fednode/envelope/v1\n" and the RFC 8785 form of the
// envelope without signature and salt, its payload replaced by payload_commitment.
func (e *Envelope) SignedBytes() ([]byte, error) {
	b, err := canonical(e.form())
	if err != nil {
		return nil, fmt.Errorf("canonical form of envelope %s: %w", e.MessageID, err)
	}
	return append([]byte(signedPrefix+strconv.Itoa(Version)+"\n"), b...), nil
}

// Hash returns the SHA-256 of the signed bytes in lower-case hex; a reply carries it as in_reply_to.
func (e *Envelope) Hash() (string, error) {
	b, err := e.SignedBytes()
	if err != nil {
		return "", err
	}
	return hashHex(b), nil
}

func hashHex(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// LedgerForm returns the RFC 8785 form that logs keep: without payload and salt, with payload_commitment and
// signature. It verifies alone, see [VerifyLedgerForm].
func (e *Envelope) LedgerForm() ([]byte, error) {
	f := e.form()
	f.Signature = e.Signature
	b, err := canonical(f)
	if err != nil {
		return nil, fmt.Errorf("ledger form of envelope %s: %w", e.MessageID, err)
	}
	return b, nil
}

// Marshal returns the envelope as it goes over the wire, in RFC 8785 form.
func (e *Envelope) Marshal() ([]byte, error) {
	b, err := canonical(e)
	if err != nil {
		return nil, fmt.Errorf("envelope %s: %w", e.MessageID, err)
	}
	if len(b) > MaxEnvelope {
		return nil, refuse(CodeTooLarge, "envelope %s has %d bytes; at most %d: send bulk as an artifact", e.MessageID, len(b), MaxEnvelope)
	}
	return b, nil
}

// Seal completes e and signs it: it canonicalises the payload, draws a salt if there is none, and sets the signature.
// The binding names the key; key must be Ed25519.
func (e *Envelope) Seal(key crypto.Signer) error {
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return fmt.Errorf("seal: message key %s is %T; envelopes are signed with Ed25519", e.keyID(), key.Public())
	}
	if len(e.Payload) == 0 {
		e.Payload = json.RawMessage("null")
	}
	canonical, err := jcs.Transform(e.Payload)
	if err != nil {
		return fmt.Errorf("seal: payload: %w", err)
	}
	e.Payload = canonical
	if e.Salt == nil {
		e.Salt = randomBytes(SaltSize)
	}
	if err := e.validate(); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	signed, err := e.SignedBytes()
	if err != nil {
		return err
	}
	sig, err := key.Sign(rand.Reader, signed, crypto.Hash(0))
	if err != nil {
		return fmt.Errorf("seal with key %s: %w", e.keyID(), err)
	}
	e.Signature = base64.StdEncoding.EncodeToString(sig)
	return nil
}

func (e *Envelope) keyID() string {
	if e.Binding == nil {
		return "(none)"
	}
	return e.Binding.KeyID
}

var errSignature = errors.New("signature does not verify")

// Verify checks the signature under key. It says nothing about whose key that is.
func (e *Envelope) Verify(key ed25519.PublicKey) error {
	signed, err := e.SignedBytes()
	if err != nil {
		return err
	}
	return verifySignature(key, signed, e.Signature)
}

func verifySignature(key ed25519.PublicKey, signed []byte, signature string) error {
	sig, err := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil || base64.StdEncoding.EncodeToString(sig) != signature {
		return fmt.Errorf("signature is not strict padded base64")
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signed, sig) {
		return errSignature
	}
	return nil
}

// VerifyLedgerForm checks the signature of an envelope as a log keeps it. It works on the raw JSON, so that logs keep
// verifying whatever fields later versions add.
func VerifyLedgerForm(form []byte, key ed25519.PublicKey) error {
	canonical, err := jcs.Transform(form)
	if err != nil {
		return fmt.Errorf("ledger form: %w", err)
	}
	if !bytes.Equal(canonical, form) {
		return errors.New("ledger form is not in RFC 8785 form")
	}
	var fields map[string]json.RawMessage
	var known struct {
		Binding struct {
			Version int `json:"version"`
		} `json:"binding"`
	}
	if err := errors.Join(json.Unmarshal(form, &fields), json.Unmarshal(form, &known)); err != nil {
		return fmt.Errorf("ledger form: %w", err)
	}
	var sig string
	if err := json.Unmarshal(fields["signature"], &sig); err != nil {
		return errors.New("ledger form has no signature")
	}
	if fields["payload_commitment"] == nil || fields["payload"] != nil || fields["salt"] != nil || known.Binding.Version < 1 {
		return errors.New("not the ledger form of an envelope: it needs binding and payload_commitment, and neither payload nor salt")
	}
	delete(fields, "signature")
	signed, err := jcs.Marshal(fields)
	if err != nil {
		return fmt.Errorf("ledger form: %w", err)
	}
	return verifySignature(key, append([]byte(signedPrefix+strconv.Itoa(known.Binding.Version)+"\n"), signed...), sig)
}
