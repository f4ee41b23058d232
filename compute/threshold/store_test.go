package threshold

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fednode/compute/he"
	"fednode/hsm"
)

// TestQuotaOutlivesRestarts: a ciphertext is decrypted as often as the policy says, under whatever name, by whatever
// process.
func TestQuotaOutlivesRestarts(t *testing.T) {
	members := generated(t, small(t), Policy{Threshold: 2, Quota: 2}, 3)
	k, m := members[0].share.Key, members[0]
	ct, other := encrypt(t, k, []int64{1}), encrypt(t, k, []int64{1})
	release := func(st *Store, session string) error {
		_, err := m.share.DecryptionShare(st, m.key, SessionID(session), ct, []int{0, 1})
		return err
	}
	must(t, release(m.store, "one"))
	wantError(t, release(m.store, "one"), ErrReplayed)
	again, err := OpenStore(m.store.dir, m.store.sealer)
	must(t, err)
	wantError(t, release(again, "one"), ErrReplayed)
	must(t, release(again, "two"))
	wantError(t, release(m.store, "three"), ErrQuota) // which the first store has not counted itself
	again, err = OpenStore(m.store.dir, m.store.sealer)
	must(t, err)
	wantError(t, release(again, "four"), ErrQuota)
	ct = other // another ciphertext of the same has a quota of its own, in the same session too
	must(t, release(again, "one"))
	wantError(t, release(nil, "six"), ErrUnlimited)
}

// TestSameCiphertextByAnotherName: another c0 or another bound in the file is the same c1, on which a share depends.
func TestSameCiphertextByAnotherName(t *testing.T) {
	members := generated(t, small(t), Policy{Threshold: 2, Quota: 1}, 2)
	k, m := members[0].share.Key, members[0]
	ct := encrypt(t, k, []int64{1})
	twin := ct.Clone()
	r := k.p.Ring(ct.Level())
	r.Add(twin.Poly(0, 0), twin.Poly(0, 0), smallPoly(r, func(c []int32) { c[3] = 1 }))
	_, err := m.share.DecryptionShare(m.store, m.key, SessionID("one"), ct, []int{0, 1})
	must(t, err)
	_, err = m.share.DecryptionShare(m.store, m.key, SessionID("two"), twin, []int{0, 1})
	wantError(t, err, ErrQuota)
}

// TestRecordOfUses: without it, or with a part of it changed or missing, nothing is released; half a record at the end,
// which was never acknowledged, is no harm.
func TestRecordOfUses(t *testing.T) {
	members := generated(t, small(t), Policy{Threshold: 2, Quota: 2}, 2)
	k, m := members[0].share.Key, members[0]
	path := m.store.usesPath(k.id)
	release := func(st *Store, session string) error {
		_, err := m.share.DecryptionShare(st, m.key, SessionID(session), encrypt(t, k, []int64{1}), []int{0, 1})
		return err
	}
	for i := range 3 {
		must(t, release(m.store, fmt.Sprint(i)))
	}
	good, err := os.ReadFile(path)
	must(t, err)
	restart := func(content []byte) *Store {
		must(t, os.WriteFile(path, content, 0o600))
		st, err := OpenStore(m.store.dir, m.store.sealer)
		must(t, err)
		return st
	}
	st := restart(append(bytes.Clone(good), good[:recordSize/2]...))
	must(t, release(st, "after half a record"))
	changed := bytes.Clone(good)
	changed[recordSize+60] ^= 1
	wantError(t, release(restart(changed), "changed"), hsm.ErrUnseal)
	wantError(t, release(restart(good[recordSize:]), "without the first"), hsm.ErrUnseal)
	wantError(t, release(m.store, "fewer than before"), ErrNoShare)
	must(t, os.Remove(path))
	wantError(t, release(m.store, "missing"), ErrNoShare)
	_, err = m.store.Load(k.id)
	wantError(t, err, ErrNoShare)
}

