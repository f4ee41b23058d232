package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A system is a directory tree that stands for another system, whose commands are recorded.
type system struct {
	Options
	commands []string
	fail     string // beginning of the command that fails
}

func newSystem(t *testing.T) *system {
	s := &system{Options: Options{Root: t.TempDir(), Program: "/usr/bin/fednode"}}
	s.run = func(_ context.Context, stdin []byte, name string, args ...string) error {
		line := strings.Join(append([]string{name}, args...), " ")
		s.commands = append(s.commands, line)
		if s.fail != "" && strings.HasPrefix(line, s.fail) {
			return errors.New(name + ": executable file not found")
		}
		if name == "systemd-sysusers" && !bytes.Equal(stdin, sysusers) {
			return errors.New("other input")
		}
		if name == "systemd-sysusers" || name == "useradd" {
			s.write(t, "etc/passwd", fmt.Sprintf("root:x:0:0::/root:/bin/sh\nfednode:x:%d:%d::/var/lib/fednode:/usr/sbin/nologin\n", os.Getuid(), os.Getgid()))
		}
		return nil
	}
	s.write(t, "etc/passwd", "root:x:0:0::/root:/bin/sh\nfednode-x:x:7:7::/:/bin/sh\n")
	s.write(t, "var/lib/fednode/node.yaml", "organization: {id: org-a}\n")
	s.write(t, "var/lib/fednode/keys/message.key", "key")
	return s
}

