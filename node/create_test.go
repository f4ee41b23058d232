package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"fednode/hsm"
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
