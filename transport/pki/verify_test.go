package pki

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/binary"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestVerifyPeerRefusals(t *testing.T) {
	a, b := newOrganisation(t, "org-a", "", testNow), newOrganisation(t, "org-b", "", testNow)
	chainA, chainB := a.chain(t, testNow), b.chain(t, testNow)
	above := []*x509.Certificate{a.identity, a.issuing}
	forged := func(alter func(*x509.Certificate)) [][]byte {
		leaf, _ := forge(t, a.name(), a.identity, a.identityKey, alter)
		return raw(append([]*x509.Certificate{leaf}, above...)...)
	}
	if _, err := VerifyPeer(forged(nil), a.roots(), "org-a", testFederation, testNow); err != nil {
		t.Fatalf("the forge is broken: %v", err)
	}
	fednodeURL := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}

	// A chain of org-a's authorities for a name of org-b.
	leafForB, _ := forge(t, b.name(), a.identity, a.identityKey, nil)
	leafForBByCA, _ := forge(t, b.name(), a.issuing, a.issuingKey, nil)
	// A leaf of another instance by node1's identity.
	other := a.name()
	other.Instance = "node2"
	leafForNode2, _ := forge(t, other, a.identity, a.identityKey, nil)
	// A leaf for org-a by org-b's authorities, whose constraints forbid it.
	leafByB, _ := forge(t, a.name(), b.issuing, b.issuingKey, nil)
	// A leaf as authority.
	leaf, leafKey := forge(t, a.name(), a.identity, a.identityKey, nil)
	leafByLeaf, _ := forge(t, a.name(), leaf, leafKey, nil)
	// An identity as authority of another identity: path length.
	second, secondKey := forge(t, a.name(), a.identity, a.identityKey, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature, nil
		c.MaxPathLenZero = true
	})
	leafBySecond, _ := forge(t, a.name(), second, secondKey, nil)
	p521, _ := forgeWith(t, newKey(t, elliptic.P521()), a.name(), a.identity, a.identityKey, nil)
	selfSigned, selfKey := forge(t, a.name(), a.identity, a.identityKey, nil)
	selfSigned, _ = forgeWith(t, selfKey, a.name(), selfSigned, selfKey, func(c *x509.Certificate) { c.Subject = selfSigned.Subject })
	altered := bytes.Clone(chainA[0])
	altered[len(altered)-1] ^= 1

	tests := []struct {
		name  string
		chain [][]byte
		roots []*x509.Certificate
		org   string
		fed   string
		now   time.Time
		class error
		text  string
	}{
		{"none", nil, a.roots(), "org-a", "", testNow, ErrMalformed, "presented none"},
		{"too many", append(append([][]byte{}, chainA...), chainA...), a.roots(), "org-a", "", testNow, ErrMalformed, "at most 4"},
		{"too large", [][]byte{chainA[0], make([]byte, MaxChainBytes)}, a.roots(), "org-a", "", testNow, ErrMalformed, "at most 65536"},
		{"not a certificate", [][]byte{[]byte("hello")}, a.roots(), "org-a", "", testNow, ErrMalformed, "certificate 1 of 1"},
		{"trailing bytes", [][]byte{append(bytes.Clone(chainA[0]), 0)}, a.roots(), "org-a", "", testNow, ErrMalformed, ""},
		{"out of order", [][]byte{chainA[0], chainA[2], chainA[1]}, a.roots(), "org-a", "", testNow, ErrMalformed, "in this order"},
		{"signature altered", [][]byte{altered, chainA[1], chainA[2]}, a.roots(), "org-a", "", testNow, ErrAuthority, ""},
		{"foreign root", chainA, b.roots(), "org-a", "", testNow, ErrAuthority, "member record"},
		{"foreign root comes along", append(append([][]byte{}, chainB...), b.root.Raw), a.roots(), "org-b", "", testNow, ErrAuthority, ""},
		{"no roots", chainA, nil, "org-a", "", testNow, ErrAuthority, "is it a member?"},
		{"issuing CA missing", chainA[:2], a.roots(), "org-a", "", testNow, ErrAuthority, ""},
		{"leaf alone", chainA[:1], a.roots(), "org-a", "", testNow, ErrAuthority, ""},
		{"another organisation", chainB, b.roots(), "org-a", "", testNow, ErrName, "it names node1.org-b of org-b"},
		{"another federation", chainA, a.roots(), "org-a", "beef", testNow, ErrName, "beef"},
		{"leaf expired", chainA, a.roots(), "org-a", "", testNow.Add(25 * time.Hour), ErrExpired, "leaf of node1.org-a expired at 2026-03-02T12:00:00Z, it is 2026-03-02T13:00:00Z here; its node must renew: check its clock and `fednode status`"},
		{"leaf not yet valid", chainA, a.roots(), "org-a", "", testNow.Add(-time.Hour), ErrNotYetValid, "valid from 2026-03-01T11:55:00Z to 2026-03-02T12:00:00Z, it is 2026-03-01T11:00:00Z here"},
		{"identity expired", raw(forged1(t, a, testNow.AddDate(2, 0, 0)), a.identity, a.issuing), a.roots(), "org-a", "", testNow.AddDate(2, 0, 0), ErrExpired, "the identity of node1.org-a"},
		{"constraint: name of org-b by org-a's identity", raw(leafForB, a.identity, a.issuing), a.roots(), "org-b", "", testNow, ErrAuthority, "not permitted"},
		{"constraint: name of org-b by org-a's issuing CA", raw(leafForBByCA, a.issuing), a.roots(), "org-b", "", testNow, ErrAuthority, "not permitted"},
		{"constraint: another instance", raw(leafForNode2, a.identity, a.issuing), a.roots(), "org-a", "", testNow, ErrAuthority, "not permitted"},
		{"constraint: IP address", forged(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }), a.roots(), "org-a", "", testNow, ErrAuthority, "not permitted"},
		{"constraint: IPv6 address", forged(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv6loopback} }), a.roots(), "org-a", "", testNow, ErrAuthority, "not permitted"},
		{"constraint: host name elsewhere", forged(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "example.org") }), a.roots(), "org-a", "", testNow, ErrAuthority, "not permitted"},
		{"constraint: e-mail address elsewhere", forged(func(c *x509.Certificate) { c.EmailAddresses = []string{"x@example.org"} }), a.roots(), "org-a", "", testNow, ErrAuthority, "not permitted"},
		{"leaf by another organisation's CA, own roots", raw(leafByB, b.issuing), a.roots(), "org-a", "", testNow, ErrAuthority, ""},
		{"leaf by another organisation's CA, its roots", raw(leafByB, b.issuing), b.roots(), "org-a", "", testNow, ErrAuthority, "not permitted"},
		{"leaf as authority", raw(leafByLeaf, leaf, a.identity, a.issuing), a.roots(), "org-a", "", testNow, ErrAuthority, "not a CA"},
		{"identity certifies identity", raw(leafBySecond, second, a.identity, a.issuing), a.roots(), "org-a", "", testNow, ErrAuthority, ""},
		{"self-signed", raw(selfSigned), a.roots(), "org-a", "", testNow, ErrAuthority, ""},
		{"identity as leaf", raw(a.identity, a.issuing), a.roots(), "org-a", "", testNow, ErrUsage, "no leaf"},
		{"root as leaf", raw(a.root), a.roots(), "org-a", "", testNow, ErrName, ""},
		{"no client authentication", forged(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), a.roots(), "org-a", "", testNow, ErrUsage, "extended key usages"},
		{"no server authentication", forged(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), a.roots(), "org-a", "", testNow, ErrUsage, "extended key usages"},
		{"no extended key usage", forged(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), a.roots(), "org-a", "", testNow, ErrUsage, "extended key usages"},
		{"no digital signature", forged(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), a.roots(), "org-a", "", testNow, ErrUsage, "no leaf"},
		{"curve P-521", raw(p521, a.identity, a.issuing), a.roots(), "org-a", "", testNow, ErrMalformed, "P-521"},
		{"no URI", forged(func(c *x509.Certificate) { c.URIs = nil }), a.roots(), "org-a", "", testNow, ErrName, "no fednode:// name"},
		{"two URIs", forged(func(c *x509.Certificate) { c.URIs = append(c.URIs, fednodeURL("fednode://node2.org-a")) }), a.roots(), "org-a", "", testNow, ErrName, "more than one"},
		{"no DNS name", forged(func(c *x509.Certificate) { c.DNSNames = []string{"x.org-a"} }), a.roots(), "org-a", "", testNow, ErrName, "not the DNS name"},
		{"URI with a port", forged(func(c *x509.Certificate) { c.URIs = []*url.URL{fednodeURL("fednode://node1.org-a:1/x")} }), a.roots(), "org-a", "", testNow, ErrName, ""},
		{"URI with a user", forged(func(c *x509.Certificate) { c.URIs = []*url.URL{fednodeURL("fednode://u@node1.org-a/x")} }), a.roots(), "org-a", "", testNow, ErrName, "one form"},
		{"URI with a query", forged(func(c *x509.Certificate) { c.URIs = []*url.URL{fednodeURL("fednode://node1.org-a/x?y")} }), a.roots(), "org-a", "", testNow, ErrName, "one form"},
		{"URI below the instance", forged(func(c *x509.Certificate) { c.URIs = []*url.URL{fednodeURL("fednode://x.node1.org-a/x")} }), a.roots(), "org-a", "", testNow, ErrName, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaf, err := VerifyPeer(tt.chain, tt.roots, tt.org, tt.fed, tt.now)
			if leaf != nil {
				t.Error("a leaf in spite of the error")
			}
			wantError(t, err, tt.class, tt.text)
		})
	}
}

