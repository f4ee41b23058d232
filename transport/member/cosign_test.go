package member

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
)

// mirror begins an organisation's copy of the log with what the chair has.
func (f *federation) mirror(t testing.TB, g *Governance, o *organisation) *Governance {
	t.Helper()
	m, err := Import(t.Context(), openDB(t), bytes.NewReader(export(t, g)), f.id(t), o.options())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// update returns what the chair tells a member that has what m has.
func update(t testing.TB, g, m *Governance) Update {
	t.Helper()
	u, _, err := g.UpdateFrom(m.Log().Head().Size)
	if err != nil {
		t.Fatal(err)
	}
	var sent Update // as it comes off the wire
	if err := jcs.Unmarshal(must(jcs.Marshal(u)), &sent); err != nil {
		t.Fatal(err)
	}
	return sent
}

// tell has a member take what the chair knows, and the chair what it answers.
func tell(t testing.TB, g, m *Governance) {
	t.Helper()
	ack, err := m.Take(t.Context(), update(t, g, m))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Collect(t.Context(), ack.Cosignature); err != nil {
		t.Fatal(err)
	}
}

func types(t testing.TB, l *ledger.Log) (out []string) {
	t.Helper()
	for _, e := range l.Entries(0, l.Head().Size) {
		out = append(out, must(parseEntry(e)).Type)
	}
	return out
}

// TestTwoSteps follows one admission by two members, step by step.
func TestTwoSteps(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b") // by one member: both steps in one
	if want := []string{"genesis", "member", "certificate"}; !slices.Equal(types(t, g.Log()), want) || g.Flight() != "" {
		t.Errorf("entries %v, in flight %q", types(t, g.Log()), g.Flight())
	}
	b := f.mirror(t, g, f.orgs[1])
	x := newOrg("org-x")
	rec := x.record(nil)
	if err := g.Admit(t.Context(), rec, f.approvals(t, rec, f.orgs...)); err != nil {
		t.Fatal(err)
	}
	y := newOrg("org-y").record(nil)
	if err := g.Admit(t.Context(), y, f.approvals(t, y, f.orgs...)); !errors.Is(err, ErrInFlight) {
		t.Errorf("a second change in flight: %v", err)
	}
	in := func(g *Governance) bool { _, ok := g.Current().Get("org-x"); return ok }
	for step, want := range []struct {
		size    int64
		a, b    bool
		bEffect int64
	}{{5, false, false, 3}, {5, true, false, 3}, {5, true, true, 5}} {
		tell(t, g, b)
		if g.Log().Head().Size != want.size || in(g) != want.a || in(b) != want.b || b.Current().Head().Size != want.bEffect {
			t.Errorf("after step %d: %d entries, in force at the chair %v, at org-b %v, where %d entries are in effect", step, g.Log().Head().Size, in(g), in(b), b.Current().Head().Size)
		}
	}
	// What is in effect stays so after a new start, and in a bundle.
	again, err := Open(b.db, f.orgs[1].options())
	if err != nil || !in(again) {
		t.Errorf("after a new start: %v", err)
	}
	if s, err := ReadBundle(bytes.NewReader(export(t, b)), f.id(t)); err != nil || len(s.All()) != 3 {
		t.Errorf("bundle: %v", err)
	}
	f.orgs = append(f.orgs, x)
	if err := g.Admit(t.Context(), y, f.approvals(t, y, f.orgs...)); err != nil {
		t.Errorf("the next change: %v", err)
	}
}

// TestCertificates counts cosignatures.
func TestCertificates(t *testing.T) {
	f := newFederation(t, 5, DefaultCharter())
	s, head := f.set(t), must(ledger.HeadOf(f.entries))
	for n := range 6 {
		c := certificate(f.id(t), f.entries, append(slices.Clone(f.orgs[:1]), f.orgs[1:max(n, 1)]...)...)
		if n == 0 {
			c.Cosignatures = nil
		}
		if _, err := s.verifyCertificate(c, head); (err == nil) != (n >= 4) {
			t.Errorf("%d of 5: %v", n, err)
		}
	}
	good := certificate(f.id(t), f.entries, f.orgs[:4]...)
	line := func(o *organisation, name string) string {
		return must(ledger.Cosign([]byte(good.Checkpoint), name, o.cosigner, testNow))
	}
	alter := func(fn func(c *Certificate)) *Certificate {
		c := &Certificate{good.Checkpoint, slices.Clone(good.Cosignatures)}
		fn(c)
		return c
	}
	stranger := newOrg("org-z")
	for what, c := range map[string]*Certificate{
		"one twice":      alter(func(c *Certificate) { c.Cosignatures[3] = c.Cosignatures[2] }),
		"a stranger":     alter(func(c *Certificate) { c.Cosignatures[3] = line(stranger, CosignerName(f.id(t), "org-z")) }),
		"another's name": alter(func(c *Certificate) { c.Cosignatures[3] = line(stranger, CosignerName(f.id(t), "org-d")) }),
		"another federation": alter(func(c *Certificate) {
			c.Cosignatures[3] = line(f.orgs[3], CosignerName(strings.Repeat("0", 64), "org-d"))
		}),
		"by the log key": alter(func(c *Certificate) {
			c.Cosignatures[3] = must(ledger.Cosign([]byte(c.Checkpoint), CosignerName(f.id(t), "org-d"), f.orgs[3].log, testNow))
		}),
		"out of order":     alter(func(c *Certificate) { slices.Reverse(c.Cosignatures) }),
		"of a shorter log": certificate(f.id(t), f.entries[:3], f.orgs...),
		"of another chair": alter(func(c *Certificate) { c.Checkpoint = string(checkpointOf(f.id(t), f.entries, f.orgs[1])) }),
		"cosigned elsewhere": alter(func(c *Certificate) {
			c.Cosignatures[3] = certificate(f.id(t), f.entries[:3], f.orgs...).Cosignatures[3]
		}),
		"empty line": alter(func(c *Certificate) { c.Cosignatures[0] = "" }),
	} {
		if at, err := s.verifyCertificate(c, head); err == nil {
			t.Errorf("%s: counted, %v", what, at)
		}
	}
	if s.certify([]byte(good.Checkpoint), map[OrgID]cosignature{"org-a": {}, "org-b": {}, "org-c": {}, "org-z": {}}) != nil {
		t.Error("a certificate by three members and a stranger")
	}
}

// TestEmbeddedCertificates puts certificates into entries where they do not belong.
func TestEmbeddedCertificates(t *testing.T) {
	f := newFederation(t, 3, DefaultCharter())
	e := f.entries // genesis, org-b, certificate, org-c, certificate
	edit := func(b []byte, fn func(*entry)) []byte {
		x := must(parseEntry(b))
		fn(x)
		return must(x.marshal())
	}
	certify := func(c *Certificate) []byte { return must(newCertificateEntry(c, "org-a", testNow)) }
	for what, log := range map[string][][]byte{
		"by the candidate alone":       {e[0], e[1], certify(certificate(f.id(t), e[:2], f.orgs[0], f.orgs[1]))},
		"of the log without the entry": {e[0], e[1], certify(certificate(f.id(t), e[:1], f.orgs[0]))},
		"of nothing":                   {e[0], e[1], certify(nil)},
		"next change without":          {e[0], e[1], e[2], edit(e[3], func(x *entry) { x.Certificate = nil })},
		"next change with another": {e[0], e[1], e[2], edit(e[3], func(x *entry) {
			x.Certificate = certificate(f.id(t), e[:2], f.orgs[0])
		})},
		"first change with one":  {e[0], edit(e[1], func(x *entry) { x.Certificate = certificate(f.id(t), e[:1], f.orgs[0]) })},
		"by too few of two":      {e[0], e[1], e[2], e[3], certify(certificate(f.id(t), e[:4], f.orgs[0]))},
		"by the old and the new": {e[0], e[1], e[2], e[3], certify(certificate(f.id(t), e[:4], f.orgs[0], f.orgs[2]))},
		"with approvals":         {e[0], e[1], edit(e[2], func(x *entry) { x.Approvals = must(parseEntry(e[1])).Approvals })},
		"by another":             {e[0], e[1], edit(e[2], func(x *entry) { x.OrganizationID = "org-b" })},
		"before a change":        {e[0], certify(certificate(f.id(t), e[:1], f.orgs[0]))},
		"genesis with one":       {edit(e[0], func(x *entry) { x.Certificate = certificate(f.id(t), e[:1], f.orgs[0]) })},
	} {
		if s, err := Fold(log); err == nil {
			t.Errorf("%s: %v", what, ids(s))
		}
	}
}

// TestHostileUpdates shows a member what no honest one would send. Nothing of it may be taken, or cosigned.
func TestHostileUpdates(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b")
	m := f.mirror(t, g, f.orgs[1])
	before := m.Log().Head()
	f.join(t, g, "org-c")
	good := update(t, g, m)
	alter := func(fn func(u *Update)) Update {
		u := good
		u.Entries = slices.Clone(good.Entries)
		fn(&u)
		return u
	}
	_, proof, checkpoint, err := ledger.ParseAddCheckpoint(good.AddCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(proof)
	flipped[0][0] ^= 1
	other := founded(t, DefaultCharter())
	foreign := update(t, other.chair(t, openDB(t)), m)
	for what, u := range map[string]Update{
		"nothing":       {},
		"no checkpoint": alter(func(u *Update) { u.AddCheckpoint = "old 3\n\n" }),
		"foreign":       foreign,
		"by a member": alter(func(u *Update) {
			u.AddCheckpoint = ledger.FormatAddCheckpoint(3, proof, checkpointOf(f.id(t), f.entries, f.orgs[1]))
		}),
		"no proof":        alter(func(u *Update) { u.AddCheckpoint = ledger.FormatAddCheckpoint(3, nil, checkpoint) }),
		"bad proof":       alter(func(u *Update) { u.AddCheckpoint = ledger.FormatAddCheckpoint(3, flipped, checkpoint) }),
		"exchanged":       alter(func(u *Update) { slices.Reverse(u.Entries) }),
		"another entry":   alter(func(u *Update) { u.Entries[1] = u.Entries[0] }),
		"a null entry":    alter(func(u *Update) { u.Entries[0] = json.RawMessage("null") }),
		"a poor effect":   alter(func(u *Update) { u.Effect = certificate(f.id(t), f.entries, f.orgs[0]) }),
		"an early effect": alter(func(u *Update) { u.Effect = must(parseEntry(good.Entries[1])).Certificate }),
		"bad freshness":   alter(func(u *Update) { u.Fresh = &Certificate{Checkpoint: string(checkpoint)} }),
	} {
		if ack, err := m.Take(t.Context(), u); err == nil {
			t.Errorf("%s: taken, %+v", what, ack)
		}
		if m.Log().Head() != before || len(m.Current().All()) != 2 {
			t.Fatalf("%s: the mirror has changed", what)
		}
	}
	for what, u := range map[string]Update{
		"an entry less": alter(func(u *Update) { u.Entries = u.Entries[:1] }),
		"an entry more": alter(func(u *Update) { u.Entries = append(u.Entries, u.Entries[0]) }),
		"from later on": alter(func(u *Update) { u.AddCheckpoint = strings.Replace(u.AddCheckpoint, "old 3\n", "old 4\n", 1) }),
	} {
		if ack, err := m.Take(t.Context(), u); err != nil || ack.Cosignature != "" || ack.Size != before.Size || m.Log().Head() != before {
			t.Errorf("%s: %+v, %v", what, ack, err)
		}
	}
	if m.Frozen() != "" {
		t.Errorf("frozen by lies that prove nothing: %s", m.Frozen())
	}
	if ack, err := m.Take(t.Context(), good); err != nil || ack.Cosignature == "" || len(m.Current().All()) != 3 {
		t.Errorf("the honest update after all: %+v, %v", ack, err)
	}
}

// TestForksAreEvidence has a chair that signs two histories, of one length and of two.
func TestForksAreEvidence(t *testing.T) {
	for _, longer := range []int{0, 1} {
		f := founded(t, DefaultCharter())
		g := f.chair(t, openDB(t))
		twin := &federation{orgs: slices.Clone(f.orgs), entries: f.entries}
		h := twin.chair(t, openDB(t))
		f.join(t, g, "org-b")
		b := f.orgs[1]
		m := f.mirror(t, g, b)
		twin.join(t, h, "org-x")
		for range longer {
			twin.join(t, h, "org-y")
		}
		_, err := m.Take(t.Context(), update(t, h, m))
		if !errors.Is(err, ledger.ErrFork) {
			t.Errorf("longer by %d: %v", longer, err)
		}
		if longer > 0 { // a failed proof alone convicts nobody: the whole log does
			if m.Frozen() != "" {
				t.Error("frozen without evidence")
			}
			err = m.Examine(t.Context(), must(entriesOf(h.Log(), 0, h.Log().Head().Size)), h.Log().Checkpoint())
			if !errors.Is(err, ledger.ErrFork) {
				t.Errorf("examined: %v", err)
			}
		}
		again, err := Open(m.db, b.options())
		if err != nil || again.Frozen() == "" {
			t.Errorf("after a new start it is not frozen: %v", err)
		}
		for _, m := range []*Governance{m, again} {
			if ack, err := m.Take(t.Context(), update(t, g, m)); !errors.Is(err, ErrFrozen) {
				t.Errorf("a frozen log goes on: %+v, %v", ack, err)
			}
		}
		count := 0
		err = m.db.View(func(tx *store.Tx) error {
			return Forks(tx, func(e Fork) error {
				count++
				if err := e.Verify(m.Log().Verifier()); err != nil {
					t.Errorf("evidence: %v", err)
				}
				e.Leaves = slices.Clone(e.Leaves)
				e.Leaves[0][3] ^= 1
				if e.Verify(m.Log().Verifier()) == nil {
					t.Error("altered evidence convicts")
				}
				return nil
			})
		})
		if err != nil || count != 1 {
			t.Errorf("%d pieces of evidence, %v", count, err)
		}
		innocent := Fork{Long: g.Log().Checkpoint(), Short: g.Log().Checkpoint()}
		for _, e := range g.Log().Entries(0, g.Log().Head().Size) {
			innocent.Leaves = append(innocent.Leaves, ledger.LeafHash(e))
		}
		if innocent.Verify(g.Log().Verifier()) == nil {
			t.Error("an honest chair was convicted")
		}
	}
}

// TestOneRootForASize restores a member's log from before it cosigned, without what it remembers of that.
func TestOneRootForASize(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b")
	b := f.orgs[1]
	m := f.mirror(t, g, b)
	restored := f.mirror(t, g, b)
	x := newOrg("org-x").record(nil)
	if err := g.Admit(t.Context(), x, f.approvals(t, x, f.orgs...)); err != nil {
		t.Fatal(err)
	}
	tell(t, g, m) // m cosigns 4 entries; the chair certifies, which makes 5
	var cosigned [][2][]byte
	err := m.db.View(func(tx *store.Tx) error {
		return tx.Bucket(cosignedBucket).ForEach(func(k, v []byte) error {
			cosigned = append(cosigned, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = restored.db.Update(t.Context(), func(tx *store.Tx) error {
		for _, kv := range cosigned {
			kv[1][0] ^= 1 // it had cosigned another history of these sizes
			if err := tx.Bucket(cosignedBucket).Put(kv[0], kv[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if ack, err := restored.Take(t.Context(), update(t, g, restored)); !errors.Is(err, errCosigned) {
		t.Errorf("cosigned two roots for one size: %+v, %v", ack, err)
	}
}

// chairAndMember are the governance logs of a federation's two organisations, which go by the same clock.
func chairAndMember(t *testing.T, clock *time.Time) (f *federation, chair, member *Governance) {
	t.Helper()
	f = founded(t, DefaultCharter())
	now := func() time.Time { return *clock }
	o := f.orgs[0].options()
	o.Now = now
	chair, err := Found(t.Context(), openDB(t), f.entries[0], o)
	if err != nil {
		t.Fatal(err)
	}
	f.join(t, chair, "org-b")
	o = f.orgs[1].options()
	o.Now = now
	member, err = Import(t.Context(), openDB(t), bytes.NewReader(export(t, chair)), f.id(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return f, chair, member
}

// TestRenewal has the members confirm a log in which nothing happens.
func TestRenewal(t *testing.T) {
	clock := testNow
	f, g, m := chairAndMember(t, &clock)
	if at, ok := m.Seen(); !ok || !at.Equal(testNow) {
		t.Errorf("seen at %v", at)
	}
	clock = clock.Add(2 * time.Hour)
	size := g.Log().Head()
	if err := g.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at, _ := g.Seen(); !at.Equal(testNow) {
		t.Errorf("the chair alone has renewed it: %v", at)
	}
	tell(t, g, m)
	tell(t, g, m)
	for who, x := range map[string]*Governance{"chair": g, "member": m} {
		if at, _ := x.Seen(); !at.Equal(clock) || x.Log().Head() != size {
			t.Errorf("%s: seen at %v, want %v; %d entries", who, at, clock, x.Log().Head().Size)
		}
		again, err := Open(x.db, Options{Now: g.o.Now})
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := again.Seen(); !at.Equal(clock) {
			t.Errorf("%s after a new start: seen at %v", who, at)
		}
	}
	// One member whose clock runs ahead makes nothing fresh that the others have not seen.
	ahead := must(ledger.Cosign(g.Log().Checkpoint(), CosignerName(f.id(t), "org-b"), f.orgs[1].cosigner, clock.AddDate(50, 0, 0)))
	if err := g.Collect(t.Context(), ahead); err != nil {
		t.Fatal(err)
	}
	if at, _ := g.Seen(); at.After(clock) {
		t.Errorf("fresh until %v by one member's word", at)
	}
}

// TestAConfirmationFromTheFutureDoesNotComeBack once clocks that were ahead are mended: whoever kept it could have a node that
// is cut off from the others take the log for fresh until then.
func TestAConfirmationFromTheFutureDoesNotComeBack(t *testing.T) {
	clock := testNow
	_, g, m := chairAndMember(t, &clock)
	renew := func(at time.Time) {
		t.Helper()
		clock = at
		if err := g.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		tell(t, g, m)
		tell(t, g, m)
		if at, _ := m.Seen(); !at.Equal(clock) {
			t.Errorf("seen at %v, want %v", at, clock)
		}
	}
	renew(testNow.AddDate(0, 0, 30))
	kept := update(t, g, m)
	clock = testNow.Add(2 * time.Hour)
	if at, _ := m.Seen(); !m.Ahead(at) {
		t.Errorf("%v is not ahead of %v", at, clock)
	}
	renew(clock)
	for who, x := range map[string]*Governance{"chair": g, "member": m} {
		if _, err := x.Take(t.Context(), kept); err != nil {
			t.Errorf("%s: %v", who, err)
		}
		if at, _ := x.Seen(); !at.Equal(clock) {
			t.Errorf("%s: seen at %v again", who, at)
		}
	}
}

// TestRestoredChair has a chair whose log is an old backup.
func TestRestoredChair(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	old := (&federation{orgs: f.orgs, entries: f.entries}).chair(t, openDB(t))
	f.join(t, g, "org-b")
	m := f.mirror(t, g, f.orgs[1])
	if _, err := old.Take(t.Context(), update(t, m, old)); !errors.Is(err, ErrFrozen) {
		t.Errorf("a chair takes its own later log: %v", err)
	}
	rec := newOrg("org-x").record(nil)
	if err := old.Admit(t.Context(), rec, f.approvals(t, rec, f.orgs[0])); !errors.Is(err, ErrFrozen) {
		t.Errorf("a restored chair appends: %v", err)
	}
}

func TestPages(t *testing.T) {
	f := founded(t, DefaultCharter())
	g := f.chair(t, openDB(t))
	f.join(t, g, "org-b")
	m := f.mirror(t, g, f.orgs[1])
	b := f.orgs[1]
	long := strings.Repeat("endpoint.", 27)
	for i := range 90 {
		rec := b.record(func(r *Record) {
			r.Endpoints = nil
			for j := range maxEndpoints {
				r.Endpoints = append(r.Endpoints, fmt.Sprintf("%sorg-b:%d", long, 1000*(i+1)%60000+j+1))
			}
		})
		if err := g.Admit(t.Context(), rec, f.approvals(t, rec, b)); err != nil {
			t.Fatal(err)
		}
		f.cosign(t, g)
	}
	u := update(t, g, m)
	if int64(len(u.Entries)) >= g.Log().Head().Size-m.Log().Head().Size {
		t.Fatalf("all %d entries in one update", len(u.Entries))
	}
	if ack, err := m.Take(t.Context(), u); err != nil || ack.Cosignature != "" {
		t.Errorf("half a log: %+v, %v", ack, err)
	}
	_, _, checkpoint, _ := ledger.ParseAddCheckpoint(u.AddCheckpoint)
	u.AddCheckpoint = ledger.FormatAddCheckpoint(m.Log().Head().Size, nil, checkpoint)
	for int64(len(u.Entries)) < g.Log().Head().Size-m.Log().Head().Size {
		more, _, err := g.UpdateFrom(m.Log().Head().Size + int64(len(u.Entries)))
		if err != nil {
			t.Fatal(err)
		}
		u.Entries = append(u.Entries, more.Entries...)
	}
	if ack, err := m.TakeAll(t.Context(), u); err != nil || ack.Cosignature == "" || m.Current().members["org-b"].Sequence != b.sequence {
		t.Errorf("%+v, %v, %d entries", ack, err, m.Log().Head().Size)
	}
}

func FuzzTake(f *testing.F) {
	x := founded(f, DefaultCharter())
	g := x.chair(f, openDB(f))
	x.join(f, g, "org-b")
	m := x.mirror(f, g, x.orgs[1])
	x.join(f, g, "org-c")
	good := must(jcs.Marshal(update(f, g, m)))
	f.Add(good)
	f.Add([]byte(`{"add_checkpoint":"old 3\n\n"}`))
	head := m.Log().Head()
	f.Fuzz(func(t *testing.T, in []byte) {
		var u Update
		if err := jcs.Unmarshal(in, &u); err != nil {
			return
		}
		if _, err := m.Take(t.Context(), u); err == nil && m.Log().Head() != head && m.Log().Head() != g.Log().Head() {
			t.Fatalf("%q makes a log that its chair did not sign", in)
		}
	})
}
