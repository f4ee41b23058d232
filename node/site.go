package node

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fednode/flow/policy"
	"fednode/hsm"
	"fednode/hsm/durable"
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
	makingName = "being-made" // is there until Create has made everything
	// PassphraseName is the file in a data directory that holds a passphrase made for it.
	PassphraseName = "passphrase"
	keyDir         = "keys"
	certDir        = "certs"
)

// Keys of an organisation's node, as URIs in its keyring. The root's and the issuing CA's are not needed by a node that
// runs, and may be taken offline.
const (
	rootKey     = "file:keys/root.key"
	issuingKey  = "file:keys/issuing.key"
	identityKey = "file:keys/identity.key"
	messageKey  = "file:keys/message.key"
	logKey      = "file:keys/log.key"
	cosignerKey = "file:keys/cosigner.key"
)

// Options are what a new data directory is made with.
type Options struct {
	Org          transport.OrgID
	Name         string // for people; default the OrgID
	Domain       string
	Jurisdiction string
	Instance     string // default "<org>-1"
	Listen       string // UDP and TCP, host:port; default ":443"
	Advertise    []string
	Passphrase   hsm.Passphrase // of the keyring; hsm.Unprotected() is explicit only
	PassFile     string         // recorded in node.yaml as where the passphrase is read at start; default: it is asked for
	MakePass     bool           // instead of both: a passphrase is made, and put into the file PassphraseName
	Credential   string         // like PassFile: the name of a systemd credential, see package node/service
	Agents       string         // YAML of node.yaml's agents section; default the builtin agents
	Now          func() time.Time
}

// A Site is an opened data directory: one organisation's configuration, keys, certificates and database. It is locked
// against other processes until Close.
type Site struct {
	Config *config.Node
	Dir    string

	now      func() time.Time
	keyring  *hsm.Keyring
	identity hsm.Key
	messages messageKeys
	log      hsm.Key
	cosigner hsm.Key // nil in data directories made before there were certificates
	root     *x509.Certificate
	issuers  atomic.Pointer[issuers]
	db       *store.DB
	members  *member.Governance // nil until founded or imported
}

// A stage undoes what was opened, when a later step fails.
func (s *Site) stage(err error) error {
	return errors.Join(err, s.Close())
}

// Create makes a data directory: keyring, organisation root, issuing CA, identity, message and log keys, certificates,
// node.yaml and policy.yaml. It never writes into a directory that has a node in it. What it had begun when it was
// interrupted it makes anew: nobody has seen any of it.
func Create(dir string, o Options) (_ *Site, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := checkOwner(dir); err != nil {
		return nil, err
	}
	if _, err := config.LoadNode(ConfigName, o.yaml()); err != nil { // nothing is made that could not be opened
		return nil, fmt.Errorf("the %s that this would make: %w", ConfigName, err)
	}
	making := filepath.Join(dir, makingName)
	_, interrupted := os.Stat(making)
	if _, err := os.Stat(filepath.Join(dir, ConfigName)); err == nil && interrupted != nil {
		return nil, fmt.Errorf("%s holds a node already; choose another directory", dir)
	}
	if interrupted == nil {
		if err := clearHalfMade(dir); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{dir, filepath.Join(dir, keyDir), filepath.Join(dir, certDir), filepath.Join(dir, policyDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	switch there, err := hsm.Exists(dir); {
	case err != nil:
		return nil, err
	case there:
		return nil, fmt.Errorf("%s holds keys, and no %s: restore that from a backup, or choose another directory", dir, ConfigName)
	case interrupted != nil:
		if err := durable.Create(making, nil, 0o600); err != nil {
			return nil, err
		}
	}
	if o.MakePass {
		if err := o.makePassphrase(dir); err != nil {
			return nil, err
		}
	}
	s := &Site{Dir: dir, now: o.Now}
	if s.keyring, err = hsm.CreateKeyring(dir, o.Passphrase); err != nil {
		return nil, err
	}
	if err := s.makeKeys(o); err != nil {
		return nil, s.stage(err)
	}
	if err := durable.Create(filepath.Join(dir, policyName), policy.DefaultYAML(), 0o600); err != nil {
		return nil, s.stage(err)
	}
	if err := durable.Create(filepath.Join(dir, ConfigName), o.yaml(), 0o600); err != nil {
		return nil, s.stage(err)
	}
	if err := errors.Join(os.Remove(making), durable.SyncDir(dir)); err != nil {
		return nil, s.stage(err)
	}
	if err := s.load(); err != nil {
		return nil, s.stage(err)
	}
	return s, nil
}

// checkOwner refuses a directory in which another user may have laid links to where this one can write.
func checkOwner(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, this process runs as user %d: look at what is in it; move it away, or run the command as that user", dir, st.Uid, os.Geteuid())
	}
	return nil
}

// clearHalfMade removes what an interrupted Create has left: the files that it makes, and no others.
func clearHalfMade(dir string) error {
	for _, pattern := range []string{"keyring.age", "seal.key", PassphraseName, ConfigName, policyName, keyDir + "/*.key", certDir + "/*.crt",
		durable.Prefix + "*", keyDir + "/" + durable.Prefix + "*", certDir + "/" + durable.Prefix + "*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return fmt.Errorf("what an interrupted start has left: %w", err)
			}
		}
	}
	return nil
}

