//go:build e2e

package netns

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"fednode/transport"
)

// traffic returns the bytes that have passed an organisation's network card so far, in both directions, frames included.
func (l *lab) traffic(id transport.OrgID) (total int64) {
	l.t.Helper()
	for _, direction := range []string{"rx_bytes", "tx_bytes"} {
		out, err := l.inside(id, "cat", "/sys/class/net/eth0/statistics/"+direction).Output()
		if err != nil {
			l.t.Fatal(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			l.t.Fatal(err)
		}
		total += n
	}
	return total
}

// TestIdleTraffic prints what a federation that does nothing costs on the network and in memory: connections that are
// kept alive, until they are let go of after ten minutes. (What the chair has confirmed every hour comes on top.)
func TestIdleTraffic(t *testing.T) {
	const (
		settled = 45 * time.Second // QUIC has found out the size of packets by then
		span    = 30 * time.Second // three periods of keeping alive
	)
	l := newLab(t, 3)
	l.startAll()
	l.await("everybody to be reached", func() bool {
		out := l.must("org-a", "status")
		return strings.Count(out, "now, for") == 2
	})
	time.Sleep(settled)
	before := map[transport.OrgID]int64{}
	for _, o := range l.plan.Orgs {
		before[o.ID] = l.traffic(o.ID)
	}
	from := time.Now()
	time.Sleep(span)
	for _, o := range l.plan.Orgs {
		bytes, took := l.traffic(o.ID)-before[o.ID], time.Since(from).Seconds()
		others := len(l.plan.Orgs) - 1
		t.Logf("figures: %s idle: %.0f bytes/s in all, %.0f bytes/s for each other member; RSS %d MB", o.ID, float64(bytes)/took, float64(bytes)/took/float64(others), l.memory(o.ID, "VmRSS")>>10)
		if bytes == 0 {
			t.Errorf("%s exchanged nothing: the connections were not kept alive", o.ID)
		}
	}
}
