package fed

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// object is a payload as a hostile member makes it up.
type object = map[string]any

func (h *Hostile) signed(prefix string, v object) object {
	h.Org.f.t.Helper()
	msg, err := jcs.Marshal(v)
	h.Org.f.must(err)
	sig, err := h.Key.Sign(rand.Reader, append([]byte(prefix), msg...), crypto.Hash(0))
	h.Org.f.must(err)
	v["signature"] = base64.StdEncoding.EncodeToString(sig)
	return v
}

func (h *Hostile) call(to *Org, m transport.Message) *transport.Reply {
	h.Org.f.t.Helper()
	m.To = to.ID
	if m.Audit.Category == "" {
		m.Audit = transport.AuditInfo{Category: ledger.FederationManagement, Action: m.Type, Resource: "agreement:" + m.Agreement}
	}
	reply, err := h.Call(context.Background(), m, nil)
	h.Org.f.must(err)
	h.Org.f.must(h.DB.Update(context.Background(), reply.Record))
	return reply
}

// refusal fails unless the reply is a refusal with the code.
func refusal(t *testing.T, what string, r *transport.Reply, code transport.Code) {
	t.Helper()
	if r.Refusal == nil || r.Refusal.Code != code {
		t.Errorf("%s: refusal %v, want %s", what, r.Refusal, code)
	}
}

// seize makes the hostile organisation propose a workflow as its initiator, gathers the others' signatures and puts it
// in force.
func (h *Hostile) seize(text string) (hash string) {
	f := h.Org.f
	f.t.Helper()
	d, err := flow.ParseDefinition("workflow.yaml", []byte(text))
	f.must(err)
	hash, err = d.Hash()
	f.must(err)
	canonical, err := d.Canonical()
	f.must(err)
	steps := []object{}
	for _, s := range d.Workflow.Steps {
		if s.Organization == h.Org.ID {
			steps = append(steps, object{"id": s.ID, "inputs": []string{}, "outputs": []string{"document", "pii-findings"}})
		}
	}
	acceptances := []any{h.signed("fednode/agreement-acceptance/v1\n", object{"agreement": hash, "federation_id": h.Members.FederationID(),
		"organization_id": h.Org.ID, "key_id": h.KeyID, "accepted_at": "2026-01-01T00:00:00.000Z", "steps": steps})}
	for _, o := range f.Orgs {
		if o == h.Org || !d.Participant(o.ID) {
			continue
		}
		m := transport.Message{Type: "agreement-proposal", Agreement: hash, Payload: object{"definition": json.RawMessage(canonical)}}
		h.call(o, m)
		_, err := o.Node.Engine.Accept(context.Background(), "tester", hash)
		if err != nil && !strings.Contains(err.Error(), "unknown-type") { // we don't listen to acceptances
			f.t.Fatal(err)
		}
		var ans struct {
			Acceptance json.RawMessage `json:"acceptance"`
		}
		f.must(json.Unmarshal(h.call(o, m).Payload, &ans))
		acceptances = append(acceptances, ans.Acceptance)
	}
	for _, o := range f.Orgs {
		if o != h.Org && d.Participant(o.ID) {
			if r := h.call(o, transport.Message{Type: "agreement-in-force", Agreement: hash, Payload: object{"acceptances": acceptances}}); r.Refusal != nil {
				f.t.Fatal(r.Refusal)
			}
		}
	}
	return hash
}

// request is a step request without inputs.
func request(agent string, timeout int) object {
	return object{"agent_id": agent, "input": object{"artifacts": []any{}}, "execution_parameters": object{"timeout": timeout, "priority": "normal"}}
}

func (h *Hostile) step(hash, run, step string, attempt int, payload object, salt []byte) transport.Message {
	return transport.Message{Type: "step-execution-request", Agreement: hash, Run: run, Step: step, Attempt: attempt, Payload: payload, Salt: salt,
		Audit: transport.AuditInfo{Category: ledger.DataAccess, Action: "step.execute", Resource: step, DataCategory: "step", Purpose: step}}
}

