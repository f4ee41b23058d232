package flow

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"fednode/transport"
)

// apply takes a result into the run. The artifact versions are the initiator's to number.
func (d *driver) apply(s *StepRun, res *stepResult) {
	if res.Status == "completed" {
		if err := d.adopt(s, res.Outputs); err != nil {
			res = &stepResult{Status: "failed", Error: err}
		}
	}
	switch {
	case res.Status == "completed":
		s.State, s.Finished, s.Automatic, s.Error, s.Request, s.Salt = StateCompleted, stamp(d.e.c.Now()), res.Automatic, nil, nil, nil
		d.publish(s, "")
		return
	case res.Error.Code == string(transport.CodeLost) && s.Attempt < maxAttempts:
		d.rewind(s, res.Error)
		return
	case res.Error.Code == codeGrantExpired && s.Attempt < maxAttempts:
		s.again()
		d.publish(s, "its grants ended while this node was away; beginning again with new ones")
		return
	}
	d.stop(s, StateFailed, res.Error)
	d.publish(s, res.Error.Error())
}

// adopt lists a step's outputs in the run, and its executor as a holder of its inputs.
func (d *driver) adopt(s *StepRun, outputs []ArtifactRef) *StepError {
	decl, err := d.a.declaration(d.definition(s.ID))
	if err != nil {
		return &StepError{Code: "malformed", Text: err.Error()}
	}
	var req stepRequest
	if err := json.Unmarshal(s.Request, &req); err != nil {
		return &StepError{Code: "internal", Text: "request: " + err.Error()}
	}
	var origins []transport.OrgID
	var restrictions []string
	for _, in := range req.Input.Artifacts {
		origins = append(origins, in.Origin)
		if in.Origin != s.Organization { // restrictions bind recipients, never the origin
			restrictions = union(restrictions, in.Restrictions)
		}
		for i := range d.run.Artifacts {
			if a := &d.run.Artifacts[i]; a.ID == in.ID && !slices.Contains(a.Holders, s.Organization) {
				a.Holders = append(a.Holders, s.Organization)
			}
		}
	}
	s.Outputs = nil
	for _, o := range outputs {
		if !slices.Contains(decl.Outputs, o.Type) {
			return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned a %q, which step %s does not declare", s.Organization, o.Type, s.ID)}
		}
		if c, err := base64.StdEncoding.Strict().DecodeString(o.Commitment); err != nil || len(c) != 32 || o.ID == "" || len(o.ID) > 64 || o.Size < 0 || o.Size > MaxArtifact || !typeRE.MatchString(o.MediaType) {
			return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned an output that is not well formed", s.Organization)}
		}
		if o.Origin != derivedOrigin(s.Organization, origins) || len(union(restrictions, o.Restrictions)) != len(o.Restrictions) {
			return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned a %q without the origin or the restrictions of its inputs", s.Organization, o.Type)}
		}
		version := 0
		for _, a := range d.run.Artifacts {
			if a.ID == o.ID {
				return &StepError{Code: "malformed", Text: fmt.Sprintf("%s returned an output under an id that is taken", s.Organization)}
			}
			if a.Type == o.Type {
				version = max(version, a.Version)
			}
		}
		o.Version = version + 1
		o.MadeBy, o.Holders = s.ID, []transport.OrgID{s.Organization}
		d.run.Artifacts = append(d.run.Artifacts, o)
		s.Outputs = append(s.Outputs, o.ID)
	}
	return nil
}

// rewind begins again after an organisation lost what it held in memory: it is no holder any more, and the earliest
// step whose outputs nobody holds now runs again, as a new, recorded attempt.
func (d *driver) rewind(s *StepRun, lost *StepError) {
	holder := lost.Holder
	if holder == "" {
		holder = s.Organization
	}
	gone := map[string]bool{} // steps to run again
	gone[s.ID] = true
	for i := range d.run.Artifacts {
		a := &d.run.Artifacts[i]
		if a.Origin == holder && a.MadeBy == "" {
			continue // the run's input is on its owner's disk
		}
		a.Holders = slices.DeleteFunc(a.Holders, func(o transport.OrgID) bool { return o == holder })
		if len(a.Holders) == 0 && a.MadeBy != "" {
			gone[a.MadeBy] = true
		}
	}
	again := false
	for i := range d.run.Steps {
		step := &d.run.Steps[i]
		again = again || gone[step.ID]
		if again && (step.State == StateCompleted || step.ID == s.ID) {
			step.again()
		}
	}
	d.run.Artifacts = slices.DeleteFunc(d.run.Artifacts, func(a ArtifactRef) bool { return len(a.Holders) == 0 })
	d.publish(s, fmt.Sprintf("%s lost its memory; beginning again from a source", holder))
}
