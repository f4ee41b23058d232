// Package member says who belongs to a federation, by whose approval, and with which keys.
//
// Its three nouns: a [SignedRecord] is what an organisation says of itself, signed by its identity key, every key in it
// having proven possession; the governance log is the sequence of entries, from genesis on, that admit records and
// change the charter, each carrying the approvals that the charter asks for, and each certified by the cosignatures of a
// quorum ([Certificate]) before it takes effect; a [Set] is what folding that log gives: the members in force.
//
// It promises default deny: a log that holds anything unproven, out of order or unknown folds to an error, never to a
// set; the federation's id is the hash of its genesis, so that whoever knows the id cannot be shown another log; a chair
// that sequences the log cannot forge what is in it; and no member cosigns two histories, so that a chair that signs two
// can bring one of them into effect at most, and leaves the evidence with whoever sees both ([Fork]).
package member
