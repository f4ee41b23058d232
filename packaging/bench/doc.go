// Package bench measures fednode's parts beside their peers, the same work in the same run. It is a module of its own, so
// that none of the peers gets near the product's dependencies.
//
// Its three nouns: a part of fednode, through its exported interface; a peer, which does the same work as its users know
// it; the ratio of the two, which holds on a machine that others use meanwhile, where single times do not.
//
// It promises that peers get the configuration that serves them best within the same promise to their caller.
package bench
