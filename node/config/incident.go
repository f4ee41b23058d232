package config

import "slices"

// IncidentResponse is federated-incident-response.yaml: what counts as an
// incident, what is done about it in which phase, and who hears of it.
type IncidentResponse struct {
	Types         []IncidentType        `yaml:"incident_types"`
	Procedures    []Procedure           `yaml:"response_procedures"`
	Communication IncidentCommunication `yaml:"communication"`
}

// IncidentType is one kind of incident.
type IncidentType struct {
	Type        Label    `yaml:"type"`
	Severity    Severity `yaml:"severity"`
	Description Text     `yaml:"description"`
	Indicators  []Text   `yaml:"indicators"`
	Team        []Label  `yaml:"response_team"`
}

// Procedure is what is done in one phase, in this order.
type Procedure struct {
	Phase   Phase  `yaml:"phase"`
	Actions []Text `yaml:"actions"`
}

// IncidentCommunication says who hears of an incident, over which channel.
type IncidentCommunication struct {
	Internal          Audience `yaml:"internal"`
	CrossOrganization Audience `yaml:"cross_organization"`
	Regulatory        struct {
		Channel    Label    `yaml:"channel"`
		Recipients []Label  `yaml:"recipients"`
		Timeframe  Deadline `yaml:"timeframe"`
	} `yaml:"regulatory"`
}

// Audience is a channel and the groups that read it.
type Audience struct {
	Channel      Label   `yaml:"channel"`
	Participants []Label `yaml:"participants"`
}

// Phase is a stage of an incident's handling (NIST SP 800-61).
type Phase string

// Values returns the phases in their order.
func (Phase) Values() []string {
	return []string{"detection", "containment", "eradication", "recovery", "post_incident"}
}

func incidentKind() kind {
	const (
		noIncidents = "no incident is opened"
		noPlaybooks = "no playbook is run"
		noMessages  = "nobody is told by the node"
	)
	return strict[IncidentResponse](KindIncident, "What counts as an incident, what is done about it phase by phase, and who hears of it by when.",
		[]Row{
			later("incident_types[].type", "name of the incident type", noIncidents),
			later("incident_types[].severity", "how bad it is", noIncidents),
			note("incident_types[].description", "what it is"),
			later("incident_types[].indicators[]", "what points to it", noIncidents),
			later("incident_types[].response_team[]", "roles that handle it", noIncidents),
			later("response_procedures[].phase", "stage of the handling", noPlaybooks),
			later("response_procedures[].actions[]", "what is done in it, in this order", noPlaybooks),
			later("communication.internal.channel", "where the organisation's own people are told", noMessages),
			later("communication.internal.participants[]", "which of them", noMessages),
			later("communication.cross_organization.channel", "where the other organisations are told", noMessages),
			later("communication.cross_organization.participants[]", "which groups of them", noMessages),
			later("communication.regulatory.channel", "how authorities are told", noMessages),
			later("communication.regulatory.recipients[]", "which authorities", noMessages),
			later("communication.regulatory.timeframe", "by when", "no clock is started"),
		},
		[]string{
			"incident_types", "incident_types[].type", "incident_types[].severity", "incident_types[].response_team",
			"response_procedures[].phase", "response_procedures[].actions",
			"communication.internal.channel", "communication.internal.participants",
			"communication.cross_organization.channel", "communication.cross_organization.participants",
			"communication.regulatory.channel", "communication.regulatory.recipients", "communication.regulatory.timeframe",
		},
		checkIncident)
}

func checkIncident(c *checker, r *IncidentResponse) {
	types := unique[Label]{c: c, what: "incident type"}
	for i, t := range r.Types {
		at := index("incident_types", i)
		types.add(at+".type", t.Type)
		team := unique[Label]{c: c, what: "role"}
		for j, role := range t.Team {
			team.add(index(at+".response_team", j), role)
		}
	}
	order := Phase("").Values()
	phases := unique[Phase]{c: c, what: "phase"}
	last := -1
	for i, p := range r.Procedures {
		at := index("response_procedures", i) + ".phase"
		phases.add(at, p.Phase)
		n := slices.Index(order, string(p.Phase))
		if n >= 0 && n < last {
			c.fail(at, "", "phase %s comes before %s; write the phases in their order", p.Phase, order[last])
		}
		last = max(last, n)
	}
}
