package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"fednode/store/ledger"
	"fednode/transport"
)

// claims are what receipts in one archive say of another organisation's log.
type claims struct {
	by     string
	leaves map[int64][]byte // index → leaf hash
	roots  map[int64][]byte // size → root
}

// CrossCheck holds verified archives of one federation against each other: what one organisation has a receipt for must
// be in the other's log, at the index the receipt says; every log must be the one that its checkpoints in the others'
// hands sign; and of several archives of one organisation, the longer log must continue the shorter. What an archive
// does not cover yet, for it was taken earlier, is not an error.
func CrossCheck(archives []*Archived) error {
	byOrg := map[transport.OrgID][]*Archived{}
	for _, a := range archives {
		if other := archives[0]; a.members.FederationID() != other.members.FederationID() {
			return fmt.Errorf("the archives are of two federations: %s and %s", other.members.FederationID(), a.members.FederationID())
		}
		for _, other := range byOrg[a.Organization] {
			if err := sameLog(a, other); err != nil {
				return err
			}
		}
		byOrg[a.Organization] = append(byOrg[a.Organization], a)
	}
	var errs []error
	for _, a := range archives {
		about, err := a.claims()
		if err != nil {
			return err
		}
		for _, org := range slices.Sorted(maps.Keys(about)) {
			for _, other := range byOrg[org] {
				errs = append(errs, other.hold(about[org]))
			}
		}
	}
	return errors.Join(errs...)
}

// sameLog checks that of two archives of one organisation, the longer log begins with the shorter.
func sameLog(a, b *Archived) error {
	if a.head.Size > b.head.Size {
		a, b = b, a
	}
	if a.head.Size == 0 {
		return nil
	}
	return b.hold(&claims{by: "another archive of " + string(a.Organization), roots: map[int64][]byte{a.head.Size: a.head.Root[:]}})
}

// claims gathers what the archive's receipts say, by the organisation that they are of.
func (a *Archived) claims() (map[transport.OrgID]*claims, error) {
	out := map[transport.OrgID]*claims{}
	r := &receiptReader{fsys: a.fsys, last: -1}
	defer r.close()
	for {
		if err := r.advance(); err != nil {
			return nil, err
		}
		if r.done {
			return out, nil
		}
		m, ok := a.members.Get(r.next.Peer)
		if !ok {
			return nil, fmt.Errorf("receipt of %.64q, which is not a member", r.next.Peer)
		}
		leaf, text, err := r.next.Leaf()
		if err != nil {
			return nil, fmt.Errorf("receipt of %s: %w", m.ID, err)
		}
		head, index, err := ledger.VerifyProof(text, leaf, m.LogVerifier())
		if err != nil {
			return nil, fmt.Errorf("receipt of %s: %w", m.ID, err)
		}
		c := out[m.ID]
		if c == nil {
			c = &claims{by: string(a.Organization), leaves: map[int64][]byte{}, roots: map[int64][]byte{}}
			out[m.ID] = c
		}
		hash := ledger.LeafHash(leaf)
		c.leaves[index], c.roots[head.Size] = hash[:], head.Root[:]
	}
}

// hold compares the archive's log with what somebody else's receipts say of it.
func (a *Archived) hold(c *claims) error {
	log, err := fs.Sub(a.fsys, logDir)
	if err != nil {
		return err
	}
	m, _ := a.members.Get(a.Organization)
	r := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	_, err = ledger.VerifyDir(log, m.LogVerifier(), func(i int64, entry []byte) error {
		leaf := ledger.LeafHash(entry)
		if want, ok := c.leaves[i]; ok && !bytes.Equal(want, leaf[:]) {
			return fmt.Errorf("%s has a receipt for another entry", c.by)
		}
		if err := r.Append(leaf[:], nil); err != nil {
			return err
		}
		want, ok := c.roots[i+1]
		if !ok {
			return nil
		}
		root, err := r.GetRootHash(nil)
		if err == nil && !bytes.Equal(want, root) {
			err = fmt.Errorf("the log of %d entries is not the one that %s has a checkpoint of: it was forked", i+1, c.by)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", a.Organization, err)
	}
	return nil
}
