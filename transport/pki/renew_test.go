package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// running runs r until the test's end.
func running(t *testing.T, r *Renewer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRenewalWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newOrganisation(t, "org-a", "", time.Now()), newOrganisation(t, "org-b", "", time.Now())
		ra, rb := a.renewer(t, time.Now), b.renewer(t, time.Now)
		running(t, ra)
		running(t, rb)
		serials := map[string]bool{}
		keys := map[string]bool{}
		for hour := range 72 {
			if _, clientErr, serverErr := handshake(end(ra, b, time.Now), end(rb, a, time.Now)); clientErr != nil || serverErr != nil {
				t.Fatalf("hour %d: %v, %v", hour, clientErr, serverErr)
			}
			leaf := ra.Leaf().Leaf
			serials[leaf.SerialNumber.String()] = true
			keys[string(leaf.RawSubjectPublicKeyInfo)] = true
			if left := time.Until(leaf.NotAfter); left < 12*time.Hour-renewCheck {
				t.Errorf("hour %d: only %s left", hour, left)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		if len(serials) != 6 || len(keys) != 6 {
			t.Errorf("%d leaves and %d keys in 72 hours, want 6 each", len(serials), len(keys))
		}
	})
}

// flakyKey is a signer that can be out of order, as an HSM can.
type flakyKey struct {
	crypto.Signer
	broken atomic.Bool
}

var errBroken = errors.New("token removed")

func (k *flakyKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.broken.Load() {
		return nil, errBroken
	}
	return k.Signer.Sign(random, digest, opts)
}

func TestRenewalFailureKeepsOldLeafAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrganisation(t, "org-a", "", time.Now())
		key := &flakyKey{Signer: o.identityKey}
		var log bytes.Buffer
		r, err := NewRenewer(RenewerConfig{Org: "org-a", Instance: "node1", Identity: o.identity, Issuing: o.issuing, Key: key, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		running(t, r)
		first := r.Leaf()
		key.broken.Store(true)
		time.Sleep(13 * time.Hour)
		synctest.Wait()
		if r.Leaf() != first {
			t.Error("another leaf though none could be made")
		}
		if !strings.Contains(log.String(), errBroken.Error()) {
			t.Error("the failure is not in the log")
		}
		key.broken.Store(false)
		time.Sleep(renewCheck)
		synctest.Wait()
		if r.Leaf() == first {
			t.Error("no new leaf a minute after the key came back")
		}
	})
}

// settableClock is a wall clock that is wrong by offset.
type settableClock struct{ offset atomic.Int64 }

func (c *settableClock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func TestClockJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"forward": 30 * 24 * time.Hour, "backward": -30 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clock settableClock
				o := newOrganisation(t, "org-a", "", time.Now().AddDate(0, -3, 0))
				r := o.renewer(t, clock.now)
				first := r.Leaf()
				clock.offset.Store(int64(jump))
				// Without Run, whoever needs a leaf gets a valid one.
				if got := r.Leaf(); got == first || !valid(got.Leaf, clock.now()) {
					t.Error("a leaf that is not valid now")
				}
				clock.offset.Store(0)
				r.Leaf()
				running(t, r)
				synctest.Wait()
				clock.offset.Store(int64(jump))
				time.Sleep(renewCheck)
				synctest.Wait()
				if got := r.current.Load().cert; !valid(got.Leaf, clock.now()) {
					t.Error("Run has not noticed the jump within a minute")
				}
			})
		})
	}
}

func TestLeafEndsWithItsIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The identity has 30 hours left.
		o := newOrganisation(t, "org-a", "", time.Now().Add(30*time.Hour-IssuingValidity))
		r := o.renewer(t, time.Now)
		running(t, r)
		made := map[string]bool{}
		for range 60 {
			made[r.Leaf().Leaf.SerialNumber.String()] = true
			time.Sleep(30 * time.Minute)
			synctest.Wait()
		}
		if len(made) > 2 {
			t.Errorf("%d leaves in the identity's last 30 hours, want 2", len(made))
		}
		if leaf := r.Leaf().Leaf; !leaf.NotAfter.Equal(o.identity.NotAfter) {
			t.Errorf("leaf until %s, identity until %s", leaf.NotAfter, o.identity.NotAfter)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		wantError(t, r.Renew(), ErrExpired, "issue a new one")
		_, err := NewRenewer(RenewerConfig{Org: "org-a", Instance: "node1", Identity: o.identity, Issuing: o.issuing, Key: o.identityKey})
		wantError(t, err, ErrExpired)
	})
}

