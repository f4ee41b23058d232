package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"fednode/flow"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/transport"
	"fednode/transport/member"
)

// Message types of candidates; append-only.
const (
	msgProposal  = "governance-proposal"  // a member brings a candidate in, at the chair
	msgApproval  = "governance-approval"  // a member approves, or takes that back, at the chair
	msgCandidate = "governance-candidate" // the chair tells a member what awaits approval
)

const (
	bucketCandidates = "governance/candidates" // hash → candidate
	maxCandidates    = 128                     // of one sponsor
	candidateLife    = 30 * 24 * time.Hour
)

// A candidate is a change of membership or charter that awaits approvals, as one node knows it.
type candidate struct {
	member.Candidate
	Sponsor   transport.OrgID                     `json:"sponsor"` // who brought it in
	Since     string                              `json:"since"`
	Proposed  string                              `json:"proposed,omitempty"`  // at the chair: Since, as the sponsor has it
	Approvals map[transport.OrgID]member.Approval `json:"approvals,omitempty"` // at the chair everybody's, elsewhere the own one
	Approved  []transport.OrgID                   `json:"approved,omitempty"`  // elsewhere: whose the chair has, as it last said
	Withdrawn bool                                `json:"withdrawn,omitempty"` // the own approval was taken back
	Rejected  bool                                `json:"rejected,omitempty"`  // its sponsor or the chair has taken it out
}

// A CandidateView is a candidate for people.
type CandidateView struct {
	Hash         string          `json:"hash"`
	Organization transport.OrgID `json:"organization_id,omitempty"` // empty for a charter
	Name         string          `json:"name,omitempty"`
	Domain       string          `json:"domain,omitempty"`
	Jurisdiction string          `json:"jurisdiction,omitempty"`
	Endpoints    []string        `json:"endpoints,omitempty"`
	RootSHA256   []string        `json:"root_sha256,omitempty"`
	Update       bool            `json:"update"` // of a member's record
	Charter      *member.Charter `json:"charter,omitempty"`
	Sponsor      transport.OrgID `json:"sponsor"`
	Since        string          `json:"since"`
	Standing     member.Standing `json:"standing"`
	Complete     bool            `json:"complete"` // has all approvals
	Waiting      string          `json:"waiting,omitempty"`
}

// Awaits reports whether it is org's approval, too, that the candidate needs and has not.
func (v CandidateView) Awaits(org transport.OrgID) bool {
	return !v.Complete && slices.Contains(v.Standing.Missing, org)
}

// A notice is what messages about candidates carry.
type notice struct {
	member.Candidate
	Hash      string            `json:"hash,omitempty"`
	Sponsor   transport.OrgID   `json:"sponsor,omitempty"`
	Since     string            `json:"since,omitempty"`
	Proposed  string            `json:"proposed,omitempty"`
	Approved  []transport.OrgID `json:"approved,omitempty"`
	Approval  *member.Approval  `json:"approval,omitempty"`
	Withdrawn bool              `json:"withdrawn,omitempty"` // the approval, or else the candidate
}

// A clerk keeps the candidates. The chair's collects the approvals, and enacts what has enough of them.
type clerk struct {
	gov      *member.Governance
	self     transport.OrgID
	db       *store.DB
	now      func() time.Time
	approver func() member.Approver
	changed  func() // is called after every change

	mu      sync.Mutex
	open    map[string]*candidate
	version uint64                 // counts what the members do not know yet; at the chair
	acked   map[string]string      // elsewhere: what the chair has confirmed of a candidate
	trouble map[string]string      // elsewhere: why the chair has not
	checked map[string]*member.Set // under which a candidate was last found to be possible
}

func newClerk(gov *member.Governance, site *Site, changed func()) (*clerk, error) {
	c := &clerk{gov: gov, self: site.Org(), db: site.db, now: site.now, approver: site.approver, changed: changed,
		open: map[string]*candidate{}, acked: map[string]string{}, trouble: map[string]string{}, checked: map[string]*member.Set{}}
	err := c.db.View(func(tx *store.Tx) error {
		b := tx.Bucket(bucketCandidates)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			x := new(candidate)
			if err := json.Unmarshal(v, x); err != nil {
				return fmt.Errorf("candidate %s: %w", k, err)
			}
			c.open[string(k)] = x
			return nil
		})
	})
	c.version = uint64(len(c.open))
	return c, err
}

