package fed

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/store/ledger"
	"fednode/transport"
)

// exchange is a workflow of org-c's own, under which documents go from org-c to org-b and back.
const exchange = `name: exchange
version: 1.0.0
type: federated
participants:
  - {id: org-c, role: initiator}
  - {id: org-b, role: processor}
workflow:
  steps:
    - {id: upload, organization: org-c, agent: document-uploader, next: classify}
    - {id: classify, organization: org-b, agent: document-classifier, next: back}
    - {id: back, organization: org-c, agent: document-uploader, next: null}
governance:
  data_sharing:
    - {from: org-c, to: org-b, data_types: [document], restrictions: [no-storage]}
    - {from: org-b, to: org-c, data_types: [document], restrictions: [no-storage]}
`

// TestAnotherAgreementsRunOfTheSameName has org-c drive a run of its own under the names of org-a's run and document,
// which org-b holds. Neither may it get org-a's document nor may org-a's run lose it.
func TestAnotherAgreementsRunOfTheSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{1: gate}, Hostile: map[int]bool{2: true}, Handlers: serveDocument})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Orgs[2].Hostile()
		run := f.Begin(f.Agree(Gated), "secret.txt", "The secret of organisation A is long enough to be read as a document.")
		f.awaitGate("")
		open, err := a.Node.Engine.GetRun(string(run.ID))
		f.must(err)
		document := open.Artifacts[len(open.Artifacts)-1].ID // the version that org-b fetched

		hash := c.seize(exchange)
		until := time.Now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05.000Z")
		grant := func(step string, holder, recipient transport.OrgID) object {
			return c.signed("fednode/artifact-grant/v1\n", object{"federation_id": c.Members.FederationID(), "agreement": hash, "run": string(run.ID), "step": step, "attempt": 1,
				"artifact_id": document, "type": "document", "holder": holder, "recipient": recipient, "initiator": "org-c", "key_id": c.KeyID, "expires_at": until})
		}
		p := request("document-classifier", 60)
		p["input"] = object{"artifacts": []any{object{"artifact_id": document, "type": "document", "version": 1, "media_type": "text/plain", "size": len(Lease),
			"commitment": commitment(salt(9), []byte(Lease)), "origin": "org-c", "from": "org-c", "grant": grant("classify", "org-c", "org-b")}}}
		if r := c.call(b, c.step(hash, string(run.ID), "classify", 1, p, nil)); r.Refusal != nil || !bytes.Contains(r.Payload, []byte("completed")) {
			t.Errorf("org-c's own run: %s %v", r.Payload, r.Refusal)
		}
		var got bytes.Buffer
		m := transport.Message{To: "org-b", Type: "artifact-fetch", Run: string(run.ID), Step: "back", Attempt: 1, Agreement: hash, Payload: object{"grant": grant("back", "org-b", "org-c")},
			Audit: transport.AuditInfo{Category: ledger.DataAccess, Action: "artifact.fetch", Resource: "x", DataCategory: "document", Purpose: "x"}}
		_, err = c.Fetch(context.Background(), m, transport.Sink{Writer: &got, Commitment: commitment(salt(9), []byte(Lease)), MaxSize: int64(len(Lease))})
		if strings.Contains(got.String(), "secret") {
			t.Errorf("org-c got org-a's document: %v", err)
		}
		if err != nil || got.String() != Lease {
			t.Errorf("org-c got %d bytes of its own document back, %v", got.Len(), err)
		}
		f.approveAtB(run.ID)
		end := f.Finish(run.ID)
		if end.State != flow.StateCompleted || end.Steps[1].Attempt != 1 {
			t.Errorf("org-a's run is %s after %d attempts: %v", end.State, end.Steps[1].Attempt, end.Error)
		}
	})
}
