package program

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"fednode/compute"
	"fednode/compute/threshold"
	"fednode/hsm"
)

// A federation is members with keys and stores, in one process.
type federation struct {
	members []Member
	keys    []ed25519.PrivateKey
	stores  []*threshold.Store
}

func newFederation(t *testing.T, n int) *federation {
	t.Helper()
	f := new(federation)
	ring, err := hsm.CreateKeyring(filepath.Join(t.TempDir(), "keyring"), hsm.Unprotected())
	must(t, err)
	t.Cleanup(func() { ring.Close() })
	for i := range n {
		pub, key, err := ed25519.GenerateKey(nil)
		must(t, err)
		store, err := threshold.OpenStore(filepath.Join(t.TempDir(), "shares"), ring.Sealer())
		must(t, err)
		f.members = append(f.members, Member{fmt.Sprintf("org-%c", 'a'+i), fmt.Sprintf("127.0.0.1:%d", 7001+i), pub})
		f.keys, f.stores = append(f.keys, key), append(f.stores, store)
	}
	return f
}

// together runs f at each of the given members, in one session.
func (fed *federation) together(t *testing.T, places []int, f func(ctx context.Context, s *compute.Session, member int) error) error {
	t.Helper()
	var roster compute.Roster
	for _, i := range places {
		roster = append(roster, RosterOf(fed.members)[i])
	}
	g, ctx := errgroup.WithContext(context.Background())
	for place, link := range compute.NewLocal(len(places)) {
		g.Go(func() error {
			defer link.Close()
			s, err := compute.Open(ctx, link, compute.Config{Name: "test", Roster: roster, Self: place, Key: fed.keys[places[place]]})
			if err != nil {
				return err
			}
			return f(ctx, s, places[place])
		})
	}
	return g.Wait()
}

// TestKeysHeldTogether makes a key among three, two of whom decrypt the product of columns; then what is refused.
func TestKeysHeldTogether(t *testing.T) {
	fed := newFederation(t, 3)
	p, err := Parse("a * b - 7")
	must(t, err)
	pl, err := New(p, bounds(t, "a=-100..100 b=0..50"), 5, Holders{Parties: 3, Threshold: 2, Quota: 1})
	must(t, err)
	proposal, err := NewProposal(pl, fed.members)
	must(t, err)
	proposal, err = ParseProposal(proposal.Marshal())
	must(t, err)
	dir := t.TempDir()
	at := func(member int) string { return filepath.Join(dir, fed.members[member].Name) }
	must(t, fed.together(t, []int{0, 1, 2}, func(ctx context.Context, s *compute.Session, member int) error {
		_, err := proposal.CreateJointly(ctx, s, fed.stores[member], at(member), func(string) {})
		return err
	}))
	sets := make([]*KeySet, 3)
	for i := range sets {
		sets[i], err = OpenKeys(at(i))
		must(t, err)
		if sets[i].ID != sets[0].ID || sets[i].Plan.ID() != pl.ID() {
			t.Fatal("members have other keys")
		}
	}
	if _, err := sets[0].Secret(hsm.Unprotected()); err == nil || !strings.Contains(err.Error(), "any 2 of which decrypt together") {
		t.Errorf("the secret of a key in several hands: %v", err)
	}
	ctx := context.Background()
	var tables []*Table
	for i, v := range []Values{values("a", -100, 3, 100), values("b", 50, 0, 50)} {
		table, err := Encrypt(ctx, sets[i].Plan, sets[i].Public, sets[i].ID, []Values{v}, nil)
		must(t, err)
		tables = append(tables, table)
	}
	keys, err := sets[2].Evaluation()
	must(t, err)
	result, err := Evaluate(ctx, sets[2].Plan, keys, sets[2].ID, tables, 1, nil)
	must(t, err)
	decrypt := func(places ...int) error {
		return fed.together(t, places, func(ctx context.Context, s *compute.Session, member int) error {
			joint, err := sets[member].DecryptJointly(ctx, s, fed.stores[member], result, nil)
			if err != nil {
				return err
			}
			if got := text(joint.Values[0]); got != "-5007 -7 4993" || len(joint.Suspects) != 0 {
				t.Errorf("%s has %s", fed.members[member].Name, got)
			}
			return nil
		})
	}
	must(t, decrypt(0, 2))
	if err := decrypt(1, 2); err == nil || !strings.Contains(err.Error(), threshold.ErrQuota.Error()) {
		t.Errorf("the quota of the second is used up: %v", err)
	}
	// New shares decrypt what the old ones did, and as often.
	must(t, fed.together(t, []int{0, 1, 2}, func(ctx context.Context, s *compute.Session, member int) error {
		epoch, err := sets[member].Refresh(ctx, s, fed.stores[member])
		if epoch != 1 {
			t.Errorf("%s has a share of epoch %d", fed.members[member].Name, epoch)
		}
		return err
	}))
	if err := decrypt(1, 2); err == nil || !strings.Contains(err.Error(), threshold.ErrQuota.Error()) {
		t.Errorf("the quota after new shares: %v", err)
	}
	result, err = Evaluate(ctx, sets[2].Plan, keys, sets[2].ID, []*Table{tables[0], encryptOne(t, sets[1], values("b", 50, 0, 50))}, 1, nil)
	must(t, err)
	must(t, decrypt(1, 2))
	if _, err := sets[0].Promote(fed.stores[0]); err == nil {
		t.Error("a share was promoted where none was waiting")
	}
	testDamagedKeys(t, at(1))
}

