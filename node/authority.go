package node

import (
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

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
	pub  crypto.PublicKey
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
	roots, err := pki.LoadCertificates(filepath.Join(dir, certDir, "root.crt"))
	if err != nil {
		return nil, err
	}
	a := &Authority{Org: string(c.Organization.ID), RootSHA256: fingerprint(roots[0]), dir: dir, pass: pass, pub: roots[0].PublicKey,
		RootPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: roots[0].Raw}))}
	_, err = os.Stat(filepath.Join(dir, strings.TrimPrefix(rootKey, "file:")))
	a.RootKey = err == nil
	return a, nil
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
	pub, err := hsm.OpenExported(back[:n], pass)
	if err != nil {
		return fmt.Errorf("%s, read again: %w; nothing was removed", f.Name(), err)
	}
	if own, ok := a.pub.(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(pub) {
		return fmt.Errorf("%s does not hold the key of %s's root certificate; nothing was removed", f.Name(), a.Org)
	}
	if !remove {
		return nil
	}
	a.RootKey = false
	return k.Remove(rootKey)
}
