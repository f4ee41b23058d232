package service

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fednode/hsm"
	"fednode/hsm/durable"
)

// Where a service has what. The node.yaml in the data directory is a link to the one in the configuration directory.
const (
	User       = "fednode"
	Unit       = "fednode.service"
	DataDir    = "/var/lib/fednode"
	ConfigDir  = "/etc/fednode"
	Credential = "passphrase" // of the keyring, in ConfigDir; node.yaml says keys.passphrase.credential

	configName  = "node.yaml"
	packaged    = "/usr/bin/fednode" // as the unit names it
	copied      = "/usr/local/bin/fednode"
	unitDir     = "/etc/systemd/system"
	packageUnit = "/usr/lib/systemd/system/" + Unit
	booted      = "/run/systemd/system" // is there if systemd runs, sd_booted(3)
)

//go:embed fednode.service
var unit []byte

//go:embed sysusers.conf
var sysusers []byte

// Options say which system a service is installed on. The zero Options are this one.
type Options struct {
	Root    string // prefix of every path; for images and tests
	Program string // path of the fednode to run, default this one

	run func(ctx context.Context, stdin []byte, name string, args ...string) error // instead of commands
}

// Result says how the service is run.
type Result struct {
	Started bool   `json:"started"`           // by systemd, which also starts it when the system does
	Command string `json:"command,omitempty"` // that starts it where systemd does not run
	Program string `json:"program"`
	Config  string `json:"config"` // node.yaml
	Data    string `json:"data"`
	Unit    string `json:"unit"`
}

// Wanted reports whether a node made on directory dir by this process is to be a service: it is root's and in the place
// that services have.
func Wanted(dir string) bool { return os.Geteuid() == 0 && filepath.Clean(dir) == DataDir }

// Passphrase returns the passphrase of the service's keyring, made at random if there is none, from a file that root and
// the service can read and that is not in the data directory, so that a backup of that alone opens nothing.
func (o Options) Passphrase() (hsm.Passphrase, error) {
	text, err := o.passphrase()
	defer clear(text)
	if err != nil {
		return hsm.Passphrase{}, fmt.Errorf("passphrase of the service: %w", err)
	}
	return hsm.PassphraseBytes(bytes.TrimSpace(text)), nil
}

func (o Options) passphrase() ([]byte, error) {
	path := o.path(ConfigDir, Credential)
	text, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	text = []byte(base64.RawURLEncoding.EncodeToString(secret) + "\n")
	clear(secret)
	return text, durable.Replace(path, text, 0o600)
}

// Install makes the node in the data directory a service: its user, the owners and modes of its files, the unit. It
// starts it if systemd runs here; otherwise the result says which command does. The node must not be running in this
// process.
func Install(ctx context.Context, o Options) (Result, error) {
	r := Result{Config: filepath.Join(ConfigDir, configName), Data: DataDir}
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"user " + User, func() error { return o.makeUser(ctx) }},
		{"program", func() (err error) { r.Program, err = o.place(); return err }},
		{ConfigDir, o.configure},
		{DataDir, o.own},
		{"unit", func() (err error) { r.Unit, err = o.writeUnit(r.Program); return err }},
		{"start", func() (err error) { r.Started, err = o.start(ctx); return err }},
	} {
		if err := s.do(); err != nil {
			return r, fmt.Errorf("service: %s: %w", s.what, err)
		}
	}
	if !r.Started {
		r.Command = fmt.Sprintf("%s -D %s run", r.Program, DataDir)
	}
	return r, nil
}

// path is where something is, under the prefix.
func (o Options) path(elem ...string) string {
	return filepath.Join(append([]string{"/", o.Root}, elem...)...)
}

