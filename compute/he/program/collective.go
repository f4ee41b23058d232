package program

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/threshold"
)

// A Member is one of those who hold a key together.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address"` // host:port, where the others reach it
	Key     []byte `json:"key"`     // Ed25519
}

// maxMember bounds the text of a member.
const maxMember = 4 << 10

// ParseMember reads a member's card.
func ParseMember(file []byte) (Member, error) {
	var m Member
	if len(file) > maxMember {
		return m, fmt.Errorf("a card of %d bytes; at most %d are read", len(file), maxMember)
	}
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("not the card of a member: %w", err)
	}
	return m, m.Check()
}

// Check refuses a name or an address that the others could not use, or that shows as something else than it is.
func (m Member) Check() error {
	if err := printable(m.Name + m.Address); err != nil {
		return fmt.Errorf("the name or the address of a member has %w", err)
	}
	if m.Name == "" || len(m.Name) > 64 || strings.ContainsAny(m.Name, ", ") || len(m.Key) != ed25519.PublicKeySize {
		return fmt.Errorf("member %.80q: a name has 1 to 64 bytes, no space and no comma, and a key %d bytes", m.Name, ed25519.PublicKeySize)
	}
	if _, port, err := net.SplitHostPort(m.Address); err != nil || port == "0" || len(m.Address) > 300 {
		return fmt.Errorf("member %.80q: %.80q is no address HOST:PORT", m.Name, m.Address)
	}
	return nil
}

// RosterOf returns members as parties of a computation.
func RosterOf(members []Member) compute.Roster {
	var out compute.Roster
	for _, m := range members {
		out = append(out, compute.Party{Name: m.Name, Key: ed25519.PublicKey(m.Key)})
	}
	return out
}

func checkMembers(members []Member, holders Holders) error {
	if holders.Parties < 2 || len(members) != holders.Parties {
		return fmt.Errorf("%d members, and a plan for %s of the key", len(members), count(holders.Parties, "holder"))
	}
	for _, m := range members {
		if err := m.Check(); err != nil {
			return err
		}
	}
	return RosterOf(members).Check()
}

// A Proposal is what members agree on before they make a key together: the plan, and who they are.
type Proposal struct {
	Plan    *Plan
	Members []Member
}

type proposalFile struct {
	Version int             `json:"version"`
	Members []Member        `json:"members"`
	Plan    json.RawMessage `json:"plan"`
}

// NewProposal proposes a plan to its members.
func NewProposal(pl *Plan, members []Member) (*Proposal, error) {
	if err := checkMembers(members, pl.holders); err != nil {
		return nil, err
	}
	return &Proposal{pl, members}, nil
}

// Marshal returns the proposal as a file.
func (p *Proposal) Marshal() []byte {
	b, err := json.MarshalIndent(proposalFile{1, p.Members, p.Plan.Marshal()}, "", "  ")
	if err != nil {
		panic(err) // strings, bytes and numbers
	}
	return append(b, '\n')
}

// ParseProposal reads a proposal; its plan is planned anew, as ParsePlan does.
func ParseProposal(file []byte) (*Proposal, error) {
	if len(file) > 2*maxPlan {
		return nil, fmt.Errorf("a proposal of %d bytes; at most %d are read", len(file), 2*maxPlan)
	}
	var f proposalFile
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("not a proposal: %w", err)
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("a proposal of format version %d; this build reads 1", f.Version)
	}
	pl, err := ParsePlan(f.Plan)
	if err != nil {
		return nil, err
	}
	return NewProposal(pl, f.Members)
}

// hash binds plan and members; addresses may differ from one member's view to another's.
func (p *Proposal) hash() [32]byte {
	roster := RosterOf(p.Members).Hash()
	return sha256.Sum256(fmt.Appendf(nil, "fednode/he/proposal/v1\n%x\n%x", p.Plan.id, roster))
}

// CreateJointly makes a key with all members of the proposal, which is the session's roster, and writes the public part
// to dir, which must not exist or be empty. This member's share is in the store. Stage is told what is being done.
func (p *Proposal) CreateJointly(ctx context.Context, s *compute.Session, store *threshold.Store, dir string, stage func(string)) (*KeySet, error) {
	if err := vacant(dir); err != nil {
		return nil, s.Fail(err)
	}
	stage("comparing the proposal")
	if err := s.Agree(ctx, "proposal", p.hash()); err != nil {
		return nil, err
	}
	stage("making the key")
	share, err := threshold.Generate(ctx, s, store, p.Plan.p, p.Plan.holders.Policy())
	if err != nil {
		return nil, err
	}
	defer share.Wipe()
	for _, err := range share.Excluded() {
		stage("left out of the key: " + err.Error())
	}
	stage("making evaluation keys")
	evaluation, err := share.EvaluationKeys(ctx, s, p.Plan.Elements()...)
	if err != nil {
		return nil, err
	}
	pk, err := share.PublicKey()
	if err != nil {
		return nil, err
	}
	members, err := json.MarshalIndent(p.Members, "", "  ")
	if err != nil {
		return nil, err
	}
	return writeKeys(dir, p.Plan, pk, evaluation, map[string][]byte{collectiveName: share.MarshalPublic(), membersName: members}, nil)
}

