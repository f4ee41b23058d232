package node

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
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

const (
	// dueWithin is how long before its end a certificate is issued anew.
	dueWithin = 120 * 24 * time.Hour
	// certificateCheck is how often a node that runs looks whether that is so, by the wall clock: nothing is missed while
	// the machine is suspended or when the clock is set.
	certificateCheck = time.Minute
	// certificateReminder is how often the log repeats what is wrong with them.
	certificateReminder = 24 * time.Hour
	// takenUp follows what to do about the certificates of a node that runs.
	takenUp = ": the node takes it up within a minute, without a restart"
)

// issuers are the certificates above a node's leaves, as they are in force.
type issuers struct {
	identity, issuing *x509.Certificate
	lapse             *lapse // nil while one of them is not due, or can be renewed
}

// A lapse is why a certificate that is due is not renewed.
type lapse struct {
	what    string // of which certificate, for people
	cert    *x509.Certificate
	reason  string
	mend    string
	offline bool // the key that it takes is kept elsewhere, as it may be
}

// due reports whether a certificate ends soon, has ended, or is of a time when the clock was wrong, and a new one from
// parent would be better.
func due(c, parent *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || now.After(c.NotAfter.Add(-dueWithin)) && c.NotAfter.Before(parent.NotAfter)
}

// renewCertificates issues the issuing CA and the identity anew where they are due, for the same keys: members know the
// organisation by its root. What is in force afterwards says whether that worked. It is for one caller at a time.
func (s *Site) renewCertificates() *issuers {
	now, next := s.now(), *s.issuers.Load()
	next.lapse = nil
	if due(next.issuing, s.root, now) {
		next.issuing, next.lapse = s.renewIssuing(next.issuing, now)
	}
	// In this order, on the disk as well: the old identity chains to the new CA, which has the old one's name and key.
	if due(next.identity, next.issuing, now) {
		var l *lapse
		if next.identity, l = s.renewIdentity(next.identity, next.issuing, now); next.lapse == nil {
			next.lapse = l
		}
	}
	s.issuers.Store(&next)
	return &next
}

// renewIssuing returns the issuing CA to follow old: the one that fednode ca renew has made meanwhile, or one of its own.
func (s *Site) renewIssuing(old *x509.Certificate, now time.Time) (*x509.Certificate, *lapse) {
	path := filepath.Join(s.Dir, certDir, issuingCert)
	l := &lapse{what: "the issuing CA", cert: old}
	saved, err := pki.LoadCertificates(path)
	if err == nil && s.follows(saved[0], old, now) {
		if old = saved[0]; !due(old, s.root, now) {
			return old, nil
		}
		l.cert = old
	}
	key, ok := s.openForRenewal(rootKey, l)
	if !ok {
		return old, l
	}
	defer key.Close()
	issuing, err := pki.NewIssuing(s.root, key, old.PublicKey, now)
	return saveRenewed(path, old, issuing, err, l)
}

func (s *Site) renewIdentity(old, issuing *x509.Certificate, now time.Time) (*x509.Certificate, *lapse) {
	l := &lapse{what: "the node identity", cert: old}
	key, ok := s.openForRenewal(issuingKey, l)
	if !ok {
		return old, l
	}
	defer key.Close()
	identity, err := pki.NewIdentity(issuing, key, s.identity.Public(), string(s.Config.Instance), now)
	return saveRenewed(filepath.Join(s.Dir, certDir, identityCert), old, identity, err, l)
}

// saveRenewed puts a certificate that was issued, if none went wrong, into force when it is on the disk.
func saveRenewed(path string, old, renewed *x509.Certificate, err error, l *lapse) (*x509.Certificate, *lapse) {
	if err == nil {
		err = pki.SaveCertificates(path, renewed)
	}
	if err != nil {
		l.reason, l.mend = cause(err), "see to that"
		return old, l
	}
	return renewed, nil
}

// follows reports whether saved, a file's, is this organisation's issuing CA, and serves for longer than old.
func (s *Site) follows(saved, old *x509.Certificate, now time.Time) bool {
	if now.Before(saved.NotBefore) || !now.Before(old.NotBefore) && !saved.NotAfter.After(old.NotAfter) {
		return false
	}
	return string(saved.RawSubject) == string(old.RawSubject) && string(saved.RawSubjectPublicKeyInfo) == string(old.RawSubjectPublicKeyInfo) &&
		saved.CheckSignatureFrom(s.root) == nil
}

