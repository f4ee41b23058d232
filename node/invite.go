package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"fednode/flow"
	"fednode/hsm"
	"fednode/store"
	"fednode/transport"
	"fednode/transport/invite"
	"fednode/transport/member"
)

const (
	bucketInvitations = "governance/invitations" // id → invitation
	maxInvitations    = 1024
	// DefaultValidity is how long an invitation can be used, if nothing else is said, and maxValidity at most.
	DefaultValidity = 24 * time.Hour
	maxValidity     = 30 * 24 * time.Hour
	// inviteKept is how long after its end an invitation is kept, so that whoever comes with it is told why not.
	inviteKept = candidateLife
)

// States of an invitation.
const (
	InvitationOpen     = "open"
	InvitationExpired  = "expired"
	InvitationRevoked  = "revoked"
	InvitationUsed     = "used" // what it brought in awaits approval
	InvitationMember   = "member"
	InvitationRejected = "rejected"
)

// An invitation is what the inviter keeps of a token. The token itself is nowhere; its secret is sealed.
type invitation struct {
	Invitee transport.OrgID `json:"invitee"`
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires"`
	Words   string          `json:"words"`
	Secret  []byte          `json:"secret"`
	Revoked time.Time       `json:"revoked,omitzero"`
	Use     *use            `json:"use,omitempty"`
}

// A use is who has used an invitation up.
type use struct {
	At         time.Time `json:"at"`
	RootSHA256 string    `json:"root_sha256"`
	Hash       string    `json:"hash"` // of the member record, and with it of every key
}

// An InvitationView is an invitation for people.
type InvitationView struct {
	ID           string          `json:"id"`
	Organization transport.OrgID `json:"organization_id"`
	State        string          `json:"state"`
	Created      time.Time       `json:"created"`
	Expires      time.Time       `json:"expires"`
	Words        string          `json:"words"`
	UsedAt       time.Time       `json:"used_at,omitzero"`
	RootSHA256   string          `json:"root_sha256,omitempty"` // of who has used it
	Hash         string          `json:"hash,omitempty"`        // of the record that it brought in
}

// An Invited is a new invitation. Token is shown this once.
type Invited struct {
	InvitationView
	Token        string `json:"token"`
	FederationID string `json:"federation_id"`
}

// A host makes invitations, and answers whoever comes with one.
type host struct {
	gov       *member.Governance
	clerk     *clerk
	self      transport.OrgID
	db        *store.DB
	sealer    hsm.Sealer
	now       func() time.Time
	transport *transport.Node
	engine    *flow.Engine
	stir      func()
}

// newHost takes up the invitations that are kept in db.
func newHost(n *Node) (*host, error) {
	h := &host{gov: n.site.members, clerk: n.governor.clerk, self: n.site.Org(), db: n.site.db, sealer: n.site.keyring.Sealer(), now: n.site.now,
		transport: n.transport, engine: n.Engine, stir: n.governor.stir}
	return h, h.open()
}

// open has strangers answered while there are invitations, and nobody's protocol spoken while there are none.
func (h *host) open() error {
	all, err := h.all()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		h.transport.HandleJoin(nil)
	} else {
		h.transport.HandleJoin(h.answer)
	}
	return nil
}

func secretAAD(id string) []byte { return []byte("fednode/invitation\n" + id) }

// invite makes an invitation.
func (h *host) invite(ctx context.Context, user flow.User, key member.Approver, org transport.OrgID, validity time.Duration) (*Invited, error) {
	set := h.gov.Current()
	own, ok := set.Get(h.self)
	_, known := set.Get(org)
	switch err := org.Validate(); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	case !ok:
		return nil, fmt.Errorf("%w: %s is not a member", flow.ErrMisuse, h.self)
	case known:
		return nil, fmt.Errorf("%w: %s is a member already", flow.ErrMisuse, org)
	case validity < time.Minute || validity > maxValidity:
		return nil, fmt.Errorf("%w: valid for %s: use 1m to %s", flow.ErrMisuse, validity, maxValidity)
	}
	now := h.now()
	t, err := invite.Sign(invite.Token{FederationID: set.FederationID(), Invitee: org, Inviter: h.self, Root: rootSum(own), Governance: set.Head(),
		Endpoints: own.Endpoints[:min(len(own.Endpoints), 8)], Expires: now.Add(validity)}, key.Key)
	if err != nil {
		return nil, err
	}
	words, err := t.Words()
	if err != nil {
		return nil, err
	}
	secret := t.Secret().Bytes()
	defer clear(secret)
	sealed, err := h.sealer.Seal(secret, secretAAD(t.ID()))
	if err != nil {
		return nil, err
	}
	i := invitation{Invitee: org, Created: now.UTC(), Expires: t.Expires, Words: words, Secret: sealed}
	err = h.db.Update(ctx, func(tx *store.Tx) error {
		if err := h.sweep(tx); err != nil {
			return err
		}
		if tx.Bucket(bucketInvitations).Stats().KeyN >= maxInvitations {
			return fmt.Errorf("%w: %d invitations are kept already; revoke some, or wait until they are forgotten", flow.ErrMisuse, maxInvitations)
		}
		if err := keepInvitation(tx, t.ID(), i); err != nil {
			return err
		}
		return h.engine.RecordOperationIn(tx, user, "invitation-created", "invite", "invitation:"+t.ID(), string(org))
	})
	if err != nil {
		return nil, err
	}
	return &Invited{InvitationView: h.view(t.ID(), i), Token: t.Text(), FederationID: t.FederationID}, h.open()
}

