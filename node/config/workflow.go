package config

import (
	"slices"

	"fednode/store/strictyaml"
)

// Workflow is federated-workflow.yaml: the definition that its participants
// sign, and so their agreement.
type Workflow struct {
	Name         Label                 `yaml:"name"`
	Version      Version               `yaml:"version"`
	Type         WorkflowType          `yaml:"type"`
	Participants []WorkflowParticipant `yaml:"participants"`
	Workflow     struct {
		Steps []WorkflowStep `yaml:"steps"`
	} `yaml:"workflow"`
	Governance struct {
		Sharing []WorkflowSharing `yaml:"data_sharing"`
		Audit   struct {
			Level     AuditDetail         `yaml:"level"`
			Location  AuditLocation       `yaml:"storage_location"`
			Retention strictyaml.Duration `yaml:"retention_period"`
		} `yaml:"audit"`
	} `yaml:"governance"`
}

// WorkflowParticipant is an organisation that signs the definition.
type WorkflowParticipant struct {
	ID          OrgID        `yaml:"id"`
	Role        WorkflowRole `yaml:"role"`
	Endpoint    HTTPS        `yaml:"endpoint"`
	Certificate File         `yaml:"certificate"`
}

// WorkflowStep is one piece of work by one organisation's agent.
type WorkflowStep struct {
	ID           Label               `yaml:"id"`
	Organization OrgID               `yaml:"organization"`
	Agent        Label               `yaml:"agent"`
	Next         *Label              `yaml:"next"`
	Timeout      strictyaml.Duration `yaml:"timeout"`
	Priority     StepPriority        `yaml:"priority"`
	Purpose      Label               `yaml:"purpose"`
	Inputs       []Label             `yaml:"inputs"`
	Outputs      []Label             `yaml:"outputs"`
}

// WorkflowSharing lets data pass from one organisation to another.
type WorkflowSharing struct {
	From         OrgID         `yaml:"from"`
	To           OrgID         `yaml:"to"`
	Types        []Label       `yaml:"data_types"`
	Restrictions []Restriction `yaml:"restrictions"`
}

// WorkflowType is the kind of workflow.
type WorkflowType string

// Values returns the vocabulary.
func (WorkflowType) Values() []string { return []string{"federated"} }

// WorkflowRole is what a participant does.
type WorkflowRole string

// Values returns the vocabulary.
func (WorkflowRole) Values() []string {
	return []string{"initiator", "processor", "reviewer", "observer"}
}

// StepPriority orders waiting steps.
type StepPriority string

// Values returns the vocabulary.
func (StepPriority) Values() []string { return []string{"low", "normal", "high"} }

// Restriction binds the receiver of data.
type Restriction string

// Values returns the vocabulary.
func (Restriction) Values() []string { return []string{"no-storage", "no-extraction"} }

// AuditDetail is how much is recorded.
type AuditDetail string

// Values returns the vocabulary.
func (AuditDetail) Values() []string { return []string{"basic", "detailed", "full"} }

// AuditLocation is who records.
type AuditLocation string

// Values returns the vocabulary.
func (AuditLocation) Values() []string { return []string{"all-participants"} }

func workflowKind() kind {
	const pruning = "recorded; pruning not yet enforced"
	return strict[Workflow](KindWorkflow, "A workflow across organisations. Signed by all its participants it is their agreement.",
		[]Row{
			honoured("name", "name of the workflow"),
			honoured("version", "its version"),
			honoured("type", "always federated"),
			honoured("participants[].id", "an organisation that signs"),
			honoured("participants[].role", "what it does; exactly one is the initiator, which drives the runs"),
			honoured("participants[].endpoint", "where it is reached; compared with its member entry"),
			honoured("participants[].certificate", "its certificate; compared with the roots in its member entry"),
			honoured("workflow.steps[].id", "name of the step"),
			honoured("workflow.steps[].organization", "who executes it"),
			honoured("workflow.steps[].agent", "which of its agents"),
			honoured("workflow.steps[].next", "the step that follows; null at the end"),
			honoured("workflow.steps[].timeout", "longest run of one attempt; 300s when left out"),
			honoured("workflow.steps[].priority", "which of two waiting steps goes first"),
			honoured("workflow.steps[].purpose", "what for; decisions look at it; the step's id when left out"),
			honoured("workflow.steps[].inputs[]", "data types it reads; what the agent declares when left out"),
			honoured("workflow.steps[].outputs[]", "data types it makes; what the agent declares when left out"),
			honoured("governance.data_sharing[].from", "whose data"),
			honoured("governance.data_sharing[].to", "who may have it"),
			honoured("governance.data_sharing[].data_types[]", "which data types"),
			honoured("governance.data_sharing[].restrictions[]", "what the receiver may not do with it"),
			partly("governance.audit.level", "how much is recorded", pruning),
			partly("governance.audit.storage_location", "who records", pruning),
			partly("governance.audit.retention_period", "how long it is kept", pruning),
		},
		[]string{
			"name", "version", "type", "participants", "participants[].id", "participants[].role",
			"workflow", "workflow.steps", "workflow.steps[].id", "workflow.steps[].organization", "workflow.steps[].agent",
			"governance", "governance.data_sharing[].from", "governance.data_sharing[].to", "governance.data_sharing[].data_types",
		},
		checkWorkflow)
}

