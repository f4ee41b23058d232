//go:build e2e

package netns

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fednode/transport"
)

// definition is the reference workflow, with short names; its last step is automatic where the policy says so.
const definition = `name: cross-org
version: 1.0.0
type: federated
participants:
  - {id: org-a, role: initiator}
  - {id: org-b, role: processor}
  - {id: org-c, role: reviewer}
workflow:
  steps:
    - {id: upload, organization: org-a, agent: document-uploader, next: classify}
    - {id: classify, organization: org-b, agent: document-classifier, next: pii}
    - {id: pii, organization: org-b, agent: pii-detector, next: review}
    - {id: review, organization: org-c, agent: document-reviewer, next: null}
governance:
  data_sharing:
    - {from: org-a, to: org-b, data_types: [document], restrictions: [no-storage, no-extraction]}
    - {from: org-b, to: org-c, data_types: [document, classification], restrictions: [no-storage]}
    - {from: org-c, to: org-a, data_types: [review-result], restrictions: []}
`

// marker is in the letter, and must not be on any disk but org-a's.
const marker = "xylotheque-quandary"

const letter = `LEASE AGREEMENT

This lease of the ` + marker + ` is made on 3 March 2026 between Harbour Estates Ltd, the landlord, and Miriam Castellane, the
tenant, born on 14 July 1984, e-mail miriam.castellane@example.org, telephone +49 30 901820. The rent is 1,240 euros a
month in advance, to IBAN DE89 3704 0044 0532 0130 00.
`

// TestFederation is three hosts that do the reference workflow over a real network, and the figures of a node.
func TestFederation(t *testing.T) {
	l := newLab(t, 3)
	ready := l.startAll()
	hash := l.agree(l.write("workflow.yaml", definition))
	input := l.write("lease.txt", letter)
	var took []time.Duration
	for range 5 {
		took = append(took, l.completes(l.begin(hash, input)))
	}
	shown := l.must("org-a", "flow", "list")
	if n := strings.Count(shown, "completed"); n != 5 {
		t.Fatalf("%d runs completed, want 5:\n%s", n, shown)
	}
	for _, id := range []transport.OrgID{"org-b", "org-c"} {
		l.hasNot(id, marker)
		l.hasNot(id, "castellane")
	}
	t.Logf("%s", l.verify())
	info, err := os.Stat(l.binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range l.plan.Orgs {
		t.Logf("figures: %s RSS %d MB (private %d MB)", o.ID, l.memory(o.ID, "VmRSS")>>10, l.memory(o.ID, "RssAnon")>>10)
	}
	t.Logf("figures: binary %.1f MB, start to ready %v, runs of four steps %v", float64(info.Size())/1e6, ready.Round(time.Millisecond), took)
	for _, o := range l.plan.Orgs {
		l.halt(o.ID)
	}
}

// hasNot searches all files of an organisation, the database included, for a text in either of its usual forms.
func (l *lab) hasNot(id transport.OrgID, text string) {
	l.t.Helper()
	out, err := exec.Command("grep", "-rlai", text, l.plan.DataDir(id)).Output()
	if err == nil {
		l.t.Errorf("%s has %q on disk: %s", id, text, out)
	}
}

// memory reads a line of a node's /proc/PID/status, in kB.
func (l *lab) memory(id transport.OrgID, line string) int {
	l.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid(id)))
	if err != nil {
		l.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), line+":")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// TestPartition cuts the reviewer off in the middle of runs: they end once the cable is back.
func TestPartition(t *testing.T) {
	l := newLab(t, 3)
	l.startAll()
	hash := l.agree(l.write("workflow.yaml", definition))
	input := l.write("lease.txt", letter)
	l.completes(l.begin(hash, input))
	l.cut("org-c")
	var runs []string
	for range 3 {
		runs = append(runs, l.begin(hash, input))
	}
	l.await("steps before the cut one", func() bool {
		for _, id := range runs {
			if strings.Count(l.must("org-a", "flow", "show", id), "completed") < 3 {
				return false
			}
		}
		return true
	})
	for _, id := range runs {
		if s := l.state(id); s != "running" {
			t.Errorf("%s is %s while org-c can't be reached, want running", id, s)
		}
	}
	l.heal("org-c")
	for _, id := range runs {
		t.Logf("%s ended %v after the cut", id, l.completes(id).Round(time.Millisecond))
	}
	l.verify()
}