func salt(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func commitment(salt, data []byte) string {
	m := hmac.New(sha256.New, salt)
	m.Write(data)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// Hostile initiators.

func TestOneKeyOneResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{0: true}})
		a, b := f.Orgs[0].Hostile(), f.Orgs[1]
		hash := a.seize(Workflow)
		m := a.step(hash, "run-0123456789ab", "document-classification", 1, request("document-classifier", 30), salt(1))
		first := a.call(b, m)
		again := a.call(b, m)
		if first.Refusal != nil || !bytes.Equal(first.Payload, again.Payload) || first.Envelope.PayloadCommitment() != again.Envelope.PayloadCommitment() {
			t.Errorf("redelivery got %s (%v), first was %s (%v)", again.Payload, again.Refusal, first.Payload, first.Refusal)
		}
		other := a.step(hash, "run-0123456789ab", "document-classification", 1, request("document-classifier", 31), salt(1))
		refusal(t, "another request under the same key", a.call(b, other), transport.CodeConflict)
		if n := len(b.entries(t, "step-executed", "run-0123456789ab/document-classification/1")); n != 1 {
			t.Errorf("%d results are on record", n)
		}
		if n := len(b.entries(t, "evidence", "run-0123456789ab/document-classification/1")); n != 1 {
			t.Errorf("%d pieces of evidence are on record", n)
		}
	})
}

func TestATombstoneRefusesWhatWasCancelledBeforeItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{0: true}})
		a, b := f.Orgs[0].Hostile(), f.Orgs[1]
		hash := a.seize(Workflow)
		cancel := a.step(hash, "run-cancelledfirst", "document-classification", 1, object{"reason": "changed my mind"}, nil)
		cancel.Type = "step-cancellation"
		if r := a.call(b, cancel); r.Refusal != nil {
			t.Fatal(r.Refusal)
		}
		late := a.step(hash, "run-cancelledfirst", "document-classification", 1, request("document-classifier", 30), nil)
		refusal(t, "a step that was cancelled before it came", a.call(b, late), transport.CodeClosed)
	})
}

func TestStepsThatNobodyAgreedToAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{0: true}})
		a, b := f.Orgs[0].Hostile(), f.Orgs[1]
		hash := a.seize(Workflow)
		for _, c := range []struct {
			what    string
			m       transport.Message
			refused transport.Code
		}{
			{"another agent", a.step(hash, "run-1234567890", "document-classification", 1, request("pii-detector", 30), nil), transport.CodeDenied},
			{"somebody else's step", a.step(hash, "run-1234567890", "document-review", 1, request("document-reviewer", 30), nil), transport.CodeDenied},
			{"an agreement that was never signed", a.step(strings.Repeat("ab", 32), "run-1234567890", "document-classification", 1, request("document-classifier", 30), nil), transport.CodeNotInForce},
			{"no attempt", a.step(hash, "run-1234567890", "document-classification", 0, request("document-classifier", 30), nil), transport.CodeMalformed},
			{"an unknown field", a.step(hash, "run-1234567890", "document-classification", 1, object{"agent_id": "document-classifier", "command": "rm"}, nil), transport.CodeMalformed},
			{"no run", a.step(hash, "", "document-classification", 1, request("document-classifier", 30), nil), transport.CodeMalformed},
		} {
			refusal(t, c.what, a.call(b, c.m), c.refused)
		}
		if n := len(b.entries(t, "step-executed", "")); n != 0 {
			t.Errorf("%d steps were executed", n)
		}
	})
}

func TestSignaturesUnderAnAgreementCannotBeInvented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{0: true}})
		a, b := f.Orgs[0].Hostile(), f.Orgs[1]
		d, err := flow.ParseDefinition("workflow.yaml", []byte(Workflow))
		f.must(err)
		hash, err := d.Hash()
		f.must(err)
		canonical, err := d.Canonical()
		f.must(err)
		a.call(b, transport.Message{Type: "agreement-proposal", Agreement: hash, Payload: object{"definition": json.RawMessage(canonical)}})
		forged := a.signed("fednode/agreement-acceptance/v1\n", object{"agreement": hash, "federation_id": a.Members.FederationID(), "organization_id": "org-c",
			"key_id": a.KeyID, "accepted_at": "2026-01-01T00:00:00.000Z", "steps": []object{{"id": "document-review", "inputs": []string{}, "outputs": []string{}}}})
		refusal(t, "org-c's signature by org-a's key", a.call(b, transport.Message{Type: "agreement-in-force", Agreement: hash, Payload: object{"acceptances": []any{forged}}}), transport.CodeMalformed)
		mine, err := b.Node.Engine.Agreement(hash)
		if err != nil || mine.State != flow.Pending || len(mine.Acceptances) != 0 {
			t.Errorf("org-b has %s with %d signatures, %v", mine.State, len(mine.Acceptances), err)
		}
		definition := bytes.Replace(canonical, []byte(`"1.0.0"`), []byte(`"1.0.1"`), 1)
		refusal(t, "another definition than the one named", a.call(b, transport.Message{Type: "agreement-proposal", Agreement: hash, Payload: object{"definition": json.RawMessage(definition)}}), transport.CodeMalformed)
	})
}

