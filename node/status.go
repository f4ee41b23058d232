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
	Alarms       []Finding        `json:"alarms"` // what is wrong or will soon be, worst first
	Tasks        []Task           `json:"tasks"`  // what waits for a human here
	Peers        []Peer           `json:"peers"`  // the other members
}

// A Task is something that waits for a human of this organisation.
type Task struct {
	Kind    string `json:"kind"` // step, agreement, record or charter
	Text    string `json:"text"`
	Command string `json:"command"` // with which to attend to it
}

// A Peer is another member as this node reaches it.
type Peer struct {
	ID        transport.OrgID `json:"organization_id"`
	Chair     bool            `json:"chair"`
	Suspended bool            `json:"suspended"`
	Lane      transport.Lane  `json:"lane,omitempty"` // of the connection in use, if there is one
	RTT       time.Duration   `json:"rtt"`            // nanoseconds; 0 if it is not known
	Since     time.Time       `json:"since,omitzero"` // when that connection came about
	transport.Reach
	Seen int64 `json:"seen"` // entries of its log that this node has seen
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
	case gov.Ahead(at):
		st.Alarm = fmt.Sprintf("confirmed by a quorum of the members at %s, which is yet to come: the clock of this node (%s) is wrong, or theirs were; once they are right, the chair has it confirmed anew within the hour",
			stamp(at), stamp(n.site.now()))
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
		if c.Awaits(n.site.Org()) {
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
	if st.FreeDisk, err = freeDisk(n.site.Dir); err != nil {
		return st, err
	}
	if st.Peers, err = n.peers(); err != nil {
		return st, err
	}
	st.Tasks = n.tasks(agreements, waiting)
	st.Alarms = n.alarms(st)
	return st, nil
}

// peers describes the other members, by id.
func (n *Node) peers() ([]Peer, error) {
	out := []Peer{}
	sessions := n.transport.Sessions()
	for _, m := range n.site.members.Current().All() {
		if m.ID == n.site.Org() {
			continue
		}
		p := Peer{ID: m.ID, Chair: m.Chair, Suspended: m.Suspended, Reach: n.transport.Reach(m.ID)}
		known, err := n.transport.KnownHead(m.ID)
		if err != nil {
			return nil, err
		}
		p.Seen = known.Size
		for _, s := range sessions {
			// The connection that this node made is the one in use; the peer's own says as well that it is there.
			if s.Org == m.ID && (p.Lane == "" || !s.Inbound) {
				p.Lane, p.RTT, p.Since = s.Lane, s.RTT, s.Since
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// tasks names what waits for a human.
func (n *Node) tasks(agreements []*flow.Agreement, steps []flow.Approval) []Task {
	out := []Task{}
	for _, a := range steps {
		out = append(out, Task{"step", fmt.Sprintf("%s of %s", a.Step, a.Workflow), "fednode flow approve " + string(a.Run)})
	}
	for _, a := range agreements {
		if a.State == flow.Pending {
			out = append(out, Task{"agreement", a.Definition.Name, "fednode flow accept " + a.Hash[:12]})
		}
	}
	for _, c := range n.Candidates() {
		switch {
		case !c.Awaits(n.site.Org()):
		case c.Organization == "":
			out = append(out, Task{"charter", "brought in by " + string(c.Sponsor), "fednode charter approve"})
		default:
			out = append(out, Task{"record", string(c.Organization) + ", brought in by " + string(c.Sponsor), "fednode members approve " + string(c.Organization)})
		}
	}
	return out
}

// alarms names what is wrong or will soon be, with its mend, worst first.
func (n *Node) alarms(st Status) []Finding {
	c := &chart{by: n.site.Org(), about: n.site.Org()}
	if n.lookAtAuthorities(c) {
		c.leaf(n.site.now(), n.leaf.Leaf().Leaf.NotAfter)
	}
	n.lookAtGovernance(c)
	n.lookAtLog(c)
	c.vitals(vitals{free: st.FreeDisk}, nil)
	if st.Evidence > 0 {
		c.problem(CheckLog, fmt.Sprintf("evidence that a member's log was rolled back or forked: %d kept", st.Evidence), "call its operator; until that is explained, fednode members suspend denies it everything here")
	}
	for _, p := range st.Peers {
		if !p.Suspended && !p.Failed.IsZero() {
			about := &chart{by: n.site.Org(), about: p.ID}
			about.warning(CheckMembership, fmt.Sprintf("%s has not been reached for %s", p.ID, age(n.site.now().Sub(p.Failed))), "fednode doctor "+string(p.ID))
			c.findings = append(c.findings, about.findings...)
		}
	}
	out := slices.DeleteFunc(c.findings, func(f Finding) bool { return f.State == FindingOK || f.State == FindingSkipped })
	slices.SortStableFunc(out, func(a, b Finding) int { return severity(a) - severity(b) })
	return out
}

func severity(f Finding) int {
	if f.State == FindingProblem {
		return 0
	}
	return 1
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
		fail("certificate", "expired at "+until.UTC().Format(time.RFC3339)+"; fednode status says why")
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