// A Joint is the result of decrypting together.
type Joint struct {
	Values   []Values
	Suspects [][]string // groups of members of which one computed wrongly; see threshold.Decryption
}

// DecryptJointly decrypts a table with the members of a session, of which each gets the result.
func (k *KeySet) DecryptJointly(ctx context.Context, s *compute.Session, store *threshold.Store, t *Table, progress Progress) (*Joint, error) {
	if k.Collective == nil {
		return nil, s.Fail(fmt.Errorf("%s: the key is in one hand; decrypt with it", k.dir))
	}
	share, err := store.Load(k.Collective.ID())
	if err != nil {
		return nil, s.Fail(err)
	}
	defer share.Wipe()
	out := new(Joint)
	decrypt := func(ct *he.Ciphertext) (*he.Plaintext, error) {
		d, err := share.Decrypt(ctx, s, store, ct)
		if err != nil {
			return nil, err
		}
		out.Suspects = append(out.Suspects, d.Suspects...)
		return d.Plaintext, nil
	}
	out.Values, err = k.Plan.Open(t, decrypt, progress)
	return out, err
}

// ErrOverdue: the shares are older than the plan allows, and decrypt nothing until all members have refreshed them.
var ErrOverdue = errors.New("the shares are due to be dealt anew")

// Due refuses a share that is older than the plan allows.
func (k *KeySet) Due(store *threshold.Store, now time.Time) error {
	days := k.Plan.holders.RotationDays
	if k.Collective == nil || days == 0 {
		return nil
	}
	since, err := store.Since(k.Collective.ID())
	if err != nil {
		return err
	}
	return due(since, now, days)
}

// aheadLimit is how far in the future a share may seem to have been dealt, for clocks that differ and files that were copied.
const aheadLimit = 24 * time.Hour

// due refuses shares that were dealt too long ago, or, by a clock that was ahead, at a time that is yet to come: those would
// never be due.
func due(since, now time.Time, days int) error {
	const mend = "the members agreed on new ones every %s; run fednode he party refresh together, then decrypt"
	switch age := now.Sub(since); {
	case age > time.Duration(days)*24*time.Hour:
		return fmt.Errorf("%w: they are %s old, and "+mend, ErrOverdue, count(int(age.Hours()/24), "day"), count(days, "day"))
	case age < -aheadLimit:
		return fmt.Errorf("%w: they were dealt at %s by this machine's clock, which says %s now: see whether it is right (date -u); if so, it was wrong then, and "+mend,
			ErrOverdue, since.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), count(days, "day"))
	}
	return nil
}

// Refresh gives every member a new share of the same key, all members taking part; the old ones, which some may have lost
// to thieves, fit no new one. Public keys, ciphertexts and quotas stay. This is resharing as a key rotation of shares.
func (k *KeySet) Refresh(ctx context.Context, s *compute.Session, store *threshold.Store) (epoch int, err error) {
	share, err := store.Load(k.Collective.ID())
	if err != nil {
		return 0, s.Fail(err)
	}
	defer share.Wipe()
	names := RosterOf(k.Members).Names()
	plan := threshold.Plan{Parameters: k.Plan.p, From: names[:k.Plan.holders.Threshold], To: names, Policy: share.Policy()}
	own := share
	if share.Self() >= len(plan.From) {
		own = nil
	}
	next, err := threshold.Reshare(ctx, s, store, own, plan)
	if err != nil {
		return 0, err
	}
	defer next.Wipe()
	if own == nil { // Reshare removes the old shares of those who dealt
		if err := store.Forget(next.ID(), next.Epoch()); err != nil {
			return 0, err
		}
	}
	return next.Epoch(), nil
}

// Promote takes the newest share that this member has stored and does not use yet: its process ended in the middle of
// making or refreshing a key that succeeded at others.
func (k *KeySet) Promote(store *threshold.Store) (epoch int, err error) {
	pending, err := store.Pending(k.Collective.ID())
	if err != nil {
		return 0, err
	}
	if len(pending) == 0 {
		return 0, fmt.Errorf("no share of key %s is waiting", k.Collective.ID())
	}
	epoch = slices.Max(pending)
	return epoch, store.Promote(k.Collective.ID(), epoch)
}

// Choose returns the members of the given names, in their order among all, and which of them is self.
func (k *KeySet) Choose(self string, names []string) (members []Member, place int, err error) {
	place = -1
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	var all []string
	for _, m := range k.Members {
		all = append(all, m.Name)
		if !wanted[m.Name] {
			continue
		}
		delete(wanted, m.Name)
		if m.Name == self {
			place = len(members)
		}
		members = append(members, m)
	}
	for name := range wanted {
		return nil, 0, fmt.Errorf("%s holds no share of the key%s", name, near(name, all))
	}
	switch h := k.Plan.holders; {
	case place < 0:
		return nil, 0, fmt.Errorf("%s is not among those who decrypt, %s", self, strings.Join(names, ", "))
	case len(members) < h.Threshold:
		return nil, 0, fmt.Errorf("%d members; it takes %d to decrypt", len(members), h.Threshold)
	}
	return members, place, nil
}
