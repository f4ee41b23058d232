package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fednode/flow"
	"fednode/hsm/durable"
	"fednode/ui"
)

func (a *app) flowList() *cobra.Command {
	var agreements bool
	c := &cobra.Command{Use: "list", Short: "List runs, steps that wait for approval and, with --agreements, workflows", Args: cobra.NoArgs,
		Example: "  fednode flow list\n  fednode flow list --agreements --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			cl := a.client()
			if agreements {
				return a.listAgreements(c.Context(), cl)
			}
			runs, err := cl.Runs(c.Context())
			if err != nil {
				return err
			}
			waiting, err := cl.Approvals(c.Context())
			if err != nil {
				return err
			}
			return a.print(map[string]any{"runs": runs, "approvals": waiting}, func(w io.Writer) {
				lines := [][]string{{"RUN", "WORKFLOW", "INPUT", "STATE", "STEP", "CREATED"}}
				for _, r := range runs {
					lines = append(lines, []string{string(r.ID), r.Workflow, clean(r.Label), string(r.State), currentStep(r), when(r.Created)})
				}
				rows(w, lines)
				for _, ap := range waiting {
					fmt.Fprintf(w, "\n%s waits for approval of %s until %s: fednode flow approve %s\n", ap.Run, ap.Step, when(ap.Expires), ap.Run)
				}
			})
		}}
	c.Flags().BoolVar(&agreements, "agreements", false, "list agreements instead of runs")
	return c
}

func currentStep(r *flow.Run) string {
	for i, s := range r.Steps {
		if s.State != flow.StateCompleted {
			return fmt.Sprintf("%d/%d %s", i, len(r.Steps), s.ID)
		}
	}
	return fmt.Sprintf("%d/%d", len(r.Steps), len(r.Steps))
}

func (a *app) listAgreements(ctx context.Context, cl *ui.Client) error {
	all, err := cl.Agreements(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		lines := [][]string{{"AGREEMENT", "WORKFLOW", "VERSION", "INITIATOR", "STATE", "SIGNED", "RECEIVED"}}
		for _, ag := range all {
			lines = append(lines, []string{ag.Hash[:12], ag.Definition.Name, ag.Definition.Version, string(ag.Definition.Initiator()), string(ag.State), signed(ag), when(ag.Received)})
		}
		rows(w, lines)
	})
}

func (a *app) flowShow() *cobra.Command {
	var save string
	c := &cobra.Command{Use: "show RUN", Short: "Show a run's steps, artifacts and what was withheld", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Long:    "On the initiator, shows the run. On any participant, shows the steps executed there and the artifacts it has or had.\nWith --save DIR, writes the artifacts held here to files.",
		Example: "  fednode flow show run-5f1c…\n  fednode flow show run-5f1c… --save ./out",
		RunE: func(c *cobra.Command, args []string) error {
			v, err := a.runView(c.Context(), args[0])
			if err != nil {
				return err
			}
			if save != "" {
				if err := a.saveArtifacts(c.Context(), v, save); err != nil {
					return err
				}
			}
			return a.print(v, func(w io.Writer) { a.printRunView(w, v) })
		}}
	c.Flags().StringVar(&save, "save", "", "write the artifacts held here to this directory")
	_ = c.MarkFlagDirname("save")
	return c
}

// runView is what this organisation may see of a run.
type runView struct {
	Run        *flow.Run        `json:"run,omitempty"` // at the initiator
	Executions []flow.Execution `json:"executions,omitempty"`
	Holdings   []flow.Holding   `json:"holdings"`
}

func (a *app) runView(ctx context.Context, id string) (v runView, err error) {
	cl := a.client()
	v.Run, err = cl.Run(ctx, id)
	var p *ui.Problem
	if err != nil && !(errors.As(err, &p) && p.Code == "not-found") {
		return v, err
	}
	missing := err
	run := flow.RunID(id)
	if v.Run != nil {
		run = v.Run.ID
	}
	if v.Executions, err = cl.Executions(ctx, run); err != nil {
		return v, err
	}
	if v.Holdings, err = cl.Holdings(ctx, run); err != nil {
		return v, err
	}
	if v.Run == nil && len(v.Executions) == 0 && len(v.Holdings) == 0 {
		return v, missing
	}
	return v, nil
}

func (a *app) printRunView(w io.Writer, v runView) {
	if r := v.Run; r != nil {
		fmt.Fprintf(w, "run %s of %s (agreement %s), input %s, %s\n", r.ID, r.Workflow, short(r.Agreement), clean(r.Label), r.State)
		lines := [][]string{{"STEP", "ORGANISATION", "AGENT", "STATE", "ATTEMPT", "RESULT"}}
		for _, s := range r.Steps {
			result := s.Headline
			if s.Error != nil {
				result = s.Error.Error()
			}
			lines = append(lines, []string{s.ID, string(s.Organization), s.Agent, string(s.State), fmt.Sprint(s.Attempt), clean(result)})
		}
		rows(w, lines)
		for _, s := range r.Steps {
			for _, x := range s.Withheld {
				fmt.Fprintf(w, "withheld %s %s → %s: %s\n", x.Type, x.From, x.To, x.Reason)
			}
		}
	}
	if len(v.Executions) > 0 {
		lines := [][]string{{"EXECUTED STEP", "FOR", "ATTEMPT", "STATE", "RESULT"}}
		for _, x := range v.Executions {
			result := x.Headline
			if x.Error != nil {
				result = x.Error.Error()
			}
			lines = append(lines, []string{x.Step, string(x.Initiator), fmt.Sprint(x.Attempt), x.State, clean(result)})
		}
		rows(w, lines)
	}
	lines := [][]string{{"ARTIFACT", "TYPE", "SIZE", "HERE BECAUSE", "WHERE", "RESTRICTIONS"}}
	for _, h := range v.Holdings {
		lines = append(lines, []string{h.Artifact.ID, h.Artifact.Type, fmt.Sprint(h.Artifact.Size), h.How, h.Where, strings.Join(h.Artifact.Restrictions, " ")})
	}
	rows(w, lines)
}

func (a *app) saveArtifacts(ctx context.Context, v runView, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, h := range v.Holdings {
		if h.Where == flow.Released {
			continue
		}
		name := filepath.Join(dir, h.Artifact.Type+"-"+h.Artifact.ID)
		if err := durable.CreateWith(name, 0o600, func(w io.Writer) error { return a.client().Artifact(ctx, h.Run, h.Artifact.ID, w) }); err != nil {
			return err
		}
		fmt.Fprintln(a.err, name)
	}
	return nil
}