// forged1 makes a leaf that is valid at now though its identity may not be.
func forged1(t *testing.T, o *organisation, now time.Time) *x509.Certificate {
	leaf, _ := forge(t, o.name(), o.identity, o.identityKey, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
	})
	return leaf
}

func TestVerifyPeerWithSeveralRoots(t *testing.T) {
	old := newOrganisation(t, "org-a", "", testNow.AddDate(-11, 0, 0)) // expired a year ago
	current := newOrganisation(t, "org-a", "", testNow)
	next := newOrganisation(t, "org-a", "", testNow)
	roots := []*x509.Certificate{old.root, current.root, next.root}
	for _, o := range []*organisation{current, next} {
		if _, err := VerifyPeer(o.chain(t, testNow), roots, "org-a", testFederation, testNow); err != nil {
			t.Error(err)
		}
	}
	_, err := VerifyPeer(current.chain(t, testNow), []*x509.Certificate{old.root}, "org-a", "", testNow)
	wantError(t, err, ErrExpired, "root of org-a")
}

// Certificates written by an earlier build keep verifying.
func TestGoldenChain(t *testing.T) {
	roots, chain := golden(t)
	leaf, err := VerifyPeer(chain, roots, "org-a", testFederation, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := ParseName(leaf); err != nil || name.Host() != "node1.org-a" {
		t.Error(name, err)
	}
	if err := CheckRoot(roots[0], "org-a", "org-a.example", testNow); err != nil {
		t.Error(err)
	}
}

func golden(t testing.TB) (roots []*x509.Certificate, chain [][]byte) {
	t.Helper()
	roots, err := LoadCertificates(filepath.Join("testdata", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := LoadCertificates(filepath.Join("testdata", "peer.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return roots, raw(certs...)
}

// encodeChain and decodeChain give the fuzzer one byte string per chain.
func encodeChain(chain [][]byte) (out []byte) {
	for _, der := range chain {
		out = binary.BigEndian.AppendUint32(out, uint32(len(der)))
		out = append(out, der...)
	}
	return out
}

func decodeChain(b []byte) (chain [][]byte) {
	for len(b) >= 4 {
		n := min(int(binary.BigEndian.Uint32(b)), len(b)-4)
		chain, b = append(chain, b[4:4+n]), b[4+n:]
	}
	return chain
}

func FuzzVerifyPeer(f *testing.F) {
	roots, chain := golden(f)
	want, err := x509.ParseCertificate(chain[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeChain(chain))
	f.Add(encodeChain(append(chain, roots[0].Raw)))
	f.Add(encodeChain(chain[1:]))
	f.Add(encodeChain(chain[:1]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		leaf, err := VerifyPeer(decodeChain(b), roots, "org-a", testFederation, testNow)
		if (err == nil) != (leaf != nil) {
			t.Fatalf("leaf and error: %v", err)
		}
		// Nobody here can sign, so only the one leaf can pass.
		if err == nil && !bytes.Equal(leaf.RawTBSCertificate, want.RawTBSCertificate) {
			t.Error("a forged leaf passes")
		}
	})
}

func FuzzParseCertificates(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "peer.pem"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := ParseCertificates(b)
		if err != nil {
			return
		}
		again, err := ParseCertificates(EncodeCertificates(certs...))
		if err != nil || len(again) != len(certs) {
			t.Errorf("%d certificates, %d after encoding them again: %v", len(certs), len(again), err)
		}
	})
}

func BenchmarkVerifyPeer(b *testing.B) {
	o := newOrganisation(b, "org-a", "", testNow)
	chain := o.chain(b, testNow)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyPeer(chain, o.roots(), "org-a", testFederation, testNow); err != nil {
			b.Fatal(err)
		}
	}
}
