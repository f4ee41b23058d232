package threshold

import (
	"fmt"
	"io"
	"os"

	"fednode/hsm"
	"golang.org/x/sys/unix"
)

// A use is one released share: a record of the file, sealed.
type use struct {
	source  [32]byte // SHA-256 of what the share depends on of the ciphertext
	session [32]byte // of session, set and source: see useOf
}

const (
	useSize    = 64
	recordSize = useSize + hsm.SealOverhead
	// maxUses bounds the memory that a record of uses takes.
	maxUses = 1 << 22
)

// uses are the records of a key, as far as they were read.
type uses struct {
	count    int
	bySource map[[32]byte]int
	sessions map[[32]byte]bool
}

// spend records uses before the shares are released: all of one source, in distinct
// sessions. It returns ErrQuota or ErrReplayed, and records nothing, if they may not be.
func (st *Store) spend(id KeyID, quota int, source [32]byte, sessions [][32]byte) (err error) {
	if st == nil {
		return fmt.Errorf("%w: without a store, uses would not be counted", ErrUnlimited)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	f, err := os.OpenFile(st.usesPath(id), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: the record of uses is missing (%w)", ErrNoShare, err)
	}
	defer f.Close() // the lock too
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	u, err := st.catchUp(id, f)
	if err != nil {
		return err
	}
	for _, session := range sessions {
		if u.sessions[session] {
			return fmt.Errorf("%w: its share of this ciphertext was released", ErrReplayed)
		}
	}
	if used := u.bySource[source]; used+len(sessions) > quota {
		return fmt.Errorf("%w: %d of %d shares were released, %d are asked for", ErrQuota, used, quota, len(sessions))
	}
	var b []byte
	for i, session := range sessions {
		sealed, err := st.sealer.Seal(append(source[:], session[:]...), usesContext(id, u.count+i))
		if err != nil {
			return err
		}
		b = append(b, sealed...)
	}
	if _, err := f.WriteAt(b, int64(u.count)*recordSize); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	for _, session := range sessions {
		u.add(use{source, session})
	}
	return nil
}

func (u *uses) add(x use) {
	u.count++
	u.bySource[x.source]++
	u.sessions[x.session] = true
}

// catchUp reads what was recorded since the last time. Half a record at the end was
// never acknowledged; the next overwrites it.
func (st *Store) catchUp(id KeyID, f *os.File) (*uses, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	u := st.uses[id]
	count := int(info.Size() / recordSize)
	if u != nil && count < u.count {
		return nil, fmt.Errorf("%w: %s has lost records", ErrNoShare, f.Name())
	}
	if count > maxUses {
		return nil, fmt.Errorf("%w: %s has %d records; reshare to a new key", ErrQuota, f.Name(), count)
	}
	if u == nil {
		u = &uses{bySource: make(map[[32]byte]int), sessions: make(map[[32]byte]bool)}
	}
	in := io.NewSectionReader(f, int64(u.count)*recordSize, int64(count-u.count)*recordSize)
	var sealed [recordSize]byte
	for u.count < count {
		if _, err := io.ReadFull(in, sealed[:]); err != nil {
			return nil, err
		}
		plain, err := st.sealer.Unseal(sealed[:], usesContext(id, u.count))
		if err != nil {
			return nil, fmt.Errorf("%s: record %d: %w", f.Name(), u.count, err)
		}
		if len(plain) != useSize {
			return nil, fmt.Errorf("%s: record %d: %w", f.Name(), u.count, ErrMalformed)
		}
		u.add(use{[32]byte(plain), [32]byte(plain[32:])})
	}
	st.uses[id] = u
	return u, nil
}
