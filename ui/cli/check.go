package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fednode/node/config"
)

func (a *app) check() *cobra.Command {
	return &cobra.Command{Use: "check FILE...", Short: "Check configuration files, offline",
		Long: `Recognises by content each of the eleven configuration kinds, the reference message, and a node's own node.yaml and
policy.yaml; validates the structure to the last key, and names every field that this version does not enforce yet.
Exits 0 if there are only warnings.`,
		Example: "  fednode check workflow.yaml\n  fednode check /var/lib/fednode/node.yaml\n  fednode check *.yaml --output json", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			reports := []*config.Report{}
			failed := false
			for _, name := range args {
				r, err := checkFile(name)
				if err != nil {
					failed = true
					fmt.Fprintln(a.err, "fednode:", cleanLines(err.Error()))
					continue
				}
				failed = failed || r.Failed()
				reports = append(reports, r)
			}
			err := a.print(reports, func(w io.Writer) {
				for _, r := range reports {
					a.printReport(w, r)
				}
			})
			if err == nil && failed {
				return errSilent
			}
			return err
		}}
}

func checkFile(name string) (*config.Report, error) {
	data, err := readFile(name, 1<<20)
	if err != nil {
		return nil, err
	}
	return config.Check(name, data, config.Env{FS: os.DirFS(filepath.Dir(name))})
}

func (a *app) printReport(w io.Writer, r *config.Report) {
	p := a.paint()
	warnings := 0
	for _, f := range r.Findings {
		mark := p.warn("warning")
		if f.Severity == config.SeverityError {
			mark = p.bad("error")
		} else {
			warnings++
		}
		fmt.Fprintf(w, "%s:%d:%d: %s: %s: %s", r.Name, f.Line, f.Col, mark, f.Path, f.Text)
		if f.Mend != "" {
			fmt.Fprintf(w, "; %s", f.Mend)
		}
		fmt.Fprintln(w)
	}
	if !r.Failed() {
		fmt.Fprintf(w, "%s %s: %s, %s, %s\n", p.good("✓"), r.Name, r.Kind, plural(r.Fields, "field"), plural(warnings, "warning"))
	}
}

func (a *app) apply() *cobra.Command {
	return &cobra.Command{Use: "apply FILE", Short: "Put a configuration file into force, whole or not at all", Args: cobra.ExactArgs(1),
		Long: `Honours every field of the file or refuses all of it, naming each field that this version cannot honour. A workflow is
submitted (see fednode flow submit); a governance policy and a policy.yaml take effect at once and survive a restart.`,
		Example: "  fednode apply governance-policy.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			data, err := readFile(args[0], 1<<20)
			if err != nil {
				return err
			}
			r, err := a.client().Apply(c.Context(), filepath.Base(args[0]), data)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s %s: %s\n", a.paint().good("✓"), args[0], r.Text) })
		}}
}
