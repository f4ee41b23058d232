package member

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"fednode/store"
	"fednode/store/ledger"
)

const evidenceBucket = "governance/evidence" // hash → Fork

// A Fork convicts the chair of having signed two governance logs: the leaves are those of the log that Long signs, and
// its beginning, of Short's size, has another root than Short says.
type Fork struct {
	Time   string        `json:"time"`
	Long   []byte        `json:"long"`
	Short  []byte        `json:"short"`
	Leaves []ledger.Hash `json:"leaves"`
}

// Verify checks that the evidence convicts whoever holds the verifier's key.
func (f Fork) Verify(v note.Verifier) error {
	long, err := ledger.ParseCheckpoint(f.Long, v)
	if err != nil {
		return err
	}
	short, err := ledger.ParseCheckpoint(f.Short, v)
	if err != nil {
		return err
	}
	if short.Size > long.Size || int64(len(f.Leaves)) != long.Size {
		return errors.New("evidence of a fork: sizes do not fit")
	}
	var t ledger.Tree
	was := t.Head()
	for i, leaf := range f.Leaves {
		if t, err = t.AppendLeaf(leaf); err != nil {
			return err
		}
		if int64(i)+1 == short.Size {
			was = t.Head()
		}
	}
	if t.Head() != long || was == short {
		return errors.New("evidence of a fork: the checkpoints do not contradict each other")
	}
	return nil
}

// compare checks that a checkpoint of a size that this node has is of this log. g.mu is held.
func (g *Governance) compare(ctx context.Context, head ledger.Head, checkpoint []byte) error {
	was, err := g.log.HeadAt(head.Size)
	if err != nil || was == head {
		return err
	}
	entries, err := entriesOf(g.log, 0, g.log.Head().Size)
	if err != nil {
		return err
	}
	return g.convict(ctx, Fork{Long: g.log.Checkpoint(), Short: checkpoint}, entries)
}

// Examine looks for a fork in a whole log that somebody holds: entries and the checkpoint that signs them. It returns
// [ledger.ErrFork], and has kept the evidence, if the chair has signed both that log and this one.
func (g *Governance) Examine(ctx context.Context, entries [][]byte, checkpoint []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.examine(ctx, entries, checkpoint)
}

func (g *Governance) examine(ctx context.Context, entries [][]byte, checkpoint []byte) error {
	head, err := ledger.ParseCheckpoint(checkpoint, g.log.Verifier())
	if err != nil {
		return err
	}
	if whole, err := ledger.HeadOf(entries); err != nil || whole != head {
		return errors.Join(errors.New("governance log: the entries are not those of the checkpoint"), err)
	}
	mine := g.log.Head()
	if head.Size <= mine.Size {
		return g.compare(ctx, head, checkpoint)
	}
	if was, err := ledger.HeadOf(entries[:mine.Size]); err != nil || was == mine {
		return err
	}
	return g.convict(ctx, Fork{Long: checkpoint, Short: g.log.Checkpoint()}, entries)
}

// convict keeps the evidence of a fork, and freezes the log. g.mu is held.
func (g *Governance) convict(ctx context.Context, f Fork, entries [][]byte) error {
	f.Time = g.o.Now().UTC().Format(timeFormat)
	for _, e := range entries {
		f.Leaves = append(f.Leaves, ledger.LeafHash(e))
	}
	if err := f.Verify(g.log.Verifier()); err != nil {
		return err
	}
	v, err := json.Marshal(f)
	if err != nil {
		return err
	}
	id := sha256.Sum256(append(append([]byte(nil), f.Long...), f.Short...))
	if err := g.db.Update(ctx, func(tx *store.Tx) error { return tx.Bucket(evidenceBucket).Put(id[:], v) }); err != nil {
		return err
	}
	err = g.freeze(ctx, fmt.Sprintf("its chair, %s, has signed two histories; the evidence is kept", g.Current().chair))
	return fmt.Errorf("%w: %w", ledger.ErrFork, err)
}

// freeze ends taking in, appending and cosigning until a human has looked. It returns the error that says so. g.mu is
// held.
func (g *Governance) freeze(ctx context.Context, why string) error {
	err := g.db.Update(ctx, func(tx *store.Tx) error { return tx.Bucket(metaBucket).Put(frozenKey, []byte(why)) })
	if err != nil {
		return err
	}
	g.frozen = why
	g.moved(g.unsuspended)
	return fmt.Errorf("%w: %s", ErrFrozen, why)
}

// Frozen returns why nothing is added to the log and cosigned any more, or "".
func (g *Governance) Frozen() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.frozen
}

// Forks calls fn with every piece of evidence against a chair.
func Forks(tx *store.Tx, fn func(Fork) error) error {
	b := tx.Bucket(evidenceBucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var f Fork
		if err := json.Unmarshal(v, &f); err != nil {
			return fmt.Errorf("evidence %x: %w", k, err)
		}
		return fn(f)
	})
}
