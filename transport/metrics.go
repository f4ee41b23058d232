package transport

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// meters are the node's metrics. Labels come from the member set and from registered message types only, so that no
// peer can grow their number.
type meters struct{ set *metrics.Set }

func (m meters) requests(direction string, org OrgID, lane Lane, messageType string, c Code) {
	if c == "" {
		c = "ok"
	}
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_requests_total{direction=%q,organization=%q,lane=%q,type=%q,result=%q}`, direction, org, lane, messageType, c)).Inc()
}

func (m meters) latency(org OrgID, lane Lane, messageType string, d time.Duration) {
	m.set.GetOrCreateHistogram(fmt.Sprintf(`fednode_transport_call_seconds{organization=%q,lane=%q,type=%q}`, org, lane, messageType)).Update(d.Seconds())
}

// rejected counts what could not be attributed to a signed envelope.
func (m meters) rejected(org OrgID, lane Lane, c Code) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_rejected_total{organization=%q,lane=%q,code=%q}`, org, lane, c)).Inc()
}

func (m meters) handshake(lane Lane, result string) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_handshakes_total{lane=%q,result=%q}`, lane, result)).Inc()
}

// lane counts when calls to org came to go over a lane.
func (m meters) lane(org OrgID, lane Lane) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_lane_changes_total{organization=%q,lane=%q}`, org, lane)).Inc()
}

// joins counts strangers' requests.
func (m meters) joins(lane Lane, c Code) {
	if c == "" {
		c = "ok"
	}
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_joins_total{lane=%q,result=%q}`, lane, c)).Inc()
}

func (m meters) connections(lane Lane, delta int) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_connections{lane=%q}`, lane)).Add(delta)
}

func (m meters) evidence(org OrgID, kind string) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_evidence_total{organization=%q,kind=%q}`, org, kind)).Inc()
}

// transfer counts the bytes and time of artifact streams, whole or not.
func (m meters) transfer(direction string, org OrgID, lane Lane, bytes int64, d time.Duration) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`fednode_transport_artifact_bytes_total{direction=%q,organization=%q,lane=%q}`, direction, org, lane)).AddInt64(bytes)
	m.set.GetOrCreateHistogram(fmt.Sprintf(`fednode_transport_artifact_seconds{direction=%q,organization=%q,lane=%q}`, direction, org, lane)).Update(d.Seconds())
}
