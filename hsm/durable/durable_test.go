package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// holds checks that dir has these files with these contents, and none besides.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := want[e.Name()]; !ok {
			t.Errorf("%s is there too", e.Name())
		}
	}
	for name, text := range want {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
			t.Errorf("%s holds %.40q, %v; want %.40q", name, b, err, text)
		}
	}
}

// refused checks that an error is want and of that path, and shows no other.
func refused(t *testing.T, err, want error, path string) {
	t.Helper()
	if pe := new(fs.PathError); !errors.Is(err, want) || !errors.As(err, &pe) || pe.Path != path || strings.Contains(err.Error(), Prefix) {
		t.Errorf("%v, want %v of %s", err, want, path)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	must(t, Create(path, []byte("one"), 0o600))
	refused(t, Create(path, []byte("two"), 0o600), fs.ErrExist, path)
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("nowhere", link))
	refused(t, Create(link, []byte("two"), 0o600), fs.ErrExist, link)
	must(t, os.Remove(link))
	holds(t, dir, map[string]string{"a": "one"})
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	must(t, Replace(path, []byte("one"), 0o600))
	before, err := os.Open(path)
	must(t, err)
	defer before.Close()
	must(t, Replace(path, []byte("two"), 0o600))
	b := make([]byte, 8)
	if n, err := before.Read(b); err != nil || string(b[:n]) != "one" {
		t.Errorf("who reads the old file reads %q, %v", b[:n], err)
	}
	holds(t, dir, map[string]string{"a": "two"})
}

// TestReplaceLink replaces a symbolic link itself: what it leads to may be another's.
func TestReplaceLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "link")
	must(t, os.WriteFile(filepath.Join(dir, "target"), []byte("one"), 0o600))
	must(t, os.Symlink("target", path))
	must(t, Replace(path, []byte("two"), 0o600))
	holds(t, dir, map[string]string{"target": "one", "link": "two"})
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link is %v now, %v", info, err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	must(t, os.Mkdir(taken, 0o700))
	refused(t, Replace(taken, nil, 0o600), fs.ErrExist, taken)
	refused(t, Create(taken, nil, 0o600), fs.ErrExist, taken)
	long := filepath.Join(dir, strings.Repeat("x", 256))
	refused(t, Replace(long, nil, 0o600), unix.ENAMETOOLONG, long)
	refused(t, Create(long, nil, 0o600), unix.ENAMETOOLONG, long)
	missing := filepath.Join(dir, "missing", "a")
	refused(t, Create(missing, nil, 0o600), fs.ErrNotExist, missing)
	must(t, os.Remove(taken))
	holds(t, dir, nil)
}

// TestCutShort stops a file in the middle, as a full disk does.
func TestCutShort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	must(t, Create(path, []byte("one"), 0o600))
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &limit))
	signal.Ignore(unix.SIGXFSZ)
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1000, Max: limit.Max}))
	err := Replace(path, make([]byte, 2000), 0o600)
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
	refused(t, err, unix.EFBIG, path)
	holds(t, dir, map[string]string{"a": "one"})
}

// TestFill writes in parts, and looks at the directory in between.
func TestFill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	failed := errors.New("no more")
	fill := func(text string, end error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, "part ")
			must(t, err)
			entries, err := os.ReadDir(dir)
			must(t, err)
			for _, e := range entries {
				if info, err := e.Info(); err != nil || strings.HasPrefix(e.Name(), Prefix) == (e.Name() == "a") || e.Name() != "a" && info.Mode() != 0o600 {
					t.Errorf("in the making: %v, %v", info, err)
				}
			}
			_, err = io.WriteString(w, text)
			return errors.Join(err, end)
		}
	}
	if err := CreateWith(path, 0o644, fill("0", failed)); !errors.Is(err, failed) {
		t.Errorf("failed to fill: %v", err)
	}
	holds(t, dir, nil)
	must(t, CreateWith(path, 0o644, fill("1", nil)))
	holds(t, dir, map[string]string{"a": "part 1"})
	if err := ReplaceWith(path, 0o644, fill("2", failed)); !errors.Is(err, failed) {
		t.Errorf("failed to fill: %v", err)
	}
	refused(t, CreateWith(path, 0o644, func(io.Writer) error {
		t.Error("filled in vain: the name was taken")
		return nil
	}), fs.ErrExist, path)
	holds(t, dir, map[string]string{"a": "part 1"})
	must(t, ReplaceWith(path, 0o644, fill("4", nil)))
	holds(t, dir, map[string]string{"a": "part 4"})
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	defer unix.Umask(unix.Umask(0o027))
	for want, mode := range map[fs.FileMode]fs.FileMode{0o600: 0o600, 0o644: 0o644, 0o755: 0o755, 0o640: 0o644 | Masked, 0o400: 0o400} {
		for name, write := range map[string]func(string, []byte, fs.FileMode) error{"created": Create, "replaced": Replace} {
			path := filepath.Join(dir, fmt.Sprint(name, want))
			must(t, write(path, []byte("x"), mode))
			if info, err := os.Stat(path); err != nil || info.Mode() != want {
				t.Errorf("%s with %v: %v, %v; want %v", name, mode, info.Mode(), err, want)
			}
		}
	}
	path := filepath.Join(dir, "before")
	must(t, os.WriteFile(path, nil, 0o666))
	must(t, Replace(path, nil, 0o600))
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v: the mode of what was there before", info.Mode(), err)
	}
}

func TestOneCreatorWins(t *testing.T) {
	for name, give := range map[string]func(from, to string) error{"rename": renameNew, "link": linkNew, "claim": claimNew} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a")
			errs := make([]error, 16)
			var all sync.WaitGroup
			for i := range errs {
				all.Go(func() {
					errs[i] = write(path, 0o600, whole([]byte(fmt.Sprint(i))), give)
				})
			}
			all.Wait()
			won := 0
			for i, err := range errs {
				if err == nil {
					won++
					holds(t, dir, map[string]string{"a": fmt.Sprint(i)})
				} else {
					refused(t, err, fs.ErrExist, path)
				}
			}
			if won != 1 {
				t.Errorf("%d created the same file", won)
			}
		})
	}
}

func TestSyncDir(t *testing.T) {
	dir := t.TempDir()
	must(t, SyncDir(dir))
	missing := filepath.Join(dir, "missing")
	refused(t, SyncDir(missing), fs.ErrNotExist, missing)
}
