package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	mrand "math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
)

func openDB(t testing.TB) *store.DB {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "node.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// chair begins the federation's log at its founder.
func (f *federation) chair(t testing.TB, db *store.DB) *Governance {
	t.Helper()
	g, err := Found(t.Context(), db, f.entries[0], f.orgs[0].options())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// options are what the organisation opens its copy of a governance log with.
func (o *organisation) options() Options {
	return Options{Org: o.id, Key: o.log, Cosigner: o.cosigner, Now: func() time.Time { return testNow }}
}

// cosign has the members but the chair cosign until the change in flight is in effect.
func (f *federation) cosign(t testing.TB, g *Governance) {
	t.Helper()
	for range 2 {
		checkpoint := g.Log().Checkpoint()
		for _, o := range f.orgs[1:] {
			line := must(ledger.Cosign(checkpoint, CosignerName(f.id(t), o.id), o.cosigner, testNow))
			if err := g.Collect(t.Context(), line); err != nil && bytes.Equal(checkpoint, g.Log().Checkpoint()) {
				t.Fatal(err)
			}
		}
	}
}

// join admits another organisation at the chair, approved by all.
func (f *federation) join(t testing.TB, g *Governance, id OrgID) {
	t.Helper()
	o := newOrg(id)
	rec := o.record(nil)
	if err := g.Admit(t.Context(), rec, f.approvals(t, rec, f.orgs...)); err != nil {
		t.Fatal(err)
	}
	f.cosign(t, g)
	if m, ok := g.Current().Get(id); !ok || g.Flight() != "" {
		t.Fatalf("%s was admitted, but is not in force: %v %s", id, m, g.Flight())
	}
	f.orgs = append(f.orgs, o)
}

func export(t testing.TB, g *Governance) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := g.ExportBundle(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ids(s *Set) (out []OrgID) {
	for _, m := range s.All() {
		out = append(out, m.ID)
	}
	return out
}

func TestGovernance(t *testing.T) {
	f := founded(t, DefaultCharter())
	db := openDB(t)
	if _, err := Open(db, Options{}); !errors.Is(err, ErrNone) {
		t.Fatalf("Open of nothing: %v", err)
	}
	g := f.chair(t, db)
	var seen []int
	g.Subscribe(func(s *Set) {
		if n := len(s.All()); len(seen) == 0 || n != seen[len(seen)-1] {
			seen = append(seen, n)
		}
	})
	first := g.Current()
	f.join(t, g, "org-b")
	f.join(t, g, "org-c")
	if !slices.Equal(seen, []int{1, 2, 3}) || len(first.All()) != 1 {
		t.Errorf("subscribers saw %v; the first set has %d members", seen, len(first.All()))
	}
	c := DefaultCharter()
	c.Sequence, c.Approvals.Member = 2, "all"
	var approvals []Approval
	for _, o := range f.orgs {
		approvals = append(approvals, must(ApproveCharter(f.id(t), c, o.approver())))
	}
	if err := g.SetCharter(t.Context(), c, approvals[:2]); err == nil {
		t.Error("a charter by two of three")
	}
	if err := g.SetCharter(t.Context(), c, approvals); err != nil {
		t.Fatal(err)
	}
	if g.Current().Charter() == c {
		t.Error("the charter is in force before anybody has cosigned it")
	}
	f.cosign(t, g)
	if g.Current().Head() != g.Log().Head() || g.Current().Charter() != c || g.Log().Head().Size != 7 {
		t.Errorf("%+v", g.Current())
	}
	// A new start reads the same, with the key or without.
	for _, key := range []Options{{Key: f.orgs[0].log}, {}, {Key: f.orgs[1].log}} {
		again, err := Open(db, key)
		if err != nil {
			t.Fatal(err)
		}
		s := again.Current()
		if s.Head() != g.Current().Head() || s.FederationID() != f.id(t) || !slices.Equal(ids(s), []OrgID{"org-a", "org-b", "org-c"}) || s.Charter() != c {
			t.Errorf("%v %v", ids(s), s.Head())
		}
	}
	if _, err := Found(t.Context(), db, f.entries[0], Options{Key: f.orgs[0].log}); err == nil {
		t.Error("founded twice")
	}
	if _, err := Import(t.Context(), db, bytes.NewReader(export(t, g)), f.id(t), Options{}); err == nil {
		t.Error("imported over a federation")
	}
}

func TestFoundRefusals(t *testing.T) {
	f := founded(t, DefaultCharter())
	db := openDB(t)
	for what, c := range map[string]struct {
		genesis []byte
		o       Options
	}{
		"another's key": {f.entries[0], Options{Key: newKey()}},
		"no key":        {f.entries[0], Options{}},
		"no genesis":    {[]byte("{}"), Options{Key: f.orgs[0].log}},
	} {
		if _, err := Found(t.Context(), db, c.genesis, c.o); err == nil {
			t.Errorf("%s: founded", what)
		}
		if _, err := Open(db, Options{}); !errors.Is(err, ErrNone) {
			t.Errorf("%s: left something behind: %v", what, err)
		}
	}
	// A crash between the two transactions of founding: founding again mends it.
	g := must(open(db, must(foldAll(f.entries)), f.orgs[0].options()))
	if err := g.keepMeta(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(db, Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("half founded: %v", err)
	}
	other := founded(t, DefaultCharter())
	if got := other.chair(t, db); got.Current().FederationID() != other.id(t) {
		t.Error("the half-founded federation won")
	}
}

func TestMirror(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b")
	early := export(t, g)
	db := openDB(t)
	m, err := Import(t.Context(), db, bytes.NewReader(early), f.id(t), Options{Key: f.orgs[1].log})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ids(m.Current()), []OrgID{"org-a", "org-b"}) || !bytes.Equal(export(t, m), early) {
		t.Errorf("%v", ids(m.Current()))
	}
	rec := newOrg("org-x").record(nil)
	wantError(t, "Admit at a mirror", m.Admit(t.Context(), rec, f.approvals(t, rec, f.orgs...)), "chair, org-a")
	f.join(t, g, "org-c")
	var seen []OrgID
	m.Subscribe(func(s *Set) { seen = ids(s) })
	late := export(t, g)
	for range 2 {
		if err := m.ImportBundle(t.Context(), bytes.NewReader(late)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.ImportBundle(t.Context(), bytes.NewReader(early)); err != nil { // an older bundle changes nothing
		t.Error(err)
	}
	want := []OrgID{"org-a", "org-b", "org-c"}
	if !slices.Equal(ids(m.Current()), want) || !slices.Equal(seen, want) || m.Current().Head() != g.Current().Head() {
		t.Errorf("%v, subscribers saw %v", ids(m.Current()), seen)
	}
	again, err := Open(db, Options{})
	if err != nil || again.Current().Head() != g.Current().Head() {
		t.Errorf("after a new start: %v", err)
	}
	if err := g.ImportBundle(t.Context(), bytes.NewReader(early)); err != nil {
		t.Errorf("the chair is shown its own: %v", err)
	}
}

// TestForkedBundle has a chair that shows one history to one member and another to the next.
func TestForkedBundle(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	twin := &federation{orgs: slices.Clone(f.orgs), entries: f.entries}
	h := twin.chair(t, openDB(t))
	f.join(t, g, "org-b")
	twin.join(t, h, "org-c")
	m, err := Import(t.Context(), openDB(t), bytes.NewReader(export(t, g)), f.id(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := m.Current()
	for _, next := range []OrgID{"org-d", "org-e"} { // of the same length, and longer
		if err := m.ImportBundle(t.Context(), bytes.NewReader(export(t, h))); !errors.Is(err, ledger.ErrFork) {
			t.Errorf("a fork of %d entries: %v", h.Log().Head().Size, err)
		}
		twin.join(t, h, next)
	}
	if m.Current() != before || m.Log().Head() != g.Log().Head() {
		t.Error("the fork changed the mirror")
	}
}

func TestImportRefusals(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b")
	good := export(t, g)
	other := founded(t, DefaultCharter())
	foreign := export(t, other.chair(t, openDB(t)))
	alter := func(fn func(*bundle)) []byte {
		var b bundle
		if err := json.Unmarshal(good, &b); err != nil {
			t.Fatal(err)
		}
		fn(&b)
		return must(jcs.Marshal(b))
	}
	for what, in := range map[string][]byte{
		"nothing":              nil,
		"another format":       alter(func(b *bundle) { b.Format = "fednode/governance-bundle/v1" }),
		"no entries":           alter(func(b *bundle) { b.Entries = []json.RawMessage{} }),
		"an entry less":        alter(func(b *bundle) { b.Entries = b.Entries[:1] }),
		"a null entry":         alter(func(b *bundle) { b.Entries[1] = json.RawMessage("null") }),
		"exchanged":            alter(func(b *bundle) { slices.Reverse(b.Entries) }),
		"no checkpoint":        alter(func(b *bundle) { b.Checkpoint = nil }),
		"another's checkpoint": alter(func(b *bundle) { b.Checkpoint = other.chair(t, openDB(t)).Log().Checkpoint() }),
		"spaces":               append([]byte(" "), good...),
		"another federation":   foreign,
		"cut":                  good[:len(good)-1],
		"two":                  append(slices.Clone(good), good...),
	} {
		db := openDB(t)
		if _, err := Import(t.Context(), db, bytes.NewReader(in), f.id(t), Options{}); err == nil {
			t.Errorf("%s: imported", what)
		}
		if _, err := Open(db, Options{}); !errors.Is(err, ErrNone) {
			t.Errorf("%s: left something behind: %v", what, err)
		}
	}
	if _, err := Import(t.Context(), openDB(t), bytes.NewReader(foreign), f.id(t), Options{}); !errors.Is(err, ErrOther) {
		t.Errorf("another federation: %v", err)
	}
	if _, err := Import(t.Context(), openDB(t), bytes.NewReader(good), "", Options{}); err == nil {
		t.Error("imported without knowing which federation")
	}
	if _, err := Import(t.Context(), openDB(t), bytes.NewReader(good), f.id(t), Options{Key: f.orgs[0].log}); err == nil {
		t.Error("the chair imported its own log")
	}
	if _, err := ReadBundle(io.MultiReader(strings.NewReader("["), endlessSpace{}), ""); err == nil {
		t.Error("a bundle without end was read")
	}
	if s, err := ReadBundle(bytes.NewReader(good), ""); err != nil || s.FederationID() != f.id(t) {
		t.Errorf("unpinned: %v", err)
	}
}

type endlessSpace struct{}

func (endlessSpace) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// TestFlippedBundles flips bits of a bundle: since its checkpoint signs all of it, every one must be found.
func TestFlippedBundles(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b")
	good := export(t, g)
	rng := mrand.New(mrand.NewPCG(3, 4))
	checkpoint := bytes.Index(good, []byte("checkpoint"))
	times := bytes.Index(good, []byte(`"timestamp":"`))
	for i := range 300 {
		bit := rng.IntN(8 * len(good))
		switch i % 3 {
		case 1:
			bit = 8*checkpoint + rng.IntN(8*400)
		case 2:
			bit = 8*times + rng.IntN(8*40)
		}
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		for _, id := range []string{"", f.id(t)} {
			if s, err := ReadBundle(bytes.NewReader(bad), id); err == nil {
				t.Errorf("bit %d (pinned %v): %v", bit, id != "", ids(s))
			}
		}
	}
}

// TestTwoAtOnce admits two candidates at the same time, each with the founder's approval: one gets in.
func TestTwoAtOnce(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, id := range []OrgID{"org-x", "org-y"} {
		rec := newOrg(id).record(nil)
		approvals := f.approvals(t, rec, f.orgs...)
		wg.Go(func() { errs[i] = g.Admit(context.Background(), rec, approvals) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || len(g.Current().All()) != 2 || g.Log().Head().Size != 3 {
		t.Errorf("%v, members %v", errs, ids(g.Current()))
	}
}

// TestRefusedEntriesAreNotLogged wants the log to hold nothing that it could not be folded with.
func TestRefusedEntriesAreNotLogged(t *testing.T) {
	f := founded(t, DefaultCharter())
	db := openDB(t)
	g := f.chair(t, db)
	if err := g.Admit(t.Context(), newOrg("org-x").record(nil), nil); err == nil {
		t.Error("admitted without approval")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rec := newOrg("org-y").record(nil)
	if err := g.Admit(ctx, rec, f.approvals(t, rec, f.orgs...)); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	if g.Log().Head().Size != 1 || len(g.Current().All()) != 1 {
		t.Errorf("%d entries, members %v", g.Log().Head().Size, ids(g.Current()))
	}
	if _, err := Open(db, Options{}); err != nil {
		t.Error(err)
	}
}

func TestDamagedMeta(t *testing.T) {
	f := founded(t, DefaultCharter())
	db := openDB(t)
	f.chair(t, db)
	for what, v := range map[string]string{"garbage": "x", "no key": `{"federation_id":"` + f.id(t) + `"}`, "another federation": `{"federation_id":"00","vkey":"` +
		must(ledger.VKey(govOrigin("00"), public(f.orgs[0].log))) + `"}`} {
		if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.Bucket(metaBucket).Put(metaKey, []byte(v)) }); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(db, Options{}); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	f := newFederation(b, 3, DefaultCharter())
	for b.Loop() {
		if _, err := Fold(f.entries); err != nil {
			b.Fatal(err)
		}
	}
}
