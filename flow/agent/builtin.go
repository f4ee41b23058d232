package agent

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"fednode/flow/agent/builtin"
)

// builtinAgent runs one of package builtin's agents in a worker.
type builtinAgent struct {
	spec  Spec
	name  string // of the builtin
	model []byte
	pool  *pool
}

func newBuiltin(name string, c Config, model []byte, p *pool) (Agent, error) {
	specs := builtin.Specs()
	s, ok := specs[c.Builtin]
	if !ok {
		var known []string
		for n := range specs {
			known = append(known, n)
		}
		slices.Sort(known)
		return nil, configError(name, "builtin %q is not known; there are %s", c.Builtin, strings.Join(known, ", "))
	}
	return &builtinAgent{Spec{name, "builtin", s.Inputs, s.Optional, s.Outputs}, c.Builtin, model, p}, nil
}

func (a *builtinAgent) Spec() Spec { return a.spec }

func (a *builtinAgent) Run(ctx context.Context, t Task) (*Result, error) {
	m := &message{Agent: a.name, Input: taskHeader{Purpose: t.Purpose, Parameters: t.Parameters, NoStorage: t.NoStorage, NoExtraction: t.NoExtraction, Model: a.model}}
	for _, in := range t.Inputs {
		m.add(in)
	}
	out, err := a.pool.do(ctx, a.spec.Name, t, m)
	if err != nil {
		return nil, err
	}
	res := &Result{Outputs: out.artifacts(), Headline: headline(out.Headline)}
	return res, checkOutputs(a.spec, res.Outputs)
}

// headline keeps the first line of s, and not much of it.
func headline(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return printable(s, 80)
}

// printable keeps what a terminal shows of s, at most n characters: workers and agents are not trusted to write to one.
func printable(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			continue
		}
		if n--; n < 0 {
			b.WriteString("…")
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
