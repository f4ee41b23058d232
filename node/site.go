package node

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fednode/flow/policy"
	"fednode/hsm"
	"fednode/node/config"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
	"fednode/transport/pki"
)

// Files of a data directory.
const (
	ConfigName = "node.yaml"
	policyName = "policy.yaml"
	policyDir  = "policy.d" // governance policies in force
	dbName     = "node.db"
	keyDir     = "keys"
	certDir    = "certs"
)

// Keys of an organisation's node, as URIs in its keyring. The root's may be taken offline.
const (
	rootKey     = "file:keys/root.key"
	issuingKey  = "file:keys/issuing.key"
	identityKey = "file:keys/identity.key"
	messageKey  = "file:keys/message.key"
	logKey      = "file:keys/log.key"
	govKey      = "file:keys/governance.key"
)

// Options are what a new data directory is made with.
type Options struct {
	Org          transport.OrgID
	Name         string // for people; default the OrgID
	Domain       string
	Jurisdiction string
	Instance     string // default "<org>-1"
	Listen       string // UDP, host:port; default ":443"
	Advertise    []string
	Passphrase   hsm.Passphrase // of the keyring
	Unprotected  bool           // keys on disk without a passphrase; explicit only
	PassFile     string         // recorded in node.yaml as where the passphrase is read at start
	Agents       string         // YAML of node.yaml's agents section; default the builtin agents
	Now          func() time.Time
}

// A Site is an opened data directory: one organisation's configuration, keys, certificates and database. It is locked
// against other processes until Close.
type Site struct {
	Config config.Node
	Dir    string

	now      func() time.Time
	keyring  *hsm.Keyring
	identity hsm.Key
	message  hsm.Key
	log      hsm.Key
	gov      hsm.Key
	issuing  hsm.Key
	root     *x509.Certificate
	ca       *x509.Certificate
	self     *x509.Certificate // of the identity key
	db       *store.DB
	members  *member.Governance // nil until founded or imported
}

// A stage undoes what was opened, when a later step fails.
func (s *Site) stage(err error) error {
	return errors.Join(err, s.Close())
}

