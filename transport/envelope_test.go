package transport

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"fednode/store/jcs"
)

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func testPublic() ed25519.PublicKey { return testKey.Public().(ed25519.PublicKey) }

// sample returns a sealed envelope with every field set; change is applied before sealing.
func sample(t testing.TB, change func(*Envelope)) *Envelope {
	t.Helper()
	at := time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)
	e := &Envelope{MessageID: "msg-1", Timestamp: NewTime(at), Sender: Address{"a1", "org-a"}, Recipient: Address{"b1", "org-b"},
		WorkflowID: "wf-1", StepID: "classify", MessageType: "step-execution-request", Payload: json.RawMessage(`{"b":1,"a":"é"}`),
		Governance:  Governance{AuditRequirements{"full", true}, DataHandling{"classification-only", "0s", false}},
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Salt: bytes.Repeat([]byte{9}, SaltSize),
		Binding: &Binding{Version: 1, FederationID: strings.Repeat("ab", 32), KeyID: "k1", Alg: Ed25519, Agreement: strings.Repeat("cd", 32),
			GovernanceHead: "12:" + strings.Repeat("ef", 32), Attempt: 1, ExpiresAt: NewTime(at.Add(time.Minute)), InReplyTo: strings.Repeat("01", 32)}}
	if change != nil {
		change(e)
	}
	if err := e.Seal(testKey); err != nil {
		t.Fatal(err)
	}
	return e
}

func wireOf(t testing.TB, e *Envelope) []byte {
	t.Helper()
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func formOf(t testing.TB, e *Envelope) []byte {
	t.Helper()
	b, err := e.LedgerForm()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEnvelopeRoundTrip(t *testing.T) {
	minimal := func(e *Envelope) {
		e.WorkflowID, e.StepID, e.Traceparent, e.Governance, e.Payload = "", "", "", Governance{}, nil
		e.Sender.InstanceID, e.Binding.Agreement, e.Binding.GovernanceHead, e.Binding.InReplyTo = "", "", "", ""
	}
	for name, change := range map[string]func(*Envelope){"full": nil, "minimal": minimal} {
		t.Run(name, func(t *testing.T) {
			e := sample(t, change)
			wire := wireOf(t, e)
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, wire, "", "  "); err != nil {
				t.Fatal(err)
			}
			for _, data := range [][]byte{wire, pretty.Bytes()} {
				got, err := ParseEnvelope(data)
				if err != nil {
					t.Fatal(err)
				}
				if err := got.Verify(testPublic()); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(wireOf(t, got), wire) {
					t.Errorf("parsed and written again:\n%s\nwas\n%s", wireOf(t, got), wire)
				}
			}
		})
	}
}

func TestSignedBytesFollowTheFormat(t *testing.T) {
	e := sample(t, nil)
	signed, err := e.SignedBytes()
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := bytes.CutPrefix(signed, []byte("fednode/envelope/v1\n"))
	if !ok {
		t.Fatalf("prefix of %q", signed)
	}
	var got map[string]any
	if err := json.Unmarshal(rest, &got); err != nil {
		t.Fatal(err)
	}
	if c, _ := jcs.Transform(rest); !bytes.Equal(c, rest) {
		t.Error("signed bytes are not in RFC 8785 form")
	}
	for _, f := range []string{"payload", "salt", "signature"} {
		if got[f] != nil {
			t.Errorf("%s is among the signed fields", f)
		}
	}
	if want := Commit(e.Salt, []byte(`{"a":"é","b":1}`)); got["payload_commitment"] != want {
		t.Errorf("payload_commitment = %v, want %s", got["payload_commitment"], want)
	}
	hash, err := e.Hash()
	if err != nil || hash != hashHex(signed) {
		t.Errorf("Hash = %s, %v; want the SHA-256 of the signed bytes, %s", hash, err, hashHex(signed))
	}
}

// canonical takes a short cut that must lead to the same place.
func TestCanonicalIsRFC8785(t *testing.T) {
	for _, text := range []string{"plain", "<&>", "\u2028\u2029", `\u2028`, "é文😀", "\x00\x01\b\t\n\f\r\x1f\x7f\"\\/", strings.Repeat("\U0001F600", maxText)} {
		payload, err := jcs.Marshal(map[string]any{text: []any{text, 0.97, 1e21, math.Copysign(0, -1), true, nil, 1e-7}, "b": map[string]int{"z": 1, "a": 2}})
		if err != nil {
			t.Fatal(err)
		}
		e := sample(t, func(e *Envelope) { e.Payload, e.Governance.DataHandling.ProcessingPurpose = payload, text })
		for _, v := range []any{e, e.form()} {
			got, err := canonical(v)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := jcs.Marshal(v); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q: %v\ngot  %s\nwant %s", text, err, got, want)
			}
		}
	}
}

