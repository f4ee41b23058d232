package cli

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"fednode/flow"
	"fednode/hsm"
	"fednode/node"
	"fednode/transport"
	"fednode/ui"
)

//go:embed demo/documents demo/workflow.yaml
var demoFiles embed.FS

// demoOrgs are the demo's organisations; the first founds the federation and chairs it.
var demoOrgs = []transport.OrgID{"org-a", "org-b", "org-c"}

func (a *app) demo() *cobra.Command {
	var documents, serve string
	c := &cobra.Command{Use: "demo", Short: "Found a federation of three organisations and run a real workflow in it", Args: cobra.NoArgs,
		Long: `Founds a federation of three organisations on this machine: three nodes with separate data directories, connected by
QUIC with mutual TLS on loopback. org-a uploads documents, org-b classifies them and finds personal data, org-c reviews
them, org-a approves. What each organisation saw is read from that organisation's own socket; then the disks are
searched for data that was not to be stored, and every receipt is verified.

Needs no network, no configuration and no privilege. With --serve DIR the federation stays up for you to play with.`,
		Example: "  fednode demo\n  fednode demo --documents ~/contracts\n  fednode demo --serve ./fed",
		RunE: func(c *cobra.Command, _ []string) error {
			d := &demo{app: a, paint: a.paint(), started: time.Now()}
			return d.run(c.Context(), documents, serve)
		}}
	c.Flags().StringVar(&documents, "documents", "", "run over the files in this directory instead of the demo's own")
	c.Flags().StringVar(&serve, "serve", "", "keep the federation up in this directory until interrupted")
	_ = c.MarkFlagDirname("documents")
	_ = c.MarkFlagDirname("serve")
	return c
}

// A demoOrg is one organisation: its data directory, its node and a client of its socket.
type demoOrg struct {
	id     transport.OrgID
	dir    string
	conn   net.PacketConn
	tcp    net.Listener
	site   *node.Site
	client *ui.Client
}

type demo struct {
	*app
	paint      paint
	started    time.Time
	federation string // its id
	orgs       []*demoOrg
	stop       context.CancelFunc
	nodes      *errgroup.Group
	failed     int // checks
	unfinished int // documents that did not go through
}

// document is one input of the demo.
type document struct {
	name string
	data []byte
}

func (d *demo) run(ctx context.Context, documents, serve string) (err error) {
	docs, err := loadDocuments(documents)
	if err != nil {
		return err
	}
	dir := serve
	if serve == "" {
		if dir, err = os.MkdirTemp("", "fednode-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if err := d.found(ctx, dir); err != nil {
		return err
	}
	d.federation = d.orgs[0].site.FederationID()
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ag, err := d.agree(ctx)
	if err != nil {
		return err
	}
	runs, err := d.process(ctx, ag, docs)
	if err != nil {
		return err
	}
	if err := d.report(ctx, runs); err != nil {
		return err
	}
	if err := d.scan(docs); err != nil {
		return err
	}
	archives, err := os.MkdirTemp("", "fednode-audit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(archives)
	if err := d.verify(ctx, archives); err != nil {
		return err
	}
	if d.failed > 0 {
		return fmt.Errorf("%d checks failed", d.failed)
	}
	if serve == "" {
		fmt.Fprintf(d.out, "Next: fednode demo --serve ./fed; fednode -D ./fed/org-b status\n")
		return d.incomplete(len(docs))
	}
	fmt.Fprintf(d.out, "The federation is up. In another terminal:\n")
	fmt.Fprintf(d.out, "  fednode -D %s status\n  fednode -D %s flow run %s --input FILE --watch\n  fednode -D %s audit log\nCtrl-C stops it.\n",
		d.orgs[1].dir, d.orgs[0].dir, ag.Definition.Name, d.orgs[2].dir)
	<-ctx.Done()
	return d.incomplete(len(docs))
}

// incomplete is the error of a demo some of whose documents did not go through.
func (d *demo) incomplete(of int) error {
	if d.unfinished == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d documents did not go through; each says above why", d.unfinished, of)
}

// loadDocuments returns the demo's own documents, or the regular files in dir.
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
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") || info.Size() > flow.MaxArtifact {
			continue
		}
		data, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return nil, err
		}
		docs = append(docs, document{e.Name(), data})
	}
	if len(docs) == 0 {
		return nil, misusef("no documents in %s", dir)
	}
	return docs, nil
}

