package member

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fednode/store/jcs"
	"fednode/store/ledger"
)

// Entry types of the governance log.
const (
	typeGenesis     = "genesis"
	typeMember      = "member"
	typeCharter     = "charter"
	typeCertificate = "certificate"
)

// Versions of a governance log, which its genesis decides. In version 1 an entry took effect as soon as it was in the
// log; such logs are read, and verify what rests on them, but nothing is added to them.
const (
	versionUncertified = 1
	versionCertified   = 2
)

const (
	nonceSize  = 16
	maxEntries = 100_000
	maxNoun    = 128
)

// An entry is one entry of the governance log. Which of the optional fields it has depends on its type.
type entry struct {
	V              int             `json:"v"`
	Type           string          `json:"type"`
	Category       ledger.Category `json:"category"` // federation_management
	Timestamp      string          `json:"timestamp"`
	OrganizationID OrgID           `json:"organization_id"` // whom it is about
	Action         string          `json:"action"`
	Result         string          `json:"result"` // ok
	Name           string          `json:"name,omitempty"`
	Nonce          []byte          `json:"nonce,omitempty"`
	Charter        *Charter        `json:"charter,omitempty"`
	Member         *SignedRecord   `json:"member,omitempty"`
	Certificate    *Certificate    `json:"certificate,omitempty"` // of exactly the log before this entry
	Approvals      []Approval      `json:"approvals"`
}

func newEntry(typ, action string, org OrgID, now time.Time) entry {
	return entry{V: versionCertified, Type: typ, Category: ledger.FederationManagement, Timestamp: now.UTC().Format(timeFormat), OrganizationID: org,
		Action: action, Result: "ok", Approvals: []Approval{}}
}

func (e entry) marshal() ([]byte, error) {
	b, err := jcs.Marshal(e)
	if err == nil && len(b) > ledger.MaxEntry {
		err = fmt.Errorf("governance entry of %d bytes; at most %d", len(b), ledger.MaxEntry)
	}
	return b, err
}

