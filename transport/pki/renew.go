package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// renewCheck is how often Run looks at the wall clock at least: after a system
// was suspended, or its clock set, timers alone would come late. A failed
// renewal is repeated after as long.
const renewCheck = time.Minute

// minLeafValidity bounds RenewerConfig.Validity from below.
const minLeafValidity = time.Second

// RenewerConfig says whose leaves a Renewer makes.
type RenewerConfig struct {
	Org, Instance string
	FederationID  string // empty before the node has joined one

	// Identity certifies the leaves, with Key; Issuing certifies Identity. Where
	// Identity is nil, Key is that of Issuing, which certifies the leaves itself.
	Identity *x509.Certificate
	Issuing  *x509.Certificate
	Key      crypto.Signer

	Hosts    []string         // more DNS names for the leaf, in the organisation's domain
	Validity time.Duration    // of a leaf; 0: LeafValidity
	Now      func() time.Time // wall clock; nil: time.Now
	Logger   *slog.Logger     // nil: silent
}

// Renewer holds the node's mTLS leaf. The leaf's P-384 key is made with it and
// lives in memory only. It is safe for concurrent use.
type Renewer struct {
	c    RenewerConfig
	name Name

	mu      sync.Mutex // one renewal at a time
	logged  time.Time  // when the last failure was
	current atomic.Pointer[issuedLeaf]
}

type issuedLeaf struct {
	cert    *tls.Certificate
	renewAt time.Time
}

// NewRenewer checks the configuration and makes the first leaf.
func NewRenewer(c RenewerConfig) (*Renewer, error) {
	r := &Renewer{c: c, name: Name{Org: c.Org, Instance: c.Instance, FederationID: c.FederationID}}
	if r.c.Now == nil {
		r.c.Now = time.Now
	}
	if r.c.Logger == nil {
		r.c.Logger = slog.New(slog.DiscardHandler)
	}
	if r.c.Validity == 0 {
		r.c.Validity = LeafValidity
	}
	if err := r.name.check(); err != nil {
		return nil, fmt.Errorf("leaf renewal: %w", err)
	}
	if c.Issuing == nil || c.Key == nil {
		return nil, errors.New("leaf renewal: issuing certificate and key are required")
	}
	if r.c.Validity < minLeafValidity {
		return nil, fmt.Errorf("leaf renewal: validity %s is shorter than %s", c.Validity, minLeafValidity)
	}
	for _, host := range c.Hosts {
		if !isDomain(strings.TrimPrefix(host, "*.")) {
			return nil, fmt.Errorf("leaf renewal: host %.260q is not a lower-case DNS name with a dot", host)
		}
	}
	if err := r.Renew(); err != nil {
		return nil, err
	}
	return r, nil
}

// SetIssuers has leaves certified by these from now on, for the same key, and
// makes one, unless they are the ones in use. On error everything stays as it is.
// Connections are left alone: each goes on under the leaf it was made with.
func (r *Renewer) SetIssuers(identity, issuing *x509.Certificate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldIdentity, oldIssuing := r.c.Identity, r.c.Issuing
	if identity.Equal(oldIdentity) && issuing.Equal(oldIssuing) {
		return nil
	}
	r.c.Identity, r.c.Issuing = identity, issuing
	err := r.renew()
	if err != nil {
		r.c.Identity, r.c.Issuing = oldIdentity, oldIssuing
	}
	return err
}

// issuers returns the certificates above the leaf that go with it.
func (r *Renewer) issuers() []*x509.Certificate {
	if r.c.Identity == nil {
		return []*x509.Certificate{r.c.Issuing}
	}
	return []*x509.Certificate{r.c.Identity, r.c.Issuing}
}

// Renew replaces the leaf now. On error the old one stays in use.
func (r *Renewer) Renew() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.renew()
}