// TestTheOwnerDecidesLast has the initiator grant org-c what no rule lets pass; its holder, org-b, refuses.
func TestTheOwnerDecidesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{0: true, 2: true}, Handlers: serveDocument})
		a, b, c := f.Orgs[0].Hostile(), f.Orgs[1], f.Orgs[2].Hostile()
		hash := seizeWithTwo(a, c)
		findings := a.detect(b, hash, "run-ownerdecides")
		grant := func(change object) object {
			g := object{"federation_id": a.Members.FederationID(), "agreement": hash, "run": "run-ownerdecides", "step": "document-review", "attempt": 1,
				"artifact_id": findings, "type": "pii-findings", "holder": "org-b", "recipient": "org-c", "initiator": "org-a", "key_id": a.KeyID,
				"expires_at": time.Now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05.000Z")}
			for k, v := range change {
				g[k] = v
			}
			return a.signed("fednode/artifact-grant/v1\n", g)
		}
		unsigned := grant(nil)
		unsigned["signature"] = base64.StdEncoding.EncodeToString(make([]byte, ed25519.SignatureSize))
		for what, g := range map[string]object{
			"what no rule lets pass":             grant(nil),
			"the same under another type's name": grant(object{"type": "classification"}),
			"a grant for somebody else":          grant(object{"recipient": "org-a"}),
			"a grant that is over":               grant(object{"expires_at": "2000-01-01T00:00:00.000Z"}),
			"a grant without end":                grant(object{"expires_at": "2100-01-01T00:00:00.000Z"}),
			"a grant without signature":          unsigned,
			"an artifact that is not there":      grant(object{"artifact_id": "art-000000000000000000000000", "type": "classification"}),
			"another federation":                 grant(object{"federation_id": strings.Repeat("00", 32)}),
		} {
			var got bytes.Buffer
			m := transport.Message{To: "org-b", Type: "artifact-fetch", Run: "run-ownerdecides", Step: "document-review", Attempt: 1, Agreement: hash, Payload: object{"grant": g},
				Audit: transport.AuditInfo{Category: ledger.DataAccess, Action: "artifact.fetch", Resource: "x", DataCategory: "pii-findings", Purpose: "x"}}
			_, err := c.Fetch(context.Background(), m, transport.Sink{Writer: &got, Commitment: commitment(salt(0), nil)})
			var refused *transport.Error
			codes := []transport.Code{transport.CodeDenied, transport.CodeNotFound}
			if what == "a grant that is over" || what == "a grant without end" {
				codes = []transport.Code{transport.CodeExpired}
			}
			if !errors.As(err, &refused) || !slices.Contains(codes, refused.Code) {
				t.Errorf("%s: %v", what, err)
			}
			if got.Len() > 0 {
				t.Errorf("%s: %d bytes came all the same", what, got.Len())
			}
		}
	})
}

// serveDocument makes hostile organisations hand out the lease whoever asks, and acknowledge everything else.
func serveDocument(_ *Org, n *Hostile) {
	n.HandleFetch(func(context.Context, *transport.Request) (*transport.Source, error) {
		return &transport.Source{Size: int64(len(Lease)), Salt: salt(9), MediaType: "text/plain", Open: func(at int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(Lease[at:])), nil
		}}, nil
	})
	for _, typ := range []string{"agreement-acceptance", "agreement-in-force", "run-closed", "step-cancellation"} {
		n.Handle(typ, func(ctx context.Context, r *transport.Request) error {
			return r.Reply(ctx, object{"ok": true}, transport.ReplyOptions{}, nil)
		})
	}
}

// seizeWithTwo puts the reference workflow in force at org-b, with org-a and org-c both hostile.
func seizeWithTwo(a, c *Hostile) (hash string) {
	f := a.Org.f
	f.t.Helper()
	d, err := flow.ParseDefinition("workflow.yaml", []byte(Workflow))
	f.must(err)
	hash, err = d.Hash()
	f.must(err)
	canonical, err := d.Canonical()
	f.must(err)
	b := f.Orgs[1]
	a.call(b, transport.Message{Type: "agreement-proposal", Agreement: hash, Payload: object{"definition": json.RawMessage(canonical)}})
	_, err = b.Node.Engine.Accept(context.Background(), "tester", hash)
	f.must(err)
	accept := func(h *Hostile, steps ...string) object {
		declared := []object{}
		for _, s := range steps {
			declared = append(declared, object{"id": s, "inputs": []string{}, "outputs": []string{}})
		}
		return h.signed("fednode/agreement-acceptance/v1\n", object{"agreement": hash, "federation_id": h.Members.FederationID(), "organization_id": h.Org.ID,
			"key_id": h.KeyID, "accepted_at": "2026-01-01T00:00:00.000Z", "steps": declared})
	}
	note := object{"acceptances": []any{accept(a, "document-upload", "document-approval"), accept(c, "document-review")}}
	if r := a.call(b, transport.Message{Type: "agreement-in-force", Agreement: hash, Payload: note}); r.Refusal != nil {
		f.t.Fatal(r.Refusal)
	}
	return hash
}

