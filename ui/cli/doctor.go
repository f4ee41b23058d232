package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"fednode/node"
	"fednode/transport"
	"fednode/ui"
)

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{Use: "doctor [ORG]", Short: "Find out what is wrong, here and on the way to members, and how to mend it", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeMembers,
		Long: `Looks at this node (certificate, governance log, own log, endpoints, disk) and at the way to a member, or to all: name
resolution, both lanes, clock, certificate, version, governance log. Each member is asked to look back, so that the
findings are from both ends. What is wrong is shown with how to mend it. Where no node runs, its directory is looked at.
Exits 1 if there is a problem.`,
		Example: "  fednode doctor\n  fednode doctor org-b\n  fednode doctor org-b --output json",
		RunE: func(c *cobra.Command, args []string) error {
			orgs := make([]transport.OrgID, len(args))
			for i, arg := range args {
				orgs[i] = transport.OrgID(arg)
			}
			d, err := a.client().Doctor(c.Context(), orgs...)
			var p *ui.Problem
			if errors.As(err, &p) && p.Code == "unavailable" {
				offline, offlineErr := node.DoctorOffline(c.Context(), a.dir, time.Now())
				if offlineErr == nil {
					d, err = offline, nil
				}
			}
			if err != nil {
				return err
			}
			if err := a.print(d, func(w io.Writer) { a.printDiagnosis(w, d) }); err != nil {
				return err
			}
			if len(d.Problems()) > 0 {
				return errSilent
			}
			return nil
		}}
}

func (a *app) printDiagnosis(w io.Writer, d node.Diagnosis) {
	p := a.paint()
	marks := map[string]string{node.FindingOK: p.good("✓"), node.FindingWarning: p.warn("!"), node.FindingProblem: p.bad("✗"), node.FindingSkipped: p.dim("-")}
	var heading string
	for _, f := range d.Findings {
		h := fmt.Sprintf("%s → %s, as %s sees it", f.By, f.About, f.By)
		switch {
		case f.By == f.About && f.By == d.Organization:
			h = fmt.Sprintf("%s, this node", f.By)
		case f.By == f.About:
			h = fmt.Sprintf("%s, by its own word", f.By)
		}
		if h != heading {
			fmt.Fprintln(w, h)
			heading = h
		}
		fmt.Fprintf(w, "  %s %-11s  %s\n", marks[f.State], clean(f.Check), clean(f.Text))
		if f.Mend != "" {
			fmt.Fprintf(w, "    %-11s  → %s\n", "", clean(f.Mend))
		}
	}
	if n := len(d.Problems()); n > 0 {
		fmt.Fprintf(w, "%s %s\n", p.bad("✗"), plural(n, "problem"))
	} else {
		fmt.Fprintf(w, "%s no problems\n", p.good("✓"))
	}
}
