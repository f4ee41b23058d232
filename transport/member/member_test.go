package member

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fednode/store/ledger"
	"fednode/transport/pki"
)

var testNow = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

// An organisation is everything that one has to take part with.
type organisation struct {
	id       OrgID
	identity *ecdsa.PrivateKey
	root     *x509.Certificate
	chain    []*x509.Certificate
	message  ed25519.PrivateKey
	log      ed25519.PrivateKey
	cosigner ed25519.PrivateKey
	sequence int64
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func p384() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) }

func newKey() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return must(k, err)
}

func newOrg(id OrgID) *organisation {
	o := &organisation{id: id, identity: p384(), message: newKey(), log: newKey(), cosigner: newKey()}
	o.certify()
	return o
}

// certify gives the organisation a new root, with all that hangs on it.
func (o *organisation) certify() {
	rootKey, issuingKey := p384(), p384()
	o.root = must(pki.NewRoot(rootKey, string(o.id), "", testNow))
	issuing := must(pki.NewIssuing(o.root, rootKey, issuingKey.Public(), testNow))
	o.chain = []*x509.Certificate{must(pki.NewIdentity(issuing, issuingKey, o.identity.Public(), "node1", testNow)), issuing}
}

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

// unsigned returns the organisation's next record, altered.
func (o *organisation) unsigned(alter func(*Record)) Record {
	o.sequence++
	r := Record{OrganizationID: o.id, Name: "Organisation " + string(o.id), Jurisdiction: "DE", Roots: [][]byte{o.root.Raw},
		Endpoints: []string{string(o.id) + ".example:443"}, Sequence: o.sequence, IssuedAt: testNow.Format(timeFormat)}
	r.Keys = Keys{Message: []MessageKey{{"k1", "Ed25519", public(o.message)}}, Log: LogKey{0, public(o.log)}, Cosigner: public(o.cosigner)}
	if alter != nil {
		alter(&r)
	}
	return r
}

func (o *organisation) sign(r Record, more ...crypto.Signer) (SignedRecord, error) {
	return SignRecord(r, o.chain, o.identity, append([]crypto.Signer{o.message, o.log, o.cosigner}, more...)...)
}

func (o *organisation) record(alter func(*Record)) SignedRecord {
	return must(o.sign(o.unsigned(alter)))
}

func (o *organisation) approver() Approver { return Approver{o.id, "k1", o.message} }

// A federation is a governance log with the organisations in it, the last change in effect.
type federation struct {
	orgs    []*organisation
	entries [][]byte
	effect  *Certificate // of the entries
	folded  *Set         // of the first entries, up to its head
}

func founded(t testing.TB, c Charter) *federation {
	t.Helper()
	o := newOrg("org-a")
	g, err := NewGenesis("Test Federation", c, o.record(nil), o.approver(), bytes.Repeat([]byte{9}, nonceSize), testNow)
	if err != nil {
		t.Fatal(err)
	}
	return &federation{orgs: []*organisation{o}, entries: [][]byte{g}}
}

// newFederation has n members; each was approved by all before it.
func newFederation(t testing.TB, n int, c Charter) *federation {
	t.Helper()
	f := founded(t, c)
	for i := 1; i < n; i++ {
		o := newOrg(OrgID(fmt.Sprintf("org-%c", 'a'+i)))
		f.admit(t, o.record(nil), f.orgs...)
		f.orgs = append(f.orgs, o)
	}
	return f
}

func (f *federation) id(testing.TB) string {
	h := ledger.LeafHash(f.entries[0])
	return hex.EncodeToString(h[:])
}

func (f *federation) set(t testing.TB) *Set {
	t.Helper()
	if f.folded == nil || f.folded.Head().Size != int64(len(f.entries)) {
		l, err := foldAll(f.entries)
		if err == nil && f.effect != nil {
			l, err = l.settle(f.effect, l.tree.Head())
		}
		if err != nil {
			t.Fatal(err)
		}
		f.folded = l.set
	}
	return f.folded
}

