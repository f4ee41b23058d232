package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fednode/flow"
	"fednode/store"
	"fednode/transport"
	"fednode/transport/member"
)

// Status is a node at a glance.
type Status struct {
	Federation   string           `json:"federation"`
	FederationID string           `json:"federation_id"`
	Organization transport.OrgID  `json:"organization_id"`
	Instance     string           `json:"instance_id"`
	Version      string           `json:"version"`
	Started      time.Time        `json:"started"`
	Listen       string           `json:"listen"`
	Health       Health           `json:"health"`
	Members      int              `json:"members"`
	Chair        transport.OrgID  `json:"chair"`
	Log          LogStatus        `json:"log"`
	Governance   GovernanceStatus `json:"governance"`
	Certificate  time.Time        `json:"certificate_expires"`
	Agreements   map[string]int   `json:"agreements"` // by state
	Runs         map[string]int   `json:"runs"`       // by state, of this initiator
	Candidates   int              `json:"candidates"` // records and charters that wait for this organisation's approval
	Waiting      int              `json:"approvals"`  // steps that wait for a human here
	Evidence     int              `json:"evidence"`   // pieces kept against logs that were rolled back or forked
	InMemory     int              `json:"artifacts_in_memory"`
	OnDisk       int              `json:"artifacts_on_disk"`
	FreeDisk     uint64           `json:"free_disk_bytes"`
}

// LogStatus is the head of a log.
type LogStatus struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
}

// GovernanceStatus is the head of this node's copy of the governance log, and how far the members stand behind it.
type GovernanceStatus struct {
	LogStatus
	InEffect  int64     `json:"in_effect"`           // entries whose changes are in force
	Confirmed time.Time `json:"confirmed,omitzero"`  // when a quorum of the members last did
	Cosigned  int       `json:"cosigned"`            // members whose cosignature of the head is here
	InFlight  string    `json:"in_flight,omitempty"` // what the change that is not in effect waits for
	Alarm     string    `json:"alarm,omitempty"`
}

// governance describes this node's copy of the governance log.
func (n *Node) governance() GovernanceStatus {
	gov := n.site.members
	set, head := gov.Current(), gov.Log().Head()
	st := GovernanceStatus{LogStatus: LogStatus{set.GovOrigin(), head.Size, head.Root.String()}, InEffect: set.Head().Size, InFlight: gov.Flight(), Cosigned: gov.Cosigned()}
	at, certified := gov.Seen()
	if !certified {
		return st
	}
	st.Confirmed = at
	fresh := set.Charter().Freshness
	switch age := n.site.now().Sub(at); {
	case gov.Frozen() != "":
		st.Alarm = "frozen: " + gov.Frozen()
	case age > time.Duration(fresh.Limit):
		st.Alarm = fmt.Sprintf("not confirmed by a quorum of the members for %s: new runs, attempts and grants are refused until they are reached", age.Round(time.Minute))
	case age > time.Duration(fresh.Alarm):
		st.Alarm = fmt.Sprintf("not confirmed by a quorum of the members for %s; new work stops after %s: see who cannot be reached", age.Round(time.Minute), time.Duration(fresh.Limit))
	}
	return st
}

// Status gathers the node's state.
func (n *Node) Status() (Status, error) {
	set := n.site.members.Current()
	own := n.Log.Head()
	st := Status{Federation: set.Name(), FederationID: set.FederationID(), Organization: n.site.Org(), Instance: string(n.site.Config.Instance),
		Version: Version(), Started: n.started, Listen: n.conn.LocalAddr().String(), Health: n.Health(), Members: len(set.All()), Chair: set.Chair(),
		Log:         LogStatus{n.site.logOrigin(), own.Size, own.Root.String()},
		Governance:  n.governance(),
		Certificate: n.leaf.Leaf().Leaf.NotAfter, Agreements: map[string]int{}, Runs: map[string]int{}}
	agreements, err := n.Engine.Agreements()
	if err != nil {
		return st, err
	}
	for _, a := range agreements {
		st.Agreements[string(a.State)]++
	}
	runs, err := n.Engine.Runs()
	if err != nil {
		return st, err
	}
	for _, r := range runs {
		st.Runs[string(r.State)]++
	}
	for _, c := range n.Candidates() {
		if slices.Contains(c.Standing.Missing, n.site.Org()) {
			st.Candidates++
		}
	}
	waiting, err := n.Engine.Approvals()
	if err != nil {
		return st, err
	}
	st.Waiting = len(waiting)
	err = n.site.db.View(func(tx *store.Tx) error {
		if err := member.Forks(tx, func(member.Fork) error { st.Evidence++; return nil }); err != nil {
			return err
		}
		return transport.AllEvidence(tx, func(transport.Evidence) error { st.Evidence++; return nil })
	})
	if err != nil {
		return st, err
	}
	holdings, err := n.Engine.Holdings("")
	if err != nil {
		return st, err
	}
	for _, h := range holdings {
		switch h.Where {
		case flow.InMemory:
			st.InMemory++
		case flow.OnDisk:
			st.OnDisk++
		}
	}
	st.FreeDisk, err = freeDisk(n.site.Dir)
	return st, err
}