// sweep forgets invitations whose end is long over.
func (h *host) sweep(tx *store.Tx) error {
	b := tx.Bucket(bucketInvitations)
	var old [][]byte
	err := b.ForEach(func(k, v []byte) error {
		var i invitation
		if err := json.Unmarshal(v, &i); err != nil {
			return fmt.Errorf("invitation %s: %w", k, err)
		}
		if h.over(i) && h.clerk.passed().Sub(i.Expires) >= inviteKept {
			old = append(old, slices.Clone(k))
		}
		return nil
	})
	for _, k := range old {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// premature reports whether an invitation was made by a clock that was ahead, so that it would not end in time.
func (h *host) premature(i invitation) bool { return i.Created.Sub(h.now()) > maxSkew }

// over reports whether an invitation's end is so long over that it is forgotten.
func (h *host) over(i invitation) bool { return h.now().Sub(i.Expires) >= inviteKept }

func keepInvitation(tx *store.Tx, id string, i invitation) error {
	v, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketInvitations).Put([]byte(id), v)
}

// loadInvitation returns nil if there is none of that id.
func loadInvitation(tx *store.Tx, id string) (*invitation, error) {
	b := tx.Bucket(bucketInvitations)
	if b == nil {
		return nil, nil
	}
	v := b.Get([]byte(id))
	if v == nil {
		return nil, nil
	}
	i := new(invitation)
	if err := json.Unmarshal(v, i); err != nil {
		return nil, fmt.Errorf("invitation %s: %w", id, err)
	}
	return i, nil
}

// all returns the invitations that are kept, newest first.
func (h *host) all() (out []InvitationView, err error) {
	err = h.db.View(func(tx *store.Tx) error {
		b := tx.Bucket(bucketInvitations)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			var i invitation
			if err := json.Unmarshal(v, &i); err != nil {
				return fmt.Errorf("invitation %s: %w", k, err)
			}
			if !h.over(i) {
				out = append(out, h.view(string(k), i))
			}
			return nil
		})
	})
	slices.SortFunc(out, func(a, b InvitationView) int { return b.Created.Compare(a.Created) })
	return out, err
}

func (h *host) view(id string, i invitation) InvitationView {
	v := InvitationView{ID: id, Organization: i.Invitee, Created: i.Created, Expires: i.Expires, Words: i.Words, State: InvitationOpen}
	if i.Use != nil {
		v.UsedAt, v.RootSHA256, v.Hash, v.State = i.Use.At, i.Use.RootSHA256, i.Use.Hash, InvitationUsed
		switch h.outcome(i) {
		case invite.StateMember:
			v.State = InvitationMember
		case invite.StateRejected:
			v.State = InvitationRejected
		}
		return v
	}
	switch {
	case !i.Revoked.IsZero():
		v.State = InvitationRevoked
	case h.premature(i), !h.now().Before(i.Expires):
		v.State = InvitationExpired
	}
	return v
}

// isMember reports whether who used the invitation is a member: the invitee, under the root that it came with.
func (h *host) isMember(i invitation) bool {
	m, ok := h.gov.Current().Get(i.Invitee)
	return ok && i.Use != nil && slices.ContainsFunc(m.Record().Record.Roots, func(der []byte) bool { return fingerprintDER(der) == i.Use.RootSHA256 })
}

// revoke ends the open invitations that name stands for: an id, the beginning of one, or an organisation.
func (h *host) revoke(ctx context.Context, user flow.User, name string) (out []InvitationView, err error) {
	all, err := h.all()
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if string(v.Organization) != name && (len(name) < 4 || len(name) > len(v.ID) || v.ID[:len(name)] != name) {
			continue
		}
		// One that was made by a clock that was ahead would be open when that time comes.
		dormant := v.State == InvitationExpired && h.premature(invitation{Created: v.Created})
		if v.State != InvitationOpen && !dormant {
			if v.ID == name {
				return nil, fmt.Errorf("%w: invitation %s of %s is %s; what awaits approval is rejected with fednode members reject", flow.ErrMisuse, v.ID, v.Organization, v.State)
			}
			continue
		}
		err := h.db.Update(ctx, func(tx *store.Tx) error {
			i, err := loadInvitation(tx, v.ID)
			if err != nil || i == nil {
				return err
			}
			if i.Use != nil {
				return fmt.Errorf("%w: invitation %s was used meanwhile; see fednode members reject", flow.ErrMisuse, v.ID)
			}
			i.Revoked = h.now().UTC()
			if err := keepInvitation(tx, v.ID, *i); err != nil {
				return err
			}
			return h.engine.RecordOperationIn(tx, user, "invitation-revoked", "revoke", "invitation:"+v.ID, string(v.Organization))
		})
		if err != nil {
			return out, err
		}
		v.State = InvitationRevoked
		out = append(out, v)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%.80q: %w among the open invitations; see fednode invite list", name, flow.ErrNotFound)
	}
	return out, nil
}

// Invite makes an invitation of org, which it can use once, within the validity given. The caller hands its token over.
func (n *Node) Invite(ctx context.Context, user flow.User, org transport.OrgID, validity time.Duration) (*Invited, error) {
	id, key := n.site.messages.signing()
	return n.host.invite(ctx, user, member.Approver{Org: n.site.Org(), KeyID: id, Key: key}, org, validity)
}

// Invitations returns those that are kept, newest first.
func (n *Node) Invitations() ([]InvitationView, error) { return n.host.all() }

// RevokeInvitation ends the open invitations of an organisation, or the one whose id begins so.
func (n *Node) RevokeInvitation(ctx context.Context, user flow.User, name string) ([]InvitationView, error) {
	return n.host.revoke(ctx, user, name)
}
