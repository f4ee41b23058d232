package hsm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fednode/hsm/durable"
)

// trust says whose files readPrivate accepts.
type trust int

const (
	// ownerOnly: owned by this process's user, no access for anybody else.
	ownerOnly trust = iota
	// credential: as systemd hands credentials over. They are owned by the
	// service's user or by root, who then grants the user access with an ACL,
	// which shows as group read permission.
	credential
)

const (
	privateFile = 0o600
	privateDir  = 0o700
)

// attributes are the facts of a file that decide whether it is trusted.
type attributes struct {
	path string
	mode fs.FileMode
	uid  int
}

func attributesOf(path string, info fs.FileInfo) attributes {
	a := attributes{path: path, mode: info.Mode(), uid: -1}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		a.uid = int(st.Uid)
	}
	return a
}

// check returns nil if a process of user euid may trust the file or directory.
func (a attributes) check(euid int, t trust, wantDir bool) error {
	mend, others := "chmod 600 "+shellQuote(a.path), fs.FileMode(0o077)
	if wantDir {
		mend = "chmod 700 " + shellQuote(a.path)
	}
	if t == credential {
		others = 0o037
	}
	switch {
	case a.mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link: %w: name the file it points to, or put the file itself there", a.path, ErrPermissions)
	case wantDir && !a.mode.IsDir():
		return fmt.Errorf("%s is not a directory: %w", a.path, ErrPermissions)
	case !wantDir && !a.mode.IsRegular():
		return fmt.Errorf("%s is not a regular file: %w", a.path, ErrPermissions)
	case a.uid != euid && !(t == credential && a.uid == 0):
		return fmt.Errorf("%s belongs to user %d, this process runs as user %d: %w: chown %d %s", a.path, a.uid, euid, ErrPermissions, euid, shellQuote(a.path))
	case a.mode.Perm()&others != 0:
		return fmt.Errorf("%s has mode %04o, so others can reach it: %w: %s", a.path, a.mode.Perm(), ErrPermissions, mend)
	}
	return nil
}

// shellQuote returns path as one word of a POSIX shell.
func shellQuote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,", r)
	}
	if path != "" && strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// readPrivate reads a file of at most limit bytes after checking who else could.
func readPrivate(path string, limit int64, t trust) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w: %w", path, ErrNotFound, err)
	case errors.Is(err, unix.ELOOP):
		return nil, attributes{path: path, mode: fs.ModeSymlink}.check(0, t, false)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := attributesOf(path, info).check(os.Geteuid(), t, false); err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d: %w", path, info.Size(), limit, ErrCorrupt)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(b)) > limit {
		clear(b)
		return nil, fmt.Errorf("%s has more than %d bytes: %w", path, limit, ErrCorrupt)
	}
	return b, nil
}

// checkDir checks that path is a directory only this user can reach.
func checkDir(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: %w", path, ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return attributesOf(path, info).check(os.Geteuid(), ownerOnly, true)
}

// makeDir makes the directory if it is missing, private and durable, and checks it.
func makeDir(path string) error {
	err := os.Mkdir(path, privateDir)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make keyring directory: %w", err)
	}
	if err == nil {
		if err := durable.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return checkDir(path)
}

// writePrivate writes a file of mode 0600. An existing file is replaced only if
// replace is set; else the error wraps ErrExists.
func writePrivate(path string, content []byte, replace bool) error {
	write := durable.Create
	if replace {
		write = durable.Replace
	}
	err := write(path, content, privateFile)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w: it is never overwritten; move it away first", path, ErrExists)
	}
	return err
}
