package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"fednode/node"
	"fednode/node/config"
	"fednode/node/service"
	"fednode/ui"
)

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{Use: "run", Short: "Run the node on its data directory", Args: cobra.NoArgs,
		Long: `Serves the federation and the local API until interrupted (SIGINT or SIGTERM), then stops in order: what is acknowledged
is on disk. The passphrase of the keys is read from where node.yaml says, or asked for on a terminal. Started by root, it
takes on the user that owns the data directory, and keeps of root's power that to listen on ports below 1024. A service
manager is told when it serves and, if it watches, that it lives (sd_notify).`,
		Example: "  fednode -D /var/lib/fednode run",
		RunE:    func(c *cobra.Command, _ []string) error { return a.serve(c.Context()) }}
}

func (a *app) serve(ctx context.Context) error {
	supervisor, err := service.Supervise()
	if err != nil {
		return err
	}
	defer supervisor.Close()
	if err := service.Become(a.dir); err != nil {
		return err
	}
	if service.Wanted(a.dir) { // root's still: no member yet, which is found out with its keys
		if err := ownService(a.dir); err != nil {
			return err
		}
	}
	if err := node.Protect(); err != nil {
		return err
	}
	site, err := a.openSite()
	if err != nil {
		return err
	}
	log := newLogger(a, site.Config.Log).With("organization", site.Org())
	n, err := node.New(site, node.Runtime{Logger: log})
	if err != nil {
		return err
	}
	socket, err := ui.Listen(a.dir)
	if err != nil {
		return err
	}
	var monitor net.Listener
	if at := site.Config.Monitor.Listen; at != "" {
		if monitor, err = net.Listen("tcp", string(at)); err != nil {
			return fmt.Errorf("monitor: %w; choose another address with monitor.listen in %s", err, node.ConfigName)
		}
	}
	server := ui.NewServer(n, log)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.Run(gctx) })
	g.Go(func() error { return server.Serve(gctx, socket) })
	if monitor != nil {
		g.Go(func() error { return serveMonitor(gctx, server.Monitor(), monitor) })
	}
	st, err := n.Status()
	if err != nil {
		return err
	}
	log.Info("serving", "federation", st.Federation, "listen", st.Listen, "version", st.Version, "members", st.Members)
	if supervisor.Present() {
		g.Go(func() error { return a.report(gctx, n, supervisor, log) })
	}
	err = g.Wait()
	log.Info("stopped")
	return err
}

// report keeps the service manager informed for as long as the node runs.
func (a *app) report(ctx context.Context, n *node.Node, to *service.Supervisor, log *slog.Logger) error {
	tell := func(err error) {
		if err != nil {
			log.Warn("service manager", "err", err)
		}
	}
	cl := a.client()
	defer cl.Close()
	if err := cl.WaitServing(ctx); err != nil {
		return nil // it ends before it has begun, and says why itself
	}
	tell(to.Ready("serving"))
	to.Watch(ctx, func(ctx context.Context) (string, error) {
		if err := n.Alive(ctx); err != nil {
			return "", err
		}
		st, err := cl.Status(ctx) // from the socket through everything that a command needs
		return statusLine(st), err
	}, tell)
	<-ctx.Done()
	tell(to.Stopping())
	return nil
}

// statusLine is a node's state in one line.
func statusLine(st ui.Status) string {
	line := fmt.Sprintf("%s in %s, %s, %s", st.Organization, clean(st.Federation), plural(st.Members, "member"), st.Health.Status)
	for _, name := range slices.Sorted(maps.Keys(st.Health.Checks)) {
		if text := st.Health.Checks[name]; text != "ok" {
			line += "; " + name + ": " + text
		}
	}
	return line
}

// openSite opens the data directory, asking for the passphrase on a terminal if node.yaml names no place for it.
func (a *app) openSite() (*node.Site, error) {
	ask, err := a.askPassphrase()
	if err != nil {
		return nil, err
	}
	return node.Open(a.dir, ask, time.Now)
}

// serveMonitor answers metrics and health, and nothing else, on l until ctx ends.
func serveMonitor(ctx context.Context, h http.Handler, l net.Listener) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

func newLogger(a *app, c config.NodeLog) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.Level.Slog()}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.err, o))
	}
	return slog.New(slog.NewTextHandler(a.err, o))
}
