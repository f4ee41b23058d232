//go:build e2e

package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fednode/transport"
	"fednode/ui"
)

// patience bounds every wait; nothing is expected to take a third of it.
const patience = 90 * time.Second

// binary is the program under test, named by the environment; packaging/e2e builds it.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("FEDNODE_BINARY")
	if path == "" {
		t.Fatal("FEDNODE_BINARY names no program: run make e2e")
	}
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root: run make e2e as root")
	}
	return path
}

// A lab is a federation whose organisations live in network namespaces of their own, joined by a bridge in another.
type lab struct {
	t       *testing.T
	binary  string
	plan    Plan
	middle  string // the namespace of the bridge
	running map[transport.OrgID]*exec.Cmd
}

// newLab lays out n organisations and founds their federation. Of options, dir prepares an organisation's data directory
// before it is made, and agents is YAML for its node.yaml.
func newLab(t *testing.T, n int, options ...func(*Org, string)) *lab {
	t.Helper()
	l := layOut(t, n, options...)
	if _, err := l.plan.Found(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// layOut lays out n organisations that have never met: org-a, org-b and so on, each with a namespace of its own on one
// bridge, and known there as fed.a.org, fed.b.org and so on.
func layOut(t *testing.T, n int, options ...func(*Org, string)) *lab {
	t.Helper()
	l := &lab{t: t, binary: binary(t), middle: fmt.Sprintf("fn%d", os.Getpid()), running: map[transport.OrgID]*exec.Cmd{}}
	l.plan = Plan{Name: "e2e", Dir: t.TempDir()}
	l.ip("netns", "add", l.middle)
	t.Cleanup(func() { l.ip("netns", "del", l.middle) })
	l.ip("-n", l.middle, "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.middle, "link", "set", "br0", "up")
	hosts := "127.0.0.1 localhost\n"
	for i := range n {
		hosts += fmt.Sprintf("%s %s\n", l.address(i), l.host(i))
	}
	for i := range n {
		id := transport.OrgID("org-" + string(rune('a'+i)))
		space := l.space(id)
		l.ip("netns", "add", space)
		t.Cleanup(func() { l.ip("netns", "del", space) })
		l.etc(space, "hosts", hosts)
		l.ip("-n", space, "link", "set", "lo", "up")
		l.ip("-n", l.middle, "link", "add", l.port(id), "type", "veth", "peer", "name", "eth0", "netns", space)
		l.ip("-n", l.middle, "link", "set", l.port(id), "master", "br0", "up")
		l.ip("-n", space, "addr", "add", l.address(i).String()+"/24", "dev", "eth0")
		l.ip("-n", space, "link", "set", "eth0", "up")
		o := Org{ID: id, Address: netip.AddrPortFrom(l.address(i), 443).String()}
		for _, option := range options {
			option(&o, l.plan.DataDir(id))
		}
		l.plan.Orgs = append(l.plan.Orgs, o)
	}
	return l
}

// etc makes a file of /etc that ip-netns(8) shows to whoever runs in a namespace.
func (l *lab) etc(space, name, text string) {
	l.t.Helper()
	dir := filepath.Join("/etc/netns", space)
	l.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) host(i int) string                    { return "fed." + string(rune('a'+i)) + ".org" }
func (l *lab) address(i int) netip.Addr             { return netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}) }
func (l *lab) space(id transport.OrgID) string      { return l.middle + "-" + string(id) }
func (l *lab) port(id transport.OrgID) string       { return "to-" + string(id) }
func (l *lab) logFile(id transport.OrgID) string    { return l.plan.DataDir(id) + ".log" }
func (l *lab) cut(id transport.OrgID)               { l.ip("-n", l.middle, "link", "set", l.port(id), "down") }
func (l *lab) heal(id transport.OrgID)              { l.ip("-n", l.middle, "link", "set", l.port(id), "up") }
func (l *lab) pid(id transport.OrgID) int           { return l.running[id].Process.Pid }
func (l *lab) client(id transport.OrgID) *ui.Client { return ui.NewClient(l.plan.DataDir(id)) }

// ip runs ip(8).
func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// inside prepares a command in an organisation's namespace.
func (l *lab) inside(id transport.OrgID, program string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", l.space(id), program}, args...)...)
}

// try runs a fednode command at an organisation; its output is standard output and error.
func (l *lab) try(id transport.OrgID, args ...string) (string, error) {
	out, err := l.inside(id, l.binary, append([]string{"-D", l.plan.DataDir(id)}, args...)...).CombinedOutput()
	return string(out), err
}

// must is try for commands that have to succeed.
func (l *lab) must(id transport.OrgID, args ...string) string {
	l.t.Helper()
	out, err := l.try(id, args...)
	if err != nil {
		l.t.Fatalf("%s: fednode %s: %v\n%s\n%s", id, strings.Join(args, " "), err, out, l.log(id))
	}
	return out
}

// ask runs a command with JSON output and decodes it.
func (l *lab) ask(v any, id transport.OrgID, args ...string) {
	l.t.Helper()
	cmd := l.inside(id, l.binary, append([]string{"-D", l.plan.DataDir(id), "--output", "json"}, args...)...)
	var diagnostics bytes.Buffer
	cmd.Stderr = &diagnostics
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, v)
	}
	if err != nil {
		l.t.Fatalf("%s: fednode %s: %v\n%s%s", id, strings.Join(args, " "), err, out, &diagnostics)
	}
}

