package threshold

import (
	"fmt"
	"os"
	"time"
)

// Since returns when this party's share of a key was dealt, by this machine's clock: at the key's generation, or the last
// resharing. It says nothing of a share that was copied here from elsewhere.
func (st *Store) Since(id KeyID) (time.Time, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	epochs, err := st.epochs(id, shareSuffix)
	if err != nil {
		return time.Time{}, err
	}
	if len(epochs) == 0 {
		return time.Time{}, fmt.Errorf("%w: %s in %s", ErrNoShare, id, st.dir)
	}
	info, err := os.Stat(st.path(id, epochs[len(epochs)-1], shareSuffix))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
