// Package invite is how a stranger proves to a member that it was invited, and the member to the stranger that it is the
// one.
//
// Its three nouns: a [Token] is what the inviter hands over, once, on any way that the two already have: who is invited
// to which federation, by whom, where that is, and a secret; the words are three that either side derives from the token,
// and that people compare; a [Request] is what the holder of a token asks of the inviter's node, bound to the token's
// secret and to the TLS session.
//
// It promises that a token which was altered is not taken: mistakes are found at once, alterations by the inviter's
// signature and by its node; that the secret never crosses the network; that tokens and secrets don't print; and that
// a false federation whose words are the same costs 2^32 derivations of 32 MiB each to find, on average.
package invite
