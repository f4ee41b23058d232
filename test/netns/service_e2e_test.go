//go:build e2e

package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fednode/node"
	"fednode/node/service"
)

// A manager plays the service manager: it hears what a node tells it.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T, dir string) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(dir, "notify")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	if err := os.Chmod(m.path, 0o666); err != nil {
		t.Fatal(err)
	}
	return m
}

// hears waits until the node says something that begins with what.
func (m *manager) hears(what string, limit time.Duration) string {
	m.t.Helper()
	b := make([]byte, 4096)
	_ = m.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		n, err := m.conn.Read(b)
		if err != nil {
			return ""
		}
		if strings.HasPrefix(string(b[:n]), what) {
			return string(b[:n])
		}
	}
}

// TestService installs a node as a service of a system that is a directory, and runs it as its unit would: as root, which
// it does not remain, on port 443, with the passphrase as a credential, watched.
func TestService(t *testing.T) {
	const uid = 64990
	program := binary(t)
	root, err := os.MkdirTemp("", "service")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for path, text := range map[string]string{"etc/passwd": fmt.Sprintf("root:x:0:0::/:/bin/sh\nfednode:x:%d:%d::/:/bin/false\n", uid, uid), "run/x": "", "var/lib/x": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	o := service.Options{Root: root, Program: program}
	pass, err := o.Passphrase()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, service.DataDir)
	site, err := node.Create(data, node.Options{Org: "org-a", Listen: "127.0.0.1:443", Advertise: []string{"127.0.0.1:443"}, Passphrase: pass,
		Credential: service.Credential, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := site.Found(t.Context(), "e2e"); err != nil {
		t.Fatal(err)
	}
	if err := site.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := service.Install(t.Context(), o)
	if err != nil || r.Started || r.Command != "/usr/local/bin/fednode -D /var/lib/fednode run" {
		t.Fatalf("%+v, %v", r, err)
	}

	space := fmt.Sprintf("fn%d-service", os.Getpid())
	for _, args := range [][]string{{"netns", "add", space}, {"-n", space, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v %s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", space).Run() })
	m := newManager(t, filepath.Join(root, "run"))
	cmd := exec.Command("ip", "netns", "exec", space, filepath.Join(root, r.Program), "-D", data, "run")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=600000", "CREDENTIALS_DIRECTORY=" + filepath.Join(root, service.ConfigDir)}
	var log strings.Builder
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if said := m.hears("READY=1", patience); said == "" {
		_ = cmd.Process.Kill()
		<-ended
		t.Fatalf("not ready:\n%s", log.String())
	}
	if said := m.hears("WATCHDOG=1", patience); !strings.Contains(said, "STATUS=org-a in e2e, 1 member, healthy") {
		t.Errorf("the watchdog heard %q", said)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", uid), fmt.Sprintf("Gid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", uid), "CapEff:\t0000000000000400", "CapPrm:\t0000000000000400", "Groups:\t64990", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want+"\n") && !strings.Contains(string(status), want+" \n") {
			t.Errorf("/proc/PID/status lacks %q:\n%s", want, status)
		}
	}
	// Root's commands reach it, and a second node is told what runs already.
	if out, err := exec.Command(program, "-D", data, "status").CombinedOutput(); err != nil || !strings.Contains(string(out), "org-a (org-a-1) in e2e") {
		t.Errorf("%v: %s", err, out)
	}
	// Its agents work, in workers that are that user's too.
	agrees(t, program, data, root)
	// A node that stands still is silent, and one that goes on is heard again.
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	m.hears("nothing", 500*time.Millisecond) // what was under way
	if said := m.hears("WATCHDOG=1", time.Second); said != "" {
		t.Errorf("a node that stands still said %q", said)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if m.hears("WATCHDOG=1", patience) == "" {
		t.Error("nothing was heard after the node went on")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if m.hears("STOPPING=1", patience) == "" {
		t.Error("it did not say that it stops")
	}
	if err := <-ended; err != nil {
		t.Errorf("%v:\n%s", err, log.String())
	}
}

// agrees has a node of one organisation do a workflow alone.
func agrees(t *testing.T, program, data, dir string) {
	t.Helper()
	do := func(args ...string) string {
		out, err := exec.Command(program, append([]string{"-D", data}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("fednode %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	workflow, input := filepath.Join(dir, "workflow.yaml"), filepath.Join(dir, "lease.txt")
	for path, text := range map[string]string{workflow: alone, input: letter} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	do("flow", "submit", workflow)
	do("flow", "run", "alone", "--input", input, "--watch")
	if out := do("flow", "list"); !strings.Contains(out, "completed") {
		t.Errorf("the run has not completed:\n%s", out)
	}
}

const alone = `name: alone
version: 1.0.0
type: federated
participants:
  - {id: org-a, role: initiator}
workflow:
  steps:
    - {id: upload, organization: org-a, agent: document-uploader, next: classify}
    - {id: classify, organization: org-a, agent: document-classifier, next: pii}
    - {id: pii, organization: org-a, agent: pii-detector, next: null}
governance:
  data_sharing: []
`

// TestUnit has systemd read the unit.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", service.Unit))
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), service.Unit)
	if err := os.WriteFile(unit, []byte(strings.Replace(string(text), "/usr/bin/fednode", binary(t), 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, "systemd-analyze", "security", "--offline=yes", "--threshold=25", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	system := t.TempDir()
	for _, dir := range []string{"etc", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(system, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range [][]string{{"systemd-sysusers", "--root=" + system, "sysusers.d"}, {"systemd-tmpfiles", "--root=" + system, "--create", "tmpfiles.d"}} {
		conf, err := filepath.Abs(filepath.Join("..", "..", "packaging", "systemd", c[len(c)-1], "fednode.conf"))
		if err != nil {
			t.Fatal(err)
		}
		c[len(c)-1] = conf
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	if passwd, err := os.ReadFile(filepath.Join(system, "etc/passwd")); err != nil || !strings.Contains(string(passwd), "fednode:") {
		t.Errorf("%v: %s", err, passwd)
	}
	for dir, mode := range map[string]os.FileMode{service.DataDir: 0o700, service.ConfigDir: 0o750} {
		if info, err := os.Stat(filepath.Join(system, dir)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", dir, info, err)
		}
	}
}
