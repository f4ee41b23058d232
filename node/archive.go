package node

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"fednode/hsm/durable"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
)

// Files of an audit archive; its log is a static tlog-tiles directory.
const (
	aboutFile      = "about.json"
	governanceFile = "governance.json"
	logDir         = "log"
	receiptsDir    = "receipts"
)

const archiveFormat = "fednode/audit-archive/v1"

// about says whose archive it is. Nothing rests on it but which member's keys the log is verified with.
type about struct {
	Format       string          `json:"format"`
	FederationID string          `json:"federation_id"`
	Organization transport.OrgID `json:"organization_id"`
	LogOrigin    string          `json:"log_origin"`
}

// Archive writes what others need to verify this organisation's records, as a tar stream: the governance log from
// genesis, the own log, and the receipts of what others sent. It holds no payload and no personal data.
func (n *Node) Archive(w io.Writer) error {
	t := tar.NewWriter(w)
	now := n.site.now()
	put := func(name string, data []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: now, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	head, err := jcs.Marshal(about{archiveFormat, n.site.FederationID(), n.site.Org(), n.site.logOrigin()})
	if err != nil {
		return err
	}
	if err := put(aboutFile, head); err != nil {
		return err
	}
	var bundle bytes.Buffer
	if err := n.site.Bundle(&bundle); err != nil {
		return err
	}
	if err := put(governanceFile, bundle.Bytes()); err != nil {
		return err
	}
	// Receipts come after the log: those of entries that it does not have yet are superfluous, missing ones would not be.
	if err := n.Log.Files(func(name string, data []byte) error { return put(path.Join(logDir, name), data) }); err != nil {
		return err
	}
	if err := n.archiveReceipts(put); err != nil {
		return err
	}
	return t.Close()
}

// archiveReceipts writes the receipts in the order of the own log, one a line, in files of some 4 MiB.
func (n *Node) archiveReceipts(put func(name string, data []byte) error) error {
	var lines bytes.Buffer
	files := 0
	flush := func() error {
		err := put(receiptsPath(files), lines.Bytes())
		files++
		lines.Reset()
		return err
	}
	err := n.site.db.View(func(tx *store.Tx) error {
		return transport.Receipts(tx, func(r transport.Receipt) error {
			b, err := jcs.Marshal(r)
			if err != nil {
				return err
			}
			lines.Write(append(b, '\n'))
			if lines.Len() < 4<<20 {
				return nil
			}
			return flush()
		})
	})
	if err == nil && lines.Len() > 0 {
		err = flush()
	}
	return err
}

func receiptsPath(file int) string { return fmt.Sprintf("%s/%06d.jsonl", receiptsDir, file) }

// Limits of an archive from a stranger.
const (
	maxArchiveFiles = 4 << 20
	maxArchiveFile  = 1 << 30 // bytes
	maxReceiptLine  = 256 << 10
	maxAbout        = 4 << 10
)

// Unpack writes the files of an audit archive into dir, which it makes.
func Unpack(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(r)
	for files := 0; ; files++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if files == maxArchiveFiles || h.Typeflag != tar.TypeReg || sparse(h) || h.Size > maxArchiveFile || !archived(h.Name) {
			return fmt.Errorf("archive: %.80q is not a file of an audit archive, or one too many or too large", h.Name)
		}
		if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
	}
}

// sparse reports whether a file has holes, with which a few bytes of archive would fill the disk.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func archived(name string) bool {
	return name == aboutFile || name == governanceFile ||
		(strings.HasPrefix(name, logDir+"/") || strings.HasPrefix(name, receiptsDir+"/")) && fs.ValidPath(name) && len(name) < 128
}

// An Archived is an organisation's audit archive as a directory.
type Archived struct {
	Organization transport.OrgID
	fsys         fs.FS
	about        about
	members      *member.Set
	head         ledger.Head // once verified
}

