package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// ErrElsewhere is wrapped by the errors of addresses that are not called at the wish of who asks, because it does not come
// from so near itself: what it would learn is not of its network but of this node's.
var ErrElsewhere = errors.New("an address in a network that the asker does not come from")

// A vicinity is how near somebody has to be to mean the same by an address.
type vicinity int

const (
	everywhere vicinity = iota
	private             // RFC 1918, RFC 4193, RFC 6598
	linkLocal           // cloud providers' metadata are there, too
	loopback
	nowhere // no unicast address
)

func vicinityOf(a netip.Addr) vicinity {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	switch a = a.Unmap(); {
	case !a.IsValid(), a.IsUnspecified(), a.IsMulticast(), a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
		return nowhere
	case a.IsLoopback():
		return loopback
	case a.IsLinkLocalUnicast():
		return linkLocal
	case a.IsPrivate(), shared.Contains(a):
		return private
	}
	return everywhere
}

// forAsker returns the addresses that this node calls at the wish of who is at asker, for whom an address says the same
// there as here. Without an asker the wish is this node's own.
func forAsker(asker net.Addr, addrs []net.Addr) (out []net.Addr) {
	if asker == nil {
		return addrs
	}
	near := vicinityOf(addrIP(asker))
	if near == nowhere {
		near = everywhere
	}
	for _, a := range addrs {
		if v := vicinityOf(addrIP(a)); v <= near && v != nowhere {
			out = append(out, a)
		}
	}
	return out
}

// resolveFor resolves an endpoint at the wish of who is at asker.
func (n *Node) resolveFor(ctx context.Context, asker net.Addr, endpoint string) ([]net.Addr, error) {
	addrs, err := n.c.Resolve(ctx, endpoint)
	if err != nil || len(addrs) == 0 {
		return nil, err
	}
	if addrs = forAsker(asker, addrs); len(addrs) == 0 {
		return nil, ErrElsewhere
	}
	return addrs, nil
}
