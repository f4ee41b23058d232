// Package transport carries signed requests, replies and refusals between organisations.
//
// Its three nouns: an [Envelope] is one signed message, with the payload bound to the signature by a salted commitment,
// so that its ledger form verifies alone and forgetting payload and salt really forgets. A [Node] is this
// organisation's end of the mesh: it calls others ([Node.Call], [Node.Fetch]) and serves their messages to a [Handler]
// by message type. An [Error] with a [Code] is all that leaves a node when something is refused.
//
// It promises:
//
//   - Who: QUIC with mutual TLS 1.3, each peer verified against its own organisation's roots only, membership checked
//     for every request; a peer that leaves the member set is cut off.
//   - What: an envelope is refused unless its sender is the mTLS peer, its signature verifies under a key of the
//     sender's member record, it is for this node, this federation and this minute, and it was never seen before, also
//     not before a restart.
//   - On record: a request, reply or refusal is an entry of the sender's log before it is released, and travels with
//     its proof of inclusion; the receiver keeps both as a [Receipt] in the transaction that accepts it.
//   - Bounds: every size, rate, number and time that a peer could stretch has a limit, see [Limits].
//
// Artifacts never ride in envelopes: [Node.Fetch] streams them, resumable and in bounded memory.
package transport
