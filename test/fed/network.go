package fed

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"fednode/transport/pipenet"
)

// A Network is a simulated one between the federation's nodes; what breaks in it is the test's choice.
type Network struct {
	simnet.PerfectRouter
	sim     *simnet.Simnet
	streams *pipenet.Network // its TCP

	mu    sync.Mutex
	rng   *rand.Rand
	loss  float64
	delay map[pair]time.Duration
	cut   map[pair]bool
	noUDP map[pair]bool
	noTCP map[pair]bool
	down  map[string]bool
}

type pair struct{ a, b string }

func ordered(a, b string) pair {
	if a > b {
		a, b = b, a
	}
	return pair{a, b}
}

func newNetwork(seed uint64, latency time.Duration) *Network {
	n := &Network{rng: rand.New(rand.NewPCG(seed, 1)), delay: map[pair]time.Duration{}, cut: map[pair]bool{}, noUDP: map[pair]bool{}, noTCP: map[pair]bool{}, down: map[string]bool{}}
	n.sim = &simnet.Simnet{Router: n}
	n.streams = pipenet.New(latency, func(a, b string) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.cut[ordered(a, b)] || n.noTCP[ordered(a, b)] || n.down[a] || n.down[b]
	})
	return n
}

// host is where an organisation is on the network's TCP.
func (n *Network) host(o *Org) *pipenet.Host {
	return n.streams.Host(&net.TCPAddr{IP: o.addr.IP, Port: o.addr.Port})
}

// address is that of the i-th node.
func address(i int) *net.UDPAddr {
	return &net.UDPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i+1)), Port: 443}
}

// SendPacket passes a packet on, late or not at all.
func (n *Network) SendPacket(p simnet.Packet) error {
	n.mu.Lock()
	from, to := place(p.From), place(p.To)
	link := ordered(from, to)
	lost := n.cut[link] || n.noUDP[link] || n.down[from] || n.down[to] || n.loss > 0 && n.rng.Float64() < n.loss
	late := n.delay[link]
	n.mu.Unlock()
	switch {
	case lost:
		return nil
	case late > 0:
		time.AfterFunc(late, func() { _ = n.PerfectRouter.SendPacket(p) })
		return nil
	}
	return n.PerfectRouter.SendPacket(p)
}

// place is the address of the node at whose host a is.
func place(a net.Addr) string {
	if u, ok := a.(*net.UDPAddr); ok {
		return (&net.UDPAddr{IP: u.IP, Port: 443}).String()
	}
	return a.String()
}

func (n *Network) set(fn func()) {
	n.mu.Lock()
	fn()
	n.mu.Unlock()
	n.streams.Wake()
}

// Lose drops each UDP packet with probability p.
func (n *Network) Lose(p float64) { n.set(func() { n.loss = p }) }

// Cut stops all traffic between two organisations, or lets them through again.
func (n *Network) Cut(a, b *Org, cut bool) {
	n.set(func() { n.cut[ordered(a.addr.String(), b.addr.String())] = cut })
}

// BlockUDP leaves two organisations only the TCP lane between them, or lets UDP through again.
func (n *Network) BlockUDP(a, b *Org, blocked bool) {
	n.set(func() { n.noUDP[ordered(a.addr.String(), b.addr.String())] = blocked })
}

// BlockTCP leaves two organisations only QUIC between them, or lets TCP through again.
func (n *Network) BlockTCP(a, b *Org, blocked bool) {
	n.set(func() { n.noTCP[ordered(a.addr.String(), b.addr.String())] = blocked })
}

// Delay adds d to the way of each UDP packet between two organisations, in either direction.
func (n *Network) Delay(a, b *Org, d time.Duration) {
	n.set(func() { n.delay[ordered(a.addr.String(), b.addr.String())] = d })
}

func (n *Network) unplug(o *Org, down bool) { n.set(func() { n.down[o.addr.String()] = down }) }

func simnetSettings(latency time.Duration) simnet.NodeBiDiLinkSettings {
	return simnet.NodeBiDiLinkSettings{Latency: latency}
}
