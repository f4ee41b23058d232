package config

import (
	"slices"

	"fednode/store/strictyaml"
)

type GovernancePolicy struct {
	PolicyID   Label   `yaml:"policy_id"`
	Version    Version `yaml:"version"`
	Effective  string  `yaml:"effective_date"`
	Expiration string  `yaml:"expiration_date"`
	Categories []struct {
		Name        Label    `yaml:"name"`
		Description Text     `yaml:"description"`
		Examples    []Text   `yaml:"examples"`
		Sensitivity Severity `yaml:"sensitivity"`
	} `yaml:"data_categories"`
	Rules []struct {
		Name        Label               `yaml:"name"`
		Description Text                `yaml:"description"`
		Category    Label               `yaml:"data_category"`
		Allowed     []Label             `yaml:"allowed_purposes"`
		Prohibited  []Label             `yaml:"prohibited_purposes"`
		Retention   strictyaml.Duration `yaml:"retention_period"`
		Consent     bool                `yaml:"requires_consent"`
		Recipients  []OrgID             `yaml:"allowed_recipients"`
		CrossBorder bool                `yaml:"cross_border_transfer"`
	} `yaml:"rules"`
	Enforcement struct {
		Mechanism string `yaml:"mechanism"`
		Verify    string `yaml:"verification"`
		Audit     string `yaml:"audit_frequency"`
		Violation string `yaml:"violation_handling"`
	} `yaml:"enforcement"`
}

func policyKind() kind {
	return strict[GovernancePolicy](KindPolicy, "Which data may be used for what, by whom, how long. The node of the data's owner decides by it.",
		[]Row{
			honoured("policy_id", "name of the policy"),
			honoured("version", "its version"),
			honoured("effective_date", "first day it is in force"),
			honoured("expiration_date", "day it ends; from then on it denies"),
			honoured("data_categories[].name", "a category of data"),
			note("data_categories[].description", "what is in it"),
			note("data_categories[].examples[]", "what is in it, by example"),
			honoured("data_categories[].sensitivity", "how sensitive it is"),
			honoured("rules[].name", "name of a rule"),
			note("rules[].description", "what it is about"),
			honoured("rules[].data_category", "the category it is about"),
			honoured("rules[].allowed_purposes[]", "purposes that are allowed; no others are"),
			honoured("rules[].prohibited_purposes[]", "purposes that are denied whatever else allows them"),
			honoured("rules[].retention_period", "how long a receiver may keep the data"),
			honoured("rules[].requires_consent", "whether the person's consent is needed"),
			honoured("rules[].allowed_recipients[]", "organisations that may have the data"),
			honoured("rules[].cross_border_transfer", "whether it may leave the owner's jurisdiction"),
			honoured("enforcement.mechanism", "how the policy is enforced"),
			honoured("enforcement.verification", "how that is verified"),
			later("enforcement.audit_frequency", "how often it is audited", "no audit is scheduled"),
			honoured("enforcement.violation_handling", "what happens to a violation"),
		},
		nil,
		func(c *checker, p *GovernancePolicy) {
			_ = slices.Max([]int{1})
		})
}
