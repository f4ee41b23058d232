package node

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"fednode/hsm"
	"fednode/transport/pki"
)

// Files of the certificates under certDir.
const (
	rootCert     = "root.crt"
	issuingCert  = "issuing.crt"
	identityCert = "identity.crt"
)

// dueWithin is how long before its end a certificate is issued anew. Nodes do it when they start.
const dueWithin = 120 * 24 * time.Hour

// due reports whether a certificate ends soon, has ended, or is of a time when the clock was wrong.
func due(c *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || now.After(c.NotAfter.Add(-dueWithin))
}

// renewCertificates issues the issuing CA and the identity anew where they are due, for the same keys: members know the
// organisation by its root. An organisation that keeps the keys for this elsewhere has to put them back first.
func (s *Site) renewCertificates() error {
	now := s.now()
	if !due(s.ca, now) && !due(s.self, now) {
		return nil
	}
	issuing, err := s.openForRenewal(issuingKey)
	if err != nil {
		return err
	}
	defer issuing.Close()
	ca := s.ca
	if due(ca, now) {
		root, err := s.openForRenewal(rootKey)
		if err != nil {
			return err
		}
		defer root.Close()
		if ca, err = pki.NewIssuing(s.root, root, issuing.Public(), now); err != nil {
			return err
		}
	}
	self, err := pki.NewIdentity(ca, issuing, s.identity.Public(), string(s.Config.Instance), now)
	if err != nil {
		return err
	}
	// In this order: the old identity chains to the new CA, which has the old one's name and key.
	if err := pki.SaveCertificates(filepath.Join(s.Dir, certDir, issuingCert), ca); err != nil {
		return err
	}
	if err := pki.SaveCertificates(filepath.Join(s.Dir, certDir, identityCert), self); err != nil {
		return err
	}
	s.ca, s.self = ca, self
	return nil
}

func (s *Site) openForRenewal(uri string) (hsm.Key, error) {
	if !s.hasKey(uri) {
		return nil, fmt.Errorf("certificates valid until %s cannot be renewed: %s is not in %s; put it there and restart the node",
			earliest(s.ca, s.self).UTC().Format(time.RFC3339), filepath.Base(uri), filepath.Join(s.Dir, keyDir))
	}
	return s.keyring.Open(uri)
}

func earliest(a, b *x509.Certificate) time.Time {
	if a.NotAfter.Before(b.NotAfter) {
		return a.NotAfter
	}
	return b.NotAfter
}
