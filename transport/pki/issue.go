package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"
)

// How long certificates are valid. Nothing outlives what certifies it.
const (
	RootValidity     = 10 * 365 * 24 * time.Hour
	IssuingValidity  = 365 * 24 * time.Hour
	IdentityValidity = 365 * 24 * time.Hour
	LeafValidity     = 24 * time.Hour

	// backdate makes a new certificate valid at peers whose clocks are behind;
	// it covers the 60 s that messages allow with room to spare.
	backdate = 5 * time.Minute
)

// The organisational unit of a subject tells the links of a chain apart.
const (
	unitRoot     = "fednode root"
	unitIssuing  = "fednode issuing CA"
	unitIdentity = "fednode identity"
	unitLeaf     = "fednode node"
)

// NewRoot makes an organisation's self-signed root: P-384, valid RootValidity
// from now, constrained to names of the organisation and, unless it is empty,
// its DNS domain. The key may be kept offline: it signs only issuing CAs.
func NewRoot(key crypto.Signer, org, domain string, now time.Time) (*x509.Certificate, error) {
	if !isLabel(org) {
		return nil, fmt.Errorf("make root: organisation %.70q is not of the form [a-z0-9][a-z0-9-]{0,62}", org)
	}
	if domain != "" && !isDomain(domain) {
		return nil, fmt.Errorf("make root of %s: domain %.260q is not a lower-case DNS name with a dot", org, domain)
	}
	t := authority(org, org, unitRoot, 2, now, RootValidity)
	t.PermittedDNSDomains = []string{org}
	if domain != "" {
		t.PermittedDNSDomains = append(t.PermittedDNSDomains, domain)
	}
	t.PermittedURIDomains = []string{"." + org}
	t.PermittedEmailAddresses = slices.Clone(t.PermittedDNSDomains)
	cert, err := sign(t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make root of %s: %w", org, err)
	}
	return cert, nil
}

// NewIssuing makes the issuing CA for the P-384 key issuing, certified by the
// root: valid since the root is, and IssuingValidity from now, under the root's
// constraints. One that is made while the clock is ahead is good when the clock
// has been mended.
func NewIssuing(root *x509.Certificate, rootKey crypto.Signer, issuing crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	org, err := certifierOf(root, unitRoot)
	if err != nil {
		return nil, fmt.Errorf("make issuing CA: %w", err)
	}
	t := authority(org, org, unitIssuing, 1, now, IssuingValidity)
	t.NotBefore = root.NotBefore
	t.PermittedDNSDomains = root.PermittedDNSDomains
	t.PermittedURIDomains = root.PermittedURIDomains
	t.PermittedEmailAddresses = root.PermittedEmailAddresses
	cert, err := certify(t, root, issuing, rootKey, now)
	if err != nil {
		return nil, fmt.Errorf("make issuing CA of %s: %w", org, err)
	}
	return cert, nil
}

// NewIdentity makes the identity of a node for the P-384 key identity, certified
// by the issuing CA, and valid since that is. It signs member records, and leaves
// of this instance only.
func NewIdentity(issuing *x509.Certificate, issuingKey crypto.Signer, identity crypto.PublicKey, instance string, now time.Time) (*x509.Certificate, error) {
	org, err := certifierOf(issuing, unitIssuing)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	n := Name{Org: org, Instance: instance}
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	t := authority(org, instance, unitIdentity, 0, now, IdentityValidity)
	t.NotBefore = issuing.NotBefore
	t.KeyUsage |= x509.KeyUsageDigitalSignature // member records
	t.DNSNames, t.URIs = []string{n.Host()}, []*url.URL{n.uri()}
	t.PermittedDNSDomains = append([]string{n.Host()}, issuing.PermittedDNSDomains[1:]...)
	t.PermittedURIDomains = []string{n.Host()}
	t.PermittedEmailAddresses = issuing.PermittedEmailAddresses
	cert, err := certify(t, issuing, identity, issuingKey, now)
	if err != nil {
		return nil, fmt.Errorf("make identity of %s: %w", n.Host(), err)
	}
	return cert, nil
}

// newLeaf makes an mTLS leaf for name and key, certified by issuer: an identity,
// or an issuing CA.
func newLeaf(issuer *x509.Certificate, issuerKey crypto.Signer, key crypto.PublicKey, name Name, hosts []string, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject:     subject(name.Org, name.Instance, unitLeaf),
		NotBefore:   now.Add(-backdate),
		NotAfter:    now.Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: peerUsages(),
		DNSNames:    append([]string{name.Host()}, hosts...),
		URIs:        []*url.URL{name.uri()},

		BasicConstraintsValid: true,
	}
	cert, err := certify(t, issuer, key, issuerKey, now)
	if err != nil {
		return nil, fmt.Errorf("make leaf of %s: %w", name.Host(), err)
	}
	return cert, nil
}

// peerUsages are the extended key usages of every node: each is client and server.
func peerUsages() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

func subject(org, name, unit string) pkix.Name {
	return pkix.Name{Organization: []string{org}, OrganizationalUnit: []string{unit}, CommonName: name}
}

func authority(org, name, unit string, pathLen int, now time.Time, validity time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:               subject(org, name, unit),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,

		PermittedDNSDomainsCritical: true, // of the extension as a whole
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
}

// certifierOf returns the organisation of a root or issuing CA made here.
func certifierOf(cert *x509.Certificate, unit string) (string, error) {
	s := cert.Subject
	if len(s.Organization) != 1 || !slices.Equal(s.OrganizationalUnit, []string{unit}) ||
		len(cert.PermittedDNSDomains) == 0 || cert.PermittedDNSDomains[0] != s.Organization[0] {
		return "", fmt.Errorf("certificate %.200q is not a %s", s, unit)
	}
	return s.Organization[0], nil
}

// certify signs t below parent, within the parent's validity.
func certify(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	if err := checkValidity(parent, now); err != nil {
		return nil, err
	}
	if !sameKey(parent.PublicKey, key.Public()) {
		return nil, fmt.Errorf("the signing key is not that of %.200q", parent.Subject)
	}
	if t.NotBefore.Before(parent.NotBefore) {
		t.NotBefore = parent.NotBefore
	}
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	return sign(t, parent, pub, key)
}

func sign(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	if k, ok := pub.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() {
		return nil, errors.New("certificates are for ECDSA P-384 keys")
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