func (r *Renewer) renew() error {
	now := r.c.Now()
	issuers := r.issuers()
	for _, issuer := range issuers {
		if err := checkValidity(issuer, now); err != nil {
			return fmt.Errorf("leaf renewal: %w", err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return fmt.Errorf("leaf renewal: %w", err)
	}
	validity := r.c.Validity
	for _, issuer := range issuers {
		validity = min(validity, issuer.NotAfter.Sub(now))
	}
	if validity <= 0 { // at the very instant of the issuer's end
		return fmt.Errorf("leaf renewal: %w: the issuing certificates of %s end now; its organisation must issue new ones", ErrExpired, r.name.Host())
	}
	leaf, err := newLeaf(issuers[0], r.c.Key, key.Public(), r.name, r.c.Hosts, now, validity)
	if err != nil {
		return fmt.Errorf("leaf renewal: %w", err)
	}
	if err := r.checkNames(leaf, issuers, now); err != nil {
		return fmt.Errorf("leaf renewal: %w", err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, issuer := range issuers {
		cert.Certificate = append(cert.Certificate, issuer.Raw)
	}
	// A leaf cut short by its issuer's end would not get longer by renewing it
	// sooner; the halves would only shrink to nothing.
	renewAt := leaf.NotAfter
	if validity == r.c.Validity {
		renewAt = now.Add(validity / 2)
	}
	r.current.Store(&issuedLeaf{cert: cert, renewAt: renewAt})
	r.c.Logger.Info("mTLS leaf issued", "name", r.name.Host(), "not_after", leaf.NotAfter, "renew_at", renewAt)
	if validity < r.c.Validity {
		r.c.Logger.Warn("mTLS leaf ends early with its issuing certificates, which are not renewed: fednode status says why", "name", r.name.Host(), "not_after", leaf.NotAfter)
	}
	return nil
}

// checkNames finds here what every peer would refuse: names that the issuers may
// not certify.
func (r *Renewer) checkNames(leaf *x509.Certificate, issuers []*x509.Certificate, now time.Time) error {
	top := issuers[len(issuers)-1]
	chain := append([]*x509.Certificate{leaf}, issuers[:len(issuers)-1]...)
	if err := checkChainShape(append(chain, top)); err != nil {
		return err
	}
	_, err := verifyChain(chain, []*x509.Certificate{top}, r.c.Org, now)
	return err
}

// Leaf returns the current leaf with its chain (without the root) and, in Leaf,
// its parsed form. If it is not valid by the node's clock, as after a suspension,
// it is renewed first.
func (r *Renewer) Leaf() *tls.Certificate {
	if l := r.current.Load(); valid(l.cert.Leaf, r.c.Now()) {
		return l.cert
	}
	_ = r.renewIfDue() // which logs why not
	return r.current.Load().cert
}

func valid(cert *x509.Certificate, now time.Time) bool {
	return !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
}

// GetCertificate is the hook of that name of a server's tls.Config.
func (r *Renewer) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.Leaf(), nil
}

// GetClientCertificate is the hook of that name of a client's tls.Config. It
// answers every request: the peer's list of authorities says nothing here.
func (r *Renewer) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.Leaf(), nil
}

// Run renews the leaf at half its life until ctx is done, and then returns nil.
// A failed renewal is logged and repeated; the old leaf stays in use meanwhile.
func (r *Renewer) Run(ctx context.Context) error {
	timer := time.NewTimer(r.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		wait := renewCheck
		if r.renewIfDue() == nil {
			wait = r.wait()
		}
		timer.Reset(wait)
	}
}

// wait returns how long until Run has to look again.
func (r *Renewer) wait() time.Duration {
	return max(0, min(renewCheck, r.current.Load().renewAt.Sub(r.c.Now())))
}

func (r *Renewer) renewIfDue() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, now := r.current.Load(), r.c.Now()
	if now.Before(l.renewAt) && valid(l.cert.Leaf, now) {
		return nil
	}
	err := r.renew()
	if err != nil && time.Since(r.logged) >= renewCheck { // not for each connection that wants a leaf
		r.logged = time.Now()
		r.logFailure(err)
	}
	return err
}

func (r *Renewer) logFailure(err error) {
	r.c.Logger.Error("mTLS leaf renewal failed", "name", r.name.Host(), "err", err,
		"not_after", r.current.Load().cert.Leaf.NotAfter, "retry_in", renewCheck)
}
