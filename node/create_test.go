package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"fednode/hsm"
	"fednode/hsm/durable"
)

// TestCreateTouchesNothingOfOthers has root make a node in a directory of another user's, who has laid a trap: what an
// interrupted start has left is removed through a link to somewhere else.
func TestCreateTouchesNothingOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives directories away")
	}
	dir, elsewhere := filepath.Join(t.TempDir(), "org-a"), t.TempDir()
	victim := filepath.Join(elsewhere, "host.key")
	if err := errors.Join(os.WriteFile(victim, []byte("key"), 0o600), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, makingName), nil, 0o600),
		os.Symlink(elsewhere, filepath.Join(dir, keyDir)), os.Chown(dir, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, Options{Org: "org-a", Advertise: []string{"a.example:443"}, Passphrase: hsm.Unprotected()}); err == nil {
		t.Error("made a node in somebody else's directory")
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("a file elsewhere was removed: %v", err)
	}
}

// TestInterruptedCreate clears what a killed start has left, files in the making too, and leaves all else.
func TestInterruptedCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "org-a")
	left := []string{makingName, PassphraseName, durable.Prefix + "A", filepath.Join(keyDir, durable.Prefix+"B"), filepath.Join(keyDir, "root.key")}
	kept := []string{"notes.txt", filepath.Join(keyDir, "notes.txt")}
	if err := os.MkdirAll(filepath.Join(dir, keyDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(left, kept) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Create(dir, Options{Org: "org-a", Advertise: []string{"a.example:443"}, Passphrase: hsm.Unprotected()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range left {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(b) == "half" {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range kept {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