// TestSharesOnDisk: sealed, whole, readable again, and nobody else's.
func TestSharesOnDisk(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 3)
	m := members[1]
	ids, err := m.store.Keys()
	must(t, err)
	if len(ids) != 1 || ids[0] != m.share.ID() {
		t.Fatalf("keys %v", ids)
	}
	k, err := m.store.Load(ids[0])
	must(t, err)
	r := k.p.KeyRing()
	if !r.Equal(k.f, m.share.f) || !r.Equal(k.e, m.share.e) || k.Party() != "org-01" || k.Policy() != m.share.Policy() ||
		!bytes.Equal(k.marshalPublic(), m.share.marshalPublic()) {
		t.Error("a share came back changed")
	}
	var name string
	must(t, filepath.WalkDir(m.store.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, _ := d.Info()
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", d.Name(), info.Mode())
			}
			if strings.HasSuffix(path, shareSuffix) {
				name = path
			}
		}
		return err
	}))
	sealed, err := os.ReadFile(name)
	must(t, err)
	plain := m.share.marshal()
	if bytes.Contains(sealed, plain[100:116]) || len(sealed) != len(plain)+hsm.SealOverhead {
		t.Error("the share is not sealed")
	}
	sealed[len(sealed)/2] ^= 1
	must(t, os.WriteFile(name, sealed, 0o600))
	_, err = m.store.Load(ids[0])
	wantError(t, err, hsm.ErrUnseal)
	_, err = newMembers(t, "org-09")[0].store.Load(ids[0])
	wantError(t, err, ErrNoShare)
	// A share of another party, sealed by the same keyring under the right name, is read as what it is.
	wantError(t, m.store.hold(m.share), fs.ErrExist)
}

// TestPendingShares: what was stored by a session that failed is not in use until promoted, and is replaced by the next.
func TestPendingShares(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 3)
	st := newMembers(t, "org-00")[0].store
	k := members[0].share
	must(t, st.hold(k))
	must(t, st.hold(k))
	_, err := st.Load(k.id)
	wantError(t, err, ErrNoShare)
	pending, err := st.Pending(k.id)
	must(t, err)
	if fmt.Sprint(pending) != "[0]" {
		t.Fatalf("pending %v", pending)
	}
	must(t, st.Promote(k.id, 0))
	_, err = st.Load(k.id)
	must(t, err)
	wantError(t, st.Promote(k.id, 0), ErrNoShare)
}

// TestOlderSharesGo: a process that ended between the new share and the removal of the old removes it the next time.
func TestOlderSharesGo(t *testing.T) {
	members := generated(t, small(t), smallPolicy, 3)
	plan := Plan{Parameters: small(t), From: orgs(3), To: orgs(3), Policy: smallPolicy}
	st := members[0].store
	old := st.path(members[0].share.id, 0, shareSuffix)
	content, err := os.ReadFile(old)
	must(t, err)
	must(t, errors.Join(reshare(t, members, plan)...))
	must(t, os.WriteFile(old, content, 0o600))
	k, err := st.Load(members[0].share.id)
	must(t, err)
	if _, err := os.Stat(old); k.Epoch() != 1 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("epoch %d was loaded, and of the old share: %v", k.Epoch(), err)
	}
}

func TestSharesDoNotPrint(t *testing.T) {
	k := generated(t, small(t), smallPolicy, 3)[0].share
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb, k); got != redactedShare {
			t.Errorf("%s prints %.60q", verb, got)
		}
	}
}

// TestFilesRefused: truncated, extended, of another version, kind or lattice, or with a share that is not the key's.
func TestFilesRefused(t *testing.T) {
	k := generated(t, small(t), smallPolicy, 3)[0].share
	good := k.marshal()
	_, err := parseKeyShare(nil, good)
	must(t, err)
	size := len(good)
	for what, b := range map[string][]byte{
		"nothing":              nil,
		"half":                 good[:size/2],
		"a byte less":          good[:size-1],
		"a byte more":          append(bytes.Clone(good), 0),
		"version 2":            edit(good, 4, 2),
		"another kind":         edit(good, 5, kindKey),
		"degree 2^16":          edit(good, 6, 16),
		"degree 2^5":           edit(good, 6, 5),
		"four primes":          edit(good, 9, 4),
		"another secret":       edit(good, size-200, good[size-200]^1),
		"a pair with itself":   edit(good, size-3*pairSize+2, 1),
		"another public key":   edit(good, 1000, good[1000]^1),
		"a threshold of 9":     edit(good, 55, 9),
		"a place that is none": edit(good, size-2*he.PolySize(k.p.KeyRing())-3*pairSize-1, 3),
	} {
		if _, err := parseKeyShare(nil, b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	public, err := ParseKey(k.MarshalPublic())
	must(t, err)
	if public.ID() != k.ID() || public.String() != k.Key.String() {
		t.Errorf("%s was read as %s", k.Key, public)
	}
}

func edit(b []byte, at int, x byte) []byte {
	out := bytes.Clone(b)
	out[at] = x
	return out
}
