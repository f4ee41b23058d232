package flow

import (
	"fmt"
	"strings"

	"fednode/transport"
)

// A Review is what a definition would mean for one organisation, in words, before it signs.
type Review struct {
	Runs   []string `json:"runs"`   // steps with their agents
	Leaves []string `json:"leaves"` // what goes out, to whom, under which restrictions
	Enters []string `json:"enters"` // what comes in
	Kept   []string `json:"kept"`   // what is kept here, and for how long
}

// Review says what the definition would mean for org.
func (d *Definition) Review(org transport.OrgID) Review {
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
		log += ", for " + p.String()
	}
	r.Kept = append(r.Kept, log)
	return r
}