// Version returns a number that grows with what the members have to be told.
func (c *clerk) Version() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// keep writes a candidate, or deletes it if it is nil, in one transaction with also. c.mu is held.
func (c *clerk) keep(ctx context.Context, hash string, x *candidate, also ...func(*store.Tx) error) error {
	err := c.db.Update(ctx, func(tx *store.Tx) error {
		for _, fn := range also {
			if err := fn(tx); err != nil {
				return err
			}
		}
		if x == nil {
			return tx.Bucket(bucketCandidates).Delete([]byte(hash))
		}
		v, err := json.Marshal(x)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketCandidates).Put([]byte(hash), v)
	})
	if err != nil {
		return err
	}
	if x == nil {
		delete(c.open, hash)
		delete(c.acked, hash)
		delete(c.trouble, hash)
		delete(c.checked, hash)
	} else {
		c.open[hash] = x
	}
	c.version++
	return nil
}

// clone returns a copy that can be changed.
func (x candidate) clone() *candidate {
	x.Approvals = maps.Clone(x.Approvals)
	if x.Approvals == nil {
		x.Approvals = map[transport.OrgID]member.Approval{}
	}
	return &x
}

// propose takes in a candidate that sponsor brings, in one transaction with also. The same one again changes nothing
// about it.
func (c *clerk) propose(ctx context.Context, m member.Candidate, sponsor transport.OrgID, since string, also ...func(*store.Tx) error) (hash string, err error) {
	if hash, err = m.Hash(); err != nil {
		return "", err
	}
	set := c.gov.Current()
	if t, _ := set.Stand(m, nil); t.InForce {
		return hash, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, known := c.open[hash]; known && !x.Rejected {
		if len(also) == 0 {
			return hash, nil
		}
		return hash, c.keep(ctx, hash, x, also...)
	}
	if err := set.Check(m); err != nil {
		return "", err
	}
	count := 0
	for _, x := range c.open {
		if x.Sponsor == sponsor {
			count++
		}
	}
	if count >= maxCandidates {
		return "", &transport.Error{Code: transport.CodeOverloaded, Text: fmt.Sprintf("%d candidates of %s await approval already", count, sponsor)}
	}
	return hash, c.keep(ctx, hash, &candidate{Candidate: m, Sponsor: sponsor, Since: since}, also...)
}

// called reports whether name stands for the candidate: its organisation, or its hash or the beginning of it.
func (x candidate) called(hash, name string) bool {
	org := transport.OrgID("charter")
	if x.Member != nil {
		org = x.Member.Record.OrganizationID
	}
	return string(org) == name || len(name) >= 8 && len(name) <= len(hash) && hash[:len(name)] == name
}

// replaced refuses to take a name for a candidate if it stood for another one before, which was taken out: who has looked at
// that one means that one. c.mu is held.
func (c *clerk) replaced(name, hash string) error {
	for other, y := range c.open {
		if !y.Rejected || other == hash || !y.called(other, name) {
			continue
		}
		what := ""
		if x := c.open[hash]; x != nil && x.Member != nil {
			for _, der := range x.Member.Record.Roots {
				what += ", root sha256 " + fingerprintDER(der)
			}
		}
		return fmt.Errorf("%w: another record called %s, %.12s, was taken out; compare the fingerprint of the one that awaits approval now, and name that by its whole hash: %s%s",
			flow.ErrMisuse, name, other, hash, what)
	}
	return nil
}

// find returns the candidate that a hash, the beginning of one, or an organisation names.
func (c *clerk) find(name string) (string, *candidate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []string
	for hash, x := range c.open {
		if !x.Rejected && x.called(hash, name) {
			found = append(found, hash)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		return "", nil, fmt.Errorf("%q: %w among what awaits approval; see fednode members list", name, flow.ErrNotFound)
	case 1:
		return found[0], c.open[found[0]], nil
	}
	return "", nil, fmt.Errorf("%w: %d records called %s await approval, of different keys: name one by the beginning of its hash: %.12s, %.12s …",
		flow.ErrMisuse, len(found), name, found[0], found[1])
}

// approve gives this organisation's approval, or takes it back.
func (c *clerk) approve(ctx context.Context, name string, withdraw bool) (hash string, err error) {
	hash, _, err = c.find(name)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	x, ok := c.open[hash]
	if !ok {
		c.mu.Unlock()
		return hash, nil
	}
	next := x.clone()
	next.Withdrawn = withdraw
	if withdraw {
		delete(next.Approvals, c.self)
	} else if err = c.replaced(name, hash); err == nil {
		set := c.gov.Current()
		err = set.Check(x.Candidate)
		if err == nil {
			next.Approvals[c.self], err = x.Approve(set.FederationID(), c.approver())
		}
	}
	if err == nil {
		err = c.keep(ctx, hash, next)
	}
	c.mu.Unlock()
	if err != nil {
		return "", err
	}
	c.enact(ctx)
	c.changed()
	return hash, nil
}

// views returns the candidates, oldest first.
func (c *clerk) views() []CandidateView {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.gov.Current()
	out := []CandidateView{}
	for hash, x := range c.open {
		if t, _ := set.Stand(x.Candidate, nil); !x.Rejected && !t.InForce {
			out = append(out, c.view(set, hash, x))
		}
	}
	slices.SortFunc(out, func(a, b CandidateView) int {
		if a.Since+a.Hash < b.Since+b.Hash {
			return -1
		}
		return 1
	})
	return out
}

func (c *clerk) view(set *member.Set, hash string, x *candidate) CandidateView {
	v := CandidateView{Hash: hash, Sponsor: x.Sponsor, Since: x.Since, Charter: x.Charter}
	v.Standing, _ = set.Stand(x.Candidate, x.Approvals)
	for _, org := range x.Approved { // as the chair says; it cannot use one that does not hold
		if i := slices.Index(v.Standing.Missing, org); i >= 0 && !(org == c.self && x.Withdrawn) {
			v.Standing.Missing = slices.Delete(v.Standing.Missing, i, i+1)
			v.Standing.Approved = append(v.Standing.Approved, org)
		}
	}
	v.Complete = v.Standing.Complete(x.Subject(set))
	if r := x.Member; r != nil {
		v.Organization, v.Name, v.Domain, v.Jurisdiction, v.Endpoints = r.Record.OrganizationID, r.Record.Name, r.Record.Domain, r.Record.Jurisdiction, r.Record.Endpoints
		for _, der := range r.Record.Roots {
			v.RootSHA256 = append(v.RootSHA256, fingerprintDER(der))
		}
		_, v.Update = set.Get(v.Organization)
	}
	switch flight := c.gov.Flight(); {
	case c.trouble[hash] != "":
		v.Waiting = c.trouble[hash]
	case v.Complete && flight != "":
		v.Waiting = "a change is " + flight
	}
	return v
}

// reported is what the chair has to know of a candidate here: that it exists, and what this organisation says to it.
func (c *clerk) reported(hash string, x *candidate) string {
	own, ok := x.Approvals[c.self]
	return fmt.Sprintf("%v %v %v %x", x.Sponsor == c.self, x.Rejected, x.Withdrawn, own.Signature) + fmt.Sprint(ok)
}

// report tells the chair, over call, what it has not confirmed yet.
func (c *clerk) report(ctx context.Context, call func(ctx context.Context, to transport.OrgID, messageType string, payload, answer any) error) error {
	if c.gov.Chair() {
		return nil
	}
	chair := c.gov.Current().Chair()
	c.mu.Lock()
	open := maps.Clone(c.open)
	acked := maps.Clone(c.acked)
	c.mu.Unlock()
	var errs []error
	for hash, x := range open {
		want := c.reported(hash, x)
		own, approved := x.Approvals[c.self]
		if acked[hash] == want || x.Sponsor != c.self && !approved && !x.Withdrawn {
			continue
		}
		var err error
		var answer notice
		if x.Sponsor == c.self {
			err = call(ctx, chair, msgProposal, notice{Candidate: x.Candidate, Since: x.Since, Withdrawn: x.Rejected}, &answer)
		}
		if err == nil && !x.Rejected && (approved || x.Withdrawn) {
			n := notice{Hash: hash, Withdrawn: x.Withdrawn}
			if approved {
				n.Approval = &own
			}
			err = call(ctx, chair, msgApproval, n, &answer)
		}
		c.mu.Lock()
		if err != nil {
			var refused *transport.Error
			if errors.As(err, &refused) && !errors.Is(err, transport.ErrUnreachable) {
				c.trouble[hash] = string(chair) + " (chair): " + refused.Text
			} else {
				c.trouble[hash] = string(chair) + " (chair) cannot be reached; it is told as soon as it can"
			}
			errs = append(errs, err)
		} else {
			c.acked[hash] = want
			delete(c.trouble, hash)
		}
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

// moving reports whether a new record of this organisation is on its way.
func (c *clerk) moving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.gov.Current()
	for _, x := range c.open {
		if x.Candidate.Member != nil && x.Candidate.Subject(set) == c.self && !x.Rejected {
			return true
		}
	}
	return false
}

// notices returns what the chair tells the members, and the version that it is of.
func (c *clerk) notices() (out []notice, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.gov.Current()
	for _, hash := range slices.Sorted(maps.Keys(c.open)) {
		x := c.open[hash]
		t, _ := set.Stand(x.Candidate, x.Approvals)
		out = append(out, notice{Candidate: x.Candidate, Sponsor: x.Sponsor, Since: x.Since, Proposed: x.Proposed, Approved: t.Approved, Withdrawn: x.Rejected})
	}
	return out, c.version
}

// handle serves the three message types.
func (c *clerk) handle(ctx context.Context, r *transport.Request) error {
	var n notice
	if err := jcs.Unmarshal(r.Payload, &n); err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: r.Envelope.MessageType + ": " + err.Error()}
	}
	fromChair := r.From.ID == c.gov.Current().Chair()
	var err error
	switch {
	case r.Envelope.MessageType == msgCandidate && fromChair:
		err = c.learn(ctx, n)
	case r.Envelope.MessageType == msgProposal && c.gov.Chair() && n.Withdrawn:
		err = c.withdraw(ctx, n.Candidate, r.From.ID)
	case r.Envelope.MessageType == msgProposal && c.gov.Chair():
		err = c.proposed(ctx, n, r.From.ID)
	case r.Envelope.MessageType == msgApproval && c.gov.Chair():
		err = c.collect(ctx, r.From.ID, n)
	default:
		err = errors.New("it is the chair that collects approvals")
	}
	var refused *transport.Error
	switch {
	case errors.As(err, &refused):
		return err
	case err != nil:
		return &transport.Error{Code: transport.CodeDenied, Text: err.Error()}
	}
	if err := r.Reply(ctx, notice{}, transport.ReplyOptions{}, nil); err != nil {
		return err
	}
	c.enact(ctx)
	c.changed()
	return nil
}

// collect takes a member's approval, or that it takes it back, at the chair.
func (c *clerk) collect(ctx context.Context, from transport.OrgID, n notice) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.open[n.Hash]
	if !ok {
		return &transport.Error{Code: transport.CodeNotFound, Text: "no such candidate awaits approval"}
	}
	next := x.clone()
	delete(next.Approvals, from)
	if !n.Withdrawn {
		if n.Approval == nil || n.Approval.OrganizationID != from {
			return errors.New("an approval is given by whom it is signed")
		}
		next.Approvals[from] = *n.Approval
		if t, _ := c.gov.Current().Stand(x.Candidate, next.Approvals); !slices.Contains(t.Approved, from) {
			return errors.New("the approval does not verify")
		}
	}
	return c.keep(ctx, n.Hash, next)
}
