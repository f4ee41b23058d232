package member

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A Candidate is a change that has been proposed and awaits approvals: a member record, or a charter.
type Candidate struct {
	Member  *SignedRecord `json:"member,omitempty"`
	Charter *Charter      `json:"charter,omitempty"`
}

// Subject is whom the candidate is about; for a charter it is the chair.
func (c Candidate) Subject(s *Set) OrgID {
	if c.Member != nil {
		return c.Member.Record.OrganizationID
	}
	return s.chair
}

// Hash is what approvals of the candidate sign.
func (c Candidate) Hash() (string, error) {
	switch {
	case c.Member != nil && c.Charter == nil:
		return c.Member.Record.Hash()
	case c.Charter != nil && c.Member == nil:
		return c.Charter.hash()
	}
	return "", errors.New("a candidate is a member record or a charter")
}

func (c Candidate) action() string {
	if c.Member != nil {
		return actionMember
	}
	return actionCharter
}

// Approve signs that the candidate may come into effect, after verifying it.
func (c Candidate) Approve(federationID string, p Approver) (Approval, error) {
	if c.Member != nil {
		return ApproveMember(federationID, *c.Member, p)
	}
	return ApproveCharter(federationID, *c.Charter, p)
}

// A Standing is how far a candidate has come.
type Standing struct {
	Approved []OrgID `json:"approved"`
	Missing  []OrgID `json:"missing"` // members that have yet to approve
	Need     int     `json:"need"`    // approvals
	Self     bool    `json:"self"`    // its subject has to be among the approvers
	InForce  bool    `json:"in_force"`
}

// Complete reports whether the approvals suffice.
func (t Standing) Complete(subject OrgID) bool {
	return len(t.Approved) >= t.Need && (!t.Self || slices.Contains(t.Approved, subject))
}

// Check verifies a candidate against this set in all but approvals: that a record is its organisation's own, and that
// it may follow the one in force.
func (s *Set) Check(c Candidate) error {
	if _, err := c.Hash(); err != nil {
		return err
	}
	if c.Charter != nil {
		if err := c.Charter.check(); err != nil {
			return err
		}
		if c.Charter.Sequence <= s.charter.Sequence {
			return fmt.Errorf("charter of sequence %d; %d is in force", c.Charter.Sequence, s.charter.Sequence)
		}
		return nil
	}
	e := newEntry(typeMember, actionMember, c.Member.Record.OrganizationID, s.members[s.chair].Since)
	e.Member = c.Member
	m, _, err := s.member(&e)
	if err != nil {
		return err
	}
	if err := s.checkKeys(m); err != nil {
		return err
	}
	if old, known := s.members[m.ID]; known {
		return m.replaces(old)
	}
	return nil
}

// Stand counts the approvals of a candidate that hold under this set. Those that do not are left out.
func (s *Set) Stand(c Candidate, approvals map[OrgID]Approval) (t Standing, valid []Approval) {
	hash, err := c.Hash()
	if err != nil {
		return t, nil
	}
	t.Need, t.Self = s.needed(c)
	if c.Member != nil {
		old, known := s.members[c.Member.Record.OrganizationID]
		if known {
			now, err := old.record.Record.Hash()
			t.InForce = err == nil && now == hash
		}
	} else {
		now, err := s.charter.hash()
		t.InForce = err == nil && now == hash
	}
	t.Approved, t.Missing = []OrgID{}, []OrgID{}
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		e := entry{Approvals: []Approval{approvals[id]}}
		if approvals[id].OrganizationID == id {
			if _, err := s.approvals(&e, c.action(), hash); err == nil {
				t.Approved, valid = append(t.Approved, id), append(valid, approvals[id])
				continue
			}
		}
		t.Missing = append(t.Missing, id)
	}
	return t, valid
}

// needed returns how many approvals the candidate needs, and whether its subject's must be among them.
func (s *Set) needed(c Candidate) (n int, self bool) {
	if c.Charter != nil {
		return needed(s.charter.Approvals.Charter, len(s.members)), false
	}
	old, known := s.members[c.Member.Record.OrganizationID]
	if !known {
		return needed(s.charter.Approvals.Member, len(s.members)), false
	}
	rule := s.updateRule(c.Member.Record, old.record.Record)
	if rule == "self" {
		return 1, true
	}
	return needed(rule, len(s.members)), true
}

// Enact appends a candidate with the approvals that hold. Only the chair does.
func (g *Governance) Enact(ctx context.Context, c Candidate, approvals []Approval) error {
	if c.Member != nil {
		return g.Admit(ctx, *c.Member, approvals)
	}
	return g.SetCharter(ctx, *c.Charter, approvals)
}
