package member

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"fednode/store"
	"fednode/store/ledger"
)

// Errors of a node's governance log.
var (
	ErrNone     = errors.New("this node belongs to no federation yet")
	ErrOther    = errors.New("belongs to another federation")
	ErrInFlight = errors.New("another change of the governance log is in flight; it takes effect when a quorum has cosigned it")
	ErrFrozen   = errors.New("the governance log is frozen")
	ErrNotChair = errors.New("the governance log is sequenced by its chair")
)

const (
	metaBucket     = "governance/meta"
	cosignedBucket = "governance/cosigned" // size → root
)

// Keys of metaBucket.
var (
	metaKey   = []byte("federation")
	effectKey = []byte("effect")
	freshKey  = []byte("fresh")
	frozenKey = []byte("frozen")
)

// meta is what has to be known to open the log again.
type meta struct {
	FederationID string `json:"federation_id"`
	VKey         string `json:"vkey"` // of the chair, for the governance log
}

// Governance is a node's own copy of the governance log: at the chair the log itself, elsewhere a mirror of it, in full.
// It is safe for concurrent use.
type Governance struct {
	db    *store.DB
	log   *ledger.Log
	chair bool
	o     Options
	set   atomic.Pointer[Set] // in force

	mu          sync.Mutex // orders everything that changes
	fold        folding
	effect      *Certificate          // puts the last change into force; kept apart until the next change embeds it
	since       time.Time             // of the certificate that put the set into force
	fresh       *Certificate          // newest of the log's head, or an earlier one
	freshAt     time.Time             // of fresh
	sigs        map[OrgID]cosignature // of the log's head; at the chair
	version     uint64                // counts what the other members do not know yet
	frozen      string
	suspended   map[OrgID]Suspension
	unsuspended *Set // in force, without this node's own denials
	subs        []func(*Set)
}

// Options are what a governance log is opened with.
type Options struct {
	Org      OrgID
	Key      crypto.Signer // this organisation's log key; it signs if the organisation is the chair
	Cosigner crypto.Signer // this organisation's cosigner key; without one it cosigns nothing
	Now      func() time.Time
}

// Found begins a governance log with the genesis entry, in db.
func Found(ctx context.Context, db *store.DB, genesis []byte, o Options) (*Governance, error) {
	if _, err := Open(db, o); !errors.Is(err, ErrNone) {
		return nil, errors.Join(errors.New("this node belongs to a federation already"), err)
	}
	f, err := foldAll([][]byte{genesis})
	if err != nil {
		return nil, err
	}
	g, err := open(db, f, o)
	if err != nil {
		return nil, err
	}
	if !g.chair {
		return nil, errors.New("only its founder begins a governance log")
	}
	if err := g.keepMeta(ctx); err != nil {
		return nil, err
	}
	if g.log.Head().Size == 0 {
		err = g.commit(ctx, move{fold: f, entries: [][]byte{genesis}})
	}
	if err == nil {
		err = g.Renew(ctx)
	}
	return g, err
}

// Open opens the governance log in db, or returns ErrNone.
func Open(db *store.DB, o Options) (*Governance, error) {
	var m meta
	err := db.View(func(tx *store.Tx) error {
		b := tx.Bucket(metaBucket)
		if b == nil || b.Get(metaKey) == nil {
			return ErrNone
		}
		return json.Unmarshal(b.Get(metaKey), &m)
	})
	if err != nil {
		return nil, err
	}
	v, err := ledger.NewVerifier(m.VKey)
	if err != nil {
		return nil, fmt.Errorf("governance log: %w", err)
	}
	mirror, err := ledger.Open(db, ledger.Config{Name: "gov", Origin: govOrigin(m.FederationID), Verifier: v, Now: o.Now})
	if err != nil {
		return nil, err
	}
	if mirror.Head().Size == 0 {
		return nil, ErrNone // a crash came between meta and the first entries
	}
	entries, err := entriesOf(mirror, 0, mirror.Head().Size)
	if err != nil {
		return nil, err
	}
	f, err := foldAll(entries)
	if err != nil {
		return nil, err
	}
	if f.set.federationID != m.FederationID {
		return nil, fmt.Errorf("governance log in %s: %w", db.Path(), ErrOther)
	}
	g, err := open(db, f, o)
	if err != nil {
		return nil, err
	}
	return g, g.restore()
}

