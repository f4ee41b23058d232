package pki

import (
	"crypto/tls"
	_ "unsafe" // for go:linkname
)

// crypto/tls has no setting for TLS 1.3 cipher suites, so these two lists of its
// own are replaced. It marks them for linkname and promises to keep their names
// and types (go.dev/issue/67401). They are the one global of fednode: they hold
// for every connection of the process, QUIC included. SelfTest notices if a new
// Go release stops honouring them.

//go:linkname defaultCipherSuitesTLS13 crypto/tls.defaultCipherSuitesTLS13
var defaultCipherSuitesTLS13 []uint16

//go:linkname defaultCipherSuitesTLS13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var defaultCipherSuitesTLS13NoAES []uint16

// init runs before any goroutine could handshake, so nothing races with it and
// nobody can forget it. The lists are orders of preference, with and without
// AES instructions.
func init() {
	defaultCipherSuitesTLS13 = []uint16{tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}
	defaultCipherSuitesTLS13NoAES = []uint16{tls.TLS_CHACHA20_POLY1305_SHA256, tls.TLS_AES_256_GCM_SHA384}
}
