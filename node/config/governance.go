package config

import (
	"fmt"
	"slices"
	"time"

	"fednode/store/strictyaml"
)

// GovernancePolicy is governance-policy.yaml: which data may be used for what,
// by whom and how long.
type GovernancePolicy struct {
	ID          Label                 `yaml:"policy_id"`
	Version     Version               `yaml:"version"`
	Effective   Date                  `yaml:"effective_date"`
	Expiration  Date                  `yaml:"expiration_date"`
	Categories  []GovernedCategory    `yaml:"data_categories"`
	Rules       []GovernanceRule      `yaml:"rules"`
	Enforcement GovernanceSupervision `yaml:"enforcement"`
}

// GovernedCategory is a category of data.
type GovernedCategory struct {
	Name        Label    `yaml:"name"`
	Description Text     `yaml:"description"`
	Examples    []Text   `yaml:"examples"`
	Sensitivity Severity `yaml:"sensitivity"`
}

// GovernanceRule says what may be done with one category.
type GovernanceRule struct {
	Name        Label               `yaml:"name"`
	Description Text                `yaml:"description"`
	Category    Label               `yaml:"data_category"`
	Allowed     []Label             `yaml:"allowed_purposes"`
	Prohibited  []Label             `yaml:"prohibited_purposes"`
	Retention   strictyaml.Duration `yaml:"retention_period"`
	Consent     bool                `yaml:"requires_consent"`
	Recipients  []OrgID             `yaml:"allowed_recipients"`
	CrossBorder bool                `yaml:"cross_border_transfer"`
}

// GovernanceSupervision is how the policy is held up.
type GovernanceSupervision struct {
	Mechanism    Mechanism          `yaml:"mechanism"`
	Verification PolicyVerification `yaml:"verification"`
	Audit        Frequency          `yaml:"audit_frequency"`
	Violation    ViolationHandling  `yaml:"violation_handling"`
}

// Mechanism is how a policy is enforced.
type Mechanism string

// Values returns the vocabulary.
func (Mechanism) Values() []string {
	return []string{"technical", "organizational", "technical-and-organizational"}
}

// PolicyVerification is how enforcement is verified.
type PolicyVerification string

// Values returns the vocabulary.
func (PolicyVerification) Values() []string {
	return []string{"automated", "manual", "automated-and-manual"}
}

// ViolationHandling is what happens to a violation.
type ViolationHandling string

// Values returns the vocabulary.
func (ViolationHandling) Values() []string { return []string{"block", "block-and-report"} }

// Date is a day, as in 2026-01-01; it begins at midnight UTC.
type Date string

func (Date) describe() string { return "date (YYYY-MM-DD)" }

func (d Date) problem() string {
	if _, err := time.Parse(time.DateOnly, string(d)); err != nil {
		return fmt.Sprintf("%.40q is not a date; write one such as 2026-01-31", string(d))
	}
	return ""
}

// Time is the day's first instant, or zero when d is malformed.
func (d Date) Time() time.Time {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		return time.Time{}
	}
	return t
}

func policyKind() kind {
	return strict[GovernancePolicy](KindPolicy, "Which data may be used for what, by whom and how long. The node of the data's owner decides by it.",
		policyRows(),
		[]string{
			"policy_id", "version", "effective_date", "expiration_date",
			"data_categories", "data_categories[].name", "data_categories[].sensitivity",
			"rules", "rules[].name", "rules[].data_category", "rules[].allowed_purposes", "rules[].allowed_recipients",
		},
		checkPolicy)
}

func policyRows() []Row {
	return []Row{
		honoured("policy_id", "name of the policy"),
		honoured("version", "its version"),
		honoured("effective_date", "first day it is in force (UTC)"),
		honoured("expiration_date", "day it ends (UTC); from then on it denies"),
		honoured("data_categories[].name", "a category of data"),
		note("data_categories[].description", "what is in it"),
		note("data_categories[].examples[]", "what is in it, by example"),
		honoured("data_categories[].sensitivity", "how sensitive it is"),
		honoured("rules[].name", "name of a rule"),
		note("rules[].description", "what it is about"),
		honoured("rules[].data_category", "the category it is about"),
		honoured("rules[].allowed_purposes[]", "purposes that are allowed; no others are"),
		honoured("rules[].prohibited_purposes[]", "purposes that are denied, whatever else allows them"),
		honoured("rules[].retention_period", "how long a receiver may keep the data"),
		honoured("rules[].requires_consent", "whether the person's consent is needed"),
		honoured("rules[].allowed_recipients[]", "organisations that may have the data"),
		honoured("rules[].cross_border_transfer", "whether it may leave the owner's jurisdiction"),
		honoured("enforcement.mechanism", "how the policy is enforced"),
		honoured("enforcement.verification", "how that is verified"),
		later("enforcement.audit_frequency", "how often it is audited", "no audit is scheduled; every decision is in the log"),
		honoured("enforcement.violation_handling", "what happens to a violation"),
	}
}

func checkPolicy(c *checker, p *GovernancePolicy) {
	from, until := p.Effective.Time(), p.Expiration.Time()
	if !from.IsZero() && !until.IsZero() {
		checkTerm(c, from, until)
	}
	categories := unique[Label]{c: c, what: "data category"}
	var known []Label
	for i, category := range p.Categories {
		categories.add(index("data_categories", i)+".name", category.Name)
		known = append(known, category.Name)
	}
	rules := unique[Label]{c: c, what: "rule"}
	for i, r := range p.Rules {
		at := index("rules", i)
		rules.add(at+".name", r.Name)
		if r.Category != "" && !slices.Contains(known, r.Category) {
			c.fail(at+".data_category", nearest(string(r.Category), names(known)), "no data category is named %s", r.Category)
		}
		for j, purpose := range r.Prohibited {
			if slices.Contains(r.Allowed, purpose) {
				c.fail(index(at+".prohibited_purposes", j), "", "%s is allowed and prohibited; remove one of the two", purpose)
			}
		}
		recipients := unique[OrgID]{c: c, what: "recipient"}
		for j, o := range r.Recipients {
			recipients.add(index(at+".allowed_recipients", j), o)
		}
	}
}

// checkTerm compares the days a policy is in force with today.
func checkTerm(c *checker, from, until time.Time) {
	now := c.env.now()
	switch {
	case !until.After(from):
		c.fail("expiration_date", "", "the policy ends %s, before it begins", until.Format(time.DateOnly))
	case !now.Before(until):
		c.warn("expiration_date", CodeExpired, "renew it under a new version", "the policy expired %s: it denies everything, and says that this is why", until.Format(time.DateOnly))
	case now.Before(from):
		c.warn("effective_date", CodeNotYet, "", "the policy is in force from %s on and denies until then", from.Format(time.DateOnly))
	}
}
