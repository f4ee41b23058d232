package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"fednode/transport"
	"fednode/transport/member"
)

// Record returns this organisation's member record, signed by its identity key; every key in it proves possession.
func (s *Site) Record() (member.SignedRecord, error) {
	o := s.Config.Organization
	r := member.Record{OrganizationID: s.Org(), Name: string(o.Name), Domain: string(o.Domain), Jurisdiction: string(o.Jurisdiction),
		Roots: [][]byte{s.root.Raw}, Sequence: 1, IssuedAt: transport.NewTime(s.now()).String()}
	for _, a := range s.Config.Advertise {
		r.Endpoints = append(r.Endpoints, string(a))
	}
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
	genesis, err := member.NewGenesis(name, member.DefaultCharter(), rec, s.approver(), nonce, s.now())
	if err != nil {
		return err
	}
	s.members, err = member.Found(ctx, s.db, genesis, s.governance())
	return err
}

// Approve signs the admission of a member as this organisation's word.
func (s *Site) Approve(rec member.SignedRecord) (member.Approval, error) {
	return member.ApproveMember(s.FederationID(), rec, s.approver())
}

// Admit takes a member in, at the chair, with the approvals that the charter asks for.
func (s *Site) Admit(ctx context.Context, rec member.SignedRecord, approvals []member.Approval) error {
	return s.members.Admit(ctx, rec, approvals)
}

func (s *Site) approver() member.Approver {
	return member.Approver{Org: s.Org(), KeyID: s.messageKeyID(), Key: s.message}
}
