package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds on what a peer may present, checked before anything is parsed. A full
// chain is leaf, identity, issuing CA and root, about 3 KiB.
const (
	MaxChain      = 4
	MaxChainBytes = 64 << 10
)

// Classes of refusal, matched with errors.Is. The wrapping error says what is
// wrong, where, and how to mend it.
var (
	ErrMalformed   = errors.New("malformed certificate chain")
	ErrName        = errors.New("certificate is for another name")
	ErrExpired     = errors.New("certificate expired")
	ErrNotYetValid = errors.New("certificate not yet valid")
	ErrAuthority   = errors.New("certificate not certified by the organisation's roots")
	ErrUsage       = errors.New("certificate not meant for this use")
)

// VerifyPeer verifies the chain a peer presented in a handshake (DER, leaf
// first, each certified by the next, the root optional) and returns the leaf.
// The leaf must be for organisation org, and for federationID unless that is
// empty; roots must be that organisation's roots and nobody else's. now is the
// verifier's wall clock. Errors wrap one of the classes of this package.
func VerifyPeer(rawCerts [][]byte, roots []*x509.Certificate, org, federationID string, now time.Time) (*x509.Certificate, error) {
	chain, err := parseChain(rawCerts)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", org, err)
	}
	leaf := chain[0]
	name, err := checkName(leaf, org)
	if err != nil {
		return nil, err
	}
	if federationID != "" && name.FederationID != federationID {
		return nil, fmt.Errorf("certificate of %s: %w: it is for federation %q, this is %q: the peer must use the leaf of this federation", org, ErrName, name.FederationID, federationID)
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, fmt.Errorf("certificate of %s: %w: it is no leaf: the peer must present its mTLS leaf first", org, ErrUsage)
	}
	verified, err := verifyChain(chain, roots, org, now)
	if err != nil {
		return nil, err
	}
	for i, cert := range verified {
		// Authorities may leave usages open, a leaf must list both.
		if i > 0 && len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 {
			continue
		}
		for _, usage := range peerUsages() {
			if !slices.Contains(cert.ExtKeyUsage, usage) {
				return nil, fmt.Errorf("certificate of %s: %w: %s lacks client or server authentication among its extended key usages", org, ErrUsage, describe(cert))
			}
		}
	}
	return leaf, nil
}

// VerifyIdentity verifies the chain of a node identity (identity first, then the
// issuing CA, the root optional) against the roots of organisation org alone, and
// returns the identity. Errors wrap one of the classes of this package.
func VerifyIdentity(chain, roots []*x509.Certificate, org string, now time.Time) (*x509.Certificate, error) {
	if err := checkChainShape(chain); err != nil {
		return nil, fmt.Errorf("identity of %s: %w", org, err)
	}
	identity := chain[0]
	name, err := checkName(identity, org)
	if err != nil {
		return nil, err
	}
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	if !identity.IsCA || identity.MaxPathLen != 0 || identity.KeyUsage&usage != usage ||
		!slices.Equal(identity.PermittedURIDomains, []string{name.Host()}) {
		return nil, fmt.Errorf("identity of %s: %w: %s is no node identity", org, ErrUsage, describe(identity))
	}
	if _, err := verifyChain(chain, roots, org, now); err != nil {
		return nil, err
	}
	return identity, nil
}

// CheckRoot checks that a certificate is fit to be a root of organisation org
// with the given DNS domain (empty: none): self-signed, P-384, valid at now, and
// constrained, critically, to the organisation's names. Whoever admits a root to
// a federation calls it first.
func CheckRoot(root *x509.Certificate, org, domain string, now time.Time) error {
	refuse := func(class error, what string) error {
		return fmt.Errorf("root of %s: %w: %s: make one with fednode, or ask the organisation for one", org, class, what)
	}
	if len(root.Raw) > MaxChainBytes {
		return refuse(ErrMalformed, "too large")
	}
	if err := checkValidity(root, now); err != nil {
		return fmt.Errorf("root of %s: %w", org, err)
	}
	key, ok := root.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return refuse(ErrUsage, "its key is not ECDSA P-384")
	}
	if !root.BasicConstraintsValid || !root.IsCA || root.KeyUsage&x509.KeyUsageCertSign == 0 {
		return refuse(ErrUsage, "it is not a CA")
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return refuse(ErrAuthority, "it is not self-signed")
	}
	want := []string{org}
	if domain != "" {
		want = append(want, domain)
	}
	if !root.PermittedDNSDomainsCritical || !slices.Equal(root.PermittedDNSDomains, want) ||
		!slices.Equal(root.PermittedURIDomains, []string{"." + org}) {
		return refuse(ErrName, fmt.Sprintf("its name constraints must be critical and permit exactly DNS %s and URI hosts below %s", strings.Join(want, ", "), org))
	}
	return nil
}

// parseChain parses what a peer presented.
func parseChain(raw [][]byte) ([]*x509.Certificate, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: the peer presented none", ErrMalformed)
	}
	if len(raw) > MaxChain {
		return nil, fmt.Errorf("%w: %d certificates, at most %d are accepted", ErrMalformed, len(raw), MaxChain)
	}
	size := 0
	for _, der := range raw {
		size += len(der)
	}
	if size > MaxChainBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrMalformed, size, MaxChainBytes)
	}
	chain := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("%w: certificate %d of %d: %w", ErrMalformed, i+1, len(raw), err)
		}
	}
	return chain, checkChainShape(chain)
}