// Create makes a data directory: keyring, organisation root, issuing CA, identity, message and log keys, certificates,
// node.yaml and policy.yaml. It never writes into a directory that has a node in it.
func Create(dir string, o Options) (_ *Site, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, ConfigName)); err == nil {
		return nil, fmt.Errorf("%s holds a node already; choose another directory", dir)
	}
	for _, d := range []string{dir, filepath.Join(dir, keyDir), filepath.Join(dir, certDir), filepath.Join(dir, policyDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	if o.Unprotected {
		o.Passphrase = hsm.Unprotected()
	}
	s := &Site{Dir: dir, now: o.Now}
	if s.keyring, err = hsm.CreateKeyring(dir, o.Passphrase); err != nil {
		return nil, err
	}
	if err := s.makeKeys(o); err != nil {
		return nil, s.stage(err)
	}
	if err := writeNew(filepath.Join(dir, policyName), policy.DefaultYAML()); err != nil {
		return nil, s.stage(err)
	}
	if err := writeNew(filepath.Join(dir, ConfigName), o.yaml()); err != nil {
		return nil, s.stage(err)
	}
	if s.Config, err = config.LoadNode(filepath.Join(dir, ConfigName)); err != nil {
		return nil, s.stage(err)
	}
	if err := s.openDB(); err != nil {
		return nil, s.stage(err)
	}
	return s, nil
}

func (o *Options) complete() error {
	if err := o.Org.Validate(); err != nil {
		return err
	}
	if o.Name == "" {
		o.Name = string(o.Org)
	}
	if o.Instance == "" {
		o.Instance = string(o.Org) + "-1"
	}
	if o.Listen == "" {
		o.Listen = ":443"
	}
	if len(o.Advertise) == 0 {
		return errors.New("advertise: name at least one host:port at which the other members reach this node")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// yaml writes the configuration that a new node starts with.
func (o *Options) yaml() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# This node of %s. See fednode check, and packaging/doc/CONFIG.md.\n", o.Org)
	fmt.Fprintf(&b, "organization:\n  id: %s\n  name: %q\n", o.Org, o.Name)
	if o.Domain != "" {
		fmt.Fprintf(&b, "  domain: %s\n", o.Domain)
	}
	if o.Jurisdiction != "" {
		fmt.Fprintf(&b, "  jurisdiction: %s\n", o.Jurisdiction)
	}
	fmt.Fprintf(&b, "instance: %s\nlisten: %q\nadvertise:\n", o.Instance, o.Listen)
	for _, a := range o.Advertise {
		fmt.Fprintf(&b, "  - %q\n", a)
	}
	b.WriteString("keys:\n")
	switch {
	case o.Unprotected:
		b.WriteString("  unprotected: true   # no passphrase: whoever reads the disk has the keys\n")
	default:
		fmt.Fprintf(&b, "  passphrase: {file: %q}\n", o.PassFile)
	}
	b.WriteString(o.Agents)
	return []byte(b.String())
}

// makeKeys generates the keys and issues the certificates of a new organisation.
func (s *Site) makeKeys(o Options) (err error) {
	var root hsm.Key
	for _, k := range []struct {
		uri string
		alg hsm.Algorithm
		to  *hsm.Key
	}{{rootKey, hsm.ECDSAP384, &root}, {issuingKey, hsm.ECDSAP384, &s.issuing}, {identityKey, hsm.ECDSAP384, &s.identity},
		{messageKey, hsm.Ed25519, &s.message}, {logKey, hsm.Ed25519, &s.log}, {govKey, hsm.Ed25519, &s.gov}} {
		if *k.to, err = s.keyring.Generate(k.uri, k.alg); err != nil {
			return err
		}
	}
	defer root.Close()
	now := o.Now()
	if s.root, err = pki.NewRoot(root, string(o.Org), o.Domain, now); err != nil {
		return err
	}
	if s.ca, err = pki.NewIssuing(s.root, root, s.issuing.Public(), now); err != nil {
		return err
	}
	if s.self, err = pki.NewIdentity(s.ca, s.issuing, s.identity.Public(), o.Instance, now); err != nil {
		return err
	}
	for name, c := range map[string]*x509.Certificate{"root.crt": s.root, "issuing.crt": s.ca, "identity.crt": s.self} {
		if err := pki.SaveCertificates(filepath.Join(s.Dir, certDir, name), c); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes a file that must not exist, durably.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// Open opens the data directory dir; the passphrase is read from where its node.yaml says.
func Open(dir string) (*Site, error) { return OpenAt(dir, time.Now) }

// OpenAt is Open with the wall clock that now reads.
func OpenAt(dir string, now func() time.Time) (_ *Site, err error) {
	s := &Site{Dir: dir, now: now}
	path := filepath.Join(dir, ConfigName)
	if s.Config, err = config.LoadNode(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no node in %s: %s is missing; name its data directory with -D", dir, path)
	} else if err != nil {
		return nil, err
	}
	if err := s.openDB(); err != nil { // first: it is the lock against a second process
		return nil, err
	}
	if s.keyring, err = hsm.OpenKeyring(dir, s.passphrase()); err != nil {
		return nil, s.stage(err)
	}
	for _, k := range []struct {
		uri string
		to  *hsm.Key
	}{{issuingKey, &s.issuing}, {identityKey, &s.identity}, {messageKey, &s.message}, {logKey, &s.log}, {govKey, &s.gov}} {
		if *k.to, err = s.keyring.Open(k.uri); err != nil {
			return nil, s.stage(err)
		}
	}
	for _, c := range []struct {
		name string
		to   **x509.Certificate
	}{{"root.crt", &s.root}, {"issuing.crt", &s.ca}, {"identity.crt", &s.self}} {
		certs, err := pki.LoadCertificates(filepath.Join(dir, certDir, c.name))
		if err != nil {
			return nil, s.stage(err)
		}
		*c.to = certs[0]
	}
	if err := s.openGovernance(""); err != nil {
		return nil, s.stage(err)
	}
	return s, nil
}

func (s *Site) passphrase() hsm.Passphrase {
	k := s.Config.Keys
	switch p := k.Passphrase; {
	case k.Unprotected:
		return hsm.Unprotected()
	case p.File != "":
		return hsm.PassphraseFile(p.File)
	case p.Credential != "":
		return hsm.PassphraseCredential(p.Credential)
	default:
		return hsm.PassphraseEnv(p.Env)
	}
}

func (s *Site) openDB() (err error) {
	s.db, err = store.Open(filepath.Join(s.Dir, dbName), store.Options{})
	return err
}

// Close zeroises the keys and unlocks the data directory. A Site whose node ran was closed by it.
func (s *Site) Close() error {
	var errs []error
	for _, k := range []hsm.Key{s.issuing, s.identity, s.message, s.log, s.gov} {
		if k != nil {
			errs = append(errs, k.Close())
		}
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
		s.db = nil
	}
	if s.keyring != nil {
		errs = append(errs, s.keyring.Close())
	}
	return errors.Join(errs...)
}

// Org returns the organisation whose site it is.
func (s *Site) Org() transport.OrgID { return s.Config.Organization.ID }

// FederationID returns the federation that the site belongs to, or "" before it is founded or imported.
func (s *Site) FederationID() string {
	if s.members == nil {
		return ""
	}
	return s.members.Current().FederationID()
}

// messageKeyID names the message key in the member record: the first 8 bytes of its public key's bytes, in hex.
func (s *Site) messageKeyID() string {
	pub := s.message.Public().(ed25519.PublicKey)
	return "msg-" + hex.EncodeToString(pub[:8])
}

// logOrigin names the organisation's own log, generation 0.
func (s *Site) logOrigin() string {
	return "fednode/" + s.FederationID() + "/" + string(s.Org()) + "/log/0"
}

func (s *Site) logSigner() (note.Signer, error) { return ledger.NewSigner(s.logOrigin(), s.log) }

// Bundle writes the governance log, which whoever joins imports.
func (s *Site) Bundle(w io.Writer) error { return s.members.ExportBundle(w) }

// Import takes in the governance log of the federation with the given id, verified from genesis. What it holds already
// must be the beginning of it.
func (s *Site) Import(ctx context.Context, r io.Reader, federationID string) error {
	if s.members == nil {
		if err := s.openGovernance(federationID); err != nil {
			return err
		}
	}
	return s.members.ImportBundle(ctx, r)
}
