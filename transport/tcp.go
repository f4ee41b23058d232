package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Listen opens both lanes of addr, "host:port", on one port: with port 0, one that is free on both.
func Listen(addr string) (net.PacketConn, net.Listener, error) {
	for try := 0; ; try++ {
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, err
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp, nil
		}
		if _, port, _ := net.SplitHostPort(addr); port != "0" || try == listenTries {
			return nil, nil, errors.Join(err, udp.Close())
		}
		if err := udp.Close(); err != nil {
			return nil, nil, err
		}
	}
}

// listenTries is how many ports are tried that are free for UDP and may not be for TCP.
const listenTries = 16

// webProtocols are what the rest of the world speaks.
var webProtocols = []string{"h2", "http/1.1"}

// A lanes holds what the TCP lane's connections go through, by ALPN name.
type lanes struct {
	members *handoff // fednode/1
	web     *handoff // h2, http/1.1

	mu    sync.Mutex
	leave map[net.Conn]func() // what to call at the end of a connection in web
}

// serveTCP accepts connections on ln until it is closed.
func (n *Node) serveTCP(ln net.Listener) error {
	at := &lanes{members: newHandoff(ln.Addr()), web: newHandoff(ln.Addr()), leave: map[net.Conn]func(){}}
	servers := []*http.Server{n.h2Server(), n.webServer(at)}
	for i, h := range []*handoff{at.members, at.web} {
		if !n.spawn(func() { _ = servers[i].Serve(h) }) { // the error is that it was closed
			return nil
		}
	}
	defer func() {
		for _, s := range servers {
			_ = s.Close()
		}
	}()
	conf := n.tcpTLS()
	for {
		raw, err := ln.Accept()
		if n.ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if err != nil {
			var passing interface{ Temporary() bool }
			if errors.As(err, &passing) && passing.Temporary() { // such as too many open files
				n.c.Logger.Warn("TCP lane cannot accept a connection; trying again", "err", err)
				time.Sleep(acceptPause)
				continue
			}
			return err
		}
		leave, ok := n.tcpGate.enter(raw.RemoteAddr(), time.Now())
		if !ok {
			n.m.handshake(LaneTCP, "refused")
			_ = raw.Close()
			continue
		}
		if !n.spawn(func() { n.serveTCPConn(at, tls.Server(raw, conf), leave) }) {
			leave()
			_ = raw.Close()
		}
	}
}

const acceptPause = 100 * time.Millisecond

// tcpTLS tells members, strangers and the rest apart by what they offer to speak.
func (n *Node) tcpTLS() *tls.Config {
	c := n.serverTLS()
	choose := c.GetConfigForClient
	web := n.webTLS()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offers := func(name string) bool { return slices.Contains(hello.SupportedProtos, name) }
		if n.c.Web != nil && !offers(protocol) && slices.ContainsFunc(webProtocols, offers) {
			return web, nil
		}
		return choose(hello)
	}
	return c
}

// serveTCPConn takes a connection through its handshake to who serves its protocol.
func (n *Node) serveTCPConn(at *lanes, t *tls.Conn, leave func()) {
	ctx, cancel := context.WithTimeout(n.ctx, handshakeTimeout)
	err := t.HandshakeContext(ctx)
	cancel()
	leave()
	if err != nil {
		n.m.handshake(LaneTCP, "refused")
		_ = t.NetConn().Close()
		return
	}
	switch t.ConnectionState().NegotiatedProtocol {
	case joinProtocol:
		n.serveStrangerTCP(t)
	case protocol:
		n.serveMemberTCP(at.members, t)
	default:
		n.serveWebConn(at, t)
	}
}

func (n *Node) serveWebConn(at *lanes, t *tls.Conn) {
	leave, ok := n.web.enter(t.RemoteAddr(), time.Now())
	if !ok {
		n.m.handshake(LaneTCP, "refused")
		_ = t.NetConn().Close()
		return
	}
	n.m.handshake(LaneTCP, "web")
	at.mu.Lock()
	at.leave[t] = leave
	at.mu.Unlock()
	if !at.web.give(t) {
		at.left(t)
	}
}