// await repeats check until it is true.
func (l *lab) await(what string, check func() bool) time.Duration {
	l.t.Helper()
	from := time.Now()
	for !check() {
		if time.Since(from) > patience {
			for _, o := range l.plan.Orgs {
				l.t.Logf("%s:\n%s", o.ID, l.log(o.ID))
			}
			l.t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(from)
}

// log returns the end of a node's log.
func (l *lab) log(id transport.OrgID) string {
	data, _ := os.ReadFile(l.logFile(id))
	return string(data[max(0, len(data)-4000):])
}

// launch runs a node in its namespace, and does not wait.
func (l *lab) launch(id transport.OrgID) *exec.Cmd {
	l.t.Helper()
	log, err := os.OpenFile(l.logFile(id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close()
	cmd := l.inside(id, l.binary, "-D", l.plan.DataDir(id), "run")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	return cmd
}

// start runs nodes until they are ready, and returns how long the slowest took.
func (l *lab) start(ids ...transport.OrgID) (slowest time.Duration) {
	l.t.Helper()
	for _, id := range ids {
		from := time.Now()
		cmd := l.launch(id)
		l.running[id] = cmd
		l.t.Cleanup(func() {
			if l.running[id] == cmd {
				l.crash(id)
			}
		})
		cl := l.client(id)
		if err := cl.WaitReady(context.Background(), patience); err != nil {
			l.t.Fatalf("%s: %v\n%s", id, err, l.log(id))
		}
		cl.Close()
		slowest = max(slowest, time.Since(from))
	}
	return slowest
}

// startAll runs all nodes.
func (l *lab) startAll() time.Duration {
	l.t.Helper()
	var slowest time.Duration
	for _, o := range l.plan.Orgs {
		slowest = max(slowest, l.start(o.ID))
	}
	return slowest
}

// crash kills a node.
func (l *lab) crash(id transport.OrgID) {
	cmd := l.running[id]
	delete(l.running, id)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// halt ends a node as a service manager would; it has to say that all is well.
func (l *lab) halt(id transport.OrgID) {
	l.t.Helper()
	cmd := l.running[id]
	delete(l.running, id)
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		l.t.Fatalf("%s: %v\n%s", id, err, l.log(id))
	}
}

// write makes a file in the lab's folder and returns its path.
func (l *lab) write(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.plan.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// agree submits a definition at org-a, has all others accept it and waits until it is in force.
func (l *lab) agree(definition string) (hash string) {
	l.t.Helper()
	var submitted struct {
		Agreement struct {
			Hash string `json:"hash"`
		} `json:"agreement"`
	}
	l.ask(&submitted, "org-a", "flow", "submit", definition)
	hash = submitted.Agreement.Hash
	for _, o := range l.plan.Orgs[1:] {
		l.await("the agreement at "+string(o.ID), func() bool {
			out, err := l.try(o.ID, "flow", "accept", hash)
			if err != nil && !strings.Contains(out, "not found") {
				l.t.Fatalf("%s accepts: %v\n%s", o.ID, err, out)
			}
			return err == nil
		})
	}
	l.await("agreement in force", func() bool { return strings.Contains(l.must("org-a", "flow", "list", "--agreements"), "in-force") })
	return hash
}

// A run as flow list shows it.
type run struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// begin starts a run of an agreement and returns its id.
func (l *lab) begin(agreement, input string) string {
	l.t.Helper()
	var runs []run
	l.ask(&runs, "org-a", "flow", "run", agreement, "--input", input)
	return runs[0].ID
}

// state returns the state of a run at its initiator.
func (l *lab) state(id string) string {
	l.t.Helper()
	var shown struct {
		Run run `json:"run"`
	}
	l.ask(&shown, "org-a", "flow", "show", id)
	return shown.Run.State
}

// completes waits for the end of a run, which must be a good one.
func (l *lab) completes(id string) time.Duration {
	l.t.Helper()
	var last string
	took := l.await("end of "+id, func() bool {
		last = l.state(id)
		return last != "running" && last != "waiting" && last != "pending"
	})
	if last != "completed" {
		l.t.Fatalf("%s is %s:\n%s", id, last, l.must("org-a", "flow", "show", id))
	}
	return took
}

// verify exports every log and verifies them, alone and against each other.
func (l *lab) verify() string {
	l.t.Helper()
	args := []string{"audit", "verify"}
	for _, o := range l.plan.Orgs {
		archive := filepath.Join(l.t.TempDir(), string(o.ID)+".tar")
		l.must(o.ID, "audit", "export", archive)
		args = append(args, archive)
	}
	return l.must("org-a", args...)
}
