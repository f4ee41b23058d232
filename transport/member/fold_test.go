package member

import (
	"bytes"
	"encoding/hex"
	"fmt"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fednode/store/jcs"
	"fednode/store/ledger"
)

func TestFold(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	s := f.set(t)
	leaf := ledger.LeafHash(f.entries[0])
	if s.FederationID() != hex.EncodeToString(leaf[:]) || s.Name() != "Test Federation" || s.Chair() != "org-a" || s.Charter() != DefaultCharter() {
		t.Errorf("%+v", s)
	}
	if head, err := ledger.HeadOf(f.entries); err != nil || s.Head() != head || head.Size != 5 {
		t.Errorf("head %v, want %v", s.Head(), head)
	}
	all := s.All()
	if len(all) != 3 {
		t.Fatalf("%d members", len(all))
	}
	for i, m := range all {
		o := f.orgs[i]
		key, ok := m.MessageKey("k1")
		if m.ID != o.id || !ok || !bytes.Equal(key, public(o.message)) || m.Chair != (i == 0) || m.Roots[0].Subject.String() != o.root.Subject.String() || m.Jurisdiction != "DE" {
			t.Errorf("%+v", m)
		}
		if m.LogOrigin() != fmt.Sprintf("fednode/%s/%s/log/0", s.FederationID(), o.id) || s.GovOrigin() != "fednode/"+s.FederationID()+"/gov/0" {
			t.Errorf("origin %s", m.LogOrigin())
		}
		if rec := m.Record(); rec.Record.OrganizationID != o.id {
			t.Errorf("record of %s", rec.Record.OrganizationID)
		}
	}
	if _, ok := s.Get("org-z"); ok {
		t.Error("a stranger is a member")
	}
	for _, e := range f.entries {
		if len(e) > 16<<10 {
			t.Errorf("a governance entry of %d bytes", len(e))
		}
	}
}

// TestApprovalRules counts approvals under every rule.
func TestApprovalRules(t *testing.T) {
	for _, rule := range []string{"quorum", "all"} {
		c := DefaultCharter()
		c.Approvals = CharterApprovals{rule, rule, rule}
		f := newFederation(t, 5, c)
		need := map[string]int{"quorum": 4, "all": 5}[rule]
		joiner, old := newOrg("org-x"), f.orgs[4]
		next := c
		next.Sequence = 2
		for n := range 6 {
			by := slices.Clone(f.orgs[:n])
			rec := joiner.record(nil)
			if _, err := f.try(t, rec, f.approvals(t, rec, by...)...); (err == nil) != (n >= need) {
				t.Errorf("%s: member with %d approvals of 5: %v", rule, n, err)
			}
			slices.Reverse(by)
			by = f.orgs[5-n:] // with its own, if any
			rec = old.record(nil)
			if _, err := f.try(t, rec, f.approvals(t, rec, by...)...); (err == nil) != (n >= need) {
				t.Errorf("%s: update with %d approvals of 5: %v", rule, n, err)
			}
			var approvals []Approval
			for _, o := range f.orgs[:n] {
				approvals = append(approvals, must(ApproveCharter(f.id(t), next, o.approver())))
			}
			s, err := apply(f.set(t), newCharterEntry(next, "org-a", approvals, testNow))
			if (err == nil) != (n >= need) || err == nil && s.Charter() != next {
				t.Errorf("%s: charter with %d approvals of 5: %v", rule, n, err)
			}
		}
		rec := old.record(nil)
		if _, err := f.try(t, rec, f.approvals(t, rec, f.orgs[:4]...)...); err == nil {
			t.Errorf("%s: a record was replaced without its organisation's approval", rule)
		}
	}
}