func TestSealDrawsAFreshSalt(t *testing.T) {
	none := func(e *Envelope) { e.Salt = nil }
	a, b := sample(t, none), sample(t, none)
	if len(a.Salt) != 32 || bytes.Equal(a.Salt, b.Salt) {
		t.Errorf("salts %x and %x", a.Salt, b.Salt)
	}
	if a.PayloadCommitment() == b.PayloadCommitment() {
		t.Error("equal payloads have equal commitments under different salts")
	}
}

func TestSealRefuses(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := sample(t, nil).Seal(other); err == nil {
		t.Error("sealed with an ECDSA key")
	}
	for name, change := range map[string]func(*Envelope){
		"no binding":      func(e *Envelope) { e.Binding = nil },
		"short salt":      func(e *Envelope) { e.Salt = e.Salt[:31] },
		"bad payload":     func(e *Envelope) { e.Payload = json.RawMessage(`{`) },
		"inexact number":  func(e *Envelope) { e.Payload = json.RawMessage(`12345678901234567890`) },
		"no sender":       func(e *Envelope) { e.Sender.OrganizationID = "" },
		"long purpose":    func(e *Envelope) { e.Governance.DataHandling.ProcessingPurpose = strings.Repeat("x", 257) },
		"bad type":        func(e *Envelope) { e.MessageType = "Step Request" },
		"bad run":         func(e *Envelope) { e.WorkflowID = "../x" },
		"other algorithm": func(e *Envelope) { e.Binding.Alg = "RS256" },
	} {
		e := sample(t, nil)
		change(e)
		if err := e.Seal(testKey); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

// every field that is signed, each with another value
var tampering = map[string]func(*Envelope){
	"message_id":      func(e *Envelope) { e.MessageID = "msg-2" },
	"timestamp":       func(e *Envelope) { e.Timestamp = NewTime(e.Timestamp.Add(time.Millisecond)) },
	"sender":          func(e *Envelope) { e.Sender.OrganizationID = "org-c" },
	"sender inst":     func(e *Envelope) { e.Sender.InstanceID = "" },
	"recipient":       func(e *Envelope) { e.Recipient.OrganizationID = "org-c" },
	"recipient inst":  func(e *Envelope) { e.Recipient.InstanceID = "b2" },
	"workflow_id":     func(e *Envelope) { e.WorkflowID = "wf-2" },
	"step_id":         func(e *Envelope) { e.StepID = "" },
	"message_type":    func(e *Envelope) { e.MessageType = "other" },
	"payload":         func(e *Envelope) { e.Payload = json.RawMessage(`{"a":"é","b":2}`) },
	"salt":            func(e *Envelope) { e.Salt = bytes.Repeat([]byte{8}, SaltSize) },
	"storage":         func(e *Envelope) { e.Governance.DataHandling.StorageAllowed = true },
	"purpose":         func(e *Envelope) { e.Governance.DataHandling.ProcessingPurpose = "all" },
	"retention":       func(e *Envelope) { e.Governance.DataHandling.RetentionPeriod = "7y" },
	"detail":          func(e *Envelope) { e.Governance.AuditRequirements.DetailLevel = "" },
	"store_result":    func(e *Envelope) { e.Governance.AuditRequirements.StoreResult = false },
	"traceparent":     func(e *Envelope) { e.Traceparent = "" },
	"federation_id":   func(e *Envelope) { e.Binding.FederationID = strings.Repeat("00", 32) },
	"key_id":          func(e *Envelope) { e.Binding.KeyID = "k2" },
	"agreement":       func(e *Envelope) { e.Binding.Agreement = "" },
	"governance_head": func(e *Envelope) { e.Binding.GovernanceHead = "13:" + strings.Repeat("ef", 32) },
	"attempt":         func(e *Envelope) { e.Binding.Attempt = 2 },
	"expires_at":      func(e *Envelope) { e.Binding.ExpiresAt = NewTime(e.Binding.ExpiresAt.Add(time.Hour)) },
	"in_reply_to":     func(e *Envelope) { e.Binding.InReplyTo = strings.Repeat("02", 32) },
}

func TestEverySignedFieldIsBound(t *testing.T) {
	for field, tamper := range tampering {
		e := sample(t, nil)
		tamper(e)
		if err := e.Verify(testPublic()); !errors.Is(err, errSignature) {
			t.Errorf("%s: verified after a change: %v", field, err)
		}
		if err := VerifyLedgerForm(formOf(t, e), testPublic()); !errors.Is(err, errSignature) {
			t.Errorf("%s: ledger form verified after a change: %v", field, err)
		}
	}
}

func TestLedgerFormVerifiesAlone(t *testing.T) {
	e := sample(t, func(e *Envelope) { e.Payload = json.RawMessage(`{"name":"Ada Lovelace"}`) })
	form := formOf(t, e)
	if err := VerifyLedgerForm(form, testPublic()); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(form, []byte("Ada")) || bytes.Contains(form, []byte(base64.StdEncoding.EncodeToString(e.Salt))) {
		t.Errorf("payload or salt in the ledger form: %s", form)
	}
	if len(form) > 1600 {
		t.Errorf("ledger form has %d bytes; entries with an envelope have at most 1.6 KB", len(form))
	}
	other := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	if err := VerifyLedgerForm(form, other); err == nil {
		t.Error("verified under another key")
	}
	for i := range form {
		bad := bytes.Clone(form)
		bad[i] ^= 1
		if VerifyLedgerForm(bad, testPublic()) == nil {
			t.Fatalf("verified with byte %d flipped: %s", i, bad)
		}
	}
	if VerifyLedgerForm(wireOf(t, e), testPublic()) == nil {
		t.Error("the wire form passed as a ledger form")
	}
	if VerifyLedgerForm(append(form, '\n'), testPublic()) == nil {
		t.Error("passed with trailing space")
	}
}

// A later version may add fields; its entries must keep verifying here.
func TestLedgerFormOfALaterVersionVerifies(t *testing.T) {
	fields := map[string]any{"binding": map[string]any{"version": 2, "novel": true}, "payload_commitment": "x", "surprise": []int{1}}
	signed, err := jcs.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	fields["signature"] = base64.StdEncoding.EncodeToString(ed25519.Sign(testKey, append([]byte("fednode/envelope/v2\n"), signed...)))
	form, err := jcs.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyLedgerForm(form, testPublic()); err != nil {
		t.Error(err)
	}
}

func TestParseEnvelopeRefuses(t *testing.T) {
	good := string(wireOf(t, sample(t, nil)))
	salt := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, SaltSize))
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for _, c := range []struct {
		name, old, new string
		code           Code
	}{
		{"unknown field", `"message_id":`, `"extra":1,"message_id":`, CodeMalformed},
		{"unknown binding field", `"key_id":`, `"extra":1,"key_id":`, CodeMalformed},
		{"duplicate key", `"message_id":`, `"message_id":"msg-1","message_id":`, CodeMalformed},
		{"duplicate key in payload", `"b":1`, `"b":1,"b":1`, CodeMalformed},
		{"key in other case", `"message_id":`, `"Message_ID":`, CodeMalformed},
		{"same key in two cases", `"message_id":`, `"Message_id":"x","message_id":`, CodeMalformed},
		{"number not exact", `"b":1`, `"b":12345678901234567890`, CodeMalformed},
		{"number as a string", `"attempt":1`, `"attempt":"1"`, CodeMalformed},
		{"fraction for integer", `"attempt":1`, `"attempt":1.5`, CodeMalformed},
		{"negative attempt", `"attempt":1`, `"attempt":-1`, CodeMalformed},
		{"invalid UTF-8", `"b":1`, "\"b\":\"\xff\"", CodeMalformed},
		{"lone surrogate", `"b":1`, `"b":"\ud800"`, CodeMalformed},
		{"deep nesting", `"b":1`, `"b":` + deep, CodeMalformed},
		{"time with offset", `"2026-03-04T05:06:07.089Z"`, `"2026-03-04T05:06:07.089+00:00"`, CodeMalformed},
		{"time without ms", `"2026-03-04T05:06:07.089Z"`, `"2026-03-04T05:06:07Z"`, CodeMalformed},
		{"time with µs", `"2026-03-04T05:06:07.089Z"`, `"2026-03-04T05:06:07.089000Z"`, CodeMalformed},
		{"no such day", `"2026-03-04T05:06:07.089Z"`, `"2026-02-30T05:06:07.089Z"`, CodeMalformed},
		{"null time", `"2026-03-04T05:06:07.089Z"`, `null`, CodeMalformed},
		{"bad organisation", `"org-a"`, `"Org A"`, CodeMalformed},
		{"bad message id", `"msg-1"`, `"msg/1"`, CodeMalformed},
		{"empty message id", `"msg-1"`, `""`, CodeMalformed},
		{"empty optional", `"step_id":"classify"`, `"step_id":""`, CodeMalformed},
		{"null optional", `"step_id":"classify"`, `"step_id":null`, CodeMalformed},
		{"bad traceparent", `00-4bf9`, `00-4BF9`, CodeMalformed},
		{"zero trace id", `4bf92f3577b34da6a3ce929d0e0e4736`, strings.Repeat("0", 32), CodeMalformed},
		{"short salt", salt, "AAAA", CodeMalformed},
		{"salt without padding", salt, strings.TrimRight(salt, "="), CodeMalformed},
		{"salt with stray bits", "CQk=", "CQl=", CodeMalformed},
		{"upper-case hash", strings.Repeat("ab", 32), strings.Repeat("AB", 32), CodeMalformed},
		{"governance head", `"12:`, `"012:`, CodeMalformed},
		{"version", `"version":1`, `"version":2`, CodeMalformed},
		{"algorithm", `"Ed25519"`, `"none"`, CodeMalformed},
		{"governance half", `"audit_requirements":{"detail_level":"full","store_result":true},`, ``, CodeMalformed},
		{"trailing data", ``, ``, CodeMalformed},
		{"too large", `"b":1`, `"b":"` + strings.Repeat("x", MaxEnvelope) + `"`, CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if c.old == "" {
				bad = good + "{}"
			} else if bad == good {
				t.Fatalf("%q is not in %s", c.old, good)
			}
			e, err := ParseEnvelope([]byte(bad))
			var coded *Error
			if !errors.As(err, &coded) || coded.Code != c.code {
				t.Fatalf("got %+v, %v; want code %s", e, err, c.code)
			}
		})
	}
}

