package fed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/node"
	"fednode/transport"
)

// problems returns what an organisation's doctor finds about the way to and from another: check, who found it, about whom.
func (f *Federation) problems(at, about *Org) (out []string, mends string) {
	f.t.Helper()
	d, err := at.Node.Doctor(context.Background(), about.ID)
	f.must(err)
	for _, p := range d.Problems() {
		out = append(out, fmt.Sprintf("%s by %s about %s", p.Check, p.By, p.About))
		if p.Mend == "" || p.Text == "" {
			f.t.Errorf("no mend for %+v", p)
		}
		mends += p.Text + " → " + p.Mend + "\n"
	}
	slices.Sort(out)
	return out, mends
}

// wantProblems fails unless exactly these are found, and what is said about them has the given texts in it.
func (f *Federation) wantProblems(at, about *Org, want []string, texts ...string) {
	f.t.Helper()
	got, said := f.problems(at, about)
	if !slices.Equal(got, want) {
		f.t.Errorf("doctor of %s about %s found %q, want %q\n%s", at.ID, about.ID, got, want, said)
	}
	for _, text := range texts {
		if !strings.Contains(said, text) {
			f.t.Errorf("%q is not in:\n%s", text, said)
		}
	}
}

// A fault is something that goes wrong between org-a and org-b, and what org-a's doctor says about it.
type fault struct {
	name  string
	begin func(f *Federation, a, b *Org)
	end   func(f *Federation, a, b *Org)
	want  []string
	texts []string
}

// TestDoctorNamesTheFault has one fault after the other.
func TestDoctorNamesTheFault(t *testing.T) {
	const noName, otherPlace = "no such name", "leads to org-c"
	var names atomic.Value // what is wrong with the names at org-a
	names.Store("")
	resolve := func(_ context.Context, e string) ([]net.Addr, error) {
		switch what := names.Load(); {
		case what == noName:
			return nil, &net.DNSError{Err: "no such host", Name: e, IsNotFound: true}
		case what == otherPlace && e == address(1).String():
			return []net.Addr{address(2)}, nil
		}
		a, err := net.ResolveUDPAddr("udp", e)
		return []net.Addr{a}, err
	}
	skew := func(d time.Duration) func(*Federation, *Org, *Org) {
		return func(_ *Federation, a, b *Org) { b.Skew(d) }
	}
	name := func(what string) func(*Federation, *Org, *Org) {
		return func(*Federation, *Org, *Org) { names.Store(what) }
	}
	faults := []fault{
		{name: "none"},
		{name: noName, begin: name(noName), end: name(""),
			want: []string{"dns by org-a about org-a", "dns by org-a about org-b"}, texts: []string{"no such host", "DNS record"}},
		{name: otherPlace, begin: name(otherPlace), end: name(""),
			want: []string{"dns by org-a about org-b"}, texts: []string{"somebody else answers where org-b should be", "org-c"}},
		{name: "clock ahead", begin: skew(40 * time.Second), end: skew(0),
			want: []string{"clock by org-a about org-b"}, texts: []string{"org-b is 40s ahead", "NTP"}},
		{name: "clock behind, so that every message is refused", begin: skew(-3 * time.Minute), end: skew(0),
			want: []string{"clock by org-a about org-b"}, texts: []string{"org-b is 3m0s behind"}},
		{name: "clock behind, so that every certificate is refused", begin: skew(-3 * time.Hour), end: skew(0),
			want: []string{"clock by org-a about org-b"}, texts: []string{"org-b is 3h0m0s behind"}},
		{name: "clock days ahead", begin: skew(72 * time.Hour), end: skew(0),
			want: []string{"clock by org-a about org-b"}, texts: []string{"org-b is 72h0m0s ahead"}},
		{name: "UDP blocked",
			begin: func(f *Federation, a, b *Org) { f.Network.BlockUDP(a, b, true) },
			end:   func(f *Federation, a, b *Org) { f.Network.BlockUDP(a, b, false) },
			want:  []string{"udp by org-a about org-b", "udp by org-b about org-a"}, texts: []string{"let UDP through"}},
		{name: "TCP blocked",
			begin: func(f *Federation, a, b *Org) { f.Network.BlockTCP(a, b, true) },
			end:   func(f *Federation, a, b *Org) { f.Network.BlockTCP(a, b, false) },
			want:  []string{"tcp by org-a about org-b", "tcp by org-b about org-a"}, texts: []string{"let TCP through"}},
		{name: "suspended by the other",
			begin: func(f *Federation, a, b *Org) {
				f.must(b.Node.Suspend(context.Background(), "tester", a.ID, "stolen key"))
			},
			end:  func(f *Federation, a, b *Org) { f.must(b.Node.Resume(context.Background(), "tester", a.ID)) },
			want: []string{"certificate by org-a about org-b"}, texts: []string{"org-b refuses org-a's certificate", "the clocks agree", "suspended"}},
		{name: "node away",
			begin: func(f *Federation, a, b *Org) { f.must(b.Stop()) },
			end:   func(f *Federation, a, b *Org) { b.Start() },
			want:  []string{"tcp by org-a about org-b", "udp by org-a about org-b"}, texts: []string{"see whether org-b's node runs"}},
		{name: "none any more"},
	}
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Resolve: map[int]transport.Resolver{0: resolve}})
		for _, x := range faults {
			time.Sleep(2 * time.Minute)
			t.Log(x.name)
			if x.begin != nil {
				x.begin(f, f.Orgs[0], f.Orgs[1])
				time.Sleep(10 * time.Second)
			}
			f.wantProblems(f.Orgs[0], f.Orgs[1], x.want, x.texts...)
			if x.end != nil {
				x.end(f, f.Orgs[0], f.Orgs[1])
			}
		}
	})
}

