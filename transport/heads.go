package transport

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"fednode/store"
)

const (
	bucketHead     = "transport/head"     // log origin → headState
	bucketHeads    = "transport/heads"    // log origin, 0, size → root and signed checkpoint
	bucketEvidence = "transport/evidence" // hash → Evidence

	// maxHeadPrune bounds the housekeeping of one transaction.
	maxHeadPrune = 64
	// maxEvidence bounds what one misbehaving peer can make this node keep; one piece convicts.
	maxEvidence = 1024
)

// A headState is what this node has seen of one peer's log. Sizes below Floor were left behind at least a grace ago: a
// message that is proven against one comes from a log that was rolled back. Every checkpoint from Floor on is kept. What
// that is decided by is the monotonic clock of one process: the clock on the wall may be set, which must convict nobody.
type headState struct {
	Size    int64         `json:"size"`
	Floor   int64         `json:"floor"`
	Next    int64         `json:"next"` // the floor to come, once it is old enough
	Process string        `json:"process"`
	Aged    time.Duration `json:"aged_ns"` // when Next became what it is
	Grew    time.Duration `json:"grew_ns"` // when Size last grew
	Grown   time.Time     `json:"grown"`   // the same by the clock on the wall, to be shown
}

// headGrace is how long messages proven against an older checkpoint may be under way: two messages of one peer travel on
// streams of their own and may arrive in any order. Two clocks that differ by as much as is allowed let a request be twice
// as old.
func (n *Node) headGrace() time.Duration { return 2 * n.limit.ClockSkew }

// floor is the least size that a message may be proven against now: once the log has been silent for long enough,
// nothing older than all of it can be under way.
func (n *Node) floor(s headState) int64 {
	if n.began.elapsed()-s.Grew >= n.headGrace() {
		return s.Size
	}
	return s.Floor
}

// A beginning is when a process began, by a clock that is never set.
type beginning struct {
	process string
	at      time.Time
}

func begin() beginning { return beginning{rand.Text(), time.Now()} }

func (b beginning) elapsed() time.Duration { return time.Since(b.at) }

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

// loadHead returns what is kept of a log's head. What another process saw, it saw before this one began.
func (n *Node) loadHead(b *bbolt.Bucket, origin string) (s headState, known bool, err error) {
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
	if s.Process != n.began.process {
		s.Process, s.Aged, s.Grew = n.began.process, 0, 0
	}
	return s, true, nil
}

// contradiction compares the checkpoint that came with in to what was seen of this log before. known is the signed
// checkpoint it contradicts.
func (n *Node) contradiction(tx *store.Tx, in *incoming) (kind Code, known []byte, err error) {
	origin, head := in.from.LogOrigin(), in.entry.head
	s, ok, err := n.loadHead(tx.Bucket(bucketHead), origin)
	if err != nil || !ok {
		return "", nil, err
	}
	heads := tx.Bucket(bucketHeads)
	if heads == nil {
		return "", nil, nil
	}
	if !in.inTime && head.Size < n.floor(s) {
		return CodeLogRollback, bytes.Clone(heads.Get(headKey(origin, s.Size))[len(head.Root):]), nil
	}
	if v := heads.Get(headKey(origin, head.Size)); v != nil && !bytes.Equal(v[:len(head.Root)], head.Root[:]) {
		return CodeLogFork, bytes.Clone(v[len(head.Root):]), nil
	}
	return "", nil, nil
}

// advance takes the checkpoint that came with in into what is known of the peer's log, after contradiction has found
// nothing.
func (n *Node) advance(tx *store.Tx, in *incoming) error {
	origin, head := in.from.LogOrigin(), in.entry.head
	states, heads, now := tx.Bucket(bucketHead), tx.Bucket(bucketHeads), n.began.elapsed()
	s, ok, err := n.loadHead(states, origin)
	if err != nil {
		return err
	}
	key := headKey(origin, head.Size)
	fresh := heads.Get(key) == nil
	if fresh {
		if err := heads.Put(key, append(bytes.Clone(head.Root[:]), in.entry.checkpoint...)); err != nil {
			return err
		}
	}
	if !ok {
		s.Process, s.Aged = n.began.process, now
	}
	if head.Size > s.Size {
		s.Size, s.Grew, s.Grown = head.Size, now, n.c.Now().UTC()
	}
	if now-s.Aged >= n.headGrace() {
		s.Floor, s.Next, s.Aged = s.Next, s.Size, now
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

// checkHead returns an *Error if the proof that came with in contradicts an earlier one of the same log. What has not come
// too late when it was first asked about does not come to be late by how long this node takes over it.
func (n *Node) checkHead(tx *store.Tx, in *incoming) error {
	kind, _, err := n.contradiction(tx, in)
	if err != nil {
		return err
	}
	if kind != "" {
		return refuse(kind, "checkpoint of size %d contradicts an earlier one of your log", in.entry.head.Size)
	}
	in.inTime = true
	return nil
}

// convict keeps the evidence of what a message was refused for, if it is of that kind.
func (n *Node) convict(tx *store.Tx, in *incoming, c Code) error {
	e := Evidence{Kind: c, Peer: in.from.ID, Time: NewTime(n.c.Now()), Envelope: in.form}
	switch c {
	case CodeGovernanceFork:
		e.Presented = []byte(in.envelope.Binding.GovernanceHead)
	case CodeLogFork, CodeLogRollback:
		_, known, err := n.contradiction(tx, in)
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
