package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"fednode/store/jcs"
	"fednode/store/strictyaml"
	"fednode/transport"
)

// DefaultStepTimeout is what a step gets that names no timeout.
const DefaultStepTimeout = 300 * time.Second

// Limits of a definition; a larger one is refused.
const (
	maxSteps        = 256
	maxParticipants = 64
	maxStepTimeout  = 30 * 24 * time.Hour
	maxText         = 512 // bytes of a purpose, endpoint or certificate
)

// Restrictions that a data_sharing rule may put on what it lets pass (ARCHITECTURE §5).
const (
	NoStorage    = "no-storage"
	NoExtraction = "no-extraction"
)

// A Definition is a federated workflow as its YAML file states it. Its canonical JSON is what participants sign.
type Definition struct {
	Name         string        `yaml:"name" json:"name" required:"true"`
	Version      string        `yaml:"version" json:"version" required:"true"`
	Type         string        `yaml:"type" json:"type" required:"true" oneof:"federated"`
	Participants []Participant `yaml:"participants" json:"participants" required:"true"`
	Workflow     Steps         `yaml:"workflow" json:"workflow" required:"true"`
	Governance   Governance    `yaml:"governance" json:"governance" required:"true"`
}

// A Participant is an organisation that signs the definition. Endpoint and certificate, where given, are checked
// against its member entry.
type Participant struct {
	ID          transport.OrgID `yaml:"id" json:"id" required:"true"`
	Role        string          `yaml:"role" json:"role" required:"true" oneof:"initiator,processor,reviewer,observer"`
	Endpoint    string          `yaml:"endpoint" json:"endpoint,omitempty"`
	Certificate string          `yaml:"certificate" json:"certificate,omitempty"`
}

// Steps is the body of a workflow: a chain, each step naming the next.
type Steps struct {
	Steps []Step `yaml:"steps" json:"steps" required:"true"`
}

// A Step is one piece of work by one organisation's agent.
type Step struct {
	ID           string              `yaml:"id" json:"id" required:"true"`
	Organization transport.OrgID     `yaml:"organization" json:"organization" required:"true"`
	Agent        string              `yaml:"agent" json:"agent" required:"true"`
	Next         *string             `yaml:"next" json:"next,omitempty"`
	Timeout      strictyaml.Duration `yaml:"timeout" json:"timeout,omitempty"`                           // default 300 s
	Priority     string              `yaml:"priority" json:"priority,omitempty" oneof:"low,normal,high"` // default normal
	Purpose      string              `yaml:"purpose" json:"purpose,omitempty"`                           // default the step's id
	Inputs       []string            `yaml:"inputs" json:"inputs,omitempty"`                             // default what the agent declares
	Outputs      []string            `yaml:"outputs" json:"outputs,omitempty"`                           // default what the agent declares
}

// Governance is the part of the definition that binds what may cross between organisations.
type Governance struct {
	DataSharing []Sharing `yaml:"data_sharing" json:"data_sharing"`
	Audit       Audit     `yaml:"audit" json:"audit"`
}

// Sharing lets artifacts of the named types pass from one organisation to another, under restrictions.
type Sharing struct {
	From         transport.OrgID `yaml:"from" json:"from" required:"true"`
	To           transport.OrgID `yaml:"to" json:"to" required:"true"`
	DataTypes    []string        `yaml:"data_types" json:"data_types" required:"true"`
	Restrictions []string        `yaml:"restrictions" json:"restrictions,omitempty"`
}

// Audit is how much is recorded, where, and for how long.
type Audit struct {
	Level           string              `yaml:"level" json:"level,omitempty" oneof:"basic,detailed,full"`
	StorageLocation string              `yaml:"storage_location" json:"storage_location,omitempty" oneof:"all-participants"`
	RetentionPeriod strictyaml.Duration `yaml:"retention_period" json:"retention_period,omitempty"`
}

var (
	// Compiled when first used: every agent's worker starts with this package, and none of them reads definitions.
	nameRE    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`) })
	versionRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._+-]{1,64}$`) })
)

