package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"fednode/store/strictyaml"
)

// A GovernancePolicy is the federation's terms for categories of data, in the schema of governance-policy.yaml. It only
// ever restricts: within its terms, an agreement or a local rule still has to allow.
type GovernancePolicy struct {
	PolicyID       string           `yaml:"policy_id" required:"true"`
	Version        string           `yaml:"version" required:"true"`
	EffectiveDate  string           `yaml:"effective_date" required:"true"`  // 2025-01-01, from its first moment, UTC
	ExpirationDate string           `yaml:"expiration_date" required:"true"` // from its first moment on expired, UTC
	DataCategories []DataCategory   `yaml:"data_categories" required:"true"`
	Rules          []GovernanceRule `yaml:"rules" required:"true"`
	Enforcement    Enforcement      `yaml:"enforcement" required:"true"`

	effective, expiration time.Time
}

// A DataCategory is a kind of data with the sensitivity that it has.
type DataCategory struct {
	Name        string   `yaml:"name" required:"true"`
	Description string   `yaml:"description"`
	Examples    []string `yaml:"examples"`
	Sensitivity string   `yaml:"sensitivity" oneof:"low,medium,high,critical"`
}

// A GovernanceRule is the terms of one category.
type GovernanceRule struct {
	Name                string              `yaml:"name" required:"true"`
	Description         string              `yaml:"description"`
	DataCategory        string              `yaml:"data_category" required:"true"`
	AllowedPurposes     []string            `yaml:"allowed_purposes" required:"true"`
	ProhibitedPurposes  []string            `yaml:"prohibited_purposes"`
	RetentionPeriod     strictyaml.Duration `yaml:"retention_period"`
	RequiresConsent     bool                `yaml:"requires_consent"`
	AllowedRecipients   []string            `yaml:"allowed_recipients" required:"true"`
	CrossBorderTransfer bool                `yaml:"cross_border_transfer"`
}

// Enforcement is how the policy is held up.
type Enforcement struct {
	Mechanism         string `yaml:"mechanism" oneof:"technical,organizational,technical-and-organizational"`
	Verification      string `yaml:"verification" oneof:"automated,manual,automated-and-manual"`
	AuditFrequency    string `yaml:"audit_frequency" oneof:"daily,weekly,monthly,quarterly,yearly"`
	ViolationHandling string `yaml:"violation_handling" oneof:"block,report,block-and-report"`
}

// ParseGovernance reads a governance policy; file is its name for errors.
func ParseGovernance(file string, data []byte) (*GovernancePolicy, error) {
	g := new(GovernancePolicy)
	if err := strictyaml.Decode(file, data, g); err != nil {
		return nil, err
	}
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(file+": "+format, a...)) }
	var err error
	if g.effective, err = time.Parse(time.DateOnly, g.EffectiveDate); err != nil {
		bad("effective_date %q: write it as 2025-01-31", g.EffectiveDate)
	}
	if g.expiration, err = time.Parse(time.DateOnly, g.ExpirationDate); err != nil {
		bad("expiration_date %q: write it as 2025-01-31", g.ExpirationDate)
	}
	if errs == nil && !g.effective.Before(g.expiration) {
		bad("expires on %s, before it takes effect on %s", g.ExpirationDate, g.EffectiveDate)
	}
	if g.PolicyID == "" {
		bad("policy_id is empty")
	}
	known := map[string]bool{}
	for i, c := range g.DataCategories {
		if c.Name == "" || known[c.Name] {
			bad("data_categories[%d]: name %q is empty or appears twice", i, c.Name)
		}
		known[c.Name] = true
	}
	for i, r := range g.Rules {
		if !known[r.DataCategory] {
			bad("rules[%d] %s: data_category %q is not among data_categories", i, r.Name, r.DataCategory)
		}
		for _, p := range r.ProhibitedPurposes {
			if slices.Contains(r.AllowedPurposes, p) {
				bad("rules[%d] %s: purpose %q is both allowed and prohibited", i, r.Name, p)
			}
		}
	}
	return g, errors.Join(errs...)
}

// decide is the policy's say about the categories that it has rules for.
func (g *GovernancePolicy) decide(r *Request, d *Decision, now time.Time) {
	source := "governance:" + g.PolicyID
	for i := range g.Rules {
		rule := &g.Rules[i]
		if !slices.Contains(r.Categories, rule.DataCategory) {
			continue
		}
		switch {
		case !now.Before(g.expiration):
			d.say(source, rule.Name, Deny, "the policy expired on "+g.ExpirationDate+"; put a renewed one into force with fednode apply")
			continue
		case now.Before(g.effective):
			d.say(source, rule.Name, Deny, "the policy takes effect on "+g.EffectiveDate)
			continue
		}
		if text := rule.objection(r); text != "" {
			d.say(source, rule.Name, Deny, text)
			continue
		}
		d.say(source, rule.Name, Permit, "within its terms")
		if rule.RetentionPeriod > 0 {
			d.oblige("retention_period", rule.RetentionPeriod.String(), source)
		}
	}
}

// objection returns why the rule's terms are not met, or "".
func (g *GovernanceRule) objection(r *Request) string {
	switch {
	case slices.Contains(g.ProhibitedPurposes, r.Purpose):
		return "purpose " + r.Purpose + " is prohibited"
	case !slices.Contains(g.AllowedPurposes, r.Purpose):
		return "purpose " + orNone(r.Purpose) + " is not among the allowed"
	case r.Recipient != "" && !slices.Contains(g.AllowedRecipients, r.Recipient):
		return r.Recipient + " is not among the allowed recipients"
	case g.RequiresConsent && r.Context["consent"] != true:
		return "consent is required, and the request does not say that it was given"
	case g.CrossBorderTransfer || r.Recipient == "" || r.Recipient == r.Subject:
		return ""
	}
	owner, _ := r.Context["owner_jurisdiction"].(string)
	switch {
	case owner == "" || r.Jurisdiction == "":
		return "cross-border transfer is excluded, and owner's or recipient's jurisdiction is unknown"
	case owner != r.Jurisdiction:
		return "cross-border transfer from " + owner + " to " + r.Jurisdiction + " is excluded"
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
