package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport/member"
	"fednode/transport/pipenet"
	"fednode/transport/pki"
)

const (
	testLeafValidity = time.Hour
	latency          = 10 * time.Millisecond
)

// An organisation is what outlives a node's restart: keys, certificates, address and disk.
type organisation struct {
	id       OrgID
	key      ed25519.PrivateKey // of messages
	log      ed25519.PrivateKey
	cosigner ed25519.PrivateKey
	identity *ecdsa.PrivateKey
	chain    []*x509.Certificate // identity, issuing
	root     *x509.Certificate
	addr     *net.UDPAddr
	conn     net.PacketConn
	dir      string
	renewer  *pki.Renewer
	sequence int64 // of records after the first
}

func (o *organisation) leaf() *tls.Certificate { return o.renewer.Leaf() }

// A world is a federation on one network.
type world struct {
	t      testing.TB
	orgs   map[OrgID]*organisation
	order  []OrgID       // in which they joined
	sets   []*member.Set // after each of them had
	set    *member.Set
	gov    *member.Governance
	peers  map[OrgID]*peer  // as last started
	router *router          // nil on loopback
	spare  []net.PacketConn // for others than members; none on loopback
}

// A router is a perfect network, except for what the test breaks.
type router struct {
	simnet.PerfectRouter
	split atomic.Bool // nothing passes
	noUDP atomic.Bool // nothing but streams does
	mine  atomic.Bool // a host's own firewall refuses to send UDP: the write fails, as with Linux
	mu    sync.Mutex
	up    map[string]bool
	// streams are the TCP of this network.
	streams *pipenet.Network
}

func (r *router) isUp(addr string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up[addr]
}

func (r *router) SendPacket(p simnet.Packet) error {
	if !r.isUp(p.To.String()) || r.split.Load() || r.noUDP.Load() {
		return nil
	}
	return r.PerfectRouter.SendPacket(p)
}

func (w *world) setUp(o *organisation, up bool) {
	if w.router != nil {
		w.router.mu.Lock()
		w.router.up[o.addr.String()] = up
		w.router.mu.Unlock()
		w.router.streams.Wake()
	}
}

func (w *world) partition(split bool) {
	w.router.split.Store(split)
	w.router.streams.Wake()
}

// blockUDP leaves nothing but the TCP lane.
func (w *world) blockUDP(blocked bool) { w.router.noUDP.Store(blocked) }

// firewalled fails to write while refuse is set.
type firewalled struct {
	net.PacketConn
	refuse *atomic.Bool
}

func (f firewalled) WriteTo(p []byte, to net.Addr) (int, error) {
	if f.refuse.Load() {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: f.LocalAddr(), Addr: to, Err: os.NewSyscallError("sendmsg", syscall.EPERM)}
	}
	return f.PacketConn.WriteTo(p, to)
}

// lane is the best there is now.
func (w *world) lane() Lane {
	if w.router.noUDP.Load() {
		return LaneTCP
	}
	return LaneQUIC
}

// host is where an address is on the network's TCP.
func (w *world) host(a *net.UDPAddr) *pipenet.Host {
	return w.router.streams.Host(&net.TCPAddr{IP: a.IP, Port: a.Port})
}

func (w *world) nowhere(i byte) net.Addr { return &net.UDPAddr{IP: net.IPv4(10, 9, 9, i), Port: 443} }

// newWorld makes a federation on a simulated network; the first name joins last. Call it inside a synctest bubble.
func newWorld(t testing.TB, names ...OrgID) *world {
	t.Helper()
	w := &world{t: t, router: &router{up: map[string]bool{}}}
	w.router.streams = pipenet.New(latency, func(a, b string) bool {
		return w.router.split.Load() || !w.router.isUp(a) || !w.router.isUp(b)
	})
	sim := &simnet.Simnet{Router: w.router}
	w.build(names, func(i int) (net.PacketConn, *net.UDPAddr) {
		addr := &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(i+1)), Port: 443}
		return firewalled{sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: latency}), &w.router.mine}, addr
	})
	for i := range 5 {
		addr := &net.UDPAddr{IP: net.IPv4(10, 1, 0, byte(i)), Port: 9}
		w.spare = append(w.spare, sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: latency}))
		w.router.up[addr.String()] = true
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range w.spare {
			c.Close()
		}
		for _, o := range w.orgs {
			o.conn.Close()
		}
		sim.Close()
	})
	return w
}