func checkWorkflow(c *checker, w *Workflow) {
	orgs := unique[OrgID]{c: c, what: "participant"}
	var parties []OrgID
	initiator := -1
	for i, p := range w.Participants {
		at := index("participants", i)
		orgs.add(at+".id", p.ID)
		parties = append(parties, p.ID)
		if p.Role == "initiator" {
			if initiator >= 0 {
				c.fail(at+".role", "", "%s is the initiator already; a workflow has one", w.Participants[initiator].ID)
			}
			initiator = i
		}
		if c.env.Member == nil && (p.Endpoint != "" || p.Certificate != "") {
			c.warn(at, CodeNotCompared, "", "endpoint and certificate of %s are compared with its member entry when the file is applied", p.ID)
		}
		c.endpoint(at+".endpoint", p.ID, p.Endpoint)
		c.issuedBy(at+".certificate", p.ID, c.certificate(at+".certificate", p.Certificate))
	}
	if initiator < 0 {
		c.fail("participants", "", "no participant has role initiator; exactly one must")
	}
	party := func(path string, org OrgID) {
		if org != "" && !slices.Contains(parties, org) {
			c.fail(path, nearest(string(org), names(parties)), "%s is no participant", org)
		}
	}
	for i, s := range w.Governance.Sharing {
		at := index("governance.data_sharing", i)
		party(at+".from", s.From)
		party(at+".to", s.To)
		if s.From == s.To {
			c.fail(at+".to", "", "from and to are both %s", s.To)
		}
	}
	checkSteps(c, w, party)
}

// checkSteps checks that the steps form one chain.
func checkSteps(c *checker, w *Workflow, party func(string, OrgID)) {
	var steps []Label
	for _, s := range w.Workflow.Steps {
		steps = append(steps, s.ID)
	}
	ids := unique[Label]{c: c, what: "step"}
	targets := unique[Label]{c: c, what: "a step that leads to"}
	next, led := map[Label]Label{}, map[Label]bool{}
	for i, s := range w.Workflow.Steps {
		at := index("workflow.steps", i)
		ids.add(at+".id", s.ID)
		party(at+".organization", s.Organization)
		if s.Next == nil {
			continue
		}
		targets.add(at+".next", *s.Next)
		if !slices.Contains(steps, *s.Next) {
			c.fail(at+".next", nearest(string(*s.Next), names(steps)), "no step is named %s", *s.Next)
		}
		next[s.ID], led[*s.Next] = *s.Next, true
	}
	if len(c.errs) > 0 || len(steps) == 0 {
		return // what follows would repeat it
	}
	first := -1
	for i, s := range steps {
		switch {
		case led[s]:
		case first < 0:
			first = i
		default:
			c.fail(index("workflow.steps", i)+".id", "", "no step leads to %s, nor to %s; steps form one chain", s, steps[first])
		}
	}
	if first < 0 {
		c.fail("workflow.steps", "", "the steps form a circle; one must end with next: null")
		return
	}
	reached := 1
	for at, ok := next[steps[first]]; ok; at, ok = next[at] {
		reached++
	}
	if len(c.errs) == 0 && reached != len(steps) {
		c.fail("workflow.steps", "", "%d of the %d steps form a circle that is never entered", len(steps)-reached, len(steps))
	}
}