// TestDoctorNamesOtherVersions has peers whose program is older, and newer.
func TestDoctorNamesOtherVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{1: true, 2: true}, Handlers: func(o *Org, h *Hostile) {
			if o.ID == "org-c" {
				h.Handle("doctor", func(ctx context.Context, r *transport.Request) error {
					return r.Reply(ctx, object{"version": "9.0.0", "wire": []int{7, 8}, "log": 1, "seen": 0, "governance": 5, "findings": []object{}}, transport.ReplyOptions{}, nil)
				})
			}
		}})
		f.wantProblems(f.Orgs[0], f.Orgs[1], []string{"version by org-a about org-b"}, "unknown-type", "bring both nodes to one version")
		f.wantProblems(f.Orgs[0], f.Orgs[2], []string{"version by org-a about org-c"}, "9.0.0", "[7 8]")
	})
}

// TestDoctorNamesAnUnseenLog has records that no other member has seen for hours.
func TestDoctorNamesAnUnseenLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2})
		a, b := f.Orgs[0], f.Orgs[1]
		time.Sleep(10 * time.Second)
		f.Network.Cut(a, b, true)
		time.Sleep(time.Minute)
		f.must(a.Node.Engine.RecordOperation(context.Background(), "tester", "operation", "test", "test", ""))
		time.Sleep(3 * time.Hour)
		f.Network.Cut(a, b, false)
		f.wantProblems(a, b, []string{"log by org-a about org-a"}, "seen by no other member")
	})
}

const hastyCharter = `version: 1
sequence: 2
approvals: {member: quorum, record_update: self, charter: quorum}
freshness: {limit: 24h, alarm: 90m}
`

// TestDoctorNamesStaleGovernance has the chair away for longer than the charter's alarm: the others reach each other, and
// both know that it is stale.
func TestDoctorNamesStaleGovernance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		hash, err := f.Orgs[0].Node.ProposeCharter(context.Background(), "tester", "charter.yaml", []byte(hastyCharter))
		f.must(err)
		for _, o := range f.Orgs[1:] {
			f.Wait("the proposal", func() bool { return len(o.Node.Candidates()) == 1 })
			_, err := o.Node.Approve(context.Background(), "tester", hash, false)
			f.must(err)
		}
		for _, o := range f.Orgs {
			f.Wait("the charter at "+string(o.ID), func() bool { return o.Node.Charter().Sequence == 2 && len(o.Node.Candidates()) == 0 })
		}
		f.must(f.Orgs[0].Stop())
		time.Sleep(100 * time.Minute)
		f.wantProblems(f.Orgs[1], f.Orgs[2], []string{"governance by org-b about org-b", "governance by org-b about org-c", "governance by org-c about org-c"}, "quorum")
	})
}

