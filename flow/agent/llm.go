package agent

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"text/template"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"fednode/store/jcs"
)

const (
	defaultMaxTokens = 8192
	maxPrompt        = 4 << 20 // bytes
	llmTries         = 3       // of a call that the service failed
)

// llmAgent asks a model behind an OpenAI-compatible API (POST /v1/chat/completions) and takes an answer that fits its
// JSON schema.
type llmAgent struct {
	service
	spec      Spec
	model     string
	key       secret
	prompt    *template.Template
	schema    map[string]any
	validator *jsonschema.Schema
	maxTokens int
	set       *Set
}

// promptInput is what a prompt template sees of an input.
type promptInput struct{ Name, MediaType, Text string }

func newLLM(name string, c Config, s *Set, env Env) (Agent, error) {
	client, err := newClient(c.URL)
	if err != nil {
		return nil, configError(name, "%w", err)
	}
	prompt, err := template.New(name).Option("missingkey=error").Parse(c.Prompt)
	if err != nil {
		return nil, configError(name, "prompt: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(jsonschema.SchemeURLLoader{}) // no reference leaves the schema
	if err := compiler.AddResource("schema.json", normal(c.Schema)); err != nil {
		return nil, configError(name, "schema: %w", err)
	}
	validator, err := compiler.Compile("schema.json")
	if err != nil {
		return nil, configError(name, "schema: %w", err)
	}
	key, err := readSecret(c.APIKey, env.Dir)
	if err != nil {
		return nil, configError(name, "api_key: %w", err)
	}
	if c.MaxTokens == 0 {
		c.MaxTokens = defaultMaxTokens
	}
	to := service{name, strings.TrimSuffix(c.URL, "/") + "/chat/completions", client, env.Logger}
	return &llmAgent{to, Spec{name, "llm", c.Inputs, c.Optional, c.Outputs}, c.Model, key, prompt, c.Schema, validator, c.MaxTokens, s}, nil
}

// normal gives a schema from YAML the types that JSON has.
func normal(schema map[string]any) any {
	b, err := json.Marshal(schema)
	if err != nil {
		return schema
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return schema
	}
	return v
}

func (a *llmAgent) Spec() Spec { return a.spec }

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type chatRequest struct {
	Model          string         `json:"model"`
	Messages       []chatMessage  `json:"messages"`
	MaxTokens      int            `json:"max_tokens"`
	Temperature    float64        `json:"temperature"`
	ResponseFormat map[string]any `json:"response_format"`
}

type chatReply struct {
	Choices []struct {
		Message      chatMessage `json:"message"`
		FinishReason string      `json:"finish_reason"`
	} `json:"choices"`
	Usage struct {
		TotalTokens int `json:"total_tokens"`
	} `json:"usage"`
}

func (a *llmAgent) Run(ctx context.Context, t Task) (*Result, error) {
	if err := mayCallOut(a.spec.Name, t); err != nil {
		return nil, err
	}
	prompt, err := a.render(ctx, t)
	if err != nil {
		return nil, err
	}
	res := &Result{PromptSalt: make([]byte, 32)}
	rand.Read(res.PromptSalt)
	mac := hmac.New(sha256.New, res.PromptSalt)
	mac.Write([]byte(prompt))
	res.PromptCommitment = mac.Sum(nil)

	messages := []chatMessage{{"user", prompt}}
	budget := a.maxTokens
	for try := 0; ; try++ {
		answer, used, err := a.ask(ctx, messages, budget)
		if err != nil {
			return nil, err
		}
		if budget -= used; budget < 0 {
			return nil, a.overspent()
		}
		problem := a.check(answer)
		if problem == nil {
			res.Outputs = []Artifact{{Type: a.spec.Outputs[0], Name: a.spec.Outputs[0] + ".json", MediaType: "application/json", Data: []byte(answer)}}
			return res, nil
		}
		if try == 1 {
			return nil, fail(a.spec.Name, KindSchema, "its model answered twice with what does not fit the schema")
		}
		messages = append(messages, chatMessage{"assistant", answer},
			chatMessage{"user", "That does not fit the JSON schema: " + printable(problem.Error(), 2000) + "\nAnswer again, with the JSON object only."})
	}
}

// render fills the template in; documents that are not text are read in a worker first.
func (a *llmAgent) render(ctx context.Context, t Task) (string, error) {
	inputs := map[string]promptInput{}
	for _, in := range t.Inputs {
		text := in.Data
		if !isText(in) {
			var err error
			if text, err = a.set.extract(ctx, in, t); err != nil {
				return "", err
			}
		}
		inputs[in.Type] = promptInput{in.Name, in.MediaType, string(text)}
	}
	var b bytes.Buffer
	if err := a.prompt.Execute(&b, map[string]any{"Purpose": t.Purpose, "Inputs": inputs}); err != nil {
		return "", fail(a.spec.Name, KindInput, "prompt template fails: a field or an input that is not there")
	}
	if b.Len() > maxPrompt {
		return "", fail(a.spec.Name, KindInput, "prompt of %d bytes; at most %d", b.Len(), maxPrompt)
	}
	return b.String(), nil
}

// ask calls the model, again if the service fails, and returns its answer and the tokens that this took.
func (a *llmAgent) ask(ctx context.Context, messages []chatMessage, budget int) (answer string, used int, err error) {
	prompt := 0
	for _, m := range messages {
		prompt += tokens(m.Content)
	}
	if prompt >= budget {
		return "", 0, a.overspent()
	}
	body, err := json.Marshal(chatRequest{Model: a.model, Messages: messages, MaxTokens: budget - prompt,
		ResponseFormat: map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": strings.ReplaceAll(a.spec.Outputs[0], "-", "_"), "strict": true, "schema": a.schema}}})
	if err != nil {
		return "", 0, fail(a.spec.Name, KindInput, "the call cannot be written")
	}
	h := http.Header{}
	if a.key != "" {
		h.Set("Authorization", "Bearer "+string(a.key))
	}
	backoff := 200 * time.Millisecond
	for try := 1; ; try++ {
		var b []byte
		if b, err = a.post(ctx, body, h); err == nil {
			if answer, used, err = a.parse(b); used == 0 {
				used = prompt + tokens(answer)
			}
			return answer, used, err
		}
		var status *statusError
		if !errors.As(err, &status) || status.status < 500 && status.status != http.StatusTooManyRequests || try == llmTries {
			return "", 0, err
		}
		select {
		case <-time.After(backoff):
			backoff *= 4
		case <-ctx.Done():
			return "", 0, fail(a.spec.Name, KindTimeout, "its service did not answer in time")
		}
	}
}

// tokens estimates a text's length in tokens, where the service has not counted: tokenizers make four bytes of common
// languages one.
func tokens(text string) int { return (len(text) + 3) / 4 }

func (a *llmAgent) overspent() error {
	return fail(a.spec.Name, KindBudget, "needs more than its %d tokens; raise max_tokens", a.maxTokens)
}

// parse returns the answer and the tokens that the service counted, 0 if it did not.
func (a *llmAgent) parse(b []byte) (answer string, used int, err error) {
	var r chatReply
	if err := json.Unmarshal(b, &r); err != nil || len(r.Choices) == 0 {
		return "", 0, fail(a.spec.Name, KindOutput, "its service's answer is not that of a chat completion")
	}
	if r.Choices[0].FinishReason == "length" {
		return "", 0, a.overspent()
	}
	return r.Choices[0].Message.Content, max(r.Usage.TotalTokens, 0), nil
}

// check validates an answer against the schema.
func (a *llmAgent) check(answer string) error {
	canonical, err := jcs.Transform([]byte(answer)) // one reading only: no duplicate names, no more after it
	if err != nil {
		return errNotStrict
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(canonical))
	if err != nil {
		return errNotStrict
	}
	return a.validator.Validate(v)
}