// TestUDPBlocked drops all UDP of one host: calls go on over TCP, and over QUIC once that works again.
func TestUDPBlocked(t *testing.T) {
	l := newLab(t, 3)
	l.startAll()
	hash := l.agree(l.write("workflow.yaml", definition))
	input := l.write("lease.txt", letter)
	l.completes(l.begin(hash, input))
	nft := func(rules ...string) {
		t.Helper()
		if out, err := l.inside("org-b", "nft", rules...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v\n%s", rules, err, out)
		}
	}
	nft("add table inet lab")
	for _, hook := range []string{"input", "output"} {
		nft(fmt.Sprintf("add chain inet lab %s { type filter hook %s priority 0 ; }", hook, hook))
		nft(fmt.Sprintf("add rule inet lab %s udp dport 443 drop", hook))
		nft(fmt.Sprintf("add rule inet lab %s udp sport 443 drop", hook))
	}
	took := l.completes(l.begin(hash, input))
	lane := func(want string) bool { return strings.Contains(l.lanes("org-a"), "org-b:"+want) }
	l.await("org-b over TCP", func() bool { return lane("tcp") })
	t.Logf("figures: a run across the switch to TCP took %v", took.Round(time.Millisecond))
	nft("delete table inet lab")
	back := l.await("org-b over QUIC again", func() bool { return lane("quic") })
	t.Logf("figures: back on QUIC after %v", back.Round(time.Millisecond))
	l.completes(l.begin(hash, input))
}

// lanes tells by which lanes a node reaches each member, as ORG:LANE.
func (l *lab) lanes(id transport.OrgID) string {
	l.t.Helper()
	var all struct {
		Members []struct {
			Organization string `json:"organization_id"`
			Sessions     []struct {
				Lane    string `json:"lane"`
				Inbound bool   `json:"inbound"`
			} `json:"sessions"`
		} `json:"members"`
	}
	l.ask(&all, id, "members", "list")
	var out []string
	for _, m := range all.Members {
		for _, s := range m.Sessions {
			if !s.Inbound {
				out = append(out, m.Organization+":"+s.Lane)
			}
		}
	}
	return strings.Join(out, " ")
}

// TestKill kills nodes at random moments of runs: every run ends, every step has one result, all logs agree.
func TestKill(t *testing.T) {
	l := newLab(t, 3)
	l.startAll()
	hash := l.agree(l.write("workflow.yaml", definition))
	input := l.write("lease.txt", letter)
	for round := range 8 {
		id := l.begin(hash, input)
		n, _ := rand.Int(rand.Reader, big.NewInt(60))
		time.Sleep(time.Duration(n.Int64()) * time.Millisecond)
		victim := l.plan.Orgs[round%3].ID
		l.crash(victim)
		l.start(victim)
		l.completes(id)
		var shown struct {
			Run struct {
				Steps []struct {
					ID       string `json:"id"`
					State    string `json:"state"`
					Attempts []struct {
						State string `json:"state"`
					} `json:"attempts"`
				} `json:"steps"`
			} `json:"run"`
		}
		l.ask(&shown, "org-a", "flow", "show", id)
		for _, s := range shown.Run.Steps {
			if s.State != "completed" {
				t.Errorf("%s killed after %d ms: step %s of %s is %s", victim, n, s.ID, id, s.State)
			}
		}
	}
	t.Logf("%s", l.verify())
	for _, id := range []transport.OrgID{"org-b", "org-c"} {
		l.hasNot(id, marker)
	}
}