// ParseDefinition reads a workflow definition in YAML; file is its name for errors.
func ParseDefinition(file string, data []byte) (*Definition, error) {
	d := new(Definition)
	if err := strictyaml.Decode(file, data, d); err != nil {
		return nil, err
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// decodeDefinition reads the canonical JSON form, as it arrives from a peer.
func decodeDefinition(data []byte) (*Definition, error) {
	d := new(Definition)
	if err := jcs.Unmarshal(data, d); err != nil {
		return nil, err
	}
	return d, d.Validate()
}

// Canonical returns the RFC 8785 form of the definition, the bytes that its hash covers.
func (d *Definition) Canonical() ([]byte, error) { return jcs.Marshal(d) }

// Hash returns the agreement hash: SHA-256(`fednode/agreement/v1\n` + canonical form), lower-case hex.
func (d *Definition) Hash() (string, error) {
	c, err := d.Canonical()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	h.Write([]byte("fednode/agreement/v1\n"))
	h.Write(c)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// line reports whether s is a line that a terminal shows as it is: those who sign a definition read it there.
func line(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Validate reports everything that is wrong with the definition. It relies on nothing that reading YAML checks, for a
// peer's definition comes as JSON.
func (d *Definition) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !nameRE().MatchString(d.Name) {
		bad("name %q: use letters, digits, '.', '_' and '-', at most 128", d.Name)
	}
	if !versionRE().MatchString(d.Version) {
		bad("version %q: use letters, digits, '.', '_', '+' and '-', at most 64", d.Version)
	}
	if d.Type != "federated" {
		bad("type %q: only \"federated\" is known", d.Type)
	}
	if len(d.Participants) > maxParticipants {
		bad("participants: %d, at most %d", len(d.Participants), maxParticipants)
	}
	initiators := 0
	seen := map[transport.OrgID]bool{}
	for _, p := range d.Participants {
		if seen[p.ID] {
			bad("participants: %s appears twice", p.ID)
		}
		seen[p.ID] = true
		if !slices.Contains([]string{"initiator", "processor", "reviewer", "observer"}, p.Role) {
			bad("participants: %s has role %q, want initiator, processor, reviewer or observer", p.ID, p.Role)
		}
		if !line(p.Endpoint) || !line(p.Certificate) {
			bad("participants: endpoint or certificate of %s is longer than %d bytes or not printable", p.ID, maxText)
		}
		if p.Role == "initiator" {
			initiators++
		}
	}
	if initiators != 1 {
		bad("participants: exactly one must have role initiator, found %d", initiators)
	}
	for i, s := range d.Governance.DataSharing {
		for _, o := range []transport.OrgID{s.From, s.To} {
			if !seen[o] {
				bad("governance.data_sharing[%d]: %s is not a participant", i, o)
			}
		}
		if s.From == s.To {
			bad("governance.data_sharing[%d]: from and to are both %s", i, s.From)
		}
		for _, r := range s.Restrictions {
			if r != NoStorage && r != NoExtraction {
				bad("governance.data_sharing[%d]: restriction %q is not known; use %s or %s", i, r, NoStorage, NoExtraction)
			}
		}
		for _, t := range s.DataTypes {
			if !nameRE().MatchString(t) {
				bad("governance.data_sharing[%d]: data type %q: use letters, digits, '.', '_' and '-'", i, t)
			}
		}
	}
	if a := d.Governance.Audit; !slices.Contains([]string{"", "basic", "detailed", "full"}, a.Level) || a.StorageLocation != "" && a.StorageLocation != "all-participants" || a.RetentionPeriod < 0 {
		bad("governance.audit: want level basic, detailed or full, storage_location all-participants, and a retention_period that is not negative")
	}
	errs = append(errs, d.validateSteps(seen)...)
	return errors.Join(errs...)
}

func (d *Definition) validateSteps(participants map[transport.OrgID]bool) (errs []error) {
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	steps := d.Workflow.Steps
	if len(steps) == 0 || len(steps) > maxSteps {
		bad("workflow.steps: %d, want 1 to %d", len(steps), maxSteps)
		return errs
	}
	ids := map[string]bool{}
	targets := map[string]bool{}
	for i, s := range steps {
		if !nameRE().MatchString(s.ID) || !nameRE().MatchString(s.Agent) {
			bad("workflow.steps[%d]: id %q and agent %q: use letters, digits, '.', '_' and '-'", i, s.ID, s.Agent)
		}
		if ids[s.ID] {
			bad("workflow.steps[%d]: id %s appears twice", i, s.ID)
		}
		ids[s.ID] = true
		if !participants[s.Organization] {
			bad("workflow.steps[%d] %s: %s is not a participant", i, s.ID, s.Organization)
		}
		if t := time.Duration(s.Timeout); t < 0 || t > maxStepTimeout {
			bad("workflow.steps[%d] %s: timeout %v, at most %v", i, s.ID, t, maxStepTimeout)
		}
		if !line(s.Purpose) {
			bad("workflow.steps[%d] %s: purpose is longer than %d bytes or not printable", i, s.ID, maxText)
		}
		if s.Priority != "" && !slices.Contains([]string{"low", "normal", "high"}, s.Priority) {
			bad("workflow.steps[%d] %s: priority %q, want low, normal or high", i, s.ID, s.Priority)
		}
		for _, t := range slices.Concat(s.Inputs, s.Outputs) {
			if !nameRE().MatchString(t) {
				bad("workflow.steps[%d] %s: data type %q: use letters, digits, '.', '_' and '-'", i, s.ID, t)
			}
		}
		if s.Next != nil {
			if targets[*s.Next] {
				bad("workflow.steps[%d] %s: two steps lead to %s; steps form one chain", i, s.ID, *s.Next)
			}
			targets[*s.Next] = true
		}
	}
	for i, s := range steps {
		if s.Next != nil && !ids[*s.Next] {
			bad("workflow.steps[%d] %s: next %q is no step", i, s.ID, *s.Next)
		}
	}
	if len(errs) == 0 {
		if _, err := d.chain(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// chain returns the steps in the order they run.
func (d *Definition) chain() ([]Step, error) {
	byID := map[string]Step{}
	led := map[string]bool{}
	for _, s := range d.Workflow.Steps {
		byID[s.ID] = s
		if s.Next != nil {
			led[*s.Next] = true
		}
	}
	var out []Step
	for _, s := range d.Workflow.Steps {
		if led[s.ID] {
			continue
		}
		if out != nil {
			return nil, fmt.Errorf("workflow.steps: both %s and %s could be first; steps form one chain", out[0].ID, s.ID)
		}
		for at, ok := s, true; ok; {
			out = append(out, at)
			if at.Next == nil {
				break
			}
			at, ok = byID[*at.Next]
		}
	}
	if len(out) != len(d.Workflow.Steps) {
		return nil, errors.New("workflow.steps: the steps form a circle; one must end with next: null")
	}
	return out, nil
}

// Initiator returns the participant that drives the runs.
func (d *Definition) Initiator() transport.OrgID {
	for _, p := range d.Participants {
		if p.Role == "initiator" {
			return p.ID
		}
	}
	return ""
}

// Participant reports whether org is to sign the definition.
func (d *Definition) Participant(org transport.OrgID) bool {
	return slices.ContainsFunc(d.Participants, func(p Participant) bool { return p.ID == org })
}

// sharing returns the restrictions under which data type t may pass from one organisation to another, and whether any
// rule lets it pass. Several rules for the same pair and type bind together.
func (d *Definition) sharing(from, to transport.OrgID, t string) (restrictions []string, ok bool) {
	for _, s := range d.Governance.DataSharing {
		if s.From == from && s.To == to && slices.Contains(s.DataTypes, t) {
			restrictions, ok = union(restrictions, s.Restrictions), true
		}
	}
	return restrictions, ok
}

// union returns the sorted union of two sets of names.
func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}