func encryptOne(t *testing.T, k *KeySet, v Values) *Table {
	t.Helper()
	table, err := Encrypt(context.Background(), k.Plan, k.Public, k.ID, []Values{v}, nil)
	must(t, err)
	return table
}

// testDamagedKeys changes every file of a key set, and puts files of other keys in their place.
func testDamagedKeys(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{planName, publicName, evaluationName, collectiveName, membersName} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		must(t, err)
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		must(t, os.WriteFile(path, bad, 0o644))
		k, err := OpenKeys(dir)
		if err == nil {
			_, err = k.Evaluation()
		}
		if err == nil || !strings.Contains(err.Error(), name+" is damaged or of other keys") {
			t.Errorf("a damaged %s: %v", name, err)
		}
		must(t, os.WriteFile(path, good, 0o644))
	}
	// One who also writes the hashes anew: members and key don't belong together.
	path := filepath.Join(dir, membersName)
	b, err := os.ReadFile(path)
	must(t, err)
	b = bytes.Replace(b, []byte("org-b"), []byte("org-x"), 1)
	must(t, os.WriteFile(path, b, 0o644))
	var h keyHashes
	hashes, err := os.ReadFile(filepath.Join(dir, hashesName))
	must(t, err)
	must(t, json.Unmarshal(hashes, &h))
	h.Members = hashOf(b)
	hashes, err = json.Marshal(h)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, hashesName), hashes, 0o644))
	if _, err := OpenKeys(dir); err == nil || !strings.Contains(err.Error(), "of other parameters or members") {
		t.Errorf("members of another key: %v", err)
	}
}

// TestMembersWithOtherProposalsDoNotMakeAKey: the plans differ in the bounds of a column.
func TestMembersWithOtherProposalsDoNotMakeAKey(t *testing.T) {
	fed := newFederation(t, 2)
	dir := t.TempDir()
	err := fed.together(t, []int{0, 1}, func(ctx context.Context, s *compute.Session, member int) error {
		p, err := Parse("a * 2")
		must(t, err)
		pl, err := New(p, bounds(t, fmt.Sprintf("a=0..%d", 50+member)), 5, Holders{Parties: 2, Threshold: 2, Quota: 1})
		must(t, err)
		proposal, err := NewProposal(pl, fed.members)
		must(t, err)
		_, err = proposal.CreateJointly(ctx, s, fed.stores[member], filepath.Join(dir, fmt.Sprint(member)), func(string) {})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "proposal") {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%d directories were left", len(left))
	}
}

func TestProposalsRefused(t *testing.T) {
	fed := newFederation(t, 2)
	p, err := Parse("a * 2")
	must(t, err)
	for says, h := range map[string]Holders{
		"0 of 2":      {Parties: 2, Threshold: 0, Quota: 1},
		"1 of 2":      {Parties: 2, Threshold: 1, Quota: 1},
		"3 of 2":      {Parties: 2, Threshold: 3, Quota: 1},
		"at most 0":   {Parties: 2, Threshold: 2},
		"2 of 1":      {Parties: 1, Threshold: 2},
		"129 holders": {Parties: 129, Threshold: 2, Quota: 1},
		"at most 5":   {Parties: 1, Threshold: 1, Quota: 5},
		"decrypt":     {},
	} {
		if _, err := New(p, bounds(t, "a=0..9"), 5, h); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", h, err, says)
		}
	}
	pl, err := New(p, bounds(t, "a=0..9"), 5, Holders{Parties: 2, Threshold: 2, Quota: 1})
	must(t, err)
	change := func(f func(m []Member)) []Member {
		m := append([]Member(nil), fed.members...)
		f(m)
		return m
	}
	for what, members := range map[string][]Member{
		"one":             fed.members[:1],
		"the same twice":  change(func(m []Member) { m[1] = m[0] }),
		"no address":      change(func(m []Member) { m[1].Address = "" }),
		"no port":         change(func(m []Member) { m[1].Address = "host:0" }),
		"an escape":       change(func(m []Member) { m[1].Name = "org\x1b[2J" }),
		"no name":         change(func(m []Member) { m[1].Name = "" }),
		"a key too short": change(func(m []Member) { m[1].Key = m[1].Key[:31] }),
	} {
		if _, err := NewProposal(pl, members); err == nil {
			t.Errorf("members: %s was accepted", what)
		}
	}
	// Flooding takes room that a key in one hand does not need.
	deep, err := Parse("a ** 8 * a ** 8")
	must(t, err)
	alone, err := New(deep, bounds(t, "a=-1..1"), 5, Alone)
	must(t, err)
	several, err := New(deep, bounds(t, "a=-1..1"), 5, Holders{Parties: 5, Threshold: 3, Quota: 1})
	must(t, err)
	if _, room := several.Noise(); several.Parameters().N() == alone.Parameters().N() && room+40 > alone.Parameters().Capacity(alone.Parameters().MaxLevel()).Bits() {
		t.Error("no room is left for flooding")
	}
}

func FuzzParseProposal(f *testing.F) {
	f.Add([]byte(`{"version":1,"members":[{"name":"a","address":"h:1","key":"AA=="}],"plan":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseProposal(b)
		ParseMember(b)
	})
}
