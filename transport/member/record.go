package member

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"fednode/store/jcs"
	"fednode/transport/pki"
)

// An OrgID names an organisation in its federation: lower-case letters, digits and hyphens, at most 63, beginning with
// a letter or digit.
type OrgID string

// Regular expressions are compiled when first used, not at the start of every command and worker.
var orgRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`) })

// Validate checks the form of the id.
func (o OrgID) Validate() error {
	if !orgRE().MatchString(string(o)) {
		return fmt.Errorf("organisation id %.70q: use lower-case letters, digits and hyphens, at most 63, beginning with a letter or digit", string(o))
	}
	return nil
}

// Limits of a record.
const (
	maxRoots     = 4
	maxEndpoints = 16
	maxKeys      = 16
	maxText      = 256
	maxRecord    = 48 << 10 // bytes of a signed record
)

// timeFormat is RFC 3339 UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// parseTime reads the one form of a time; time.Parse alone takes a comma for the point.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	if err != nil || t.Format(timeFormat) != s {
		return t, fmt.Errorf("%.40q is not RFC 3339 UTC with milliseconds", s)
	}
	return t, nil
}

// A Record is what an organisation says of itself. A later one, of a higher sequence, replaces it.
type Record struct {
	OrganizationID OrgID    `json:"organization_id"`
	Name           string   `json:"name"`
	Domain         string   `json:"domain,omitempty"`
	Jurisdiction   string   `json:"jurisdiction,omitempty"`
	Roots          [][]byte `json:"roots"`     // DER; its leaf certificates chain to one of them
	Endpoints      []string `json:"endpoints"` // host:port, UDP, best first
	Keys           Keys     `json:"keys"`
	Sequence       int64    `json:"sequence"` // from 1
	IssuedAt       string   `json:"issued_at"`
}

// Keys are the software keys that the record binds to the organisation.
type Keys struct {
	Message  []MessageKey `json:"message"`
	Log      LogKey       `json:"log"`
	Cosigner []byte       `json:"cosigner,omitempty"` // Ed25519; logs of other members are cosigned with it
}

// A MessageKey signs envelopes, acceptances, grants and approvals.
type MessageKey struct {
	KeyID  string `json:"key_id"`
	Alg    string `json:"alg"` // Ed25519
	Public []byte `json:"public"`
}

// A LogKey signs the checkpoints of one generation of the organisation's own log and, if it is the chair, of the
// governance log.
type LogKey struct {
	Generation int    `json:"generation"`
	Public     []byte `json:"public"` // Ed25519
}

// A SignedRecord is a record with the identity key's signature: ECDSA P-384 with SHA-384, ASN.1, over
// `fednode/member-record/v1\n` + canonical record. Chain is identity certificate, then issuing CA.
type SignedRecord struct {
	Record     Record       `json:"record"`
	Chain      [][]byte     `json:"chain"`
	Signature  []byte       `json:"signature"`
	Possession []Possession `json:"possession"` // one for each software key
}

// Possession is a software key's own signature over `fednode/key-possession/v1\n` + the record's hash.
type Possession struct {
	Public    []byte `json:"public"`
	Signature []byte `json:"signature"`
}

func (r Record) signedBytes() ([]byte, error) {
	c, err := jcs.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("member record of %s: %w", r.OrganizationID, err)
	}
	return append([]byte("fednode/member-record/v1\n"), c...), nil
}

// Hash returns the SHA-256 of the record's signed bytes in lower-case hex; approvals sign it.
func (r Record) Hash() (string, error) {
	b, err := r.signedBytes()
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}

func possessionBytes(hash string) []byte { return []byte("fednode/key-possession/v1\n" + hash) }

// SignRecord signs r with the identity key that chain certifies. software are the private halves of all keys in r.
func SignRecord(r Record, chain []*x509.Certificate, identity crypto.Signer, software ...crypto.Signer) (SignedRecord, error) {
	s := SignedRecord{Record: r}
	for _, c := range chain {
		s.Chain = append(s.Chain, c.Raw)
	}
	b, err := r.signedBytes()
	if err != nil {
		return s, err
	}
	digest := sha512.Sum384(b)
	if s.Signature, err = identity.Sign(rand.Reader, digest[:], crypto.SHA384); err != nil {
		return s, fmt.Errorf("sign member record: %w", err)
	}
	hash, err := r.Hash()
	if err != nil {
		return s, err
	}
	for _, k := range software {
		pub, ok := k.Public().(ed25519.PublicKey)
		if !ok {
			return s, fmt.Errorf("sign member record: software key is %T; want Ed25519", k.Public())
		}
		sig, err := k.Sign(rand.Reader, possessionBytes(hash), crypto.Hash(0))
		if err != nil {
			return s, fmt.Errorf("sign member record: %w", err)
		}
		s.Possession = append(s.Possession, Possession{pub, sig})
	}
	_, err = s.verify()
	return s, err
}

// A verified is a record whose signatures and certificates have been checked, as of its issue.
type verified struct {
	SignedRecord
	hash  string
	roots []*x509.Certificate
}

// verify checks the record by itself: its form, that its identity chains to its own roots, and all signatures. Who may
// say so in a federation is the governance log's to decide.
func (s SignedRecord) verify() (*verified, error) {
	r := s.Record
	fail := func(format string, a ...any) (*verified, error) {
		return nil, fmt.Errorf("member record of %.63s: %w", r.OrganizationID, fmt.Errorf(format, a...))
	}
	if err := r.check(); err != nil {
		return fail("%w", err)
	}
	whole, err := jcs.Marshal(s)
	if err != nil {
		return fail("%w", err)
	}
	if len(whole) > maxRecord {
		return fail("%d bytes; at most %d", len(whole), maxRecord)
	}
	issued, err := parseTime(r.IssuedAt)
	if err != nil {
		return fail("issued_at: %w", err)
	}
	v := &verified{SignedRecord: s}
	for _, der := range r.Roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return fail("root certificate: %w", err)
		}
		if err := pki.CheckRoot(root, string(r.OrganizationID), r.Domain, issued); err != nil {
			return fail("%w", err)
		}
		v.roots = append(v.roots, root)
	}
	var chain []*x509.Certificate
	for _, der := range s.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fail("certificate chain: %w", err)
		}
		chain = append(chain, c)
	}
	identity, err := pki.VerifyIdentity(chain, v.roots, string(r.OrganizationID), issued)
	if err != nil {
		return fail("%w", err)
	}
	b, err := r.signedBytes()
	if err != nil {
		return nil, err
	}
	digest := sha512.Sum384(b)
	if pub, ok := identity.PublicKey.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(pub, digest[:], s.Signature) {
		return fail("the identity key's signature does not verify")
	}
	if v.hash, err = r.Hash(); err != nil {
		return nil, err
	}
	if err := s.checkPossession(v.hash); err != nil {
		return fail("%w", err)
	}
	return v, nil
}

// checkPossession wants exactly one proof for each key.
func (s SignedRecord) checkPossession(hash string) error {
	need := map[string]bool{string(s.Record.Keys.Log.Public): true}
	if c := s.Record.Keys.Cosigner; c != nil {
		need[string(c)] = true
	}
	for _, k := range s.Record.Keys.Message {
		need[string(k.Public)] = true
	}
	for _, p := range s.Possession {
		if !need[string(p.Public)] {
			return errors.New("proof of possession of a key that the record does not hold, or twice")
		}
		if !ed25519.Verify(p.Public, possessionBytes(hash), p.Signature) {
			return errors.New("proof of possession does not verify")
		}
		delete(need, string(p.Public))
	}
	if len(need) > 0 {
		return errors.New("a key comes without proof of possession")
	}
	return nil
}

func (r Record) check() error {
	if err := r.OrganizationID.Validate(); err != nil {
		return err
	}
	switch {
	case r.Name == "" || len(r.Name) > maxText || len(r.Domain) > maxText || len(r.Jurisdiction) > maxText:
		return fmt.Errorf("name, domain and jurisdiction have at most %d bytes, and a name is required", maxText)
	case !isText(r.Name) || !isText(r.Domain) || !isText(r.Jurisdiction):
		return errors.New("name, domain and jurisdiction are printable text: they are shown to people")
	case len(r.Roots) == 0 || len(r.Roots) > maxRoots:
		return fmt.Errorf("%d root certificates; 1 to %d are allowed", len(r.Roots), maxRoots)
	case len(r.Endpoints) == 0 || len(r.Endpoints) > maxEndpoints:
		return fmt.Errorf("%d endpoints; 1 to %d are allowed", len(r.Endpoints), maxEndpoints)
	case len(r.Keys.Message) == 0 || len(r.Keys.Message) > maxKeys:
		return fmt.Errorf("%d message keys; 1 to %d are allowed", len(r.Keys.Message), maxKeys)
	case r.Sequence < 1 || r.Keys.Log.Generation < 0:
		return errors.New("sequence begins at 1, generation at 0")
	case len(r.Keys.Log.Public) != ed25519.PublicKeySize:
		return errors.New("the log key is not Ed25519")
	case r.Keys.Cosigner != nil && (len(r.Keys.Cosigner) != ed25519.PublicKeySize || bytes.Equal(r.Keys.Cosigner, r.Keys.Log.Public)):
		return errors.New("the cosigner key is not Ed25519, or is the log key")
	}
	for _, e := range r.Endpoints {
		if err := CheckEndpoint(e); err != nil {
			return err
		}
	}
	ids, keys := map[string]bool{}, map[string]bool{string(r.Keys.Log.Public): true, string(r.Keys.Cosigner): true}
	for _, k := range r.Keys.Message {
		if k.Alg != "Ed25519" || len(k.Public) != ed25519.PublicKeySize {
			return fmt.Errorf("message key %.32q is not Ed25519", k.KeyID)
		}
		if !keyIDRE().MatchString(k.KeyID) || ids[k.KeyID] || keys[string(k.Public)] {
			return fmt.Errorf("message key %.32q: ids and keys are unique, ids of letters, digits and ._:-", k.KeyID)
		}
		ids[k.KeyID], keys[string(k.Public)] = true, true
	}
	return nil
}

var keyIDRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`) })

// isText reports whether s can be shown: no control characters, which move a terminal's cursor, and none of the
// invisible ones that turn the direction of writing.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

var hostRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$`) })

// CheckEndpoint checks that e is host:port, as records have it.
func CheckEndpoint(e string) error {
	host, port, err := net.SplitHostPort(e)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("endpoint %.80q: want host:port", e)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" || err != nil && hostRE().MatchString(host) {
		return nil
	}
	return fmt.Errorf("endpoint %.80q: want a DNS name or an IP address before the port", e)
}
