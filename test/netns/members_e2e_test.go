//go:build e2e

package netns

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fednode/transport"
)

// TestFirstTenMinutes is the first ten minutes of three operators, on three hosts that have never met: found, invite,
// join, approve, agree, run, prove. Nobody restarts anything.
func TestFirstTenMinutes(t *testing.T) {
	l := layOut(t, 3)
	out, err := l.at("org-a", "init", "health-net", "--org", "org-a", "--advertise", l.host(0)).ends()
	if err != nil || !strings.Contains(out, "health-net") || !strings.Contains(out, "Keep the root key offline: fednode ca export") {
		t.Fatalf("init: %v", err)
	}
	l.start("org-a")
	first := l.pid("org-a")

	invited := l.must("org-a", "invite", "org-b")
	token, words := tokenOf(t, invited), wordsOf(t, invited)
	join := l.at("org-b", "join", token, "--advertise", l.host(1))
	join.awaits("Same? ")
	join.mentions("health-net", "chair org-a", words)
	join.types("y\r")
	join.awaits("awaiting approval 0/1")
	join.mentions("✓ clock", "✓ udp", "✓ tcp", "✓ org-a reaches", "Ctrl-C is safe; run again to resume")
	if out := l.must("org-a", "members", "approve", "org-b"); !strings.Contains(out, "✓") {
		t.Fatalf("approve: %s", out)
	}
	if out, err := join.ends(); err != nil || !strings.Contains(out, "member of health-net") {
		t.Fatalf("join: %v", err)
	}
	l.start("org-b")

	// org-c joins with one approval at first; its operator goes home meanwhile, and comes back.
	join = l.at("org-c", "join", tokenOf(t, l.must("org-a", "invite", "org-c")), "--advertise", l.host(2))
	join.awaits("Same? ")
	join.types("y\r")
	join.awaits("awaiting approval 0/2")
	if out := l.must("org-a", "members", "approve", "org-c"); !strings.Contains(out, "awaiting approval 1/2: org-b has yet to approve") {
		t.Fatalf("org-a approved: %s", out)
	}
	join.awaits("awaiting approval 1/2: org-b has yet to approve")
	join.types("\x03")
	if out, err := join.ends(); err == nil {
		t.Fatalf("join says that all is well after Ctrl-C: %s", out)
	}
	l.must("org-b", "members", "approve", "org-c")
	if out, err := l.at("org-c", "join").ends(); err != nil || !strings.Contains(out, "member of health-net") {
		t.Fatalf("join, resumed: %v", err)
	}
	l.start("org-c")
	for _, o := range l.plan.Orgs {
		l.await("three members at "+string(o.ID), func() bool { return l.members(o.ID) == 3 })
	}

	hash := l.agree(l.write("workflow.yaml", definition))
	ran := l.must("org-a", "flow", "run", hash, "--input", l.write("lease.txt", letter), "--watch")
	run := regexp.MustCompile(`run-[0-9a-f]+`).FindString(ran)
	if !strings.Contains(ran, "4/4") || run == "" {
		t.Fatalf("the run: %s", ran)
	}
	proof := filepath.Join(l.plan.Dir, "proof.json")
	l.must("org-a", "audit", "prove", run, "--file", proof)
	t.Logf("%s%s", ran, l.must("org-c", "audit", "verify", proof))
	l.verify()
	if l.pid("org-a") != first {
		t.Fatal("org-a was restarted")
	}
	for _, o := range l.plan.Orgs {
		l.halt(o.ID)
	}
}

// mentions checks that texts have been printed.
func (s *session) mentions(texts ...string) {
	s.l.t.Helper()
	for _, text := range texts {
		if !strings.Contains(s.shown(), text) {
			s.l.t.Errorf("%s does not say %q:\n%s", s.what, text, s.shown())
		}
	}
}

func tokenOf(t *testing.T, invited string) string {
	t.Helper()
	token := regexp.MustCompile(`fed1_[A-Za-z0-9_-]+`).FindString(invited)
	if token == "" {
		t.Fatalf("no token in %s", invited)
	}
	return token
}

func wordsOf(t *testing.T, invited string) string {
	t.Helper()
	m := regexp.MustCompile(`Read aloud: (\S+ \S+ \S+)`).FindStringSubmatch(invited)
	if m == nil {
		t.Fatalf("no words in %s", invited)
	}
	return m[1]
}

// members returns how many members a node knows.
func (l *lab) members(id transport.OrgID) int {
	l.t.Helper()
	var all struct{ Members []json.RawMessage }
	l.ask(&all, id, "members", "list")
	return len(all.Members)
}

// found makes org-a the founder of a federation, and starts it.
func (l *lab) found() {
	l.t.Helper()
	l.must("org-a", "init", "health-net", "--org", "org-a", "--advertise", l.host(0))
	l.start("org-a")
}

// An invitation as fednode invite prints it.
type invitation struct {
	Token      string `json:"token"`
	Federation string `json:"federation_id"`
}

// unattended has organisation i join without a human, from invitation to membership, and starts it.
func (l *lab) unattended(i int, approve ...transport.OrgID) (took time.Duration) {
	l.t.Helper()
	id := l.plan.Orgs[i].ID
	began := time.Now()
	var inv invitation
	l.ask(&inv, "org-a", "invite", string(id))
	join := l.at(id, "join", inv.Token, "--advertise", l.host(i), "--yes", "--fingerprint", inv.Federation)
	join.awaits("awaiting approval")
	var brought []struct{ Hash string }
	l.ask(&brought, "org-a", "invite", "list") // newest first
	for _, by := range approve {
		l.must(by, "members", "approve", brought[0].Hash)
	}
	if out, err := join.ends(); err != nil {
		l.t.Fatalf("%s: %v\n%s", id, err, out)
	}
	took = time.Since(began)
	l.start(id)
	return took
}

