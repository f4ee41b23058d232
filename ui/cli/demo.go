package cli

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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

Needs no network, no configuration and no privilege. With --serve DIR the federation stays up for you to play with; what
an earlier one left in DIR is taken up again. Exits 1 if a document did not go through or a check failed.`,
		Example: "  fednode demo\n  fednode demo --documents ~/contracts\n  fednode demo --serve ./fed\n  fednode demo --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			d := &demo{app: a, text: a.out, paint: a.paint(), started: time.Now()}
			if a.output == "json" {
				d.text = io.Discard
			}
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
	text    io.Writer // for people: nowhere, if the output is JSON
	paint   paint
	started time.Time
	orgs    []*demoOrg
	stop    context.CancelFunc
	nodes   *errgroup.Group
	result  demoResult
}

func (d *demo) run(ctx context.Context, documents, serve string) (err error) {
	pipes := make(chan os.Signal, 1) // nobody listens: but a closed output is an error now, and not the end
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d.text = &watched{d.text, stop}
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
	d.result.FederationID = d.orgs[0].site.FederationID()
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	scratch, err := os.MkdirTemp("", "fednode-audit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
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
	if err := d.scan(ctx, docs, scratch); err != nil {
		return err
	}
	if err := d.verify(ctx, scratch); err != nil {
		return err
	}
	d.result.Seconds = time.Since(d.started).Seconds()
	if d.output == "json" {
		if err := d.print(d.result, nil); err != nil {
			return err
		}
	}
	if err := d.result.failure(); err != nil {
		return err
	}
	if serve == "" {
		fmt.Fprintf(d.text, "Next: fednode demo --serve ./fed; fednode -D ./fed/org-b status\n")
		return d.result.incomplete()
	}
	sample := filepath.Join(documents, docs[0].name)
	if documents == "" {
		if sample, err = writeDocuments(filepath.Join(serve, "documents"), docs); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.text, "The federation is up. In another terminal:\n")
	fmt.Fprintf(d.text, "  fednode -D %s status\n  fednode -D %s flow run %s --input %s --watch\n  fednode -D %s audit log\nCtrl-C stops it.\n",
		d.orgs[1].dir, d.orgs[0].dir, ag.Definition.Name, sample, d.orgs[2].dir)
	<-ctx.Done()
	return d.result.incomplete()
}

// A watched writer calls closed once who reads what it writes has gone: the demo then ends in order, and nothing stays behind.
type watched struct {
	io.Writer
	closed func()
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		w.closed()
	}
	return n, err
}

// found makes the three data directories and the federation, through the functions that an operator's commands use. A
// federation that an earlier --serve left in dir is taken up again; a directory with anything else in it is left alone.
func (d *demo) found(ctx context.Context, dir string) error {
	for _, id := range demoOrgs {
		d.orgs = append(d.orgs, &demoOrg{id: id, dir: filepath.Join(dir, string(id))})
	}
	switch entries, err := os.ReadDir(dir); {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case len(entries) > 0:
		return d.reopen(dir)
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
	fmt.Fprintf(d.text, "%s federation demo: org-a (chair) org-b org-c%s\n", d.paint.good("✓"), d.elapsed(8))
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

// reopen takes up the federation that an earlier demo left in dir.
func (d *demo) reopen(dir string) (err error) {
	defer func() {
		for _, o := range d.orgs {
			if err != nil && o.site != nil {
				err = errors.Join(err, o.site.Close())
			}
		}
	}()
	for _, o := range d.orgs {
		if _, err := os.Stat(filepath.Join(o.dir, node.ConfigName)); err != nil {
			return misusef("%s is not empty, and holds no demo federation: %s has no %s; name a new directory", dir, o.id, node.ConfigName)
		}
		if o.site, err = node.Open(o.dir, hsm.Passphrase{}, time.Now); err != nil {
			return err
		}
		if o.site.FederationID() == "" {
			return misusef("%s holds a demo federation whose founding was interrupted; remove it, or name a new directory", dir)
		}
		site := o.site
		if o.conn, o.tcp, err = transport.Listen(string(site.Config.Listen)); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.text, "%s federation demo, taken up again: org-a (chair) org-b org-c%s\n", d.paint.good("✓"), d.elapsed(8))
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
