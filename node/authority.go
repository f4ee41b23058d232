package node

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"fednode/hsm"
	"fednode/node/config"
	"fednode/transport/pki"
)

// An Authority is an organisation's own certificate authority, as far as its data directory holds it. It can be opened
// beside a node that runs.
type Authority struct {
	Org        string `json:"organization_id"`
	RootPEM    string `json:"root_pem"`
	RootSHA256 string `json:"root_sha256"`
	RootKey    bool   `json:"root_key"` // whether the root's private key is in the data directory

	dir  string
	pass hsm.Passphrase
	root *x509.Certificate
}

// OpenAuthority reads the authority in dir. The passphrase of its keys is read when a key is exported, from where
// node.yaml says, or else from ask.
func OpenAuthority(dir string, ask hsm.Passphrase) (*Authority, error) {
	path := filepath.Join(dir, ConfigName)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no node in %s: %s is missing; make one with fednode init or fednode join, or name its data directory with -D", dir, path)
	} else if err != nil {
		return nil, err
	}
	c, err := config.LoadNode(path, data)
	if err != nil {
		return nil, err
	}
	pass, ok := c.Keys.Source(dir)
	if !ok {
		pass = ask
	}
	roots, err := pki.LoadCertificates(filepath.Join(dir, certDir, rootCert))
	if err != nil {
		return nil, err
	}
	a := &Authority{Org: string(c.Organization.ID), RootSHA256: fingerprint(roots[0]), dir: dir, pass: pass, root: roots[0],
		RootPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: roots[0].Raw}))}
	a.RootKey = hasKey(dir, rootKey)
	return a, nil
}

// owns reports whether k is the key of the root's certificate.
func (a *Authority) owns(k hsm.Key) bool {
	pub, ok := a.root.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(k.Public())
}

// ExportRootKey writes the root's private key to f, which is new, encrypted to pass. With remove it then deletes it from
// the data directory, once it has read f again and seen that it opens and holds this root's key.
func (a *Authority) ExportRootKey(f *os.File, pass hsm.Passphrase, remove bool) error {
	if !a.RootKey {
		return fmt.Errorf("the root key of %s is not in %s any more: it was taken offline", a.Org, a.dir)
	}
	k, err := hsm.OpenKeyring(a.dir, a.pass)
	if err != nil {
		return err
	}
	defer k.Close()
	key, err := k.Export(rootKey, pass)
	if err != nil {
		return err
	}
	if _, err = f.Write(key); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	back := make([]byte, len(key)+1)
	n, err := f.ReadAt(back, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	again, err := hsm.OpenExported(back[:n], pass)
	if err != nil {
		return fmt.Errorf("%s, read again: %w; nothing was removed", f.Name(), err)
	}
	defer again.Close()
	if !a.owns(again) {
		return fmt.Errorf("%s does not hold the key of %s's root certificate; nothing was removed", f.Name(), a.Org)
	}
	if !remove {
		return nil
	}
	a.RootKey = false
	return k.Remove(rootKey)
}

// RenewIssuing issues the issuing CA anew with the root key that [Authority.ExportRootKey] wrote into file, and returns
// until when it is valid. The key stays where it is. A node that runs on the directory takes the certificate up itself.
func (a *Authority) RenewIssuing(file []byte, pass hsm.Passphrase, now time.Time) (until time.Time, err error) {
	path := filepath.Join(a.dir, certDir, issuingCert)
	old, err := pki.LoadCertificates(path)
	if err != nil {
		return time.Time{}, err
	}
	// The root's key is not brought here to certify what somebody has put into the data directory.
	if err := errors.Join(a.root.CheckSignatureFrom(a.root), old[0].CheckSignatureFrom(a.root)); err != nil {
		return time.Time{}, fmt.Errorf("%s is not a certificate that %s's root has signed: %w; restore it from a backup", path, a.Org, err)
	}
	key, err := hsm.OpenExported(file, pass)
	if err != nil {
		return time.Time{}, err
	}
	defer key.Close()
	if !a.owns(key) {
		return time.Time{}, fmt.Errorf("it does not hold the key of %s's root certificate (sha256 %s)", a.Org, a.RootSHA256)
	}
	issuing, err := pki.NewIssuing(a.root, key, old[0].PublicKey, now)
	if err != nil {
		return time.Time{}, err
	}
	if was := old[0]; issuing.NotAfter.Before(was.NotAfter) && !now.Before(was.NotBefore) {
		return time.Time{}, fmt.Errorf("the issuing CA that is there is valid until %s, one made now only until %s: see whether the clock is right", stamp(was.NotAfter), stamp(issuing.NotAfter))
	}
	return issuing.NotAfter, pki.SaveCertificates(path, issuing)
}
