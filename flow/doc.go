// Package flow runs workflows that cross organisations.
//
// Its three nouns: a [Definition] is what the participants agree on, pinned by its hash and in force once every
// one of them has signed it; a [Run] is one passage of a document through the definition's steps, driven by the
// initiator and journalled there; an attempt is one execution of a step at the organisation that the definition
// names, journalled there under the idempotency key (initiator, run, step, attempt).
//
// It promises: a step runs only under an agreement in force and only if the executor's own policy allows it; an
// artifact goes straight from its holder to its consumer and only where a data_sharing rule says so, anything else is
// withheld and said so; a result is recorded exactly once, however often its request is delivered; data under
// `no-storage` is held in memory only. Requests, replies and refusals are envelopes in both parties' logs.
package flow
