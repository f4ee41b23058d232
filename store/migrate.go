package store

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Schema is the version of the buckets' layout that this package writes.
const Schema = 1

var (
	metaBucket = []byte("store/meta")
	schemaKey  = []byte("schema")
)

// migrations take a database from the version of their index to the next one.
var migrations = [...]func(*bolt.Tx) error{
	0: func(*bolt.Tx) error { return nil }, // an empty file has every bucket it needs: none
}

func (db *DB) migrate(readOnly bool) (err error) {
	defer damaged(db.path, &err)
	have := uint64(0)
	err = db.bolt.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(metaBucket); b != nil {
			v := b.Get(schemaKey)
			if len(v) != 8 {
				return fmt.Errorf("%w; restore it from a backup", ErrCorrupt)
			}
			have = binary.BigEndian.Uint64(v)
			return nil
		}
		if name, _ := tx.Cursor().First(); name != nil {
			return fmt.Errorf("it holds %.40q and is not a database of fednode", name)
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("read schema of %s: %w", db.path, err)
	case have > Schema:
		return fmt.Errorf("%s: %w (schema %d; this one knows %d); upgrade fednode", db.path, ErrNewer, have, Schema)
	case have == Schema || readOnly:
		return nil
	}
	err = db.bolt.Update(func(tx *bolt.Tx) error {
		for _, m := range migrations[have:] {
			if err := m(tx); err != nil {
				return err
			}
		}
		b, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		return b.Put(schemaKey, binary.BigEndian.AppendUint64(nil, Schema))
	})
	if err != nil {
		return fmt.Errorf("bring %s to schema %d: %w", db.path, Schema, err)
	}
	return nil
}
