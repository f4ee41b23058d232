// Package durable writes files that are there whole or not at all, whatever ends the process or the machine meanwhile. It
// lies at the bottom of the house, in hsm's folder, because keys are the first files that need it; it knows nothing of them.
//
// Its nouns:
//
//   - name: what a file is asked for by, and gets once all is written. Until then it has a temporary one beside it.
//   - mode: who may read the file, exactly; less the umask where [Masked] is asked for.
//   - directory: what has the name. It is synced too, else a crash takes the name away again.
//
// What it promises:
//
//   - Under the name there is what was there before, or all of the new content, never a part; a reader sees one or the other.
//   - When a function returns nil, content and name outlive a crash: the file is synced before it gets the name, the
//     directory after.
//   - Until it has its name a file is its owner's alone, unless its mode is [Masked].
//   - No error leaves a temporary file behind. A killed process does: a file whose name starts with [Prefix].
//   - Errors are [fs.PathError]s of the name that was asked for, never of the temporary one.
package durable

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Masked is or'ed to the mode of a file from which the umask takes what it takes from others that the user makes.
const Masked = fs.ModeIrregular

// Prefix is what the names of files in the making start with.
const Prefix = ".new-"

// Replace writes a file in place of the one, or the symbolic link, that is there.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return ReplaceWith(path, mode, whole(data))
}

// ReplaceWith is [Replace] of what fill writes, unless that fails.
func ReplaceWith(path string, mode fs.FileMode, fill func(io.Writer) error) error {
	return write(path, mode, fill, os.Rename)
}

// Create writes a file that is new: [fs.ErrExist] if the name is taken, and what has it is left alone. On a file system that
// has neither links nor renaming of that kind, a crash may leave an empty file.
func Create(path string, data []byte, mode fs.FileMode) error {
	return CreateWith(path, mode, whole(data))
}

// CreateWith is [Create] of what fill writes, unless that fails. If the name is taken already, fill is not called.
func CreateWith(path string, mode fs.FileMode, fill func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return named("open", path, syscall.EEXIST)
	}
	return write(path, mode, fill, func(from, to string) error {
		err := renameNew(from, to)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			if err = linkNew(from, to); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
				err = claimNew(from, to)
			}
		}
		return err
	})
}

// SyncDir makes durable which names are in a directory, after one was renamed or removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func whole(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

func write(path string, mode fs.FileMode, fill func(io.Writer) error, give func(from, to string) error) error {
	dir, err := os.Open(filepath.Dir(path)) // to sync it: one that cannot be opened is found out before anything is written
	if err != nil {
		return named("open", path, err)
	}
	defer dir.Close()
	made := mode.Perm()
	if mode&Masked == 0 {
		made &= 0o600
	}
	f, err := os.OpenFile(filepath.Join(dir.Name(), Prefix+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, made)
	if err != nil {
		return named("open", path, err)
	}
	defer os.Remove(f.Name()) // nothing, once it has its own name
	defer f.Close()
	if err := fill(writer{f, path}); err != nil {
		return err
	}
	if mode&Masked == 0 {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = give(f.Name(), path)
	}
	if err == nil {
		err = dir.Sync()
	}
	return named("write", path, err)
}

type writer struct {
	file *os.File
	path string
}

func (w writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	return n, named("write", w.path, err)
}

// renameNew renames where the file system can refuse a name that is taken.
func renameNew(from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}

// linkNew does it with two names at once.
func linkNew(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// claimNew does it with an empty file that takes the name first.
func claimNew(from, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), os.Rename(from, to)); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// named returns an error as one of the path that was asked for.
func named(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if code := syscall.Errno(0); errors.As(err, &code) {
		err = code
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
