package store

import (
	"errors"
	"fmt"
	"runtime/debug"
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
	debug.SetPanicOnFault(true) // a page that cannot be read fails its batch, not the process
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

// rerun is how many changes may be run again because a later one failed. Beyond it they are committed without the rest,
// so that a flood of refused changes costs the others an fsync now and then, and not a number of runs that grows with
// its square.
const rerun = 64

// commit writes a batch. A change that fails is answered and left out, and the rest begins again: bbolt has no
// savepoints. A change that is run for the second time and fails only then is treated alike.
func (db *DB) commit(batch []*change) {
	for len(batch) > 0 {
		i, err := db.try(batch)
		if i == len(batch) {
			answer(batch, err)
			return
		}
		batch[i].result <- err
		if i >= rerun {
			db.commit(batch[:i])
			batch = batch[i+1:]
			continue
		}
		batch = append(batch[:i:i], batch[i+1:]...)
	}
}

func answer(batch []*change, err error) {
	for _, c := range batch {
		c.result <- err
	}
}

// try runs a batch and commits it. It returns the index of the change that failed, and why, or len(batch) and the
// outcome of the commit.
func (db *DB) try(batch []*change) (int, error) {
	if db.failed != nil {
		return len(batch), db.failed
	}
	tx, at, before := &Tx{}, 0, db.version()
	err := guard(func() error {
		return db.bolt.Update(func(b *bolt.Tx) error {
			for tx.tx = b; at < len(batch); at++ {
				if err := guard(func() error { return batch[at].fn(tx) }); err != nil {
					return err
				}
			}
			return tx.finish()
		})
	})
	switch {
	case err == nil:
		for _, fn := range tx.after {
			if err := guard(func() error { fn(); return nil }); err != nil {
				db.log.Error("after commit", "err", err)
			}
		}
	case at < len(batch):
	case db.version() != before:
		// The new version can be read, but the disk did not confirm it: it may or may not be there after a crash. What is
		// in memory no longer says what is on the disk, so that only opening the database again tells.
		db.failed = fmt.Errorf("%s: %w; restart fednode (%w)", db.path, ErrUnknown, err)
		db.log.Error("commit failed", "changes", len(batch), "err", db.failed)
		return at, db.failed
	default:
		err = fmt.Errorf("nothing was written to %s: %w", db.path, err)
		db.log.Error("commit failed", "changes", len(batch), "err", err)
	}
	return at, err
}

// version returns bbolt's number of the version that a reader would see, or 0.
func (db *DB) version() (id int) {
	if err := db.bolt.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		return 0
	}
	return id
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

// BeforeCommit runs fn once for key in this batch, after all its changes. Its error fails the whole batch. A hook may
// add hooks.
func (tx *Tx) BeforeCommit(key string, fn func() error) {
	for _, h := range tx.before {
		if h.key == key {
			return
		}
	}
	tx.before = append(tx.before, hook{key, fn})
}

// AfterCommit runs fn once the batch is on the disk, before Update returns. It is dropped when the batch is undone. A
// panic in it is logged: what is on the disk stays there.
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
	for i := 0; i < len(tx.before); i++ {
		if err := tx.before[i].fn(); err != nil {
			return err
		}
	}
	return nil
}