func TestRenewerConfigRefusals(t *testing.T) {
	o, b := newOrganisation(t, "org-a", "org-a.example", testNow), newOrganisation(t, "org-b", "", testNow)
	good := RenewerConfig{Org: "org-a", Instance: "node1", FederationID: testFederation, Identity: o.identity, Issuing: o.issuing, Key: o.identityKey,
		Hosts: []string{"node1.org-a.example", "*.org-a.example"}, Now: func() time.Time { return testNow }}
	r, err := NewRenewer(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyPeer(r.Leaf().Certificate, o.roots(), "org-a", testFederation, testNow); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*RenewerConfig){
		"organisation missing":      func(c *RenewerConfig) { c.Org = "" },
		"instance missing":          func(c *RenewerConfig) { c.Instance = "" },
		"issuing missing":           func(c *RenewerConfig) { c.Issuing = nil },
		"key missing":               func(c *RenewerConfig) { c.Key = nil },
		"key of another":            func(c *RenewerConfig) { c.Key = o.issuingKey },
		"issuing CA of another":     func(c *RenewerConfig) { c.Issuing = b.issuing },
		"identity of another":       func(c *RenewerConfig) { c.Identity, c.Key = b.identity, b.identityKey },
		"organisation of another":   func(c *RenewerConfig) { c.Org = "org-b" },
		"instance of another":       func(c *RenewerConfig) { c.Instance = "node2" },
		"federation malformed":      func(c *RenewerConfig) { c.FederationID = "a/b" },
		"host outside the domain":   func(c *RenewerConfig) { c.Hosts = []string{"node1.org-b.example"} },
		"host malformed":            func(c *RenewerConfig) { c.Hosts = []string{"x y.org-a.example"} },
		"validity too short":        func(c *RenewerConfig) { c.Validity = time.Millisecond },
		"validity negative":         func(c *RenewerConfig) { c.Validity = -time.Hour },
		"identity is a leaf":        func(c *RenewerConfig) { c.Identity = r.Leaf().Leaf },
		"identity is no authority":  func(c *RenewerConfig) { c.Identity, c.Key = r.Leaf().Leaf, r.Leaf().PrivateKey.(crypto.Signer) },
		"issuing and identity swap": func(c *RenewerConfig) { c.Identity, c.Issuing = o.issuing, o.identity },
	} {
		c := good
		spoil(&c)
		if _, err := NewRenewer(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLeafIsParsedAndComplete(t *testing.T) {
	o := newOrganisation(t, "org-a", "", testNow)
	cert := o.renewer(t, func() time.Time { return testNow }).Leaf()
	if len(cert.Certificate) != 3 || cert.Leaf == nil || !bytes.Equal(cert.Leaf.Raw, cert.Certificate[0]) {
		t.Error("the chain is not leaf, identity, issuing CA")
	}
	for i, want := range []*x509.Certificate{o.identity, o.issuing} {
		if !bytes.Equal(cert.Certificate[i+1], want.Raw) {
			t.Errorf("certificate %d of the chain is another", i+1)
		}
	}
}

func BenchmarkRenew(b *testing.B) {
	o := newOrganisation(b, "org-a", "", testNow)
	r := o.renewer(b, func() time.Time { return testNow })
	for b.Loop() {
		if err := r.Renew(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestIssuersAreReplaced: leaves are certified by the new issuing CA and identity at once, which peers accept that know
// the root, as they do the leaf from before; others' are refused, and change nothing.
func TestIssuersAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, b := newOrganisation(t, "org-a", "", time.Now()), newOrganisation(t, "org-b", "", time.Now())
		r, rb := o.renewer(t, time.Now), b.renewer(t, time.Now)
		before := r.Leaf()
		time.Sleep(time.Hour)
		issuing, err := NewIssuing(o.root, o.rootKey, o.issuing.PublicKey, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		identity, err := NewIdentity(issuing, o.issuingKey, o.identity.PublicKey, "node1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for name, other := range map[string][2]*x509.Certificate{"another organisation's": {b.identity, b.issuing}, "swapped": {issuing, identity}, "without an identity": {nil, issuing}} {
			if err := r.SetIssuers(other[0], other[1]); err == nil || r.Leaf() != before {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := r.SetIssuers(o.identity, o.issuing); err != nil || r.Leaf() != before {
			t.Errorf("those in use: %v, or another leaf", err)
		}
		if err := r.SetIssuers(identity, issuing); err != nil {
			t.Fatal(err)
		}
		after := r.Leaf()
		if after == before || !bytes.Equal(after.Certificate[1], identity.Raw) || !bytes.Equal(after.Certificate[2], issuing.Raw) {
			t.Error("the leaf is not under the new issuers")
		}
		mixed := [][]byte{before.Certificate[0], before.Certificate[1], issuing.Raw}
		for name, chain := range map[string][][]byte{"old": before.Certificate, "new": after.Certificate, "old identity under the new CA": mixed} {
			if _, err := VerifyPeer(chain, o.roots(), "org-a", testFederation, time.Now()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, clientErr, serverErr := handshake(end(r, b, time.Now), end(rb, o, time.Now)); clientErr != nil || serverErr != nil {
			t.Errorf("%v, %v", clientErr, serverErr)
		}
		time.Sleep(400 * 24 * time.Hour)
		if err := r.SetIssuers(o.identity, o.issuing); !errors.Is(err, ErrExpired) {
			t.Errorf("expired issuers: %v", err)
		}
	})
}
