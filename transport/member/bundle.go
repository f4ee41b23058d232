package member

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
)

const maxBundle = 64 << 20 // bytes

// A bundle is a governance log in one file, with the certificates that are kept apart from it.
type bundle struct {
	Format     string            `json:"format"`
	Entries    []json.RawMessage `json:"entries"`
	Checkpoint []byte            `json:"checkpoint"`
	Effect     *Certificate      `json:"effect,omitempty"`
	Fresh      *Certificate      `json:"fresh,omitempty"`
}

// bundleFormat names the format that carries a log of that version.
func bundleFormat(version int) string { return fmt.Sprintf("fednode/governance-bundle/v%d", version) }

// ExportBundle writes the governance log, whole, as one canonical JSON object with its entries, its checkpoint and the
// certificates that show what is in effect.
func (g *Governance) ExportBundle(w io.Writer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := bundle{Format: bundleFormat(g.fold.set.version), Checkpoint: g.log.Checkpoint(), Effect: g.effect}
	if g.fresh != nil && g.freshOf(g.log.Head()) {
		b.Fresh = g.fresh
	}
	entries, err := entriesOf(g.log, 0, g.log.Head().Size)
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

// freshOf reports whether the newest certificate is of this head. g.mu is held.
func (g *Governance) freshOf(head ledger.Head) bool {
	of, err := ledger.ParseCheckpoint([]byte(g.fresh.Checkpoint), g.log.Verifier())
	if err != nil || of != head {
		return false
	}
	_, err = g.Current().verifyCertificate(g.fresh, head)
	return err == nil
}

// ReadBundle verifies a bundle from genesis and returns the set in force. A federationID that is not empty pins the
// federation.
func ReadBundle(r io.Reader, federationID string) (*Set, error) {
	b, err := readBundle(r, federationID)
	if err != nil {
		return nil, err
	}
	return b.set, nil
}

// A verifiedBundle is a bundle with what it folds to.
type verifiedBundle struct {
	bundle
	move
	set *Set // in force
}

func readBundle(r io.Reader, federationID string) (*verifiedBundle, error) {
	fail := func(err error) (*verifiedBundle, error) { return nil, fmt.Errorf("governance bundle: %w", err) }
	text, err := io.ReadAll(io.LimitReader(r, maxBundle+1))
	if err != nil {
		return fail(err)
	}
	if len(text) > maxBundle {
		return fail(fmt.Errorf("more than %d bytes", maxBundle))
	}
	b := new(verifiedBundle)
	if err := jcs.UnmarshalCanonical(text, &b.bundle); err != nil {
		return fail(err)
	}
	if len(b.Entries) == 0 {
		return fail(errors.New("no entries"))
	}
	if h := ledger.LeafHash(b.Entries[0]); federationID != "" && hex.EncodeToString(h[:]) != federationID {
		return fail(fmt.Errorf("of federation %x, not %s: %w", h[:], federationID, ErrOther)) // before the work of folding it
	}
	for _, e := range b.Entries {
		b.entries = append(b.entries, e)
	}
	if b.fold, err = foldAll(b.entries); err != nil {
		return fail(err)
	}
	if want := bundleFormat(b.fold.set.version); b.Format != want {
		return fail(fmt.Errorf("format %.40q; the entries in it are of %s", b.Format, want))
	}
	head, err := ledger.ParseCheckpoint(b.Checkpoint, b.fold.set.gov)
	if err != nil {
		return fail(err)
	}
	if head != b.fold.tree.Head() {
		return fail(errors.New("its checkpoint signs another log than its entries"))
	}
	b.checkpoint, b.set = b.Checkpoint, b.fold.set
	if b.Effect != nil {
		settled, err := b.fold.settle(b.Effect, head)
		if err != nil {
			return fail(err)
		}
		b.effect, b.set = b.Effect, settled.set
	}
	if b.Fresh != nil {
		if b.freshAt, err = b.set.verifyCertificate(b.Fresh, head); err != nil {
			return fail(err)
		}
		b.fresh = b.Fresh
	}
	return b, nil
}

// ReadBundleThrough is [ReadBundle] for somebody who knows the log's head at an earlier time from a better source than
// whoever sends the bundle: the bundle must continue the log of that head.
func ReadBundleThrough(r io.Reader, federationID string, through ledger.Head) (*Set, error) {
	b, err := readBundle(r, federationID)
	if err != nil {
		return nil, err
	}
	if int64(len(b.entries)) < through.Size {
		return nil, fmt.Errorf("governance bundle of %d entries; it is known that there are %d", len(b.entries), through.Size)
	}
	head, err := ledger.HeadOf(b.entries[:through.Size])
	if err != nil {
		return nil, err
	}
	if head != through {
		return nil, fmt.Errorf("governance bundle with another history of its first %d entries than is known", through.Size)
	}
	return b.set, nil
}

// Import begins a mirror, in db, with a bundle of the federation whose id the caller knows.
func Import(ctx context.Context, db *store.DB, r io.Reader, federationID string, o Options) (*Governance, error) {
	if federationID == "" {
		return nil, errors.New("import of a governance log: the federation's id is not known")
	}
	b, err := readBundle(r, federationID)
	if err != nil {
		return nil, err
	}
	if _, err := Open(db, o); !errors.Is(err, ErrNone) {
		return nil, errors.Join(errors.New("this node belongs to a federation already"), err)
	}
	g, err := open(db, b.fold, o)
	if err != nil {
		return nil, err
	}
	if g.chair {
		return nil, errors.New("this organisation chairs that federation; its log is not imported but restored")
	}
	if err := g.keepMeta(ctx); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g, g.commit(ctx, b.move)
}

// ImportBundle takes in what a bundle of this federation has beyond this mirror. An older bundle changes nothing; one
// that contradicts what is here is refused, and kept as evidence.
func (g *Governance) ImportBundle(ctx context.Context, r io.Reader) error {
	b, err := readBundle(r, g.Current().federationID)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	mine := g.log.Head()
	held, err := entriesOf(g.log, 0, min(mine.Size, int64(len(b.entries))))
	if err != nil {
		return err
	}
	for i, e := range held {
		if !bytes.Equal(e, b.entries[i]) {
			return fmt.Errorf("governance entry %d differs from the one here: %w", i, g.examine(ctx, b.entries, b.Checkpoint))
		}
	}
	head := b.fold.tree.Head()
	if head.Size < mine.Size || g.chair || g.frozen != "" {
		return nil
	}
	u := Update{Entries: b.Entries[mine.Size:], Effect: b.Effect, Fresh: b.Fresh}
	m, changes, err := g.verify(mine, head, u)
	if err != nil || !changes {
		return err
	}
	m.checkpoint = b.Checkpoint
	return g.commit(ctx, m)
}