// makePassphrase makes a passphrase of 130 bits for keys that open without anybody at a terminal.
func (o *Options) makePassphrase(dir string) error {
	path := filepath.Join(dir, PassphraseName)
	if err := durable.Create(path, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	o.Passphrase, o.PassFile = hsm.PassphraseFile(path), PassphraseName
	return nil
}

// Prepare opens the data directory dir if it has a node of the organisation, and else makes it. made says which.
func Prepare(dir string, o Options, ask hsm.Passphrase) (s *Site, made bool, err error) {
	_, missing := os.Stat(filepath.Join(dir, ConfigName))
	_, interrupted := os.Stat(filepath.Join(dir, makingName))
	if missing != nil || interrupted == nil {
		s, err = Create(dir, o)
		return s, true, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if s, err = Open(dir, ask, o.Now); err != nil {
		return nil, false, err
	}
	if o.Org != "" && s.Org() != o.Org {
		return nil, false, s.stage(fmt.Errorf("%s holds the node of %s, not of %s; name another data directory with -D", dir, s.Org(), o.Org))
	}
	return s, false, nil
}

// AsksPassphrase reports whether the node.yaml in dir names no place where the passphrase is read.
func AsksPassphrase(dir string) bool {
	c, err := ReadConfig(dir)
	if err != nil {
		return false
	}
	_, named := c.Keys.Source(dir)
	return !named
}

// ReadConfig reads the node.yaml in dir.
func ReadConfig(dir string) (*config.Node, error) {
	path := filepath.Join(dir, ConfigName)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no node in %s: %s is missing; make one with fednode init or fednode join, or name its data directory with -D", dir, path)
	} else if err != nil {
		return nil, err
	}
	return config.LoadNode(path, data)
}

// load reads node.yaml and opens the database, which is the lock against a second process.
func (s *Site) load() (err error) {
	if s.Config, err = ReadConfig(s.Dir); err != nil {
		return err
	}
	s.db, err = store.Open(filepath.Join(s.Dir, dbName), store.Options{})
	return err
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
	if now := o.Now(); now.Year() < earliestYear {
		return fmt.Errorf("this machine's clock says %s: set it (timedatectl set-ntp true), and run the same again; certificates that are made now would have ended when the clock is right", stamp(now))
	}
	return nil
}

// earliestYear is before any that a node was made in: machines without a battery begin in 1970.
const earliestYear = 2000

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
	if o.Passphrase.IsUnprotected() || o.PassFile != "" || o.Credential != "" {
		b.WriteString("keys:\n")
	}
	switch {
	case o.Passphrase.IsUnprotected():
		b.WriteString("  unprotected: true   # no passphrase: whoever reads the disk has the keys\n")
	case o.PassFile != "":
		fmt.Fprintf(&b, "  passphrase: {file: %q}\n", o.PassFile)
	case o.Credential != "":
		fmt.Fprintf(&b, "  passphrase: {credential: %q}\n", o.Credential)
	default:
		b.WriteString("  # the passphrase is asked for at start; or name its place: passphrase: {file: …}, {env: …} or {credential: …}\n")
	}
	b.WriteString(o.Agents)
	return []byte(b.String())
}

