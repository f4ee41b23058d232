package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSelfTest(t *testing.T) {
	if err := SelfTest(); err != nil {
		t.Fatal(err)
	}
}

// With crypto/tls's own lists back in place the self-test must fail.
func TestSelfTestNoticesAES128(t *testing.T) {
	withAES, withoutAES := defaultCipherSuitesTLS13, defaultCipherSuitesTLS13NoAES
	defer func() { defaultCipherSuitesTLS13, defaultCipherSuitesTLS13NoAES = withAES, withoutAES }()
	all := []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}
	defaultCipherSuitesTLS13, defaultCipherSuitesTLS13NoAES = all, all
	if err := SelfTest(); err == nil || !strings.Contains(err.Error(), "TLS_AES_128_GCM_SHA256") {
		t.Errorf("self-test with AES-128-GCM offered: %v", err)
	}
	_, _, answer, _ := handshakeInMemory(offerOnlyAES128)
	if len(answer) == 0 || isHandshakeFailure(answer) {
		t.Errorf("an unrestricted server refuses AES-128-GCM, so the test proves nothing: %x", answer)
	}
}

func TestOfferOnlyAES128RefusesShortInput(t *testing.T) {
	hello := make([]byte, 200)
	for n := range 60 {
		if n >= recordHeaderSize+4+2+32+3 {
			break
		}
		if _, err := offerOnlyAES128(hello[:n]); err == nil {
			t.Errorf("%d bytes taken for a ClientHello", n)
		}
	}
	hello[recordHeaderSize+4+2+32] = 255
	if _, err := offerOnlyAES128(hello); err == nil {
		t.Error("session ID beyond the end")
	}
}

// end returns one side's TLS configuration: it presents r's leaf and verifies
// the peer against the organisation it expects.
func end(r *Renewer, peer *organisation, now func() time.Time) *tls.Config {
	c := BaseTLS()
	c.GetCertificate, c.GetClientCertificate = r.GetCertificate, r.GetClientCertificate
	c.ClientAuth, c.InsecureSkipVerify = tls.RequireAnyClientCert, true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := VerifyPeer(raw(cs.PeerCertificates...), peer.roots(), peer.id, testFederation, now())
		return err
	}
	return c
}

// queuedConn writes without waiting for the reader. On a bare net.Pipe a client
// that sends an alert while the server is still sending would wait for ever.
type queuedConn struct {
	net.Conn
	queue chan []byte
}

func (c queuedConn) Write(p []byte) (int, error) {
	c.queue <- slices.Clone(p)
	return len(p), nil
}

func handshake(client, server *tls.Config) (cs tls.ConnectionState, clientErr, serverErr error) {
	clientEnd, b := net.Pipe()
	a := queuedConn{clientEnd, make(chan []byte, 100)}
	go func() {
		for p := range a.queue {
			clientEnd.Write(p)
		}
	}()
	defer close(a.queue)
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(b, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		b.Close()
		done <- err
	}()
	conn := tls.Client(a, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	a.Close()
	return conn.ConnectionState(), clientErr, <-done
}

func TestHandshakeVerifiesBothSides(t *testing.T) {
	now := func() time.Time { return testNow }
	a, b, c := newOrganisation(t, "org-a", "", testNow), newOrganisation(t, "org-b", "", testNow), newOrganisation(t, "org-c", "", testNow)
	ra, rb := a.renewer(t, now), b.renewer(t, now)
	cs, clientErr, serverErr := handshake(end(ra, b, now), end(rb, a, now))
	if clientErr != nil || serverErr != nil {
		t.Fatal(clientErr, serverErr)
	}
	if cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x, key exchange %s", cs.Version, cs.CurveID)
	}
	if !slices.Contains([]uint16{tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}, cs.CipherSuite) {
		t.Errorf("suite %s", tls.CipherSuiteName(cs.CipherSuite))
	}
	_, clientErr, _ = handshake(end(ra, c, now), end(rb, a, now))
	wantError(t, clientErr, ErrName)
	_, _, serverErr = handshake(end(ra, b, now), end(rb, c, now))
	wantError(t, serverErr, ErrName)
	old := end(ra, b, now)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, serverErr = handshake(old, end(rb, a, now)); serverErr == nil {
		t.Error("a TLS 1.2 handshake succeeded")
	}
	none := end(ra, b, now)
	none.GetClientCertificate = nil
	if _, _, serverErr = handshake(none, end(rb, a, now)); serverErr == nil {
		t.Error("a client without certificate was accepted")
	}
}

func TestSaveAndLoadCertificates(t *testing.T) {
	o := newOrganisation(t, "org-a", "", testNow)
	path := filepath.Join(t.TempDir(), "chain.pem")
	for _, certs := range [][]*x509.Certificate{{o.root}, {o.identity, o.issuing}} { // the second replaces
		if err := SaveCertificates(path, certs...); err != nil {
			t.Fatal(err)
		}
		got, err := LoadCertificates(path)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, certs, (*x509.Certificate).Equal) {
			t.Error("other certificates came back")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := LoadCertificates(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := SaveCertificates(filepath.Join(path, "x"), o.root); err == nil {
		t.Error("saved below a file")
	}
}

func TestParseCertificatesRefusals(t *testing.T) {
	o := newOrganisation(t, "org-a", "", testNow)
	one := string(EncodeCertificates(o.root))
	for name, text := range map[string]string{
		"empty":       "",
		"no PEM":      "hello",
		"other block": one + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"garbage":     "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"cut":         one + one[:len(one)/2],
		"too many":    strings.Repeat(one, maxFileCertificates+1),
		"too long":    one + strings.Repeat("\n", MaxChainBytes),
	} {
		_, err := ParseCertificates([]byte(text))
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if certs, err := ParseCertificates([]byte("subject: x\n" + one + "issuer: y\n" + one)); err != nil || len(certs) != 2 {
		t.Errorf("text between certificates: %d, %v", len(certs), err)
	}
}
