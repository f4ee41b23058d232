package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"fednode/flow"
	"fednode/ui"
)

// document is one input of the demo. A file that can't be read has the reason instead of data.
type document struct {
	name string
	data []byte
	err  error
}

// loadDocuments returns the demo's own documents, or the files in dir that are not hidden.
func loadDocuments(dir string) (docs []document, err error) {
	files, err := fs.Sub(demoFiles, "demo/documents")
	if err != nil {
		return nil, err
	}
	if dir != "" {
		if st, err := os.Stat(dir); err != nil {
			return nil, err
		} else if !st.IsDir() {
			return nil, misusef("--documents %s is not a directory", dir)
		}
		files = os.DirFS(dir)
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		st, err := fs.Stat(files, e.Name()) // of what a link leads to
		if strings.HasPrefix(e.Name(), ".") || err == nil && !st.Mode().IsRegular() {
			continue
		}
		doc := document{name: e.Name(), err: err}
		switch {
		case err != nil:
		case st.Size() > flow.MaxArtifact:
			doc.err = fmt.Errorf("%d bytes are too many; at most %d", st.Size(), flow.MaxArtifact)
		default:
			doc.data, doc.err = fs.ReadFile(files, e.Name())
		}
		docs = append(docs, doc)
	}
	if len(docs) == 0 {
		return nil, misusef("no documents in %s", dir)
	}
	return docs, nil
}

// writeDocuments writes the demo's own documents into dir, for whoever wants to run one again, and returns the name of one.
// What is there already stays.
func writeDocuments(dir string, docs []document) (sample string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for _, doc := range docs {
		sample = filepath.Join(dir, doc.name)
		if _, err := os.Lstat(sample); err == nil {
			continue
		}
		if err := os.WriteFile(sample, doc.data, 0o600); err != nil {
			return "", err
		}
	}
	return sample, nil
}

// agree submits the workflow at org-a; the operators of the others sign it with `flow accept`.
func (d *demo) agree(ctx context.Context) (*flow.Agreement, error) {
	text, err := demoFiles.ReadFile("demo/workflow.yaml")
	if err != nil {
		return nil, err
	}
	reply, err := d.orgs[0].client.Submit(ctx, "workflow.yaml", text)
	if err != nil {
		return nil, err
	}
	for _, o := range d.orgs[1:] {
		if _, err := o.client.Accept(ctx, reply.Agreement.Hash); err != nil {
			return nil, fmt.Errorf("%s: %w", o.id, err)
		}
	}
	// The last signature puts it in force at the initiator; the others learn of it from there.
	ag := reply.Agreement
	err = poll(ctx, 5*time.Second, func() (bool, error) {
		for _, o := range slices.Backward(d.orgs) {
			known, err := o.client.Agreement(ctx, ag.Hash)
			if err != nil {
				return false, err
			}
			if ag = known; ag.State != flow.InForce {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("agreement %s is %s: %w", short(ag.Hash), ag.State, err)
	}
	d.result.Agreement = ag.Hash
	n, of := ag.Signed()
	fmt.Fprintf(d.text, "%s agreement %s signed %d/%d\n", d.paint.good("✓"), short(ag.Hash), n, of)
	return ag, nil
}

// poll calls fn every few milliseconds until it is true, fails, or the time is over.
func poll(ctx context.Context, limit time.Duration, fn func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if ok, err := fn(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// process runs the workflow over all documents, a few at a time, and prints each as it ends, in order. A document that
// is refused, or whose run fails, says so on its line and keeps no other from its run.
func (d *demo) process(ctx context.Context, ag *flow.Agreement, docs []document) ([]*flow.Run, error) {
	runs := make([]*flow.Run, len(docs))
	refused := make([]error, len(docs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(1 + 4) // one starts the others
	done := make([]chan struct{}, len(docs))
	for i := range done {
		done[i] = make(chan struct{})
	}
	g.Go(func() error {
		for i, doc := range docs {
			g.Go(func() (err error) {
				defer close(done[i])
				var p *ui.Problem
				runs[i], err = d.take(gctx, ag, doc)
				if gctx.Err() != nil || errors.As(err, &p) && p.Code == "unavailable" {
					return err
				}
				refused[i] = err
				return nil
			})
		}
		return nil
	})
	width := 0
	for _, doc := range docs {
		width = max(width, len(clean(doc.name)))
	}
	for i, doc := range docs {
		select {
		case <-done[i]:
		case <-ctx.Done():
		}
		if ctx.Err() == nil && refused[i] != nil {
			d.result.Documents = append(d.result.Documents, demoDocument{Name: doc.name, State: flow.StateFailed, Error: refused[i].Error(), Steps: []demoStep{}})
			fmt.Fprintf(d.text, "%-*s  %s\n", width, clean(doc.name), d.paint.bad("✗ "+clean(refused[i].Error())))
			continue
		}
		if ctx.Err() != nil || runs[i] == nil || !runs[i].State.Final() {
			break
		}
		if err := d.printRun(ctx, runs[i], width); err != nil {
			return nil, err
		}
	}
	err := g.Wait()
	return slices.DeleteFunc(runs, func(r *flow.Run) bool { return r == nil }), err
}

// patience is how long the demo waits for one document.
const patience = 2 * time.Minute

// take takes one document through the workflow and returns its run as it ended.
func (d *demo) take(ctx context.Context, ag *flow.Agreement, doc document) (run *flow.Run, err error) {
	if doc.err != nil {
		return nil, doc.err
	}
	cl := d.orgs[0].client
	run, err = cl.Start(ctx, ag.Hash, flow.Input{Type: "document", Name: doc.name, MediaType: mediaType(doc.name), Data: doc.data}, "normal")
	if err != nil {
		return nil, err
	}
	id := string(run.ID)
	err = poll(ctx, patience, func() (bool, error) {
		if run, err = cl.Run(ctx, id); err != nil {
			return false, err
		}
		if run.State == flow.StateWaiting { // the rule did not hold: org-a's operator says yes by hand
			_, err := cl.Verdict(ctx, id, true, "read and approved by the demo's operator")
			var p *ui.Problem
			if err != nil && !errors.As(err, &p) { // it may have been given a moment ago
				return false, err
			}
		}
		return run.State.Final(), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("run %s has not ended after %s", id, patience)
	}
	return run, err
}

func (d *demo) elapsed(tab int) string {
	return strings.Repeat(" ", tab) + d.paint.dim(fmt.Sprintf("%.1fs", time.Since(d.started).Seconds()))
}
