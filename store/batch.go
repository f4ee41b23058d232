package store

import (
	"errors"
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// A change is one caller's function, waiting for its batch.
type change struct {
	fn     func(*Tx) error
	result chan error

	mu    sync.Mutex
	state changeState
}

type changeState int

const (
	queued changeState = iota
	begun
	abandoned
)

// begin takes the change into a batch, unless its caller has given up.
func (c *change) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == queued {
		c.state = begun
	}
	return c.state == begun
}

// abandon gives the change up, unless it is in a batch.
func (c *change) abandon() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == queued {
		c.state = abandoned
	}
	return c.state == abandoned
}

// write commits batches until Close.
func (db *DB) write() {
	defer close(db.done)
	for {
		select {
		case c := <-db.queue:
			db.commit(db.gather(c))
		case <-db.stop:
			for {
				select {
				case c := <-db.queue:
					c.result <- ErrClosed
				default:
					return
				}
			}
		}
	}
}

// gather takes what waits, without waiting for more.
func (db *DB) gather(first *change) []*change {
	batch := make([]*change, 0, db.batch)
	for c := first; ; {
		if c.begin() {
			batch = append(batch, c)
		}
		if len(batch) == db.batch {
			return batch
		}
		select {
		case c = <-db.queue:
		default:
			return batch
		}
	}
}

// commit writes a batch. A change that fails is answered and left out, and the rest begins again: bbolt has no
// savepoints. A change that is run for the second time and fails only then is treated alike.
func (db *DB) commit(batch []*change) {
	for len(batch) > 0 {
		tx := &Tx{}
		failed := -1
		var failure error
		err := db.bolt.Update(func(b *bolt.Tx) error {
			tx.tx = b
			for i, c := range batch {
				if err := guard(func() error { return c.fn(tx) }); err != nil {
					failed, failure = i, err
					return err
				}
			}
			return guard(tx.finish)
		})
		switch {
		case failed >= 0:
			batch[failed].result <- failure
			batch = append(batch[:failed:failed], batch[failed+1:]...)
			continue
		case err != nil:
			err = fmt.Errorf("nothing was written to %s: %w", db.path, err)
			db.log.Error("commit failed", "changes", len(batch), "err", err)
		default:
			for _, fn := range tx.after {
				fn()
			}
		}
		for _, c := range batch {
			c.result <- err
		}
		return
	}
}

// errPanic is wrapped by what a change's panic is turned into.
var errPanic = errors.New("panic in a transaction")

func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return fn()
}

// A Tx is a transaction: of one View, or of the batch that an Update is part of.
type Tx struct {
	tx     *bolt.Tx
	before []hook
	after  []func()
	values map[string]any
}

type hook struct {
	key string
	fn  func() error
}

// Writable reports whether the transaction can write.
func (tx *Tx) Writable() bool { return tx.tx.Writable() }

// Bucket returns the named bucket: in an Update, made if it is missing; in a View, nil if it is missing. It panics only
// in an Update that cannot go on, and Update returns that as an error.
func (tx *Tx) Bucket(name string) *bolt.Bucket {
	if b := tx.tx.Bucket([]byte(name)); b != nil || !tx.Writable() {
		return b
	}
	b, err := tx.tx.CreateBucket([]byte(name))
	if err != nil {
		panic(fmt.Errorf("bucket %s: %w", name, err))
	}
	return b
}

// BeforeCommit runs fn once for key in this batch, after all its changes. Its error fails the whole batch.
func (tx *Tx) BeforeCommit(key string, fn func() error) {
	for _, h := range tx.before {
		if h.key == key {
			return
		}
	}
	tx.before = append(tx.before, hook{key, fn})
}

// AfterCommit runs fn once the batch is on the disk, before Update returns. It is dropped when the batch is undone.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// Value returns what SetValue kept for key in this batch, or nil.
func (tx *Tx) Value(key string) any { return tx.values[key] }

// SetValue keeps v for the rest of this batch; it is dropped when the batch is undone.
func (tx *Tx) SetValue(key string, v any) {
	if tx.values == nil {
		tx.values = map[string]any{}
	}
	tx.values[key] = v
}

func (tx *Tx) finish() error {
	for _, h := range tx.before {
		if err := h.fn(); err != nil {
			return err
		}
	}
	return nil
}
