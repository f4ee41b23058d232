package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fednode/flow/policy"
	"fednode/ui"
)

func (a *app) policy() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Ask the policy why it allows or denies",
		Example: "  fednode policy explain --action run.start --subject org-a --agreement cross-org-document-processing"}
	c.AddCommand(a.policyExplain())
	return c
}

func (a *app) policyExplain() *cobra.Command {
	var q ui.ExplainRequest
	var facts []string
	c := &cobra.Command{Use: "explain", Short: "Evaluate a request against the node's policy, without acting on it", Args: cobra.NoArgs,
		Long: "Prints the decision, every rule that matched, and the obligations. Exits 1 if the decision is deny.",
		Example: `  fednode policy explain --action artifact.share --subject org-b --recipient org-c --category pii-findings --agreement cross-org-document-processing
  fednode policy explain --action step.execute --subject org-a --resource document-classifier --agreement 9c1e52d07a41`,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Action == "" {
				return misusef("--action is missing; the actions are %s", strings.Join(policy.Actions(), ", "))
			}
			if !slices.Contains(policy.Actions(), q.Action) {
				return misusef("--action %q: use one of %s", q.Action, strings.Join(policy.Actions(), ", "))
			}
			if len(facts) > 0 {
				q.Context = map[string]any{}
			}
			for _, f := range facts {
				k, v, ok := strings.Cut(f, "=")
				if !ok {
					return misusef("--context %q: write name=value", f)
				}
				switch v {
				case "true", "false":
					q.Context[k] = v == "true"
				default:
					q.Context[k] = v
				}
			}
			d, err := a.client().Explain(c.Context(), q)
			if err != nil {
				return err
			}
			err = a.print(d, func(w io.Writer) { a.printDecision(w, d) })
			if err == nil && d.Effect != policy.Allow {
				return errSilent
			}
			return err
		}}
	f := c.Flags()
	f.StringVar(&q.Subject, "subject", "", "who asks: an organisation")
	f.StringVar(&q.Action, "action", "", "what for: "+strings.Join(policy.Actions(), ", "))
	f.StringVar(&q.Resource, "resource", "", "on what: an agent, artifact type or workflow")
	f.StringArrayVar(&q.Categories, "category", nil, "data category or type; may be given several times")
	f.StringVar(&q.Purpose, "purpose", "", "processing purpose")
	f.StringVar(&q.Recipient, "recipient", "", "who receives, or runs the step: an organisation (default for steps: this one)")
	f.StringVar(&q.Jurisdiction, "jurisdiction", "", "the recipient's jurisdiction")
	f.StringVar(&q.Agreement, "agreement", "", "agreement it rests on: hash or workflow name")
	f.StringArrayVar(&facts, "context", nil, "a fact as name=value, for example consent=true")
	_ = c.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(policy.Actions(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("agreement", a.completeAgreements)
	return c
}

func (a *app) printDecision(w io.Writer, d policy.Decision) {
	p := a.paint()
	if d.Effect == policy.Allow {
		fmt.Fprintln(w, p.good("allow"))
	} else {
		fmt.Fprintln(w, p.bad("deny"))
	}
	for _, r := range d.Reasons {
		fmt.Fprintf(w, "  %-6s  %s: %s\n", r.Effect, strings.TrimSpace(r.Source+" "+r.Rule), r.Text)
	}
	for _, o := range d.Obligations {
		fmt.Fprintf(w, "  obligation %s %s (%s)\n", o.Name, o.Value, o.Source)
	}
}