func TestSignatureMustBeStrictBase64(t *testing.T) {
	e := sample(t, nil)
	for name, s := range map[string]string{"none": "", "unpadded": strings.TrimRight(e.Signature, "="), "newline": e.Signature + "\n",
		"url alphabet": strings.NewReplacer("+", "-", "/", "_").Replace(e.Signature[:80]) + "-_-_-_==", "short": e.Signature[:84],
		"stray bits": e.Signature[:85] + string(e.Signature[85]+1) + "=="} {
		bad := *e
		bad.Signature = s
		if bad.Verify(testPublic()) == nil {
			t.Errorf("%s: %q verified", name, s)
		}
	}
}

func TestChildTrace(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	child := childTrace(parent)
	if checkTraceparent(child) != nil || child[:36] != parent[:36] || child[36:52] == parent[36:52] || child[52:] != "-01" {
		t.Errorf("child of %s is %s", parent, child)
	}
	if root := childTrace("nonsense"); checkTraceparent(root) != nil {
		t.Errorf("new trace %s", root)
	}
}

const reference = `{
  "message_id": "msg-123456789",
  "timestamp": "2025-04-18T14:30:45.123Z",
  "sender": {"organization_id": "org-a", "instance_id": "instance-a1"},
  "recipient": {"organization_id": "org-b", "instance_id": "instance-b1"},
  "workflow_id": "wf-987654321",
  "step_id": "document-classification",
  "message_type": "step-execution-request",
  "payload": {"agent_id": "document-classifier", "execution_parameters": {"timeout": 300, "priority": "normal"}},
  "governance": {
    "data_handling": {"storage_allowed": false, "processing_purpose": "classification-only", "retention_period": "0s"},
    "audit_requirements": {"detail_level": "full", "store_result": true}
  },
  "signature": "base64-encoded-signature"
}`

