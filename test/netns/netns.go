// Package netns lays federations out for processes of their own: what runs is the product's binary, in network
// namespaces (packaging/e2e) or side by side on loopback (test/script).
//
// Its three nouns: a [Plan] of organisations with their addresses; the data directories that [Plan.Found] makes of it;
// the program in netns/found, which does that for shell scripts.
//
// It promises that a federation comes about through the functions that an operator's commands use, and through no
// others.
package netns

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"fednode/hsm"
	"fednode/node"
	"fednode/transport"
)

// An Org is one organisation of a plan.
type Org struct {
	ID      transport.OrgID
	Address string // host:port, UDP: where it listens and is reached
	Agents  string // YAML of node.yaml's agents section; default the builtin agents
	Pass    string // file with the passphrase of its keys; default none, the keys are unprotected
}

// A Plan is a federation to be. The first organisation founds and chairs it.
type Plan struct {
	Name string
	Dir  string // gets one data directory for each organisation, called by its id
	Orgs []Org
}

// DataDir returns the data directory of an organisation.
func (p Plan) DataDir(id transport.OrgID) string { return filepath.Join(p.Dir, string(id)) }

// Found makes the data directories, founds the federation and takes in the members one after the other. It returns
// the federation's id. No data directory is in use when it returns.
func (p Plan) Found(ctx context.Context) (id string, err error) {
	var sites []*node.Site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, o := range p.Orgs {
		pass := hsm.Unprotected()
		if o.Pass != "" {
			pass = hsm.PassphraseFile(o.Pass)
		}
		s, err := node.Create(p.DataDir(o.ID), node.Options{Org: o.ID, Listen: o.Address, Advertise: []string{o.Address}, Passphrase: pass,
			PassFile: o.Pass, Agents: o.Agents, Now: time.Now})
		if err != nil {
			return "", fmt.Errorf("%s: %w", o.ID, err)
		}
		sites = append(sites, s)
	}
	chair := sites[0]
	if err := chair.Found(ctx, p.Name); err != nil {
		return "", err
	}
	for i, s := range sites[1:] {
		if err := node.Admit(ctx, sites[:i+1], s); err != nil {
			return "", fmt.Errorf("%s: %w", s.Org(), err)
		}
	}
	return chair.FederationID(), nil
}
