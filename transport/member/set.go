package member

import (
	"crypto/ed25519"
	"crypto/x509"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fednode/store/ledger"
)

// A Member is an organisation in force.
type Member struct {
	ID           OrgID
	Name         string
	Domain       string
	Jurisdiction string
	Roots        []*x509.Certificate
	Endpoints    []string
	Sequence     int64
	Chair        bool
	Since        time.Time
	Suspended    bool       // by this node, locally
	Suspension   Suspension // if so

	keys     map[string]ed25519.PublicKey
	verifier note.Verifier
	cosigner note.Verifier // nil in federations of version 1
	record   SignedRecord
}

// MessageKey returns the key that the member record lists under keyID, or listed in an earlier record: what was signed
// with a key that has since been replaced keeps verifying.
func (m *Member) MessageKey(keyID string) (ed25519.PublicKey, bool) {
	k, ok := m.keys[keyID]
	return k, ok
}

// LogVerifier verifies the checkpoints of the member's own log.
func (m *Member) LogVerifier() note.Verifier { return m.verifier }

// LogOrigin names the member's own log.
func (m *Member) LogOrigin() string { return m.verifier.Name() }

// Record returns the signed record in force.
func (m *Member) Record() SignedRecord { return m.record }

// A Set is the members in force after a prefix of the governance log. It is never changed.
type Set struct {
	version      int // of the federation's entries
	federationID string
	name         string
	chair        OrgID
	charter      Charter
	head         ledger.Head
	gov          note.Verifier // of the chair's checkpoints
	members      map[OrgID]*Member
}

// FederationID is the leaf hash of the genesis entry, in lower-case hex.
func (s *Set) FederationID() string { return s.federationID }

// Name is the federation's name, for people.
func (s *Set) Name() string { return s.name }

// Chair is the member that sequences the governance log.
func (s *Set) Chair() OrgID { return s.chair }

// Charter is the charter in force.
func (s *Set) Charter() Charter { return s.charter }

// Head is the size and root of the part of the governance log that is in effect.
func (s *Set) Head() ledger.Head { return s.head }

// GovOrigin names the governance log of the epoch.
func (s *Set) GovOrigin() string { return govOrigin(s.federationID) }

// Get returns a member.
func (s *Set) Get(id OrgID) (*Member, bool) {
	m, ok := s.members[id]
	return m, ok
}

// All returns the members by id.
func (s *Set) All() []*Member {
	out := make([]*Member, 0, len(s.members))
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		out = append(out, s.members[id])
	}
	return out
}

// needs returns how many cosignatures make a certificate under this set.
func (s *Set) needs() int { return Quorum(len(s.members)) }

func govOrigin(federationID string) string { return "fednode/" + federationID + "/gov/0" }

// LogOrigin names an organisation's own log.
func LogOrigin(federationID string, org OrgID, generation int) string {
	return "fednode/" + federationID + "/" + string(org) + "/log/" + strconv.Itoa(generation)
}

// CosignerName names an organisation as a cosigner of other members' logs.
func CosignerName(federationID string, org OrgID) string {
	return "fednode/" + federationID + "/" + string(org) + "/cosigner"
}
