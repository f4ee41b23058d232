package member

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fednode/store"
	"fednode/store/ledger"
)

// maxUpdate bounds the entries of an update, in bytes.
const maxUpdate = 512 << 10

// An Update is what one member tells another of the governance log: a request to cosign its head, in the form of
// add-checkpoint (https://c2sp.org/tlog-witness), and what the other may lack to do so.
type Update struct {
	AddCheckpoint string            `json:"add_checkpoint"`
	Entries       []json.RawMessage `json:"entries,omitempty"` // from add-checkpoint's old size on; perhaps not all
	Effect        *Certificate      `json:"effect,omitempty"`  // of the head: puts the last change into force
	Fresh         *Certificate      `json:"fresh,omitempty"`   // of the head: the newest
}

// An Ack answers an update: how many entries the member has now, and, if these are the log that the update spoke of,
// its cosignature.
type Ack struct {
	Size        int64  `json:"size"`
	Cosignature string `json:"cosignature,omitempty"`
}

// Version returns a number that grows with whatever the other members have to be told.
func (g *Governance) Version() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.version
}

// UpdateFrom returns an update for a member with that many entries, and the version that it is of. Entries that are
// more than a message should carry are left out at the end.
func (g *Governance) UpdateFrom(size int64) (u Update, version uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	head := g.log.Head()
	size = min(max(size, 0), head.Size)
	u = Update{Effect: g.effect}
	var proof []ledger.Hash
	if size > 0 {
		if proof, err = g.log.Consistency(size, head.Size); err != nil {
			return u, 0, err
		}
	}
	u.AddCheckpoint = ledger.FormatAddCheckpoint(size, proof, g.log.Checkpoint())
	if g.fresh != nil && g.freshOf(head) {
		u.Fresh = g.fresh
	}
	total := 0
	for i, e := range g.log.Entries(size, head.Size) {
		if i < 0 {
			return u, 0, ledger.ErrDamaged
		}
		if total += len(e); total > maxUpdate && len(u.Entries) > 0 {
			break
		}
		u.Entries = append(u.Entries, e)
	}
	return u, g.version, nil
}

// Take takes in an update from anybody, verified from the ground up, and cosigns the head if it is this node's now. An
// answer without cosignature means that the sender is behind or has to begin at the size that the answer names. It
// fails with [ledger.ErrFork] if the update contradicts what is here.
func (g *Governance) Take(ctx context.Context, u Update) (Ack, error) { return g.take(ctx, u, true) }

// TakeAll is [Governance.Take] for an update put together of several, whose add-checkpoint has no proof: it is the
// entries that show that the log was continued.
func (g *Governance) TakeAll(ctx context.Context, u Update) (Ack, error) {
	return g.take(ctx, u, false)
}

