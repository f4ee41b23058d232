package policy

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"fednode/store/strictyaml"
)

//go:embed default.yaml
var defaultYAML []byte

// DefaultYAML returns the policy.yaml that a new node gets.
func DefaultYAML() []byte { return slices.Clone(defaultYAML) }

// Limits of conditions, so that a mistake in one cannot keep decisions waiting: bytes and nodes of one, predicates within
// each other, and memory units that evaluating it may take.
const (
	maxRules      = 1000
	maxCondition  = 8 << 10 // the parser recurses at every bracket
	maxNodes      = 500
	maxPredicates = 2 // each level multiplies the cost by the length of a list
	maxMemory     = 10_000
)

// A LocalPolicy is the node's own policy.yaml.
type LocalPolicy struct {
	Version int         `yaml:"version" required:"true"`
	Default string      `yaml:"default" required:"true" oneof:"deny"`
	Rules   []LocalRule `yaml:"rules" required:"true"`

	byAction map[string][]*LocalRule // rules whose condition begins with action == "…"
	others   []*LocalRule
	machines *sync.Pool
}

// A LocalRule allows or denies what its condition holds for.
type LocalRule struct {
	Name        string   `yaml:"name" required:"true"`
	Description string   `yaml:"description"`
	Effect      Effect   `yaml:"effect" required:"true" oneof:"allow,deny"`
	When        string   `yaml:"when" required:"true"`
	Obligations []string `yaml:"obligations"` // name or name:value

	program *vm.Program
}

// facts are what a condition can speak of.
type facts struct {
	Action       string         `expr:"action"`
	Subject      string         `expr:"subject"`
	Resource     string         `expr:"resource"`
	Categories   []string       `expr:"categories"`
	Purpose      string         `expr:"purpose"`
	Recipient    string         `expr:"recipient"`
	Jurisdiction string         `expr:"jurisdiction"`
	Agreement    agreed         `expr:"agreement"`
	Context      map[string]any `expr:"context"`
	Now          time.Time      `expr:"now"`
}

// agreed is what a condition can know of the agreement.
type agreed struct {
	Hash         string   `expr:"hash"`
	Name         string   `expr:"name"`
	Version      string   `expr:"version"`
	Initiator    string   `expr:"initiator"`
	Participants []string `expr:"participants"`
	InForce      bool     `expr:"in_force"`
}

var ruleNameRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`) })

// ParseLocal reads a policy.yaml and compiles its conditions; file is its name for errors.
func ParseLocal(file string, data []byte) (*LocalPolicy, error) {
	p := &LocalPolicy{byAction: map[string][]*LocalRule{}, machines: newMachines()}
	if err := strictyaml.Decode(file, data, p); err != nil {
		return nil, err
	}
	if p.Version != 1 {
		return nil, fmt.Errorf("%s: version %d; this fednode knows 1", file, p.Version)
	}
	if len(p.Rules) > maxRules {
		return nil, fmt.Errorf("%s: %d rules; at most %d", file, len(p.Rules), maxRules)
	}
	seen := map[string]bool{}
	for i := range p.Rules {
		r := &p.Rules[i]
		if !ruleNameRE().MatchString(r.Name) || seen[r.Name] {
			return nil, fmt.Errorf("%s: rules[%d]: name %q is not of letters, digits and ._-, or appears twice", file, i, r.Name)
		}
		seen[r.Name] = true
		action, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("%s: rules[%d] %s: when: %w", file, i, r.Name, err)
		}
		if action == "" {
			p.others = append(p.others, r)
		} else {
			p.byAction[action] = append(p.byAction[action], r)
		}
	}
	byName := func(a, b *LocalRule) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(p.others, byName)
	for _, rules := range p.byAction {
		slices.SortFunc(rules, byName)
	}
	return p, nil
}

func newMachines() *sync.Pool {
	return &sync.Pool{New: func() any { return &vm.VM{MemoryBudget: maxMemory} }}
}

// compile compiles the condition and returns the action that it is certain to ask for, if any.
func (r *LocalRule) compile() (action string, err error) {
	if len(r.When) > maxCondition {
		return "", fmt.Errorf("%d bytes; at most %d, make several rules of it", len(r.When), maxCondition)
	}
	r.program, err = expr.Compile(r.When, expr.Env(facts{}), expr.AsBool(), expr.MaxNodes(maxNodes))
	if err != nil {
		return "", err
	}
	if n := loops(r.program); n > maxPredicates {
		return "", fmt.Errorf("predicates stand within each other %d deep; at most %d", n, maxPredicates)
	}
	action = soughtAction(r.program.Node())
	if action != "" && !slices.Contains(actions, action) {
		return "", fmt.Errorf("action %q is not one of %s", action, strings.Join(actions, ", "))
	}
	return action, nil
}

// loops returns how deep a program's loops, one for each predicate, stand within each other.
func loops(p *vm.Program) (deepest int) {
	depth := 0
	for _, op := range p.Bytecode {
		switch op {
		case vm.OpBegin:
			depth++
			deepest = max(deepest, depth)
		case vm.OpEnd:
			depth--
		}
	}
	return deepest
}

// soughtAction finds action == "…" among the terms that a condition joins with and.
func soughtAction(n ast.Node) string {
	b, ok := n.(*ast.BinaryNode)
	if !ok {
		return ""
	}
	switch b.Operator {
	case "&&", "and":
		if a := soughtAction(b.Left); a != "" {
			return a
		}
		return soughtAction(b.Right)
	case "==":
		id, isID := b.Left.(*ast.IdentifierNode)
		s, isString := b.Right.(*ast.StringNode)
		if isID && isString && id.Value == "action" {
			return s.Value
		}
	}
	return ""
}

const localSource = "policy.yaml"

// decide evaluates the rules that can concern the action. A condition that fails denies: nobody can say what it would
// have said.
func (p *LocalPolicy) decide(r *Request, d *Decision, now time.Time) {
	if p == nil {
		return
	}
	rules := p.byAction[r.Action]
	if len(rules)+len(p.others) == 0 {
		return
	}
	f := facts{Action: r.Action, Subject: r.Subject, Resource: r.Resource, Categories: r.Categories, Purpose: r.Purpose,
		Recipient: r.Recipient, Jurisdiction: r.Jurisdiction, Context: r.Context, Now: now}
	if a := r.Agreement; a != nil {
		f.Agreement = agreed{a.Hash, a.Name, a.Version, a.Initiator, a.Participants, a.InForce}
	}
	m := p.machines.Get().(*vm.VM)
	defer p.machines.Put(m)
	for _, group := range [2][]*LocalRule{rules, p.others} {
		for _, rule := range group {
			out, err := m.Run(rule.program, f)
			matched, _ := out.(bool)
			switch {
			case err != nil:
				d.say(localSource, rule.Name, Deny, "its condition failed: "+firstLine(err.Error()))
			case matched:
				text := rule.Description
				if text == "" {
					text = "its condition holds"
				}
				d.say(localSource, rule.Name, rule.Effect, text)
				for _, o := range rule.Obligations {
					name, value, _ := strings.Cut(o, ":")
					d.oblige(name, value, localSource)
				}
			}
		}
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