func TestBadApprovals(t *testing.T) {
	f := newFederation(t, 2, DefaultCharter())
	elsewhere := newFederation(t, 2, DefaultCharter())
	a, b := f.orgs[0], f.orgs[1]
	x := newOrg("org-x")
	rec, otherRec := x.record(nil), x.record(func(r *Record) { r.Name = "Another" })
	good := f.approvals(t, rec, a, b)
	if _, err := f.try(t, rec, good...); err != nil {
		t.Fatal(err)
	}
	hash := must(rec.Record.Hash())
	alter := func(fn func(*Approval)) []Approval {
		bad := good[1]
		bad.Signature = bytes.Clone(bad.Signature)
		fn(&bad)
		return []Approval{good[0], bad}
	}
	signed := func(p Approver, federation, action, hash string) []Approval {
		return []Approval{good[0], must(p.sign(federation, action, hash))}
	}
	for what, approvals := range map[string][]Approval{
		"none":                   nil,
		"one missing":            good[:1],
		"one twice":              {good[0], good[0]},
		"one more, twice":        {good[0], good[1], good[1]},
		"flipped signature":      alter(func(a *Approval) { a.Signature[3] ^= 1 }),
		"no signature":           alter(func(a *Approval) { a.Signature = nil }),
		"under another's name":   alter(func(b *Approval) { b.OrganizationID = a.id }),
		"unknown key":            alter(func(a *Approval) { a.KeyID = "k2" }),
		"by the log key":         signed(Approver{b.id, "k1", b.log}, f.id(t), actionMember, hash),
		"by another's key":       signed(Approver{b.id, "k1", a.message}, f.id(t), actionMember, hash),
		"by a stranger":          signed(newOrg("org-z").approver(), f.id(t), actionMember, hash),
		"by the joiner":          signed(x.approver(), f.id(t), actionMember, hash),
		"of another federation":  signed(b.approver(), elsewhere.id(t), actionMember, hash),
		"of no federation":       signed(b.approver(), "", actionMember, hash),
		"of a charter":           signed(b.approver(), f.id(t), actionCharter, hash),
		"of another record":      f.approvals(t, otherRec, a, b),
		"of an earlier record":   f.approvals(t, b.record(nil), a, b),
		"enough, and a bad one":  append(slices.Clone(good), must(newOrg("org-z").approver().sign(f.id(t), actionMember, hash))),
		"another's federation's": elsewhere.approvals(t, rec, elsewhere.orgs...),
	} {
		if _, err := f.try(t, rec, approvals...); err == nil {
			t.Errorf("%s: admitted", what)
		}
	}
	// The same entry in the other federation, whose members are called alike.
	if _, err := elsewhere.try(t, rec, good...); err == nil {
		t.Error("approvals of one federation admit to another")
	}
}

func TestRecordUpdates(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	b := f.orgs[1]
	old := b.message
	stale := b.record(nil)
	moved := b.record(func(r *Record) { r.Endpoints = []string{"new.example:443"} })
	f.admit(t, moved, b)
	m, _ := f.set(t).Get("org-b")
	if m.Endpoints[0] != "new.example:443" || m.Sequence != b.sequence || m.Chair {
		t.Errorf("%+v", m)
	}
	for what, rec := range map[string]SignedRecord{"the same": moved, "an earlier one": stale} {
		_, err := f.try(t, rec, f.approvals(t, rec, f.orgs...)...)
		wantError(t, what, err, "sequence")
	}
	// A new message key, under a new id: the old one keeps verifying, and approves no more.
	b.message = newKey()
	rotated := must(b.sign(b.unsigned(func(r *Record) { r.Keys.Message[0].KeyID = "k2" })))
	f.add(t, newMemberEntry(rotated, []Approval{must(ApproveMember(f.id(t), rotated, Approver{b.id, "k1", old}))}, testNow))
	m, _ = f.set(t).Get("org-b")
	if k, ok := m.MessageKey("k1"); !ok || !bytes.Equal(k, public(old)) {
		t.Error("the replaced key is forgotten")
	}
	rec := must(b.sign(b.unsigned(func(r *Record) { r.Keys.Message[0].KeyID = "k2" })))
	_, err := f.try(t, rec, must(ApproveMember(f.id(t), rec, Approver{b.id, "k1", old})))
	wantError(t, "approval by a replaced key", err, "not in its record")
	_, err = f.try(t, rec, must(ApproveMember(f.id(t), rec, Approver{b.id, "k2", b.message})))
	if err != nil {
		t.Error(err)
	}
	// A key id stands for one key for ever.
	again := must(b.sign(b.unsigned(nil)))
	_, err = f.try(t, again, must(ApproveMember(f.id(t), again, Approver{b.id, "k2", b.message})))
	wantError(t, "reused key id", err, "reuses key id")
}