// command runs a program of the system's.
func (o Options) command(ctx context.Context, stdin []byte, name string, args ...string) error {
	if o.run != nil {
		return o.run(ctx, stdin, name, args...)
	}
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin = bytes.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// place returns the path of the program that the service runs. One that lies where only root writes stays there; another
// is copied, because a service's program must not be in somebody's home or build directory.
func (o Options) place() (string, error) {
	from := o.Program
	if from == "" {
		var err error
		if from, err = os.Executable(); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{"/usr/", "/opt/"} {
		if strings.HasPrefix(from, dir) {
			return from, nil
		}
	}
	to := o.path(copied)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", err
	}
	f, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return copied, durable.ReplaceWith(to, 0o755, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

// configure lays out the configuration directory: node.yaml is root's to change and the service's to read.
func (o Options) configure() error {
	_, gid, err := o.account()
	if err != nil {
		return err
	}
	text, err := o.passphrase()
	clear(text)
	if err != nil {
		return err
	}
	inData, inConfig := o.path(DataDir, configName), o.path(ConfigDir, configName)
	switch info, err := os.Lstat(inData); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is missing: make the node first", inData)
	case err != nil:
		return err
	case info.Mode().IsRegular():
		if err := o.moveConfig(inData, inConfig); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path string
		mode fs.FileMode
	}{{o.path(ConfigDir), 0o750}, {inConfig, 0o640}, {o.path(ConfigDir, Credential), 0o640}} {
		if err := errors.Join(os.Lchown(f.path, o.rootID(), gid), os.Chmod(f.path, f.mode)); err != nil {
			return err
		}
	}
	return nil
}

// rootID is the owner of what the service must not change. Under a prefix it is whoever makes the image.
func (o Options) rootID() int { return os.Geteuid() }

// moveConfig puts the file where it belongs and a link in its place. What an earlier node had there is kept beside it. After
// a first run the directory is the service's user's, who may have put another's file there, or its own.
func (o Options) moveConfig(from, to string) error {
	data, err := o.readOwn(from)
	if err != nil {
		return err
	}
	before, err := os.ReadFile(to)
	switch {
	case err == nil && !bytes.Equal(before, data):
		err = durable.Replace(to+".before", before, 0o640)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	if err := durable.Replace(to, data, 0o640); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(from), to)
	if err != nil {
		return err
	}
	link := from + ".link"
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, link); err != nil {
		return err
	}
	return errors.Join(os.Rename(link, from), durable.SyncDir(filepath.Dir(from)))
}

// readOwn reads a file that root has made here, and that has no other name.
func (o Options) readOwn(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.Mode().IsRegular() || st.Nlink > 1 || int(st.Uid) != o.rootID() {
		return nil, fmt.Errorf("%s is not a file of root's alone: look at what it is; if it is your node.yaml, copy it, so that it has no other name, chown root %s, and run the command again", path, path)
	}
	return io.ReadAll(f)
}

// own gives the data directory to the service's user. It follows no link, and touches no file that has another name
// elsewhere: on a second run the directory is that user's, who must not be handed what is not theirs.
func (o Options) own() error {
	uid, gid, err := o.account()
	if err != nil {
		return err
	}
	dir, err := os.OpenRoot(o.path(DataDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	return fs.WalkDir(dir.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok || !e.IsDir() && st.Nlink > 1:
			return fmt.Errorf("%s has another name elsewhere (a hard link); remove it", filepath.Join(DataDir, path))
		case e.IsDir():
			return errors.Join(dir.Lchown(path, uid, gid), dir.Chmod(path, 0o700))
		}
		return dir.Lchown(path, uid, gid)
	})
}

// writeUnit writes the unit, unless the package that the program came with has brought it.
func (o Options) writeUnit(program string) (string, error) {
	if _, err := os.Stat(o.path(packageUnit)); err == nil && program == packaged {
		return packageUnit, nil
	}
	path := filepath.Join(unitDir, Unit)
	if err := os.MkdirAll(o.path(unitDir), 0o755); err != nil {
		return "", err
	}
	text := bytes.ReplaceAll(unit, []byte("ExecStart="+packaged+" "), []byte("ExecStart="+program+" "))
	return path, durable.Replace(o.path(path), text, 0o644)
}

// start has systemd run the service, if it runs this system, and reports whether it does.
func (o Options) start(ctx context.Context) (bool, error) {
	if _, err := os.Stat(o.path(booted)); err != nil {
		return false, nil
	}
	if err := o.command(ctx, nil, "systemctl", "daemon-reload"); err != nil {
		return false, err
	}
	if err := o.command(ctx, nil, "systemctl", "enable", "--now", Unit); err != nil {
		return false, fmt.Errorf("%w; see journalctl -u fednode", err)
	}
	return true, nil
}
