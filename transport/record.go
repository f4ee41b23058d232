package transport

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/transparency-dev/formats/proof"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
)

// AuditInfo is what the entries of a message say beside the envelope; which fields a category needs is the ledger's to
// say. UserID is a commitment, never a name; left empty where it is needed, it commits to the sending instance.
type AuditInfo struct {
	Category                                                  ledger.Category
	UserID, Resource, Action, DataCategory, Purpose, PolicyID string
}

const (
	requestSent     = "request-sent"
	requestReceived = "request-received"
	replySent       = "reply-sent"
	replyReceived   = "reply-received"

	resultOK = "ok"

	// maxEntry bounds what a peer's entry says beside the envelope, in bytes: this node's own log repeats it.
	maxEntry = 4 << 10
)

// fetchAudit describes a fetch, which comes without an entry of the sender's.
func fetchAudit(e *Envelope) AuditInfo {
	return AuditInfo{Category: ledger.DataAccess, Resource: "run:" + string(e.WorkflowID), Action: e.MessageType,
		DataCategory: "artifact", Purpose: orElse(e.Governance.DataHandling.ProcessingPurpose, "unstated")}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// entry describes one envelope for this node's log. org is who acted: the sender of the request.
func (n *Node) entry(entryType string, a AuditInfo, org OrgID, e *Envelope, result string) ledger.Entry {
	if a.Category == "" {
		a.Category = ledger.FederationManagement
	}
	x := ledger.Entry{V: 1, Type: entryType, Category: a.Category, Timestamp: NewTime(n.c.Now()).String(), UserID: a.UserID,
		OrganizationID: string(org), Resource: a.Resource, Action: orElse(a.Action, e.MessageType), Result: result,
		DataCategory: a.DataCategory, Purpose: a.Purpose, PolicyID: a.PolicyID}
	switch a.Category {
	case ledger.Authentication, ledger.Authorization, ledger.DataAccess:
		if x.UserID == "" {
			x.UserID = Commit(e.Salt, []byte("instance:"+e.Sender.InstanceID))
		}
	}
	if e.WorkflowID != "" {
		x.Reference = string(e.WorkflowID) + "/" + e.StepID + "/" + strconv.Itoa(e.Binding.Attempt)
	}
	return x
}

// append records x with the envelope's ledger form in the node's own log and returns its index.
func (n *Node) append(tx *store.Tx, x ledger.Entry, form []byte) (int64, error) {
	x.Envelope = form
	b, err := x.Marshal()
	if err != nil {
		return 0, fmt.Errorf("entry %s: %w", x.Type, err)
	}
	return n.c.Log.Append(tx, b)
}

// prove returns the .tlog-proof of entry index for the peer. The proof's extra data (https://c2sp.org/tlog-proof) is the
// entry without its envelope, which the peer has: together they are the leaf.
func (n *Node) prove(index int64, x ledger.Entry) ([]byte, error) {
	x.Envelope = nil
	extra, err := jcs.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	text, err := n.c.Log.Prove(index)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	p.ExtraData = extra
	return p.Marshal(), nil
}

// A peerEntry is the entry of the peer's log that holds an envelope, proven to be there.
type peerEntry struct {
	ledger.Entry
	head       ledger.Head
	checkpoint []byte // signed note
}

// audit returns the peer's own words about its message. They are its responsibility, and bounded by the ledger.
func (p peerEntry) audit() AuditInfo {
	return AuditInfo{Category: p.Category, UserID: p.UserID, Resource: p.Resource, Action: p.Action, DataCategory: p.DataCategory,
		Purpose: p.Purpose, PolicyID: p.PolicyID}
}

// prove verifies that the envelope is an entry of the given type in the peer's log.
func (in *incoming) prove(entryType string) error {
	bad := func(format string, a ...any) error { return refuse(CodeBadProof, format, a...) }
	if len(in.proof) == 0 {
		return bad("the message comes without proof of its entry")
	}
	var p proof.TLogProof
	if err := p.Unmarshal(in.proof); err != nil {
		return bad("%v", err)
	}
	var x ledger.Entry
	if len(p.ExtraData) > maxEntry {
		return bad("extra data of %d bytes; at most %d", len(p.ExtraData), maxEntry)
	}
	if err := jcs.Unmarshal(p.ExtraData, &x); err != nil {
		return bad("extra data is not the entry: %v", err)
	}
	if x.Type != entryType || x.Envelope != nil {
		return bad("the proof is of an entry of type %q; %q is required", x.Type, entryType)
	}
	x.Envelope = in.form
	leaf, err := x.Marshal()
	if err != nil {
		return bad("%v", err)
	}
	p.ExtraData = nil
	head, _, err := ledger.VerifyProof(p.Marshal(), leaf, in.from.LogVerifier())
	if err != nil {
		return bad("%v", err)
	}
	in.entry = peerEntry{Entry: x, head: head, checkpoint: p.Checkpoint}
	return nil
}

// proven reports whether prove has succeeded.
func (in *incoming) proven() bool { return in.entry.checkpoint != nil }

const bucketReceipts = "transport/receipts"

// A Receipt is what makes a counterpart's message undeniable: its signed envelope and the proof that its log holds it.
type Receipt struct {
	EntryIndex int64           `json:"entry_index"` // of the entry in the node's own log
	Peer       OrgID           `json:"peer"`
	Envelope   json.RawMessage `json:"envelope"` // ledger form, see [VerifyLedgerForm]
	Proof      []byte          `json:"proof"`    // .tlog-proof; its extra data is the entry without the envelope
}

func (in *incoming) keepReceipt(tx *store.Tx, index int64) error {
	v, err := json.Marshal(Receipt{index, in.from.ID, in.form, in.proof})
	if err != nil {
		return err
	}
	return tx.Bucket(bucketReceipts).Put(bigEndian(index), v)
}

// Receipts calls fn with every receipt in the order of the node's own log, until fn returns an error.
func Receipts(tx *store.Tx, fn func(Receipt) error) error {
	b := tx.Bucket(bucketReceipts)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var r Receipt
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("receipt %x: %w", k, err)
		}
		return fn(r)
	})
}

// Leaf returns the entry of the peer's log that the receipt's proof is about, as [ledger.VerifyProof] wants it, and
// that proof without its extra data.
func (r Receipt) Leaf() (leaf, tlogProof []byte, err error) {
	var p proof.TLogProof
	if err := p.Unmarshal(r.Proof); err != nil {
		return nil, nil, err
	}
	var x ledger.Entry
	if err := jcs.Unmarshal(p.ExtraData, &x); err != nil {
		return nil, nil, fmt.Errorf("extra data of the proof: %w", err)
	}
	x.Envelope = slices.Clone(r.Envelope)
	leaf, err = x.Marshal()
	p.ExtraData = nil
	return leaf, p.Marshal(), err
}

func rootHex(h ledger.Head) string { return hex.EncodeToString(h.Root[:]) }

func decodeStrict(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err == nil && base64.StdEncoding.EncodeToString(b) != s {
		return nil, fmt.Errorf("not strict padded base64")
	}
	return b, err
}
