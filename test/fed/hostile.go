package fed

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"path/filepath"

	"fednode/hsm"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
	"fednode/transport/pki"
)

// A Hostile is a member in good standing, with its own keys, certificates and log, whose every answer is the test's to
// make up. Its envelopes are signed and its log is kept as any member's, for without that nobody would listen.
type Hostile struct {
	*transport.Node
	Org     *Org
	Key     hsm.Key // of messages
	KeyID   string
	Members *member.Set
	Leaf    *pki.Renewer
	DB      *store.DB
	Log     *ledger.Log

	keyring *hsm.Keyring
	held    []hsm.Key
	cancel  context.CancelFunc
	stopped chan error
}

// Hostile returns the organisation as the test plays it.
func (o *Org) Hostile() *Hostile { return o.hostile }

func (o *Org) play() {
	f := o.f
	f.t.Helper()
	f.must(o.site.Close())
	h := &Hostile{Org: o, stopped: make(chan error, 1)}
	var err error
	h.keyring, err = hsm.OpenKeyring(o.Dir, hsm.Unprotected())
	f.must(err)
	open := func(name string) hsm.Key {
		k, err := h.keyring.Open("file:keys/" + name + ".key")
		f.must(err)
		h.held = append(h.held, k)
		return k
	}
	identity, logKey := open("identity"), open("log")
	h.Key = open("message")
	h.KeyID = "msg-" + hex.EncodeToString(h.Key.Public().(ed25519.PublicKey)[:8])
	h.DB, err = store.Open(filepath.Join(o.Dir, "node.db"), store.Options{})
	f.must(err)
	gov, err := member.Open(h.DB, member.Options{Now: o.now})
	f.must(err)
	h.Members = gov.Current()
	self, _ := h.Members.Get(o.ID)
	signer, err := ledger.NewSigner(self.LogOrigin(), logKey)
	f.must(err)
	h.Log, err = ledger.Open(h.DB, ledger.Config{Name: "own", Origin: self.LogOrigin(), Signer: signer, Now: o.now})
	f.must(err)
	chain, err := pki.LoadCertificates(filepath.Join(o.Dir, "certs", "identity.crt"))
	f.must(err)
	issuing, err := pki.LoadCertificates(filepath.Join(o.Dir, "certs", "issuing.crt"))
	f.must(err)
	h.Leaf, err = pki.NewRenewer(pki.RenewerConfig{Org: string(o.ID), Instance: string(o.ID) + "-1", FederationID: h.Members.FederationID(),
		Identity: chain[0], Issuing: issuing[0], Key: identity, Now: o.now})
	f.must(err)
	h.Node, err = transport.New(transport.Config{Org: o.ID, Instance: string(o.ID) + "-1", Key: h.Key, KeyID: h.KeyID, Members: gov.Current, Leaf: h.Leaf,
		DB: h.DB, Log: h.Log, Now: o.now, Dial: o.dialer()})
	f.must(err)
	if f.options.Handlers != nil {
		f.options.Handlers(o, h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	o.hostile = h
	ln := o.listen()
	go func() { h.stopped <- h.Serve(ctx, o.conn, ln) }()
}

func (h *Hostile) stop() error {
	h.cancel()
	errs := []error{<-h.stopped}
	for _, k := range h.held {
		errs = append(errs, k.Close())
	}
	return errors.Join(append(errs, h.DB.Close(), h.keyring.Close())...)
}
