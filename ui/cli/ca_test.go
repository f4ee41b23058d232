package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fednode/hsm"
	"fednode/node"
)

// closed is an output that nobody reads any more.
type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestExportedKeyOutlivesItsReport: once the root key is gone from the data directory, the file that it was taken away in
// is the only copy, whatever fails afterwards.
func TestExportedKeyOutlivesItsReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "org-a")
	s, _, err := node.Prepare(dir, node.Options{Org: "org-a", Listen: ":8443", Advertise: []string{"a.example:8443"}, MakePass: true}, hsm.Passphrase{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	pass, key := filepath.Join(t.TempDir(), "pass"), filepath.Join(t.TempDir(), "root.age")
	if err := os.WriteFile(pass, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run(context.Background(), []string{"-D", dir, "--output", "json", "ca", "export", "--key", key, "--passphrase-file", pass, "--remove"}, nil, closed{}, io.Discard); code == 0 {
		t.Error("nobody saw the report, and it is called a success")
	}
	ca, err := node.OpenAuthority(dir, hsm.Passphrase{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(key)
	if err == nil {
		_, err = hsm.OpenExported(file, hsm.PassphraseFile(pass))
	}
	if !ca.RootKey && err != nil {
		t.Errorf("the root key is neither in the data directory nor in the file: %v", err)
	}
}

// TestRenewingKeepsItsMemory: nothing of the root's key can be had from outside of the process that it is brought into.
func TestRenewingKeepsItsMemory(t *testing.T) {
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) })
	missing := filepath.Join(t.TempDir(), "root.age")
	if code := run(t.Context(), []string{"-D", t.TempDir(), "ca", "renew", "--key", missing}, nil, io.Discard, io.Discard); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("dumpable %d, %v", dumpable, err)
	}
}