// TestTheWireRefusesTheReference: the reference message is an example to read, without binding, salt and signature.
func TestTheWireRefusesTheReference(t *testing.T) {
	if _, err := ParseEnvelope([]byte(reference)); err == nil {
		t.Error("the wire accepts the reference message")
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add(wireOf(f, sample(f, nil)))
	f.Add([]byte(reference))
	f.Add([]byte(`{"binding":{"version":1},"salt":"AAAA"}`))
	f.Add([]byte(`[[[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEnvelope(data)
		if err != nil {
			return
		}
		wire := wireOf(t, e)
		again, err := ParseEnvelope(wire)
		if err != nil || !bytes.Equal(wireOf(t, again), wire) {
			t.Fatalf("not stable: %s: %v", wire, err)
		}
		_ = VerifyLedgerForm(formOf(t, e), testPublic())
	})
}

func FuzzVerifyLedgerForm(f *testing.F) {
	f.Add(formOf(f, sample(f, nil)))
	f.Add([]byte(`{"binding":{"version":1},"payload_commitment":"x","signature":""}`))
	key := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, data []byte) {
		if VerifyLedgerForm(data, key) == nil {
			t.Fatal("verified under a key that signed nothing")
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	payload := json.RawMessage(`{"text":"` + strings.Repeat("x", 1000) + `"}`)
	e := sample(b, func(e *Envelope) { e.Payload = payload })
	wire := wireOf(b, e)
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := *e
			if err := s.Seal(testKey); err != nil {
				b.Fatal(err)
			}
			if _, err := s.outgoing(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			got, err := ParseEnvelope(wire)
			if err != nil {
				b.Fatal(err)
			}
			if err := got.Verify(testPublic()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
