package transport

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what peers can make this node spend. A zero field takes its default.
type Limits struct {
	Handlers          int           // requests being handled at once, all peers together; default 1024
	HandlersPerPeer   int           // of these, at most for one peer; default 256
	StreamsPerConn    int           // concurrent streams a peer may open on one connection; default 256
	ConnsPerPeer      int           // inbound connections of one peer, on both lanes; default 8
	RequestsPerSecond float64       // per peer, on average; default 2000
	RequestBurst      int           // default 4000
	BytesPerSecond    float64       // of envelopes and proofs, inbound, per peer; default 64 MiB
	FrameTimeout      time.Duration // in which the whole request must have arrived; default 10 s
	QueueTimeout      time.Duration // how long a request waits for a free handler; default 500 ms
	CallTimeout       time.Duration // of a Call or one try of a Fetch header whose context has no deadline; default 30 s
	IdleTimeout       time.Duration // after which a silent connection counts as lost; default 30 s
	KeepAlive         time.Duration // default 10 s
	Handshakes        int           // inbound connections that have not proven who they are, at once; default 64
	HandshakesPerSec  float64       // inbound, per source address (IPv6: /64); default 20
	Joins             int           // strangers' requests to join being handled at once; default 16
	JoinsPerSec       float64       // per source address (IPv6: /64), on average; default 2
	JoinBurst         int           // default 20
	JoinTimeout       time.Duration // in which one must be asked and answered; default 15 s
	ClockSkew         time.Duration // between envelope and own clock; default 60 s
	Lifetime          time.Duration // expires_at of messages that name none, from now; default 5 min
	ReplayEntries     uint64        // message ids remembered at once, default 1<<20; beyond it requests are overloaded
	ArtifactSize      int64         // largest artifact fetched, if the sink names no smaller; default 1 TiB
	ArtifactStall     time.Duration // without any progress of an artifact stream; default 30 s
}

func (l Limits) withDefaults() Limits {
	setInt := func(p *int, d int) {
		if *p == 0 {
			*p = d
		}
	}
	setTime := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	setRate := func(p *float64, d float64) {
		if *p == 0 {
			*p = d
		}
	}
	setInt(&l.Handlers, 1024)
	setInt(&l.HandlersPerPeer, 256)
	setInt(&l.StreamsPerConn, 256)
	setInt(&l.ConnsPerPeer, 8)
	setInt(&l.RequestBurst, 4000)
	setInt(&l.Handshakes, 64)
	setRate(&l.RequestsPerSecond, 2000)
	setRate(&l.BytesPerSecond, 64<<20)
	setRate(&l.HandshakesPerSec, 20)
	setInt(&l.Joins, 16)
	setRate(&l.JoinsPerSec, 2)
	setInt(&l.JoinBurst, 20)
	setTime(&l.JoinTimeout, 15*time.Second)
	setTime(&l.FrameTimeout, 10*time.Second)
	setTime(&l.QueueTimeout, 500*time.Millisecond)
	setTime(&l.CallTimeout, 30*time.Second)
	setTime(&l.IdleTimeout, 30*time.Second)
	setTime(&l.KeepAlive, 10*time.Second)
	setTime(&l.ClockSkew, time.Minute)
	setTime(&l.Lifetime, 5*time.Minute)
	setTime(&l.ArtifactStall, 30*time.Second)
	if l.ReplayEntries == 0 {
		l.ReplayEntries = 1 << 20
	}
	if l.ArtifactSize == 0 {
		l.ArtifactSize = 1 << 40
	}
	return l
}

// A peerLimit is one member's share of this node, over all its connections.
type peerLimit struct {
	requests *rate.Limiter
	bytes    *rate.Limiter
	handlers chan struct{}
}

func newPeerLimit(l Limits) *peerLimit {
	return &peerLimit{requests: rate.NewLimiter(rate.Limit(l.RequestsPerSecond), l.RequestBurst),
		bytes:    rate.NewLimiter(rate.Limit(l.BytesPerSecond), max(int(l.BytesPerSecond), 2*MaxEnvelope)),
		handlers: make(chan struct{}, l.HandlersPerPeer)}
}

// maxSources bounds the table of source addresses; beyond it, strangers share one bucket.
const maxSources = 4096

// A gate limits what peers that are not verified can begin.
type gate struct {
	max    int     // at once
	perSec float64 // of one source
	burst  int

	mu      sync.Mutex
	pending int
	sources map[netip.Prefix]*source
	swept   time.Time
}

// A source is what one address has begun.
type source struct {
	rate    *rate.Limiter
	pending int
}

func newGate(atOnce int, perSec float64, burst int) *gate {
	return &gate{max: atOnce, perSec: perSec, burst: burst, sources: map[netip.Prefix]*source{}}
}

// busy reports whether sources should prove their address first (QUIC Retry, RFC 9000 section 8.1.2).
func (g *gate) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending >= g.max/4
}

// gates are a node's.
type gates struct {
	gate    *gate // of QUIC connections
	tcpGate *gate // of TCP connections: whoever fills the one must not block the other
	joins   *gate // of strangers' requests
	web     *gate // of connections that speak HTTP, as long as they last
	asks    *gate // of their requests
}

func newGates(l Limits) gates {
	burst := 2 * max(int(l.HandshakesPerSec), 1)
	return gates{gate: newGate(l.Handshakes, l.HandshakesPerSec, burst), tcpGate: newGate(l.Handshakes, l.HandshakesPerSec, burst),
		joins: newGate(l.Joins, l.JoinsPerSec, l.JoinBurst), web: newGate(webConns, l.HandshakesPerSec, burst), asks: newGate(webAsks, webPerSec, webBurst)}
}

// enter admits one attempt; a call of leave must follow each that was admitted. One source has at most half of all.
func (g *gate) enter(from net.Addr, now time.Time) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.source(from, now)
	if g.pending >= g.max || s.pending >= max(g.max/2, 1) || !s.rate.AllowN(now, 1) {
		return nil, false
	}
	g.pending++
	s.pending++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.pending--
		s.pending--
	}, true
}

// addrIP returns the IP address in a, or the invalid one.
func addrIP(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.TCPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func (g *gate) source(from net.Addr, now time.Time) *source {
	var p netip.Prefix
	if ip := addrIP(from); ip.IsValid() {
		p, _ = ip.Prefix(min(ip.BitLen(), 64))
	}
	if now.Sub(g.swept) > time.Minute {
		g.swept = now
		for k, s := range g.sources {
			if s.pending == 0 && s.rate.TokensAt(now) >= float64(s.rate.Burst()) {
				delete(g.sources, k)
			}
		}
	}
	s := g.sources[p]
	if s == nil && len(g.sources) >= maxSources {
		p = netip.Prefix{}
		s = g.sources[p]
	}
	if s == nil {
		s = &source{rate: rate.NewLimiter(rate.Limit(g.perSec), g.burst)}
		g.sources[p] = s
	}
	return s
}
