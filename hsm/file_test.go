package hsm

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestModesOnDisk(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	if _, err := ring.Generate("file:sub/x.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(ring.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil || files != 3 {
		t.Errorf("%d files (temporary ones left?), %v", files, err)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	_, err := CreateKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrExists)
	if _, err := ring.Generate("file:x.key", Ed25519); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(ring.Dir(), "x.key")
	before, _ := os.ReadFile(path)
	_, err = ring.Generate("file:x.key", ECDSAP384)
	wantError(t, err, ErrExists, path)
	after, _ := os.ReadFile(path)
	if !bytes.Equal(before, after) {
		t.Error("the key file changed")
	}
	if err := os.Remove(filepath.Join(ring.Dir(), keyringFile)); err != nil {
		t.Fatal(err)
	}
	_, err = CreateKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrExists, "restore")
}

func TestOneOfManyGenerateWins(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		wg.Go(func() {
			_, err := ring.Generate("file:keys/same.key", Ed25519)
			results <- err
		})
	}
	wg.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d generated the same key file", won)
	}
}

func TestUnsafeFilesAreRefused(t *testing.T) {
	type place struct{ dir, key string }
	tests := []struct {
		name  string
		spoil func(t *testing.T, p place) error
		mend  func(p place) string
	}{
		{"file readable by group", func(t *testing.T, p place) error { return os.Chmod(p.key, 0o640) }, func(p place) string { return "chmod 600 " + p.key }},
		{"file readable by all", func(t *testing.T, p place) error { return os.Chmod(p.key, 0o604) }, func(p place) string { return "chmod 600 " + p.key }},
		{"subdirectory open", func(t *testing.T, p place) error { return os.Chmod(filepath.Dir(p.key), 0o750) }, func(p place) string { return "chmod 700 " + filepath.Dir(p.key) }},
		{"directory open", func(t *testing.T, p place) error { return os.Chmod(p.dir, 0o711) }, func(p place) string { return "chmod 700 " + p.dir }},
		{"file is a symlink", func(t *testing.T, p place) error {
			return errors.Join(os.Rename(p.key, p.key+".real"), os.Symlink(p.key+".real", p.key))
		}, func(p place) string { return p.key + " is a symbolic link" }},
		{"subdirectory is a symlink", func(t *testing.T, p place) error {
			d := filepath.Dir(p.key)
			return errors.Join(os.Rename(d, d+".real"), os.Symlink(d+".real", d))
		}, func(p place) string { return filepath.Dir(p.key) + " is a symbolic link" }},
		{"directory in place of file", func(t *testing.T, p place) error { return errors.Join(os.Remove(p.key), os.Mkdir(p.key, 0o700)) }, func(p place) string { return "not a regular file" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ring := newTestKeyring(t, Unprotected())
			if _, err := ring.Generate("file:sub/x.key", Ed25519); err != nil {
				t.Fatal(err)
			}
			p := place{ring.Dir(), filepath.Join(ring.Dir(), "sub", "x.key")}
			if err := tt.spoil(t, p); err != nil {
				t.Fatal(err)
			}
			_, err := ring.Open("file:sub/x.key")
			wantError(t, err, ErrPermissions, tt.mend(p))
		})
	}
}

func TestUnsafeKeyringIsRefused(t *testing.T) {
	ring := newTestKeyring(t, Unprotected())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(ring.Dir(), link); err != nil {
		t.Fatal(err)
	}
	_, err := OpenKeyring(link, Unprotected())
	wantError(t, err, ErrPermissions, "symbolic link")
	for _, name := range []string{keyringFile, sealKeyFile} {
		path := filepath.Join(ring.Dir(), name)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeyring(ring.Dir(), Unprotected())
		wantError(t, err, ErrPermissions, "chmod 600 "+path)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(ring.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = OpenKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrPermissions, "chmod 700 "+ring.Dir())
	_, err = CreateKeyring(ring.Dir(), Unprotected())
	wantError(t, err, ErrPermissions, "chmod 700 "+ring.Dir())
}

func TestAttributes(t *testing.T) {
	tests := []struct {
		name    string
		a       attributes
		trust   trust
		dir     bool
		refused string // empty: accepted
	}{
		{"own file", attributes{"/k", 0o600, 7}, ownerOnly, false, ""},
		{"own read-only file", attributes{"/k", 0o400, 7}, ownerOnly, false, ""},
		{"foreign file", attributes{"/k", 0o600, 8}, ownerOnly, false, "chown 7 /k"},
		{"root's file", attributes{"/k", 0o600, 0}, ownerOnly, false, "chown 7 /k"},
		{"quoted path", attributes{"/a b/it's", 0o640, 7}, ownerOnly, false, `chmod 600 '/a b/it'\''s'`},
		{"foreign directory", attributes{"/d", fs.ModeDir | 0o700, 8}, ownerOnly, true, "chown 7 /d"},
		{"file for directory", attributes{"/d", 0o700, 7}, ownerOnly, true, "not a directory"},
		{"root's credential by ACL", attributes{"/c", 0o440, 0}, credential, false, ""},
		{"own credential", attributes{"/c", 0o400, 7}, credential, false, ""},
		{"world-readable credential", attributes{"/c", 0o444, 0}, credential, false, "chmod 600 /c"},
		{"group-writable credential", attributes{"/c", 0o460, 0}, credential, false, "chmod 600 /c"},
		{"third party's credential", attributes{"/c", 0o400, 8}, credential, false, "chown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.a.check(7, tt.trust, tt.dir)
			if tt.refused == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, err, ErrPermissions, tt.refused)
		})
	}
}
