package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
)

// Record returns this organisation's member record, signed by its identity key; every key in it proves possession.
func (s *Site) Record() (member.SignedRecord, error) {
	r := member.Record{OrganizationID: s.Org(), Name: s.Config.Organization.Name, Domain: s.Config.Organization.Domain,
		Jurisdiction: s.Config.Organization.Jurisdiction, Roots: [][]byte{s.root.Raw}, Endpoints: s.Config.Advertise, Sequence: 1, IssuedAt: s.now()}
	r.Keys.Message = []member.MessageKey{{KeyID: s.messageKeyID(), Alg: "Ed25519", Public: s.message.Public().(ed25519.PublicKey)}}
	r.Keys.Log = member.LogKey{Generation: 0, Public: s.log.Public().(ed25519.PublicKey)}
	return member.SignRecord(r, []*x509.Certificate{s.self, s.ca}, s.identity, s.message, s.log)
}

// Found makes this organisation the founder and chair of a new federation.
func (s *Site) Found(ctx context.Context, name string) error {
	if s.members != nil {
		return fmt.Errorf("%s belongs to federation %s already", s.Dir, s.FederationID())
	}
	rec, err := s.Record()
	if err != nil {
		return err
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	genesis, err := member.NewGenesis(name, member.DefaultCharter(), rec, s.approver(), nonce)
	if err != nil {
		return err
	}
	s.members, err = member.FoundGovernance(ctx, s.db, genesis, s.gov, s.now)
	return err
}

// Approve signs the admission of a member as this organisation's word.
func (s *Site) Approve(rec member.SignedRecord) (member.Approval, error) {
	return member.Approve(s.FederationID(), rec, s.approver())
}

// Admit takes a member in, at the chair, with the approvals that the charter asks for.
func (s *Site) Admit(ctx context.Context, rec member.SignedRecord, approvals []member.Approval) error {
	return s.members.Admit(ctx, rec, approvals)
}
