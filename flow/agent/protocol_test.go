package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"fednode/store/jcs"
)

func TestEncodeTask(t *testing.T) {
	b, err := encodeTask(Task{IdempotencyKey: "k", Run: "r", Step: "s", Attempt: 2, Purpose: "p", Parameters: json.RawMessage(`{"a":1}`), Inputs: []Artifact{
		{Type: "document", Name: "a.txt", MediaType: "text/plain", Data: []byte("<é>")},
		{Type: "document", MediaType: "text/plain", Data: []byte{0xff}},
		{Type: "scan", MediaType: "application/pdf", Data: []byte{1, 2}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"task":{"idempotency_key":"k","run":"r","step":"s","attempt":2,"purpose":"p","parameters":{"a":1}},"inputs":[` +
		`{"type":"document","name":"a.txt","media_type":"text/plain","text":"<é>"},{"type":"document","media_type":"text/plain","data":"/w=="},` +
		`{"type":"scan","media_type":"application/pdf","data":"AQI="}]}` + "\n"
	if string(b) != want {
		t.Errorf("%s\nwant\n%s", b, want)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"plain é 日": "plain é 日", "a\x00\x1b[0m\tb\u202e\u2028": "a[0mb", "\xff\xfe": "", strings.Repeat("x", 11): strings.Repeat("x", 10) + "…"} {
		if got := printable(in, 10); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestLabel(t *testing.T) {
	for in, want := range map[string]string{"": "", "lease.pdf": "lease.pdf", "ü & ?#.pdf": "ü & ?#.pdf", "new\nline\x1b[31m.pdf": "new_line_[31m.pdf", "bad\xff.pdf": "bad_.pdf",
		strings.Repeat("ä", 200) + ".pdf": strings.Repeat("ä", 125) + ".pdf"} {
		if got := Label(in); got != want || !isLabel(got, maxName) {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestReplyTooLong(t *testing.T) {
	_, err := decodeReply(Spec{Name: "x"}, make([]byte, maxReply+1))
	wantKind(t, err, KindFlood)
}

func FuzzDecodeReply(f *testing.F) {
	for _, s := range []string{`{"outputs":[{"type":"answer","text":"x"}],"headline":"h"}`, `{"outputs":[{"type":"answer","data":"AAEC","name":"n","media_type":"a/b"}]}`,
		`{"outputs":[]}`, `null`, `{"outputs":[[[[]]]]}`, `{"outputs":[{"type":"other","text":""}]}`, `{"outputs":[],"outputs":[]}`, "\xff", `{"outputs":[]} x`} {
		f.Add([]byte(s))
	}
	spec := Spec{Name: "x", Outputs: []string{"answer"}}
	f.Fuzz(func(t *testing.T, in []byte) {
		res, err := decodeReply(spec, in)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !utf8.ValidString(e.Text) || len(e.Text) > 300 {
				t.Fatalf("%v is no agent's error of moderate length", err)
			}
			return
		}
		if len(res.Outputs) > maxArtifacts || utf8.RuneCountInString(res.Headline) > 81 || strings.ContainsAny(res.Headline, "\n\x1b") {
			t.Fatalf("%d outputs, headline %q", len(res.Outputs), res.Headline)
		}
		for _, o := range res.Outputs {
			if !slices.Contains(spec.Outputs, o.Type) || o.MediaType == "" || !utf8.ValidString(o.Name) {
				t.Fatalf("%+v", o)
			}
		}
	})
}

// FuzzChatReply: whatever a service answers, an llm agent gets one JSON value that fits its schema, or an error.
func FuzzChatReply(f *testing.F) {
	for _, s := range []string{`{"choices":[{"message":{"content":"{\"risk\":\"low\"}"},"finish_reason":"stop"}],"usage":{"total_tokens":12}}`,
		`{"choices":[{"message":{"content":"x"},"finish_reason":"length"}]}`, `{"choices":[]}`, `{"usage":{"total_tokens":-5}}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	s, err := newSet(map[string]Config{"m": llmConfig("http://127.0.0.1:1/v1")}, Env{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	a := s.agents["m"].(*llmAgent)
	f.Fuzz(func(t *testing.T, in []byte) {
		answer, used, err := a.parse(in)
		if used < 0 {
			t.Fatalf("%d tokens used", used)
		}
		if err != nil || a.check(answer) != nil {
			return
		}
		var v struct{ Risk string }
		if err := json.NewDecoder(bytes.NewReader([]byte(answer))).Decode(&v); err != nil || v.Risk == "" {
			t.Fatalf("%q passes: %v", answer, err)
		}
	})
}

// TestTheDocumentedProtocolIsTrue reads the examples of AGENTS.md: the first is what an agent gets, the second is an
// answer that is taken.
func TestTheDocumentedProtocolIsTrue(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "packaging", "doc", "AGENTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var examples [][]byte
	for _, part := range strings.Split(string(doc), "```json\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		examples = append(examples, []byte(text))
	}
	if len(examples) != 2 {
		t.Fatalf("%d examples; want what goes in and what comes out", len(examples))
	}
	in, err := encodeTask(Task{IdempotencyKey: "FEDERATION/org-a/run-5f1c/classify/1", Run: "run-5f1c", Step: "classify", Attempt: 1,
		Purpose: "document-classification", Inputs: []Artifact{
			{Type: "document", Name: "note.txt", MediaType: "text/plain; charset=utf-8", Data: []byte("Delivery note 17 …")},
			{Type: "document", Name: "scan.pdf", MediaType: "application/pdf", Data: []byte("%PDF-1.4\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err1 := jcs.Transform(in)
	want, err2 := jcs.Transform(examples[0])
	if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
		t.Errorf("an agent gets\n%s\nand AGENTS.md says\n%s (%v, %v)", got, want, err1, err2)
	}
	res, err := decodeReply(Spec{Name: "document-classifier", Outputs: []string{"classification"}}, examples[1])
	if err != nil || len(res.Outputs) != 1 || res.Headline != "delivery-note .90" {
		t.Errorf("the documented answer is not taken: %+v, %v", res, err)
	}
}
