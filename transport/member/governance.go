package member

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
)

// Errors of a node's governance log.
var (
	ErrNone  = errors.New("this node belongs to no federation yet")
	ErrOther = errors.New("belongs to another federation")
)

const (
	metaBucket = "governance/meta"
	maxBundle  = 64 << 20 // bytes
)

var metaKey = []byte("federation")

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
	now   func() time.Time
	set   atomic.Pointer[Set]

	mu   sync.Mutex // orders appends and imports
	subs []func(*Set)
}

// Options are what a governance log is opened with.
type Options struct {
	Key crypto.Signer // this organisation's log key; it signs if the organisation is the chair
	Now func() time.Time
}

// Found begins a governance log with the genesis entry, in db.
func Found(ctx context.Context, db *store.DB, genesis []byte, o Options) (*Governance, error) {
	if _, err := Open(db, o); !errors.Is(err, ErrNone) {
		return nil, errors.Join(errors.New("this node belongs to a federation already"), err)
	}
	s, err := Fold([][]byte{genesis})
	if err != nil {
		return nil, err
	}
	g, err := open(db, s, o)
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
		err = g.append(ctx, genesis)
	}
	return g, err
}

// Import begins a mirror, in db, with a bundle of the federation whose id the caller knows.
func Import(ctx context.Context, db *store.DB, r io.Reader, federationID string, o Options) (*Governance, error) {
	if federationID == "" {
		return nil, errors.New("import of a governance log: the federation's id is not known")
	}
	b, s, err := readBundle(r, federationID)
	if err != nil {
		return nil, err
	}
	if _, err := Open(db, o); !errors.Is(err, ErrNone) {
		return nil, errors.Join(errors.New("this node belongs to a federation already"), err)
	}
	g, err := open(db, s, o)
	if err != nil {
		return nil, err
	}
	if g.chair {
		return nil, errors.New("this organisation chairs that federation; its log is not imported but restored")
	}
	if err := g.keepMeta(ctx); err != nil {
		return nil, err
	}
	return g, g.extend(ctx, b, s)
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
	s, err := fold(mirror)
	if err != nil {
		return nil, err
	}
	if s.federationID != m.FederationID {
		return nil, fmt.Errorf("governance log in %s: %w", db.Path(), ErrOther)
	}
	return open(db, s, o)
}