// TestStolenName has somebody else make a record for a member's name, with roots of their own.
func TestStolenName(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	thief := newOrg("org-b")
	thief.sequence = 10
	rec := thief.record(nil)
	_, err := f.try(t, rec, f.approvals(t, rec, f.orgs[0], f.orgs[2])...)
	wantError(t, "approved by the others", err, "org-b")
	_, err = f.try(t, rec, f.approvals(t, rec, thief)...)
	wantError(t, "approved by itself", err, "org-b")
	// The organisation itself may change its roots, with a quorum.
	b := f.orgs[1]
	b.certify()
	own := b.record(nil)
	_, err = f.try(t, own, f.approvals(t, own, b)...)
	wantError(t, "new roots by itself", err, "approvals")
	if _, err := f.try(t, own, f.approvals(t, own, f.orgs...)...); err != nil {
		t.Error(err)
	}
}

func TestLogKeys(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	a, b := f.orgs[0], f.orgs[1]
	try := func(o *organisation, generation int, fresh bool, by ...*organisation) error {
		if fresh {
			was := o.log
			o.log = newKey()
			defer func() { o.log = was }()
		}
		rec := o.record(func(r *Record) { r.Keys.Log.Generation = generation })
		_, err := f.try(t, rec, f.approvals(t, rec, by...)...)
		return err
	}
	wantError(t, "another key for a generation", try(b, 0, true, f.orgs...), "one key")
	wantError(t, "the same key for another generation", try(b, 1, false, f.orgs...), "new log key")
	wantError(t, "a new generation by itself", try(b, 1, true, b), "approvals")
	wantError(t, "the chair's", try(a, 1, true, f.orgs...), "chair")
	if err := try(b, 1, true, f.orgs...); err != nil {
		t.Error(err)
	}
	b.log = newKey()
	f.admit(t, b.record(func(r *Record) { r.Keys.Log.Generation = 3 }), f.orgs...)
	if m, _ := f.set(t).Get("org-b"); m.LogOrigin() != LogOrigin(f.id(t), "org-b", 3) {
		t.Errorf("origin %s", m.LogOrigin())
	}
	wantError(t, "back", try(b, 2, true, f.orgs...), "goes back")
}

func TestSharedKeys(t *testing.T) {
	f := newFederation(t, 2, DefaultCharter())
	b := f.orgs[1]
	old := b.message
	b.message = newKey()
	rotated := must(b.sign(b.unsigned(func(r *Record) { r.Keys.Message[0].KeyID = "k2" })))
	f.add(t, newMemberEntry(rotated, []Approval{must(ApproveMember(f.id(t), rotated, Approver{b.id, "k1", old}))}, testNow))
	for what, alter := range map[string]func(x *organisation){
		"message key":            func(x *organisation) { x.message = b.message },
		"log key":                func(x *organisation) { x.log = b.log },
		"message key as log key": func(x *organisation) { x.log = b.message },
		"replaced key":           func(x *organisation) { x.message = old },
	} {
		x := newOrg("org-x")
		alter(x)
		rec := x.record(nil)
		approvals := []Approval{f.approvals(t, rec, f.orgs[0])[0], must(ApproveMember(f.id(t), rec, Approver{b.id, "k2", b.message}))}
		_, err := f.try(t, rec, approvals...)
		wantError(t, what, err, "a key of org-b")
	}
}

// TestOneAtATime approves two candidates under the same members: once one is in, the other needs more.
func TestOneAtATime(t *testing.T) {
	f := founded(t, DefaultCharter())
	x, y := newOrg("org-x"), newOrg("org-y")
	rx, ry := x.record(nil), y.record(nil)
	ax, ay := f.approvals(t, rx, f.orgs...), f.approvals(t, ry, f.orgs...)
	ex, ey := must(newMemberEntry(rx, ax, testNow).marshal()), must(newMemberEntry(ry, ay, testNow).marshal())
	for _, order := range [][][]byte{{ex, ey}, {ey, ex}} {
		_, err := Fold(append(slices.Clip(f.entries), order...))
		wantError(t, "both", err, "entry 2")
		if _, err := Fold(append(slices.Clip(f.entries), order[0])); err != nil {
			t.Error(err)
		}
	}
}

