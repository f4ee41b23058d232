// Package fed runs a whole federation in one process, for tests.
//
// Its three nouns: a [Federation] of organisations, each a real node with its own data directory; the [Network] between
// them, simulated, with partitions, delay and loss; an [Org], which can be stopped, crashed, started again, and given a
// wrong clock.
//
// It promises that nothing but network and clock is simulated: keys, certificates, QUIC, ledger, policy, journal and
// confined workers are the product's own. Call it inside a testing/synctest bubble; a test binary that uses it calls
// [Main] from its TestMain, for workers are the same program.
package fed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"fednode/flow"
	"fednode/flow/agent"
	"fednode/hsm"
	"fednode/node"
	"fednode/transport"
)

// Main runs the tests, or a worker that a test started.
func Main(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == agent.WorkerArg {
		os.Exit(agent.WorkerMain())
	}
	os.Exit(m.Run())
}

// Options say what a federation is made of. All fields are optional.
type Options struct {
	Orgs      int                        // default 3: org-a, org-b, org-c
	Strangers int                        // organisations more, with data directories, that are no members yet
	Seed      uint64                     // of the network
	Latency   time.Duration              // of a packet; default 5 ms
	Agents    map[int]string             // node.yaml's agents section, by organisation
	Limits    transport.Limits           // of every node
	Resolve   map[int]transport.Resolver // instead of DNS, by organisation
	Loopback  bool                       // real UDP on the loopback interface instead of a simulated network
	Hostile   map[int]bool               // organisations whose node is the test's to play; see [Org.Transport]
	Handlers  func(o *Org, n *Hostile)   // what a hostile organisation answers
}

// A Federation is its organisations, the first of which chairs it.
type Federation struct {
	Orgs      []*Org
	Strangers []*Org   // see [Org.Join]
	Network   *Network // nil on loopback

	t       testing.TB
	options Options
	outside net.PacketConn // for bare connections of hostile organisations; nil on loopback
}

// An Org is one organisation. Node is nil while it is not running.
type Org struct {
	ID   transport.OrgID
	Dir  string
	Node *node.Node

	f       *Federation
	addr    *net.UDPAddr
	conn    net.PacketConn
	site    *node.Site
	skew    atomic.Int64
	cancel  context.CancelFunc
	stopped chan error
	hostile *Hostile
	sockets []net.PacketConn // that a stranger dials from, in turn
	dials   atomic.Int64
}

// New founds a federation and starts it. It ends with the test.
func New(t testing.TB, options Options) *Federation {
	t.Helper()
	if options.Orgs == 0 {
		options.Orgs = 3
	}
	if options.Latency == 0 {
		options.Latency = 5 * time.Millisecond
	}
	f := &Federation{t: t, options: options}
	f.connect()
	for i, o := range append(slices.Clone(f.Orgs), f.Strangers...) {
		o.create(options.Agents[i])
	}
	f.admit()
	for i, o := range f.Orgs {
		if options.Hostile[i] {
			o.play()
		} else {
			o.start()
		}
	}
	t.Cleanup(f.stop)
	return f
}

// create makes the organisation's data directory.
func (o *Org) create(agents string) {
	o.f.t.Helper()
	var err error
	o.site, err = node.Create(o.Dir, node.Options{Org: o.ID, Listen: o.addr.String(), Advertise: []string{o.addr.String()},
		Passphrase: hsm.Unprotected(), Agents: agents, Now: o.now})
	o.f.must(err)
}

func (f *Federation) connect() {
	f.t.Helper()
	root := f.t.TempDir()
	if !f.options.Loopback {
		f.Network = newNetwork(f.options.Seed, f.options.Latency)
	}
	for i := range f.options.Orgs + f.options.Strangers {
		id := transport.OrgID(fmt.Sprintf("org-%c", 'a'+i))
		if i >= 26 {
			id = transport.OrgID(fmt.Sprintf("org-%d", i))
		}
		o := &Org{ID: id, Dir: filepath.Join(root, string(id)), f: f, addr: address(i)}
		if f.options.Loopback {
			c, err := net.ListenPacket("udp", "127.88.0.1:0") // where no other program's connections take the same TCP port
			f.must(err)
			o.conn, o.addr = c, c.LocalAddr().(*net.UDPAddr)
		} else {
			o.conn = f.Network.sim.NewEndpoint(o.addr, simnetSettings(f.options.Latency))
		}
		if i < f.options.Orgs {
			f.Orgs = append(f.Orgs, o)
			continue
		}
		o.knock(i)
		f.Strangers = append(f.Strangers, o)
	}
	if f.Network != nil {
		f.outside = f.Network.sim.NewEndpoint(address(1000), simnetSettings(f.options.Latency))
		f.must(f.Network.sim.Start())
	}
}

