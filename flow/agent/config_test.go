package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fednode/flow/agent/builtin"
)

func TestDefaultSet(t *testing.T) {
	s, _ := newTestSet(t, nil)
	want := map[string]string{"approval-agent": "approval", "document-classifier": "builtin", "document-reviewer": "builtin", "document-uploader": "builtin", "pii-detector": "builtin"}
	var names []string
	for _, spec := range s.Specs() {
		names = append(names, spec.Name)
		if want[spec.Name] != spec.Kind || len(spec.Inputs) == 0 || len(spec.Outputs) == 0 {
			t.Errorf("%+v", spec)
		}
	}
	if len(names) != len(want) || !slices.IsSorted(names) {
		t.Errorf("agents %v", names)
	}
	if _, ok := s.Approval("approval-agent"); !ok {
		t.Error("the approval agent has no configuration")
	}
	if _, ok := s.Approval("pii-detector"); ok {
		t.Error("a builtin is an approval")
	}
	if _, ok := s.Get("nobody"); ok {
		t.Error("an agent that nobody configured")
	}
	_, err := get(t, s, "approval-agent").Run(t.Context(), Task{})
	wantKind(t, err, KindRefused)
}

func TestConfiguredAgentReplacesDefault(t *testing.T) {
	c := shell(answerOf + "x")
	c.Optional = []string{"pii-findings"}
	s, _ := newTestSet(t, map[string]Config{"pii-detector": c, "approval-agent": {Kind: "approval", Automatic: "true", Inputs: []string{"document"}}})
	got := get(t, s, "pii-detector").Spec()
	if want := (Spec{"pii-detector", "exec", []string{"document"}, []string{"pii-findings"}, []string{"answer"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if a, _ := s.Approval("approval-agent"); a.Automatic != "true" {
		t.Errorf("%+v", a)
	}
}

func TestClassifierModelFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.model")
	config := map[string]Config{"mine": {Kind: "builtin", Builtin: builtin.Classifier, Model: "own.model"}}
	for _, c := range []struct {
		content []byte
		says    string
	}{{nil, "no such file"}, {make([]byte, maxModel+1), "at most"}, {[]byte("no model"), "own.model: unfit classifier model; train it again"}} {
		if c.content != nil {
			if err := os.WriteFile(file, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := NewSet(config, Env{Dir: dir}); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "agents.mine: model") {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	with := func(c Config, change func(*Config)) Config { change(&c); return c }
	llm, web, sh := llmConfig("http://127.0.0.1/v1"), httpConfig("http://127.0.0.1/"), shell("true")
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for says, c := range map[string]Config{
		"kind":                              {},
		"builtin is missing":                {Kind: "builtin"},
		"is not known; there are":           {Kind: "builtin", Builtin: "oracle"},
		"model is for the builtin":          {Kind: "builtin", Builtin: builtin.Loader, Model: "m"},
		"outputs is for agents":             {Kind: "builtin", Builtin: builtin.Loader, Outputs: []string{"x"}},
		"outputs is missing":                {Kind: "exec", Command: []string{"/bin/sh"}},
		"command: name the program":         {Kind: "exec", Command: []string{"sh"}, Outputs: []string{"x"}},
		"no such file":                      {Kind: "exec", Command: []string{"/no/such/program"}, Outputs: []string{"x"}},
		"is not executable":                 {Kind: "exec", Command: []string{file}, Outputs: []string{"x"}},
		"is not absolute":                   with(sh, func(c *Config) { c.Paths = []string{"rel"} }),
		"paths: stat /no/such/path":         with(sh, func(c *Config) { c.Paths = []string{"/no/such/path"} }),
		"are not negative":                  with(sh, func(c *Config) { c.Memory = -1 }),
		"url is for agents of":              with(sh, func(c *Config) { c.URL = "http://x/" }),
		"command is for agents":             with(web, func(c *Config) { c.Command = []string{"/bin/sh"} }),
		"without credentials":               with(web, func(c *Config) { c.URL = "http://user:pass@host/" }),
		`url "ftp://host/"`:                 with(web, func(c *Config) { c.URL = "ftp://host/" }),
		"prompt is for agents":              with(web, func(c *Config) { c.Prompt = "x" }),
		"needs model, prompt":               with(llm, func(c *Config) { c.Prompt = "" }),
		"makes one output":                  with(llm, func(c *Config) { c.Outputs = []string{"a", "b"} }),
		"not both":                          with(llm, func(c *Config) { c.APIKey = Secret{"f", "e"} }),
		"the environment has no":            with(llm, func(c *Config) { c.APIKey = Secret{Env: "FEDNODE_NOT_SET"} }),
		"prompt: template":                  with(llm, func(c *Config) { c.Prompt = "{{" }),
		"schema: ":                          with(llm, func(c *Config) { c.Schema = map[string]any{"type": "nonsense"} }),
		"no URLLoader":                      with(llm, func(c *Config) { c.Schema = map[string]any{"$ref": "file:///etc/passwd"} }),
		"timeout is for agents of kind bui": {Kind: "approval", Timeout: 1},
	} {
		s, err := newSet(map[string]Config{"mine": c}, Env{Dir: t.TempDir()})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "agents.mine: ") {
			t.Errorf("%v, want %q", err, says)
		}
	}
}