// TestDoctorNamesExpiredAuthorities is a federation whose certificates nobody renewed for more than a year.
func TestDoctorNamesExpiredAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		for _, o := range f.Orgs {
			o.Skew(366 * 24 * time.Hour)
		}
		time.Sleep(2 * time.Second)
		got, said := f.problems(f.Orgs[0], f.Orgs[1])
		for _, want := range []string{"certificate by org-a about org-a", "certificate by org-a about org-b"} {
			if !slices.Contains(got, want) {
				t.Errorf("%q lacks %q", got, want)
			}
		}
		for _, other := range []string{"udp", "tcp", "dns", "clock"} {
			if strings.Contains(strings.Join(got, " "), other) {
				t.Errorf("%s is blamed: %q\n%s", other, got, said)
			}
		}
		if !strings.Contains(said, "expired at") {
			t.Error(said)
		}
	})
}

// TestDoctorTellsMembersOnly has strangers, suspended members, and one that asks without end.
func TestDoctorTellsMembersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{2: true}})
		a, h := f.Orgs[0], f.Orgs[2].Hostile()
		told, refused := 0, 0
		for range 20 {
			switch r := h.call(a, transport.Message{Type: "doctor", Payload: object{}}); {
			case r.Refusal == nil:
				told++
				if s := string(r.Payload); strings.Contains(s, "GiB") || strings.Contains(s, "MiB") || strings.Contains(s, "org-b") {
					t.Errorf("a member is told more than it may know: %s", s)
				}
			case r.Refusal.Code == transport.CodeRateLimited:
				refused++
			default:
				t.Errorf("refused: %v", r.Refusal)
			}
		}
		if told == 0 || refused < 10 {
			t.Errorf("%d answers, %d refused", told, refused)
		}
		time.Sleep(time.Minute)
		refusal(t, "a payload", h.call(a, transport.Message{Type: "doctor", Payload: object{"x": 1}}), transport.CodeMalformed)
		if _, err := a.Node.Doctor(t.Context(), "org-z"); !errors.Is(err, flow.ErrMisuse) {
			t.Errorf("about a stranger: %v", err)
		}
		if _, err := a.Node.Doctor(t.Context(), a.ID); !errors.Is(err, flow.ErrMisuse) {
			t.Errorf("about itself: %v", err)
		}
	})
}

// TestDoctorIsNoScanner has a member whose record names what is not its own, to learn about another's network.
func TestDoctorIsNoScanner(t *testing.T) {
	learnt := map[string]bool{}
	for _, other := range []string{address(2).String(), "10.9.9.9:443"} { // somebody's node; nothing
		synctest.Test(t, func(t *testing.T) {
			f := New(t, Options{})
			a, b := f.Orgs[0], f.Orgs[1]
			b.edit(`  - "`+b.addr.String()+`"`, `  - "`+other+`"`)
			_, err := b.Node.Renew(context.Background(), "tester", false, false)
			f.must(err)
			f.Wait("org-a to learn", func() bool { return f.at(a, b.ID).Endpoints[0] == other })
			time.Sleep(time.Minute)
			began := time.Now()
			d, err := b.Node.Doctor(context.Background(), a.ID)
			f.must(err)
			said := time.Since(began).Round(time.Second).String() + "\n"
			for _, found := range d.Findings {
				if found.By == a.ID {
					said += fmt.Sprintf("%s %s %s\n", found.Check, found.State, found.Text)
				}
			}
			if !strings.Contains(said, "udp problem org-b's node does not answer") {
				t.Error(said)
			}
			learnt[said] = true
		})
	}
	if len(learnt) != 1 {
		t.Errorf("what is there can be told from what is not: %v", learnt)
	}
}

