package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/node"
	"fednode/ui"
)

// watchEvery is how often a status that is watched is asked for.
const watchEvery = 2 * time.Second

func (a *app) status() *cobra.Command {
	var watch bool
	c := &cobra.Command{Use: "status", Short: "Show the node at a glance", Args: cobra.NoArgs,
		Long: `One screen: what is wrong and how to mend it, what waits for you, the members and how they are reached, runs, ledger and
governance. Exits 1 if the node is unhealthy. With --watch it stays and shows the newest every two seconds, also over
restarts of the node, until interrupted: on a terminal in place, else block after block, with --output json one object a
line.`,
		Example: "  fednode status\n  fednode status --watch\n  fednode status --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			cl := a.client()
			if watch {
				a.watchStatus(c.Context(), cl.Status)
				return nil
			}
			st, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			if err := a.print(st, func(w io.Writer) { a.printStatus(w, st, time.Now()) }); err != nil {
				return err
			}
			if st.Health.Status != "healthy" {
				return errSilent
			}
			return nil
		}}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "stay, and show the newest every two seconds")
	return c
}

// printStatus shows a status as of now.
func (a *app) printStatus(w io.Writer, st ui.Status, now time.Time) {
	p := a.paint()
	health := p.good("✓ healthy")
	if st.Health.Status != "healthy" {
		health = p.bad("✗ " + st.Health.Status)
	}
	fmt.Fprintf(w, "%s (%s) in %s  %s\n", st.Organization, st.Instance, clean(st.Federation), health)
	for _, name := range slices.Sorted(maps.Keys(st.Health.Checks)) {
		alarmed := slices.ContainsFunc(st.Alarms, func(f node.Finding) bool { return f.Check == name })
		if text := st.Health.Checks[name]; text != "ok" && !alarmed {
			fmt.Fprintf(w, "%s %s: %s\n", p.bad("✗"), name, text)
		}
	}
	for _, f := range st.Alarms {
		mark := p.bad("✗")
		if f.State != node.FindingProblem {
			mark = p.warn("!")
		}
		fmt.Fprintf(w, "%s %s: %s\n    → %s\n", mark, f.Check, clean(f.Text), clean(f.Mend))
	}
	a.printTasks(w, st.Tasks)
	a.printPeers(w, st.Peers, now)
	rows(w, [][]string{
		{"runs", counts(st.Runs)},
		{"agreements", counts(st.Agreements)},
		{"artifacts", fmt.Sprintf("%d sealed on disk, %d in memory only", st.OnDisk, st.InMemory)},
		{"ledger", ledgerLine(st)},
		{"governance", governanceLine(st, now)},
		{"federation", fmt.Sprintf("%s  %s, chair %s", short(st.FederationID), plural(st.Members, "member"), st.Chair)},
		{"certificate", fmt.Sprintf("renewed by itself, valid for %s, until %s", span(st.Certificate.Sub(now)), st.Certificate.Local().Format(time.DateTime))},
		{"listens", fmt.Sprintf("%s udp and tcp, up %s, fednode %s", st.Listen, span(now.Sub(st.Started)), st.Version)},
		{"disk", room(st.FreeDisk) + " free"},
	})
}

// printTasks names what waits for a human: the command where there is one thing of a kind, a list where there are more.
func (a *app) printTasks(w io.Writer, tasks []node.Task) {
	p := a.paint()
	for _, k := range []struct{ kind, what, list string }{
		{"step", "approval", "fednode flow list"},
		{"agreement", "signature", "fednode flow list --agreements"},
		{"record", "approval", "fednode members list"},
		{"charter", "approval", "fednode members list"},
	} {
		of := slices.Collect(func(yield func(node.Task) bool) {
			for _, t := range tasks {
				if t.Kind == k.kind && !yield(t) {
					return
				}
			}
		})
		switch {
		case len(of) == 1:
			fmt.Fprintf(w, "%s %s for your %s (%s): %s\n", p.warn("!"), waiting(1, k.kind), k.what, clean(of[0].Text), clean(of[0].Command))
		case len(of) > 1:
			fmt.Fprintf(w, "%s %s for your %s: %s\n", p.warn("!"), waiting(len(of), k.kind), k.what, k.list)
		}
	}
}

func waiting(n int, thing string) string {
	if n == 1 {
		return plural(n, thing) + " waits"
	}
	return plural(n, thing) + " wait"
}

// printPeers shows how the other members are reached.
func (a *app) printPeers(w io.Writer, peers []node.Peer, now time.Time) {
	if len(peers) == 0 {
		return
	}
	lines := [][]string{{"MEMBER", "LANE", "RTT", "REACHED", "OUR LOG", "ITS LOG"}}
	for _, p := range peers {
		lane, rtt, reached := "-", "-", "not since the start"
		switch {
		case p.Suspended:
			reached = "suspended here"
		case p.Lane != "":
			lane, reached = string(p.Lane), "now, for "+span(now.Sub(p.Since))
		case !p.Failed.IsZero():
			reached = "not for " + span(now.Sub(p.Failed))
		case !p.Last.IsZero():
			reached = span(now.Sub(p.Last)) + " ago, idle"
		}
		if lane != "-" && p.RTT > 0 {
			rtt = fmt.Sprintf("%.1f ms", float64(p.RTT)/1e6)
		}
		name := string(p.ID)
		if p.Chair {
			name += " (chair)"
		}
		lines = append(lines, []string{name, lane, rtt, reached, fmt.Sprintf("has seen %d", p.Shown), fmt.Sprintf("%d seen", p.Seen)})
	}
	rows(w, lines)
}

// ledgerLine says how much of the own log others have seen.
func ledgerLine(st ui.Status) string {
	seen := int64(0)
	for _, p := range st.Peers {
		seen = max(seen, p.Shown)
	}
	line := entries(st.Log.Size)
	if len(st.Peers) > 0 {
		line += fmt.Sprintf(", %d observed by others", seen)
	}
	return line + ", root " + short(st.Log.Root)
}

func governanceLine(st ui.Status, now time.Time) string {
	g := st.Governance
	line := fmt.Sprintf("%s, cosigned %d/%d, root %s", entries(g.Size), g.Cosigned, st.Members, short(g.Root))
	if !g.Confirmed.IsZero() {
		line += fmt.Sprintf(", confirmed by a quorum %s ago", span(now.Sub(g.Confirmed)))
	}
	if g.InFlight != "" {
		line += "; a change is " + g.InFlight
	}
	return line
}

// span shows a duration in its two largest units at most.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// room shows a number of bytes.
func room(n uint64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func counts(m map[string]int) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[state], state))
	}
	return strings.Join(parts, ", ")
}

// watchStatus shows one status after the other until ctx ends. A node that is away is said to be.
func (a *app) watchStatus(ctx context.Context, fetch func(context.Context) (ui.Status, error)) {
	s := newScreen(a)
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		st, err := fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		switch {
		case a.output == "json" && err != nil:
			s.line(struct {
				Time  time.Time `json:"time"`
				Error string    `json:"error"`
			}{now, err.Error()})
		case a.output == "json":
			s.line(st)
		default:
			s.show(func(w io.Writer) {
				fmt.Fprintln(w, a.paint().dim(now.Local().Format(time.DateTime)))
				if err != nil {
					fmt.Fprintf(w, "%s %s\n", a.paint().bad("✗"), err)
					return
				}
				a.printStatus(w, st, now)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
