package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/node"
	"fednode/transport"
	"fednode/ui"
)

// busy is a status with something of everything.
func busy(now time.Time) ui.Status {
	return ui.Status{Organization: "org-a", Instance: "org-a-1", Federation: "test", FederationID: strings.Repeat("ab", 32), Members: 4, Chair: "org-b",
		Health:  node.Health{Status: "unhealthy", Checks: map[string]string{"serving": "ok", "disk": "10 MiB free; the node needs 64", "certificate": "ok"}},
		Started: now.Add(-time.Hour), Listen: "10.0.0.1:443", Version: "1", Certificate: now.Add(20 * time.Hour), FreeDisk: 10 << 20,
		Log:        node.LogStatus{Size: 120, Root: strings.Repeat("r", 44)},
		Governance: node.GovernanceStatus{LogStatus: node.LogStatus{Size: 7, Root: "r"}, Confirmed: now.Add(-90 * time.Second), Cosigned: 3},
		Runs:       map[string]int{"running": 2, "waiting": 1}, Agreements: map[string]int{"in-force": 1},
		Alarms: []node.Finding{{Check: "disk", State: node.FindingProblem, Text: "10 MiB free; the node needs 64 MiB", Mend: "make room"},
			{Check: "membership", State: node.FindingWarning, Text: "org-d has not been reached for 5m", Mend: "fednode doctor org-d"}},
		Tasks: []node.Task{{Kind: "step", Text: "approve of leases", Command: "fednode flow approve run-5f1c"},
			{Kind: "record", Text: "org-e", Command: "fednode members approve org-e"}, {Kind: "record", Text: "org-f", Command: "fednode members approve org-f"}},
		Peers: []node.Peer{{ID: "org-b", Chair: true, Lane: transport.LaneQUIC, RTT: 11 * time.Millisecond, Since: now.Add(-3 * time.Minute), Reach: transport.Reach{Shown: 118}, Seen: 30},
			{ID: "org-c", Suspended: true}, {ID: "org-d", Reach: transport.Reach{Failed: now.Add(-5 * time.Minute), Error: "x"}},
			{ID: "org-e", Reach: transport.Reach{Last: now.Add(-12 * time.Minute)}}}}
}

func TestStatusIsOneScreen(t *testing.T) {
	now := time.Now()
	var out bytes.Buffer
	a := &app{out: &out, output: "table"}
	a.printStatus(&out, busy(now), now)
	at := 0
	for _, want := range []string{"org-a (org-a-1) in test  ✗ unhealthy\n", "✗ disk: 10 MiB free; the node needs 64 MiB\n    → make room\n", "! membership: org-d has not been reached for 5m\n    → fednode doctor org-d\n",
		"! 1 step waits for your approval (approve of leases): fednode flow approve run-5f1c\n", "! 2 records wait for your approval: fednode members list\n",
		"MEMBER         LANE  RTT      REACHED          OUR LOG       ITS LOG\n", "org-b (chair)  quic  11.0 ms  now, for 3m0s    has seen 118  30 seen\n",
		"org-c          -     -        suspended here", "org-d          -     -        not for 5m0s", "org-e          -     -        12m0s ago, idle",
		"runs         2 running, 1 waiting\n", "120 entries, 118 observed by others", "7 entries, cosigned 3/4, root r, confirmed by a quorum 1m30s ago", "valid for 20h0m", "up 1h0m"} {
		i := strings.Index(out.String()[at:], want)
		if i < 0 {
			t.Errorf("%q is not there, or not in its place:\n%s", want, out.String())
			continue
		}
		at += i
	}
	if n := strings.Count(out.String(), "\n"); n > 24 {
		t.Errorf("%d lines do not fit on a terminal", n)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("escape sequences where there is no terminal")
	}
}

// watchedFor runs a watch for a while, over a node that is away in the middle.
func watchedFor(t *testing.T, a *app, out *bytes.Buffer) {
	t.Helper()
	a.out = out
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.watchStatus(ctx, func(context.Context) (ui.Status, error) {
				if asked++; asked == 2 {
					return ui.Status{}, errors.New("no node is running")
				}
				return busy(time.Now()), nil
			})
		}()
		time.Sleep(2*watchEvery + time.Second)
		cancel()
		<-done
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestStatusIsWatched(t *testing.T) {
	var out bytes.Buffer
	watchedFor(t, &app{output: "table"}, &out)
	blocks := strings.Split(out.String(), "\n\n")
	if len(blocks) != 3 || !strings.Contains(blocks[0], "org-a (org-a-1)") || !strings.Contains(blocks[1], "✗ no node is running") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%d blocks:\n%s", len(blocks), out.String())
	}
	out.Reset()
	watchedFor(t, &app{output: "json"}, &out)
	d := json.NewDecoder(&out)
	for i := range 3 {
		line, err := out.ReadBytes('\n')
		var v struct {
			Organization string `json:"organization_id"`
			Error        string `json:"error"`
		}
		if err == nil {
			err = json.Unmarshal(line, &v)
		}
		if err != nil || (v.Organization == "") != (i == 1) || (v.Error == "") == (i == 1) {
			t.Errorf("line %d: %+v, %v", i, v, err)
		}
	}
	if d.More() {
		t.Error("more than a line a time")
	}
}

// TestScreenRedraws overwrites in place, cuts to the terminal's size, and counts colours as nothing.
func TestScreenRedraws(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, size: func() (int, int) { return 10, 4 }}
	for i := range 2 {
		s.show(func(w io.Writer) { fmt.Fprintf(w, "block %d\n\x1b[31m0123456789\x1b[0m\n0123456789a\nx\ny\n", i) })
	}
	want := "\x1b[2J\x1b[Hblock 0\x1b[K\n\x1b[31m0123456789\x1b[0m\x1b[K\n… (the te…\x1b[K\n\x1b[J" +
		"\x1b[Hblock 1\x1b[K\n\x1b[31m0123456789\x1b[0m\x1b[K\n… (the te…\x1b[K\n\x1b[J"
	if out.String() != want {
		t.Errorf("%q\nwant\n%q", out.String(), want)
	}
	for line, want := range map[string]string{"0123456789": "0123456789", "0123456789a": "012345678…", "\x1b[31m0123456789a\x1b[0m": "\x1b[31m012345678…\x1b[0m", "äöüäöüäöüäö": "äöüäöüäöü…"} {
		if got := cut(line, 10); got != want {
			t.Errorf("%q is cut to %q, want %q", line, got, want)
		}
	}
}