// detect has org-b find personal data in the lease, and returns the id of the findings.
func (h *Hostile) detect(b *Org, hash, run string) string {
	h.Org.f.t.Helper()
	in := h.lease(hash, run, "sensitive-data-detection", nil)
	p := request("pii-detector", 60)
	p["input"] = object{"artifacts": []any{in}}
	r := h.call(b, h.step(hash, run, "sensitive-data-detection", 1, p, nil))
	var res struct {
		Status  string             `json:"status"`
		Outputs []flow.ArtifactRef `json:"outputs"`
	}
	h.Org.f.must(json.Unmarshal(r.Payload, &res))
	for _, o := range res.Outputs {
		if o.Type == "pii-findings" {
			return o.ID
		}
	}
	h.Org.f.t.Fatalf("no findings: %s %v", r.Payload, r.Refusal)
	return ""
}

// lease refers to the lease as serveDocument hands it out, with a grant for org-b's step.
func (h *Hostile) lease(hash, run, step string, change object) object {
	grant := h.signed("fednode/artifact-grant/v1\n", object{"federation_id": h.Members.FederationID(), "agreement": hash, "run": run, "step": step, "attempt": 1,
		"artifact_id": "art-lease", "type": "document", "holder": "org-a", "recipient": "org-b", "initiator": "org-a", "key_id": h.KeyID,
		"expires_at": h.Org.now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000Z")})
	in := object{"artifact_id": "art-lease", "type": "document", "version": 1, "media_type": "text/plain", "size": len(Lease),
		"commitment": commitment(salt(9), []byte(Lease)), "origin": "org-a", "from": "org-a", "grant": grant}
	for k, v := range change {
		in[k] = v
	}
	return in
}

func TestInputsThatAreNotWhatWasPromisedFailTheStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{0: true, 2: true}, Handlers: serveDocument})
		a, b, c := f.Orgs[0].Hostile(), f.Orgs[1], f.Orgs[2].Hostile()
		hash := seizeWithTwo(a, c)
		for i, change := range []object{
			{"commitment": commitment(salt(9), []byte("another document"))},
			{"size": len(Lease) - 1},
			{"size": 1 << 40},
			{"size": -1},
			{"type": "classification"},
			{"grant": nil},
		} {
			p := request("document-classifier", 60)
			p["input"] = object{"artifacts": []any{a.lease(hash, "run-lies", "document-classification", change)}}
			m := a.step(hash, "run-lies", "document-classification", i+1, p, nil)
			r := a.call(b, m)
			var res struct {
				Status string          `json:"status"`
				Error  *flow.StepError `json:"error"`
			}
			if r.Refusal == nil {
				f.must(json.Unmarshal(r.Payload, &res))
			}
			if r.Refusal == nil && (res.Status != "failed" || res.Error == nil) {
				t.Errorf("with %v the step %s: %s", change, res.Status, r.Payload)
			}
		}
		held, err := b.Node.Engine.Holdings("run-lies")
		if err != nil || len(held) != 0 {
			t.Errorf("org-b holds %+v, %v", held, err)
		}
	})
}

// Hostile executors.

// executor makes a hostile organisation accept what it is proposed, and answer steps with what answer returns.
func executor(answer func(n *Hostile, r *transport.Request) object) func(*Org, *Hostile) {
	return func(o *Org, n *Hostile) {
		serveDocument(o, n)
		n.Handle("agreement-proposal", func(ctx context.Context, r *transport.Request) error {
			var p struct {
				Definition json.RawMessage `json:"definition"`
			}
			if err := json.Unmarshal(r.Payload, &p); err != nil {
				return err
			}
			var d flow.Definition
			if err := json.Unmarshal(p.Definition, &d); err != nil {
				return err
			}
			steps := []object{}
			for _, s := range d.Workflow.Steps {
				if s.Organization == o.ID {
					steps = append(steps, object{"id": s.ID, "inputs": []string{"document"}, "outputs": []string{"classification"}})
				}
			}
			acc := n.signed("fednode/agreement-acceptance/v1\n", object{"agreement": r.Envelope.Binding.Agreement, "federation_id": n.Members.FederationID(),
				"organization_id": o.ID, "key_id": n.KeyID, "accepted_at": "2026-01-01T00:00:00.000Z", "steps": steps})
			return r.Reply(ctx, object{"state": "accepted", "acceptance": acc}, transport.ReplyOptions{}, nil)
		})
		n.Handle("step-execution-request", func(ctx context.Context, r *transport.Request) error {
			return r.Reply(ctx, answer(n, r), transport.ReplyOptions{}, nil)
		})
	}
}