// TestJoinWhereUDPIsBlocked has an organisation join, and work, whose firewall lets nothing but TCP through.
func TestJoinWhereUDPIsBlocked(t *testing.T) {
	l := layOut(t, 2)
	l.found()
	if out, err := l.inside("org-b", "nft", "add table inet lab ; add chain inet lab out { type filter hook output priority 0 ; } ; add rule inet lab out meta l4proto udp drop ; add chain inet lab in { type filter hook input priority 0 ; } ; add rule inet lab in meta l4proto udp drop").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	t.Logf("figures: join over TCP to member in %v", l.unattended(1, "org-a").Round(time.Millisecond))
	l.await("two members at org-b", func() bool { return l.members("org-b") == 2 })
	hash := l.agree(l.write("workflow.yaml", `name: short
version: 1.0.0
type: federated
participants:
  - {id: org-a, role: initiator}
  - {id: org-b, role: processor}
workflow:
  steps:
    - {id: upload, organization: org-a, agent: document-uploader, next: classify}
    - {id: classify, organization: org-b, agent: document-classifier, next: null}
governance:
  data_sharing:
    - {from: org-a, to: org-b, data_types: [document], restrictions: []}
    - {from: org-b, to: org-a, data_types: [classification], restrictions: []}
`))
	l.completes(l.begin(hash, l.write("lease.txt", letter)))
	if lanes := l.lanes("org-a"); !strings.Contains(lanes, "org-b:tcp") {
		t.Errorf("org-a reaches org-b by %q", lanes)
	}
}

// TestChairAwayDuringJoin has the founder away while somebody joins: what waits says for whom, and goes on by itself.
func TestChairAwayDuringJoin(t *testing.T) {
	l := layOut(t, 3)
	l.found()
	l.unattended(1, "org-a")
	l.await("two members at org-b", func() bool { return l.members("org-b") == 2 })
	var inv invitation
	l.ask(&inv, "org-b", "invite", "org-c")
	l.cut("org-a")
	join := l.at("org-c", "join", inv.Token, "--advertise", l.host(2), "--yes", "--fingerprint", inv.Federation)
	join.awaits("✓ org-b reaches")
	join.awaits("(Ctrl-C is safe; run again to resume)")
	l.heal("org-a")
	l.await("the request at org-a", func() bool {
		return strings.Contains(l.must("org-a", "members", "list"), "org-c")
	})
	for _, by := range []transport.OrgID{"org-a", "org-b"} {
		l.must(by, "members", "approve", "org-c")
	}
	if out, err := join.ends(); err != nil || !strings.Contains(out, "member of health-net") {
		t.Fatalf("join: %v\n%s", err, out)
	}
	l.start("org-c")
	l.await("three members at org-c", func() bool { return l.members("org-c") == 3 })
}

// TestThiefOfAToken has somebody else use org-b's token first: org-b is told by whom, org-a rejects the thief, and org-b
// joins with another token.
func TestThiefOfAToken(t *testing.T) {
	l := layOut(t, 3)
	l.found()
	var inv invitation
	l.ask(&inv, "org-a", "invite", "org-b")
	if out, err := l.at("org-c", "join", inv.Token, "--advertise", l.host(2), "--yes", "--fingerprint", inv.Federation, "--no-wait").ends(); err != nil {
		t.Fatalf("the thief: %v\n%s", err, out)
	}
	root := regexp.MustCompile(`[0-9a-f]{64}`).FindString(l.must("org-a", "invite", "list"))
	out, err := l.at("org-b", "join", inv.Token, "--advertise", l.host(1), "--yes", "--fingerprint", inv.Federation).ends()
	if err == nil || root == "" || !strings.Contains(out, root) || !strings.Contains(out, "used") {
		t.Fatalf("org-b with a stolen token: %v\n%s", err, out)
	}
	l.must("org-a", "members", "reject", "org-b")
	if out, err := l.at("org-c", "join").ends(); err == nil || !strings.Contains(out, "reject") {
		t.Fatalf("the rejected thief: %v\n%s", err, out)
	}
	if n := l.members("org-a"); n != 1 {
		t.Fatalf("%d members", n)
	}
	took := l.unattended(1, "org-a")
	t.Logf("figures: join to member in %v", took.Round(time.Millisecond))
	l.await("two members at org-b", func() bool { return l.members("org-b") == 2 })
}

// TestPortTaken says which port, and how it is mended, and leaves the invitation unused.
func TestPortTaken(t *testing.T) {
	l := layOut(t, 2)
	l.found()
	var inv invitation
	l.ask(&inv, "org-a", "invite", "org-b")
	squatter := l.inside("org-b", "bash", "-c", "exec openssl s_server -accept 443 -nocert -quiet -cipher aNULL")
	if err := squatter.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = squatter.Process.Kill(); _ = squatter.Wait() }()
	l.await("a squatter on port 443", func() bool {
		out, _ := l.inside("org-b", "ss", "-Htln", "sport = :443").Output()
		return len(out) > 0
	})
	args := []string{"join", inv.Token, "--advertise", l.host(1), "--yes", "--fingerprint", inv.Federation}
	out, err := l.at("org-b", args...).ends()
	if err == nil || !strings.Contains(out, "443") || !strings.Contains(out, "--listen") {
		t.Fatalf("join with a taken port: %v\n%s", err, out)
	}
	_ = squatter.Process.Kill()
	_ = squatter.Wait()
	join := l.at("org-b", args...)
	join.awaits("awaiting approval 0/1")
	l.must("org-a", "members", "approve", "org-b")
	if out, err := join.ends(); err != nil {
		t.Fatalf("join: %v\n%s", err, out)
	}
}
