// Package compute is the abstract network that joint computations run over. It
// knows parties, not organisations: who they are is the caller's business.
//
// Its nouns:
//
//   - Party: a name and an Ed25519 key. A Roster is the list of those that take
//     part, the same at all of them; protocols count parties by their place in it.
//   - Net: authenticated, ordered, reliable delivery of frames between the parties
//     of a roster. Local is one within a process; DialTCP makes one of TLS 1.3
//     connections, each end known by its party's key.
//   - Session: one run of a protocol over a Net. It turns frames to rounds:
//     Broadcast, Simultaneous, Exchange.
//
// # Rounds
//
// All parties of a session call the same rounds with the same labels in the same
// order, and every round returns one message from every party.
//
//   - Broadcast: every party says the same to all. The messages are signed; then all
//     tell each other what they have heard, and go on only if it was the same
//     (S. Goldwasser and Y. Lindell, "Secure Multi-Party Computation without
//     Agreement", Journal of Cryptology 18 (2005), section 3: broadcast with abort).
//   - Simultaneous: a Broadcast of salted hashes, then of what was hashed, so that
//     nobody's contribution depends on another's.
//   - Exchange: a message of its own for each party, signed, and encrypted to a key
//     that the recipient made for this session (HPKE, RFC 9180, with ML-KEM-768 and
//     X25519, AES-256-GCM). Nobody reads it later from a recorded connection.
//
// # What it promises
//
//   - A session's name is bound to fresh randomness of every party. A message of
//     another session, round, sender or recipient does not verify: replay is refused.
//   - A round ends with an error that names a party (PartyError) when one is missing,
//     sends what does not verify, or says different things to different parties. The
//     signatures of the two contradicting messages are compared, so that a liar can't
//     have an honest party named for that.
//   - No party makes another allocate more than a round's limit, nor wait longer than
//     the session's timeout. After an error a session is over; the others are told
//     which party it was about, and no more.
//   - There is no way to go on without a party: whoever wants to starts another
//     session with another roster.
//
// It does not promise termination (a party can always stop everybody), nor that a
// party that causes ErrMissing is at fault rather than the network.
package compute
