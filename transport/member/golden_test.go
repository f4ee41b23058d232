package member

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	goldenFederation = "198d726d39e302501ab5296ee4b4010e749ebb19f1b17b4d8d2b1edd7c3695b4"
	goldenRoot       = "E7jGj1ijBUoJ3tBQmQluN39uaaPXzI+zDju2RydDuX0="
)

func golden(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "test", "fed", "testdata", "governance-v1", "bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The fixture was written once: genesis, two admissions, a new record of org-b with another message key, and a charter.
// Governance logs like it are on disks: they must fold to the same members for ever, also after the certificates in them
// have expired.
func TestGoldenGovernance(t *testing.T) {
	text := golden(t)
	s, err := ReadBundle(bytes.NewReader(text), goldenFederation)
	if err != nil {
		t.Fatal(err)
	}
	if s.FederationID() != goldenFederation || s.Name() != "Test Federation" || s.Chair() != "org-a" || s.Head().Size != 5 || s.Head().Root.String() != goldenRoot {
		t.Errorf("federation %s %q, chair %s, head %v", s.FederationID(), s.Name(), s.Chair(), s.Head())
	}
	if !slices.Equal(ids(s), []OrgID{"org-a", "org-b", "org-c"}) {
		t.Errorf("members %v", ids(s))
	}
	b, _ := s.Get("org-b")
	_, old := b.MessageKey("k1")
	_, current := b.MessageKey("k2")
	if !old || !current || b.Sequence != 2 || !slices.Equal(b.Endpoints, []string{"10.0.0.2:443", "[2001:db8::2]:443"}) {
		t.Errorf("%v, sequence %d, keys %v %v", b.Endpoints, b.Sequence, old, current)
	}
	want := DefaultCharter()
	want.Sequence, want.Approvals.Charter = 2, "all"
	if s.Charter() != want {
		t.Errorf("charter %+v", s.Charter())
	}
	// It opens as a node's mirror, and leaves it unchanged.
	m, err := Import(t.Context(), openDB(t), bytes.NewReader(text), goldenFederation, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(export(t, m), text) {
		t.Error("the bundle comes back changed")
	}
}
