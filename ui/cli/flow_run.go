package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fednode/flow"
)

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
					if run, err = a.follow(c.Context(), run.ID, a.showStep); err != nil {
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
func (a *app) follow(ctx context.Context, id flow.RunID, show func(flow.Event) error) (*flow.Run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cl := a.client()
	ended := errors.New("ended")
	var last flow.Event
	err := cl.Watch(ctx, id, func(ev flow.Event) error {
		same := last
		same.Time = ev.Time
		if same == ev { // of a step that this organisation asks for and does, too
			return nil
		}
		last = ev
		if err := show(ev); err != nil {
			return err
		}
		if ev.Step == "" && flow.State(ev.State).Final() {
			return ended
		}
		return nil
	})
	if err == nil {
		err = fmt.Errorf("the node stopped before run %s ended; once it runs again: fednode flow watch %s", id, id)
	}
	if !errors.Is(err, ended) {
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
		return run, fmt.Errorf("run %s %s", run.ID, ending(run))
	}
	return run, nil
}

// ending says how a run ended and, if it wasn't completed, why.
func ending(run *flow.Run) string {
	switch e := run.Error; {
	case e == nil:
		return string(run.State)
	case e.Code == string(run.State):
		return e.Error()
	}
	return string(run.State) + ": " + run.Error.Error()
}

// showStep shows what happens to the steps of the one run that is followed.
func (a *app) showStep(ev flow.Event) error {
	if a.output == "table" && ev.Step != "" {
		a.printEvent(ev)
	}
	return nil
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

func (a *app) flowWatch() *cobra.Command {
	return &cobra.Command{Use: "watch [RUN]", Short: "Follow a run to its end, or the events of all runs as they happen", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeRuns,
		Long:    "Follows a run that this organisation initiated; exits 1 if it ends without being completed. Without RUN, follows\neverything that happens here until interrupted. As JSON, one event a line.",
		Example: "  fednode flow watch\n  fednode flow watch run-5f1c… --output json",
		RunE: func(c *cobra.Command, args []string) error {
			show := a.showStep
			if a.output == "json" {
				show = func(ev flow.Event) error { return json.NewEncoder(a.out).Encode(ev) }
			}
			if len(args) == 1 {
				run, err := a.client().Run(c.Context(), args[0])
				if err != nil {
					return err
				}
				if a.output == "table" {
					a.printSoFar(run)
				}
				_, err = a.follow(c.Context(), run.ID, show)
				return err
			}
			if a.output == "table" {
				show = a.showAny
			}
			err := a.client().Watch(c.Context(), "", show)
			if errors.Is(err, context.Canceled) { // how one leaves it
				return nil
			}
			return err
		}}
}

// printSoFar shows where the steps of a run stand before it is followed.
func (a *app) printSoFar(run *flow.Run) {
	for _, s := range run.Steps {
		if s.State == flow.StatePending {
			continue
		}
		ev := flow.Event{Run: run.ID, Step: s.ID, Organization: string(s.Organization), State: string(s.State)}
		if s.Error != nil {
			ev.Text = s.Error.Error()
		}
		a.printEvent(ev)
	}
}

// showAny shows an event of whatever run.
func (a *app) showAny(ev flow.Event) error {
	what := string(ev.Run)
	if ev.Step != "" {
		what += fmt.Sprintf(" %s@%s", ev.Step, ev.Organization)
	}
	fmt.Fprintf(a.out, "%s %s %s %s\n", when(ev.Time), what, ev.State, clean(ev.Text))
	return nil
}
