package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/ui"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the node at a glance", Args: cobra.NoArgs,
		Long:    "One screen: federation, members, ledger, agreements, runs and what waits for you. Exits 1 if the node is unhealthy.",
		Example: "  fednode status\n  fednode status --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			cl := a.client()
			st, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			if err := a.print(st, func(w io.Writer) { a.printStatus(w, st) }); err != nil {
				return err
			}
			if st.Health.Status != "healthy" {
				return errSilent
			}
			return nil
		}}
}

func (a *app) printStatus(w io.Writer, st ui.Status) {
	p := a.paint()
	health := p.good("✓ healthy")
	if st.Health.Status != "healthy" {
		health = p.bad("✗ " + st.Health.Status)
	}
	fmt.Fprintf(w, "%s (%s) in %s  %s\n", st.Organization, st.Instance, clean(st.Federation), health)
	for _, name := range slices.Sorted(maps.Keys(st.Health.Checks)) {
		if text := st.Health.Checks[name]; text != "ok" {
			fmt.Fprintf(w, "  %s %s: %s\n", p.bad("✗"), name, text)
		}
	}
	rows(w, [][]string{
		{"federation", fmt.Sprintf("%s  %s, chair %s", short(st.FederationID), plural(st.Members, "member"), st.Chair)},
		{"listens", fmt.Sprintf("%s udp, since %s, fednode %s", st.Listen, st.Started.Local().Format(time.DateTime), st.Version)},
		{"certificate", "renewed by itself, valid until " + st.Certificate.Local().Format(time.DateTime)},
		{"ledger", fmt.Sprintf("%d entries, root %s", st.Log.Size, short(st.Log.Root))},
		{"governance", governanceLine(st)},
		{"agreements", counts(st.Agreements)},
		{"runs", counts(st.Runs)},
		{"artifacts", fmt.Sprintf("%d sealed on disk, %d in memory only", st.OnDisk, st.InMemory)},
		{"disk", fmt.Sprintf("%.1f GiB free", float64(st.FreeDisk)/(1<<30))},
	})
	if st.Evidence > 0 {
		fmt.Fprintf(w, "%s evidence that a member's log was rolled back or forked: %s\n", p.bad("✗"), plural(st.Evidence, "piece"))
	}
	if st.Candidates > 0 {
		fmt.Fprintf(w, "%s %d records or charters wait for your approval: fednode members list\n", p.warn("!"), st.Candidates)
	}
	if st.Waiting > 0 {
		fmt.Fprintf(w, "%s %s for your approval: fednode flow list\n", p.warn("!"), waiting(st.Waiting, "step"))
	}
	if n := st.Agreements["pending"]; n > 0 {
		fmt.Fprintf(w, "%s %s for your signature: fednode flow list --agreements\n", p.warn("!"), waiting(n, "agreement"))
	}
}

func waiting(n int, thing string) string {
	if n == 1 {
		return plural(n, thing) + " waits"
	}
	return plural(n, thing) + " wait"
}

func governanceLine(st ui.Status) string {
	g := st.Governance
	line := fmt.Sprintf("%d entries, root %s", g.Size, short(g.Root))
	if !g.Confirmed.IsZero() {
		line += ", confirmed by a quorum " + g.Confirmed.Local().Format(time.DateTime)
	}
	if g.InFlight != "" {
		line += "; a change is " + g.InFlight
	}
	return line
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