func (s *system) write(t *testing.T, path, text string) {
	t.Helper()
	p := s.path(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (s *system) read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(s.path(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s *system) install(t *testing.T) Result {
	t.Helper()
	r, err := Install(context.Background(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestInstallWithSystemd lays a service out, and again, and reads what systemd would.
func TestInstallWithSystemd(t *testing.T) {
	s := newSystem(t)
	s.write(t, booted+"/x", "")
	r := s.install(t)
	if !r.Started || r.Command != "" || r.Unit != "/etc/systemd/system/fednode.service" || r.Program != "/usr/bin/fednode" {
		t.Errorf("%+v", r)
	}
	want := []string{"systemd-sysusers --root=" + s.Root + " -", "systemctl daemon-reload", "systemctl enable --now fednode.service"}
	if !slices.Equal(s.commands, want) {
		t.Errorf("commands %q", s.commands)
	}
	if got := s.read(t, r.Unit); got != string(unit) {
		t.Errorf("unit:\n%s", got)
	}
	for path, mode := range map[string]fs.FileMode{ConfigDir: fs.ModeDir | 0o750, ConfigDir + "/node.yaml": 0o640, ConfigDir + "/passphrase": 0o640,
		DataDir: fs.ModeDir | 0o700, DataDir + "/keys": fs.ModeDir | 0o700, DataDir + "/node.yaml": fs.ModeSymlink | 0o777} {
		if info, err := os.Lstat(s.path(path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, mode)
		}
	}
	if got := s.read(t, DataDir+"/node.yaml"); got != "organization: {id: org-a}\n" {
		t.Errorf("node.yaml through the data directory: %q", got)
	}
	secret := s.read(t, ConfigDir+"/passphrase")
	if len(secret) < 43 {
		t.Errorf("passphrase of %d characters", len(secret))
	}

	s.write(t, ConfigDir+"/node.yaml", "organization: {id: org-a}\nlisten: :8443\n") // the operator's change
	s.commands = nil
	again := s.install(t)
	if again != r || s.read(t, ConfigDir+"/passphrase") != secret || !strings.Contains(s.read(t, DataDir+"/node.yaml"), "8443") {
		t.Errorf("a second run changed something: %+v", again)
	}
	if slices.ContainsFunc(s.commands, func(c string) bool { return !strings.HasPrefix(c, "systemctl ") }) {
		t.Errorf("commands %q", s.commands)
	}
}

// TestInstallWithoutSystemd prints what to run instead, and finds another program that makes users.
func TestInstallWithoutSystemd(t *testing.T) {
	s := newSystem(t)
	s.Program = s.path("home/me/fednode")
	s.write(t, "home/me/fednode", "#!")
	s.fail = "systemd-sysusers"
	r := s.install(t)
	if r.Started || r.Command != "/usr/local/bin/fednode -D /var/lib/fednode run" {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(s.path("usr/local/bin/fednode")); err != nil || info.Mode() != 0o755 {
		t.Errorf("program: %v %v", info, err)
	}
	if len(s.commands) != 2 || !strings.HasPrefix(s.commands[1], "useradd --prefix "+s.Root+" --system") {
		t.Errorf("commands %q", s.commands)
	}
	if got := s.read(t, r.Unit); !strings.Contains(got, "\nExecStart=/usr/local/bin/fednode -D /var/lib/fednode run\n") {
		t.Errorf("unit:\n%s", got)
	}
}

// TestInstallOfAPackage leaves the package's unit alone.
func TestInstallOfAPackage(t *testing.T) {
	s := newSystem(t)
	s.write(t, packageUnit, "x")
	if r := s.install(t); r.Unit != packageUnit {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(s.path(unitDir, Unit)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second unit: %v", err)
	}
}

// TestInstallAfterInterruption stops an installation at every command, and completes it.
func TestInstallAfterInterruption(t *testing.T) {
	for _, at := range []string{"systemd-sysusers", "systemctl daemon-reload", "systemctl enable"} {
		s := newSystem(t)
		s.write(t, booted+"/x", "")
		s.fail = at
		run := s.run
		s.run = func(ctx context.Context, stdin []byte, name string, args ...string) error {
			if at == "systemd-sysusers" && name != at { // no other program makes users here either
				return errors.New(name + ": executable file not found")
			}
			return run(ctx, stdin, name, args...)
		}
		if _, err := Install(context.Background(), s.Options); err == nil {
			t.Fatalf("%s: no error", at)
		}
		s.fail, s.run = "", run
		if r := s.install(t); !r.Started || !strings.Contains(s.read(t, DataDir+"/node.yaml"), "org-a") {
			t.Errorf("after %s: %+v", at, r)
		}
	}
}

// TestInstallKeepsAnEarlierConfiguration has a node.yaml of another node in the way.
func TestInstallKeepsAnEarlierConfiguration(t *testing.T) {
	s := newSystem(t)
	s.write(t, ConfigDir+"/node.yaml", "organization: {id: org-z}\n")
	s.install(t)
	if s.read(t, ConfigDir+"/node.yaml.before") != "organization: {id: org-z}\n" || s.read(t, ConfigDir+"/node.yaml") != "organization: {id: org-a}\n" {
		t.Error("the earlier file is lost, or the new one not in place")
	}
}

// TestInstallRefuses has nothing to install, and a file that the service's user may have put in the way.
func TestInstallRefuses(t *testing.T) {
	s := newSystem(t)
	if err := os.Remove(s.path(DataDir, "node.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(context.Background(), s.Options); err == nil || !strings.Contains(err.Error(), "make the node first") {
		t.Error(err)
	}
	s = newSystem(t)
	s.write(t, "etc/shadow", "root:*")
	if err := os.Link(s.path("etc/shadow"), s.path(DataDir, "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(context.Background(), s.Options); err == nil || !strings.Contains(err.Error(), "hard link") {
		t.Error(err)
	}
}

// TestConfigurationIsNoLink has the service's user put a name for another file where node.yaml is, before root installs again
// or while it does: nothing of that file is handed to the service.
func TestConfigurationIsNoLink(t *testing.T) {
	for name, c := range map[string]struct {
		link func(old, new string) error
		do   func(s *system) error
	}{
		"hard link":                           {os.Link, func(s *system) error { _, err := Install(context.Background(), s.Options); return err }},
		"symbolic link, put there in between": {os.Symlink, func(s *system) error { return s.moveConfig(s.path(DataDir, configName), s.path(ConfigDir, configName)) }},
		"another's file": {func(_, new string) error {
			return errors.Join(os.WriteFile(new, []byte("root:*"), 0o600), os.Lchown(new, 12345, 12345))
		}, func(s *system) error { _, err := Install(context.Background(), s.Options); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another's file" && os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			s := newSystem(t)
			s.write(t, "etc/shadow", "root:*")
			s.write(t, ConfigDir+"/x", "")
			at := s.path(DataDir, configName)
			if err := errors.Join(os.Remove(at), c.link(s.path("etc/shadow"), at)); err != nil {
				t.Fatal(err)
			}
			if err := c.do(s); err == nil {
				t.Error("no error")
			}
			if got, err := os.ReadFile(s.path(ConfigDir, configName)); err == nil && strings.Contains(string(got), "root:") {
				t.Errorf("node.yaml of the service is %q", got)
			}
		})
	}
}

func TestPassphraseIsMadeOnce(t *testing.T) {
	s := newSystem(t)
	if _, err := s.Passphrase(); err != nil {
		t.Fatal(err)
	}
	before := s.read(t, ConfigDir+"/passphrase")
	if _, err := s.Passphrase(); err != nil || s.read(t, ConfigDir+"/passphrase") != before {
		t.Error(err)
	}
	if info, err := os.Stat(s.path(ConfigDir, Credential)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

// TestPackagedFiles holds what packages ship to what this program installs.
func TestPackagedFiles(t *testing.T) {
	for path, want := range map[string][]byte{"fednode.service": unit, "sysusers.d/fednode.conf": sysusers} {
		got, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", path))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("packaging/systemd/%s is another file: %v", path, err)
		}
	}
}