// newLoopback makes a federation on real UDP sockets.
func newLoopback(t testing.TB, names ...OrgID) *world {
	t.Helper()
	w := &world{t: t}
	w.build(names, func(int) (net.PacketConn, *net.UDPAddr) {
		c := listenUDP(t)
		return c, c.LocalAddr().(*net.UDPAddr)
	})
	return w
}

func (w *world) build(names []OrgID, listen func(int) (net.PacketConn, *net.UDPAddr)) {
	w.t.Helper()
	w.orgs, w.peers = map[OrgID]*organisation{}, map[OrgID]*peer{}
	for i, id := range names {
		o := newOrganisation(w.t, id)
		o.conn, o.addr = listen(i)
		w.orgs[id] = o
		w.order = append([]OrgID{id}, w.order...)
	}
	w.found()
	for _, o := range w.orgs {
		o.renewer = o.newRenewer(w.t, w.set.FederationID())
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// found begins the governance log at the first who joins and takes the others in.
func (w *world) found() {
	w.t.Helper()
	ctx := context.Background()
	db, err := store.Open(filepath.Join(w.t.TempDir(), "gov.db"), store.Options{})
	w.must(err)
	w.t.Cleanup(func() { db.Close() })
	chair := w.orgs[w.order[0]]
	genesis, err := member.NewGenesis("test", member.DefaultCharter(), chair.record(w.t, chair.addr.String()), chair.approver(), randomBytes(16), time.Now())
	w.must(err)
	w.gov, err = member.Found(ctx, db, genesis, member.Options{Org: chair.id, Key: chair.log, Cosigner: chair.cosigner, Now: time.Now})
	w.must(err)
	w.sets = []*member.Set{w.gov.Current()}
	for i, id := range w.order[1:] {
		w.admit(ctx, w.orgs[id].record(w.t, w.orgs[id].addr.String()), w.order[:i+1])
		w.sets = append(w.sets, w.gov.Current())
	}
	w.set = w.gov.Current()
}

// admit puts a record into effect, with the approvals and cosignatures of those who are members.
func (w *world) admit(ctx context.Context, rec member.SignedRecord, by []OrgID) {
	w.t.Helper()
	var approvals []member.Approval
	for _, by := range by {
		a, err := member.ApproveMember(w.gov.Current().FederationID(), rec, w.orgs[by].approver())
		w.must(err)
		approvals = append(approvals, a)
	}
	w.must(w.gov.Admit(ctx, rec, approvals))
	for range 2 { // the change, and the entry that certifies it
		for _, by := range by[1:] {
			line, err := ledger.Cosign(w.gov.Log().Checkpoint(), member.CosignerName(w.gov.Current().FederationID(), by), w.orgs[by].cosigner, time.Now())
			w.must(err)
			w.must(w.gov.Collect(ctx, line))
		}
	}
}

// move gives org another address, and everybody the member set that says so. The node must not be running.
func (w *world) move(org OrgID, conn net.PacketConn) {
	w.t.Helper()
	o := w.orgs[org]
	o.conn, o.addr = conn, conn.LocalAddr().(*net.UDPAddr)
	o.sequence++
	w.admit(w.t.Context(), o.record(w.t, o.addr.String()), w.order)
	w.set = w.gov.Current()
	for _, p := range w.peers {
		p.set.Store(w.set)
	}
}

// without returns the set that the last to join is not in.
func (w *world) without(t *testing.T, last OrgID) *member.Set {
	t.Helper()
	if w.order[len(w.order)-1] != last {
		t.Fatalf("%s is not the last that joined", last)
	}
	return w.sets[len(w.sets)-2]
}

func newOrganisation(t testing.TB, id OrgID) *organisation {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p384 := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		must(err)
		return k
	}
	o := &organisation{id: id, dir: t.TempDir(), identity: p384()}
	var err error
	_, o.key, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	_, o.log, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	_, o.cosigner, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	rootKey, issuingKey, now := p384(), p384(), time.Now()
	o.root, err = pki.NewRoot(rootKey, string(id), "", now)
	must(err)
	issuing, err := pki.NewIssuing(o.root, rootKey, issuingKey.Public(), now)
	must(err)
	identity, err := pki.NewIdentity(issuing, issuingKey, o.identity.Public(), "i1", now)
	must(err)
	o.chain = []*x509.Certificate{identity, issuing}
	return o
}

func (o *organisation) approver() member.Approver {
	return member.Approver{Org: o.id, KeyID: "k1", Key: o.key}
}

func (o *organisation) record(t testing.TB, endpoints ...string) member.SignedRecord {
	t.Helper()
	r := member.Record{OrganizationID: o.id, Name: string(o.id), Roots: [][]byte{o.root.Raw}, Endpoints: endpoints, Sequence: 1 + o.sequence,
		IssuedAt: NewTime(time.Now()).String(), Keys: member.Keys{Message: []member.MessageKey{{KeyID: "k1", Alg: Ed25519, Public: o.key.Public().(ed25519.PublicKey)}},
			Log: member.LogKey{Public: o.log.Public().(ed25519.PublicKey)}, Cosigner: o.cosigner.Public().(ed25519.PublicKey)}}
	s, err := member.SignRecord(r, o.chain, o.identity, o.key, o.log, o.cosigner)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (o *organisation) newRenewer(t testing.TB, federationID string) *pki.Renewer {
	t.Helper()
	r, err := pki.NewRenewer(pki.RenewerConfig{Org: string(o.id), Instance: "i1", FederationID: federationID, Identity: o.chain[0], Issuing: o.chain[1],
		Key: o.identity, Validity: testLeafValidity})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// stranger returns a leaf that claims to be org's but hangs on another root.
func (w *world) stranger(t *testing.T, org OrgID) *tls.Certificate {
	t.Helper()
	return newOrganisation(t, org).newRenewer(t, w.set.FederationID()).Leaf()
}

func (w *world) renew(t *testing.T) {
	t.Helper()
	for _, o := range w.orgs {
		if err := o.renewer.Renew(); err != nil {
			t.Fatal(err)
		}
	}
}

// wipe forgets an organisation's disk but not its keys.
func (w *world) wipe(org OrgID) { w.must(os.Remove(filepath.Join(w.orgs[org].dir, "node.db"))) }

func (w *world) openNote(t *testing.T, org OrgID, note []byte) {
	t.Helper()
	m, _ := w.set.Get(org)
	if _, err := ledger.ParseCheckpoint(note, m.LogVerifier()); err != nil {
		t.Errorf("checkpoint of %s: %v\n%s", org, err, note)
	}
}

// A peer is a running node with its disk.
type peer struct {
	*Node
	w      *world
	o      *organisation
	db     *store.DB
	log    *ledger.Log
	set    atomic.Pointer[member.Set]
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
}

// start runs org's node until stop or the end of the test. configure, if not nil, is called before it serves.
func (w *world) start(org OrgID, configure func(*Node)) *peer {
	w.t.Helper()
	p := w.newPeer(org)
	if configure != nil {
		configure(p.Node)
		p.gates = newGates(p.limit)
		p.slots = make(chan struct{}, p.limit.Handlers)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	w.setUp(p.o, true)
	ln := w.listenTCP(p.o)
	go func() { p.done <- p.Serve(ctx, p.o.conn, ln) }()
	w.t.Cleanup(func() { p.stop(w.t) })
	w.peers[org] = p
	return p
}

func (w *world) listenTCP(o *organisation) net.Listener {
	w.t.Helper()
	if w.router != nil {
		ln, err := w.host(o.addr).Listen()
		w.must(err)
		return ln
	}
	ln, err := net.Listen("tcp", o.addr.String())
	w.must(err)
	return ln
}

func (w *world) newPeer(org OrgID) *peer {
	w.t.Helper()
	var dial Dialer
	if w.router != nil {
		dial = w.host(w.orgs[org].addr).Dial
	}
	o := w.orgs[org]
	db, err := store.Open(filepath.Join(o.dir, "node.db"), store.Options{})
	w.must(err)
	p := &peer{w: w, o: o, db: db, done: make(chan error, 1), cancel: func() {}}
	p.set.Store(w.set)
	m, _ := w.set.Get(org)
	signer, err := ledger.NewSigner(m.LogOrigin(), o.log)
	w.must(err)
	p.log, err = ledger.Open(db, ledger.Config{Name: "own", Origin: m.LogOrigin(), Signer: signer, Now: time.Now})
	w.must(err)
	p.Node, err = New(Config{Org: org, Instance: "i1", Key: o.key, KeyID: "k1", Members: p.set.Load, Leaf: o.renewer, DB: db, Log: p.log, Dial: dial,
		Resolve: func(_ context.Context, e string) ([]net.Addr, error) {
			a, err := net.ResolveUDPAddr("udp", e)
			return []net.Addr{a}, err
		}})
	w.must(err)
	return p
}

func (p *peer) stop(t testing.TB) {
	t.Helper()
	p.once.Do(func() {
		p.cancel()
		if err := <-p.done; err != nil {
			t.Errorf("%s stopped: %v", p.c.Org, err)
		}
		p.w.setUp(p.o, false)
		if err := p.db.Close(); err != nil {
			t.Errorf("%s: %v", p.c.Org, err)
		}
	})
}
