package agent

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func llmConfig(url string) Config {
	return Config{Kind: "llm", URL: url, Model: "small", Inputs: []string{"document"}, Optional: []string{"pii-findings"}, Outputs: []string{"review-result"},
		Prompt: `For {{.Purpose}}: {{(index .Inputs "document").Name}}: {{(index .Inputs "document").Text}}{{with index .Inputs "pii-findings"}}{{.Text}}{{end}}`,
		Schema: map[string]any{"type": "object", "required": []any{"risk"}, "additionalProperties": false,
			"properties": map[string]any{"risk": map[string]any{"enum": []any{"low", "high"}}}}}
}

func completion(content string, tokens int) string {
	b, err := json.Marshal(map[string]any{"choices": []any{map[string]any{"message": map[string]any{"role": "assistant", "content": content}, "finish_reason": "stop"}},
		"usage": map[string]any{"total_tokens": tokens}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// A model is a server that speaks the chat completions API; it gives the scripted answers, the last one for ever.
type model struct {
	t       *testing.T
	url     string
	answers []func(w http.ResponseWriter)

	mu       sync.Mutex
	requests []chatRequest
	keys     []string
}

func says(content string, tokens int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { io.WriteString(w, completion(content, tokens)) }
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { http.Error(w, "secret", code) }
}

func newModel(t *testing.T, answers ...func(http.ResponseWriter)) *model {
	m := &model{t: t, answers: answers}
	m.url = serveHTTP(t, m.serve).URL + "/v1"
	return m
}

func (m *model) serve(w http.ResponseWriter, r *http.Request) {
	var q chatRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/chat/completions" || r.Method != "POST" {
		m.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	m.mu.Lock()
	i := min(len(m.requests), len(m.answers)-1)
	m.requests = append(m.requests, q)
	m.keys = append(m.keys, r.Header.Get("Authorization"))
	m.mu.Unlock()
	m.answers[i](w)
}

func (m *model) run(ctx context.Context, change func(*Config), inputs []Artifact) (*Result, error) {
	m.t.Helper()
	c := llmConfig(m.url)
	if change != nil {
		change(&c)
	}
	s, _ := newTestSet(m.t, map[string]Config{"m": c})
	return get(m.t, s, "m").Run(ctx, Task{IdempotencyKey: "k", Purpose: "contract review", Inputs: inputs})
}

const fits = `{"risk":"low"}`

func TestLLM(t *testing.T) {
	t.Setenv("MODEL_KEY", "very-secret")
	m := newModel(t, says(fits, 50))
	res, err := m.run(t.Context(), func(c *Config) { c.APIKey = Secret{Env: "MODEL_KEY"} }, textDocument("the words"))
	if err != nil {
		t.Fatal(err)
	}
	if o := res.Outputs; len(o) != 1 || o[0].Type != "review-result" || string(o[0].Data) != fits || o[0].MediaType != "application/json" {
		t.Errorf("%+v", o)
	}
	q := m.requests[0]
	prompt := "For contract review: a.txt: the words"
	if q.Model != "small" || len(q.Messages) != 1 || q.Messages[0] != (chatMessage{"user", prompt}) || q.MaxTokens != defaultMaxTokens-tokens(prompt) || q.Temperature != 0 {
		t.Errorf("%+v", q)
	}
	if f, _ := q.ResponseFormat["json_schema"].(map[string]any); q.ResponseFormat["type"] != "json_schema" || f["schema"] == nil || f["strict"] != true {
		t.Errorf("response format %v", q.ResponseFormat)
	}
	if m.keys[0] != "Bearer very-secret" {
		t.Errorf("authorization %q", m.keys[0])
	}
	mac := hmac.New(sha256.New, res.PromptSalt)
	mac.Write([]byte(prompt))
	if len(res.PromptSalt) != 32 || !hmac.Equal(mac.Sum(nil), res.PromptCommitment) {
		t.Error("the commitment does not open to the prompt")
	}
}

func TestLLMKeyFromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("from-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newModel(t, says(fits, 50))
	if _, err := m.run(t.Context(), func(c *Config) { c.APIKey = Secret{File: file} }, textDocument("x")); err != nil || m.keys[0] != "Bearer from-file" {
		t.Errorf("%v, %q", err, m.keys)
	}
	k := secret("from-file")
	if s := fmt.Sprintf("%v %s %+v %#v", k, k, struct{ K secret }{k}, k) + k.LogValue().String(); strings.Contains(s, "from-file") {
		t.Errorf("printed: %s", s)
	}
}

// TestLLMReadsDocuments: the prompt has the text of what is no text, read in a worker.
func TestLLMReadsDocuments(t *testing.T) {
	m := newModel(t, says(fits, 50))
	mail := Artifact{Type: "document", Name: "a.eml", MediaType: "message/rfc822", Data: []byte("From: a@example.org\r\nSubject: lease\r\nContent-Type: text/plain\r\n\r\nThe rent is due.\r\n")}
	if _, err := m.run(t.Context(), nil, []Artifact{mail}); err != nil {
		t.Fatal(err)
	}
	if p := m.requests[0].Messages[0].Content; !strings.Contains(p, "The rent is due.") {
		t.Errorf("prompt %q", p)
	}
	_, err := m.run(t.Context(), nil, []Artifact{{Type: "document", MediaType: "application/pdf", Data: []byte("%PDF-1.7 junk")}})
	wantKind(t, err, KindInput)
}

func TestLLMCorrectsItself(t *testing.T) {
	for _, wrong := range []string{"Sure! " + fits, `{"risk":"medium"}`, `{}`, `{"risk":"low","more":1}`, fits + fits, `{"risk":"low","risk":"high"}`, "",
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000)} {
		m := newModel(t, says(wrong, 50), says(fits, 50))
		res, err := m.run(t.Context(), nil, textDocument("x"))
		if err != nil || string(res.Outputs[0].Data) != fits {
			t.Errorf("after %.20q: %v", wrong, err)
			continue
		}
		second := m.requests[1]
		if len(m.requests) != 2 || len(second.Messages) != 3 || second.Messages[1] != (chatMessage{"assistant", wrong}) || second.MaxTokens >= m.requests[0].MaxTokens {
			t.Errorf("after %.20q: second request %+v", wrong, second)
		}

		m = newModel(t, says(wrong, 50))
		_, err = m.run(t.Context(), nil, textDocument("x"))
		wantKind(t, err, KindSchema)
		if len(m.requests) != 2 {
			t.Errorf("asked %d times, want twice", len(m.requests))
		}
	}
}

func TestLLMFailures(t *testing.T) {
	cut := func(w http.ResponseWriter) {
		io.WriteString(w, `{"choices":[{"message":{"content":"{"},"finish_reason":"length"}],"usage":{"total_tokens":9}}`)
	}
	flood := func(w http.ResponseWriter) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter)
		kind   Kind
		calls  int
	}{
		{"not found", status(404), KindUnavailable, 1},
		{"key refused", status(401), KindUnavailable, 1},
		{"no completion", func(w http.ResponseWriter) { io.WriteString(w, `{"error":"secret"}`) }, KindOutput, 1},
		{"no JSON", func(w http.ResponseWriter) { io.WriteString(w, "secret") }, KindOutput, 1},
		{"cut by length", cut, KindBudget, 1},
		{"huge", flood, KindFlood, 1},
		{"more tokens than allowed", says(fits, defaultMaxTokens+1), KindBudget, 1},
		{"redirect", func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://169.254.169.254/")
			w.WriteHeader(307)
		}, KindUnavailable, 1},
		{"overloaded", status(429), KindUnavailable, llmTries},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newModel(t, c.answer)
			_, err := m.run(t.Context(), nil, textDocument("x"))
			if text := wantKind(t, err, c.kind); strings.Contains(text, "secret") {
				t.Error(text)
			}
			if len(m.requests) != c.calls {
				t.Errorf("called %d times, want %d", len(m.requests), c.calls)
			}
		})
	}
}