const short = `name: short
version: 1.0.0
type: federated
participants:
  - {id: org-a, role: initiator}
  - {id: org-b, role: processor}
workflow:
  steps:
    - {id: upload, organization: org-a, agent: document-uploader, next: classify}
    - {id: classify, organization: org-b, agent: document-classifier, next: null, timeout: 60s}
governance:
  data_sharing:
    - {from: org-a, to: org-b, data_types: [document]}
    - {from: org-b, to: org-a, data_types: [classification]}
`

func TestLyingExecutorsFailTheRunAndNothingElse(t *testing.T) {
	output := func(change object) object {
		o := object{"artifact_id": "art-1", "type": "classification", "version": 1, "media_type": "application/json", "size": 2,
			"commitment": commitment(salt(9), []byte("{}")), "origin": "org-a"}
		for k, v := range change {
			o[k] = v
		}
		return object{"status": "completed", "outputs": []any{o}}
	}
	for what, answer := range map[string]object{
		"an undeclared type":       output(object{"type": "document"}),
		"a commitment of no hash":  output(object{"commitment": "aGVsbG8="}),
		"a size of a terabyte":     output(object{"size": 1 << 40}),
		"a negative size":          output(object{"size": -1}),
		"an id without end":        output(object{"artifact_id": strings.Repeat("a", 100)}),
		"a media type with a line": output(object{"media_type": "text/plain\nx"}),
		"an unknown field":         output(object{"path": "/etc/passwd"}),
		"no status":                {"outputs": []any{}},
		"an id that is taken":      {"status": "completed", "outputs": []any{output(nil)["outputs"].([]any)[0], output(nil)["outputs"].([]any)[0]}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: executor(func(*Hostile, *transport.Request) object { return answer })})
				run := f.Finish(f.Begin(f.Agree(short), "lease.txt", Lease).ID)
				if run.State != flow.StateFailed || run.Error == nil || run.Error.Code != "malformed" || len(run.Artifacts) > 3 {
					t.Errorf("run is %s: %v", run.State, run.Error)
				}
				f.Verify()
			})
		})
	}
}

// TestAnExecutorThatAlwaysLosesIsGivenUp bounds how often a step begins again.
func TestAnExecutorThatAlwaysLosesIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: executor(func(*Hostile, *transport.Request) object {
			asked.Add(1)
			return object{"status": "failed", "error": object{"code": "lost", "text": "memory is gone", "holder": "org-b"}}
		})})
		run := f.Finish(f.Begin(f.Agree(short), "lease.txt", Lease).ID)
		if run.State != flow.StateFailed || asked.Load() > 5 {
			t.Errorf("run is %s after %d attempts: %v", run.State, asked.Load(), run.Error)
		}
	})
}

// TestALogThatForgetsIsEvidence has org-b answer from a log that was rolled back.
func TestALogThatForgetsIsEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		run := f.Begin(f.Agree(Gated), "lease.txt", Lease)
		f.awaitGate("")
		b := f.Orgs[1]
		f.must(copyTree(b.Dir, b.Dir+".old"))
		f.approveAtB(run.ID)
		f.Finish(run.ID)
		time.Sleep(10 * time.Minute)
		f.must(b.Stop())
		b.Dir += ".old" // restored from an old backup, whose log is shorter than what org-a has seen
		b.Start()
		a := f.Orgs[0]
		d, err := flow.ParseDefinition("short.yaml", []byte(short))
		f.must(err)
		if _, err := a.Node.Engine.Submit(context.Background(), "tester", d); err == nil || !strings.Contains(err.Error(), "log") {
			t.Errorf("answers from a log that was rolled back: %v", err)
		}
		st, err := a.Node.Status()
		if err != nil || st.Evidence == 0 {
			t.Errorf("%d pieces of evidence, %v", st.Evidence, err)
		}
	})
}