// makeKeys generates the keys and issues the certificates of a new organisation.
func (s *Site) makeKeys(o Options) (err error) {
	var root, issuing, message hsm.Key
	for _, k := range []struct {
		uri string
		alg hsm.Algorithm
		to  *hsm.Key
	}{{rootKey, hsm.ECDSAP384, &root}, {issuingKey, hsm.ECDSAP384, &issuing}, {identityKey, hsm.ECDSAP384, &s.identity},
		{messageKey, hsm.Ed25519, &message}, {logKey, hsm.Ed25519, &s.log}, {cosignerKey, hsm.Ed25519, &s.cosigner}} {
		if *k.to, err = s.keyring.Generate(k.uri, k.alg); err != nil {
			return err
		}
	}
	s.messages.add(message)
	now := o.Now()
	if s.root, err = pki.NewRoot(root, string(o.Org), o.Domain, now); err != nil {
		return err
	}
	var above issuers
	if above.issuing, err = pki.NewIssuing(s.root, root, issuing.Public(), now); err != nil {
		return err
	}
	if above.identity, err = pki.NewIdentity(above.issuing, issuing, s.identity.Public(), o.Instance, now); err != nil {
		return err
	}
	s.issuers.Store(&above)
	for _, c := range []struct {
		name string
		cert *x509.Certificate
	}{{rootCert, s.root}, {issuingCert, above.issuing}, {identityCert, above.identity}} {
		if err := pki.SaveCertificates(filepath.Join(s.Dir, certDir, c.name), c.cert); err != nil {
			return err
		}
	}
	return errors.Join(root.Close(), issuing.Close())
}

// Open opens the data directory dir. The passphrase is read from where its node.yaml says, or else from ask.
func Open(dir string, ask hsm.Passphrase, now func() time.Time) (_ *Site, err error) {
	s := &Site{Dir: dir, now: now}
	if err := s.load(); err != nil {
		return nil, err
	}
	pass, ok := s.Config.Keys.Source(dir)
	if !ok {
		pass = ask
	}
	if s.keyring, err = hsm.OpenKeyring(dir, pass); err != nil {
		return nil, s.stage(err)
	}
	for _, k := range []struct {
		uri string
		to  *hsm.Key
	}{{identityKey, &s.identity}, {logKey, &s.log}, {cosignerKey, &s.cosigner}} {
		if k.to == &s.cosigner && !hasKey(dir, k.uri) {
			continue
		}
		if *k.to, err = s.keyring.Open(k.uri); err != nil {
			return nil, s.stage(err)
		}
	}
	if err := s.openMessageKeys(); err != nil {
		return nil, s.stage(err)
	}
	var above issuers
	for _, c := range []struct {
		name string
		to   **x509.Certificate
	}{{rootCert, &s.root}, {issuingCert, &above.issuing}, {identityCert, &above.identity}} {
		certs, err := pki.LoadCertificates(filepath.Join(dir, certDir, c.name))
		if err != nil {
			return nil, s.stage(err)
		}
		*c.to = certs[0]
	}
	s.issuers.Store(&above)
	if s.members, err = member.Open(s.db, s.governance()); err != nil && !errors.Is(err, member.ErrNone) {
		return nil, s.stage(err)
	}
	s.useListedKey()
	return s, nil
}

func (s *Site) governance() member.Options {
	o := member.Options{Org: s.Org(), Key: s.log, Now: s.now}
	if s.cosigner != nil {
		o.Cosigner = s.cosigner
	}
	return o
}

// hasKey reports whether the file that a key's URI names exists in a data directory.
func hasKey(dir, uri string) bool {
	_, err := os.Stat(filepath.Join(dir, strings.TrimPrefix(uri, "file:")))
	return err == nil
}

// Close zeroises the keys and unlocks the data directory. A Site whose node ran was closed by it.
func (s *Site) Close() error {
	errs := []error{s.messages.close()}
	for _, k := range []hsm.Key{s.identity, s.log, s.cosigner} {
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
		s.keyring = nil
	}
	return errors.Join(errs...)
}

// Org returns the organisation whose site it is.
func (s *Site) Org() transport.OrgID { return transport.OrgID(s.Config.Organization.ID) }

// FederationID returns the federation that the site belongs to, or "" before it is founded or imported.
func (s *Site) FederationID() string {
	if s.members == nil {
		return ""
	}
	return s.members.Current().FederationID()
}

// Federation returns the name of the federation that the site belongs to, and whether it chairs it.
func (s *Site) Federation() (name string, chair bool) {
	if s.members == nil {
		return "", false
	}
	return s.members.Current().Name(), s.members.Chair()
}

// logOrigin names the organisation's own log, generation 0.
func (s *Site) logOrigin() string {
	return member.LogOrigin(s.FederationID(), s.Org(), 0)
}

func (s *Site) logSigner() (note.Signer, error) { return ledger.NewSigner(s.logOrigin(), s.log) }

// Bundle writes the governance log, which whoever joins imports.
func (s *Site) Bundle(w io.Writer) error { return s.members.ExportBundle(w) }

// Import takes in the governance log of the federation with the given id, verified from genesis. What it holds already
// must be the beginning of it.
func (s *Site) Import(ctx context.Context, r io.Reader, federationID string) (err error) {
	if s.members == nil {
		s.members, err = member.Import(ctx, s.db, r, federationID, s.governance())
		return err
	}
	return s.members.ImportBundle(ctx, r)
}
