package config

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr"

	"fednode/store/strictyaml"
)

// Monitoring is federated-monitoring.yaml: what is measured, and who is told
// when a figure is bad.
type Monitoring struct {
	Monitoring struct {
		Health     HealthWatch `yaml:"federation_health"`
		Workflow   MetricGroup `yaml:"workflow_monitoring"`
		Transfer   MetricGroup `yaml:"data_transfer"`
		Compliance struct {
			Enabled bool                `yaml:"enabled"`
			Every   strictyaml.Duration `yaml:"check_interval"`
			Metrics []Metric            `yaml:"metrics"`
		} `yaml:"policy_compliance"`
	} `yaml:"monitoring"`
	Alerting Alerting `yaml:"alerting"`
}

// HealthWatch asks every organisation's node how it is.
type HealthWatch struct {
	Every     strictyaml.Duration `yaml:"check_interval"`
	Timeout   strictyaml.Duration `yaml:"timeout"`
	Failures  Count               `yaml:"failure_threshold"`
	Endpoints []HealthEndpoint    `yaml:"endpoints"`
}

// HealthEndpoint is one organisation's health address.
type HealthEndpoint struct {
	Organization OrgID `yaml:"organization"`
	URL          HTTPS `yaml:"url"`
}

// MetricGroup is a set of figures that is collected or not.
type MetricGroup struct {
	Enabled bool     `yaml:"enabled"`
	Metrics []Metric `yaml:"metrics"`
}

// Metric is one figure.
type Metric struct {
	Name        MetricName `yaml:"name"`
	Description Text       `yaml:"description"`
}

// Alerting is where alerts go, and the rules that raise them.
type Alerting struct {
	Endpoints []AlertEndpoint `yaml:"endpoints"`
	Rules     []AlertRule     `yaml:"rules"`
}

// AlertEndpoint is a webhook and the organisations it serves.
type AlertEndpoint struct {
	Name          Label   `yaml:"name"`
	URL           HTTPS   `yaml:"url"`
	Organizations []OrgID `yaml:"organizations"`
}

// AlertRule raises an alert while its condition holds.
type AlertRule struct {
	Name        Label     `yaml:"name"`
	Condition   Condition `yaml:"condition"`
	Severity    Severity  `yaml:"severity"`
	Description Text      `yaml:"description"`
	Notify      []Target  `yaml:"notify"`
}

// Condition is an expression over the metrics of the file, in the language of
// expr-lang; it must give true or false.
type Condition string

func (Condition) describe() string { return "condition (expr-lang)" }

func (s Condition) problem() string {
	switch {
	case strings.TrimSpace(string(s)) == "":
		return "the condition is empty; write one such as \"policy_violations > 10\""
	case len(s) > 1024:
		return "the condition is longer than 1024 bytes"
	}
	return ""
}

// Target is the name of an alerting endpoint, or a template of names:
// "${organization}-alerts" stands for one endpoint per organisation.
type Target string

func (Target) describe() string { return "name of an alerting endpoint, `${organization}` allowed" }

func (t Target) problem() string {
	plain := strings.ReplaceAll(string(t), organizationVariable, "x")
	if strings.Contains(plain, "${") {
		return "the only variable of a target is ${organization}"
	}
	return Label(plain).problem()
}

const organizationVariable = "${organization}"

// expand returns the endpoint names t stands for.
func (t Target) expand(organizations []OrgID) []Label {
	if !strings.Contains(string(t), organizationVariable) {
		return []Label{Label(t)}
	}
	out := make([]Label, 0, len(organizations))
	for _, o := range organizations {
		out = append(out, Label(strings.ReplaceAll(string(t), organizationVariable, string(o))))
	}
	return out
}

func monitoringKind() kind {
	const (
		noWatch  = "nobody's health is asked"
		noFigure = "the figure isn't collected"
		noAlerts = "no alert is raised"
	)
	return strict[Monitoring](KindMonitoring, "What is measured across the federation, and who is told when a figure is bad.",
		[]Row{
			later("monitoring.federation_health.check_interval", "time between two questions", noWatch),
			later("monitoring.federation_health.timeout", "longest wait for an answer", noWatch),
			later("monitoring.federation_health.failure_threshold", "failures in a row that make a node unhealthy", noWatch),
			later("monitoring.federation_health.endpoints[].organization", "whose node", noWatch),
			later("monitoring.federation_health.endpoints[].url", "its health address", noWatch),
			gate(later("monitoring.workflow_monitoring.enabled", "whether workflows are measured", noFigure)),
			later("monitoring.workflow_monitoring.metrics[].name", "a figure about workflows", noFigure),
			note("monitoring.workflow_monitoring.metrics[].description", "what it tells"),
			gate(later("monitoring.data_transfer.enabled", "whether transfers are measured", noFigure)),
			later("monitoring.data_transfer.metrics[].name", "a figure about transfers", noFigure),
			note("monitoring.data_transfer.metrics[].description", "what it tells"),
			gate(later("monitoring.policy_compliance.enabled", "whether decisions are measured", noFigure)),
			later("monitoring.policy_compliance.check_interval", "time between two counts", noFigure),
			later("monitoring.policy_compliance.metrics[].name", "a figure about decisions", noFigure),
			note("monitoring.policy_compliance.metrics[].description", "what it tells"),
			later("alerting.endpoints[].name", "name of a webhook", noAlerts),
			later("alerting.endpoints[].url", "its address", noAlerts),
			later("alerting.endpoints[].organizations[]", "whose alerts it gets", noAlerts),
			later("alerting.rules[].name", "name of a rule", noAlerts),
			later("alerting.rules[].condition", "when it holds; knows `federation_health_status` (text) and the file's metrics (numbers)", noAlerts),
			later("alerting.rules[].severity", "how bad it is", noAlerts),
			note("alerting.rules[].description", "what the alert says"),
			later("alerting.rules[].notify[]", "which webhooks are called", noAlerts),
		},
		[]string{
			"monitoring", "monitoring.federation_health.check_interval", "monitoring.federation_health.timeout",
			"monitoring.federation_health.endpoints", "monitoring.federation_health.endpoints[].organization", "monitoring.federation_health.endpoints[].url",
			"monitoring.workflow_monitoring.metrics[].name", "monitoring.data_transfer.metrics[].name", "monitoring.policy_compliance.metrics[].name",
			"alerting.endpoints[].name", "alerting.endpoints[].url", "alerting.endpoints[].organizations",
			"alerting.rules[].name", "alerting.rules[].condition", "alerting.rules[].severity", "alerting.rules[].notify",
		},
		checkMonitoring)
}

