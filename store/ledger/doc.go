// Package ledger is an append-only Merkle log in the C2SP formats: tlog-tiles, tlog-checkpoint, signed-note, tlog-proof.
//
// Its three nouns: an [Entry] is one canonical JSON object; a [Log] is a sequence of entries in the node's database,
// with its tree (RFC 6962) and the signed [checkpoint] of its size and root; a proof shows that an entry is in the log
// that a checkpoint signs, or that one checkpoint's log is the beginning of another's.
//
// It promises that entries, tiles, root and signed checkpoint of a batch are one transaction with whatever else the
// batch writes; that nothing signed is ever contradicted, whatever crashes; and that anybody can verify an exported log
// with public tools. A [Log] without signer mirrors somebody else's: it takes in only what extends it.
//
// [checkpoint]: https://c2sp.org/tlog-checkpoint
package ledger
