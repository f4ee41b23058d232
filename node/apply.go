package node

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"fednode/flow"
	"fednode/flow/policy"
	"fednode/hsm/durable"
	"fednode/node/config"
	"fednode/transport"
)

// compilePolicy reads policy.yaml and the governance policies in force.
func (s *Site) compilePolicy() (*policy.Engine, error) {
	path := filepath.Join(s.Dir, policyName)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; restore it, or begin anew with the lines version: 1 and default: deny", err)
	} else if err != nil {
		return nil, err
	}
	return s.compile(path, data, nil)
}

// compile builds the decision point from a local policy, called name in errors, and the governance policies on disk, or
// with extra in place of the one of the same id.
func (s *Site) compile(name string, local []byte, extra *policy.GovernancePolicy) (*policy.Engine, error) {
	src := policy.Sources{Now: s.now}
	var err error
	if src.Local, err = policy.ParseLocal(name, local); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(s.Dir, policyDir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		g, err := policy.ParseGovernance(f, data)
		if err != nil {
			return nil, err
		}
		if extra == nil || g.PolicyID != extra.PolicyID {
			src.Governance = append(src.Governance, g)
		}
	}
	if extra != nil {
		src.Governance = append(src.Governance, extra)
	}
	return policy.Compile(src)
}

// Applied says what came of a file.
type Applied struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Apply puts a configuration file into force, whole or not at all. The error names every field that cannot be honoured.
func (n *Node) Apply(ctx context.Context, user flow.User, name string, data []byte) (*Applied, error) {
	report, err := config.Check(name, data, n.env())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	if err := report.Appliable(); err != nil {
		return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	switch report.Kind {
	case config.KindWorkflow:
		d, err := flow.ParseDefinition(name, data)
		if err != nil {
			return nil, err
		}
		a, err := n.Engine.Submit(ctx, user, d)
		if a == nil {
			return nil, err
		}
		signed, of := a.Signed()
		return &Applied{string(report.Kind), fmt.Sprintf("agreement %s %s, signed %d/%d", a.Hash[:12], a.State, signed, of)}, nil
	case config.KindPolicy:
		return n.applyGovernance(ctx, user, name, data)
	case config.KindNodeRules:
		return n.applyLocal(ctx, user, name, data)
	case config.KindNode:
		return nil, fmt.Errorf("%w: %s is read when the node starts; write it to %s and restart the node", flow.ErrMisuse, name, filepath.Join(n.site.Dir, ConfigName))
	}
	return nil, fmt.Errorf("%w: %s: a %s file has no field that this version puts into force", flow.ErrMisuse, name, report.Kind)
}

func (n *Node) env() config.Env {
	return config.Env{Now: n.site.now, Member: func(id config.OrgID) (config.Member, bool) {
		m, ok := n.site.members.Current().Get(transport.OrgID(id))
		if !ok {
			return config.Member{}, false
		}
		return config.Member{Endpoints: m.Endpoints, Roots: m.Roots}, true
	}}
}

func (n *Node) applyLocal(ctx context.Context, user flow.User, name string, data []byte) (*Applied, error) {
	engine, err := n.site.compile(name, data, nil)
	if err != nil {
		return nil, err
	}
	if err := durable.Replace(filepath.Join(n.site.Dir, policyName), data, 0o600); err != nil {
		return nil, err
	}
	n.Engine.SetPolicy(engine)
	return &Applied{"policy", "in force"}, n.Engine.RecordApply(ctx, user, "policy.yaml", data)
}

func (n *Node) applyGovernance(ctx context.Context, user flow.User, name string, data []byte) (*Applied, error) {
	g, err := policy.ParseGovernance(name, data)
	if err != nil {
		return nil, err
	}
	local, err := os.ReadFile(filepath.Join(n.site.Dir, policyName))
	if err != nil {
		return nil, err
	}
	engine, err := n.site.compile(policyName, local, g)
	if err != nil {
		return nil, err
	}
	file := url.PathEscape(g.PolicyID) // no two ids share a file
	if err := durable.Replace(filepath.Join(n.site.Dir, policyDir, file+".yaml"), data, 0o600); err != nil {
		return nil, err
	}
	n.Engine.SetPolicy(engine)
	return &Applied{"governance-policy", g.PolicyID + " " + g.Version + " in force"}, n.Engine.RecordApply(ctx, user, "governance-policy:"+g.PolicyID, data)
}