// left is told of connections in web that have ended.
func (at *lanes) left(c net.Conn) {
	at.mu.Lock()
	defer at.mu.Unlock()
	if leave := at.leave[c]; leave != nil {
		leave()
		delete(at.leave, c)
	}
}

func (n *Node) serveMemberTCP(to *handoff, t *tls.Conn) {
	c := newTCPConn(t)
	l, err := n.newLink(c, t.ConnectionState(), "")
	if err == nil && !n.enlist(l) {
		err = errors.New("too many connections")
	}
	if err != nil {
		n.m.handshake(LaneTCP, "refused")
		_ = c.Close()
		return
	}
	c.link = l
	n.m.handshake(LaneTCP, "ok")
	n.m.connections(LaneTCP, 1)
	defer n.m.connections(LaneTCP, -1)
	defer n.delist(l)
	n.heard(l.org)
	to.give(c)
	<-c.ctx.Done()
}

// dialTCP connects to addr and has the peer accept this node's certificate.
func (n *Node) dialTCP(ctx context.Context, addr net.Addr, conf *tls.Config) (_ *tcpConn, cs tls.ConnectionState, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := n.c.Dial(ctx, addr.String())
	if err != nil {
		return nil, cs, err
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, cs, errors.Join(err, raw.Close())
	}
	c := newTCPConn(t)
	if err := c.connect(ctx, n); err != nil {
		_ = c.Close()
		return nil, cs, err
	}
	return c, t.ConnectionState(), nil
}

func dialNet(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// A handoff is the listener of a server whose connections were accepted before.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give passes c on, or closes it if nobody takes it any more.
func (h *handoff) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		_ = c.Close()
		return false
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }

const (
	webTimeout = 10 * time.Second // in which a request must have arrived
	webAnswer  = time.Minute      // in which an answer must have been taken
	webStreams = 32               // requests at once, of one connection
	webConns   = 128              // connections at once, half of them from one address
	webAsks    = 64               // requests at once
	webPerSec  = 50               // requests of one address, on average
	webBurst   = 500
	webFields  = 16 << 10 // bytes of a request's fields
)

func (n *Node) webServer(at *lanes) *http.Server {
	return &http.Server{Handler: http.HandlerFunc(n.serveWeb), ConnState: func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			at.left(c)
		}
	}, ReadHeaderTimeout: webTimeout, ReadTimeout: webTimeout, WriteTimeout: webAnswer, IdleTimeout: n.limit.IdleTimeout,
		MaxHeaderBytes: webFields, ErrorLog: slog.NewLogLogger(n.c.Logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: webStreams, MaxReceiveBufferPerConnection: h2Request, MaxReceiveBufferPerStream: h2Frame,
			SendPingTimeout: n.limit.KeepAlive, PingTimeout: webTimeout}}
}

func (n *Node) serveWeb(w http.ResponseWriter, r *http.Request) {
	from := net.Addr(&net.TCPAddr{})
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from = net.TCPAddrFromAddrPort(a)
	}
	leave, ok := n.asks.enter(from, time.Now())
	if !ok {
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	}
	defer leave()
	n.c.Web.ServeHTTP(w, r)
}

// webTLS serves whoever asks. A certificate is asked for, and must be a member's if there is one.
func (n *Node) webTLS() *tls.Config {
	c := baseTLS(webProtocols...)
	c.Time = n.c.Now
	c.ClientAuth = tls.RequestClientCert
	c.GetCertificate = n.c.Leaf.GetCertificate
	negotiated := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := negotiated(cs); err != nil || len(cs.PeerCertificates) == 0 {
			return err
		}
		_, err := n.webPeer(&cs)
		return err
	}
	return c
}

// WebPeer returns who makes a request to Config.Web: a member in good standing now, shown by certificate. The error says
// why not.
func (n *Node) WebPeer(r *http.Request) (OrgID, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", errors.New("no client certificate")
	}
	return n.webPeer(r.TLS)
}

func (n *Node) webPeer(cs *tls.ConnectionState) (OrgID, error) {
	raw := rawChain(*cs)
	org, err := claimedOrg(raw)
	if err != nil {
		return "", fmt.Errorf("client certificate: %w", err)
	}
	_, _, err = verifyPeer(n.c.Members(), org, raw, n.c.Now())
	return org, err
}
