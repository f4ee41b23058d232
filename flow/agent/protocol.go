package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"fednode/store/jcs"
)

// The exec protocol, which http agents speak too: one JSON object in, one out. An artifact has its bytes in text, when
// they are text, or else in data, in base64.
type (
	execInput struct {
		Task   execTask       `json:"task"`
		Inputs []execArtifact `json:"inputs"`
	}
	execTask struct {
		IdempotencyKey string          `json:"idempotency_key"`
		Run            string          `json:"run"`
		Step           string          `json:"step"`
		Attempt        int             `json:"attempt"`
		Purpose        string          `json:"purpose"`
		Parameters     json.RawMessage `json:"parameters,omitempty"`
	}
	execArtifact struct {
		Type      string  `json:"type"`
		Name      string  `json:"name,omitempty"`
		MediaType string  `json:"media_type,omitempty"`
		Text      *string `json:"text,omitempty"`
		Data      []byte  `json:"data,omitempty"`
	}
	execOutput struct {
		Outputs  []execArtifact `json:"outputs"`
		Headline string         `json:"headline,omitempty"`
	}
)

// replyShape is what an answer looks like, for errors.
const replyShape = `{"outputs": [{"type", "name", "media_type", "text" or "data"}], "headline"}`

// maxReply bounds what an exec or http agent may answer, in bytes of JSON.
const maxReply = 96 << 20

func encodeTask(t Task) ([]byte, error) {
	in := execInput{Task: execTask{t.IdempotencyKey, t.Run, t.Step, t.Attempt, t.Purpose, t.Parameters}, Inputs: []execArtifact{}}
	for _, a := range t.Inputs {
		x := execArtifact{Type: a.Type, Name: a.Name, MediaType: a.MediaType}
		if isText(a) {
			s := string(a.Data)
			x.Text = &s
		} else {
			x.Data = a.Data
		}
		in.Inputs = append(in.Inputs, x)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(in)
	return b.Bytes(), err
}

func isText(a Artifact) bool {
	return (strings.HasPrefix(a.MediaType, "text/") || strings.HasPrefix(a.MediaType, "application/json")) && utf8.Valid(a.Data)
}

// decodeReply reads an agent's answer strictly.
func decodeReply(s Spec, b []byte) (*Result, error) {
	if len(b) > maxReply {
		return nil, fail(s.Name, KindFlood, "answered with more than %d bytes", maxReply)
	}
	var out execOutput
	if err := decodeStrict(b, &out); err != nil {
		return nil, fail(s.Name, KindOutput, "its answer is not the JSON that the protocol asks for: %v; want %s", err, replyShape)
	}
	if out.Outputs == nil {
		return nil, fail(s.Name, KindOutput, "its answer has no outputs; an agent that makes none says []")
	}
	res := &Result{Headline: headline(out.Headline)}
	for i, x := range out.Outputs {
		if (x.Text != nil) == (x.Data != nil) {
			return nil, fail(s.Name, KindOutput, "outputs[%d] needs text or data, and not both", i)
		}
		a := Artifact{Type: x.Type, Name: x.Name, MediaType: x.MediaType, Data: x.Data}
		if x.Text != nil {
			a.Data = []byte(*x.Text)
			if a.MediaType == "" {
				a.MediaType = "text/plain; charset=utf-8"
			}
		}
		if a.MediaType == "" {
			a.MediaType = "application/octet-stream"
		}
		res.Outputs = append(res.Outputs, a)
	}
	if len(res.Outputs) > maxArtifacts {
		return nil, fail(s.Name, KindFlood, "answered with %d outputs; at most %d", len(res.Outputs), maxArtifacts)
	}
	return res, checkOutputs(s, res.Outputs)
}

var errNotStrict = fmt.Errorf("not one JSON value, or duplicate names, bad UTF-8, inexact numbers or nesting beyond %d", jcs.MaxDepth)

// decodeStrict refuses what has no canonical form (RFC 8785) and unknown fields. Its error quotes nothing of b.
func decodeStrict(b []byte, v any) error {
	canonical, err := jcs.Transform(b)
	if err != nil {
		return errNotStrict
	}
	d := json.NewDecoder(bytes.NewReader(canonical))
	d.DisallowUnknownFields()
	if d.Decode(v) != nil {
		return errors.New("a field is unknown or of another type")
	}
	return nil
}
