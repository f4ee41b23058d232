package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fednode/flow"
	"fednode/ui"
)

func (a *app) flow() *cobra.Command {
	c := &cobra.Command{Use: "flow", Short: "Agree on workflows, run them, approve and watch",
		Long: "Workflows cross organisations. Their definition is proposed by its initiator, signed by every participant, and then\nin force: an agreement. Runs take a document through its steps."}
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

func (a *app) flowRun() *cobra.Command {
	var inputs []string
	var watch bool
	var in flow.Input
	var priority string
	c := &cobra.Command{Use: "run WORKFLOW --input FILE", Short: "Run a workflow in force over a document",
		Long: "WORKFLOW is the name of a workflow in force, or the hash of its agreement (or the beginning of it).",
		Example: `  fednode flow run cross-org-document-processing --input lease.pdf --watch
  fednode flow run 9c1e52d07a41 --input a.pdf --input b.pdf --priority high`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeAgreements,
		RunE: func(c *cobra.Command, args []string) error {
			if len(inputs) == 0 {
				return misusef("--input FILE is missing")
			}
			var runs []*flow.Run
			var errs []error
			for _, file := range inputs {
				run, err := a.startRun(c.Context(), args[0], file, in, priority)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", file, err))
					continue
				}
				if a.output == "table" {
					fmt.Fprintf(a.out, "%s  %s\n", run.ID, clean(run.Label))
				}
				if watch {
					if run, err = a.follow(c.Context(), run.ID); err != nil {
						errs = append(errs, fmt.Errorf("%s: %w", file, err))
					}
				}
				runs = append(runs, run)
			}
			if a.output == "json" {
				if err := a.print(runs, nil); err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		}}
	c.Flags().StringArrayVarP(&inputs, "input", "i", nil, "document to run over; may be given several times")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "follow each run to its end")
	c.Flags().StringVar(&in.Type, "type", "document", "data type of the input")
	c.Flags().StringVar(&priority, "priority", "normal", "low, normal or high")
	_ = c.MarkFlagFilename("input")
	return c
}

func (a *app) startRun(ctx context.Context, workflow, file string, in flow.Input, priority string) (*flow.Run, error) {
	data, err := readFile(file, flow.MaxArtifact)
	if err != nil {
		return nil, err
	}
	in.Name, in.Data, in.MediaType = filepath.Base(file), data, mediaType(file)
	return a.client().Start(ctx, workflow, in, priority)
}

// mediaType goes by the file's name; the loader at the executor looks at the content.
func mediaType(file string) string {
	known := map[string]string{".pdf": "application/pdf", ".txt": "text/plain", ".md": "text/markdown", ".eml": "message/rfc822", ".html": "text/html",
		".htm": "text/html", ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document"}
	ext := strings.ToLower(filepath.Ext(file))
	if t := known[ext]; t != "" {
		return t
	}
	if t, _, err := mime.ParseMediaType(mime.TypeByExtension(ext)); err == nil {
		return t
	}
	return "application/octet-stream"
}

// readFile reads a regular file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, misusef("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// follow shows a run's events until it ends and returns it. A run that did not complete is an error.
func (a *app) follow(ctx context.Context, id flow.RunID) (*flow.Run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cl := a.client()
	ended := errors.New("ended")
	err := cl.Watch(ctx, id, func(ev flow.Event) error {
		if ev.Step == "" && flow.State(ev.State).Final() {
			return ended
		}
		if a.output == "table" && ev.Step != "" {
			a.printEvent(ev)
		}
		run, err := cl.Run(ctx, string(id)) // events before the watch began are not seen
		if err == nil && run.State.Final() {
			return ended
		}
		return err
	})
	if err != nil && !errors.Is(err, ended) {
		return nil, err
	}
	run, err := cl.Run(ctx, string(id))
	if err != nil {
		return nil, err
	}
	if a.output == "table" {
		a.printRunLine(run)
	}
	if run.State != flow.StateCompleted {
		return run, fmt.Errorf("run %s %s: %w", run.ID, run.State, run.Error)
	}
	return run, nil
}

func (a *app) printEvent(ev flow.Event) {
	p := a.paint()
	mark := "…"
	switch flow.State(ev.State) {
	case flow.StateCompleted:
		mark = p.good("✓")
	case flow.StateFailed, flow.StateBlocked, flow.StateCancelled:
		mark = p.bad("✗")
	}
	fmt.Fprintf(a.out, "  %s %s@%s %s %s\n", mark, ev.Step, ev.Organization, ev.State, clean(ev.Text))
}

func (a *app) printRunLine(run *flow.Run) {
	p := a.paint()
	done := 0
	for _, s := range run.Steps {
		if s.State == flow.StateCompleted {
			done++
		}
	}
	mark := p.good("✓")
	if run.State != flow.StateCompleted {
		mark = p.bad("✗")
	}
	for _, s := range run.Steps {
		for _, w := range s.Withheld {
			fmt.Fprintf(a.out, "  %s withheld %s %s → %s: %s\n", p.warn("✗"), w.Type, w.From, w.To, w.Reason)
		}
	}
	fmt.Fprintf(a.out, "%s %d/%d %s   proof: fednode audit prove %s\n", mark, done, len(run.Steps), run.State, run.ID)
}

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
					lines = append(lines, []string{string(r.ID), r.Workflow, clean(r.Label), string(r.State), currentStep(r), r.Created})
				}
				rows(w, lines)
				for _, ap := range waiting {
					fmt.Fprintf(w, "\n%s waits for approval of %s until %s: fednode flow approve %s\n", ap.Run, ap.Step, ap.Expires, ap.Run)
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
			lines = append(lines, []string{ag.Hash[:12], ag.Definition.Name, ag.Definition.Version, string(ag.Definition.Initiator()), string(ag.State), signed(ag), ag.Received})
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
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(a.client().Artifact(ctx, h.Run, h.Artifact.ID, f), f.Close()); err != nil {
			return err
		}
		fmt.Fprintln(a.err, name)
	}
	return nil
}

func (a *app) flowWatch() *cobra.Command {
	return &cobra.Command{Use: "watch [RUN]", Short: "Follow the events of a run, or of all runs, as they happen", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  fednode flow watch\n  fednode flow watch run-5f1c… --output json",
		RunE: func(c *cobra.Command, args []string) error {
			id := flow.RunID("")
			if len(args) == 1 {
				run, err := a.client().Run(c.Context(), args[0])
				if err != nil {
					return err
				}
				id = run.ID
				if run.State.Final() {
					return a.print(run, func(io.Writer) { a.printRunLine(run) })
				}
			}
			err := a.client().Watch(c.Context(), id, func(ev flow.Event) error {
				if a.output == "json" {
					return a.print(ev, nil)
				}
				fmt.Fprintf(a.out, "%s %s %s@%s %s %s\n", ev.Time, ev.Run, ev.Step, ev.Organization, ev.State, clean(ev.Text))
				return nil
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}}
}

func (a *app) flowApprove() *cobra.Command {
	var reject bool
	var reason string
	c := &cobra.Command{Use: "approve RUN", Short: "Approve, or reject, the step of a run that waits for a human here", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeApprovals,
		Example: "  fednode flow approve run-5f1c…\n  fednode flow approve run-5f1c… --reject --reason \"liability is unlimited\"",
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