// Health is what /health, /livez and /readyz answer.
type Health struct {
	Status string            `json:"status"` // healthy or unhealthy
	Checks map[string]string `json:"checks"` // each "ok" or what is wrong
}

// Health checks that the node serves, that its certificate is valid, that the disk has room and that the members stand
// behind the governance log.
func (n *Node) Health() Health {
	h := Health{Status: "healthy", Checks: map[string]string{"serving": "ok", "certificate": "ok", "disk": "ok", "governance": "ok"}}
	fail := func(check, text string) { h.Status, h.Checks[check] = "unhealthy", text }
	if !n.ready.Load() {
		fail("serving", "starting or stopping")
	}
	if until := n.leaf.Leaf().Leaf.NotAfter; n.site.now().After(until) {
		fail("certificate", "expired at "+until.UTC().Format(time.RFC3339)+"; check the clock and the issuing CA")
	}
	if alarm := n.governance().Alarm; alarm != "" {
		fail("governance", alarm)
	}
	switch free, err := freeDisk(n.site.Dir); {
	case err != nil:
		fail("disk", err.Error())
	case free < minFreeDisk:
		fail("disk", fmt.Sprintf("%d MiB free; the node needs %d", free>>20, minFreeDisk>>20))
	}
	return h
}

// MemberView is a member as the governance log has it.
type MemberView struct {
	ID           transport.OrgID `json:"organization_id"`
	Name         string          `json:"name"`
	Domain       string          `json:"domain,omitempty"`
	Jurisdiction string          `json:"jurisdiction,omitempty"`
	Endpoints    []string        `json:"endpoints"`
	Chair        bool            `json:"chair"`
	Self         bool            `json:"self"`
	Suspended    bool            `json:"suspended"`
	Suspension   string          `json:"suspension,omitempty"` // since when, and why
	KeyIDs       []string        `json:"key_ids"`              // of messages, newest first
	Since        time.Time       `json:"since"`
	Sequence     int64           `json:"sequence"`
	LogOrigin    string          `json:"log_origin"`
	RootSHA256   []string        `json:"root_sha256"` // of its root certificates
	// Sessions are the connections to and from it.
	Sessions []transport.Session `json:"sessions,omitempty"`
}

// Members returns the members, by id.
func (n *Node) Members() []MemberView {
	out := []MemberView{}
	sessions := n.transport.Sessions()
	for _, m := range n.site.members.Current().All() {
		v := MemberView{ID: m.ID, Name: m.Name, Domain: m.Domain, Jurisdiction: m.Jurisdiction, Endpoints: slices.Clone(m.Endpoints), Chair: m.Chair,
			Self: m.ID == n.site.Org(), Suspended: m.Suspended, Since: m.Since, Sequence: m.Sequence, LogOrigin: m.LogOrigin()}
		if m.Suspended {
			v.Suspension = strings.TrimSpace("since " + m.Suspension.Since + " " + m.Suspension.Reason)
		}
		for _, k := range m.Record().Record.Keys.Message {
			v.KeyIDs = append(v.KeyIDs, k.KeyID)
		}
		for _, s := range sessions {
			if s.Org == m.ID {
				v.Sessions = append(v.Sessions, s)
			}
		}
		for _, r := range m.Roots {
			v.RootSHA256 = append(v.RootSHA256, fingerprint(r))
		}
		out = append(out, v)
	}
	return out
}