// found makes the three data directories and the federation, through the functions that an operator's commands use. A
// federation that an earlier --serve left in dir is taken up again.
func (d *demo) found(ctx context.Context, dir string) error {
	again := false
	for _, id := range demoOrgs {
		o := &demoOrg{id: id, dir: filepath.Join(dir, string(id))}
		d.orgs = append(d.orgs, o)
		if _, err := os.Stat(filepath.Join(o.dir, node.ConfigName)); err == nil {
			again = true
		}
	}
	if again {
		return d.reopen()
	}
	g := new(errgroup.Group)
	for _, o := range d.orgs {
		conn, tcp, err := transport.Listen("127.0.0.1:0")
		if err != nil {
			return err
		}
		o.conn, o.tcp = conn, tcp
		g.Go(func() (err error) {
			o.site, err = node.Create(o.dir, node.Options{Org: o.id, Name: "Demo " + string(o.id), Listen: conn.LocalAddr().String(),
				Advertise: []string{conn.LocalAddr().String()}, Passphrase: hsm.Unprotected(), Agents: demoAgents(o.id)})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := d.admit(ctx); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%s federation demo: org-a (chair) org-b org-c%s\n", d.paint.good("✓"), d.elapsed(8))
	return nil
}

// demoAgents configures the approval rule, which the demo prints as automatic.
func demoAgents(id transport.OrgID) string {
	if id != demoOrgs[0] {
		return ""
	}
	return `agents:
  # Approves by rule what the reviewer rated below high; anything else waits for: fednode flow approve RUN
  approval-agent: {kind: approval, automatic: 'review_result.risk != "high"'}
`
}

// admit founds the federation at the chair, and takes in the others, each with the approvals that the charter asks for.
func (d *demo) admit(ctx context.Context) error {
	sites := []*node.Site{d.orgs[0].site}
	if err := sites[0].Found(ctx, "demo"); err != nil {
		return err
	}
	for _, o := range d.orgs[1:] {
		if err := node.Admit(ctx, sites, o.site); err != nil {
			return fmt.Errorf("%s: %w", o.id, err)
		}
		sites = append(sites, o.site)
	}
	return nil
}

func (d *demo) reopen() error {
	for _, o := range d.orgs {
		site, err := node.Open(o.dir, hsm.Passphrase{}, time.Now)
		if err != nil {
			return err
		}
		o.site = site
		if o.conn, o.tcp, err = transport.Listen(string(site.Config.Listen)); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "%s federation demo, taken up again: org-a (chair) org-b org-c%s\n", d.paint.good("✓"), d.elapsed(8))
	return nil
}

// start runs the three nodes, each with its own socket, and waits until they are ready.
func (d *demo) start(ctx context.Context) error {
	ctx, d.stop = context.WithCancel(ctx)
	g, gctx := errgroup.WithContext(ctx)
	d.nodes = g
	for _, o := range d.orgs {
		log := slog.New(slog.NewTextHandler(d.err, &slog.HandlerOptions{Level: slog.LevelError})).With("org", o.id)
		n, err := node.New(o.site, node.Runtime{Conn: o.conn, Listen: o.tcp, Logger: log})
		if err != nil {
			d.stop()
			return errors.Join(err, g.Wait())
		}
		l, err := ui.Listen(o.dir)
		if err != nil {
			d.stop()
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error { return n.Run(gctx) })
		g.Go(func() error { return ui.NewServer(n, log).Serve(gctx, l) })
		o.client = ui.NewClient(o.dir)
	}
	for _, o := range d.orgs {
		if err := o.client.WaitReady(ctx, 10*time.Second); err != nil {
			d.stop()
			return errors.Join(fmt.Errorf("%s: %w", o.id, err), g.Wait())
		}
	}
	return nil
}

func (d *demo) close() error {
	d.stop()
	err := d.nodes.Wait()
	for _, o := range d.orgs {
		o.client.Close()
		o.conn.Close()
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
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
			if ag, err = o.client.Agreement(ctx, reply.Agreement.Hash); err != nil || ag.State != flow.InForce {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("agreement %s is %s: %w", short(ag.Hash), ag.State, err)
	}
	n, of := ag.Signed()
	fmt.Fprintf(d.out, "%s agreement %s signed %d/%d\n", d.paint.good("✓"), short(ag.Hash), n, of)
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
	refused := make([]*ui.Problem, len(docs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	done := make([]chan struct{}, len(docs))
	for i := range done {
		done[i] = make(chan struct{})
	}
	go func() {
		for i, doc := range docs {
			g.Go(func() error {
				defer close(done[i])
				in := flow.Input{Type: "document", Name: doc.name, MediaType: mediaType(doc.name), Data: doc.data}
				run, err := d.orgs[0].client.Start(gctx, ag.Hash, in, "normal")
				if errors.As(err, &refused[i]) && refused[i].Code != "unavailable" {
					return nil
				}
				if err != nil {
					return fmt.Errorf("%s: %w", doc.name, err)
				}
				return poll(gctx, 2*time.Minute, func() (bool, error) {
					r, err := d.orgs[0].client.Run(gctx, string(run.ID))
					if err != nil {
						return false, err
					}
					runs[i] = r
					if r.State == flow.StateWaiting { // the rule did not hold: org-a's operator says yes by hand
						_, err := d.orgs[0].client.Verdict(gctx, string(run.ID), true, "read and approved by the demo's operator")
						var p *ui.Problem
						if err != nil && !errors.As(err, &p) { // it may have been given a moment ago
							return false, err
						}
					}
					return r.State.Final(), nil
				})
			})
		}
	}()
	width := 0
	for _, doc := range docs {
		width = max(width, len(doc.name))
	}
	for i := range docs {
		select {
		case <-done[i]:
		case <-ctx.Done():
		}
		if refused[i] != nil {
			d.unfinished++
			fmt.Fprintf(d.out, "%-*s  %s\n", width, clean(docs[i].name), d.paint.bad("✗ "+clean(refused[i].Text)))
			continue
		}
		if runs[i] == nil || !runs[i].State.Final() {
			break
		}
		if runs[i].State != flow.StateCompleted {
			d.unfinished++
		}
		if err := d.printRun(ctx, runs[i], width); err != nil {
			return nil, err
		}
	}
	err := g.Wait()
	return slices.DeleteFunc(runs, func(r *flow.Run) bool { return r == nil }), err
}

func (d *demo) elapsed(tab int) string {
	return strings.Repeat(" ", tab) + d.paint.dim(fmt.Sprintf("%.1fs", time.Since(d.started).Seconds()))
}
