package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// BaseTLS returns what every TLS configuration of the node starts from, for the
// caller to complete: TLS 1.3 only; the hybrid X25519MLKEM768 first, then X25519
// and P-384; no session tickets, because a resumed session would skip the
// verification of a certificate that has been revoked since.
func BaseTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP384},
		SessionTicketsDisabled: true,
	}
}

// selfTestTimeout ends a handshake in memory that got stuck.
const selfTestTimeout = 10 * time.Second

// SelfTest proves with two handshakes in memory that this process's TLS neither
// offers nor accepts any suite but AES-256-GCM and ChaCha20-Poly1305. A node
// calls it at start and does not start if it fails. It takes a few milliseconds.
func SelfTest() error {
	offered, serverErr, _, err := handshakeInMemory(nil)
	if err = errors.Join(err, serverErr); err != nil {
		return fmt.Errorf("TLS self-test: handshake: %w", err)
	}
	for _, suite := range offered {
		if suite != tls.TLS_AES_256_GCM_SHA384 && suite != tls.TLS_CHACHA20_POLY1305_SHA256 {
			return fmt.Errorf("TLS self-test: the client offers %s: this Go release ignores the suite restriction; build with another", tls.CipherSuiteName(suite))
		}
	}
	if len(offered) == 0 {
		return errors.New("TLS self-test: the client offers no cipher suite")
	}
	_, serverErr, answer, _ := handshakeInMemory(offerOnlyAES128)
	if serverErr == nil || !isHandshakeFailure(answer) {
		return errors.New("TLS self-test: the server does not refuse a client with AES-128-GCM only: this Go release ignores the suite restriction; build with another")
	}
	return nil
}

// handshakeInMemory lets a client and a server of this process shake hands. It
// returns the suites the server was offered, the server's error, the first bytes
// it answered with, and any other error. rewrite, unless nil, alters the client's
// first flight on its way.
func handshakeInMemory(rewrite func([]byte) ([]byte, error)) (offered []uint16, serverErr error, answer []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	const name = "self-test"
	now := time.Now()
	template := &x509.Certificate{DNSNames: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, nil, err
	}
	clientConfig, serverConfig := BaseTLS(), BaseTLS()
	clientConfig.ServerName, clientConfig.RootCAs = name, x509.NewCertPool()
	clientConfig.RootCAs.AddCert(cert)
	serverConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	serverConfig.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered = slices.Clone(hello.CipherSuites)
		return nil, nil
	}
	clientEnd, serverEnd := net.Pipe()
	wire := &rewritingConn{Conn: clientEnd, rewrite: rewrite}
	deadline := now.Add(selfTestTimeout)
	err = errors.Join(clientEnd.SetDeadline(deadline), serverEnd.SetDeadline(deadline))
	done := make(chan error, 1)
	go func() {
		defer serverEnd.Close()
		done <- tls.Server(serverEnd, serverConfig).Handshake()
	}()
	err = errors.Join(err, tls.Client(wire, clientConfig).Handshake())
	clientEnd.Close()
	serverErr = <-done
	return offered, serverErr, wire.answer, err
}

// rewritingConn alters the first write and keeps the first bytes read.
type rewritingConn struct {
	net.Conn
	rewrite func([]byte) ([]byte, error)
	answer  []byte
}

const recordHeaderSize, alertRecordSize = 5, 7

func (c *rewritingConn) Write(p []byte) (int, error) {
	if c.rewrite == nil {
		return c.Conn.Write(p)
	}
	altered, err := c.rewrite(p)
	c.rewrite = nil
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(altered)
}

func (c *rewritingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if missing := alertRecordSize - len(c.answer); missing > 0 {
		c.answer = append(c.answer, p[:min(n, missing)]...)
	}
	return n, err
}

// offerOnlyAES128 replaces every cipher suite in a record that holds a
// ClientHello (RFC 8446 section 4.1.2) by TLS_AES_128_GCM_SHA256. The length
// stays the same.
func offerOnlyAES128(record []byte) ([]byte, error) {
	const sessionID = recordHeaderSize + 4 + 2 + 32 // handshake header, version, random
	out := bytes.Clone(record)
	if len(out) <= sessionID {
		return nil, errors.New("ClientHello too short")
	}
	at := sessionID + 1 + int(out[sessionID])
	if len(out) < at+2 {
		return nil, errors.New("ClientHello too short")
	}
	end := at + 2 + int(binary.BigEndian.Uint16(out[at:]))
	if len(out) < end {
		return nil, errors.New("ClientHello too short")
	}
	for at += 2; at+1 < end; at += 2 {
		binary.BigEndian.PutUint16(out[at:], tls.TLS_AES_128_GCM_SHA256)
	}
	return out, nil
}

// isHandshakeFailure reports whether the bytes are a plaintext record with the
// fatal alert handshake_failure (RFC 8446 section 6.2).
func isHandshakeFailure(record []byte) bool {
	const alertRecord, fatal, handshakeFailure = 21, 2, 40
	return len(record) == alertRecordSize && record[0] == alertRecord && record[5] == fatal && record[6] == handshakeFailure
}