func (g *Governance) take(ctx context.Context, u Update, proven bool) (Ack, error) {
	old, proof, checkpoint, err := ledger.ParseAddCheckpoint(u.AddCheckpoint)
	if err != nil {
		return Ack{}, err
	}
	head, err := ledger.ParseCheckpoint(checkpoint, g.log.Verifier())
	if err != nil {
		return Ack{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen != "" {
		return Ack{}, fmt.Errorf("%w: %s", ErrFrozen, g.frozen)
	}
	mine := g.log.Head()
	if head.Size <= mine.Size {
		if err := g.compare(ctx, head, checkpoint); err != nil {
			return Ack{}, err
		}
	}
	switch {
	case head.Size < mine.Size:
		return Ack{Size: mine.Size}, nil
	case head.Size > mine.Size && g.chair:
		return Ack{}, g.freeze(ctx, fmt.Sprintf("the members hold %d entries that this chair has signed, and it has %d: it was restored from an old backup", head.Size, mine.Size))
	case head.Size > mine.Size && (old != mine.Size || int64(len(u.Entries)) != head.Size-old):
		return Ack{Size: mine.Size}, nil
	}
	if head.Size > mine.Size && proven {
		if err := ledger.VerifyConsistency(mine, head, proof); err != nil {
			return Ack{}, fmt.Errorf("governance log: %w: %w", ledger.ErrFork, err)
		}
	}
	m, changes, err := g.verify(mine, head, u)
	if err != nil {
		return Ack{}, err
	}
	m.checkpoint = checkpoint
	if changes {
		if err := g.commit(ctx, m); err != nil {
			return Ack{}, err
		}
	}
	return g.cosign(ctx)
}

// verify makes a move of an update of the given head, which is at or beyond this node's. g.mu is held.
func (g *Governance) verify(mine, head ledger.Head, u Update) (m move, changes bool, err error) {
	m = move{fold: g.fold}
	if head.Size > mine.Size {
		for _, e := range u.Entries {
			if m.fold, err = m.fold.next(e); err != nil {
				return m, false, fmt.Errorf("governance entry %d, which the chair has signed: %w", m.fold.tree.Head().Size, err)
			}
			m.entries, m.heads = append(m.entries, e), append(m.heads, m.fold.tree.Head())
		}
		if m.fold.tree.Head() != head {
			return m, false, fmt.Errorf("governance log: the entries are not those of the checkpoint: %w", ledger.ErrFork)
		}
		changes = true
	}
	s := m.fold.set
	if len(m.entries) == 0 {
		s = g.Current()
	}
	if u.Effect != nil && (changes || g.effect == nil) {
		settled, err := m.fold.settle(u.Effect, head)
		if err != nil {
			return m, false, err
		}
		m.effect, s, changes = u.Effect, settled.set, true
	}
	if u.Fresh != nil {
		at, err := s.verifyCertificate(u.Fresh, head)
		if err != nil {
			return m, false, err
		}
		// One of a time to come is not taken in place of one that has come: somebody may have kept it.
		if at.After(g.freshAt) && (g.Ahead(g.freshAt) || !g.Ahead(at)) || g.corrects(at) {
			m.fresh, m.freshAt, changes = u.Fresh, at, true
		}
	}
	return m, changes, nil
}

func sizeKey(size int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(size)) }

var errCosigned = errors.New("another root was cosigned for this size")

// keepCosigned remembers a head that is going to be cosigned. It fails if another was for that size, or a larger one.
func keepCosigned(tx *store.Tx, head ledger.Head) error {
	b := tx.Bucket(cosignedBucket)
	key := sizeKey(head.Size)
	if v := b.Get(key); v != nil {
		if !bytes.Equal(v, head.Root[:]) {
			return fmt.Errorf("governance log at size %d: %w", head.Size, errCosigned)
		}
		return nil
	}
	if last, _ := b.Cursor().Last(); bytes.Compare(last, key) > 0 {
		return fmt.Errorf("governance log at size %d: size %d was cosigned before", head.Size, binary.BigEndian.Uint64(last))
	}
	return b.Put(key, head.Root[:])
}

// cosign cosigns this node's head. That it did is on the disk before the signature is made. g.mu is held.
func (g *Governance) cosign(ctx context.Context) (Ack, error) {
	head := g.log.Head()
	if g.o.Cosigner == nil || g.fold.set.version == versionUncertified {
		return Ack{Size: head.Size}, nil
	}
	kept := false
	err := g.db.View(func(tx *store.Tx) error {
		if b := tx.Bucket(cosignedBucket); b != nil {
			kept = bytes.Equal(b.Get(sizeKey(head.Size)), head.Root[:])
		}
		return nil
	})
	if err == nil && !kept {
		err = g.db.Update(ctx, func(tx *store.Tx) error { return keepCosigned(tx, head) })
	}
	if err != nil {
		return Ack{}, err
	}
	line, err := ledger.Cosign(g.log.Checkpoint(), CosignerName(g.fold.set.federationID, g.o.Org), g.o.Cosigner, g.o.Now())
	return Ack{head.Size, line}, err
}

// Collect takes a member's cosignature of this chair's head. Those that complete a quorum make a certificate, which
// takes the change in flight a step further.
func (g *Governance) Collect(ctx context.Context, line string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.chair || g.frozen != "" {
		return nil
	}
	org, sig, err := g.Current().verifyCosignature(string(g.log.Checkpoint()), line)
	if err != nil {
		return err
	}
	if !sig.at.After(g.sigs[org].at) {
		return nil
	}
	g.sigs[org] = sig
	return g.advance(ctx)
}

// Renew begins to collect new cosignatures of the head, so that the certificates show that the log is looked after. It
// does something at the chair only.
func (g *Governance) Renew(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.chair || g.frozen != "" || g.fold.set.version == versionUncertified {
		return nil
	}
	g.sigs = map[OrgID]cosignature{}
	if err := g.advance(ctx); err != nil {
		return err
	}
	g.moved(g.unsuspended)
	return nil
}

// advance goes as far as the cosignatures collected carry: it certifies the change in flight, puts it into effect, or
// renews what is in effect. g.mu is held.
func (g *Governance) advance(ctx context.Context) error {
	for {
		own, err := g.cosign(ctx)
		if err != nil {
			return err
		}
		s, checkpoint := g.Current(), g.log.Checkpoint()
		if org, sig, err := s.verifyCosignature(string(checkpoint), own.Cosignature); err == nil {
			g.sigs[org] = sig
		}
		c := s.certify(checkpoint, g.sigs)
		if c == nil {
			return nil
		}
		m := move{fold: g.fold}
		switch {
		case g.fold.change != nil && g.fold.certified.Size == 0:
			e, err := newCertificateEntry(c, s.chair, g.o.Now())
			if err != nil {
				return err
			}
			if m.fold, err = g.fold.next(e); err != nil {
				return err
			}
			m.entries = [][]byte{e}
		case g.fold.change != nil && g.effect == nil:
			m.effect = c
		default:
			at, err := s.verifyCertificate(c, g.log.Head())
			if err != nil || at.Sub(g.freshAt) < renewalStep && !g.corrects(at) {
				return err
			}
			m.fresh, m.freshAt = c, at
			return g.commit(ctx, m)
		}
		if err := g.commit(ctx, m); err != nil {
			return err
		}
	}
}

// renewalStep is by how much a renewed certificate has to be newer to be worth telling.
const renewalStep = time.Minute

// maxAhead is how far ahead of this node's clock a time may be that a quorum's clocks have shown: twice what messages allow.
const maxAhead = 2 * time.Minute

// Ahead reports whether a time that a quorum's clocks have shown is yet to come: either this node's clock or theirs was
// wrong.
func (g *Governance) Ahead(at time.Time) bool { return at.Sub(g.o.Now()) > maxAhead }

// corrects reports whether a certificate of a time that has come is to replace one of a time that has not: that says nothing
// of how fresh the log is, and would for as long as the clocks were ahead. g.mu is held.
func (g *Governance) corrects(at time.Time) bool { return g.Ahead(g.freshAt) && !g.Ahead(at) }

// Seen returns when a quorum of the members last confirmed the governance log, by their clocks. ok is false for a federation
// of version 1, which has no certificates.
func (g *Governance) Seen() (at time.Time, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at = g.since
	if g.freshAt.After(at) || g.Ahead(at) && !g.freshAt.IsZero() {
		at = g.freshAt
	}
	return at, g.fold.set.version != versionUncertified
}

// Flight describes the change that is in the log and not in effect yet, or returns "".
func (g *Governance) Flight() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.Current()
	switch {
	case g.fold.change == nil || g.effect != nil:
		return ""
	case g.chair:
		return fmt.Sprintf("cosigned by %d of %d members, a quorum is %d", len(g.sigs), len(s.members), s.needs())
	}
	return "awaiting cosignatures at the chair, " + string(s.chair)
}

// Cosigned returns of how many members this node has a cosignature of the log's head.
func (g *Governance) Cosigned() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.sigs)
	for _, c := range []*Certificate{g.effect, g.fresh} {
		if c != nil && (c == g.effect || g.freshOf(g.log.Head())) {
			n = max(n, len(c.Cosignatures))
		}
	}
	return n
}
