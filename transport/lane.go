package transport

// A Lane is one of the two ways between nodes. Identities, checks, frames, limits and codes are the same on both.
type Lane string

const (
	LaneQUIC Lane = "quic" // QUIC over UDP: what is used where it works
	LaneTCP  Lane = "tcp"  // HTTP/2 over TLS over TCP, same port: where UDP is blocked
)
