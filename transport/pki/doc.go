// Package pki makes and verifies the certificates by which organisations know
// each other's nodes. There is no common authority: every organisation is its
// own, and a peer's chain is verified against that organisation's roots alone.
//
// Its nouns:
//
//   - Chain: root → issuing CA → node identity → leaf. Each may only name what
//     the one above permits it to (RFC 5280 section 4.2.1.10).
//   - Name: what a certificate says its holder is: instance, organisation,
//     federation.
//   - Renewer: holds the node's current mTLS leaf and replaces it at half its
//     life, while connections go on.
//
// What a certificate may name:
//
//	root, issuing CA   DNS  org, *.org, and the organisation's domain if it has one
//	                   URI  hosts below org
//	node identity      DNS  instance.org, and the domain
//	                   URI  host instance.org
//	leaf               DNS  instance.org and host names in the domain
//	                   URI  fednode://instance.org/FEDERATION_ID
//
// IP addresses are excluded everywhere. The organisation's identifier is the
// host part of the URI because constraints on URIs bind the host and nothing
// else; the federation, which does not exist yet when a root is made, is the
// path. An identity is an authority for its own instance: path length 0, below
// an issuing CA of path length 1, so that the issuing key need not be on the
// node. A stolen identity key can impersonate this instance and no other.
//
// What it promises:
//
//   - VerifyPeer accepts a leaf for exactly the organisation asked for, at the
//     time given, or says what is wrong, where, and how to mend it.
//   - Foreign bytes are bounded before they are parsed.
//   - TLS is 1.3 with AES-256-GCM or ChaCha20-Poly1305, in every connection of
//     the process; SelfTest proves it at start.
package pki
