// Package store keeps a node's state: one bbolt file that holds journal, replay set and logs in one transaction domain.
//
// Its three nouns: a [DB] is that file, opened by one process at a time; a [Tx] is a transaction in it; a batch is what
// the transactions that wait for the disk share: one bbolt transaction and one fsync.
//
// It promises that when Update returns nil the change is on the disk, that a change is applied whole or not at all,
// that one caller's failure is not another's, and that a file that is in use, read-only, damaged or of a newer version
// is refused with the reason and the mend.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Errors of Open, each wrapped with the path and the mend.
var (
	ErrLocked   = errors.New("in use by another process")
	ErrReadOnly = errors.New("read-only")
	ErrNewer    = errors.New("written by a newer version")
	ErrCorrupt  = errors.New("damaged")
	ErrClosed   = errors.New("the database is closed")
)

// ErrUnknown is what Update returns once the disk failed in the middle of a commit: that batch may be on it or not.
// Nothing more is written until the database is opened again.
var ErrUnknown = errors.New("the disk failed while a commit was written")

// Options are how a database is opened. All fields are optional.
type Options struct {
	ReadOnly bool
	MaxBatch int // changes that share one fsync at most; default 1024
	Logger   *slog.Logger
}

// A DB is an open database. It is safe for concurrent use.
type DB struct {
	bolt  *bolt.DB
	path  string
	batch int
	log   *slog.Logger

	queue chan *change
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	failed error // of the writing goroutine: why nothing is written any more
}

// lockWait is how long Open waits for the file lock: bbolt tries at once, and then again until this is over.
const lockWait = 10 * time.Millisecond

// Open opens or makes the database at path and brings it to the current schema. It starts a goroutine that Close ends.
func Open(path string, o Options) (_ *DB, err error) {
	if o.MaxBatch <= 0 {
		o.MaxBatch = 1024
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := inspect(path); err != nil {
		return nil, err
	}
	db := &DB{path: path, batch: o.MaxBatch, log: o.Logger, queue: make(chan *change, o.MaxBatch), stop: make(chan struct{}), done: make(chan struct{})}
	if db.bolt, err = openBolt(path, o.ReadOnly); err != nil {
		return nil, err
	}
	if err := db.checkSize(); err != nil {
		return nil, errors.Join(err, db.bolt.Close())
	}
	if err := db.migrate(o.ReadOnly); err != nil {
		return nil, errors.Join(err, db.bolt.Close())
	}
	go db.write()
	return db, nil
}

// openBolt opens the file; what bbolt panics about is damage. The list of free pages is kept in the file: without it,
// bbolt walks the whole file on every open, and in a goroutine of its own, where damage ends the process.
func openBolt(path string, readOnly bool) (b *bolt.DB, err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	var file *os.File
	defer func() {
		if b == nil && file != nil { // bbolt closes what it fails to open, but not when it panics
			file.Close()
		}
	}()
	defer damaged(path, &err)
	o := &bolt.Options{ReadOnly: readOnly, Timeout: lockWait, FreelistType: bolt.FreelistMapType}
	o.OpenFile = func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, perm)
		return file, err
	}
	b, err = bolt.Open(path, 0o600, o)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w; stop the other fednode on this data directory, or name another with -D", path, ErrLocked)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("%s: %w (%w); make the data directory writable for this user", path, ErrReadOnly, err)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%s: %w (%w); restore it from a backup", path, ErrCorrupt, err)
	}
	return nil, fmt.Errorf("open database: %w", err)
}

// damaged turns a panic over the file's content into ErrCorrupt. A fault in mapped memory is a file cut short.
func damaged(path string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: %w (%v); restore it from a backup", path, ErrCorrupt, p)
	}
}

// inspect finds a file that was cut short before it is mapped, since touching what isn't there kills the process.
func inspect(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return checkDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if size := st.Size(); size > 0 && size < 4*int64(os.Getpagesize()) {
		return fmt.Errorf("%s: %w (%d bytes are too few for a database); restore it from a backup", path, ErrCorrupt, size)
	}
	return nil
}

// checkSize compares the file with the pages that it says it has.
func (db *DB) checkSize() error {
	st, err := os.Stat(db.path)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	return db.bolt.View(func(tx *bolt.Tx) error {
		if tx.Size() > st.Size() {
			return fmt.Errorf("%s: %w (%d bytes of %d); restore it from a backup", db.path, ErrCorrupt, st.Size(), tx.Size())
		}
		return nil
	})
}

func checkDir(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("data directory %s is not a directory", dir)
	}
	return nil
}

// Path returns the database's file name.
func (db *DB) Path() string { return db.path }

// Close waits for the batch under way, fails what is still queued, and closes the file.
func (db *DB) Close() (err error) {
	db.once.Do(func() {
		close(db.stop)
		<-db.done
		err = db.bolt.Close()
	})
	return err
}

// View runs fn in a read-only transaction, on the state after the last committed batch.
func (db *DB) View(fn func(*Tx) error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer damaged(db.path, &err)
	err = db.bolt.View(func(tx *bolt.Tx) error { return fn(&Tx{tx: tx}) })
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// Update runs fn in a transaction and returns when it is on the disk. Transactions that wait at the same time share one
// fsync. If fn fails or panics, only its own change is undone; the others' functions are run again, so that fn must not
// have effects outside tx but through [Tx.AfterCommit], and must not call Update itself, which would wait for ever.
// Once fn has begun, ctx no longer stops it.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &change{fn: fn, result: make(chan error, 1)}
	select {
	case db.queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.done:
		return ErrClosed
	}
	select {
	case err := <-c.result:
		return err
	case <-ctx.Done():
		if c.abandon() {
			return ctx.Err()
		}
	case <-db.done:
	}
	select {
	case err := <-c.result:
		return err
	case <-db.done:
		select {
		case err := <-c.result:
			return err
		default:
			return ErrClosed
		}
	}
}
