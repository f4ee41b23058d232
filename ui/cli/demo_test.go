package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestServedDemoLeavesItsDocuments: what --serve writes is what ran, and stays as its user has changed it.
func TestServedDemoLeavesItsDocuments(t *testing.T) {
	docs, err := loadDocuments("")
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) < 12 {
		t.Errorf("the demo has %d documents of its own", len(docs))
	}
	dir := filepath.Join(t.TempDir(), "documents")
	for _, changed := range []string{"", docs[0].name} {
		want := docs[0].data
		if changed != "" {
			want = []byte("changed")
			if err := os.WriteFile(filepath.Join(dir, changed), want, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sample, err := writeDocuments(dir, docs)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, docs[0].name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s holds %d bytes, %v; want %d", docs[0].name, len(got), err, len(want))
		}
		if _, err := os.Stat(sample); err != nil {
			t.Error(err)
		}
	}
}