func parseEntry(b []byte) (*entry, error) {
	if len(b) > ledger.MaxEntry {
		return nil, fmt.Errorf("%d bytes; at most %d", len(b), ledger.MaxEntry)
	}
	var kind struct {
		V    int    `json:"v"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return nil, err
	}
	known := kind.Type == typeGenesis || kind.Type == typeMember || kind.Type == typeCharter || kind.Type == typeCertificate && kind.V == versionCertified
	if !known || kind.V != versionUncertified && kind.V != versionCertified {
		return nil, fmt.Errorf("type %.40q version %d is not known to this fednode; upgrade it", kind.Type, kind.V)
	}
	e := new(entry)
	if err := jcs.UnmarshalCanonical(b, e); err != nil {
		return nil, err
	}
	if _, err := parseTime(e.Timestamp); err != nil || e.Category != ledger.FederationManagement || e.Result != "ok" || len(e.Approvals) > 1000 {
		return nil, errors.New("timestamp, category, result or number of approvals")
	}
	return e, nil
}

// genesisHash is what the founder of a federation approves: the SHA-256 of `fednode/genesis/v1\n` + the canonical form
// of the entry without its approvals, in lower-case hex.
func (e entry) genesisHash() (string, error) {
	e.Approvals = []Approval{}
	b, err := jcs.Marshal(e)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(append([]byte("fednode/genesis/v1\n"), b...))
	return hex.EncodeToString(h[:]), nil
}

// CheckName checks the name of a federation to be.
func CheckName(name string) error {
	if name == "" || len(name) > maxNoun || !isText(name) {
		return fmt.Errorf("name of the federation %.40q: use 1 to %d printable characters, such as health-net", name, maxNoun)
	}
	return nil
}

// NewGenesis returns entry 0 of a new federation's governance log, approved by its founder. nonce has 16 random bytes.
func NewGenesis(name string, c Charter, founder SignedRecord, p Approver, nonce []byte, now time.Time) ([]byte, error) {
	e := newEntry(typeGenesis, actionFound, founder.Record.OrganizationID, now)
	e.Name, e.Nonce, e.Charter, e.Member = name, nonce, &c, &founder
	hash, err := e.genesisHash()
	if err != nil {
		return nil, err
	}
	a, err := p.sign("", actionFound, hash)
	if err != nil {
		return nil, err
	}
	e.Approvals = append(e.Approvals, a)
	b, err := e.marshal()
	if err != nil {
		return nil, err
	}
	_, err = Fold([][]byte{b})
	return b, err
}

// newMemberEntry returns an entry that admits a member, or renews its record.
func newMemberEntry(rec SignedRecord, approvals []Approval, now time.Time) entry {
	e := newEntry(typeMember, actionMember, rec.Record.OrganizationID, now)
	e.Member, e.Approvals = &rec, append(e.Approvals, approvals...)
	return e
}

// newCharterEntry returns an entry that changes the charter.
func newCharterEntry(c Charter, chair OrgID, approvals []Approval, now time.Time) entry {
	e := newEntry(typeCharter, actionCharter, chair, now)
	e.Charter, e.Approvals = &c, append(e.Approvals, approvals...)
	return e
}

func found(e *entry, b []byte) (*Set, error) {
	if e.Certificate != nil || e.Action != actionFound || e.Charter == nil || e.Member == nil || len(e.Nonce) != nonceSize || CheckName(e.Name) != nil || len(e.Approvals) != 1 {
		return nil, errors.New("a genesis has a name, a nonce of 16 bytes, a charter, a member and its approval")
	}
	if err := e.Charter.check(); err != nil {
		return nil, err
	}
	hash := ledger.LeafHash(b)
	s := &Set{version: e.V, federationID: hex.EncodeToString(hash[:]), name: e.Name, chair: e.OrganizationID, charter: *e.Charter, members: map[OrgID]*Member{}}
	m, _, err := s.member(e)
	if err != nil {
		return nil, err
	}
	m.Chair = true
	a := e.Approvals[0]
	key, ok := m.MessageKey(a.KeyID)
	if !ok || a.OrganizationID != m.ID {
		return nil, errors.New("the genesis is approved by its founder")
	}
	approved, err := e.genesisHash()
	if err != nil {
		return nil, err
	}
	if err := a.verify("", actionFound, approved, key); err != nil {
		return nil, err
	}
	s.members[m.ID] = m
	vkey, err := ledger.VKey(s.GovOrigin(), m.record.Record.Keys.Log.Public)
	if err != nil {
		return nil, err
	}
	s.gov, err = ledger.NewVerifier(vkey)
	return s, err
}

// member verifies the entry's record and makes a member of it.
func (s *Set) member(e *entry) (*Member, *verified, error) {
	v, err := e.Member.verify()
	if err != nil {
		return nil, nil, err
	}
	r := v.Record
	if r.OrganizationID != e.OrganizationID {
		return nil, nil, fmt.Errorf("entry about %.63s holds the record of %s", e.OrganizationID, r.OrganizationID)
	}
	since, err := parseTime(e.Timestamp)
	if err != nil {
		return nil, nil, err
	}
	m := &Member{ID: r.OrganizationID, Name: r.Name, Domain: r.Domain, Jurisdiction: r.Jurisdiction, Roots: v.roots, Endpoints: r.Endpoints,
		Sequence: r.Sequence, Since: since, keys: map[string]ed25519.PublicKey{}, record: v.SignedRecord}
	for _, k := range r.Keys.Message {
		m.keys[k.KeyID] = k.Public
	}
	vkey, err := ledger.VKey(LogOrigin(s.federationID, m.ID, r.Keys.Log.Generation), r.Keys.Log.Public)
	if err != nil {
		return nil, nil, err
	}
	if m.verifier, err = ledger.NewVerifier(vkey); err != nil {
		return nil, nil, err
	}
	if s.version == versionUncertified {
		return m, v, nil
	}
	if r.Keys.Cosigner == nil {
		return nil, nil, fmt.Errorf("record of %s has no cosigner key", m.ID)
	}
	m.cosigner, err = ledger.NewCosignatureVerifier(CosignerName(s.federationID, m.ID), r.Keys.Cosigner)
	return m, v, err
}

// at returns the set as of a head of the log.
func (s *Set) at(h ledger.Head) *Set {
	next := *s
	next.head = h
	return &next
}

// clone returns a set that can be changed.
func (s *Set) clone() *Set {
	next := *s
	next.members = maps.Clone(s.members)
	return &next
}

func (s *Set) withMember(e *entry) (*Set, error) {
	if e.Action != actionMember || e.Member == nil || e.Charter != nil || e.Name != "" || e.Nonce != nil {
		return nil, errors.New("a member entry has a member and its approvals")
	}
	m, v, err := s.member(e)
	if err != nil {
		return nil, err
	}
	if err := s.checkKeys(m); err != nil {
		return nil, err
	}
	old, known := s.members[m.ID]
	rule, self := s.charter.Approvals.Member, false
	if known {
		if err := m.replaces(old); err != nil {
			return nil, err
		}
		self = true
		rule = s.updateRule(m.record.Record, old.record.Record)
	}
	approved, err := s.approvals(e, actionMember, v.hash)
	if err != nil {
		return nil, err
	}
	if self && !approved[m.ID] {
		return nil, fmt.Errorf("a new record of %s needs its own approval", m.ID)
	}
	if need := needed(rule, len(s.members)); rule != "self" && len(approved) < need {
		return nil, fmt.Errorf("%d approvals for %s; the charter asks for %d of %d members", len(approved), m.ID, need, len(s.members))
	}
	next := s.clone()
	next.members[m.ID] = m
	return next, nil
}

// updateRule says who approves that a record replaces the one in force.
func (s *Set) updateRule(next, old Record) string {
	rule := s.charter.Approvals.RecordUpdate
	sameRoots := slices.EqualFunc(next.Roots, old.Roots, bytes.Equal)
	if rule == "self" && !(sameRoots && next.Keys.Log.Generation == old.Keys.Log.Generation) {
		return "quorum" // new roots are a new organisation in all but name; a new log leaves an old one behind
	}
	return rule
}

// checkKeys refuses a member that presents a key which another one has, or had.
func (s *Set) checkKeys(m *Member) error {
	for id, other := range s.members {
		if id == m.ID {
			continue
		}
		for _, k := range m.record.Possession {
			now := slices.ContainsFunc(other.record.Possession, func(p Possession) bool { return bytes.Equal(p.Public, k.Public) })
			before := slices.ContainsFunc(slices.Collect(maps.Values(other.keys)), func(p ed25519.PublicKey) bool { return bytes.Equal(p, k.Public) })
			if now || before {
				return fmt.Errorf("%s presents a key of %s", m.ID, id)
			}
		}
	}
	return nil
}

// replaces checks that m can follow old, the same organisation's record in force, and takes over what stays.
func (m *Member) replaces(old *Member) error {
	if m.Sequence <= old.Sequence {
		return fmt.Errorf("record of %s has sequence %d; %d is in force", m.ID, m.Sequence, old.Sequence)
	}
	was, is := old.record.Record.Keys.Log, m.record.Record.Keys.Log
	switch sameKey := bytes.Equal(was.Public, is.Public); {
	case is.Generation < was.Generation:
		return fmt.Errorf("record of %s goes back to generation %d of its log; %d is in force", m.ID, is.Generation, was.Generation)
	case sameKey != (is.Generation == was.Generation):
		return fmt.Errorf("record of %s: a new log key begins a new generation of its log, and a generation has one key", m.ID)
	case !sameKey && old.Chair:
		return fmt.Errorf("record of %s: the chair's log key signs the governance log and cannot change", m.ID)
	}
	for id, k := range old.keys {
		if nk, ok := m.keys[id]; ok && !bytes.Equal(nk, k) {
			return fmt.Errorf("%s reuses key id %.32q for another key", m.ID, id)
		}
		m.keys[id] = k
	}
	m.Since, m.Chair = old.Since, old.Chair
	return nil
}

func (s *Set) withCharter(e *entry) (*Set, error) {
	if e.Action != actionCharter || e.Charter == nil || e.Member != nil || e.Name != "" || e.Nonce != nil || e.OrganizationID != s.chair {
		return nil, errors.New("a charter entry has a charter, its approvals, and the chair's name")
	}
	if err := e.Charter.check(); err != nil {
		return nil, err
	}
	if e.Charter.Sequence <= s.charter.Sequence {
		return nil, fmt.Errorf("charter of sequence %d; %d is in force", e.Charter.Sequence, s.charter.Sequence)
	}
	hash, err := e.Charter.hash()
	if err != nil {
		return nil, err
	}
	approved, err := s.approvals(e, actionCharter, hash)
	if err != nil {
		return nil, err
	}
	if need := needed(s.charter.Approvals.Charter, len(s.members)); len(approved) < need {
		return nil, fmt.Errorf("%d approvals for the charter; %d of %d members are needed", len(approved), need, len(s.members))
	}
	next := s.clone()
	next.charter = *e.Charter
	return next, nil
}

// approvals verifies all approvals of an entry, under the members in force before it, and returns whose they are. One
// that does not verify spoils the entry: whoever sequenced it is at fault.
func (s *Set) approvals(e *entry, action, hash string) (map[OrgID]bool, error) {
	by := map[OrgID]bool{}
	for _, a := range e.Approvals {
		m, ok := s.members[a.OrganizationID]
		if !ok {
			return nil, fmt.Errorf("approval by %.63s, which is not a member", a.OrganizationID)
		}
		if by[m.ID] {
			return nil, fmt.Errorf("two approvals by %s", m.ID)
		}
		current := slices.ContainsFunc(m.record.Record.Keys.Message, func(k MessageKey) bool { return k.KeyID == a.KeyID })
		if key, _ := m.MessageKey(a.KeyID); !current {
			return nil, fmt.Errorf("approval by %s names key %.32q, which is not in its record", m.ID, a.KeyID)
		} else if err := a.verify(s.federationID, action, hash, key); err != nil {
			return nil, err
		}
		by[m.ID] = true
	}
	return by, nil
}
