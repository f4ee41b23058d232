package member

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fednode/store/ledger"
)

// A Certificate is a checkpoint of the governance log with the cosignatures of a quorum of the members. The checkpoint
// and the lines, one after the other, are one signed note.
type Certificate struct {
	Checkpoint   string   `json:"checkpoint"`   // signed by the chair
	Cosignatures []string `json:"cosignatures"` // signature lines, by cosigner
}

// A cosignature is one member's, verified.
type cosignature struct {
	line string
	at   time.Time
}

// verifyCosignature checks that line is a member's cosignature of the checkpoint, and returns whose.
func (s *Set) verifyCosignature(checkpoint, line string) (OrgID, cosignature, error) {
	name, err := ledger.CosignerOf(line)
	if err != nil {
		return "", cosignature{}, err
	}
	org := strings.TrimSuffix(strings.TrimPrefix(name, "fednode/"+s.federationID+"/"), "/cosigner")
	m, ok := s.members[OrgID(org)]
	if !ok || m.cosigner == nil {
		return "", cosignature{}, fmt.Errorf("cosignature by %.80q, which is not a member", name)
	}
	at, err := ledger.VerifyCosignature([]byte(checkpoint), line, m.cosigner)
	return m.ID, cosignature{line, at}, err
}

// verifyCertificate checks that a quorum of this set has cosigned the head, and returns when a quorum last had: with f
// faulty members among them, at least one honest one said so at that time or later.
func (s *Set) verifyCertificate(c *Certificate, head ledger.Head) (time.Time, error) {
	signed, err := ledger.ParseCheckpoint([]byte(c.Checkpoint), s.gov)
	if err != nil {
		return time.Time{}, fmt.Errorf("certificate: %w", err)
	}
	if signed != head {
		return time.Time{}, fmt.Errorf("certificate of size %d: not of this log at size %d", signed.Size, head.Size)
	}
	if len(c.Cosignatures) > len(s.members) || !slices.IsSortedFunc(c.Cosignatures, strings.Compare) {
		return time.Time{}, errors.New("certificate: cosignatures out of order or too many")
	}
	by := map[OrgID]bool{}
	var times []time.Time
	for _, line := range c.Cosignatures {
		org, sig, err := s.verifyCosignature(c.Checkpoint, line)
		if err != nil {
			return time.Time{}, fmt.Errorf("certificate: %w", err)
		}
		if by[org] {
			return time.Time{}, fmt.Errorf("certificate: two cosignatures of %s", org)
		}
		by[org] = true
		times = append(times, sig.at)
	}
	if len(by) < s.needs() {
		return time.Time{}, fmt.Errorf("certificate of size %d has %d cosignatures; a quorum of %d members is %d", head.Size, len(by), len(s.members), s.needs())
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	return times[s.needs()-1], nil
}

// certify makes a certificate of the newest cosignatures, or nil if they are too few.
func (s *Set) certify(checkpoint []byte, by map[OrgID]cosignature) *Certificate {
	var sigs []cosignature
	for org, sig := range by {
		if _, ok := s.members[org]; ok {
			sigs = append(sigs, sig)
		}
	}
	if len(sigs) < s.needs() {
		return nil
	}
	slices.SortFunc(sigs, func(a, b cosignature) int { return cmp.Or(b.at.Compare(a.at), strings.Compare(a.line, b.line)) })
	c := &Certificate{Checkpoint: string(checkpoint)}
	for _, sig := range sigs[:s.needs()] {
		c.Cosignatures = append(c.Cosignatures, sig.line)
	}
	slices.Sort(c.Cosignatures)
	return c
}

// newCertificateEntry returns the entry that embeds a certificate of exactly the log before it.
func newCertificateEntry(c *Certificate, chair OrgID, now time.Time) ([]byte, error) {
	e := newEntry(typeCertificate, actionCertify, chair, now)
	e.Certificate = c
	return e.marshal()
}

// A folding is a governance log folded up to some entry. It is never changed.
//
// In a log of version 2 every change is followed by an entry that embeds a certificate of the log up to the change, and
// takes effect once a certificate covers that entry too: either embedded in the next change, or kept apart while there
// is none. All three are counted under the members in force before the change.
type folding struct {
	tree      ledger.Tree
	set       *Set        // in force, as far as the log itself shows
	change    *Set        // what the change in flight leads to, or nil
	certified ledger.Head // the log up to the entry that certifies the change, or zero
	since     time.Time   // of the certificate that put set into force
}

// Fold verifies a governance log from genesis and returns the set in force, as far as the log alone shows: the last
// change in it is not, unless it is of version 1.
func Fold(entries [][]byte) (*Set, error) {
	f, err := foldAll(entries)
	return f.set, err
}

func foldAll(entries [][]byte) (f folding, err error) {
	if len(entries) == 0 || len(entries) > maxEntries {
		return f, fmt.Errorf("governance log of %d entries; 1 to %d are allowed", len(entries), maxEntries)
	}
	for i, b := range entries {
		if f, err = f.next(b); err != nil {
			return folding{}, fmt.Errorf("governance entry %d: %w", i, err)
		}
	}
	return f, nil
}

// next folds one entry more.
func (f folding) next(b []byte) (folding, error) {
	e, err := parseEntry(b)
	if err != nil {
		return f, err
	}
	if (f.set == nil) != (e.Type == typeGenesis) {
		return f, fmt.Errorf("type %s out of place: genesis is the first entry, and only that", e.Type)
	}
	if f.set != nil && e.V != f.set.version {
		return f, fmt.Errorf("version %d in a log of version %d", e.V, f.set.version)
	}
	before := f.tree.Head()
	if f.tree, err = f.tree.Append(b); err != nil {
		return f, err
	}
	switch {
	case e.Type == typeGenesis:
		f.set, err = found(e, b)
		if err != nil {
			return f, err
		}
		f.set = f.set.at(f.tree.Head())
		return f, nil
	case e.Type == typeCertificate:
		return f.certify(e, before)
	case e.V == versionUncertified:
		if e.Certificate != nil {
			return f, errors.New("a certificate in a log of version 1")
		}
		f.set, err = f.set.apply(e)
		if err == nil {
			f.set = f.set.at(f.tree.Head())
		}
		return f, err
	}
	if f.change != nil {
		if f, err = f.settle(e.Certificate, before); err != nil {
			return f, err
		}
	} else if e.Certificate != nil {
		return f, errors.New("a certificate, and no change that it could put into effect")
	}
	f.change, err = f.set.apply(e)
	return f, err
}

// certify takes the entry that certifies the change in flight.
func (f folding) certify(e *entry, before ledger.Head) (folding, error) {
	switch {
	case e.Action != actionCertify || e.Certificate == nil || e.Member != nil || e.Charter != nil || e.Name != "" || e.Nonce != nil ||
		len(e.Approvals) != 0 || e.OrganizationID != f.set.chair:
		return f, errors.New("a certificate entry has a certificate and the chair's name")
	case f.change == nil || f.certified.Size != 0:
		return f, errors.New("there is no change to certify")
	}
	if _, err := f.set.verifyCertificate(e.Certificate, before); err != nil {
		return f, err
	}
	f.certified = f.tree.Head()
	return f, nil
}

// settle puts the change in flight into force, with a certificate of the log up to the entry that certifies it.
func (f folding) settle(c *Certificate, head ledger.Head) (folding, error) {
	switch {
	case f.change == nil || f.certified.Size == 0:
		return f, errors.New("the change before is not certified yet; one change is in flight at a time")
	case c == nil:
		return f, errors.New("it lacks the certificate that puts the change before it into effect")
	case head != f.certified:
		return f, fmt.Errorf("size %d does not follow the certified change at once", head.Size)
	}
	at, err := f.set.verifyCertificate(c, head)
	if err != nil {
		return f, err
	}
	f.set, f.change, f.certified, f.since = f.change.at(head), nil, ledger.Head{}, at
	return f, nil
}

// apply returns the set after a change, if the entry has the approvals that the charter asks for.
func (s *Set) apply(e *entry) (*Set, error) {
	if e.Type == typeCharter {
		return s.withCharter(e)
	}
	return s.withMember(e)
}
