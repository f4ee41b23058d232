package threshold

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// A KeyID identifies a collective key for its whole life, through resharing: the
// SHA-256 of its lattice and its public key.
type KeyID [32]byte

func (id KeyID) String() string { return fmt.Sprintf("%x", id[:8]) }

// A Key is what is public of a collective key and of its present sharing. It is
// immutable.
type Key struct {
	p       *he.Parameters
	id      KeyID
	epoch   uint32   // sharings before this one
	sharing [32]byte // the session that made this sharing
	policy  Policy
	parties compute.Roster // party i has point i+1
	bounds  he.KeyBounds
	seed    ring.Seed   // of a
	public  []ring.Poly // coefficients over points of e - a·s; the first is b
	// excluded are the dealers that dealt wrongly when the sharing was made, and
	// why. They hold shares all the same.
	excluded []error
}

// ID returns the key's identifier.
func (k *Key) ID() KeyID { return k.id }

// Epoch returns how many times the key has been reshared.
func (k *Key) Epoch() int { return int(k.epoch) }

// Policy returns what the parties agreed on.
func (k *Key) Policy() Policy { return k.policy }

// Parties returns who holds shares, not to be changed.
func (k *Key) Parties() compute.Roster { return k.parties }

// Parameters returns those of the ciphertexts the key decrypts.
func (k *Key) Parameters() *he.Parameters { return k.p }

// Bounds returns the bounds of the secret and of the errors of the public key.
func (k *Key) Bounds() he.KeyBounds { return k.bounds }

// Excluded returns a compute.PartyError for every dealer that dealt wrongly when this
// sharing was made, if it was made by this process.
func (k *Key) Excluded() []error { return k.excluded }

// PublicKey returns the collective public key, for anyone to encrypt to.
func (k *Key) PublicKey() (*he.PublicKey, error) {
	return he.PublicKeyOf(k.p, k.seed, k.public[0].Clone(), k.bounds)
}

func (k *Key) String() string {
	return fmt.Sprintf("collective key %s, %d of %d, epoch %d, %s", k.id, k.policy.Threshold, len(k.parties), k.epoch, k.p.Set())
}

func newKeyID(p *he.Parameters, seed ring.Seed, b ring.Poly) KeyID {
	lattice := p.LatticeID()
	h := sha256.New()
	h.Write([]byte("fednode/threshold/key/v1\n"))
	h.Write(lattice[:])
	h.Write(seed[:])
	h.Write(he.AppendPoly(nil, p.KeyRing(), b))
	return KeyID(h.Sum(nil))
}

// points returns the points of the named parties and their places in the key, in the
// order of the roster given. The parties must be the key's, keys included.
func (k *Key) pointsOf(roster compute.Roster) ([]uint64, []int, error) {
	points, places := make([]uint64, len(roster)), make([]int, len(roster))
	for i, p := range roster {
		at := k.parties.Index(p.Name)
		if at < 0 || !bytes.Equal(k.parties[at].Key, p.Key) {
			return nil, nil, fmt.Errorf("%w: %q with its key holds no share of %s", ErrPolicy, p.Name, k)
		}
		points[i], places[i] = uint64(at+1), at
	}
	return points, places, nil
}

// A KeyShare is one party's part of a collective key: S = F(x) and the matching
// error E(x), with E - a·S = H(x), and its secrets with the other holders. No way of printing it shows anything of it.
type KeyShare struct {
	_ [0]func() // not comparable: == would not be constant time
	*Key
	self  int // place in parties
	f, e  ring.Poly
	pairs pairs
}

const redactedShare = "share of a collective key (redacted)"

// Self returns the place among Parties of the party whose share it is.
func (k *KeyShare) Self() int { return k.self }

// Party returns the name of the party whose share it is.
func (k *KeyShare) Party() string { return k.parties[k.self].Name }

// Wipe overwrites the share. It must not be used afterwards.
func (k *KeyShare) Wipe() {
	wipe(k.f, k.e)
	k.pairs.wipe()
	k.f, k.e, k.pairs = nil, nil, nil
}

func (k *KeyShare) String() string               { return redactedShare }
func (k *KeyShare) GoString() string             { return redactedShare }
func (k *KeyShare) Format(f fmt.State, _ rune)   { io.WriteString(f, redactedShare) }
func (k *KeyShare) LogValue() slog.Value         { return slog.StringValue(redactedShare) }
func (k *KeyShare) MarshalText() ([]byte, error) { return []byte(redactedShare), nil }

func (k *KeyShare) live() error {
	if k == nil || k.f == nil {
		return fmt.Errorf("%w: the share was wiped", ErrNoShare)
	}
	return nil
}

// joint checks that a session's parties hold this key, at least threshold of them,
// and returns their points and this party's additive share of s among all of them.
func (k *KeyShare) joint(s *compute.Session) ([]uint64, ring.Poly, error) {
	if err := k.live(); err != nil {
		return nil, nil, err
	}
	points, places, err := k.pointsOf(s.Roster())
	switch {
	case err != nil:
		return nil, nil, err
	case places[s.Self()] != k.self:
		return nil, nil, fmt.Errorf("%w: the share of %q in a session as %q", ErrForeign, k.Party(), s.Roster()[s.Self()].Name)
	case len(points) < k.policy.Threshold:
		return nil, nil, fmt.Errorf("%w: %d parties; %s needs %d", ErrPolicy, len(points), k.Key, k.policy.Threshold)
	}
	return points, weighted(k.p.KeyRing(), k.f, points, s.Self()), nil
}

// agreement is what parties of a session compare before they use a key together.
func (k *Key) agreement(what string, extra ...[]byte) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "fednode/threshold/agreement/v1\n%s\n", what)
	h.Write(k.id[:])
	h.Write(k.sharing[:])
	for _, b := range extra {
		sum := sha256.Sum256(b)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}
