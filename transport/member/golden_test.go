package member

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"fednode/store/ledger"
)

const goldenFederation = "198d726d39e302501ab5296ee4b4010e749ebb19f1b17b4d8d2b1edd7c3695b4" // of version 1

func golden(t testing.TB) []byte { return fixture(t, "governance-v1") }

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "test", "fed", "testdata", name, "bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The fixtures were written once: genesis, two admissions, a new record of org-b with another message key, and a
// charter; in version 2 each change with the entry that certifies it. Governance logs like them are on disks: they must
// fold to the same members for ever, also after the certificates in them have expired.
func TestGoldenGovernance(t *testing.T) {
	for name, want := range map[string]struct {
		federation, root string
		size             int64
	}{
		"governance-v1": {goldenFederation, "E7jGj1ijBUoJ3tBQmQluN39uaaPXzI+zDju2RydDuX0=", 5},
		"governance-v2": {"d62fc098982b4b3aaa78d588cfad20f48a13b6955ced84ffa88e96d7e3cb4bb0", "CfcTV2XN90RB38jPSkYi4juz9J+FWYvNDfVe2f+fWm4=", 9},
	} {
		text := fixture(t, name)
		s, err := ReadBundle(bytes.NewReader(text), want.federation)
		if err != nil {
			t.Fatal(err)
		}
		if s.FederationID() != want.federation || s.Name() != "Test Federation" || s.Chair() != "org-a" || s.Head().Size != want.size || s.Head().Root.String() != want.root {
			t.Errorf("%s: federation %s %q, chair %s, head %v", name, s.FederationID(), s.Name(), s.Chair(), s.Head())
		}
		if !slices.Equal(ids(s), []OrgID{"org-a", "org-b", "org-c"}) {
			t.Errorf("%s: members %v", name, ids(s))
		}
		b, _ := s.Get("org-b")
		_, old := b.MessageKey("k1")
		_, current := b.MessageKey("k2")
		if !old || !current || b.Sequence != 2 || !slices.Equal(b.Endpoints, []string{"10.0.0.2:443", "[2001:db8::2]:443"}) {
			t.Errorf("%s: %v, sequence %d, keys %v %v", name, b.Endpoints, b.Sequence, old, current)
		}
		charter := DefaultCharter()
		charter.Sequence, charter.Approvals.Charter = 2, "all"
		if s.Charter() != charter {
			t.Errorf("%s: charter %+v", name, s.Charter())
		}
		// It opens as a node's mirror, and leaves it unchanged.
		m, err := Import(t.Context(), openDB(t), bytes.NewReader(text), want.federation, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(export(t, m), text) {
			t.Errorf("%s: the bundle comes back changed", name)
		}
		if again, err := Open(m.db, Options{}); err != nil || again.Current().Head() != s.Head() {
			t.Errorf("%s: after a new start: %v", name, err)
		}
	}
}

// TestBundleThrough wants a bundle to continue the log that somebody has seen the head of, whoever sends it.
func TestBundleThrough(t *testing.T) {
	text := fixture(t, "governance-v1")
	b := goldenBundle(t)
	entries := make([][]byte, len(b.Entries))
	for i, e := range b.Entries {
		entries[i] = e
	}
	for size := 1; size <= len(entries); size++ {
		head, err := ledger.HeadOf(entries[:size])
		if err != nil {
			t.Fatal(err)
		}
		if s, err := ReadBundleThrough(bytes.NewReader(text), goldenFederation, head); err != nil || s.Head().Size != int64(len(entries)) {
			t.Errorf("through size %d: %v", size, err)
		}
		head.Root[0] ^= 1
		if _, err := ReadBundleThrough(bytes.NewReader(text), goldenFederation, head); err == nil {
			t.Errorf("through another history of size %d", size)
		}
		head.Size = int64(len(entries) + size)
		if _, err := ReadBundleThrough(bytes.NewReader(text), goldenFederation, head); err == nil {
			t.Errorf("shorter than the size %d that is known", head.Size)
		}
	}
}
