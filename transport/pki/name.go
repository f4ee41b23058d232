package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

const (
	nameScheme      = "fednode"
	maxLabel        = 63  // RFC 1035 section 2.3.4
	maxDomain       = 253 // in text form
	maxFederationID = 128
)

// Name is what a leaf or identity certificate says its holder is. Values are
// syntactically valid; whether they are true is for VerifyPeer to say.
type Name struct {
	Org          string // organisation identifier, one DNS label
	Instance     string // one DNS label
	FederationID string // empty in identities, and in leaves made before joining
}

// Host returns instance.org, the name's DNS form.
func (n Name) Host() string { return n.Instance + "." + n.Org }

// uri returns the name's URI form.
func (n Name) uri() *url.URL {
	u := &url.URL{Scheme: nameScheme, Host: n.Host()}
	if n.FederationID != "" {
		u.Path = "/" + n.FederationID
	}
	return u
}

func (n Name) check() error {
	if !isLabel(n.Org) {
		return fmt.Errorf("organisation %.70q is not of the form [a-z0-9][a-z0-9-]{0,62}", n.Org)
	}
	if !isLabel(n.Instance) {
		return fmt.Errorf("instance %.70q is not of the form [a-z0-9][a-z0-9-]{0,62}", n.Instance)
	}
	if n.FederationID != "" && !isFederationID(n.FederationID) {
		return fmt.Errorf("federation ID %.140q is not of the form [A-Za-z0-9._-]{1,%d}", n.FederationID, maxFederationID)
	}
	return nil
}

// ParseName reads the name out of a leaf or identity certificate without
// verifying it: exactly one fednode URI, and its host among the DNS names.
func ParseName(cert *x509.Certificate) (Name, error) {
	var found *url.URL
	for _, u := range cert.URIs {
		if u.Scheme != nameScheme {
			continue
		}
		if found != nil {
			return Name{}, errors.New("certificate has more than one fednode:// name")
		}
		found = u
	}
	if found == nil {
		return Name{}, errors.New("certificate has no fednode:// name")
	}
	instance, org, _ := strings.Cut(found.Host, ".")
	n := Name{Org: org, Instance: instance, FederationID: strings.TrimPrefix(found.Path, "/")}
	if err := n.check(); err != nil {
		return Name{}, fmt.Errorf("name of certificate: %w", err)
	}
	// Exactly what uri writes: no user, port, query or second spelling.
	if found.String() != n.uri().String() {
		return Name{}, fmt.Errorf("name of certificate %.200q is not in its one form %q", found.String(), n.uri())
	}
	if !slices.Contains(cert.DNSNames, n.Host()) {
		return Name{}, fmt.Errorf("certificate has the name %s but not the DNS name %s", n.uri(), n.Host())
	}
	return n, nil
}

// PeerOrg returns the organisation a leaf claims to be of. It verifies nothing:
// it tells whose roots to verify against.
func PeerOrg(leaf *x509.Certificate) (string, error) {
	n, err := ParseName(leaf)
	return n.Org, err
}

// isLabel reports whether s is of the form [a-z0-9][a-z0-9-]{0,62}.
func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// isDomain reports whether s is a lower-case DNS name of at least two labels,
// so that it is never an organisation's identifier.
func isDomain(s string) bool {
	if len(s) > maxDomain || !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isFederationID(s string) bool {
	if len(s) > maxFederationID || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return false
		}
	}
	return s != ""
}
