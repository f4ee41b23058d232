package config

import (
	"time"
)

// Message is the reference envelope, message.json, as people write it. What the
// wire asks beyond it is the transport's: a binding, a salt and a signature.
type Message struct {
	MessageID  Label          `yaml:"message_id"`
	Timestamp  Instant        `yaml:"timestamp"`
	Sender     MessageEnd     `yaml:"sender"`
	Recipient  MessageEnd     `yaml:"recipient"`
	WorkflowID Label          `yaml:"workflow_id"`
	StepID     Label          `yaml:"step_id"`
	Type       Label          `yaml:"message_type"`
	Payload    map[string]any `yaml:"payload"`
	Governance struct {
		Handling struct {
			Storage   bool   `yaml:"storage_allowed"`
			Purpose   Label  `yaml:"processing_purpose"`
			Retention Period `yaml:"retention_period"`
		} `yaml:"data_handling"`
		Audit struct {
			Detail Label `yaml:"detail_level"`
			Store  bool  `yaml:"store_result"`
		} `yaml:"audit_requirements"`
	} `yaml:"governance"`
	Traceparent Label          `yaml:"traceparent"`
	Salt        Text           `yaml:"salt"`
	Binding     MessageBinding `yaml:"binding"`
	Signature   Text           `yaml:"signature"`
}

// MessageBinding ties a message to one federation, key, agreement and time.
type MessageBinding struct {
	Version        Count   `yaml:"version"`
	FederationID   Label   `yaml:"federation_id"`
	KeyID          Label   `yaml:"key_id"`
	Algorithm      Label   `yaml:"alg"`
	Agreement      Label   `yaml:"agreement"`
	GovernanceHead Text    `yaml:"governance_head"`
	Attempt        int     `yaml:"attempt"`
	Expires        Instant `yaml:"expires_at"`
	InReplyTo      Label   `yaml:"in_reply_to"`
}

// MessageEnd is an instance of an organisation.
type MessageEnd struct {
	Organization OrgID `yaml:"organization_id"`
	Instance     Label `yaml:"instance_id"`
}

// Instant is a time as RFC 3339 writes it.
type Instant string

func (Instant) describe() string { return "time (RFC 3339)" }

func (t Instant) problem() string {
	if _, err := time.Parse(time.RFC3339Nano, string(t)); err != nil {
		return "this is no RFC 3339 time; write one such as 2026-03-01T09:00:00.000Z"
	}
	return ""
}

// Period is a length of time that may be nothing, as in "0s".
type Period string

var periodPattern = pattern(`^\d{1,9}(s|m|h|d|w|y)$`)

func (Period) describe() string { return "period, `0s` allowed" }

func (p Period) problem() string {
	if periodPattern().MatchString(string(p)) {
		return ""
	}
	return "this is no period; write one such as 0s, 24h or 90d"
}

func messageKind() kind {
	return strict[Message](KindMessage, "The reference envelope. It shows the fields of a message between nodes and is not applied.",
		[]Row{
			honoured("message_id", "name of the message; every one is accepted once"),
			honoured("timestamp", "when it was sealed; off by more than 60 s it is refused"),
			honoured("sender.organization_id", "who sends"),
			honoured("sender.instance_id", "which of its nodes"),
			honoured("recipient.organization_id", "who is asked"),
			honoured("recipient.instance_id", "which of its nodes"),
			honoured("workflow_id", "the run"),
			honoured("step_id", "the step of the run"),
			honoured("message_type", "what is asked"),
			honoured("payload.*", "the request itself, free JSON"),
			honoured("governance.data_handling.storage_allowed", "whether the receiver may store the data"),
			honoured("governance.data_handling.processing_purpose", "what the data is for"),
			honoured("governance.data_handling.retention_period", "how long the receiver may keep it"),
			honoured("governance.audit_requirements.detail_level", "how much is recorded"),
			honoured("governance.audit_requirements.store_result", "whether the result is recorded"),
			honoured("traceparent", "trace of the request (W3C Trace Context)"),
			honoured("salt", "32 random bytes, base64; without them the payload can be forgotten"),
			honoured("binding.version", "version of the envelope"),
			honoured("binding.federation_id", "the federation"),
			honoured("binding.key_id", "the key that signs"),
			honoured("binding.alg", "its algorithm"),
			honoured("binding.agreement", "hash of the signed definition"),
			honoured("binding.governance_head", "size and root of the sender's governance log"),
			honoured("binding.attempt", "which attempt at the step"),
			honoured("binding.expires_at", "when the message stops being acceptable"),
			honoured("binding.in_reply_to", "hash of the request, on replies"),
			honoured("signature", "the sender's signature, base64"),
		},
		[]string{
			"message_id", "timestamp", "sender", "sender.organization_id", "recipient", "recipient.organization_id",
			"message_type", "payload", "signature",
		},
		checkMessage)
}

func checkMessage(c *checker, m *Message) {
	if m.Sender.Organization == m.Recipient.Organization && m.Sender.Instance == m.Recipient.Instance {
		c.fail("recipient", "", "sender and recipient are both %s", m.Sender.Organization)
	}
	c.warn("signature", CodeUnsigned, "let a node seal it",
		"this is an example to read: it has no binding, no salt and no signature over them, and the wire refuses it")
}
