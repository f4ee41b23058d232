package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
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
	if s.cosigner == nil {
		return member.SignedRecord{}, fmt.Errorf("%s has no cosigner key: it was made by an earlier version; make a new data directory", s.Dir)
	}
	id, message := s.messages.signing()
	r.Keys.Message = []member.MessageKey{{KeyID: id, Alg: "Ed25519", Public: message.Public().(ed25519.PublicKey)}}
	r.Keys.Log = member.LogKey{Generation: 0, Public: s.log.Public().(ed25519.PublicKey)}
	r.Keys.Cosigner = s.cosigner.Public().(ed25519.PublicKey)
	return s.signRecord(r)
}

// Found makes this organisation the founder and chair of a new federation, under the charter that federations begin with.
func (s *Site) Found(ctx context.Context, name string) error {
	return s.FoundUnder(ctx, name, member.DefaultCharter())
}

// FoundUnder is Found with another charter.
func (s *Site) FoundUnder(ctx context.Context, name string, charter member.Charter) error {
	if s.members != nil {
		return fmt.Errorf("%s belongs to federation %s already", s.Dir, s.FederationID())
	}
	rec, err := s.Record()
	if err != nil {
		return err
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	genesis, err := member.NewGenesis(name, charter, rec, s.approver(), nonce, s.now())
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

// Admit takes a joiner in while no node runs: members are the sites of all members, the chair's first, which approve,
// cosign and learn as their nodes would over the network. The joiner's site then belongs to the federation.
func Admit(ctx context.Context, members []*Site, joiner *Site) error {
	rec, err := joiner.Record()
	if err != nil {
		return err
	}
	var approvals []member.Approval
	for _, m := range members {
		a, err := m.Approve(rec)
		if err != nil {
			return err
		}
		approvals = append(approvals, a)
	}
	chair := members[0].members
	if err := chair.Admit(ctx, rec, approvals); err != nil {
		return err
	}
	for told := uint64(0); told != chair.Version(); {
		told = chair.Version()
		for _, m := range members[1:] {
			if err := exchange(ctx, chair, m.members); err != nil {
				return fmt.Errorf("%s: %w", m.Org(), err)
			}
		}
	}
	if _, ok := chair.Current().Get(joiner.Org()); !ok {
		return errors.New("the admission did not come into effect: " + chair.Flight())
	}
	var bundle bytes.Buffer
	if err := members[0].Bundle(&bundle); err != nil {
		return err
	}
	return joiner.Import(ctx, &bundle, members[0].FederationID())
}

// exchange tells a member what the chair knows, and the chair what the member answers.
func exchange(ctx context.Context, chair, m *member.Governance) error {
	u, _, err := chair.UpdateFrom(m.Log().Head().Size)
	if err != nil {
		return err
	}
	ack, err := m.Take(ctx, u)
	if err != nil {
		return err
	}
	return chair.Collect(ctx, ack.Cosignature)
}

func (s *Site) approver() member.Approver {
	id, key := s.messages.signing()
	return member.Approver{Org: s.Org(), KeyID: id, Key: key}
}
