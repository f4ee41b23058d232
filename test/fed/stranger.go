package fed

import (
	"context"
	"net"

	"fednode/node"
	"fednode/transport"
)

// strangerSockets is how many sockets a stranger dials from in turn: one that was raced against another lane may still
// be closing when the next is needed.
const strangerSockets = 6

// knock gives a stranger the sockets that it dials from.
func (o *Org) knock(i int) {
	o.f.t.Helper()
	for k := range strangerSockets {
		at := *o.addr
		at.Port = 20_000 + k
		o.sockets = append(o.sockets, o.f.Network.sim.NewEndpoint(&at, simnetSettings(o.f.options.Latency)))
	}
}

// leave closes what the organisation has open besides its node.
func (o *Org) leave() {
	if o.site != nil && o.Node == nil && o.stopped == nil && o.hostile == nil { // a node closes its own
		o.f.must(o.site.Close())
	}
	for _, c := range append(o.sockets, o.conn) {
		c.Close()
	}
}

// kept is a socket that outlives who uses it.
type kept struct{ net.PacketConn }

func (kept) Close() error { return nil }

// JoinDialer is what a stranger dials with.
func (o *Org) JoinDialer() transport.JoinDialer {
	return transport.JoinDialer{Stream: o.f.Network.host(o).Dial, Packet: func() (net.PacketConn, error) {
		return kept{o.sockets[o.dials.Add(1)%strangerSockets]}, nil
	}}
}

// Join begins, or goes on, to join with a token.
func (o *Org) Join(token string) (*node.Joiner, error) {
	return o.site.Join(context.Background(), token, o.JoinDialer())
}

// Check has the stranger look whether the two nodes reach each other.
func (o *Org) Check(j *node.Joiner, m *node.Meeting) ([]node.JoinCheck, error) {
	return j.Check(context.Background(), m, kept{o.conn}, o.listen())
}

// Begin has a stranger that is a member now run its node, as one of the federation's.
func (o *Org) Begin() {
	o.f.t.Helper()
	o.start()
	for i, s := range o.f.Strangers {
		if s == o {
			o.f.Strangers = append(o.f.Strangers[:i:i], o.f.Strangers[i+1:]...)
			break
		}
	}
	o.f.Orgs = append(o.f.Orgs, o)
}
