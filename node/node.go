package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"fednode/flow"
	"fednode/flow/agent"
	"fednode/node/config"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
	"fednode/transport/pki"
)

// Runtime is what a node gets from whoever starts it. All fields are optional.
type Runtime struct {
	Conn    net.PacketConn     // instead of the configured UDP listener; the caller closes it
	Listen  net.Listener       // of the TCP lane, with Conn; without it there is none. The node closes it
	Dial    transport.Dialer   // of the TCP lane, instead of the operating system's
	Resolve transport.Resolver // instead of DNS
	Logger  *slog.Logger
	Limits  transport.Limits
}

// A Node is a site that runs.
type Node struct {
	Engine *flow.Engine
	Log    *ledger.Log // the organisation's own

	site      *Site
	conn      net.PacketConn
	owned     bool         // conn is ours to close
	listener  net.Listener // of the TCP lane
	transport *transport.Node
	governor  *governor
	host      *host
	leaf      *pki.Renewer
	agents    *agent.Set
	metrics   *metrics.Set
	log       *slog.Logger
	started   time.Time
	ready     atomic.Bool

	newKey      string    // the record's newest message key, for useNewKey alone
	newKeySince time.Time // when it was first seen there

	remindedOf string    // state of the certificates when they were last looked at, for remind alone
	reminded   time.Time // when it was last logged
}

