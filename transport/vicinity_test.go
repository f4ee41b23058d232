package transport

import (
	"net"
	"net/netip"
	"testing"
)

// TestNobodyLooksAroundHereFromAfar: a peer that names addresses of its own has none called that are nearer to this node
// than it is.
func TestNobodyLooksAroundHereFromAfar(t *testing.T) {
	from := []string{"192.0.2.1", "10.1.2.3", "169.254.7.7", "127.0.0.9"} // farther to nearer
	for target, nearest := range map[string]int{
		"198.51.100.7": 0, "2001:db8::1": 0, "172.32.0.1": 0, "100.128.0.1": 0,
		"10.0.0.1": 1, "172.16.0.1": 1, "192.168.1.1": 1, "100.64.0.1": 1, "fd00::1": 1, "::ffff:10.0.0.1": 1,
		"169.254.169.254": 2, "fe80::1%eth0": 2,
		"127.0.0.1": 3, "::1": 3, "::ffff:127.0.0.1": 3,
		"0.0.0.0": 4, "::": 4, "224.0.0.1": 4, "ff02::1": 4, "255.255.255.255": 4, "0.1.2.3": 4, "240.0.0.1": 4,
	} {
		a := net.Addr(net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(target), 22)))
		for i, f := range from {
			asker := &net.TCPAddr{IP: net.ParseIP(f)}
			if got := len(forAsker(asker, []net.Addr{a})) == 1; got != (i >= nearest) {
				t.Errorf("at the wish of %s, %s is called: %v", f, target, got)
			}
		}
		if len(forAsker(&net.UnixAddr{}, []net.Addr{a})) == 1 && nearest > 0 {
			t.Errorf("%s is called at the wish of somebody without an address", target)
		}
		if len(forAsker(nil, []net.Addr{a})) != 1 {
			t.Errorf("%s is not called at the node's own wish", target)
		}
	}
}
