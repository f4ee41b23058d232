package node

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fednode/hsm"
	"fednode/transport"
	"fednode/transport/pki"
)

// founded makes the data directory of an organisation that has founded a federation.
func founded(t *testing.T, at time.Time) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "org-a")
	s, err := Create(dir, Options{Org: "org-a", Listen: "127.0.0.1:0", Advertise: []string{"127.0.0.1:1"}, Passphrase: hsm.Unprotected(),
		Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Found(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startAt makes the node on dir at a time, and returns its leaf and what it has logged.
func startAt(t *testing.T, dir string, at time.Time) (leaf *x509.Certificate, log string, err error) {
	t.Helper()
	s, err := Open(dir, hsm.Passphrase{}, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	conn, l, err := transport.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var lines bytes.Buffer
	n, err := New(s, Runtime{Conn: conn, Listen: l, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	if err != nil {
		return nil, lines.String(), err
	}
	chain := n.leaf.Leaf()
	if err := n.close(); err != nil {
		t.Fatal(err)
	}
	for _, der := range chain.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			t.Errorf("at %v the leaf's chain holds a certificate valid from %v to %v", at, c.NotBefore, c.NotAfter)
		}
	}
	return chain.Leaf, lines.String(), nil
}

func certificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	certs, err := pki.LoadCertificates(filepath.Join(dir, certDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

// TestCertificatesAreRenewedAtStart: a node outlives the year of its issuing CA and identity, and a clock that was wrong.
func TestCertificatesAreRenewedAtStart(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := founded(t, made)
	first := certificate(t, dir, issuingCert)
	if _, _, err := startAt(t, dir, made.AddDate(0, 6, 0)); err != nil {
		t.Fatal(err)
	}
	if !certificate(t, dir, issuingCert).Equal(first) {
		t.Error("they are renewed long before their end")
	}
	for _, at := range []time.Time{made.AddDate(0, 11, 0), made.AddDate(3, 0, 0), made.AddDate(9, 0, 0), made.AddDate(1, 0, 0)} {
		if _, log, err := startAt(t, dir, at); err != nil || strings.Contains(log, "not renewed") {
			t.Fatalf("at %v: %v\n%s", at, err, log)
		}
		ca, self := certificate(t, dir, issuingCert), certificate(t, dir, identityCert)
		if due(ca, at) || due(self, at) || self.CheckSignatureFrom(ca) != nil || !bytes.Equal(ca.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
			t.Errorf("at %v: issuing CA until %v, identity until %v", at, ca.NotAfter, self.NotAfter)
		}
	}
}

// TestRootKeyKeptElsewhere: an organisation that has taken its root's key away is told in time to bring it, and works
// as long as its certificates are good.
func TestRootKeyKeptElsewhere(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := founded(t, made)
	key := filepath.Join(dir, "keys", "root.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	leaf, log, err := startAt(t, dir, made.AddDate(0, 11, 0))
	if err != nil || leaf.NotAfter.Before(made.AddDate(0, 11, 0)) || !strings.Contains(log, "cannot be renewed: root.key is not in") {
		t.Errorf("a month before the end: %v\n%s", err, log)
	}
	if _, _, err := startAt(t, dir, made.AddDate(2, 0, 0)); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("after the end: %v", err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := startAt(t, dir, made.AddDate(2, 0, 0)); err != nil {
		t.Errorf("with the key back: %v", err)
	}
}

// Whoever starts a node with a wrong clock, or has founded with one, is told that it is the clock.
func TestWrongClocksAreNamed(t *testing.T) {
	right := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	_, err := Create(filepath.Join(t.TempDir(), "org-a"), Options{Org: "org-a", Listen: "127.0.0.1:0", Advertise: []string{"127.0.0.1:1"}, Passphrase: hsm.Unprotected(),
		Now: func() time.Time { return time.Unix(100, 0) }})
	if err == nil || !strings.Contains(err.Error(), "clock says 1970") {
		t.Errorf("made in 1970: %v", err)
	}
	for name, c := range map[string]struct{ made, started time.Time }{
		"started in 1970":    {right, time.Unix(100, 0)},
		"made in the future": {right.AddDate(1, 0, 0), right},
	} {
		dir := founded(t, c.made)
		if _, _, err := startAt(t, dir, c.started); err == nil || !strings.Contains(err.Error(), "clock") || !strings.Contains(err.Error(), c.started.UTC().Format(time.DateOnly)) {
			t.Errorf("%s: %v", name, err)
		}
		d, err := DoctorOffline(t.Context(), dir, c.started)
		if err != nil {
			t.Fatal(err)
		}
		if f := one(t, chart{findings: d.Findings}, CheckCertificate); f.State != FindingProblem || !strings.Contains(f.Mend, "date -u") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