func TestTwentyMembers(t *testing.T) {
	f := founded(t, DefaultCharter())
	for i := 1; i < 20; i++ {
		o, before := newOrg(OrgID(fmt.Sprintf("org-%02d", i))), f.set(t)
		f.admit(t, o.record(nil), f.orgs[:Quorum(len(f.orgs))]...)
		if len(before.All()) != i {
			t.Fatalf("the set before has %d members, want %d: sets are never changed", len(before.All()), i)
		}
		f.orgs = append(f.orgs, o)
	}
	if got := f.set(t); len(got.All()) != 20 || got.Head().Size != 39 {
		t.Errorf("%d members", len(got.All()))
	}
}

func TestCharterChanges(t *testing.T) {
	f := newFederation(t, 2, DefaultCharter())
	charter := func(c Charter, org OrgID) entry {
		var approvals []Approval
		for _, o := range f.orgs {
			approvals = append(approvals, must(ApproveCharter(f.id(t), c, o.approver())))
		}
		return newCharterEntry(c, org, approvals, testNow)
	}
	strict := DefaultCharter()
	strict.Sequence, strict.Approvals.Member = 2, "all"
	lax := DefaultCharter()
	lax.Sequence = 3
	old := charter(strict, "org-a")
	f.add(t, old)
	f.add(t, charter(lax, "org-a"))
	if got := f.set(t).Charter(); got != lax {
		t.Errorf("%+v", got)
	}
	_, err := apply(f.set(t), old)
	wantError(t, "an old charter, with its old approvals", err, "sequence")
	next := lax
	next.Sequence = 4
	_, err = apply(f.set(t), charter(next, "org-b"))
	wantError(t, "about another than the chair", err, "chair")
	next.Approvals.Member = "self"
	_, err = apply(f.set(t), charter(next, "org-a"))
	wantError(t, "everybody admits himself", err, "self")
}

func TestGenesisRefusals(t *testing.T) {
	o := newOrg("org-a")
	rec, nonce := o.record(nil), make([]byte, nonceSize)
	c := DefaultCharter()
	bad := c
	bad.Approvals.Member = "self"
	for what, make := range map[string]func() ([]byte, error){
		"no name": func() ([]byte, error) { return NewGenesis("", c, rec, o.approver(), nonce, testNow) },
		"long name": func() ([]byte, error) {
			return NewGenesis(strings.Repeat("x", maxNoun+1), c, rec, o.approver(), nonce, testNow)
		},
		"unprintable name": func() ([]byte, error) { return NewGenesis("a\x1b[0m", c, rec, o.approver(), nonce, testNow) },
		"short nonce":      func() ([]byte, error) { return NewGenesis("f", c, rec, o.approver(), nonce[1:], testNow) },
		"bad charter":      func() ([]byte, error) { return NewGenesis("f", bad, rec, o.approver(), nonce, testNow) },
		"another approver": func() ([]byte, error) { return NewGenesis("f", c, rec, newOrg("org-b").approver(), nonce, testNow) },
		"another key":      func() ([]byte, error) { return NewGenesis("f", c, rec, Approver{"org-a", "k1", o.log}, nonce, testNow) },
		"unknown key": func() ([]byte, error) {
			return NewGenesis("f", c, rec, Approver{"org-a", "k9", o.message}, nonce, testNow)
		},
		"unsigned record": func() ([]byte, error) {
			return NewGenesis("f", c, SignedRecord{Record: rec.Record}, o.approver(), nonce, testNow)
		},
	} {
		if b, err := make(); err == nil {
			t.Errorf("%s: %s", what, b)
		}
	}
	// The founder approves all of the genesis: nobody makes another federation of it.
	g := must(NewGenesis("f", c, rec, o.approver(), nonce, testNow))
	for what, alter := range map[string]func(*entry){
		"name":    func(e *entry) { e.Name = "g" },
		"nonce":   func(e *entry) { e.Nonce[0] ^= 1 },
		"charter": func(e *entry) { e.Charter.Approvals.Member = "all" },
		"time":    func(e *entry) { e.Timestamp = testNow.Add(time.Hour).Format(timeFormat) },
	} {
		e := must(parseEntry(g))
		alter(e)
		if _, err := Fold([][]byte{must(e.marshal())}); err == nil {
			t.Errorf("another %s under the same approval", what)
		}
	}
}