// checkChainShape checks count, order and kinds of keys.
func checkChainShape(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain) > MaxChain {
		return fmt.Errorf("%w: %d certificates, 1 to %d are accepted", ErrMalformed, len(chain), MaxChain)
	}
	for i, cert := range chain {
		switch key := cert.PublicKey.(type) {
		case ed25519.PublicKey:
		case *ecdsa.PublicKey:
			if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
				return fmt.Errorf("%w: %s has a key on %s; P-384, P-256 and Ed25519 are accepted", ErrMalformed, describe(cert), key.Params().Name)
			}
		default:
			return fmt.Errorf("%w: %s has a key of type %T; P-384, P-256 and Ed25519 are accepted", ErrMalformed, describe(cert), key)
		}
		if i == 0 {
			continue
		}
		if string(chain[i-1].RawIssuer) != string(cert.RawSubject) {
			return fmt.Errorf("%w: certificate %d does not certify the one before it: present leaf, identity, issuing CA in this order", ErrMalformed, i+1)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			return fmt.Errorf("%w: %s certifies another but is not a CA", ErrAuthority, describe(cert))
		}
	}
	return nil
}

// checkName checks that cert names a node of org.
func checkName(cert *x509.Certificate, org string) (Name, error) {
	name, err := ParseName(cert)
	if err != nil {
		return Name{}, fmt.Errorf("certificate of %s: %w: %w", org, ErrName, err)
	}
	if name.Org != org {
		return Name{}, fmt.Errorf("certificate of %s: %w: it names %s of %s: check the address the connection went to", org, ErrName, name.Host(), name.Org)
	}
	return name, nil
}

// verifyChain verifies signatures, validity, path lengths and name constraints
// up to one of the roots and returns the verified chain, root included.
func verifyChain(chain, roots []*x509.Certificate, org string, now time.Time) ([]*x509.Certificate, error) {
	for _, cert := range chain {
		if err := checkValidity(cert, now); err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", org, err)
		}
	}
	rootPool, intermediates := x509.NewCertPool(), x509.NewCertPool()
	var rootErr error
	usable := 0
	for _, root := range roots {
		if err := checkValidity(root, now); err != nil {
			rootErr = err
			continue
		}
		usable++
		rootPool.AddCert(root)
	}
	if usable == 0 {
		if rootErr != nil {
			return nil, fmt.Errorf("root of %s: %w", org, rootErr)
		}
		return nil, fmt.Errorf("certificate of %s: %w: no roots of it are known: is it a member?", org, ErrAuthority)
	}
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         rootPool,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // VerifyPeer wants two, Verify any of them
	})
	if err == nil {
		return verified[0], nil
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName {
		return nil, fmt.Errorf("certificate of %s: %w: an authority above %s is not permitted to certify its names: %w", org, ErrAuthority, describe(chain[0]), err)
	}
	return nil, fmt.Errorf("certificate of %s: %w: %s does not lead to a root in its member record; if it has a new root, its record must be updated: %w", org, ErrAuthority, describe(chain[0]), err)
}

// checkValidity compares cert's validity with the clock. The error names both.
func checkValidity(cert *x509.Certificate, now time.Time) error {
	const layout = time.RFC3339
	from, until, here := cert.NotBefore.UTC().Format(layout), cert.NotAfter.UTC().Format(layout), now.UTC().Format(layout)
	switch {
	case now.After(cert.NotAfter):
		mend := "its organisation must issue a new one"
		if !cert.IsCA {
			mend = "its node must renew: check its clock and `fednode status`"
		}
		return fmt.Errorf("%w: %s expired at %s, it is %s here; %s", ErrExpired, describe(cert), until, here, mend)
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: %s is valid from %s to %s, it is %s here: one of the two clocks is wrong; check both", ErrNotYetValid, describe(cert), from, until, here)
	}
	return nil
}

// describe names a certificate in an error. Its subject is foreign text: quoted
// and cut.
func describe(cert *x509.Certificate) string {
	if name, err := ParseName(cert); err == nil {
		if cert.IsCA {
			return "the identity of " + name.Host()
		}
		return "the leaf of " + name.Host()
	}
	return fmt.Sprintf("%.120q", cert.Subject.String())
}

// VerifyPinned verifies the chain a peer presented (leaf first, root last) when all that is known of the peer's
// organisation is its OrgID and the SHA-256 of its root certificate (DER). It returns the leaf and the root, which is
// fit to be one ([CheckRoot], with the domain that the root itself is constrained to). Errors wrap one of the classes of
// this package.
func VerifyPinned(chain []*x509.Certificate, rootSHA256 [sha256.Size]byte, org, federationID string, now time.Time) (leaf, root *x509.Certificate, err error) {
	if len(chain) < 2 || len(chain) > MaxChain {
		return nil, nil, fmt.Errorf("certificate of %s: %w: %d certificates, 2 to %d are accepted", org, ErrMalformed, len(chain), MaxChain)
	}
	root = chain[len(chain)-1]
	if sha256.Sum256(root.Raw) != rootSHA256 {
		return nil, nil, fmt.Errorf("certificate of %s: %w: its root is not the one that was named", org, ErrAuthority)
	}
	domain := ""
	if d := root.PermittedDNSDomains; len(d) > 1 {
		domain = d[1]
	}
	if err := CheckRoot(root, org, domain, now); err != nil {
		return nil, nil, err
	}
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	leaf, err = VerifyPeer(raw, []*x509.Certificate{root}, org, federationID, now)
	return leaf, root, err
}