// TestDisk fills org-b's disk in the middle of things, then makes it read-only: the errors say so, nothing that was
// acknowledged is lost, and with room again all goes on.
func TestDisk(t *testing.T) {
	l := newLab(t, 3, func(o *Org, dir string) {
		if o.ID != "org-b" {
			return
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("fednode-e2e", dir, "tmpfs", 0, "size=160m,mode=0700"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	})
	l.startAll()
	hash := l.agree(l.write("workflow.yaml", definition))
	input := l.write("lease.txt", letter)
	l.completes(l.begin(hash, input))
	filler := filepath.Join(l.plan.DataDir("org-b"), "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	written, err := io.Copy(f, zeros{})
	f.Close()
	t.Logf("filled the disk with %d bytes: %v", written, err)

	// The database has free pages for a while yet; runs go on until it must grow.
	var stuck string
	l.await("a run that the full disk stops", func() bool {
		stuck = l.begin(hash, input)
		for from := time.Now(); time.Since(from) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
			if l.state(stuck) != "running" {
				return false
			}
		}
		return true
	})
	l.await("the reason in org-b's log", func() bool { return strings.Contains(l.log("org-b"), "no space left on device") })
	if out, err := l.try("org-b", "status"); err == nil || !strings.Contains(out, "✗ disk: 0 MiB free") {
		t.Errorf("status on a full disk: %v\n%s", err, out)
	}
	if out, err := l.try("org-b", "doctor"); err == nil || !strings.Contains(out, "✗ disk ") || !strings.Contains(out, "→ make room") {
		t.Errorf("doctor on a full disk: %v\n%s", err, out)
	}
	if out, err := l.try("org-a", "doctor", "org-b"); err == nil || !strings.Contains(out, "its disk may be full") && !strings.Contains(out, "✗ disk         not well") {
		t.Errorf("doctor of the other end: %v\n%s", err, out)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.completes(stuck)
	l.verify()

	l.halt("org-b")
	if err := unix.Mount("", l.plan.DataDir("org-b"), "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=160m"); err != nil {
		t.Fatal(err)
	}
	cmd := l.launch("org-b")
	if err := cmd.Wait(); err == nil || !strings.Contains(l.log("org-b"), "read-only file system") {
		t.Errorf("on a read-only disk: %v\n%s", err, l.log("org-b"))
	}
	if err := unix.Mount("", l.plan.DataDir("org-b"), "", unix.MS_REMOUNT, "size=160m"); err != nil {
		t.Fatal(err)
	}
	l.start("org-b")
	l.completes(l.begin(hash, input))
	l.verify()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestAgents has an exec agent of a node that runs as root try what it must not do.
func TestAgents(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "agent")
	const script = `#!/bin/bash
read -r request
try() { if "$@" >/dev/null 2>&1; then echo -n "$1-worked "; fi; }
tcp() { exec 3<>/dev/tcp/10.77.0.1/443; }
shadow() { read -r x </etc/shadow; }
write() { echo x >%s/written; }
keys() { read -r x <%s/node.yaml; }
home() { echo x >/root/written; }
tries=$(try tcp; try shadow; try write; try keys; try home)
echo "{\"outputs\":[{\"type\":\"review-result\",\"media_type\":\"application/json\",\"text\":\"{\\\"risk\\\":\\\"low\\\",\\\"tries\\\":\\\"$tries\\\"}\"}]}"
`
	l := newLab(t, 3, func(o *Org, data string) {
		if o.ID == "org-c" {
			if err := os.WriteFile(program, fmt.Appendf(nil, script, dir, data), 0o755); err != nil {
				t.Fatal(err)
			}
			o.Agents = fmt.Sprintf("agents:\n  document-reviewer: {kind: exec, command: [%s], inputs: [document, classification], outputs: [review-result]}\n", program)
		}
	})
	l.startAll()
	approved := strings.Replace(definition, "document-reviewer, next: null}", `document-reviewer, next: approve}
    - {id: approve, organization: org-a, agent: approval-agent, next: null}`, 1)
	hash := l.agree(l.write("workflow.yaml", approved))
	id := l.begin(hash, l.write("lease.txt", letter))
	l.await("the approval", func() bool { return strings.Contains(l.must("org-a", "flow", "list"), "waits for approval") })
	out := filepath.Join(l.plan.Dir, "out")
	l.must("org-a", "flow", "show", id, "--save", out)
	found := false
	_ = filepath.WalkDir(out, func(path string, d os.DirEntry, err error) error {
		data, _ := os.ReadFile(path)
		var result struct{ Tries *string }
		if json.Unmarshal(data, &result) == nil && result.Tries != nil {
			found = true
			if *result.Tries != "" {
				t.Errorf("the agent got its way: %s", *result.Tries)
			}
		}
		return nil
	})
	if !found {
		t.Errorf("no result of the agent in %s: %s %s", out, l.must("org-a", "flow", "show", id, "--output", "json"), l.must("org-c", "flow", "show", id))
	}
	if _, err := os.Stat(filepath.Join(dir, "written")); err == nil {
		t.Error("the agent wrote a file")
	}
}

// TestStrangers talks to a node from a host that is no member: garbage, foreign certificates, half-open connections.
func TestStrangers(t *testing.T) {
	l := newLab(t, 3)
	l.startAll()
	hash := l.agree(l.write("workflow.yaml", definition))
	input := l.write("lease.txt", letter)
	bash := func(script string) string {
		out, _ := l.inside("org-c", "timeout", "20", "bash", "-c", script).CombinedOutput()
		return string(out)
	}
	bash(`for i in $(seq 40); do head -c 1200 /dev/urandom >/dev/udp/10.77.0.1/443; done`)
	bash(`for i in $(seq 20); do (head -c 4000 /dev/urandom >/dev/tcp/10.77.0.1/443); done`)
	dir := t.TempDir()
	bash("cd " + dir + " && openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 1 -subj /CN=org-b")
	for _, name := range []string{"fednode/1", "h2"} {
		out := bash("cd " + dir + " && echo | openssl s_client -connect 10.77.0.1:443 -alpn " + name + " -cert c -key k -tls1_3 -ign_eof 2>&1")
		if !strings.Contains(out, "alert") {
			t.Errorf("a foreign certificate was not refused over %s:\n%s", name, out)
		}
	}
	if out := bash("echo | openssl s_client -connect 10.77.0.1:443 -tls1_2 2>&1"); !strings.Contains(out, "alert protocol version") {
		t.Errorf("TLS 1.2 was not refused:\n%s", out)
	}
	l.completes(l.begin(hash, input))
	if out := l.must("org-a", "status"); !strings.Contains(out, "healthy") {
		t.Errorf("not healthy:\n%s", out)
	}
}