// TestDoctorIsNoEyeInside: a member that has a name of its own lead into the network of another learns nothing of what
// answers there, nor who resolves names there.
func TestDoctorIsNoEyeInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside atomic.Value // what org-b's endpoint leads to at org-a
		inside.Store("")
		f := New(t, Options{Resolve: map[int]transport.Resolver{0: func(_ context.Context, e string) ([]net.Addr, error) {
			at := inside.Load().(string)
			switch {
			case e != address(1).String() || at == "":
				at = e
			case at == "nothing":
				return nil, &net.DNSError{Err: "no such host", Name: e, Server: "10.9.9.9:53", IsNotFound: true}
			}
			a, err := net.ResolveUDPAddr("udp", at)
			return []net.Addr{a}, err
		}}})
		b := f.Orgs[1]
		f.wantProblems(b, f.Orgs[0], nil)
		for _, at := range []string{"127.0.0.1:22", "169.254.169.254:80", "nothing"} {
			inside.Store(at)
			d, err := b.Node.Doctor(t.Context(), "org-a")
			f.must(err)
			seen := 0
			for _, x := range d.Findings {
				if x.By != "org-a" || x.About != "org-b" {
					continue
				}
				seen++
				for _, secret := range []string{"127.0.0.1", "169.254", "10.9.9.9", "refused", "came back"} {
					if strings.Contains(x.Text+x.Mend, secret) {
						t.Errorf("of %s, org-b is told: %s: %s", at, x.Check, x.Text)
					}
				}
			}
			if seen == 0 {
				t.Errorf("of %s, nothing is told: %+v", at, d.Findings)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestDoctorDoesNotBelieveEverything has a member that answers nonsense, about others too.
func TestDoctorDoesNotBelieveEverything(t *testing.T) {
	answers := map[string]object{
		"about a third party": {"version": "1", "wire": []int{1}, "log": 1, "seen": 0, "governance": 1, "findings": []object{
			{"check": "disk", "state": "problem", "by": "org-a", "about": "org-c", "text": "x"}}},
		"in no known state": {"version": "1", "wire": []int{1}, "log": 1, "seen": 0, "governance": 1, "findings": []object{
			{"check": "disk", "state": "dead", "by": "org-b", "about": "org-b", "text": "x"}}},
		"below nothing":    {"version": "1", "wire": []int{1}, "log": -1, "seen": 0, "governance": 1, "findings": []object{}},
		"an unknown field": {"verdict": "guilty"},
	}
	var now atomic.Value // the answer
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{1: true}, Handlers: func(o *Org, h *Hostile) {
			h.Handle("doctor", func(ctx context.Context, r *transport.Request) error {
				return r.Reply(ctx, answers[now.Load().(string)], transport.ReplyOptions{}, nil)
			})
		}})
		for name := range answers {
			now.Store(name)
			d, err := f.Orgs[0].Node.Doctor(t.Context(), "org-b")
			f.must(err)
			for _, found := range d.Findings {
				if found.About == "org-c" || found.By == "org-b" {
					t.Errorf("%s: believed: %+v", name, found)
				}
			}
			if p := d.Problems(); len(p) != 1 || p[0].Check != node.CheckVersion {
				t.Errorf("%s: problems %+v", name, p)
			}
		}
	})
}

// TestStatusNamesWhoIsAway has a member leave and come back, while the other wants something of it.
func TestStatusNamesWhoIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2})
		a, b := f.Orgs[0], f.Orgs[1]
		status := func() node.Status {
			st, err := a.Node.Status()
			f.must(err)
			return st
		}
		f.Wait("org-b", func() bool { return status().Peers[0].Lane == transport.LaneQUIC })
		time.Sleep(5 * time.Second)
		if st := status(); len(st.Alarms) != 0 || st.Peers[0].RTT == 0 || st.Peers[0].Shown == 0 || st.Peers[0].Since.IsZero() {
			t.Errorf("%+v %+v", st.Alarms, st.Peers)
		}
		f.must(b.Stop())
		_, err := a.Node.Renew(context.Background(), "tester", true, false)
		f.must(err)
		f.Wait("the alarm", func() bool {
			st := status()
			return st.Peers[0].Lane == "" && slices.ContainsFunc(st.Alarms, func(f node.Finding) bool { return f.Mend == "fednode doctor org-b" })
		})
		b.Start()
		f.Wait("org-b again", func() bool { st := status(); return len(st.Alarms) == 0 && st.Peers[0].Lane != "" })
		if _, err := b.Node.ProposeCharter(context.Background(), "tester", "charter.yaml", []byte(hastyCharter)); err != nil {
			t.Fatal(err)
		}
		f.Wait("the task", func() bool {
			tasks := status().Tasks
			return len(tasks) == 1 && tasks[0].Kind == "charter" && tasks[0].Command == "fednode charter approve"
		})
	})
}