// OpenArchive reads who an archive is of and verifies the governance log in it from genesis. A federationID that is not
// empty pins the federation.
func OpenArchive(fsys fs.FS, federationID string) (*Archived, error) {
	head, err := fsys.Open(aboutFile)
	if err != nil {
		return nil, fmt.Errorf("not an audit archive, which fednode audit export writes: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(head, maxAbout))
	if err = errors.Join(err, head.Close()); err != nil {
		return nil, err
	}
	a := &Archived{fsys: fsys}
	if err := jcs.Unmarshal(data, &a.about); err != nil {
		return nil, fmt.Errorf("%s: %w", aboutFile, err)
	}
	if a.about.Format != archiveFormat {
		return nil, fmt.Errorf("%s: format %.40q; this fednode reads %s", aboutFile, a.about.Format, archiveFormat)
	}
	f, err := fsys.Open(governanceFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if a.members, err = member.ReadBundle(f, federationID); err != nil {
		return nil, err
	}
	if a.about.FederationID != a.members.FederationID() {
		return nil, fmt.Errorf("%s names federation %.64s; the governance log is of %s", aboutFile, a.about.FederationID, a.members.FederationID())
	}
	a.Organization = a.about.Organization
	m, ok := a.members.Get(a.Organization)
	if !ok {
		return nil, fmt.Errorf("%s: %.64q is not a member of the federation", aboutFile, a.Organization)
	}
	if a.about.LogOrigin != m.LogOrigin() {
		return nil, fmt.Errorf("%s names the log %.200q; that of %s is %s", aboutFile, a.about.LogOrigin, m.ID, m.LogOrigin())
	}
	return a, nil
}

// A Verification says what was verified. Every number counts what holds; what does not is an error.
type Verification struct {
	FederationID string                  `json:"federation_id"`
	Federation   string                  `json:"federation"`
	Members      int                     `json:"members"`
	Governance   int64                   `json:"governance_entries"`
	Organization transport.OrgID         `json:"organization_id"`
	LogOrigin    string                  `json:"log_origin"`
	Entries      int64                   `json:"entries"`
	Root         string                  `json:"root"`
	Categories   map[ledger.Category]int `json:"categories"`
	Envelopes    int                     `json:"envelopes"` // signatures of messages sent and received
	Receipts     int                     `json:"receipts"`  // messages received, each proven to be in its sender's log
}

// Verify verifies the archive from the ground up: every entry, tile and the signed checkpoint of the own log; the
// signature of every message in it under its sender's key; and for every message received, that its sender's log holds
// it. It needs nothing but the archive.
func (a *Archived) Verify() (*Verification, error) {
	m, _ := a.members.Get(a.Organization)
	v := &Verification{FederationID: a.members.FederationID(), Federation: a.members.Name(), Members: len(a.members.All()), Governance: a.members.Head().Size,
		Organization: a.Organization, LogOrigin: m.LogOrigin(), Categories: map[ledger.Category]int{}}
	receipts := &receiptReader{fsys: a.fsys, last: -1}
	defer receipts.close()
	log, err := fs.Sub(a.fsys, logDir)
	if err != nil {
		return nil, err
	}
	head, err := ledger.VerifyDir(log, m.LogVerifier(), func(i int64, entry []byte) error {
		e, err := ledger.ParseEntry(entry)
		if err != nil {
			return err
		}
		v.Categories[e.Category]++
		return v.message(a.members, a.Organization, e, func() (*transport.Receipt, error) { return receipts.at(i) })
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Organization, err)
	}
	a.head, v.Entries, v.Root = head, head.Size, head.Root.String()
	return v, nil
}

// message verifies the envelope that an entry of org's log carries, if any.
func (v *Verification) message(members *member.Set, org transport.OrgID, e ledger.Entry, receipt func() (*transport.Receipt, error)) error {
	sent := strings.HasSuffix(e.Type, "-sent")
	received := strings.HasSuffix(e.Type, "-received")
	if e.Envelope == nil {
		if sent || received {
			return fmt.Errorf("%s without its envelope", e.Type)
		}
		return nil
	}
	from, err := verifyEnvelope(members, e)
	if err != nil {
		return err
	}
	v.Envelopes++
	switch {
	case sent && from != org:
		return fmt.Errorf("%s, but the envelope is %s's", e.Type, from)
	case !received:
		return nil
	}
	r, err := receipt()
	if err != nil {
		return err
	}
	if r == nil {
		if e.Result != "ok" { // it came without proof, or asked for an artifact, and was refused
			return nil
		}
		return fmt.Errorf("%s without the sender's receipt", e.Type)
	}
	if r.Peer != from || !bytes.Equal(r.Envelope, e.Envelope) {
		return errors.New("the receipt is of another message")
	}
	if err := verifyReceipt(members, r); err != nil {
		return err
	}
	v.Receipts++
	return nil
}

// verifyEnvelope checks the signature of an entry's envelope under its sender's key and returns the sender. A request of
// another federation is on record where it was refused for that, and nowhere else.
func verifyEnvelope(members *member.Set, e ledger.Entry) (transport.OrgID, error) {
	var head struct {
		Sender  transport.Address `json:"sender"`
		Binding struct {
			KeyID        string `json:"key_id"`
			FederationID string `json:"federation_id"`
		} `json:"binding"`
	}
	if err := json.Unmarshal(e.Envelope, &head); err != nil {
		return "", fmt.Errorf("envelope: %w", err)
	}
	from := head.Sender.OrganizationID
	m, ok := members.Get(from)
	foreign := head.Binding.FederationID != members.FederationID()
	if !ok || foreign && !(e.Type == "request-received" && e.Result == string(transport.CodeWrongFederation)) {
		return "", fmt.Errorf("envelope of %.64q, not of a member of this federation", from)
	}
	key, ok := m.MessageKey(head.Binding.KeyID)
	if !ok {
		return "", fmt.Errorf("envelope of %s names key %.64q, which its member record does not hold", from, head.Binding.KeyID)
	}
	if err := transport.VerifyLedgerForm(e.Envelope, key); err != nil {
		return "", fmt.Errorf("envelope of %s: %w", from, err)
	}
	return from, nil
}

// verifyReceipt checks that the sender's log holds the message.
func verifyReceipt(members *member.Set, r *transport.Receipt) error {
	m, ok := members.Get(r.Peer)
	if !ok {
		return fmt.Errorf("receipt of %.64q, which is not a member", r.Peer)
	}
	leaf, text, err := r.Leaf()
	if err != nil {
		return fmt.Errorf("receipt of %s: %w", r.Peer, err)
	}
	if _, _, err := ledger.VerifyProof(text, leaf, m.LogVerifier()); err != nil {
		return fmt.Errorf("receipt of %s: %w", r.Peer, err)
	}
	return nil
}

// receiptReader reads the receipts, which are in the order of the own log.
type receiptReader struct {
	fsys fs.FS
	file int
	f    fs.File
	scan *bufio.Scanner
	next *transport.Receipt
	last int64
	done bool
}

func (r *receiptReader) advance() error {
	r.next = nil
	for !r.done {
		if r.f == nil {
			f, err := r.fsys.Open(receiptsPath(r.file))
			if errors.Is(err, fs.ErrNotExist) {
				r.done = true
				return nil
			}
			if err != nil {
				return err
			}
			r.f, r.scan = f, bufio.NewScanner(f)
			r.scan.Buffer(nil, maxReceiptLine)
		}
		if r.scan.Scan() {
			break
		}
		if err := r.scan.Err(); err != nil {
			return fmt.Errorf("%s: %w", receiptsPath(r.file), err)
		}
		r.close()
		r.file++
	}
	if r.done {
		return nil
	}
	x := new(transport.Receipt)
	if err := jcs.Unmarshal(r.scan.Bytes(), x); err != nil {
		return fmt.Errorf("%s after entry %d: %w", receiptsPath(r.file), r.last, err)
	}
	if x.EntryIndex <= r.last {
		return fmt.Errorf("%s: entry %d comes after %d", receiptsPath(r.file), x.EntryIndex, r.last)
	}
	r.next, r.last = x, x.EntryIndex
	return nil
}

// at returns the receipt of entry i, or nil; i must grow from call to call.
func (r *receiptReader) at(i int64) (*transport.Receipt, error) {
	for !r.done && r.last < i {
		if err := r.advance(); err != nil {
			return nil, err
		}
	}
	if r.next == nil || r.next.EntryIndex != i {
		return nil, nil
	}
	return r.next, nil
}

func (r *receiptReader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// Save writes the node's archive to name, which is new: a tar file, or a directory if name does not end in .tar. Of one that
// is cut short nothing is left.
func Save(r io.Reader, name string) error {
	if !strings.HasSuffix(name, ".tar") {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Clean(name)), 0o755), os.Mkdir(name, 0o755)); err != nil {
			return err
		}
		if err := Unpack(r, name); err != nil {
			return errors.Join(err, os.RemoveAll(name))
		}
		return nil
	}
	return durable.CreateWith(name, 0o644|durable.Masked, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}
