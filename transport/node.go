package transport

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/quic-go/quic-go"

	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport/member"
	"fednode/transport/pki"
)

// Config wires a [Node]. All fields are required unless they say otherwise.
type Config struct {
	Org      OrgID
	Instance string             // of this process within Org; optional
	Key      crypto.Signer      // Ed25519 message key
	KeyID    string             // under which the member record lists it
	Members  func() *member.Set // the member set in force now; called for every request, so it must be cheap
	Leaf     *pki.Renewer       // this node's mTLS certificate
	DB       *store.DB          // holds the replay set and the receipts, in one transaction domain with Log
	Log      *ledger.Log        // this organisation's own log
	Now      func() time.Time   // wall clock; optional, default time.Now
	Logger   *slog.Logger       // optional
	Metrics  *metrics.Set       // optional
	Limits   Limits             // optional
	Resolve  Resolver           // optional, default DNS
	Dial     Dialer             // of TCP; optional, default the operating system's
	Web      http.Handler       // optional; of what speaks h2 or http/1.1 on the TCP lane, see [Node.WebPeer]
	Behind   func(OrgID)        // optional; called when a member shows that it knows more of the governance log. Must not block
}

// A Resolver finds the UDP addresses of an endpoint, "host:port", best first.
type Resolver func(ctx context.Context, endpoint string) ([]net.Addr, error)

// A Dialer connects to addr, "ip:port", over TCP.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// A Handler serves one message type. It answers with [Request.Reply] or [Request.Refuse]; an error that it returns
// without having answered becomes a refusal, with the code of an [Error] in its chain or else with [CodeInternal], its
// text withheld. ctx ends when the caller gives up, at the caller's deadline, and when the peer is cut off.
type Handler func(ctx context.Context, r *Request) error

// A FetchHandler authorises a fetch and says where the artifact's bytes are. Errors become refusals as with [Handler].
type FetchHandler func(ctx context.Context, r *Request) (*Source, error)

// A Node is this organisation's end of the federation's mesh. It is safe for concurrent use.
type Node struct {
	c     Config
	limit Limits
	m     meters
	began beginning
	gates
	slots chan struct{} // one per request being handled
	key   atomic.Pointer[signingKey]

	ctx    context.Context // of everything the node does; ends at Close
	cancel context.CancelFunc
	work   sync.WaitGroup // handlers and connection loops
	ready  chan struct{}  // closed when tr is set
	tr     *quic.Transport
	tcpOff bool // no TCP lane; set before ready is closed

	mu       sync.Mutex
	closed   bool
	handlers map[string]Handler
	fetch    FetchHandler
	join     JoinHandler
	shares   map[OrgID]*peerLimit
	dialers  map[OrgID]*dialer
	inbound  map[OrgID]map[*link]struct{}
	reach    map[OrgID]*Reach
}

