// Package test holds what is tested about fednode as a whole.
//
// Its three nouns: the layering, the package docs, and the federation in test/fed and test/script. It promises that
// what ARCHITECTURE says of the house is so.
package test
