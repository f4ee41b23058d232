package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fednode/hsm"
	"fednode/hsm/durable"
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
		if _, log, err := startAt(t, dir, at); err != nil || strings.Contains(log, "renews it") {
			t.Fatalf("at %v: %v\n%s", at, err, log)
		}
		ca, self := certificate(t, dir, issuingCert), certificate(t, dir, identityCert)
		if at.After(self.NotAfter.Add(-dueWithin)) || at.Before(self.NotBefore) || at.After(ca.NotAfter.Add(-dueWithin)) || at.Before(ca.NotBefore) || self.CheckSignatureFrom(ca) != nil || !bytes.Equal(ca.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
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
	if err != nil || leaf.NotAfter.Before(made.AddDate(0, 11, 0)) || !strings.Contains(log, "root.key, which renews it, is not in") || !strings.Contains(log, "ca renew --key FILE") {
		t.Errorf("a month before the end: %v\n%s", err, log)
	}
	if _, _, err := startAt(t, dir, made.AddDate(2, 0, 0)); !errors.Is(err, pki.ErrExpired) || !strings.Contains(err.Error(), "ca renew --key FILE") {
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

// TestKilledWhileRenewing: whichever of the files were replaced when a renewal was cut off, the node starts, also after
// the old ones' end.
func TestKilledWhileRenewing(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	renewed := made.AddDate(0, 11, 0)
	files := []string{durable.Prefix + "1", issuingCert, durable.Prefix + "2", identityCert}
	for done := range len(files) + 1 {
		dir := founded(t, made)
		old := map[string][]byte{}
		for _, name := range []string{issuingCert, identityCert} {
			old[name] = certFile(t, dir, name)
		}
		if _, _, err := startAt(t, dir, renewed); err != nil {
			t.Fatal(err)
		}
		for i, name := range files {
			path := filepath.Join(dir, certDir, name)
			data := old[name]
			if data == nil {
				data = []byte("-----BEGIN CERTIFICATE-----\nMII")
			}
			if i >= done && data != nil && old[name] != nil || i < done && old[name] == nil {
				if err := os.WriteFile(path, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, at := range []time.Time{renewed, made.AddDate(1, 1, 0)} {
			if _, log, err := startAt(t, dir, at); err != nil || strings.Contains(log, "renews it") {
				t.Errorf("after %d of %d writes, at %v: %v\n%s", done, len(files), at, err, log)
			}
		}
	}
}

func certFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, certDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// nowhere is a socket that the parts of a node under test do not use.
type nowhere struct{ net.PacketConn }

func (nowhere) LocalAddr() net.Addr { return address("nowhere") }

// A lone node is one of which only the certificates are kept, on a clock that can be set.
type lone struct {
	*Node
	t    *testing.T
	dir  string
	skew atomic.Int64
	log  bytes.Buffer
}

// keep makes a node in a bubble and has it keep its certificates until the test's end.
func keep(t *testing.T) *lone {
	l := &lone{t: t, dir: founded(t, time.Now())}
	s, err := Open(l.dir, hsm.Passphrase{}, l.now)
	if err != nil {
		t.Fatal(err)
	}
	if l.Node, err = New(s, Runtime{Conn: nowhere{}, Logger: slog.New(slog.NewTextHandler(&l.log, &slog.HandlerOptions{Level: slog.LevelWarn}))}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = l.leaf.Run(ctx) })
	running.Go(func() { _ = l.keepCertificates(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lone) now() time.Time { return time.Now().Add(time.Duration(l.skew.Load())) }

// pass lets days go by.
func (l *lone) pass(days int) {
	time.Sleep(time.Duration(days) * 24 * time.Hour)
	synctest.Wait()
}

// set sets the node's clock and lets it notice.
func (l *lone) set(skew time.Duration) {
	l.skew.Store(int64(skew))
	time.Sleep(certificateCheck)
	synctest.Wait()
}

// valid reports whether a peer that knows the root accepts the node's leaf.
func (l *lone) valid() bool {
	chain := l.leaf.Leaf()
	_, err := pki.VerifyPeer(chain.Certificate, []*x509.Certificate{l.site.root}, "org-a", l.site.FederationID(), l.now())
	return err == nil
}

// alarm returns the state of the certificates as fednode status shows it, with text and mend.
func (l *lone) alarm() (state, text string) {
	l.t.Helper()
	st, err := l.Status()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range st.Alarms {
		if f.Check == CheckCertificate {
			return f.State, f.Text + "\n" + f.Mend
		}
	}
	return FindingOK, ""
}

func (l *lone) moveKey(from, to string) {
	l.t.Helper()
	if err := os.Rename(filepath.Join(l.dir, keyDir, from), filepath.Join(l.dir, keyDir, to)); err != nil {
		l.t.Fatal(err)
	}
}

// TestCertificatesAreRenewedWhileRunning: a node that is never started again is good for more than a year, and is still
// the organisation that its root names.
func TestCertificatesAreRenewedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := keep(t)
		first := *l.site.issuers.Load()
		seen := map[string]bool{}
		for day := range 400 {
			above := l.site.issuers.Load()
			seen[above.issuing.SerialNumber.String()+above.identity.SerialNumber.String()] = true
			if leaf := l.leaf.Leaf().Leaf; leaf.NotAfter.Sub(l.now()) < 12*time.Hour || day%10 == 0 && !l.valid() {
				t.Fatalf("day %d: the leaf is valid until %v", day, leaf.NotAfter)
			}
			if above.identity.NotAfter.Sub(l.now()) < dueWithin-24*time.Hour {
				t.Fatalf("day %d: the identity is valid until %v", day, above.identity.NotAfter)
			}
			if day%100 == 0 && (!certificate(t, l.dir, issuingCert).Equal(above.issuing) || !certificate(t, l.dir, identityCert).Equal(above.identity)) {
				t.Errorf("day %d: what is in force is not what is on the disk", day)
			}
			l.pass(1)
		}
		last := l.site.issuers.Load()
		if len(seen) != 2 {
			t.Errorf("%d pairs of certificates in 400 days, want 2", len(seen))
		}
		if !bytes.Equal(first.issuing.RawSubjectPublicKeyInfo, last.issuing.RawSubjectPublicKeyInfo) || !bytes.Equal(first.identity.RawSubjectPublicKeyInfo, last.identity.RawSubjectPublicKeyInfo) {
			t.Error("the keys are others")
		}
		if state, text := l.alarm(); state != FindingOK || l.log.Len() > 0 {
			t.Errorf("%s: %s\n%s", state, text, l.log.String())
		}
	})
}

// TestRenewalOnAWrongClock: a clock that is set, as after a long suspension, is followed in either direction.
func TestRenewalOnAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := keep(t)
		for _, skew := range []time.Duration{300 * 24 * time.Hour, 3 * 365 * 24 * time.Hour, 100 * 24 * time.Hour, 0} {
			l.set(skew)
			if !l.valid() {
				t.Errorf("with the clock set by %v, the leaf is not valid a minute later", skew)
			}
			if state, text := l.alarm(); state != FindingOK {
				t.Errorf("with the clock set by %v: %s: %s", skew, state, text)
			}
		}
	})
}

// TestRootKeyOfflineWhileRunning: the root's key is away; people are told what to do, in time, and what they do takes
// effect on the node that runs: when the warning comes, and when they come too late.
func TestRootKeyOfflineWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := keep(t)
		pass := hsm.PassphraseBytes([]byte("correct horse battery staple"))
		away := filepath.Join(t.TempDir(), "root.age")
		file, err := os.OpenFile(away, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		ca, err := OpenAuthority(l.dir, hsm.Passphrase{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ca.ExportRootKey(file, pass, false); err != nil {
			t.Fatal(err)
		}
		l.moveKey("root.key", "root.away")
		before := l.site.issuers.Load().issuing
		const day = 24 * time.Hour
		l.set((365 - 61) * day)
		if state, text := l.alarm(); state != FindingOK {
			t.Errorf("more than two months before: %s: %s", state, text)
		}
		const mend = "ca renew --key FILE"
		l.pass(3)
		if state, text := l.alarm(); state != FindingWarning || !strings.Contains(text, mend) || !strings.Contains(text, "without a restart") || !strings.Contains(text, "root.key, which renews it, is not in") {
			t.Errorf("less than two months before: %s: %s", state, text)
		}
		if lines := strings.Count(l.log.String(), mend); lines < 2 || lines > 3 {
			t.Errorf("%d lines in the log in two days:\n%s", lines, l.log.String())
		}
		l.set((365 - 61 + 50) * day)
		if state, text := l.alarm(); state != FindingProblem || !strings.Contains(text, mend) {
			t.Errorf("a week before: %s: %s", state, text)
		}
		var metrics bytes.Buffer
		l.WriteMetrics(&metrics)
		if want := fmt.Sprintf("fednode_certificate_expiry_timestamp_seconds{certificate=\"issuing\"} %d\n", before.NotAfter.Unix()); !strings.Contains(metrics.String(), want) {
			t.Errorf("%q is not among the metrics", want)
		}
		saved, err := os.ReadFile(away)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ca.RenewIssuing(saved, pass, l.now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(certificateCheck)
		synctest.Wait()
		above := l.site.issuers.Load()
		if state, text := l.alarm(); state != FindingOK || above.identity.NotAfter.Sub(l.now()) < 364*24*time.Hour || !l.valid() {
			t.Errorf("a minute after the renewal: %s: %s; identity until %v", state, text, above.identity.NotAfter)
		}
		if shown := l.leaf.Leaf().Certificate[2]; !bytes.Equal(shown, above.issuing.Raw) || bytes.Equal(shown, before.Raw) {
			t.Error("the leaf is not under the new issuing CA")
		}
		l.set(800 * day) // suspended for more than a year
		if state, text := l.alarm(); state != FindingProblem || !strings.Contains(text, "expired at") || !strings.Contains(text, mend) || l.valid() {
			t.Errorf("after the end: %s: %s", state, text)
		}
		l.moveKey("root.away", "root.key")
		time.Sleep(certificateCheck)
		synctest.Wait()
		if state, text := l.alarm(); state != FindingOK || !l.valid() {
			t.Errorf("a minute after the key came back: %s: %s", state, text)
		}
	})
}

// TestKeysThatDoNotRenew: what cannot be used is named, nothing is replaced, and the node goes on while it can.
func TestKeysThatDoNotRenew(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(l *lone)
		want  string
	}{
		"issuing key away": {func(l *lone) { l.moveKey("issuing.key", "issuing.away") }, "put issuing.key back into"},
		"another key in its place": {func(l *lone) {
			l.moveKey("root.key", "root.away")
			l.moveKey("issuing.key", "root.key")
			l.moveKey("root.away", "issuing.key")
		}, "the signing key is not that of"},
		"an exported key in its place": {func(l *lone) {
			if err := os.WriteFile(filepath.Join(l.dir, keyDir, "root.key"), []byte("-----BEGIN AGE ENCRYPTED FILE-----\n"), 0o600); err != nil {
				l.t.Fatal(err)
			}
		}, "ca renew --key FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := keep(t)
				c.spoil(l)
				l.set(310 * 24 * time.Hour)
				if state, text := l.alarm(); state != FindingWarning || !strings.Contains(text, c.want) || !l.valid() {
					t.Errorf("%s: %s", state, text)
				}
			})
		})
	}
}

