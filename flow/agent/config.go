package agent

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fednode/flow/agent/builtin"
	"fednode/store/strictyaml"
)

// A Config is one entry of node.yaml's agents. Which fields it may have depends on its kind.
type Config struct {
	Kind     string              `yaml:"kind" required:"true" oneof:"builtin,exec,http,llm,approval"`
	Inputs   []string            `yaml:"inputs"`   // data types it needs; builtins declare their own
	Optional []string            `yaml:"optional"` // data types it uses when it gets them
	Outputs  []string            `yaml:"outputs"`  // data types it makes
	Timeout  strictyaml.Duration `yaml:"timeout"`  // of one task; default the step's

	Builtin string `yaml:"builtin"` // loader, classifier, pii-detector or reviewer
	Model   string `yaml:"model"`   // builtin classifier: a file that fednode agents train wrote; llm: the model's name

	Command []string        `yaml:"command"` // exec: program, absolute, and its arguments
	Paths   []string        `yaml:"paths"`   // exec: further files and folders that it may read and execute
	Memory  strictyaml.Size `yaml:"memory"`  // exec: address space; default 2GB, each process

	URL string `yaml:"url"` // http: endpoint that takes and gives the exec protocol's JSON; llm: base of the API, with /v1

	Prompt    string         `yaml:"prompt"`     // llm: text/template over .Purpose and .Inputs (by data type), each with .Name and .Text
	Schema    map[string]any `yaml:"schema"`     // llm: JSON schema of the answer
	MaxTokens int            `yaml:"max_tokens"` // llm: of one task, prompt and answers together; default 8192
	APIKey    Secret         `yaml:"api_key"`    // llm

	Automatic string              `yaml:"automatic"` // approval: rule that approves without a human
	Expires   strictyaml.Duration `yaml:"expires"`   // approval: how long a human has; default the step's timeout
}

// A Secret names where a secret is read.
type Secret struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// An ApprovalConfig is what the flow engine needs of an agent of kind approval.
type ApprovalConfig struct {
	Automatic string
	Expires   time.Duration
}

// DefaultConfigs maps the agent names of the reference workflow to what comes with fednode.
func DefaultConfigs() map[string]Config {
	return map[string]Config{
		"document-uploader":   {Kind: "builtin", Builtin: "loader"},
		"document-classifier": {Kind: "builtin", Builtin: "classifier"},
		"pii-detector":        {Kind: "builtin", Builtin: "pii-detector"},
		"document-reviewer":   {Kind: "builtin", Builtin: "reviewer"},
		"approval-agent":      {Kind: "approval"},
	}
}

func configError(name, format string, a ...any) error {
	return fmt.Errorf("agents.%s: %w", name, fmt.Errorf(format, a...))
}

// Validate checks a configuration without touching what it names.
func (c Config) Validate(name string) error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, configError(name, format, a...)) }
	fields := []struct {
		name  string
		given bool
		kinds []string
	}{
		{"builtin", c.Builtin != "", []string{"builtin"}}, {"model", c.Model != "", []string{"builtin", "llm"}},
		{"command", c.Command != nil, []string{"exec"}}, {"paths", c.Paths != nil, []string{"exec"}}, {"memory", c.Memory != 0, []string{"exec"}},
		{"url", c.URL != "", []string{"http", "llm"}}, {"prompt", c.Prompt != "", []string{"llm"}}, {"schema", c.Schema != nil, []string{"llm"}},
		{"max_tokens", c.MaxTokens != 0, []string{"llm"}}, {"api_key", c.APIKey != Secret{}, []string{"llm"}},
		{"automatic", c.Automatic != "", []string{"approval"}}, {"expires", c.Expires != 0, []string{"approval"}},
		{"inputs", c.Inputs != nil, []string{"exec", "http", "llm", "approval"}}, {"optional", c.Optional != nil, []string{"exec", "http", "llm", "approval"}},
		{"timeout", c.Timeout != 0, []string{"builtin", "exec", "http", "llm"}},
		{"outputs", c.Outputs != nil, []string{"exec", "http", "llm"}},
	}
	for _, f := range fields {
		if f.given && !slices.Contains(f.kinds, c.Kind) {
			bad("%s is for agents of kind %s, not %s", f.name, strings.Join(f.kinds, " or "), c.Kind)
		}
	}
	if needs := []string{"exec", "http", "llm"}; slices.Contains(needs, c.Kind) && len(c.Outputs) == 0 {
		bad("outputs is missing: name the data types that the agent makes")
	}
	if c.Timeout < 0 || c.Expires < 0 || c.Memory < 0 || c.MaxTokens < 0 {
		bad("timeout, expires, memory and max_tokens are not negative")
	}
	switch c.Kind {
	case "builtin":
		if c.Model != "" && c.Builtin != builtin.Classifier {
			bad("model is for the builtin %s, not %s", builtin.Classifier, c.Builtin)
		}
		if c.Builtin == "" {
			bad("builtin is missing: name which")
		}
	case "exec":
		if len(c.Command) == 0 || !filepath.IsAbs(c.Command[0]) {
			bad("command: name the program with its absolute path, then its arguments")
		}
		for _, p := range c.Paths {
			if !filepath.IsAbs(p) {
				bad("paths: %s is not absolute", p)
			}
		}
	case "http", "llm":
		if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			bad("url %q: want http://host:port/path or https://…, without credentials", c.URL)
		}
	case "approval":
	default:
		bad("kind %q is not known; there are builtin, exec, http, llm and approval", c.Kind)
	}
	if c.Kind == "llm" {
		if c.Model == "" || c.Prompt == "" || c.Schema == nil {
			bad("an llm needs model, prompt and schema")
		}
		if len(c.Outputs) != 1 {
			bad("an llm makes one output")
		}
		if c.APIKey.File != "" && c.APIKey.Env != "" {
			bad("api_key: name a file or a variable, not both")
		}
	}
	return errors.Join(errs...)
}
