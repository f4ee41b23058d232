package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
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
)

var horizonKey = []byte("\x00horizon") // sorts apart from senders, which are not empty

// replayKeep is how long after its timestamp a message id is remembered: through the window in which the message would
// be acceptable, and twice that again for a clock that is set back.
func (n *Node) replayKeep() time.Duration { return 3 * n.limit.ClockSkew }

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
	if h := b.Get(horizonKey); h != nil && e.Timestamp.Add(n.replayKeep()).UnixMilli() <= int64(binary.BigEndian.Uint64(h)) {
		return &Error{CodeExpired, "the message is older than this node's memory of message ids"}
	}
	return nil
}

// remember adds e to the replay set, durably with tx, and forgets some of what has expired.
func (n *Node) remember(tx *store.Tx, e *Envelope) error {
	if err := n.seen(tx, e); err != nil {
		return err
	}
	set, forget := tx.Bucket(bucketReplay), tx.Bucket(bucketForget)
	count := set.Sequence() // the bucket's sequence number counts its members: transactional, and no scan at start
	now := n.c.Now().UnixMilli()
	var horizon []byte
	for range maxForget {
		k, _ := forget.Cursor().First()
		if k == nil || int64(binary.BigEndian.Uint64(k)) > now {
			break
		}
		horizon = bytes.Clone(k[:8])
		if err := set.Delete(k[8:]); err != nil {
			return err
		}
		if err := forget.Delete(k); err != nil {
			return err
		}
		count--
	}
	if horizon != nil && bytes.Compare(horizon, set.Get(horizonKey)) > 0 {
		if err := set.Put(horizonKey, horizon); err != nil {
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
