package transport

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"fednode/store"
	"fednode/store/ledger"
)

const (
	bucketHead     = "transport/head"     // log origin → headState
	bucketHeads    = "transport/heads"    // log origin, 0, size → root and signed checkpoint
	bucketEvidence = "transport/evidence" // hash → Evidence

	// headGrace is how long messages proven against an older checkpoint may be under way: two messages of one peer
	// travel on streams of their own and may arrive in any order.
	headGrace = time.Minute
	// maxHeadPrune bounds the housekeeping of one transaction.
	maxHeadPrune = 64
	// maxEvidence bounds what one misbehaving peer can make this node keep; one piece convicts.
	maxEvidence = 1024
)

// A headState is what this node has seen of one peer's log. Sizes below Floor were left behind at least headGrace ago:
// a message that is proven against one comes from a log that was rolled back. Every checkpoint from Floor on is kept.
type headState struct {
	Size  int64     `json:"size"`
	Floor int64     `json:"floor"`
	Next  int64     `json:"next"` // the floor to come, once it is old enough
	Since time.Time `json:"since"`
	Grown time.Time `json:"grown,omitzero"` // when Size last grew
}

// floor is the least size that a message may be proven against now: once the log has been silent for long enough,
// nothing older than all of it can be under way.
func (s headState) floor(now time.Time) int64 {
	if !s.Grown.IsZero() && now.Sub(s.Grown) >= headGrace {
		return s.Size
	}
	return s.Floor
}

// Evidence is what convicts a peer's log of having been rolled back or forked.
type Evidence struct {
	Kind      Code            `json:"kind"` // log-rollback, log-fork or governance-fork
	Peer      OrgID           `json:"peer"`
	Time      Time            `json:"time"`
	Known     []byte          `json:"known,omitempty"`     // signed checkpoint seen before
	Presented []byte          `json:"presented,omitempty"` // signed checkpoint that contradicts it
	Envelope  json.RawMessage `json:"envelope"`            // ledger form of the message it came with
}

// AllEvidence calls fn with every piece of evidence this node has kept.
func AllEvidence(tx *store.Tx, fn func(Evidence) error) error {
	b := tx.Bucket(bucketEvidence)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var e Evidence
		if err := json.Unmarshal(v, &e); err != nil {
			return fmt.Errorf("evidence %x: %w", k, err)
		}
		return fn(e)
	})
}

func headKey(origin string, size int64) []byte {
	return append(append([]byte(origin), 0), bigEndian(size)...)
}

func bigEndian(i int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func loadHead(b *bbolt.Bucket, origin string) (s headState, known bool, err error) {
	if b == nil {
		return s, false, nil
	}
	v := b.Get([]byte(origin))
	if v == nil {
		return s, false, nil
	}
	if err := json.Unmarshal(v, &s); err != nil {
		return s, false, fmt.Errorf("head of %s: %w", origin, err)
	}
	return s, true, nil
}

// contradiction compares head with what was seen of this log before. known is the signed checkpoint it contradicts.
func (n *Node) contradiction(tx *store.Tx, origin string, head ledger.Head) (kind Code, known []byte, err error) {
	s, ok, err := loadHead(tx.Bucket(bucketHead), origin)
	if err != nil || !ok {
		return "", nil, err
	}
	heads := tx.Bucket(bucketHeads)
	if heads == nil {
		return "", nil, nil
	}
	if head.Size < s.floor(n.c.Now()) {
		return CodeLogRollback, bytes.Clone(heads.Get(headKey(origin, s.Size))[len(head.Root):]), nil
	}
	if v := heads.Get(headKey(origin, head.Size)); v != nil && !bytes.Equal(v[:len(head.Root)], head.Root[:]) {
		return CodeLogFork, bytes.Clone(v[len(head.Root):]), nil
	}
	return "", nil, nil
}

// advance takes head into what is known of the peer's log, after contradiction has found nothing.
func (n *Node) advance(tx *store.Tx, origin string, head ledger.Head, checkpoint []byte) error {
	states, heads, now := tx.Bucket(bucketHead), tx.Bucket(bucketHeads), n.c.Now().UTC()
	s, ok, err := loadHead(states, origin)
	if err != nil {
		return err
	}
	key := headKey(origin, head.Size)
	fresh := heads.Get(key) == nil
	if fresh {
		if err := heads.Put(key, append(bytes.Clone(head.Root[:]), checkpoint...)); err != nil {
			return err
		}
	}
	if !ok {
		s.Since = now
	}
	if head.Size > s.Size {
		s.Size, s.Grown = head.Size, now
	}
	if age := now.Sub(s.Since); age >= headGrace || age < 0 {
		s.Floor, s.Next, s.Since = s.Next, s.Size, now
	} else if ok && !fresh {
		return nil
	}
	if err := pruneHeads(heads, origin, s.Floor); err != nil {
		return err
	}
	v, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return states.Put([]byte(origin), v)
}

func pruneHeads(heads *bbolt.Bucket, origin string, floor int64) error {
	c := heads.Cursor()
	first, end := headKey(origin, 0), headKey(origin, floor)
	for range maxHeadPrune {
		k, _ := c.Seek(first)
		if k == nil || bytes.Compare(k, end) >= 0 {
			return nil
		}
		if err := heads.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// checkHead returns an *Error if the proof that came with in contradicts an earlier one of the same log.
func (n *Node) checkHead(tx *store.Tx, in *incoming) error {
	kind, _, err := n.contradiction(tx, in.from.LogOrigin(), in.entry.head)
	if err != nil || kind == "" {
		return err
	}
	return refuse(kind, "checkpoint of size %d contradicts an earlier one of your log", in.entry.head.Size)
}

// convict keeps the evidence of what a message was refused for, if it is of that kind.
func (n *Node) convict(tx *store.Tx, in *incoming, c Code) error {
	e := Evidence{Kind: c, Peer: in.from.ID, Time: NewTime(n.c.Now()), Envelope: in.form}
	switch c {
	case CodeGovernanceFork:
		e.Presented = []byte(in.envelope.Binding.GovernanceHead)
	case CodeLogFork, CodeLogRollback:
		_, known, err := n.contradiction(tx, in.from.LogOrigin(), in.entry.head)
		if err != nil {
			return err
		}
		e.Known, e.Presented = known, in.entry.checkpoint
	default:
		return nil
	}
	return n.keepEvidence(tx, e)
}

func (n *Node) keepEvidence(tx *store.Tx, e Evidence) error {
	b := tx.Bucket(bucketEvidence)
	id := sha256.Sum256(append(append([]byte(string(e.Kind)+"\n"+string(e.Peer)+"\n"), e.Known...), e.Presented...))
	if b.Get(id[:]) != nil || b.Sequence() >= maxEvidence {
		return nil
	}
	v, err := json.Marshal(e)
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		n.m.evidence(e.Peer, string(e.Kind))
		n.c.Logger.Error("evidence against a peer's log was kept", "peer", e.Peer, "kind", string(e.Kind))
	})
	if _, err := b.NextSequence(); err != nil {
		return err
	}
	return b.Put(id[:], v)
}