// TestTheRootCertifiesNoKeyThatIsNotItsOrganisations: who can write into the data directory has the root's key, which is brought
// there once a year, certify nothing of theirs.
func TestTheRootCertifiesNoKeyThatIsNotItsOrganisations(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	theirs := founded(t, made)
	for _, name := range []string{issuingCert, rootCert} {
		dir := founded(t, made)
		ca, err := OpenAuthority(dir, hsm.Passphrase{})
		if err != nil {
			t.Fatal(err)
		}
		pass := hsm.PassphraseBytes([]byte("correct horse battery staple"))
		file, err := os.Create(filepath.Join(t.TempDir(), "root.age"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := ca.ExportRootKey(file, pass, false); err != nil {
			t.Fatal(err)
		}
		saved, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		put := certFile(t, theirs, name)
		if name == rootCert { // of the same key, and for another domain
			root := *certificate(t, dir, rootCert)
			root.PermittedDNSDomains, root.SignatureAlgorithm = append(root.PermittedDNSDomains, "example.org"), x509.UnknownSignatureAlgorithm
			other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			parent := root
			parent.PublicKey = other.Public()
			der, err := x509.CreateCertificate(rand.Reader, &root, &parent, certificate(t, dir, rootCert).PublicKey, other)
			if err != nil {
				t.Fatal(err)
			}
			put = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
		if err := os.WriteFile(filepath.Join(dir, certDir, name), put, 0o644); err != nil {
			t.Fatal(err)
		}
		before := certFile(t, dir, issuingCert)
		if ca, err = OpenAuthority(dir, hsm.Passphrase{}); err != nil {
			t.Fatal(err)
		}
		if _, err := ca.RenewIssuing(saved, pass, made.AddDate(0, 11, 0)); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("another %s: %v", name, err)
		}
		if !bytes.Equal(certFile(t, dir, issuingCert), before) {
			t.Errorf("another %s: the issuing CA was replaced", name)
		}
	}
}
