package policy

import (
	"slices"
	"strings"
	"time"
)

func (a *Agreement) source() string {
	if len(a.Hash) > 12 {
		return "agreement:" + a.Hash[:12]
	}
	return "agreement:" + a.Hash
}

// decide is the agreement's say: it allows exactly what its participants signed.
func (a *Agreement) decide(r *Request, d *Decision, now time.Time) {
	if a == nil || r.Action == ActionAccept || r.Action == ActionCallOut {
		return
	}
	switch {
	case a.Withdrawn:
		d.say(a.source(), "", Deny, "the agreement was withdrawn")
		return
	case !a.InForce:
		d.say(a.source(), "", Deny, "the agreement is not in force: not everybody has signed")
		return
	case !a.Expires.IsZero() && now.After(a.Expires):
		d.say(a.source(), "", Deny, "the agreement expired on "+a.Expires.UTC().Format(time.DateOnly))
		return
	}
	switch r.Action {
	case ActionStart:
		if r.Subject != a.Initiator {
			d.say(a.source(), "", Deny, "runs are started by its initiator, "+a.Initiator)
			return
		}
		d.say(a.source(), "initiator", Allow, "the initiator starts runs")
	case ActionExecute:
		a.execute(r, d)
	case ActionShare:
		a.share(r, d)
	}
}

func (a *Agreement) execute(r *Request, d *Decision) {
	if r.Subject != a.Initiator {
		d.say(a.source(), "", Deny, "steps are asked for by its initiator, "+a.Initiator)
		return
	}
	for _, s := range a.Steps {
		if s.Organization == r.Recipient && s.Agent == r.Resource {
			d.say(a.source(), s.ID, Allow, "the agreement gives "+r.Recipient+" this step")
			return
		}
	}
	d.say(a.source(), "", Deny, "the agreement gives "+r.Recipient+" no step with agent "+r.Resource)
}

// share allows what data_sharing rules let pass, for every category of the request; restrictions become obligations.
func (a *Agreement) share(r *Request, d *Decision) {
	if len(r.Categories) == 0 {
		d.say(a.source(), "", Deny, "no data type named")
	}
	for _, c := range r.Categories {
		ruled := false
		for _, s := range a.Sharing {
			if s.From != r.Subject || s.To != r.Recipient || !slices.Contains(s.DataTypes, c) {
				continue
			}
			ruled = true
			for _, restriction := range s.Restrictions {
				name, value, _ := strings.Cut(restriction, ":")
				d.oblige(name, value, a.source())
			}
		}
		rule := r.Subject + " → " + r.Recipient + ": " + c
		if ruled {
			d.say(a.source(), rule, Allow, "a data_sharing rule lets it pass")
		} else {
			d.say(a.source(), rule, Deny, "no data_sharing rule")
		}
	}
}
