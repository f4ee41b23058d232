package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"fednode/flow"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
)

const proofFormat = "fednode/proof/v1"

// maxProof bounds a proof file, in bytes, and maxProofEntries what it is about.
const (
	maxProof        = 64 << 20
	maxProofEntries = 20_000
)

// A proof is a self-contained file that shows entries of one organisation's log: who the members are, from genesis on;
// each entry with its .tlog-proof; and for each message received, the receipt of its sender.
type proof struct {
	Format       string          `json:"format"`
	About        string          `json:"about"` // a run, or "entry N"
	Organization transport.OrgID `json:"organization_id"`
	Governance   json.RawMessage `json:"governance"`
	Entries      []provenEntry   `json:"entries"`
}

type provenEntry struct {
	Index   int64              `json:"index"`
	Entry   json.RawMessage    `json:"entry"`
	Proof   []byte             `json:"proof"` // .tlog-proof
	Receipt *transport.Receipt `json:"receipt,omitempty"`
}

// ProveRun returns a proof of everything in the own log that concerns a run, however it is spelt: its id, or the
// beginning of it that names one run alone.
func (n *Node) ProveRun(run string) ([]byte, error) {
	if len(run) < 8 {
		return nil, fmt.Errorf("%w: run %q: give at least 8 characters of its id", flow.ErrMisuse, run)
	}
	var wanted []int64
	names := map[string]bool{}
	size := n.Log.Head().Size
	for i, entry := range n.Log.Entries(0, size) {
		if i < 0 {
			return nil, ledger.ErrDamaged
		}
		if !bytes.Contains(entry, []byte(run)) {
			continue
		}
		e, err := ledger.ParseEntry(entry)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		id, _, _ := strings.Cut(e.Reference, "/")
		if strings.HasPrefix(id, run) {
			names[id] = true
			wanted = append(wanted, i)
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("run %q: %w in this organisation's log", run, flow.ErrNotFound)
	case len(names) > 1:
		return nil, fmt.Errorf("%w: run %q names %d runs; give more of its id", flow.ErrMisuse, run, len(names))
	}
	for id := range names {
		run = id
	}
	return n.prove(run, wanted)
}

// ProveEntry returns a proof of one entry of the own log.
func (n *Node) ProveEntry(index int64) ([]byte, error) {
	if size := n.Log.Head().Size; index < 0 || index >= size {
		return nil, fmt.Errorf("entry %d: %w; the log has %d", index, flow.ErrNotFound, size)
	}
	return n.prove(fmt.Sprintf("entry %d", index), []int64{index})
}

func (n *Node) prove(about string, wanted []int64) ([]byte, error) {
	if len(wanted) > maxProofEntries {
		return nil, fmt.Errorf("%w: %d entries concern it, a proof file has at most %d; use fednode audit export", flow.ErrMisuse, len(wanted), maxProofEntries)
	}
	var bundle bytes.Buffer
	if err := n.site.Bundle(&bundle); err != nil {
		return nil, err
	}
	p := proof{Format: proofFormat, About: about, Organization: n.site.Org(), Governance: bundle.Bytes()}
	at := map[int64]int{}
	for _, i := range wanted {
		entry, err := n.Log.Entry(i)
		if err != nil {
			return nil, err
		}
		text, err := n.Log.Prove(i)
		if err != nil {
			return nil, err
		}
		at[i] = len(p.Entries)
		p.Entries = append(p.Entries, provenEntry{Index: i, Entry: entry, Proof: text})
	}
	err := n.site.db.View(func(tx *store.Tx) error {
		return transport.Receipts(tx, func(r transport.Receipt) error {
			if i, ok := at[r.EntryIndex]; ok {
				p.Entries[i].Receipt = &r
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return jcs.Marshal(p)
}

// VerifyProof verifies a proof file. A federationID that is not empty pins the federation.
func VerifyProof(data []byte, federationID string) (*Verification, string, error) {
	if len(data) > maxProof {
		return nil, "", fmt.Errorf("proof of %d bytes; at most %d", len(data), maxProof)
	}
	var p proof
	if !bytes.HasPrefix(data, []byte("{")) {
		return nil, "", errors.New("neither a proof, which fednode audit prove writes, nor an audit archive: a folder or FILE.tar")
	}
	if err := jcs.Unmarshal(data, &p); err != nil {
		return nil, "", fmt.Errorf("proof: %w", err)
	}
	if p.Format != proofFormat {
		return nil, "", fmt.Errorf("proof: format %.40q; this fednode reads %s", p.Format, proofFormat)
	}
	members, err := member.ReadBundle(bytes.NewReader(p.Governance), federationID)
	if err != nil {
		return nil, "", err
	}
	m, ok := members.Get(p.Organization)
	if !ok {
		return nil, "", fmt.Errorf("proof: %.64q is not a member of the federation", p.Organization)
	}
	if len(p.Entries) == 0 || len(p.Entries) > maxProofEntries {
		return nil, "", fmt.Errorf("proof of %d entries; want 1 to %d", len(p.Entries), maxProofEntries)
	}
	v := &Verification{FederationID: members.FederationID(), Federation: members.Name(), Members: len(members.All()), Governance: members.Head().Size,
		Organization: m.ID, LogOrigin: m.LogOrigin(), Categories: map[ledger.Category]int{}}
	last := int64(-1)
	for _, x := range p.Entries {
		e, err := x.verify(m, p.About)
		if err == nil && x.Index <= last {
			err = fmt.Errorf("comes after entry %d", last)
		}
		if err == nil {
			err = v.message(members, m.ID, *e, func() (*transport.Receipt, error) { return x.Receipt, nil })
		}
		if err != nil {
			return nil, "", fmt.Errorf("entry %d of %s: %w", x.Index, m.ID, err)
		}
		last = x.Index
		v.Entries++
		v.Categories[e.Category]++
	}
	return v, p.About, nil
}

// verify checks that the entry is in m's log at its index, and that it concerns what the proof is about.
func (x provenEntry) verify(m *member.Member, about string) (*ledger.Entry, error) {
	head, index, err := ledger.VerifyProof(x.Proof, x.Entry, m.LogVerifier())
	if err != nil {
		return nil, err
	}
	if index != x.Index {
		return nil, fmt.Errorf("its proof is of entry %d in a log of %d", index, head.Size)
	}
	e, err := ledger.ParseEntry(x.Entry)
	if err != nil {
		return nil, err
	}
	if id, _, _ := strings.Cut(e.Reference, "/"); id != about && about != fmt.Sprintf("entry %d", x.Index) {
		return nil, fmt.Errorf("it is not about %.80q", about)
	}
	return &e, nil
}