func TestOrderOfEntries(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	e := f.entries
	for what, log := range map[string][][]byte{
		"nothing":                               nil,
		"no genesis":                            e[1:],
		"genesis twice":                         {e[0], e[0]},
		"genesis later":                         {e[1], e[0]},
		"exchanged":                             {e[0], e[2], e[1]},
		"one missing":                           {e[0], e[2]},
		"one twice":                             {e[0], e[1], e[1]},
		"an empty one":                          {e[0], {}},
		"a foreign genesis":                     {founded(t, DefaultCharter()).entries[0], e[1]},
		"too many":                              make([][]byte, maxEntries+1),
		"a change before the last is certified": {e[0], e[1], e[3]},
		"certified twice":                       {e[0], e[1], e[2], e[2]},
		"larger than an entry":                  {e[0], make([]byte, ledger.MaxEntry+1)},
	} {
		if s, err := Fold(log); err == nil {
			t.Errorf("%s: %v", what, s)
		}
	}
}

func TestEntryForm(t *testing.T) {
	f := newFederation(t, 2, DefaultCharter())
	good := string(f.entries[1])
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for what, in := range map[string]string{
		"unknown type":     replace(`"type":"member"`, `"type":"expel"`),
		"later version":    replace(`"v":2`, `"v":3`),
		"earlier version":  replace(`"v":2`, `"v":1`),
		"unknown field":    replace(`"v":2`, `"v":2,"w":1`),
		"another case":     replace(`"result"`, `"Result"`),
		"space":            replace(`"v":2`, `"v": 2`),
		"null":             replace(`"organization_id"`, `"nonce":null,"organization_id"`),
		"another category": replace(`federation_management`, `authorization`),
		"another result":   replace(`"result":"ok"`, `"result":"no"`),
		"another action":   replace(`"action":"member","approvals"`, `"action":"found","approvals"`),
		"another's name":   replace(`"organization_id":"org-b","result"`, `"organization_id":"org-c","result"`),
		"a name":           replace(`"organization_id":"org-b","result"`, `"name":"x","organization_id":"org-b","result"`),
		"comma in time":    replace(`.000Z","type"`, `,000Z","type"`),
		"charter too":      replace(`"member":{`, `"charter":`+string(must(jcs.Marshal(DefaultCharter())))+`,"member":{`),
	} {
		if s, err := Fold([][]byte{f.entries[0], []byte(in)}); err == nil {
			t.Errorf("%s: %v", what, s.All())
		}
	}
	_, err := Fold([][]byte{f.entries[0], []byte(replace(`"v":2`, `"v":3`))})
	wantError(t, "later version", err, "upgrade")
}

// TestFlippedLogs flips bits of a log at random. It must fold to an error, or to the same members, since whoever
// sequences the log may choose the time of an entry.
func TestFlippedLogs(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	want := must(Fold(f.entries))
	rng := mrand.New(mrand.NewPCG(1, 2))
	for range 150 {
		log := slices.Clone(f.entries)
		i := rng.IntN(len(log))
		bit := rng.IntN(8 * len(log[i]))
		log[i] = bytes.Clone(log[i])
		log[i][bit/8] ^= 1 << (bit % 8)
		got, err := Fold(log)
		if err != nil {
			continue
		}
		if got.Head() == want.Head() {
			t.Errorf("entry %d, bit %d: the head is the same", i, bit)
		}
		for _, m := range got.All() {
			was, ok := want.Get(m.ID)
			if !ok {
				t.Fatalf("entry %d, bit %d: %s is a member", i, bit, m.ID)
			}
			if !reflect.DeepEqual(m.record, was.record) || !reflect.DeepEqual(m.keys, was.keys) || m.Chair != was.Chair || m.LogOrigin() != was.LogOrigin() {
				t.Errorf("entry %d, bit %d: %s is another", i, bit, m.ID)
			}
		}
		if got.federationID != want.federationID || got.name != want.name || got.charter != want.charter || got.chair != want.chair {
			t.Errorf("entry %d, bit %d: another federation", i, bit)
		}
	}
}
