package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

const testFederation = "3f0c0a5f7f6f5d0e4c8b1a2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5"

// testNow is when test certificates are made.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// organisation is everything an organisation with one node has.
type organisation struct {
	id, domain                       string
	rootKey, issuingKey, identityKey *ecdsa.PrivateKey
	root, issuing, identity          *x509.Certificate
}

func newOrganisation(t testing.TB, id, domain string, now time.Time) *organisation {
	t.Helper()
	o := &organisation{id: id, domain: domain, rootKey: newKey(t, elliptic.P384()), issuingKey: newKey(t, elliptic.P384()), identityKey: newKey(t, elliptic.P384())}
	var err error
	if o.root, err = NewRoot(o.rootKey, id, domain, now); err != nil {
		t.Fatal(err)
	}
	if o.issuing, err = NewIssuing(o.root, o.rootKey, o.issuingKey.Public(), now); err != nil {
		t.Fatal(err)
	}
	if o.identity, err = NewIdentity(o.issuing, o.issuingKey, o.identityKey.Public(), "node1", now); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *organisation) name() Name {
	return Name{Org: o.id, Instance: "node1", FederationID: testFederation}
}

func (o *organisation) roots() []*x509.Certificate { return []*x509.Certificate{o.root} }

func (o *organisation) renewer(t testing.TB, now func() time.Time) *Renewer {
	t.Helper()
	r, err := NewRenewer(RenewerConfig{Org: o.id, Instance: "node1", FederationID: testFederation, Identity: o.identity, Issuing: o.issuing, Key: o.identityKey, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// chain returns what the organisation's node presents.
func (o *organisation) chain(t testing.TB, now time.Time) [][]byte {
	t.Helper()
	return o.renewer(t, func() time.Time { return now }).Leaf().Certificate
}

// forge makes a leaf as this package would, altered, and without its checks.
func forge(t testing.TB, name Name, parent *x509.Certificate, parentKey crypto.Signer, alter func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	return forgeWith(t, newKey(t, elliptic.P384()), name, parent, parentKey, alter)
}

func forgeWith(t testing.TB, key *ecdsa.PrivateKey, name Name, parent *x509.Certificate, parentKey crypto.Signer, alter func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	template, err := newLeaf(parent, parentKey, newKey(t, elliptic.P384()).Public(), name, nil, testNow, LeafValidity)
	if err != nil {
		t.Fatal(err)
	}
	template.Extensions, template.AuthorityKeyId, template.SerialNumber = nil, nil, nil
	template.SignatureAlgorithm = 0
	if alter != nil {
		alter(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func raw(certs ...*x509.Certificate) [][]byte {
	var out [][]byte
	for _, c := range certs {
		out = append(out, c.Raw)
	}
	return out
}

func wantError(t *testing.T, err, class error, texts ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("error %v, want class %q", err, class)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func TestIssuedChain(t *testing.T) {
	o := newOrganisation(t, "org-a", "org-a.example", testNow)
	if err := CheckRoot(o.root, "org-a", "org-a.example", testNow); err != nil {
		t.Error(err)
	}
	if got, err := VerifyIdentity([]*x509.Certificate{o.identity, o.issuing}, o.roots(), "org-a", testNow); err != nil || got != o.identity {
		t.Error(err)
	}
	chain := o.chain(t, testNow)
	leaf, err := VerifyPeer(chain, o.roots(), "org-a", testFederation, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := ParseName(leaf); err != nil || name != o.name() {
		t.Errorf("name %+v, %v", name, err)
	}
	if org, err := PeerOrg(leaf); err != nil || org != "org-a" {
		t.Errorf("organisation %q, %v", org, err)
	}
	for what, c := range map[string]struct {
		cert *x509.Certificate
		days float64
	}{"root": {o.root, 3650}, "issuing": {o.issuing, 365}, "identity": {o.identity, 365}, "leaf": {leaf, 1}} {
		if days := c.cert.NotAfter.Sub(testNow).Hours() / 24; days != c.days {
			t.Errorf("%s is valid for %v days, want %v", what, days, c.days)
		}
		if !c.cert.NotBefore.Before(testNow) {
			t.Errorf("%s is valid only from now on: peers with slow clocks refuse it", what)
		}
		if k, ok := c.cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() {
			t.Errorf("%s has no P-384 key", what)
		}
	}
	// The root may come along, and the federation may be left open.
	if _, err := VerifyPeer(append(chain, o.root.Raw), o.roots(), "org-a", "", testNow); err != nil {
		t.Error(err)
	}
}

func TestIssuedByIssuingCADirectly(t *testing.T) {
	o := newOrganisation(t, "org-a", "", testNow)
	r, err := NewRenewer(RenewerConfig{Org: "org-a", Instance: "node1", Issuing: o.issuing, Key: o.issuingKey, Validity: 365 * 24 * time.Hour, Now: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyPeer(r.Leaf().Certificate, o.roots(), "org-a", "", testNow.AddDate(0, 6, 0)); err != nil {
		t.Error(err)
	}
}

func TestNothingOutlivesItsIssuer(t *testing.T) {
	o := newOrganisation(t, "org-a", "", testNow)
	late := o.issuing.NotAfter.Add(-time.Hour)
	identity, err := NewIdentity(o.issuing, o.issuingKey, o.identityKey.Public(), "node1", late)
	if err != nil {
		t.Fatal(err)
	}
	if !identity.NotAfter.Equal(o.issuing.NotAfter) {
		t.Errorf("identity until %s, issuing CA until %s", identity.NotAfter, o.issuing.NotAfter)
	}
	_, err = NewIdentity(o.issuing, o.issuingKey, o.identityKey.Public(), "node1", o.issuing.NotAfter.Add(time.Second))
	wantError(t, err, ErrExpired)
}

func TestIssuingRefusals(t *testing.T) {
	o := newOrganisation(t, "org-a", "", testNow)
	small := newKey(t, elliptic.P256())
	for what, f := range map[string]func() (*x509.Certificate, error){
		"empty organisation":      func() (*x509.Certificate, error) { return NewRoot(o.rootKey, "", "", testNow) },
		"upper-case organisation": func() (*x509.Certificate, error) { return NewRoot(o.rootKey, "Org", "", testNow) },
		"dotted organisation":     func() (*x509.Certificate, error) { return NewRoot(o.rootKey, "a.b", "", testNow) },
		"long organisation":       func() (*x509.Certificate, error) { return NewRoot(o.rootKey, strings.Repeat("a", 64), "", testNow) },
		"domain without a dot":    func() (*x509.Certificate, error) { return NewRoot(o.rootKey, "a", "org-b", testNow) },
		"domain with empty label": func() (*x509.Certificate, error) { return NewRoot(o.rootKey, "a", "b..c", testNow) },
		"wildcard domain":         func() (*x509.Certificate, error) { return NewRoot(o.rootKey, "a", "*.c", testNow) },
		"root of P-256":           func() (*x509.Certificate, error) { return NewRoot(small, "a", "", testNow) },
		"issuing CA of P-256":     func() (*x509.Certificate, error) { return NewIssuing(o.root, o.rootKey, small.Public(), testNow) },
		"issuing CA by wrong key": func() (*x509.Certificate, error) { return NewIssuing(o.root, o.issuingKey, small.Public(), testNow) },
		"issuing CA by issuing CA": func() (*x509.Certificate, error) {
			return NewIssuing(o.issuing, o.issuingKey, o.issuingKey.Public(), testNow)
		},
		"identity by root": func() (*x509.Certificate, error) {
			return NewIdentity(o.root, o.rootKey, o.identityKey.Public(), "n", testNow)
		},
		"identity without name": func() (*x509.Certificate, error) {
			return NewIdentity(o.issuing, o.issuingKey, o.identityKey.Public(), "", testNow)
		},
		"identity of another name": func() (*x509.Certificate, error) {
			return NewIdentity(o.issuing, o.issuingKey, o.identityKey.Public(), "x.y", testNow)
		},
	} {
		if cert, err := f(); err == nil {
			t.Errorf("%s: made %s", what, cert.Subject)
		}
	}
	for _, id := range []string{"a", "0", "a-", strings.Repeat("a", 63)} {
		newOrganisation(t, id, "", testNow).chain(t, testNow)
	}
}

func TestCheckRootRefusals(t *testing.T) {
	o := newOrganisation(t, "org-a", "org-a.example", testNow)
	b := newOrganisation(t, "org-b", "", testNow)
	remake := func(alter func(*x509.Certificate)) *x509.Certificate {
		template := *o.root
		template.Extensions, template.SignatureAlgorithm = nil, 0
		alter(&template)
		der, err := x509.CreateCertificate(rand.Reader, &template, &template, o.rootKey.Public(), o.rootKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	if err := CheckRoot(remake(func(*x509.Certificate) {}), "org-a", "org-a.example", testNow); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		root  *x509.Certificate
		class error
	}{
		{"of another organisation", b.root, ErrName},
		{"issuing CA", o.issuing, ErrAuthority},
		{"identity", o.identity, ErrAuthority},
		{"no constraints", remake(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedURIDomains, c.PermittedEmailAddresses, c.ExcludedIPRanges = nil, nil, nil, nil
		}), ErrName},
		{"one name more", remake(func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, "org-b") }), ErrName},
		{"one host more", remake(func(c *x509.Certificate) { c.PermittedURIDomains = append(c.PermittedURIDomains, ".org-b") }), ErrName},
		{"any name", remake(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{""} }), ErrName},
		{"not critical", remake(func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false }), ErrName},
		{"not a CA", remake(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, 0 }), ErrUsage},
		{"may not sign", remake(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), ErrUsage},
		{"expired", remake(func(c *x509.Certificate) { c.NotAfter = testNow.Add(-time.Second) }), ErrExpired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, CheckRoot(tt.root, "org-a", "org-a.example", testNow), tt.class)
		})
	}
	wantError(t, CheckRoot(o.root, "org-a", "", testNow), ErrName)
}

func TestVerifyIdentityRefusals(t *testing.T) {
	a, b := newOrganisation(t, "org-a", "", testNow), newOrganisation(t, "org-b", "", testNow)
	leaf, err := x509.ParseCertificate(a.chain(t, testNow)[0])
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		chain []*x509.Certificate
		roots []*x509.Certificate
		org   string
		now   time.Time
		class error
	}{
		{"empty", nil, a.roots(), "org-a", testNow, ErrMalformed},
		{"another organisation's", []*x509.Certificate{b.identity, b.issuing}, a.roots(), "org-a", testNow, ErrName},
		{"another organisation's roots", []*x509.Certificate{a.identity, a.issuing}, b.roots(), "org-a", testNow, ErrAuthority},
		{"issuing CA missing", []*x509.Certificate{a.identity}, a.roots(), "org-a", testNow, ErrAuthority},
		{"leaf", []*x509.Certificate{leaf, a.identity, a.issuing}, a.roots(), "org-a", testNow, ErrUsage},
		{"expired", []*x509.Certificate{a.identity, a.issuing}, a.roots(), "org-a", testNow.AddDate(2, 0, 0), ErrExpired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := VerifyIdentity(tt.chain, tt.roots, tt.org, tt.now)
			wantError(t, err, tt.class)
		})
	}
}