// admit founds the federation and takes the others in one after the other, through the functions that an operator's
// commands use.
func (f *Federation) admit() {
	f.t.Helper()
	ctx := context.Background()
	sites := []*node.Site{f.Orgs[0].site}
	f.must(sites[0].Found(ctx, "test"))
	for _, o := range f.Orgs[1:] {
		f.must(node.Admit(ctx, sites, o.site))
		sites = append(sites, o.site)
	}
}

func (f *Federation) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *Federation) stop() {
	for _, o := range append(slices.Clone(f.Orgs), f.Strangers...) {
		if err := o.Stop(); err != nil {
			f.t.Errorf("%s: %v", o.ID, err)
		}
		o.leave()
	}
	if f.Network != nil {
		f.must(f.outside.Close())
		f.must(f.Network.sim.Close())
	}
}

// now is the organisation's wall clock.
func (o *Org) now() time.Time { return time.Now().Add(time.Duration(o.skew.Load())) }

// Skew sets the organisation's clock off by d.
func (o *Org) Skew(d time.Duration) { o.skew.Store(int64(d)) }

// start runs the node on the site that is open.
func (o *Org) start() {
	o.f.t.Helper()
	log := slog.New(slog.NewTextHandler(logWriter{o}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.New(o.site, node.Runtime{Conn: o.conn, Listen: o.listen(), Dial: o.dialer(), Resolve: o.resolver(), Logger: log, Limits: o.f.options.Limits})
	o.f.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	o.Node, o.cancel, o.stopped = n, cancel, make(chan error, 1)
	if o.f.Network != nil {
		o.f.Network.unplug(o, false)
	}
	go func() { o.stopped <- n.Run(ctx) }()
	for !o.ready() {
		time.Sleep(time.Millisecond)
	}
}

// listen opens the organisation's TCP lane.
func (o *Org) listen() net.Listener {
	o.f.t.Helper()
	if o.f.Network != nil {
		ln, err := o.f.Network.host(o).Listen()
		o.f.must(err)
		return ln
	}
	ln, err := net.Listen("tcp", o.addr.String())
	o.f.must(err)
	return ln
}

func (o *Org) dialer() transport.Dialer {
	if o.f.Network != nil {
		return o.f.Network.host(o).Dial
	}
	return nil
}

func (o *Org) resolver() transport.Resolver {
	for i, other := range o.f.Orgs {
		if other == o {
			return o.f.options.Resolve[i]
		}
	}
	return nil
}

func (o *Org) ready() bool { return o.Node.Health().Checks["serving"] == "ok" }

type logWriter struct{ o *Org }

func (w logWriter) Write(b []byte) (int, error) {
	w.o.f.t.Logf("%s: %s", w.o.ID, bytes.TrimSpace(b))
	return len(b), nil
}

// Stop ends the node in order.
func (o *Org) Stop() error {
	if o.hostile != nil {
		return o.hostile.stop()
	}
	if o.Node == nil {
		return nil
	}
	o.cancel()
	err := <-o.stopped
	o.Node = nil
	return err
}

// Crash cuts the node off at once, so that it can tell nobody, and ends it with nothing but what is on its disk at this
// moment.
func (o *Org) Crash() {
	o.f.t.Helper()
	if o.f.Network != nil {
		o.f.Network.unplug(o, true)
	}
	held := o.Dir + ".crashed"
	o.f.must(copyTree(o.Dir, held))
	o.cancel()
	<-o.stopped
	if o.f.Network != nil { // what it wrote since is on no disk, and must not be under way when it is back
		o.f.Network.streams.Crash(o.addr.IP)
		time.Sleep(2*o.f.options.Latency + 10*time.Millisecond)
	}
	o.Node = nil
	o.f.must(errors.Join(os.RemoveAll(o.Dir), os.Rename(held, o.Dir)))
}

// copyTree copies the regular files of a directory, the database as of one moment.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := asOfOneMoment(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a temporary file that is gone meanwhile
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}

// asOfOneMoment reads a file that is being written to until two readings agree: then it was so between them. A database
// read in pieces from several moments is damaged in a way that no crash damages it.
func asOfOneMoment(path string) ([]byte, error) {
	last, err := os.ReadFile(path)
	for err == nil {
		var data []byte
		if data, err = os.ReadFile(path); err == nil && bytes.Equal(data, last) {
			return data, nil
		}
		last = data
	}
	return nil, err
}

// Start opens the data directory of a node that was stopped or crashed, and runs it.
func (o *Org) Start() {
	o.f.t.Helper()
	site, err := node.Open(o.Dir, hsm.Passphrase{}, o.now)
	o.f.must(err)
	o.site = site
	o.start()
}

// Agree submits the workflow at the first organisation and has the others sign it; it returns once it is in force with
// everybody.
func (f *Federation) Agree(text string) *flow.Agreement {
	f.t.Helper()
	return f.AgreeAt(f.Orgs[0], text)
}

// AgreeAt is Agree for a workflow that another organisation initiates.
func (f *Federation) AgreeAt(initiator *Org, text string) *flow.Agreement {
	f.t.Helper()
	d, err := flow.ParseDefinition("workflow.yaml", []byte(text))
	f.must(err)
	ctx := context.Background()
	a, err := initiator.Node.Engine.Submit(ctx, "tester", d)
	f.must(err)
	for _, o := range f.Orgs {
		if o != initiator && o.Node != nil && d.Participant(o.ID) {
			_, err := o.Node.Engine.Accept(ctx, "tester", a.Hash)
			f.must(err)
		}
	}
	for _, o := range f.Orgs {
		if o.Node != nil && d.Participant(o.ID) {
			f.Wait(string(o.ID)+" has the agreement in force", func() bool {
				a, err = o.Node.Engine.Agreement(a.Hash)
				f.must(err)
				return a.State == flow.InForce
			})
		}
	}
	return a
}

// Begin starts a run at the first organisation.
func (f *Federation) Begin(a *flow.Agreement, name, text string) *flow.Run {
	f.t.Helper()
	run, err := f.Orgs[0].Node.Engine.Start(context.Background(), "tester", a.Hash,
		flow.Input{Type: "document", Name: name, MediaType: "text/plain", Data: []byte(text)}, "normal")
	f.must(err)
	return run
}

// Finish waits for a run's end and returns it.
func (f *Federation) Finish(id flow.RunID) *flow.Run {
	f.t.Helper()
	var run *flow.Run
	f.Wait("the end of "+string(id), func() (over bool) {
		var err error
		run, err = f.Orgs[0].Node.Engine.GetRun(string(id))
		f.must(err)
		return run.State.Final()
	})
	return run
}

// Wait waits until fn is true, at most an hour of the federation's time.
func (f *Federation) Wait(what string, fn func() bool) {
	f.t.Helper()
	for limit := time.Now().Add(time.Hour); !fn(); {
		if time.Now().After(limit) {
			f.t.Fatalf("waited an hour for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Verify takes every running organisation's audit archive, verifies each and holds them against each other. It returns
// how many receipts hold.
func (f *Federation) Verify() (receipts int) {
	f.t.Helper()
	var archives []*node.Archived
	for _, o := range f.Orgs {
		if o.Node == nil {
			continue
		}
		var buf bytes.Buffer
		f.must(o.Node.Archive(&buf))
		dir := filepath.Join(f.t.TempDir(), string(o.ID))
		f.must(node.Unpack(&buf, dir))
		a, err := node.OpenArchive(os.DirFS(dir), o.site.FederationID())
		f.must(err)
		v, err := a.Verify()
		f.must(err)
		receipts += v.Receipts
		archives = append(archives, a)
	}
	f.must(node.CrossCheck(archives))
	return receipts
}