// productMetrics are the figures a node itself has, whatever the file lists.
func productMetrics() []MetricName {
	return []MetricName{
		"cross_org_workflow_count", "cross_org_workflow_duration", "cross_org_workflow_success_rate",
		"data_transfer_volume", "data_transfer_latency", "policy_violations", "policy_compliance_rate",
	}
}

func checkMonitoring(c *checker, m *Monitoring) {
	health := m.Monitoring.Health
	if health.Timeout > health.Every && health.Every > 0 {
		c.fail("monitoring.federation_health.timeout", "", "timeout %s is longer than check_interval %s", health.Timeout, health.Every)
	}
	var organizations []OrgID
	asked := unique[OrgID]{c: c, what: "organisation"}
	for i, e := range health.Endpoints {
		at := index("monitoring.federation_health.endpoints", i)
		asked.add(at+".organization", e.Organization)
		organizations = appendNew(organizations, e.Organization)
	}

	variables := map[string]any{"federation_health_status": ""}
	for _, name := range productMetrics() {
		variables[string(name)] = 0.0
	}
	figures := unique[MetricName]{c: c, what: "metric"}
	group := func(at string, list []Metric) {
		for i, metric := range list {
			here := index(at, i) + ".name"
			figures.add(here, metric.Name)
			if metric.Name == "federation_health_status" {
				c.fail(here, "", "federation_health_status is the health itself, not a figure; remove it")
				continue
			}
			variables[string(metric.Name)] = 0.0
		}
	}
	group("monitoring.workflow_monitoring.metrics", m.Monitoring.Workflow.Metrics)
	group("monitoring.data_transfer.metrics", m.Monitoring.Transfer.Metrics)
	group("monitoring.policy_compliance.metrics", m.Monitoring.Compliance.Metrics)

	endpoints := unique[Label]{c: c, what: "alerting endpoint"}
	var targets []Label
	for i, e := range m.Alerting.Endpoints {
		at := index("alerting.endpoints", i)
		endpoints.add(at+".name", e.Name)
		targets = append(targets, e.Name)
		served := unique[OrgID]{c: c, what: "organisation"}
		for j, o := range e.Organizations {
			served.add(index(at+".organizations", j), o)
			organizations = appendNew(organizations, o)
		}
	}

	rules := unique[Label]{c: c, what: "rule"}
	for i, r := range m.Alerting.Rules {
		at := index("alerting.rules", i)
		rules.add(at+".name", r.Name)
		checkCondition(c, at+".condition", r.Condition, variables)
		told := unique[Target]{c: c, what: "target"}
		for j, t := range r.Notify {
			here := index(at+".notify", j)
			told.add(here, t)
			if t.problem() != "" {
				continue
			}
			for _, name := range t.expand(organizations) {
				if !slices.Contains(targets, name) {
					c.fail(here, nearest(string(name), names(targets)), "no alerting endpoint is named %s; add it to alerting.endpoints", name)
				}
			}
		}
	}
}

// checkCondition compiles a condition as the monitor will: no functions, no
// variables but the file's metrics.
func checkCondition(c *checker, at string, condition Condition, variables map[string]any) {
	if condition.problem() != "" {
		return // already reported
	}
	_, err := expr.Compile(string(condition), expr.Env(variables), expr.AsBool(), expr.MaxNodes(200), expr.DisableAllBuiltins())
	if err == nil {
		return
	}
	// expr adds a drawing of the place on further lines; the file's own line
	// and column stand in front already.
	text, _, _ := strings.Cut(err.Error(), "\n")
	suggestion := ""
	if _, rest, ok := strings.Cut(text, "unknown name "); ok {
		word, _, _ := strings.Cut(rest, " ")
		suggestion = nearest(word, sortedKeys(variables))
	}
	c.fail(at, suggestion, "the condition doesn't compile: %s", text)
}
