package config

import (
	"slices"

	"fednode/store/strictyaml"
)

// Audit is federated-audit.yaml: what is recorded, where, how long, and who is
// told.
type Audit struct {
	Audit struct {
		Storage   AuditStorage   `yaml:"storage"`
		Events    []AuditEvent   `yaml:"events"`
		Reporting AuditReporting `yaml:"reporting"`
	} `yaml:"audit"`
}

// AuditStorage says where entries go and how long they stay.
type AuditStorage struct {
	Type           AuditStorageType    `yaml:"type"`
	Implementation AuditImplementation `yaml:"implementation"`
	Retention      strictyaml.Duration `yaml:"retention_period"`
}

// AuditEvent is one category of entries and the fields each must carry.
type AuditEvent struct {
	Category AuditCategory `yaml:"category"`
	Level    AuditLevel    `yaml:"level"`
	Include  []AuditField  `yaml:"include_fields"`
}

// AuditReporting lists the reports made from the log.
type AuditReporting struct {
	Scheduled []ScheduledReport `yaml:"scheduled_reports"`
}

// ScheduledReport is one report, sent at a fixed rhythm.
type ScheduledReport struct {
	Name       Label        `yaml:"name"`
	Frequency  Frequency    `yaml:"frequency"`
	Format     ReportFormat `yaml:"format"`
	Recipients []Email      `yaml:"recipients"`
}

// AuditStorageType says whether other organisations hold the entries too.
type AuditStorageType string

// Values returns the vocabulary.
func (AuditStorageType) Values() []string { return []string{"distributed-ledger", "local"} }

// AuditImplementation names the engine of the ledger.
type AuditImplementation string

// Values returns the vocabulary.
func (AuditImplementation) Values() []string { return []string{"builtin", "hyperledger-fabric"} }

// AuditCategory is one of the five categories of the ledger's entry schema.
type AuditCategory string

// Values returns the vocabulary.
func (AuditCategory) Values() []string {
	return []string{"authentication", "authorization", "data_access", "policy_enforcement", "federation_management"}
}

// AuditField is a field of the ledger's entry schema.
type AuditField string

// Values returns the vocabulary.
func (AuditField) Values() []string {
	return []string{"timestamp", "user_id", "organization_id", "resource", "action", "result", "data_category", "purpose", "policy_id"}
}

// AuditLevel is the least level recorded.
type AuditLevel string

// Values returns the vocabulary.
func (AuditLevel) Values() []string { return []string{"debug", "info", "warning", "error"} }

// Frequency is a rhythm in calendar terms.
type Frequency string

// Values returns the vocabulary.
func (Frequency) Values() []string {
	return []string{"daily", "weekly", "monthly", "quarterly", "yearly"}
}

// ReportFormat is the file format of a report.
type ReportFormat string

// Values returns the vocabulary.
func (ReportFormat) Values() []string { return []string{"pdf", "json", "csv"} }

func auditKind() kind {
	return strict[Audit](KindAudit, "What each organisation records, how long entries stay, and which reports are made of them.",
		[]Row{
			later("audit.storage.type", "who holds the entries",
				"each organisation keeps its own Merkle log and the counterpart of every message holds it too; cosigning by the other members is not in this version").
				ruling(Ruling{Value: "local", Status: Honoured, Why: "every organisation keeps its own log"}),
			honoured("audit.storage.implementation", "the engine of the ledger").
				ruling(stands("hyperledger-fabric", "the built-in Merkle log (C2SP tlog-tiles) of every organisation is the distributed ledger")),
			later("audit.storage.retention_period", "how long entries are kept",
				"entries are kept for good; nothing is pruned"),
			honoured("audit.events[].category", "category of the entry schema"),
			later("audit.events[].level", "least level recorded",
				"everything is recorded, whatever its level").
				ruling(Ruling{Value: "debug", Status: Honoured, Why: "everything is recorded"}),
			honoured("audit.events[].include_fields[]", "fields every entry of the category carries"),
			later("audit.reporting.scheduled_reports[].name", "name of the report", "no report is scheduled"),
			later("audit.reporting.scheduled_reports[].frequency", "how often it is made", "no report is scheduled"),
			later("audit.reporting.scheduled_reports[].format", "its file format", "no report is made"),
			later("audit.reporting.scheduled_reports[].recipients[]", "who gets it", "no e-mail is sent"),
		},
		[]string{
			"audit", "audit.storage", "audit.storage.type", "audit.storage.retention_period",
			"audit.events", "audit.events[].category", "audit.events[].include_fields",
			"audit.reporting.scheduled_reports[].name", "audit.reporting.scheduled_reports[].frequency",
			"audit.reporting.scheduled_reports[].format", "audit.reporting.scheduled_reports[].recipients",
		},
		checkAudit)
}

// schemaFields are the fields an entry of each category has in the ledger. A
// file can't ask for others: the log can't be rewritten later.
func schemaFields(c AuditCategory) []AuditField {
	switch c {
	case "authentication":
		return []AuditField{"timestamp", "user_id", "organization_id", "result"}
	case "authorization":
		return []AuditField{"timestamp", "user_id", "organization_id", "resource", "action", "result"}
	case "data_access":
		return []AuditField{"timestamp", "user_id", "organization_id", "data_category", "purpose", "action"}
	case "policy_enforcement":
		return []AuditField{"timestamp", "policy_id", "resource", "action", "result"}
	case "federation_management":
		return []AuditField{"timestamp", "organization_id", "action", "result"}
	}
	return nil
}

func checkAudit(c *checker, a *Audit) {
	categories := unique[AuditCategory]{c: c, what: "category"}
	for i, e := range a.Audit.Events {
		at := index("audit.events", i)
		categories.add(at+".category", e.Category)
		fields := unique[AuditField]{c: c, what: "field"}
		stamped := false
		for j, f := range e.Include {
			fields.add(index(at+".include_fields", j), f)
			stamped = stamped || f == "timestamp"
			if known := schemaFields(e.Category); len(known) > 0 && !slices.Contains(known, f) && enumProblem(f) == "" {
				c.fail(index(at+".include_fields", j), nearest(string(f), names(known)),
					"entries of category %s have no %s; they carry %s", e.Category, f, join(known))
			}
		}
		if !stamped {
			c.fail(at+".include_fields", "timestamp", "an entry without its time proves nothing; add timestamp")
		}
	}
	reports := unique[Label]{c: c, what: "report"}
	for i, r := range a.Audit.Reporting.Scheduled {
		at := index("audit.reporting.scheduled_reports", i)
		reports.add(at+".name", r.Name)
		recipients := unique[Email]{c: c, what: "recipient"}
		for j, e := range r.Recipients {
			recipients.add(index(at+".recipients", j), e)
		}
	}
}
