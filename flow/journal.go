package flow

import (
	"encoding/json"
	"fmt"

	"fednode/store"
)

// Buckets of the journal. They share the node's database with its own log, so that a result and its entry are one
// transaction.
const (
	bucketAgreements = "agreements" // agreement hash → Agreement
	bucketNotices    = "notices"    // agreement hash / organisation / message type → notice, until it has been answered
	bucketRuns       = "runs"       // run id → runRecord, at the initiator
	bucketCancels    = "cancels"    // run id → true, until its driver has ended it
	bucketAttempts   = "attempts"   // idempotency key → attempt, at the executor
	bucketHoldings   = "holdings"   // run id / artifact id → Holding
	bucketApprovals  = "approvals"  // idempotency key → Approval
	bucketSalts      = "salts"      // commitment in an entry → salt of the user id or prompt committed to; may be erased
	bucketAge        = "age"        // ageKey → how long the node had run when it was written
)

const ageKey = "node"

func put(tx *store.Tx, bucket, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("journal %s/%s: %w", bucket, key, err)
	}
	return tx.Bucket(bucket).Put([]byte(key), b)
}

func get[T any](tx *store.Tx, bucket, key string) (v T, ok bool, err error) {
	b := tx.Bucket(bucket)
	if b == nil {
		return v, false, nil
	}
	data := b.Get([]byte(key))
	if data == nil {
		return v, false, nil
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, false, fmt.Errorf("journal %s/%s is damaged: %w", bucket, key, err)
	}
	return v, true, nil
}

// each calls fn for every record whose key begins with prefix, in key order, until fn returns an error.
func each[T any](tx *store.Tx, bucket, prefix string, fn func(key string, v T) error) error {
	b := tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, data := c.Seek([]byte(prefix)); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix; k, data = c.Next() {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("journal %s/%s is damaged: %w", bucket, k, err)
		}
		if err := fn(string(k), v); err != nil {
			return err
		}
	}
	return nil
}
