package transport

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/store"
)

const (
	bucketReplay  = "transport/replay"        // sender, 0, message id → when to forget it
	bucketForget  = "transport/replay-forget" // when to forget, sender, 0, message id
	bucketSecrets = "transport/secrets"

	// maxForget bounds the housekeeping of one transaction; more than one per message, so that the set shrinks.
	maxForget = 16
	// maxSpans bounds what is kept of what was forgotten; the closest are taken together.
	maxSpans = 16
)

var forgottenKey = []byte("\x00horizon") // → spans; sorts apart from senders, which are not empty

// replayKeep is how long after its timestamp a message id is remembered: through the window in which the message would
// be acceptable, and twice that again for a clock that is set back.
func (n *Node) replayKeep() time.Duration { return 3 * n.limit.ClockSkew }

// skewed reports whether e is of another time than now, by more than clocks may differ.
func (n *Node) skewed(e *Envelope) bool { return e.Timestamp.Sub(n.c.Now()).Abs() > n.limit.ClockSkew }

func replayKey(e *Envelope) []byte {
	return []byte(string(e.Sender.OrganizationID) + "\x00" + string(e.MessageID))
}

// seen refuses a message that was remembered before, or that is so old that it may have been.
func (n *Node) seen(tx *store.Tx, e *Envelope) error {
	b := tx.Bucket(bucketReplay)
	if b == nil {
		return nil
	}
	if b.Get(replayKey(e)) != nil {
		return &Error{CodeReplayed, "this message_id was received before; redeliver under a new one"}
	}
	if parseSpans(b.Get(forgottenKey)).cover(e.Timestamp.Add(n.replayKeep()).UnixMilli()) {
		return &Error{CodeExpired, "the message is of a time of which this node has forgotten the message ids"}
	}
	return nil
}

// A span is a time of which message ids were forgotten, by when they were to be. What was never remembered is in none
// unless it lies between two ids that were forgotten.
type span struct{ from, to int64 }

// spans are apart and in order. They are several because a clock may have been wrong, and this node's peers' with it: that
// ids of next year were forgotten must not have everything refused until then.
type spans []span

func parseSpans(v []byte) (s spans) {
	if len(v) == 8 { // as it was kept before: everything up to then
		return spans{{0, int64(binary.BigEndian.Uint64(v))}}
	}
	s = make(spans, 0, len(v)/16)
	for ; len(v) >= 16; v = v[16:] {
		s = append(s, span{int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))})
	}
	return s
}

func (s spans) bytes() (v []byte) {
	for _, x := range s {
		v = append(append(v, bigEndian(x.from)...), bigEndian(x.to)...)
	}
	return v
}

func (s spans) cover(at int64) bool {
	return slices.ContainsFunc(s, func(x span) bool { return x.from <= at && at <= x.to })
}

// with returns s and at. If there are too many, those are joined that have the least between them, and are not to come.
func (s spans) with(at, now int64) spans {
	if s.cover(at) {
		return s
	}
	i, _ := slices.BinarySearchFunc(s, at, func(x span, at int64) int { return cmp.Compare(x.from, at) })
	s = slices.Insert(s, i, span{at, at})
	if len(s) <= maxSpans {
		return s
	}
	join := len(s) - 1
	for i := 1; i < len(s) && s[i].from <= now; i++ {
		if i == 1 || s[i].from-s[i-1].to < s[join].from-s[join-1].to {
			join = i
		}
	}
	s[join-1].to = s[join].to
	return slices.Delete(s, join, join+1)
}

// remember adds e to the replay set, durably with tx, and forgets some of what has expired.
func (n *Node) remember(tx *store.Tx, e *Envelope) error {
	if err := n.seen(tx, e); err != nil {
		return err
	}
	set, forget := tx.Bucket(bucketReplay), tx.Bucket(bucketForget)
	count := set.Sequence() // the bucket's sequence number counts its members: transactional, and no scan at start
	now := n.c.Now().UnixMilli()
	was := bytes.Clone(set.Get(forgottenKey))
	forgotten := parseSpans(was)
	for range maxForget {
		k, _ := forget.Cursor().First()
		if k == nil || int64(binary.BigEndian.Uint64(k)) > now {
			break
		}
		forgotten = forgotten.with(int64(binary.BigEndian.Uint64(k)), now)
		if err := set.Delete(k[8:]); err != nil {
			return err
		}
		if err := forget.Delete(k); err != nil {
			return err
		}
		count--
	}
	if v := forgotten.bytes(); !bytes.Equal(v, was) {
		if err := set.Put(forgottenKey, v); err != nil {
			return err
		}
	}
	if count >= n.limit.ReplayEntries {
		return &Error{CodeOverloaded, "too many messages in the last minutes"}
	}
	key := replayKey(e)
	until := bigEndian(e.Timestamp.Add(n.replayKeep()).UnixMilli())
	if err := set.Put(key, until); err != nil {
		return err
	}
	if err := forget.Put(append(until, key...), nil); err != nil {
		return err
	}
	return set.SetSequence(count + 1)
}

// resetKey returns the key of stateless resets (RFC 9000 section 10.3). It outlives a restart, so that peers learn at
// once that their old connections are gone.
func (n *Node) resetKey(ctx context.Context) (*quic.StatelessResetKey, error) {
	var key quic.StatelessResetKey
	err := n.c.DB.Update(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(bucketSecrets)
		name := []byte("stateless-reset-key")
		v := b.Get(name)
		if len(v) != len(key) {
			v = randomBytes(len(key))
			if err := b.Put(name, v); err != nil {
				return err
			}
		}
		copy(key[:], v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("stateless reset key: %w", err)
	}
	return &key, nil
}
