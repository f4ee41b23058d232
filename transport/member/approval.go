package member

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"fednode/store/jcs"
)

// Actions that approvals are for.
const (
	actionFound   = "found"
	actionMember  = "member"
	actionCharter = "charter"
	actionCertify = "certify" // is what a certificate does, and needs no approval
)

// An Approval is one member's signature under what an entry does: Ed25519 by its message key over
// `fednode/approval/v1\n` + the canonical form of the approval without its signature.
type Approval struct {
	FederationID   string `json:"federation_id,omitempty"` // absent in the genesis, which makes it
	Action         string `json:"action"`
	Hash           string `json:"hash"` // of the member record, the charter, or the genesis without its approvals
	OrganizationID OrgID  `json:"organization_id"`
	KeyID          string `json:"key_id"`
	Signature      []byte `json:"signature,omitempty"`
}

// An Approver is who signs approvals for an organisation.
type Approver struct {
	Org   OrgID
	KeyID string
	Key   crypto.Signer // Ed25519 message key
}

func (a Approval) signedBytes() ([]byte, error) {
	a.Signature = nil
	c, err := jcs.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return append([]byte("fednode/approval/v1\n"), c...), nil
}

func (p Approver) sign(federationID, action, hash string) (Approval, error) {
	a := Approval{FederationID: federationID, Action: action, Hash: hash, OrganizationID: p.Org, KeyID: p.KeyID}
	msg, err := a.signedBytes()
	if err != nil {
		return a, err
	}
	a.Signature, err = p.Key.Sign(rand.Reader, msg, crypto.Hash(0))
	return a, err
}

// ApproveMember signs that rec may be a member of the federation, after verifying it.
func ApproveMember(federationID string, rec SignedRecord, p Approver) (Approval, error) {
	v, err := rec.verify()
	if err != nil {
		return Approval{}, err
	}
	return p.sign(federationID, actionMember, v.hash)
}

// ApproveCharter signs that c may be the federation's charter.
func ApproveCharter(federationID string, c Charter, p Approver) (Approval, error) {
	h, err := c.hash()
	if err != nil {
		return Approval{}, err
	}
	return p.sign(federationID, actionCharter, h)
}

func (c Charter) hash() (string, error) {
	b, err := jcs.Marshal(c)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(append([]byte("fednode/charter/v1\n"), b...))
	return hex.EncodeToString(h[:]), nil
}

// verify checks one approval under the key that its signer holds.
func (a Approval) verify(federationID, action, hash string, key ed25519.PublicKey) error {
	if a.FederationID != federationID || a.Action != action || a.Hash != hash {
		return fmt.Errorf("approval of %.63s is for something else", a.OrganizationID)
	}
	msg, err := a.signedBytes()
	if err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, msg, a.Signature) {
		return fmt.Errorf("approval of %.63s: signature does not verify", a.OrganizationID)
	}
	return nil
}