// New wires a node on site, bottom layer first. The node owns the site from now on and closes it when Run ends.
func New(site *Site, r Runtime) (_ *Node, err error) {
	n := &Node{site: site, conn: r.Conn, listener: r.Listen, log: r.Logger, metrics: metrics.NewSet(), started: site.now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if site.members == nil {
		return nil, fmt.Errorf("%s belongs to no federation yet: fednode init founds one; fednode join takes it into one, or goes on with that", site.Dir)
	}
	if err := pki.SelfTest(); err != nil {
		return nil, err
	}
	signer, err := site.logSigner()
	if err != nil {
		return nil, err
	}
	if n.Log, err = ledger.Open(site.db, ledger.Config{Name: "own", Origin: site.logOrigin(), Signer: signer, Now: site.now}); err != nil {
		return nil, err
	}
	above := site.renewCertificates()
	n.remind()
	n.leaf, err = pki.NewRenewer(pki.RenewerConfig{Org: string(site.Org()), Instance: string(site.Config.Instance), FederationID: site.FederationID(),
		Identity: above.identity, Issuing: above.issuing, Key: site.identity, Now: site.now, Logger: n.log})
	if err != nil && above.lapse != nil {
		err = fmt.Errorf("%w; %s: %s", err, above.lapse.reason, above.lapse.mend)
	}
	if err != nil {
		return nil, err
	}
	n.meterCertificates()
	id, key := site.messages.signing()
	n.transport, err = transport.New(transport.Config{Org: site.Org(), Instance: string(site.Config.Instance), Key: key, KeyID: id,
		Members: site.members.Current, Leaf: n.leaf, DB: site.db, Log: n.Log, Now: site.now, Logger: n.log, Metrics: n.metrics,
		Limits: site.limits(r.Limits), Resolve: r.Resolve, Dial: r.Dial, Web: http.HandlerFunc(n.serveWeb), Behind: func(org transport.OrgID) { n.governor.suspect(org) }})
	if err != nil {
		return nil, err
	}
	if n.governor, err = newGovernor(n.transport, site.members, site, n.log); err != nil {
		return nil, err
	}
	n.governor.rekey = n.useNewKey
	n.transport.Handle(msgDoctor, (&looker{node: n, asked: map[transport.OrgID]*rate.Limiter{}}).handle)
	if n.agents, err = agent.NewSet(site.Config.Agents, agent.Env{Dir: site.Dir, Logger: n.log}); err != nil {
		return nil, err
	}
	engine, err := site.compilePolicy()
	if err != nil {
		return nil, err
	}
	n.Engine, err = flow.New(flow.Config{Org: site.Org(), Key: key, KeyID: id, Node: n.transport, DB: site.db, Log: n.Log,
		Members: site.members.Current, Policy: engine, Agents: n.agents, ArtifactDir: filepath.Join(site.Dir, "artifacts"), Sealer: site.keyring.Sealer(),
		MemoryLimit: int64(site.Config.Limits.Memory), Slots: int(site.Config.Limits.Agents), UpToDate: n.governor.upToDate,
		Now: site.now, Logger: n.log, Metrics: n.metrics})
	if err != nil {
		return nil, err
	}
	if n.host, err = newHost(n); err != nil {
		return nil, err
	}
	if n.conn == nil {
		if n.conn, n.listener, err = transport.Listen(string(site.Config.Listen)); err != nil {
			return nil, fmt.Errorf("listen: %w; choose another address with listen: in %s", err, ConfigName)
		}
		n.owned = true
	}
	return n, nil
}

// limits are those of node.yaml, over l.
func (s *Site) limits(l transport.Limits) transport.Limits {
	c := s.Config.Limits
	for _, n := range []struct {
		to    *int
		given config.Count
	}{{&l.Handlers, c.Requests}, {&l.HandlersPerPeer, c.RequestsPerPeer}} {
		if n.given > 0 {
			*n.to = int(n.given)
		}
	}
	if c.RequestsPerSecond > 0 {
		l.RequestsPerSecond = float64(c.RequestsPerSecond)
	}
	if c.BytesPerSecond > 0 {
		l.BytesPerSecond = float64(c.BytesPerSecond)
	}
	if c.ArtifactSize > 0 {
		l.ArtifactSize = int64(c.ArtifactSize)
	}
	if c.CallTimeout > 0 {
		l.CallTimeout = time.Duration(c.CallTimeout)
	}
	return l
}

// Protect keeps this process's memory out of core dumps and other processes' reach. It is for processes that are a
// node, or hold the root's key, at their start.
func Protect() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core dumps cannot be switched off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// Run serves until ctx ends or a part fails, then stops everything, top layer first, and closes the site.
func (n *Node) Run(ctx context.Context) error {
	low, stopLow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLow()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { // what flow rests on ends after flow has
		lg, lctx := errgroup.WithContext(low)
		lg.Go(func() error { return n.transport.Serve(lctx, n.conn, n.listener) })
		lg.Go(func() error { return n.leaf.Run(lctx) })
		lg.Go(func() error { return n.keepCertificates(lctx) })
		return lg.Wait()
	})
	g.Go(func() error { return n.governor.run(gctx) })
	g.Go(func() error {
		defer stopLow()
		n.ready.Store(true)
		defer n.ready.Store(false)
		return n.Engine.Run(gctx)
	})
	context.AfterFunc(gctx, func() { n.ready.Store(false) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, n.close())
}

// useNewKey goes over to a message key that has come into force, once everybody can know it. If the one that signs is no
// longer in the record, another of the record's takes over at once: the one that has been there for longest. It is called
// again when the record changes, after the call before has ended.
func (n *Node) useNewKey(ctx context.Context) {
	r, ok := n.site.own()
	if !ok {
		return
	}
	keys := r.Keys.Message
	if n.newKey != keys[0].KeyID {
		n.newKey, n.newKeySince = keys[0].KeyID, time.Now()
	}
	current, _ := n.site.messages.signing()
	if !slices.ContainsFunc(keys, func(k member.MessageKey) bool { return k.KeyID == current }) {
		oldest := slices.Clone(keys)
		slices.Reverse(oldest)
		n.signWith(oldest)
	}
	if current, _ = n.site.messages.signing(); current == n.newKey {
		return
	}
	select {
	case <-time.After(keyGrace - time.Since(n.newKeySince)):
		n.signWith(keys)
	case <-ctx.Done():
	}
}

// signWith has the first of the listed keys that is held sign from now on.
func (n *Node) signWith(listed []member.MessageKey) {
	if n.site.messages.use(listed) {
		id, key := n.site.messages.signing()
		n.transport.SetKey(id, key)
		n.Engine.SetKey(id, key)
		n.log.Info("messages are signed with another key", "key_id", id)
	}
}

func (n *Node) close() error {
	var errs []error
	if n.agents != nil {
		errs = append(errs, n.agents.Close())
	}
	if n.owned && n.conn != nil {
		errs = append(errs, n.conn.Close())
	}
	if n.listener != nil {
		_ = n.listener.Close() // it is closed already if the node has run
	}
	return errors.Join(append(errs, n.site.Close())...)
}

// Alive reports whether the node still does its work: that transactions are written, and that the parts which requests go
// through answer. An error that the disk gives is an answer; health says what is wrong with it.
func (n *Node) Alive(ctx context.Context) error {
	err := n.site.db.Update(ctx, func(*store.Tx) error { return nil })
	if ctx.Err() != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		n.transport.Sessions()
		n.site.members.Current()
		n.Candidates()
	}()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the sessions or the members did not answer: %w", ctx.Err())
	}
}

// WriteMetrics writes the node's metrics, and the process's, in the Prometheus text format.
func (n *Node) WriteMetrics(w io.Writer) {
	n.metrics.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
}
