package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fednode/flow"
	"fednode/node"
	"fednode/transport"
)

// stepWords are the demo's short names for its steps' agents.
var stepWords = map[string]string{"document-uploader": "upload", "document-classifier": "classify", "pii-detector": "pii",
	"document-reviewer": "review", "approval-agent": "approve"}

// printRun prints one document's line. What a step found is asked of the organisation that ran it: the initiator isn't
// told.
func (d *demo) printRun(ctx context.Context, run *flow.Run, width int) error {
	doc := demoDocument{Name: run.Label, Run: run.ID, State: run.State, Steps: []demoStep{}}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", width, clean(run.Label))
	for _, s := range run.Steps {
		if s.State == flow.StatePending {
			break
		}
		word := stepWords[s.Agent]
		if word == "" {
			word = s.ID
		}
		headline, err := d.headline(ctx, run.ID, s)
		if err != nil {
			return err
		}
		step := demoStep{ID: s.ID, Organization: s.Organization, Agent: s.Agent, State: s.State, Headline: headline, Automatic: s.Automatic}
		mark := d.paint.good("✓")
		if s.State != flow.StateCompleted {
			reason := string(s.State)
			if s.Error != nil {
				step.Error = s.Error.Error()
				reason += ": " + clean(step.Error)
			}
			mark = d.paint.bad("✗ " + reason)
		}
		fmt.Fprintf(&b, "  %s@%s", word, strings.TrimPrefix(string(s.Organization), "org-"))
		if headline != "" {
			fmt.Fprintf(&b, " %s", clean(headline))
		}
		fmt.Fprintf(&b, " %s", mark)
		if s.Agent == "approval-agent" && s.State == flow.StateCompleted {
			how := " (flow approve, given by the demo)"
			if s.Automatic {
				how = " (automatic)"
			}
			b.WriteString(d.paint.dim(how))
		}
		doc.Steps = append(doc.Steps, step)
	}
	d.result.Documents = append(d.result.Documents, doc)
	fmt.Fprintln(d.text, b.String())
	return nil
}

func (d *demo) headline(ctx context.Context, run flow.RunID, s flow.StepRun) (string, error) {
	if s.Organization == d.orgs[0].id {
		return "", nil
	}
	for _, o := range d.orgs {
		if o.id != s.Organization {
			continue
		}
		all, err := o.client.Executions(ctx, run)
		if err != nil {
			return "", err
		}
		for _, x := range all {
			if x.Step == s.ID && x.Attempt == s.Attempt {
				return x.Headline, nil
			}
		}
	}
	return "", nil
}

// report prints what was withheld and a table of what each organisation saw, by its own account.
func (d *demo) report(ctx context.Context, runs []*flow.Run) error {
	d.result.Withheld = []withheld{}
	for _, r := range runs {
		for _, s := range r.Steps {
			for _, w := range s.Withheld {
				i := slices.IndexFunc(d.result.Withheld, func(x withheld) bool { return x.Withheld == w })
				if i < 0 {
					i = len(d.result.Withheld)
					d.result.Withheld = append(d.result.Withheld, withheld{Withheld: w})
				}
				d.result.Withheld[i].Times++
			}
		}
	}
	for _, w := range d.result.Withheld {
		times := ""
		if w.Times > 1 {
			times = d.paint.dim(fmt.Sprintf(" (%d×)", w.Times))
		}
		fmt.Fprintf(d.text, "%s withheld %s %s → %s: %s%s\n", d.paint.warn("✗"), w.Type, w.From, w.To, w.Reason, times)
	}
	d.result.Saw = map[transport.OrgID]map[string]string{}
	types := []string{"document", "classification", "pii-findings", "review-result"}
	lines := [][]string{append([]string{"        "}, types...)}
	for _, o := range d.orgs {
		holdings, err := o.client.Holdings(ctx, "")
		if err != nil {
			return err
		}
		row := []string{string(o.id)}
		d.result.Saw[o.id] = map[string]string{}
		for _, t := range types {
			word := saw(o.id, holdings, t)
			d.result.Saw[o.id][t] = word
			row = append(row, word)
		}
		lines = append(lines, row)
	}
	rows(d.text, lines)
	return nil
}

// saw sums up in a word what an organisation had of a data type: owner, made, received; for a document received,
// whether the original in memory only, or its redacted version.
func saw(org transport.OrgID, holdings []flow.Holding, t string) string {
	var words []string
	for _, h := range holdings {
		word := ""
		switch {
		case h.Artifact.Type != t:
			continue
		case h.How == flow.Received && t == "document" && h.Artifact.MadeBy != "" && h.Artifact.MadeBy != "document-upload":
			word = "redacted"
		case h.How == flow.Received && t == "document" && h.Where != flow.OnDisk:
			word = "memory"
		case h.How == flow.Made && t == "document":
			continue // its own redacted or checked version
		default:
			word = h.How
		}
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return "never"
	}
	return strings.Join(words, "+")
}

// verify takes every organisation's audit archive from its socket and verifies it offline: the governance log from
// genesis, the own log entry by entry, each receipt, and then the logs against each other's receipts.
func (d *demo) verify(ctx context.Context, dir string) error {
	var archives []*node.Archived
	d.result.Unproven = []string{}
	unproven := func(err error) {
		d.result.Unproven = append(d.result.Unproven, err.Error())
		fmt.Fprintf(d.text, "%s %v\n", d.paint.bad("✗"), err)
	}
	for _, o := range d.orgs {
		ar, report, err := o.audit(ctx, filepath.Join(dir, string(o.id)), d.result.FederationID)
		if err != nil {
			unproven(fmt.Errorf("%s: %w", o.id, err))
			continue
		}
		d.result.Receipts += report.Receipts
		archives = append(archives, ar)
	}
	if err := node.CrossCheck(archives); err != nil {
		unproven(err)
	}
	if d.result.Logs = len(archives); len(d.result.Unproven) == 0 {
		fmt.Fprintf(d.text, "%s %d receipts verified in %d logs%s\n", d.paint.good("✓"), d.result.Receipts, d.result.Logs, d.elapsed(6))
	}
	return nil
}

// audit unpacks the organisation's archive into dir and verifies it.
func (o *demoOrg) audit(ctx context.Context, dir, federation string) (*node.Archived, *node.Verification, error) {
	var buf bytes.Buffer
	if err := o.client.Archive(ctx, &buf); err != nil {
		return nil, nil, err
	}
	if err := node.Unpack(&buf, dir); err != nil {
		return nil, nil, err
	}
	ar, err := node.OpenArchive(os.DirFS(dir), federation)
	if err != nil {
		return nil, nil, err
	}
	report, err := ar.Verify()
	return ar, report, err
}
