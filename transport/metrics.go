package transport

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// meters are the node's metrics. Labels come from the member set and from registered message types only, so that no
// peer can grow their number.
type meters struct{ set *metrics.Set }

func (m meters) requests(direction string, org OrgID, messageType string, c Code) {
	if c == "" {
		c = "ok"
	}
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_requests_total{direction=%q,organization=%q,type=%q,result=%q}`, direction, org, messageType, c)).Inc()
}

func (m meters) latency(org OrgID, messageType string, d time.Duration) {
	m.set.GetOrCreateHistogram(fmt.Sprintf(`fednode_transport_call_seconds{organization=%q,type=%q}`, org, messageType)).Update(d.Seconds())
}

// rejected counts what could not be attributed to a signed envelope.
func (m meters) rejected(org OrgID, c Code) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_rejected_total{organization=%q,code=%q}`, org, c)).Inc()
}

func (m meters) handshake(result string) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_handshakes_total{result=%q}`, result)).Inc()
}

// joins counts strangers' requests.
func (m meters) joins(lane Lane, c Code) {
	if c == "" {
		c = "ok"
	}
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_joins_total{lane=%q,result=%q}`, lane, c)).Inc()
}

func (m meters) connections(delta int) {
	m.set.GetOrCreateCounter(`fednode_transport_connections`).Add(delta)
}

func (m meters) evidence(org OrgID, kind string) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_evidence_total{organization=%q,kind=%q}`, org, kind)).Inc()
}

// transfer counts the bytes and time of artifact streams, whole or not.
func (m meters) transfer(direction string, org OrgID, bytes int64, d time.Duration) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_artifact_bytes_total{direction=%q,organization=%q}`, direction, org)).AddInt64(bytes)
	m.set.GetOrCreateHistogram(fmt.Sprintf(`fednode_transport_artifact_seconds{direction=%q,organization=%q}`, direction, org)).Update(d.Seconds())
}