func (f *federation) approvals(t testing.TB, rec SignedRecord, by ...*organisation) (out []Approval) {
	t.Helper()
	for _, o := range by {
		a, err := ApproveMember(f.id(t), rec, o.approver())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// apply returns what a change makes of a set.
func apply(s *Set, e entry) (*Set, error) {
	b, err := e.marshal()
	if err != nil {
		return nil, err
	}
	parsed, err := parseEntry(b)
	if err != nil {
		return nil, err
	}
	return s.apply(parsed)
}

// try returns what a member entry more would make of the federation.
func (f *federation) try(t testing.TB, rec SignedRecord, approvals ...Approval) (*Set, error) {
	t.Helper()
	return apply(f.set(t), newMemberEntry(rec, approvals, testNow.Add(time.Minute)))
}

func (f *federation) admit(t testing.TB, rec SignedRecord, by ...*organisation) {
	t.Helper()
	f.add(t, newMemberEntry(rec, f.approvals(t, rec, by...), testNow.Add(time.Minute)))
}

// add has a change enter the log, be certified and take effect.
func (f *federation) add(t testing.TB, e entry) {
	t.Helper()
	f.set(t)
	e.Certificate = f.effect
	f.entries = append(slices.Clip(f.entries), must(e.marshal()))
	c := certificate(f.id(t), f.entries, f.orgs...)
	f.entries = append(f.entries, must(newCertificateEntry(c, f.orgs[0].id, testNow)))
	f.effect = certificate(f.folded.federationID, f.entries, f.orgs...)
	f.folded = nil
	f.set(t)
}

// checkpointOf signs the log of these entries as its chair.
func checkpointOf(federationID string, entries [][]byte, chair *organisation) []byte {
	head := must(ledger.HeadOf(entries))
	s := must(ledger.NewSigner(govOrigin(federationID), chair.log))
	return must(note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", govOrigin(federationID), head.Size, head.Root)}, s))
}

// certificate has organisations, the first of which chairs, cosign the log of these entries.
func certificate(federationID string, entries [][]byte, by ...*organisation) *Certificate {
	c := &Certificate{Checkpoint: string(checkpointOf(federationID, entries, by[0]))}
	for _, o := range by {
		c.Cosignatures = append(c.Cosignatures, must(ledger.Cosign([]byte(c.Checkpoint), CosignerName(federationID, o.id), o.cosigner, testNow)))
	}
	slices.Sort(c.Cosignatures)
	return c
}

func wantError(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error %v, want one that says %q", what, err, text)
	}
}

func TestQuorum(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 4, 7: 5, 10: 7, 20: 14} {
		if got := Quorum(n); got != want {
			t.Errorf("Quorum(%d) = %d, want %d", n, got, want)
		}
	}
	for n, want := range map[int]int{3: 2, 4: 3, 5: 3, 7: 5} {
		if got := QuorumAbout(n); got != want {
			t.Errorf("QuorumAbout(%d) = %d, want %d", n, got, want)
		}
	}
	// Two quorums of n members share more members than may be faulty, from n = 4 on, where any may.
	for n := 4; n < 200; n++ {
		if q, f := Quorum(n), (n-1)/3; 2*q-n <= f || q > n-f {
			t.Errorf("n = %d: quorum %d with %d faulty", n, q, f)
		}
	}
}

func TestRecordRefusals(t *testing.T) {
	o, other := newOrg("org-a"), newOrg("org-b")
	long := strings.Repeat("x", maxText+1)
	for what, c := range map[string]struct {
		alter func(*Record)
		text  string
	}{
		"no id":             {func(r *Record) { r.OrganizationID = "" }, "organisation id"},
		"capital id":        {func(r *Record) { r.OrganizationID = "Org" }, "organisation id"},
		"long id":           {func(r *Record) { r.OrganizationID = OrgID(strings.Repeat("a", 64)) }, "organisation id"},
		"id with a newline": {func(r *Record) { r.OrganizationID = "org-a\n" }, "organisation id"},
		"another's id":      {func(r *Record) { r.OrganizationID = "org-b" }, "org-b"},
		"no name":           {func(r *Record) { r.Name = "" }, "name"},
		"long name":         {func(r *Record) { r.Name = long }, "at most"},
		"terminal escape":   {func(r *Record) { r.Name = "\x1b[2J" }, "printable"},
		"writing turned":    {func(r *Record) { r.Name = "a\u202eb" }, "printable"},
		"newline in domain": {func(r *Record) { r.Domain = "a\nb" }, "printable"},
		"jurisdiction":      {func(r *Record) { r.Jurisdiction = "D\x00" }, "printable"},
		"not UTF-8":         {func(r *Record) { r.Name = "\xff" }, "not UTF-8"},
		"another domain":    {func(r *Record) { r.Domain = "org-a.example" }, "org-a.example"},
		"no root":           {func(r *Record) { r.Roots = nil }, "root"},
		"five roots":        {func(r *Record) { r.Roots = slices.Repeat([][]byte{o.root.Raw}, 5) }, "root"},
		"garbage root":      {func(r *Record) { r.Roots = [][]byte{{1, 2, 3}} }, "root certificate"},
		"another's root":    {func(r *Record) { r.Roots = [][]byte{other.root.Raw} }, "another name"},
		"identity as root":  {func(r *Record) { r.Roots = [][]byte{o.chain[0].Raw} }, "root"},
		"no endpoint":       {func(r *Record) { r.Endpoints = nil }, "endpoints"},
		"17 endpoints":      {func(r *Record) { r.Endpoints = slices.Repeat([]string{"h:1"}, 17) }, "endpoints"},
		"no message key":    {func(r *Record) { r.Keys.Message = nil }, "message key"},
		"17 message keys":   {func(r *Record) { r.Keys.Message = slices.Repeat(r.Keys.Message, 17) }, "message key"},
		"another algorithm": {func(r *Record) { r.Keys.Message[0].Alg = "none" }, "Ed25519"},
		"short message key": {func(r *Record) { r.Keys.Message[0].Public = []byte{1} }, "Ed25519"},
		"key twice": {func(r *Record) {
			r.Keys.Message = append(r.Keys.Message, MessageKey{"k2", "Ed25519", public(o.message)})
		}, "unique"},
		"key id twice": {func(r *Record) {
			r.Keys.Message = append(r.Keys.Message, MessageKey{"k1", "Ed25519", public(newKey())})
		}, "unique"},
		"log key for message":     {func(r *Record) { r.Keys.Message[0].Public = public(o.log) }, "unique"},
		"odd key id":              {func(r *Record) { r.Keys.Message[0].KeyID = "a b" }, "key"},
		"short cosigner key":      {func(r *Record) { r.Keys.Cosigner = []byte{1} }, "cosigner key"},
		"log key as cosigner":     {func(r *Record) { r.Keys.Cosigner = r.Keys.Log.Public }, "cosigner key"},
		"message key as cosigner": {func(r *Record) { r.Keys.Cosigner = public(o.message) }, "unique"},
		"unproven cosigner":       {func(r *Record) { r.Keys.Cosigner = public(newKey()) }, "possession"},
		"no log key":              {func(r *Record) { r.Keys.Log.Public = nil }, "log key"},
		"negative generation":     {func(r *Record) { r.Keys.Log.Generation = -1 }, "generation"},
		"sequence 0":              {func(r *Record) { r.Sequence = 0 }, "sequence"},
		"no time":                 {func(r *Record) { r.IssuedAt = "" }, "issued_at"},
		"time with a comma":       {func(r *Record) { r.IssuedAt = "2026-11-24T08:00:00,000Z" }, "issued_at"},
		"before its root":         {func(r *Record) { r.IssuedAt = "2020-11-24T08:00:00.000Z" }, "not yet valid"},
		"after its root":          {func(r *Record) { r.IssuedAt = "2056-11-24T08:00:00.000Z" }, "expired"},
		"an unproven key": {func(r *Record) {
			r.Keys.Message = append(r.Keys.Message, MessageKey{"k2", "Ed25519", public(newKey())})
		}, "possession"},
	} {
		_, err := o.sign(o.unsigned(c.alter))
		wantError(t, what, err, c.text)
	}
	for _, e := range []string{"", "host", "host:", ":443", "host:0", "host:65536", "host:-1", "host:+1", "host:0443", "host:https", "https://host:443", "a b:443", "a\n:443",
		"host/x:443", "[fe80::1%eth0]:443", "-host:443", strings.Repeat("a", 254) + ":443", "fe80::1:443:"} {
		_, err := o.sign(o.unsigned(func(r *Record) { r.Endpoints = []string{e} }))
		wantError(t, e, err, "endpoint")
	}
	for _, e := range []string{"h:1", "node.example:443", "10.0.0.1:65535", "[2001:db8::1]:443", "node_1:443"} {
		if _, err := o.sign(o.unsigned(func(r *Record) { r.Endpoints = []string{e} })); err != nil {
			t.Error(err)
		}
	}
}

// TestSignedRecordRefusals alters what surrounds a record.
func TestSignedRecordRefusals(t *testing.T) {
	o, other := newOrg("org-a"), newOrg("org-a")
	for what, c := range map[string]struct {
		alter func(*SignedRecord)
		text  string
	}{
		"another name":           {func(s *SignedRecord) { s.Record.Name = "x" }, "signature"},
		"flipped signature":      {func(s *SignedRecord) { s.Signature[10] ^= 1 }, "signature"},
		"no signature":           {func(s *SignedRecord) { s.Signature = nil }, "signature"},
		"no chain":               {func(s *SignedRecord) { s.Chain = nil }, "certificates"},
		"garbage chain":          {func(s *SignedRecord) { s.Chain[0] = []byte("x") }, "certificate chain"},
		"no issuing CA":          {func(s *SignedRecord) { s.Chain = s.Chain[:1] }, "identity"},
		"a namesake's chain":     {func(s *SignedRecord) { s.Chain = [][]byte{other.chain[0].Raw, other.chain[1].Raw} }, "roots"},
		"no possession":          {func(s *SignedRecord) { s.Possession = nil }, "possession"},
		"possession twice":       {func(s *SignedRecord) { s.Possession = append(s.Possession, s.Possession[0]) }, "possession"},
		"possession of another":  {func(s *SignedRecord) { s.Possession[0].Public = public(newKey()) }, "possession"},
		"flipped possession":     {func(s *SignedRecord) { s.Possession[1].Signature[0] ^= 1 }, "possession"},
		"possession of nothing":  {func(s *SignedRecord) { s.Possession[0].Public = nil }, "possession"},
		"possession of a record": {func(s *SignedRecord) { s.Possession = o.record(nil).Possession }, "possession"},
		"too large":              {func(s *SignedRecord) { s.Chain = append(s.Chain, make([]byte, maxRecord)) }, "at most"},
	} {
		s := o.record(nil)
		c.alter(&s)
		_, err := s.verify()
		wantError(t, what, err, c.text)
		if _, err := ApproveMember("f", s, o.approver()); err == nil {
			t.Errorf("%s: was approved", what)
		}
	}
	if _, err := SignRecord(o.unsigned(nil), o.chain, o.identity, o.message, o.log, o.cosigner, p384()); err == nil {
		t.Error("a software key that is not Ed25519 was taken")
	}
	if _, err := SignRecord(o.unsigned(nil), o.chain, other.identity, o.message, o.log, o.cosigner); err == nil {
		t.Error("signed by a key that the chain does not certify")
	}
}

func TestCharter(t *testing.T) {
	c, err := ParseCharter("charter.yaml", []byte("version: 1\nsequence: 2\napprovals: {member: all, record_update: quorum, charter: all}\nfreshness: {limit: 3d, alarm: 12h}\n"))
	if err != nil || c.Sequence != 2 || c.Approvals.Member != "all" || time.Duration(c.Freshness.Limit) != 72*time.Hour {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := ParseCharter("f", []byte("version: 1\napprovals: {member: quorum, record_update: self, charter: quorum}")); err != nil || c != DefaultCharter() {
		t.Errorf("%+v, %v", c, err)
	}
	const approvals = "approvals: {member: quorum, record_update: self, charter: quorum}\n"
	for text, in := range map[string]string{
		"version 2":  "version: 2\n" + approvals,
		"sequence 0": "version: 1\nsequence: 0\n" + approvals,
		"member":     "version: 1\napprovals: {member: self, record_update: self, charter: quorum}",
		"one of":     "version: 1\napprovals: {member: quorum, record_update: nobody, charter: quorum}",
		"missing":    "version: 1\napprovals: {member: quorum, charter: quorum}",
		"unknown":    "version: 1\nmembers: []\n" + approvals,
		"at least":   "version: 1\nfreshness: {limit: 1m, alarm: 1s}\n" + approvals,
		"before it":  "version: 1\nfreshness: {limit: 1d, alarm: 2d}\n" + approvals,
		"freshness":  "version: 1\nfreshness: {limit: 1d, alarm: 0}\n" + approvals,
	} {
		_, err := ParseCharter("charter.yaml", []byte(in))
		wantError(t, text, err, text)
		wantError(t, text, err, "charter.yaml")
	}
	bad := DefaultCharter()
	bad.Approvals.Charter = "self"
	wantError(t, "self", bad.check(), "self")
	bad.Approvals.Charter = "nobody"
	wantError(t, "nobody", bad.check(), "nobody")
}
