package threshold

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"fednode/hsm"
	"fednode/hsm/durable"
)

// A Store keeps a party's key shares and the record of their use in a directory,
// sealed. It is safe for concurrent use, by several processes too.
//
//	ID-EPOCH.share    a key share, sealed under "fednode/threshold/share/v1\n" and ID-EPOCH
//	ID-EPOCH.pending  the same, before all parties are known to have theirs
//	ID.uses           the uses of the key's shares, in the order they were made
//
// A share is released only after its use is on disk. Sealing shows when a record was
// changed or taken out of the middle; whoever can put back an older copy of the whole
// directory also puts back its count, as with every file.
type Store struct {
	dir    string
	sealer hsm.Sealer
	mu     sync.Mutex
	uses   map[KeyID]*uses
}

const (
	shareSuffix   = ".share"
	pendingSuffix = ".pending"
	usesSuffix    = ".uses"
	maxShare      = 1 << 30
)

// OpenStore returns the store in a directory, which it makes if it is missing.
func OpenStore(dir string, sealer hsm.Sealer) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Store{dir: dir, sealer: sealer, uses: make(map[KeyID]*uses)}, nil
}

// stem is the name of a share's file without its suffix.
func stem(id KeyID, epoch uint32) string { return fmt.Sprintf("%x-%08d", id[:], epoch) }

func (st *Store) path(id KeyID, epoch uint32, suffix string) string {
	return filepath.Join(st.dir, stem(id, epoch)+suffix)
}

func shareContext(id KeyID, epoch uint32) []byte {
	return []byte("fednode/threshold/share/v1\n" + stem(id, epoch))
}

// hold writes a share that is not in use yet, whole or not at all, and starts the
// record of its key's uses unless there is one. It replaces one that never came to be
// used; Promote makes it the key's share.
func (st *Store) hold(k *KeyShare) error {
	if st == nil {
		return fmt.Errorf("%w: without a store, uses would not be counted", ErrUnlimited)
	}
	if err := k.live(); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	epochs, err := st.epochs(k.id, shareSuffix)
	if err != nil {
		return err
	}
	if slices.Contains(epochs, k.epoch) {
		return fmt.Errorf("%s: %w", st.path(k.id, k.epoch, shareSuffix), fs.ErrExist)
	}
	if len(epochs) == 0 { // with shares and without a record, uses were lost
		if err := st.createUses(k.id); err != nil {
			return err
		}
	}
	plain := k.marshal()
	defer clear(plain)
	sealed, err := st.sealer.Seal(plain, shareContext(k.id, k.epoch))
	if err != nil {
		return err
	}
	return durable.Replace(st.path(k.id, k.epoch, pendingSuffix), sealed, 0o600)
}

// Pending returns the epochs of a key whose shares are not in use: the process ended,
// or the session failed, after this party had stored its share and before it learned
// that all had. Shares of a session that succeeded at any party may be promoted; all
// others are replaced when the protocol is run again.
func (st *Store) Pending(id KeyID) ([]int, error) {
	epochs, err := st.epochs(id, pendingSuffix)
	out := make([]int, len(epochs))
	for i, epoch := range epochs {
		out[i] = int(epoch)
	}
	return out, err
}

// Promote makes a pending share the one that Load returns.
func (st *Store) Promote(id KeyID, epoch int) error {
	if err := os.Rename(st.path(id, uint32(epoch), pendingSuffix), st.path(id, uint32(epoch), shareSuffix)); err != nil {
		return fmt.Errorf("%w: %w", ErrNoShare, err)
	}
	return durable.SyncDir(st.dir)
}

// each calls f for every share file of a suffix.
func (st *Store) each(suffix string, f func(id KeyID, epoch uint32)) error {
	entries, err := os.ReadDir(st.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		head, tail, found := strings.Cut(name, "-")
		b, err := hex.DecodeString(head)
		epoch, notNumber := strconv.ParseUint(tail, 10, 32)
		if !ok || !found || err != nil || notNumber != nil || len(b) != len(KeyID{}) {
			continue
		}
		if id := KeyID(b); stem(id, uint32(epoch)) == name {
			f(id, uint32(epoch))
		}
	}
	return nil
}

// epochs returns which shares of a key are there, oldest first.
func (st *Store) epochs(id KeyID, suffix string) (out []uint32, err error) {
	err = st.each(suffix, func(of KeyID, epoch uint32) {
		if of == id {
			out = append(out, epoch)
		}
	})
	slices.Sort(out)
	return out, err
}

// Keys returns the keys of which the store has shares.
func (st *Store) Keys() ([]KeyID, error) {
	var out []KeyID
	err := st.each(shareSuffix, func(id KeyID, _ uint32) {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	})
	return out, err
}

// Load returns the newest share of a key: ErrNoShare if there is none, or if the
// record of its uses is missing. Older shares, which a process that ended had not come
// to remove, are removed.
func (st *Store) Load(id KeyID) (*KeyShare, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	epochs, err := st.epochs(id, shareSuffix)
	if err != nil {
		return nil, err
	}
	if len(epochs) == 0 {
		return nil, fmt.Errorf("%w: %s in %s", ErrNoShare, id, st.dir)
	}
	newest := epochs[len(epochs)-1]
	k, err := st.load(id, newest)
	if err != nil {
		return nil, err
	}
	if len(epochs) > 1 {
		if err := st.forget(id, int(newest)); err != nil {
			k.Wipe()
			return nil, err
		}
	}
	if _, err := os.Stat(st.usesPath(id)); err != nil {
		k.Wipe()
		return nil, fmt.Errorf("%w: the record of uses is missing (%w); restore it, or reshare the key without this party", ErrNoShare, err)
	}
	return k, nil
}

func (st *Store) load(id KeyID, epoch uint32) (*KeyShare, error) {
	path := st.path(id, epoch, shareSuffix)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxShare {
		return nil, fmt.Errorf("%s: %w: not a file of this package", path, ErrMalformed)
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	plain, err := st.sealer.Unseal(sealed, shareContext(id, epoch))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer clear(plain)
	k, err := parseKeyShare(nil, plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if k.id != id || k.epoch != epoch {
		k.Wipe()
		return nil, fmt.Errorf("%s: %w: it holds key %s, epoch %d", path, ErrMalformed, k.id, k.epoch)
	}
	return k, nil
}

// Forget overwrites and removes the shares of a key from before an epoch. The
// record of uses stays.
func (st *Store) Forget(id KeyID, before int) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.forget(id, before)
}

func (st *Store) forget(id KeyID, before int) error {
	epochs, err := st.epochs(id, shareSuffix)
	if err != nil {
		return err
	}
	for _, epoch := range epochs {
		if int(epoch) < before {
			if err := shred(st.path(id, epoch, shareSuffix)); err != nil {
				return err
			}
		}
	}
	return durable.SyncDir(st.dir)
}

// shred overwrites a file before it removes it. What the file system has kept of it
// elsewhere is sealed.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, info.Size()))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

func (st *Store) usesPath(id KeyID) string {
	return filepath.Join(st.dir, fmt.Sprintf("%x%s", id[:], usesSuffix))
}

// createUses starts a record, unless one is there: it outlives shares.
func (st *Store) createUses(id KeyID) error {
	f, err := os.OpenFile(st.usesPath(id), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), durable.SyncDir(st.dir))
}

// usesContext binds a record to its key and its place.
func usesContext(id KeyID, at int) []byte {
	b := append([]byte("fednode/threshold/uses/v1\n"), id[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(at))
}