// New returns a node that can be given handlers; it moves no bytes before [Node.Serve].
func New(c Config) (*Node, error) {
	if err := c.Org.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	switch {
	case c.Key == nil || c.Members == nil || c.Leaf == nil || c.DB == nil || c.Log == nil:
		return nil, errors.New("transport: Key, Members, Leaf, DB and Log are required")
	case c.Now == nil:
		c.Now = time.Now
	}
	if _, ok := c.Key.Public().(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("transport: message key %s is %T; envelopes are signed with Ed25519", c.KeyID, c.Key.Public())
	}
	if err := checkName("key_id", c.KeyID); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	if c.Instance != "" {
		if err := checkName("instance_id", c.Instance); err != nil {
			return nil, fmt.Errorf("transport: %w", err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	if c.Behind == nil {
		c.Behind = func(OrgID) {}
	}
	if c.Dial == nil {
		c.Dial = dialNet
	}
	if c.Resolve == nil {
		c.Resolve = resolveDNS
	}
	l := c.Limits.withDefaults()
	n := &Node{c: c, limit: l, m: meters{c.Metrics}, began: begin(), gates: newGates(l),
		slots: make(chan struct{}, l.Handlers), ready: make(chan struct{}),
		handlers: map[string]Handler{}, shares: map[OrgID]*peerLimit{}, dialers: map[OrgID]*dialer{}, inbound: map[OrgID]map[*link]struct{}{}, reach: map[OrgID]*Reach{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.SetKey(c.KeyID, c.Key)
	return n, nil
}

// A signingKey is a message key and what the member record calls it.
type signingKey struct {
	id  string
	key crypto.Signer
}

// SetKey makes envelopes be signed with another message key, Ed25519, that the member record in force lists under keyID.
func (n *Node) SetKey(keyID string, key crypto.Signer) { n.key.Store(&signingKey{keyID, key}) }

// Handle sets the handler of a message type. All handlers must be set before [Node.Serve].
func (n *Node) Handle(messageType string, h Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[messageType] = h
}

// HandleFetch sets the handler of artifact streams, before [Node.Serve].
func (n *Node) HandleFetch(h FetchHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fetch = h
}

// Serve uses conn, which it does not close, and ln, which it does, for everything the node receives, until ctx ends or
// the node is closed. It then stops taking requests, closes the connections, which cancels the handlers, and returns when
// they are done. Without ln there is no TCP lane, in neither direction. It can be called once.
func (n *Node) Serve(ctx context.Context, conn net.PacketConn, ln net.Listener) error {
	stop := context.AfterFunc(ctx, n.cancel)
	defer stop()
	defer n.cancel()
	key, err := n.resetKey(n.ctx)
	if n.ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	tr := &quic.Transport{Conn: conn, StatelessResetKey: key, ConnectionIDLength: 8,
		VerifySourceAddress: func(net.Addr) bool { return n.gate.busy() }, ConnContext: n.admit}
	quicLn, err := tr.Listen(n.serverTLS(), n.quicConfig())
	if err != nil {
		return fmt.Errorf("listen on %s: %w", conn.LocalAddr(), err)
	}
	n.mu.Lock()
	if n.tr != nil {
		n.mu.Unlock()
		return errors.Join(errors.New("transport: Serve was called twice"), quicLn.Close())
	}
	n.tr, n.tcpOff = tr, ln == nil
	close(n.ready)
	n.mu.Unlock()

	n.spawn(func() { n.sweep(n.ctx) })
	var tcpErr error
	if ln != nil {
		stop := context.AfterFunc(n.ctx, func() { _ = ln.Close() })
		defer stop()
		n.spawn(func() {
			defer n.cancel()
			tcpErr = n.serveTCP(ln)
		})
	}
	err = n.accept(n.ctx, quicLn)
	n.cancel()
	n.shut()
	n.work.Wait()
	err = errors.Join(err, tcpErr, quicLn.Close(), tr.Close())
	if err != nil {
		return fmt.Errorf("transport on %s: %w", conn.LocalAddr(), err)
	}
	return nil
}

// Close ends [Node.Serve] and fails all calls. It does not wait; Serve does.
func (n *Node) Close() error {
	n.cancel()
	return nil
}

func (n *Node) accept(ctx context.Context, ln *quic.Listener) error {
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		serve := n.serveConn
		if conn.ConnectionState().TLS.NegotiatedProtocol == joinProtocol {
			serve = n.serveStranger
		}
		if !n.spawn(func() { serve(conn) }) {
			return errors.Join(conn.CloseWithError(0, "closing"))
		}
	}
}

// enter begins a part of the node's work, which ends with n.work.Done, unless the node is closing.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.work.Add(1)
	}
	return !n.closed
}

// spawn runs f as part of the node, unless the node is closing.
func (n *Node) spawn(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.work.Go(f)
	return true
}

// shut closes every connection; nothing new can start after it.
func (n *Node) shut() {
	n.mu.Lock()
	n.closed = true
	inbound, dialers := n.connections()
	n.mu.Unlock()
	for _, d := range dialers {
		inbound = append(inbound, d.links()...)
	}
	for _, l := range inbound {
		l.close("", "closing")
	}
}

// connections returns the inbound links and the dialers. n.mu is held; a dialer's own lock is taken before n.mu, never
// after it.
func (n *Node) connections() (inbound []*link, dialers []*dialer) {
	for _, links := range n.inbound {
		for l := range links {
			inbound = append(inbound, l)
		}
	}
	for _, d := range n.dialers {
		dialers = append(dialers, d)
	}
	return inbound, dialers
}

// sweepEvery is how often connections are held against the member set and the clock, so that a revoked member's
// sessions end well within the 5 s the design allows.
const sweepEvery = time.Second

func (n *Node) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.Recheck()
		}
	}
}

// Recheck holds every connection against the member set in force and closes those of former members. The node does
// so by itself every second; calling it when the set changes makes it immediate.
func (n *Node) Recheck() {
	set := n.c.Members()
	n.mu.Lock()
	inbound, dialers := n.connections()
	for org := range n.shares {
		if _, ok := set.Get(org); !ok && len(n.inbound[org]) == 0 {
			delete(n.shares, org)
		}
	}
	for org := range n.reach {
		if _, ok := set.Get(org); !ok {
			delete(n.reach, org)
		}
	}
	n.mu.Unlock()
	for _, l := range inbound {
		if _, err := n.check(l); err == nil { // else it is closed now
			n.dialled(l.org, nil)
		}
	}
	for _, d := range dialers {
		d.recheck()
	}
}

func (n *Node) share(org OrgID) *peerLimit {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.shares[org]
	if s == nil {
		s = newPeerLimit(n.limit)
		n.shares[org] = s
	}
	return s
}

// handshakeTimeout is how long a handshake may make no progress.
const handshakeTimeout = 5 * time.Second

// quicConfig bounds what a connection may hold in memory: windows are per stream and per connection.
func (n *Node) quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 n.limit.IdleTimeout,
		KeepAlivePeriod:                n.limit.KeepAlive,
		InitialStreamReceiveWindow:     512 << 10,
		MaxStreamReceiveWindow:         4 << 20,
		InitialConnectionReceiveWindow: 1 << 20,
		MaxConnectionReceiveWindow:     16 << 20,
		MaxIncomingStreams:             int64(n.limit.StreamsPerConn),
		MaxIncomingUniStreams:          -1,
	}
}

func resolveDNS(ctx context.Context, endpoint string) ([]net.Addr, error) {
	host, service, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]net.Addr, len(ips))
	for i, ip := range ips {
		addrs[i] = &net.UDPAddr{IP: ip.IP, Port: port, Zone: ip.Zone}
	}
	return addrs, nil
}
