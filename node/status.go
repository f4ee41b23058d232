package node

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fednode/flow"
	"fednode/store"
	"fednode/transport"
)

// Status is a node at a glance.
type Status struct {
	Federation   string          `json:"federation"`
	FederationID string          `json:"federation_id"`
	Organization transport.OrgID `json:"organization_id"`
	Instance     string          `json:"instance_id"`
	Version      string          `json:"version"`
	Started      time.Time       `json:"started"`
	Listen       string          `json:"listen"`
	Health       Health          `json:"health"`
	Members      int             `json:"members"`
	Chair        transport.OrgID `json:"chair"`
	Log          LogStatus       `json:"log"`
	Governance   LogStatus       `json:"governance"`
	Certificate  time.Time       `json:"certificate_expires"`
	Agreements   map[string]int  `json:"agreements"` // by state
	Runs         map[string]int  `json:"runs"`       // by state, of this initiator
	Waiting      int             `json:"approvals"`  // steps that wait for a human here
	Evidence     int             `json:"evidence"`   // pieces kept against logs that were rolled back or forked
	InMemory     int             `json:"artifacts_in_memory"`
	OnDisk       int             `json:"artifacts_on_disk"`
	FreeDisk     uint64          `json:"free_disk_bytes"`
}

// LogStatus is the head of a log.
type LogStatus struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
}

// Status gathers the node's state.
func (n *Node) Status() (Status, error) {
	set := n.site.members.Current()
	own, gov := n.Log.Head(), set.Head()
	st := Status{Federation: set.Name(), FederationID: set.FederationID(), Organization: n.site.Org(), Instance: string(n.site.Config.Instance),
		Version: Version(), Started: n.started, Listen: n.conn.LocalAddr().String(), Health: n.Health(), Members: len(set.All()), Chair: set.Chair(),
		Log:         LogStatus{n.site.logOrigin(), own.Size, own.Root.String()},
		Governance:  LogStatus{set.GovOrigin(), gov.Size, gov.Root.String()},
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
	waiting, err := n.Engine.Approvals()
	if err != nil {
		return st, err
	}
	st.Waiting = len(waiting)
	err = n.site.db.View(func(tx *store.Tx) error {
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

func freeDisk(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("free disk of %s: %w", dir, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// Health is what /health, /livez and /readyz answer.
type Health struct {
	Status string            `json:"status"` // healthy or unhealthy
	Checks map[string]string `json:"checks"` // each "ok" or what is wrong
}

// minFreeDisk is below what a node calls itself unhealthy, in bytes.
const minFreeDisk = 64 << 20

// Health checks that the node serves, that its certificate is valid and that the disk has room.
func (n *Node) Health() Health {
	h := Health{Status: "healthy", Checks: map[string]string{"serving": "ok", "certificate": "ok", "disk": "ok"}}
	fail := func(check, text string) { h.Status, h.Checks[check] = "unhealthy", text }
	if !n.ready.Load() {
		fail("serving", "starting or stopping")
	}
	if until := n.leaf.Leaf().Leaf.NotAfter; n.site.now().After(until) {
		fail("certificate", "expired at "+until.UTC().Format(time.RFC3339)+"; check the clock and the issuing CA")
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
	Since        time.Time       `json:"since"`
	Sequence     int64           `json:"sequence"`
	LogOrigin    string          `json:"log_origin"`
	RootSHA256   []string        `json:"root_sha256"` // of its root certificates
}

// Members returns the members, by id.
func (n *Node) Members() []MemberView {
	out := []MemberView{}
	for _, m := range n.site.members.Current().All() {
		v := MemberView{ID: m.ID, Name: m.Name, Domain: m.Domain, Jurisdiction: m.Jurisdiction, Endpoints: slices.Clone(m.Endpoints), Chair: m.Chair,
			Self: m.ID == n.site.Org(), Suspended: m.Suspended, Since: m.Since, Sequence: m.Sequence, LogOrigin: m.LogOrigin()}
		for _, r := range m.Roots {
			v.RootSHA256 = append(v.RootSHA256, fingerprint(r))
		}
		out = append(out, v)
	}
	return out
}
