package compute

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Limits of rosters.
const (
	MaxParties = 256
	maxName    = 128
)

// A Party is one that takes part in a computation.
type Party struct {
	Name string
	Key  ed25519.PublicKey // its messages verify under
}

// A Roster lists the parties of a session in their order.
type Roster []Party

// Check returns ErrRoster unless there are 2 to MaxParties parties with distinct
// names and distinct keys.
func (r Roster) Check() error {
	if len(r) < 2 || len(r) > MaxParties {
		return fmt.Errorf("%w: %d parties; take 2 to %d", ErrRoster, len(r), MaxParties)
	}
	seen := make(map[string]string, 2*len(r))
	for i, p := range r {
		if p.Name == "" || len(p.Name) > maxName || !utf8.ValidString(p.Name) {
			return fmt.Errorf("%w: party %d has no name of 1 to %d bytes of UTF-8", ErrRoster, i, maxName)
		}
		if len(p.Key) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: party %q has a key of %d bytes, not an Ed25519 key of %d", ErrRoster, p.Name, len(p.Key), ed25519.PublicKeySize)
		}
		for _, mark := range []string{"name " + p.Name, "key " + string(p.Key)} {
			if other, twice := seen[mark]; twice {
				return fmt.Errorf("%w: parties %q and %q share a name or a key", ErrRoster, other, p.Name)
			}
			seen[mark] = p.Name
		}
	}
	return nil
}

// Index returns the place of a party, or -1.
func (r Roster) Index(name string) int {
	for i, p := range r {
		if p.Name == name {
			return i
		}
	}
	return -1
}

// Names returns the names in order.
func (r Roster) Names() []string {
	out := make([]string, len(r))
	for i, p := range r {
		out[i] = p.Name
	}
	return out
}

// Hash identifies the roster: SHA-256 over names with their lengths and keys.
func (r Roster) Hash() [32]byte {
	b := []byte("fednode/compute/roster/v1\n")
	for _, p := range r {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p.Name)))
		b = append(append(b, p.Name...), p.Key...)
	}
	return sha256.Sum256(b)
}
