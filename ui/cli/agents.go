package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fednode/flow/agent/builtin"
	"fednode/hsm/durable"
)

func (a *app) agents() *cobra.Command {
	c := &cobra.Command{Use: "agents", Short: "List agents, train the classifier on your own documents",
		Example: "  fednode agents list\n  fednode agents train ./labelled --model classifier.model"}
	c.AddCommand(a.agentsList(), a.agentsTrain())
	return c
}

func (a *app) agentsList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the node's agents and the data types that they take and give", Args: cobra.NoArgs,
		Example: "  fednode agents list",
		RunE: func(c *cobra.Command, _ []string) error {
			specs, err := a.client().Agents(c.Context())
			if err != nil {
				return err
			}
			return a.print(specs, func(w io.Writer) {
				lines := [][]string{{"AGENT", "KIND", "NEEDS", "USES", "MAKES"}}
				for _, s := range specs {
					lines = append(lines, []string{s.Name, s.Kind, strings.Join(s.Inputs, " "), strings.Join(s.Optional, " "), strings.Join(s.Outputs, " ")})
				}
				rows(w, lines)
			})
		}}
}

func (a *app) agentsTrain() *cobra.Command {
	var out string
	c := &cobra.Command{Use: "train DIR", Short: "Train the document classifier on your own documents", Args: cobra.ExactArgs(1),
		Long: `DIR holds one folder for each class, and in it that class's documents (PDF, DOCX, TXT, MD, EML, HTML).
The accuracy is estimated by cross-validation on your documents. Name the model in node.yaml:

  agents:
    document-classifier: {kind: builtin, builtin: classifier, model: classifier.model}`,
		Example: "  fednode agents train ./labelled --model classifier.model",
		RunE: func(c *cobra.Command, args []string) error {
			if st, err := os.Stat(args[0]); err != nil {
				return err
			} else if !st.IsDir() {
				return misusef("%s is not a directory", args[0])
			}
			model, report, err := builtin.Train(os.DirFS(args[0]))
			if err != nil {
				return err
			}
			data, err := model.MarshalBinary()
			if err != nil {
				return err
			}
			if err := replace(out, data); err != nil {
				return err
			}
			return a.print(report, func(w io.Writer) {
				fmt.Fprint(w, report)
				fmt.Fprintf(w, "model written to %s\n", out)
			})
		}}
	c.Flags().StringVar(&out, "model", "classifier.model", "file to write")
	_ = c.MarkFlagFilename("model")
	return c
}

// replace writes a file in place of what was there.
func replace(name string, data []byte) error {
	if st, err := os.Lstat(name); err == nil && !st.Mode().IsRegular() { // a device, say, which the renaming would take away
		return misusef("%s is not a regular file; name another", name)
	}
	return durable.Replace(name, data, 0o644)
}