// open opens the log of the set's federation: with the signer if the chair's log key is ours.
func open(db *store.DB, f folding, o Options) (*Governance, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Governance{db: db, o: o, fold: f, since: f.since, sigs: map[OrgID]cosignature{}, suspended: map[OrgID]Suspension{}, unsuspended: f.set}
	s := f.set
	pub := ed25519.PublicKey(s.members[s.chair].record.Record.Keys.Log.Public)
	c := ledger.Config{Name: "gov", Origin: s.GovOrigin(), Verifier: s.gov, Now: o.Now}
	var err error
	if o.Key != nil && pub.Equal(o.Key.Public()) {
		g.chair = true
		if c.Signer, err = ledger.NewSigner(c.Origin, o.Key); err != nil {
			return nil, err
		}
	}
	if g.log, err = ledger.Open(db, c); err != nil {
		return nil, err
	}
	g.set.Store(s)
	return g, nil
}

// restore takes up the certificates that were kept apart.
func (g *Governance) restore() error {
	err := g.db.View(func(tx *store.Tx) error {
		b := tx.Bucket(metaBucket)
		g.frozen = string(b.Get(frozenKey))
		if err := g.loadSuspended(tx); err != nil {
			return err
		}
		for key, to := range map[string]**Certificate{string(effectKey): &g.effect, string(freshKey): &g.fresh} {
			if v := b.Get([]byte(key)); v != nil {
				if err := json.Unmarshal(v, to); err != nil {
					return fmt.Errorf("governance log: certificate %s: %w", key, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s := g.fold.set
	if g.effect != nil {
		settled, err := g.fold.settle(g.effect, g.fold.tree.Head())
		if err != nil {
			return fmt.Errorf("governance log in %s: %w", g.db.Path(), err)
		}
		s, g.since = settled.set, settled.since
	}
	g.unsuspended = s
	g.set.Store(g.deny(s))
	if g.fresh == nil {
		return nil
	}
	// One that was counted under an earlier set is of no more use; the set in force came later.
	if head, err := g.headOf(g.fresh, s); err == nil {
		if at, err := s.verifyCertificate(g.fresh, head); err == nil {
			g.freshAt = at
		}
	}
	return nil
}

// headOf returns this log's head at the size of the certificate's checkpoint.
func (g *Governance) headOf(c *Certificate, s *Set) (ledger.Head, error) {
	head, err := ledger.ParseCheckpoint([]byte(c.Checkpoint), s.gov)
	if err != nil {
		return head, err
	}
	return g.log.HeadAt(head.Size)
}

func (g *Governance) keepMeta(ctx context.Context) error {
	s := g.Current()
	vkey, err := ledger.VKey(s.GovOrigin(), s.members[s.chair].record.Record.Keys.Log.Public)
	if err != nil {
		return err
	}
	v, err := json.Marshal(meta{s.federationID, vkey})
	if err != nil {
		return err
	}
	return g.db.Update(ctx, func(tx *store.Tx) error { return tx.Bucket(metaBucket).Put(metaKey, v) })
}

func entriesOf(l *ledger.Log, from, to int64) ([][]byte, error) {
	entries := make([][]byte, 0, to-from)
	for i, e := range l.Entries(from, to) {
		if i >= 0 {
			entries = append(entries, e)
		}
	}
	if int64(len(entries)) != to-from {
		return nil, fmt.Errorf("governance log: %w: %d of %d entries from %d on", ledger.ErrDamaged, len(entries), to-from, from)
	}
	return entries, nil
}

// Current returns the members in force.
func (g *Governance) Current() *Set { return g.set.Load() }

// Log returns the governance log, or this node's mirror of it.
func (g *Governance) Log() *ledger.Log { return g.log }

// Chair reports whether this organisation sequences the log.
func (g *Governance) Chair() bool { return g.chair }

// Subscribe calls fn after whatever changes here: entries, certificates, members. It must not block, and must not call
// back.
func (g *Governance) Subscribe(fn func(*Set)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.subs = append(g.subs, fn)
}

// Admit appends an entry that admits a member or renews its record, with its approvals. Only the chair appends. The
// entry takes effect when a quorum has cosigned it; until then the next change is refused with ErrInFlight.
func (g *Governance) Admit(ctx context.Context, rec SignedRecord, approvals []Approval) error {
	return g.propose(ctx, newMemberEntry(rec, approvals, g.o.Now()))
}

// SetCharter appends an entry that changes the charter. Only the chair appends.
func (g *Governance) SetCharter(ctx context.Context, c Charter, approvals []Approval) error {
	return g.propose(ctx, newCharterEntry(c, g.Current().chair, approvals, g.o.Now()))
}

// propose appends a change that can take effect, or nothing.
func (g *Governance) propose(ctx context.Context, e entry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.chair:
		return fmt.Errorf("%w, %s", ErrNotChair, g.Current().chair)
	case g.frozen != "":
		return fmt.Errorf("%w: %s", ErrFrozen, g.frozen)
	case g.fold.set.version == versionUncertified:
		return errors.New("this federation was founded by an earlier version of fednode, whose governance log can be read but not continued; found it again")
	case g.fold.change != nil && g.effect == nil:
		return ErrInFlight
	}
	e.Certificate = g.effect
	b, err := e.marshal()
	if err != nil {
		return err
	}
	f, err := g.fold.next(b)
	if err != nil {
		return err
	}
	if err := g.commit(ctx, move{fold: f, entries: [][]byte{b}}); err != nil {
		return err
	}
	return g.advance(ctx)
}

// A move is what changes at once. It has been verified.
type move struct {
	fold       folding
	entries    [][]byte
	heads      []ledger.Head // after each of them, for a mirror
	checkpoint []byte        // that signs them, for a mirror
	effect     *Certificate  // of the folding's head
	fresh      *Certificate  // of the folding's head
	freshAt    time.Time
}

// commit puts a move on the disk and then into force. g.mu is held.
func (g *Governance) commit(ctx context.Context, m move) error {
	effect := m.effect
	if effect == nil && len(m.entries) == 0 {
		effect = g.effect
	}
	s, since := m.fold.set, m.fold.since
	if effect != nil {
		settled, err := m.fold.settle(effect, m.fold.tree.Head())
		if err != nil {
			return err
		}
		s, since = settled.set, settled.since
	}
	head := m.fold.tree.Head()
	err := g.db.Update(ctx, func(tx *store.Tx) error {
		if err := g.write(tx, m); err != nil {
			return err
		}
		if err := keepCertificate(tx, effectKey, effect); err != nil {
			return err
		}
		if m.fresh != nil {
			if err := keepCertificate(tx, freshKey, m.fresh); err != nil {
				return err
			}
		}
		if g.o.Cosigner == nil {
			return nil
		}
		for _, h := range m.heads {
			if v := tx.Bucket(cosignedBucket).Get(sizeKey(h.Size)); v != nil && !bytes.Equal(v, h.Root[:]) {
				return fmt.Errorf("governance log at size %d: %w", h.Size, errCosigned)
			}
		}
		return keepCosigned(tx, head)
	})
	if err != nil {
		return err
	}
	if len(m.entries) > 0 {
		g.sigs = map[OrgID]cosignature{}
	}
	g.fold, g.effect, g.since = m.fold, effect, since
	if m.fresh != nil {
		g.fresh, g.freshAt = m.fresh, m.freshAt
	}
	g.moved(s)
	return nil
}

func (g *Governance) write(tx *store.Tx, m move) error {
	switch {
	case len(m.entries) == 0:
		return nil
	case !g.chair:
		return g.log.Extend(tx, m.entries, m.checkpoint)
	}
	for _, e := range m.entries {
		if _, err := g.log.Append(tx, e); err != nil {
			return err
		}
	}
	return nil
}

func keepCertificate(tx *store.Tx, key []byte, c *Certificate) error {
	if c == nil {
		return tx.Bucket(metaBucket).Delete(key)
	}
	v, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Bucket(metaBucket).Put(key, v)
}

// moved makes s the set in force and tells everybody who asked to be told. g.mu is held.
func (g *Governance) moved(s *Set) {
	g.version++
	g.install(s)
}

// install makes s, with this node's own denials, the set in force. g.mu is held.
func (g *Governance) install(s *Set) {
	g.unsuspended = s
	s = g.deny(s)
	g.set.Store(s)
	for _, fn := range g.subs {
		fn(s)
	}
}
