package flow

import (
	"fmt"
	"slices"
	"strings"

	"fednode/flow/policy"
	"fednode/transport"
)

// A Review is what a definition would mean for one organisation, in words, before it signs.
type Review struct {
	Runs   []string `json:"runs"`   // steps with their agents
	Leaves []string `json:"leaves"` // what goes out, to whom, under which restrictions
	Enters []string `json:"enters"` // what comes in
	Kept   []string `json:"kept"`   // what is kept here, and for how long

	// Services are steps whose agents give data to a service outside their node: this organisation's own, and those
	// elsewhere that may give its restricted data away because its policy says so.
	Services []string `json:"services,omitempty"`
}

// Review says what an agreement would mean, or means, for this organisation under its policy as it is now.
func (e *Engine) Review(hash string) (Review, error) {
	a, err := e.Agreement(hash)
	if err != nil {
		return Review{}, err
	}
	r := a.Definition.review(e.c.Org)
	for _, s := range a.Definition.Workflow.Steps {
		if s.Organization != e.c.Org {
			if e.decide(callOut(a, s, nil)).Effect == policy.Allow {
				r.Services = append(r.Services, fmt.Sprintf("%s at %s may give restricted data of this organisation to a service (agent %s)", s.ID, s.Organization, s.Agent))
			}
		} else if ag, ok := e.c.Agents.Get(s.Agent); ok && slices.Contains([]string{"http", "llm"}, ag.Spec().Kind) {
			r.Services = append(r.Services, fmt.Sprintf("%s gives what it gets to a service (agent %s, %s)", s.ID, s.Agent, ag.Spec().Kind))
		}
	}
	return r, nil
}

// review says what the definition would mean for org.
func (d *Definition) review(org transport.OrgID) Review {
	var r Review
	for _, s := range d.Workflow.Steps {
		if s.Organization == org {
			r.Runs = append(r.Runs, fmt.Sprintf("%s with agent %s, within %v, for purpose %s", s.ID, s.Agent, s.timeout(), s.purpose()))
		}
	}
	for _, s := range d.Governance.DataSharing {
		under := ""
		if len(s.Restrictions) > 0 {
			under = " under " + strings.Join(s.Restrictions, ", ")
		}
		types := strings.Join(s.DataTypes, ", ")
		switch org {
		case s.From:
			r.Leaves = append(r.Leaves, fmt.Sprintf("%s to %s%s", types, s.To, under))
		case s.To:
			r.Enters = append(r.Enters, fmt.Sprintf("%s from %s%s", types, s.From, under))
			where := "sealed on disk"
			if strings.Contains(under, NoStorage) {
				where = "in memory until the run is closed"
			}
			r.Kept = append(r.Kept, types+" from "+string(s.From)+": "+where)
		}
	}
	log := "requests, replies and decisions in the ledger, without payloads"
	if p := d.Governance.Audit.RetentionPeriod; p > 0 {
		log += fmt.Sprintf("; for good, though %s is asked for: nothing is pruned yet", p)
	}
	r.Kept = append(r.Kept, log)
	return r
}