// openForRenewal opens a key that renewing takes, or says in l why it cannot.
func (s *Site) openForRenewal(uri string, l *lapse) (hsm.Key, bool) {
	if !hasKey(s.Dir, uri) {
		l.lacks(s.Dir, uri)
		return nil, false
	}
	key, err := s.keyring.Open(uri)
	if err != nil {
		l.reason, l.mend = cause(err), keyMend(s.Dir, uri)
		return nil, false
	}
	return key, true
}

// lacks says that a key is not in the data directory.
func (l *lapse) lacks(dir, uri string) {
	l.reason = fmt.Sprintf("%s, which renews it, is not in %s", filepath.Base(uri), filepath.Join(dir, keyDir))
	l.mend, l.offline = keyMend(dir, uri), true
}

// keyMend says how a certificate that a key signs is renewed where the key cannot be opened.
func keyMend(dir, uri string) string {
	back := fmt.Sprintf("put %s back into %s, as it was", filepath.Base(uri), filepath.Join(dir, keyDir))
	if uri == rootKey {
		back = fmt.Sprintf("fednode -D %s ca renew --key FILE, the file that ca export wrote; or %s", dir, back)
	}
	return back
}

// savedLapse says why certificates cannot be renewed, as far as a data directory shows that is not open.
func savedLapse(dir string, root *x509.Certificate, saved issuers, now time.Time) *lapse {
	issuingDue := due(saved.issuing, root, now)
	l := &lapse{what: "the issuing CA", cert: saved.issuing}
	switch {
	case issuingDue && !hasKey(dir, rootKey):
		l.lacks(dir, rootKey)
	case (issuingDue || due(saved.identity, saved.issuing, now)) && !hasKey(dir, issuingKey):
		l.what, l.cert = "the node identity", saved.identity
		l.lacks(dir, issuingKey)
	default:
		return nil
	}
	return l
}

// keepCertificates renews the certificates above the leaf of a node that runs, and has the leaf follow them.
func (n *Node) keepCertificates(ctx context.Context) error {
	ticker := time.NewTicker(certificateCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		before := n.site.issuers.Load()
		now := n.site.renewCertificates()
		if now.issuing != before.issuing || now.identity != before.identity {
			n.log.Info("certificates renewed", "issuing_not_after", now.issuing.NotAfter, "identity_not_after", now.identity.NotAfter)
		}
		if err := n.leaf.SetIssuers(now.identity, now.issuing); err != nil {
			n.log.Error("the renewed certificates are not in use", "err", err, "retry_in", certificateCheck)
		}
		n.remind()
	}
}

// lookAtAuthorities judges the certificates above the leaf, and reports whether there is nothing to say.
func (n *Node) lookAtAuthorities(c *chart) bool {
	return c.authorities(n.site.now(), n.site.root, *n.site.issuers.Load(), takenUp)
}

// remind logs what is wrong with the certificates: when it begins or gets worse, and then daily.
func (n *Node) remind() {
	c := &chart{by: n.site.Org(), about: n.site.Org()}
	n.lookAtAuthorities(c)
	state := FindingOK
	for _, f := range c.findings {
		state = f.State
		if state == n.remindedOf && time.Since(n.reminded) < certificateReminder {
			continue
		}
		level := slog.LevelWarn
		if state == FindingProblem {
			level = slog.LevelError
		}
		n.log.Log(context.Background(), level, f.Text, "mend", f.Mend)
		n.reminded = time.Now()
	}
	n.remindedOf = state
}

// meterCertificates exports when the certificates end, in seconds since 1970.
func (n *Node) meterCertificates() {
	for name, cert := range map[string]func() *x509.Certificate{
		"root":     func() *x509.Certificate { return n.site.root },
		"issuing":  func() *x509.Certificate { return n.site.issuers.Load().issuing },
		"identity": func() *x509.Certificate { return n.site.issuers.Load().identity },
		"leaf":     func() *x509.Certificate { return n.leaf.Leaf().Leaf },
	} {
		n.metrics.NewGauge(fmt.Sprintf("fednode_certificate_expiry_timestamp_seconds{certificate=%q}", name), func() float64 { return float64(cert().NotAfter.Unix()) })
	}
}
