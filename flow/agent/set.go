package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fednode/flow/agent/builtin"
)

// Env is what agents are made in. Dir is the folder that relative file names of the configuration begin from, and
// where the scratch folders of exec agents are.
type Env struct {
	Dir    string
	Logger *slog.Logger
}

func (e Env) scratch() string { return filepath.Join(e.Dir, "scratch") }

// A Set is a node's agents by name.
type Set struct {
	agents    map[string]Agent
	approvals map[string]ApprovalConfig
	pool      *pool
}

// NewSet makes the agents that configs describe, on top of the default ones: a name in both is the configuration's.
func NewSet(configs map[string]Config, env Env) (*Set, error) {
	s, err := newSet(configs, env)
	if err == nil {
		s.pool.ready()
	}
	return s, err
}

// newSet makes a set whose workers start when they are first needed.
func newSet(configs map[string]Config, env Env) (*Set, error) {
	var err error
	all := DefaultConfigs()
	maps.Copy(all, configs)
	if env.Dir, err = filepath.Abs(env.Dir); err != nil { // scratch folders are named to processes that run elsewhere
		return nil, fmt.Errorf("agents: %w", err)
	}
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	if err := discard(env.scratch()); err != nil { // what a node that was killed left behind
		return nil, fmt.Errorf("agents: scratch folder: %w", err)
	}
	s := &Set{agents: map[string]Agent{}, approvals: map[string]ApprovalConfig{}, pool: newPool()}
	for name, c := range all {
		if err := c.Validate(name); err != nil {
			return nil, err
		}
		a, err := s.make(name, c, env)
		if err != nil {
			return nil, err
		}
		if c.Timeout > 0 {
			a = hurried{a, time.Duration(c.Timeout)}
		}
		s.agents[name] = a
	}
	return s, nil
}

func (s *Set) make(name string, c Config, env Env) (Agent, error) {
	switch c.Kind {
	case "builtin":
		var model []byte
		if c.Model != "" {
			file := c.Model
			if !filepath.IsAbs(file) {
				file = filepath.Join(env.Dir, file)
			}
			var err error
			if model, err = os.ReadFile(file); err != nil {
				return nil, configError(name, "model: %w", err)
			}
			if len(model) > maxModel {
				return nil, configError(name, "model: %s has %d bytes; at most %d", file, len(model), maxModel)
			}
			if err := builtin.CheckModel(model); err != nil {
				return nil, configError(name, "model: %s: %w", file, err)
			}
		}
		return newBuiltin(name, c, model, s.pool)
	case "exec":
		return newExec(name, c, env.scratch(), env.Logger, s.pool)
	case "http":
		return newHTTP(name, c, env.Logger)
	case "llm":
		return newLLM(name, c, s, env)
	}
	s.approvals[name] = ApprovalConfig{Automatic: c.Automatic, Expires: time.Duration(c.Expires)}
	inputs := c.Inputs
	if inputs == nil {
		inputs = []string{"review-result"}
	}
	return approval{Spec{name, "approval", inputs, c.Optional, []string{"approval"}}}, nil
}

// Get returns an agent.
func (s *Set) Get(name string) (Agent, bool) {
	a, ok := s.agents[name]
	return a, ok
}

// Approval returns the configuration of an agent of kind approval, which the flow engine serves itself.
func (s *Set) Approval(name string) (ApprovalConfig, bool) {
	c, ok := s.approvals[name]
	return c, ok
}

// Specs returns what the agents take and give, by name.
func (s *Set) Specs() []Spec {
	out := []Spec{}
	for _, name := range slices.Sorted(maps.Keys(s.agents)) {
		out = append(out, s.agents[name].Spec())
	}
	return out
}

// ExtractText returns the text of a document, read in a fresh worker: the caller knows its restrictions, this does not.
func (s *Set) ExtractText(ctx context.Context, a Artifact) ([]byte, error) {
	return s.extract(ctx, a, Task{NoExtraction: true})
}

func (s *Set) extract(ctx context.Context, a Artifact, t Task) ([]byte, error) {
	m := &message{Agent: opText}
	m.add(a)
	out, err := s.pool.do(ctx, opText, t, m)
	if err != nil {
		return nil, err
	}
	if len(out.data) != 1 {
		return nil, fail(opText, KindOutput, "no text came back")
	}
	return out.data[0], nil
}

// Close ends all workers and programs, also those at work, whose tasks fail, and lets none start.
func (s *Set) Close() error {
	s.pool.close()
	for _, a := range s.agents {
		if h, ok := a.(hurried); ok {
			a = h.Agent
		}
		if c, ok := a.(interface{ closeIdle() }); ok {
			c.closeIdle()
		}
	}
	return nil
}

// approval stands for a human in a Set; the flow engine never runs it.
type approval struct{ spec Spec }

func (a approval) Spec() Spec { return a.spec }

func (a approval) Run(context.Context, Task) (*Result, error) {
	return nil, fail(a.spec.Name, KindRefused, "approvals are given by people and by the flow engine's rule")
}

// hurried is an agent with a time limit of its own.
type hurried struct {
	Agent
	limit time.Duration
}

func (h hurried) Run(ctx context.Context, t Task) (*Result, error) {
	limited, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	res, err := h.Agent.Run(limited, t)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, fail(h.Spec().Name, KindTimeout, "did not finish within its own timeout of %v", h.limit)
	}
	return res, err
}

// A secret is a value that no log or error prints.
type secret string

func (secret) String() string       { return "[secret]" }
func (secret) GoString() string     { return "[secret]" }
func (secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// readSecret returns a configured secret, or "" if none is.
func readSecret(s Secret, dir string) (secret, error) {
	switch {
	case s.File != "":
		if !filepath.IsAbs(s.File) {
			s.File = filepath.Join(dir, s.File)
		}
		b, err := os.ReadFile(s.File)
		if err != nil {
			return "", err
		}
		for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
			b = b[:len(b)-1]
		}
		return secret(b), nil
	case s.Env != "":
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("the environment has no %s", s.Env)
		}
		return secret(v), nil
	}
	return "", nil
}