func TestLLMRetriesService(t *testing.T) {
	m := newModel(t, status(500), says(fits, 50))
	if _, err := m.run(t.Context(), nil, textDocument("x")); err != nil || len(m.requests) != 2 {
		t.Errorf("%v after %d calls", err, len(m.requests))
	}
}

func TestLLMBudget(t *testing.T) {
	budget := func(n int) func(*Config) { return func(c *Config) { c.MaxTokens = n } }
	m := newModel(t, says(fits, 50))
	_, err := m.run(t.Context(), budget(100), textDocument(strings.Repeat("word ", 100)))
	wantKind(t, err, KindBudget)
	if len(m.requests) > 0 {
		t.Error("a prompt over the budget was sent")
	}
	// The two tries together: the second one may use what the first has left.
	m = newModel(t, says("{}", 150), says(fits, 150))
	_, err = m.run(t.Context(), budget(250), textDocument("x"))
	wantKind(t, err, KindBudget)
	// A service that does not count is counted for: the wrong answer has used it up.
	m = newModel(t, says(strings.Repeat("x", 900), 0), says(fits, 0))
	_, err = m.run(t.Context(), budget(250), textDocument("x"))
	wantKind(t, err, KindBudget)
	if len(m.requests) != 1 {
		t.Errorf("asked %d times", len(m.requests))
	}
}

func TestLLMSlow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	m := newModel(t, func(http.ResponseWriter) { cancel(); <-release })
	_, err := m.run(ctx, nil, textDocument("x"))
	wantKind(t, err, KindTimeout)

	ctx, cancel = context.WithCancel(t.Context()) // while it waits for the next try
	m = newModel(t, func(w http.ResponseWriter) { status(503)(w); cancel() })
	_, err = m.run(ctx, nil, textDocument("x"))
	wantKind(t, err, KindTimeout)
}

func TestLLMPromptFails(t *testing.T) {
	m := newModel(t, says(fits, 50))
	_, err := m.run(t.Context(), func(c *Config) { c.Prompt = `{{.Inputs.other.Text}}` }, textDocument("x"))
	wantKind(t, err, KindInput)
	_, err = m.run(t.Context(), nil, textDocument(strings.Repeat("x", maxPrompt+1)))
	wantKind(t, err, KindInput)
	if len(m.requests) > 0 {
		t.Error("called nevertheless")
	}
}

// TestLLMSaltsDiffer: two runs on one prompt do not show that it was one.
func TestLLMSaltsDiffer(t *testing.T) {
	m := newModel(t, says(fits, 50))
	a, err1 := m.run(t.Context(), nil, textDocument("x"))
	b, err2 := m.run(t.Context(), nil, textDocument("x"))
	if err1 != nil || err2 != nil || slices.Equal(a.PromptCommitment, b.PromptCommitment) {
		t.Errorf("%v, %v, commitments %x and %x", err1, err2, a.PromptCommitment, b.PromptCommitment)
	}
}
