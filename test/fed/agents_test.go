package fed

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"fednode/flow"
	"fednode/hsm"
	"fednode/node"
)

// model is a service on this machine that speaks the chat completions API, and what it was asked.
func model(t *testing.T, answer string) (url string, asked *atomic.Pointer[string]) {
	t.Helper()
	asked = new(atomic.Pointer[string])
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/chat/completions" {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		text := string(b)
		asked.Store(&text)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "1", "object": "chat.completion", "model": "m",
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": answer}}},
			"usage":   map[string]any{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}})
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1", asked
}

const llmReviewer = `agents:
  document-reviewer:
    kind: llm
    url: URL
    model: m
    inputs: [document]
    outputs: [review-result]
    prompt: "Review for {{.Purpose}}:\n{{(index .Inputs \"document\").Text}}"
    schema: {type: object, required: [risk], properties: {risk: {enum: [low, medium, high]}}}
`

const execClassifier = `agents:
  document-classifier:
    kind: exec
    command: [/bin/sh, -c, 'read -r task; printf ''{"outputs":[{"type":"classification","media_type":"application/json","text":"{\"label\":\"contract\",\"score\":1}"}],"headline":"contract"}''']
    inputs: [document]
    outputs: [classification]
`

const mayReview = `version: 1
default: deny
rules:
  - name: a-model-may-review
    effect: allow
    when: action == "agent.call-out" && subject == "org-c" && resource == "document-reviewer"
`

// setPolicy puts a policy.yaml into force at an organisation.
func (o *Org) setPolicy(text string) {
	o.f.t.Helper()
	_, err := o.Node.Apply(context.Background(), "tester", "policy.yaml", []byte(text))
	o.f.must(err)
}

// TestAgentsAreSwappedByConfiguration runs the reference workflow with a program as classifier and a language model as
// reviewer. The model sees the redacted document, and only because both the document's owner and its own node say so.
func TestAgentsAreSwappedByConfiguration(t *testing.T) {
	url, asked := model(t, `{"risk":"low"}`)
	f := New(t, Options{Loopback: true, Agents: map[int]string{0: ApproveAll, 1: execClassifier, 2: strings.Replace(llmReviewer, "URL", url, 1)}})
	f.Orgs[0].setPolicy(mayReview)
	f.Orgs[2].setPolicy(mayReview)
	run := f.Finish(f.Begin(f.Agree(Workflow), "lease.txt", Lease).ID)
	if run.State != flow.StateCompleted {
		t.Fatalf("run is %s: %v", run.State, run.Error)
	}
	prompt := *asked.Load()
	if !strings.Contains(prompt, "document-review") || !strings.Contains(prompt, "tenant shall pay") || strings.Contains(prompt, "castellane@") {
		t.Errorf("the model was asked: %s", prompt)
	}
	executed := f.Orgs[2].entries(t, "step-executed", string(run.ID))
	if len(executed) != 1 || executed[0].Commitment == "" {
		t.Errorf("no commitment to the prompt is on record: %+v", executed)
	}
	f.Verify()
}

func TestAModelGetsNoRestrictedDataWithoutItsOwnersWord(t *testing.T) {
	for what, policies := range map[string][]int{"nobody": nil, "only the owner": {0}, "only the model's organisation": {2}, "somebody else": {1, 2}} {
		t.Run(what, func(t *testing.T) {
			url, asked := model(t, `{"risk":"low"}`)
			f := New(t, Options{Loopback: true, Agents: map[int]string{0: ApproveAll, 2: strings.Replace(llmReviewer, "URL", url, 1)}})
			for _, i := range policies {
				f.Orgs[i].setPolicy(mayReview)
			}
			run := f.Finish(f.Begin(f.Agree(Workflow), "lease.txt", Lease).ID)
			if run.State != flow.StateFailed || run.Error == nil || run.Error.Code != "agent-refused" || asked.Load() != nil {
				t.Errorf("run is %s: %v; asked: %v", run.State, run.Error, asked.Load() != nil)
			}
		})
	}
}

// TestReadmeConfigurationIsTrue loads the agents that the README shows.
func TestReadmeConfigurationIsTrue(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```yaml\n")
	section, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("the README shows no configuration")
	}
	site, err := node.Create(filepath.Join(t.TempDir(), "org-a"), node.Options{Org: "org-a", Advertise: []string{"127.0.0.1:443"}, Passphrase: hsm.Unprotected(), Agents: section})
	if err != nil {
		t.Fatal(err)
	}
	if len(site.Config.Agents) != 3 {
		t.Errorf("%d agents", len(site.Config.Agents))
	}
	if err := site.Close(); err != nil {
		t.Fatal(err)
	}
}
