package cli

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"fednode/flow"
	"fednode/ui"
)

func (a *app) flow() *cobra.Command {
	c := &cobra.Command{Use: "flow", Short: "Agree on workflows, run them, approve and watch",
		Long:    "Workflows cross organisations. Their definition is proposed by its initiator, signed by every participant, and then\nin force: an agreement. Runs take a document through its steps.",
		Example: "  fednode flow submit workflow.yaml\n  fednode flow run cross-org-document-processing --input lease.pdf --watch"}
	c.AddCommand(a.flowSubmit(), a.flowAccept(), a.flowWithdraw(), a.flowRun(), a.flowList(), a.flowShow(), a.flowWatch(), a.flowApprove(), a.flowCancel())
	return c
}

func (a *app) flowSubmit() *cobra.Command {
	return &cobra.Command{Use: "submit FILE", Short: "Sign a workflow definition and propose it to its participants",
		Example: "  fednode flow submit workflow.yaml", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			data, err := readFile(args[0], 1<<20)
			if err != nil {
				return err
			}
			reply, err := a.client().Submit(c.Context(), filepath.Base(args[0]), data)
			if err != nil {
				return err
			}
			return a.printAgreement(reply)
		}}
}

func (a *app) printAgreement(reply ui.AgreementReply) error {
	err := a.print(reply, func(w io.Writer) {
		ag, p := reply.Agreement, a.paint()
		mark := p.warn("…")
		switch ag.State {
		case flow.InForce:
			mark = p.good("✓")
		case flow.Withdrawn:
			mark = p.bad("✗")
		}
		fmt.Fprintf(w, "%s agreement %s %s %s, signed %s\n", mark, short(ag.Hash), ag.Definition.Name, ag.State, signed(ag))
		if ag.State == flow.Accepted && !gathers(ag) {
			fmt.Fprintf(w, "  %s gathers the other signatures; see fednode flow list --agreements\n", ag.Definition.Initiator())
			return
		}
		if ag.State == flow.Withdrawn {
			return
		}
		for _, part := range ag.Definition.Participants {
			if _, ok := ag.Acceptances[part.ID]; !ok {
				fmt.Fprintf(w, "  %s has yet to sign: fednode flow accept %s\n", part.ID, ag.Hash[:12])
			}
		}
	})
	if err == nil && reply.Warning != "" {
		fmt.Fprintln(a.err, "warning:", clean(reply.Warning))
	}
	return err
}

// gathers reports whether this node collects the agreement's signatures, or has been given all of them: others than the
// initiator hold only their own until then.
func gathers(ag *flow.Agreement) bool {
	_, ok := ag.Acceptances[ag.Definition.Initiator()]
	return ok
}

// signed says who has signed, as far as this node knows.
func signed(ag *flow.Agreement) string {
	n, of := ag.Signed()
	switch {
	case gathers(ag):
		return fmt.Sprintf("%d/%d", n, of)
	case n > 0:
		return "here"
	}
	return "not here"
}

func (a *app) flowAccept() *cobra.Command {
	var review bool
	c := &cobra.Command{Use: "accept HASH", Short: "Show what a proposed workflow would do here, and sign it",
		Long:    "Shows what leaves this organisation, what enters it and what is kept, and signs the definition.\nWith --review it shows only.",
		Example: "  fednode flow accept 9c1e52d07a41 --review\n  fednode flow accept 9c1e52d07a41", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeAgreements,
		RunE: func(c *cobra.Command, args []string) error {
			cl := a.client()
			ag, err := cl.Agreement(c.Context(), args[0])
			if err != nil {
				return err
			}
			r, err := cl.Review(c.Context(), ag.Hash)
			if err != nil {
				return err
			}
			if review {
				return a.print(r, func(w io.Writer) { printReview(w, ag, r) })
			}
			if a.output == "table" {
				printReview(a.out, ag, r)
			}
			reply, err := cl.Accept(c.Context(), ag.Hash)
			if err != nil {
				return err
			}
			return a.printAgreement(reply)
		}}
	c.Flags().BoolVar(&review, "review", false, "show only, do not sign")
	return c
}

func printReview(w io.Writer, ag *flow.Agreement, r flow.Review) {
	fmt.Fprintf(w, "agreement %s: %s %s, proposed by %s\n", short(ag.Hash), ag.Definition.Name, ag.Definition.Version, ag.Definition.Initiator())
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			lines = []string{"nothing"}
		}
		for i, l := range lines {
			if i > 0 {
				title = ""
			}
			fmt.Fprintf(w, "  %-8s %s\n", title, l)
		}
	}
	list("runs", r.Runs)
	list("leaves", r.Leaves)
	list("enters", r.Enters)
	list("kept", r.Kept)
	if len(r.Services) > 0 {
		list("services", r.Services)
	}
}

func (a *app) flowWithdraw() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "withdraw HASH", Short: "Take this organisation's signature back; whatever rests on it is denied from now on",
		Example: `  fednode flow withdraw 9c1e52d07a41 --reason "contract ended"`, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeAgreements,
		RunE: func(c *cobra.Command, args []string) error {
			reply, err := a.client().Withdraw(c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return a.printAgreement(reply)
		}}
	c.Flags().StringVar(&reason, "reason", "", "told to the other participants")
	return c
}

func (a *app) flowApprove() *cobra.Command {
	var reject bool
	var reason string
	c := &cobra.Command{Use: "approve RUN", Short: "Approve, or reject, the step of a run that waits for a human here", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeApprovals,
		Example: "  fednode flow show run-5f1c… --save ./review   # read what there is to decide on\n  fednode flow approve run-5f1c…\n  fednode flow approve run-5f1c… --reject --reason \"liability is unlimited\"",
		RunE: func(c *cobra.Command, args []string) error {
			ap, err := a.client().Verdict(c.Context(), args[0], !reject, reason)
			if err != nil {
				return err
			}
			return a.print(ap, func(w io.Writer) {
				word := a.paint().good("✓ approved")
				if reject {
					word = a.paint().bad("✗ rejected")
				}
				fmt.Fprintf(w, "%s %s of %s\n", word, ap.Step, ap.Run)
			})
		}}
	c.Flags().BoolVar(&reject, "reject", false, "reject instead; the run fails")
	c.Flags().StringVar(&reason, "reason", "", "why; kept with the run")
	return c
}

func (a *app) flowCancel() *cobra.Command {
	return &cobra.Command{Use: "cancel RUN", Short: "Stop a run that this organisation initiated", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  fednode flow cancel run-5f1c…",
		RunE: func(c *cobra.Command, args []string) error {
			run, err := a.client().Cancel(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(run, func(w io.Writer) { fmt.Fprintf(w, "%s is being cancelled\n", run.ID) })
		}}
}

func (a *app) completeAgreements(c *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	all, _ := a.client().Agreements(c.Context())
	for _, ag := range all {
		out = append(out, ag.Hash[:12]+"\t"+ag.Definition.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeRuns(c *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	all, _ := a.client().Runs(c.Context())
	for _, r := range all {
		out = append(out, string(r.ID)+"\t"+clean(r.Label))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeApprovals(c *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	all, _ := a.client().Approvals(c.Context())
	for _, ap := range all {
		out = append(out, string(ap.Run)+"\t"+ap.Step)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