// open opens the log of the set's federation: with the signer if the chair's log key is ours.
func open(db *store.DB, s *Set, o Options) (*Governance, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Governance{db: db, now: o.Now}
	chair := s.members[s.chair]
	pub := ed25519.PublicKey(chair.record.Record.Keys.Log.Public)
	c := ledger.Config{Name: "gov", Origin: s.GovOrigin(), Now: o.Now}
	vkey, err := ledger.VKey(c.Origin, pub)
	if err != nil {
		return nil, err
	}
	if c.Verifier, err = ledger.NewVerifier(vkey); err != nil {
		return nil, err
	}
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

func fold(l *ledger.Log) (*Set, error) {
	entries, err := entriesOf(l, l.Head().Size)
	if err != nil {
		return nil, err
	}
	return Fold(entries)
}

func entriesOf(l *ledger.Log, size int64) ([][]byte, error) {
	entries := make([][]byte, 0, size)
	for i, e := range l.Entries(0, size) {
		if i >= 0 {
			entries = append(entries, e)
		}
	}
	if int64(len(entries)) != size {
		return nil, fmt.Errorf("governance log: %w: %d of %d entries", ledger.ErrDamaged, len(entries), size)
	}
	return entries, nil
}

// Current returns the members in force.
func (g *Governance) Current() *Set { return g.set.Load() }

// Log returns the governance log, or this node's mirror of it.
func (g *Governance) Log() *ledger.Log { return g.log }

// Subscribe calls fn with every new set, one after the other. It must not block.
func (g *Governance) Subscribe(fn func(*Set)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.subs = append(g.subs, fn)
}

// Admit appends an entry that admits a member or renews its record, with its approvals. Only the chair appends.
func (g *Governance) Admit(ctx context.Context, rec SignedRecord, approvals []Approval) error {
	e, err := NewMemberEntry(rec, approvals, g.now())
	if err != nil {
		return err
	}
	return g.append(ctx, e)
}

// SetCharter appends an entry that changes the charter. Only the chair appends.
func (g *Governance) SetCharter(ctx context.Context, c Charter, approvals []Approval) error {
	e, err := NewCharterEntry(c, g.Current().chair, approvals, g.now())
	if err != nil {
		return err
	}
	return g.append(ctx, e)
}

// append adds an entry that takes effect, or none.
func (g *Governance) append(ctx context.Context, e []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.chair {
		return fmt.Errorf("the governance log is sequenced by its chair, %s", g.Current().chair)
	}
	s := g.Current()
	if g.log.Head().Size > 0 {
		var err error
		if s, err = step(s, e); err != nil {
			return err
		}
	}
	err := g.db.Update(ctx, func(tx *store.Tx) error {
		_, err := g.log.Append(tx, e)
		return err
	})
	if err != nil {
		return err
	}
	g.install(s.at(g.log.Head()))
	return nil
}

func (g *Governance) install(s *Set) {
	g.set.Store(s)
	for _, fn := range g.subs {
		fn(s)
	}
}

// A bundle is a governance log in one file.
type bundle struct {
	Format     string            `json:"format"`
	Entries    []json.RawMessage `json:"entries"`
	Checkpoint []byte            `json:"checkpoint"`
}

const bundleFormat = "fednode/governance-bundle/v1"

// ExportBundle writes the governance log, whole, as one canonical JSON object with its entries and checkpoint.
func (g *Governance) ExportBundle(w io.Writer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := bundle{Format: bundleFormat, Checkpoint: g.log.Checkpoint()}
	entries, err := entriesOf(g.log, g.log.Head().Size)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b.Entries = append(b.Entries, e)
	}
	text, err := jcs.Marshal(b)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// ReadBundle verifies a bundle from genesis and returns the set that it leads to. A federationID that is not empty pins
// the federation.
func ReadBundle(r io.Reader, federationID string) (*Set, error) {
	_, s, err := readBundle(r, federationID)
	return s, err
}

func readBundle(r io.Reader, federationID string) (*bundle, *Set, error) {
	fail := func(err error) (*bundle, *Set, error) { return nil, nil, fmt.Errorf("governance bundle: %w", err) }
	text, err := io.ReadAll(io.LimitReader(r, maxBundle+1))
	if err != nil {
		return fail(err)
	}
	if len(text) > maxBundle {
		return fail(fmt.Errorf("more than %d bytes", maxBundle))
	}
	b := new(bundle)
	if err := jcs.UnmarshalCanonical(text, b); err != nil {
		return fail(err)
	}
	if b.Format != bundleFormat || len(b.Entries) == 0 {
		return fail(fmt.Errorf("format %.40q with %d entries; this fednode reads %s", b.Format, len(b.Entries), bundleFormat))
	}
	if h := ledger.LeafHash(b.Entries[0]); federationID != "" && hex.EncodeToString(h[:]) != federationID {
		return fail(fmt.Errorf("of federation %x, not %s: %w", h[:], federationID, ErrOther)) // before the work of folding it
	}
	s, err := Fold(b.entries())
	if err != nil {
		return fail(err)
	}
	vkey, err := ledger.VKey(s.GovOrigin(), s.members[s.chair].record.Record.Keys.Log.Public)
	if err != nil {
		return fail(err)
	}
	v, err := ledger.NewVerifier(vkey)
	if err != nil {
		return fail(err)
	}
	head, err := ledger.ParseCheckpoint(b.Checkpoint, v)
	if err != nil {
		return fail(err)
	}
	if head != s.head {
		return fail(errors.New("its checkpoint signs another log than its entries"))
	}
	return b, s, nil
}

func (b *bundle) entries() (out [][]byte) {
	for _, e := range b.Entries {
		out = append(out, e)
	}
	return out
}

// ImportBundle takes in what a bundle of this federation has beyond this mirror. An older bundle changes nothing; one
// that contradicts what is here is refused.
func (g *Governance) ImportBundle(ctx context.Context, r io.Reader) error {
	b, s, err := readBundle(r, g.Current().federationID)
	if err != nil {
		return err
	}
	return g.extend(ctx, b, s)
}

// extend takes in what the bundle, which folds to s, has beyond this mirror.
func (g *Governance) extend(ctx context.Context, b *bundle, s *Set) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	entries := b.entries()
	have := int(g.log.Head().Size)
	held, err := entriesOf(g.log, int64(min(have, len(entries))))
	if err != nil {
		return err
	}
	for i, e := range held {
		if !bytes.Equal(e, entries[i]) {
			return fmt.Errorf("governance entry %d differs from the one here: %w", i, ledger.ErrFork)
		}
	}
	if len(entries) <= have {
		return nil
	}
	err = g.db.Update(ctx, func(tx *store.Tx) error { return g.log.Extend(tx, entries[have:], b.Checkpoint) })
	if err != nil {
		return err
	}
	g.install(s)
	return nil
}
