package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"fednode/store"
	"fednode/transport"
	"fednode/transport/invite"
	"fednode/transport/member"
	"fednode/transport/pki"
)

const (
	// logPage is how much of the governance log an answer holds, in bytes.
	logPage = 2 << 20
	// maxReached bounds the endpoints that are called back.
	maxReached = 4
	// reachLimit bounds calling back, well within what a stranger's request may take.
	reachLimit = 6 * time.Second
)

func rootSum(m *member.Member) [sha256.Size]byte { return sha256.Sum256(m.Roots[0].Raw) }

// answer serves one request of somebody with an invitation. Nothing that it says goes to anybody who has not shown to
// know the invitation's secret.
func (h *host) answer(ctx context.Context, r transport.JoinRequest) ([]byte, error) {
	q, err := invite.ParseRequest(r.Body)
	if err != nil {
		return nil, &transport.Error{Code: transport.CodeMalformed, Text: err.Error()}
	}
	i, err := h.authenticate(q, r.Exporter)
	if err != nil {
		return nil, err
	}
	now := h.now()
	if asked, err := time.Parse(time.RFC3339, q.Time); err != nil || asked.Sub(now).Abs() > maxSkew {
		return nil, &transport.Error{Code: transport.CodeClockSkew, Text: fmt.Sprintf("%s's clock says %s, %s's says %s; they may differ by %s: set the clock that is wrong",
			i.Invitee, q.Time, h.self, transport.NewTime(now), maxSkew)}
	}
	if err := h.usable(i, q); err != nil {
		return nil, err
	}
	a := invite.Answer{Time: transport.NewTime(now).String(), State: invite.StateInvited}
	switch q.Ask {
	case invite.AskLog:
		a.Log, err = h.page(q.Offset)
	case invite.AskReach:
		a.Reach, err = h.reach(ctx, r.Remote, i, q)
	case invite.AskJoin:
		i, err = h.admit(ctx, q)
	default:
		return nil, &transport.Error{Code: transport.CodeUnknownType, Text: fmt.Sprintf("%.20q cannot be asked with an invitation", q.Ask)}
	}
	if err != nil {
		return nil, err
	}
	h.stand(i, &a)
	return a.Marshal()
}

// maxSkew is how far the clocks of inviter and joiner may differ; members' messages allow no more.
const maxSkew = time.Minute

// authenticate finds the invitation that a request is MACed with.
func (h *host) authenticate(q *invite.Request, exporter []byte) (i *invitation, err error) {
	unknown := &transport.Error{Code: transport.CodeDenied, Text: fmt.Sprintf("%s knows no such invitation: it was altered on its way, or forgotten; ask for a new one", h.self)}
	err = h.db.View(func(tx *store.Tx) error {
		i, err = loadInvitation(tx, q.Invitation)
		return err
	})
	if err != nil {
		return nil, err
	}
	if i == nil || h.over(*i) {
		return nil, unknown
	}
	b, err := h.sealer.Unseal(i.Secret, secretAAD(q.Invitation))
	if err != nil {
		return nil, err
	}
	defer clear(b)
	secret, err := invite.SecretOf(b)
	if err != nil {
		return nil, err
	}
	if q.Verify(secret, exporter) != nil {
		return nil, unknown
	}
	return i, nil
}

// usable refuses whoever an invitation is of no use to, with the reason: they have shown that they hold it.
func (h *host) usable(i *invitation, q *invite.Request) error {
	now := h.now()
	switch {
	case i.Use != nil && i.Use.RootSHA256 == q.RootSHA256:
		return nil // whoever has used it may come back
	case i.Use != nil:
		return &transport.Error{Code: transport.CodeConflict, Text: fmt.Sprintf(
			"the invitation was used at %s by somebody with the root certificate sha256 %s; yours is %s. If that was not you, tell %s: it rejects them with fednode members reject %.12s, and invites you anew",
			transport.NewTime(i.Use.At), i.Use.RootSHA256, q.RootSHA256, h.self, i.Use.Hash)}
	case !i.Revoked.IsZero():
		return &transport.Error{Code: transport.CodeDenied, Text: fmt.Sprintf("%s revoked the invitation at %s; ask for a new one", h.self, transport.NewTime(i.Revoked))}
	case h.premature(*i):
		return &transport.Error{Code: transport.CodeExpired, Text: fmt.Sprintf("%s made the invitation at %s by its clock, which was wrong: it says %s now; ask for a new one", h.self, transport.NewTime(i.Created), transport.NewTime(now))}
	case !now.Before(i.Expires):
		return &transport.Error{Code: transport.CodeExpired, Text: fmt.Sprintf("the invitation was valid until %s, and %s's clock says %s; ask for a new one", transport.NewTime(i.Expires), h.self, transport.NewTime(now))}
	}
	return nil
}

// page returns a part of the governance log.
func (h *host) page(offset int64) (*invite.Page, error) {
	var b bytes.Buffer
	if err := h.gov.ExportBundle(&b); err != nil {
		return nil, err
	}
	all := b.Bytes()
	if offset > int64(len(all)) {
		return nil, &transport.Error{Code: transport.CodeMalformed, Text: "offset beyond the end of the governance log"}
	}
	sum := sha256.Sum256(all)
	return &invite.Page{Size: int64(len(all)), SHA256: hex.EncodeToString(sum[:]), Data: all[offset:min(offset+logPage, int64(len(all)))]}, nil
}

// candidateOf checks the record that comes with a request: the invitee's first, by the root that the request names.
func (h *host) candidateOf(i *invitation, q *invite.Request) (member.Candidate, error) {
	c := member.Candidate{Member: q.Member}
	deny := func(format string, a ...any) (member.Candidate, error) {
		return c, &transport.Error{Code: transport.CodeDenied, Text: fmt.Sprintf(format, a...)}
	}
	if q.Member == nil {
		return deny("the request holds no member record")
	}
	r := q.Member.Record
	switch _, known := h.gov.Current().Get(i.Invitee); {
	case r.OrganizationID != i.Invitee:
		return deny("the invitation is for %s, the record is of %.63q", i.Invitee, r.OrganizationID)
	case len(r.Roots) != 1 || fingerprintDER(r.Roots[0]) != q.RootSHA256 || r.Sequence != 1:
		return deny("the record is not the first one of the organisation whose root the request names")
	case known && (i.Use == nil || !h.isMember(*i)):
		return deny("%s is a member already, and its keys are others", i.Invitee)
	case known:
		return c, nil
	}
	if hash, err := c.Hash(); err == nil && i.Use != nil && i.Use.Hash == hash {
		return c, nil // it was checked then
	}
	if err := h.gov.Current().Check(c); err != nil {
		return deny("%s", err.Error())
	}
	return c, nil
}

// reach calls the joiner back where its record says that it will be, unless that is nearer to this node than the joiner is.
// What it is told of an endpoint that does not answer as it should is no more than that: it may be somebody else's.
func (h *host) reach(ctx context.Context, asker net.Addr, i *invitation, q *invite.Request) (out []invite.Reach, err error) {
	if _, err := h.candidateOf(i, q); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	r := q.Member.Record
	verify := func(chain []*x509.Certificate) error {
		_, _, err := pki.VerifyPinned(chain, sha256.Sum256(r.Roots[0]), string(i.Invitee), h.gov.Current().FederationID(), h.now())
		if err != nil {
			return errors.Join(errOtherNode, err)
		}
		return nil
	}
	for _, e := range r.Endpoints[:min(len(r.Endpoints), maxReached)] {
		for _, at := range h.transport.CallBack(ctx, asker, e, verify) {
			v := invite.Reach{Endpoint: e, Lane: string(at.Lane), OK: at.Err == nil, Millis: at.RTT.Milliseconds()}
			switch {
			case errors.Is(at.Err, transport.ErrElsewhere) && isAddress(e): // what a name leads to here is not told
				v.Problem = fmt.Sprintf("it is an address of a private network, and %s was asked from outside of that (%s)", h.self, hostOf(asker))
			case errors.Is(at.Err, errOtherNode):
				v.Problem = "something else answers there"
			case at.Err != nil:
				v.Problem = "no answer"
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func isAddress(endpoint string) bool {
	_, err := netip.ParseAddrPort(endpoint)
	return err == nil
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

var errOtherNode = errors.New("not the joiner's node")

// admit uses the invitation up and brings the joiner in, in one transaction; asked again it changes nothing.
func (h *host) admit(ctx context.Context, q *invite.Request) (*invitation, error) {
	var i *invitation
	err := h.db.View(func(tx *store.Tx) (err error) {
		i, err = loadInvitation(tx, q.Invitation)
		return err
	})
	if err != nil || i == nil {
		return nil, errors.Join(err, errors.New("the invitation is gone"))
	}
	c, err := h.candidateOf(i, q)
	if err != nil {
		return nil, err
	}
	hash, err := c.Hash()
	if err != nil {
		return nil, err
	}
	another := &transport.Error{Code: transport.CodeConflict, Text: fmt.Sprintf("another record of %s awaits approval with this invitation: keys and endpoints change after joining, with fednode members renew", i.Invitee)}
	if i.Use != nil {
		if i.Use.Hash != hash && !h.isMember(*i) {
			return nil, another
		}
		return i, nil // what it brought in came with its use, and comes once
	}
	now := h.now().UTC()
	_, err = h.clerk.propose(ctx, c, h.self, transport.NewTime(now).String(), func(tx *store.Tx) error {
		if i, err = loadInvitation(tx, q.Invitation); err != nil || i == nil {
			return errors.Join(err, errors.New("the invitation is gone"))
		}
		if err := h.usable(i, q); err != nil {
			return err
		}
		if i.Use != nil && i.Use.Hash != hash {
			return another
		}
		if i.Use != nil {
			return nil
		}
		i.Use = &use{At: now, RootSHA256: q.RootSHA256, Hash: hash}
		if err := keepInvitation(tx, q.Invitation, *i); err != nil {
			return err
		}
		return h.engine.RecordOperationIn(tx, "", "invitation-used", "join", "invitation:"+q.Invitation, i.Use.RootSHA256)
	})
	var refused *transport.Error
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("%s was not brought in: %w", i.Invitee, err)
	}
	if err != nil {
		return nil, err
	}
	h.clerk.enact(ctx)
	h.stir()
	return i, nil
}

// outcome is the state of what a used invitation brought in. The candidates are asked before the members, for one that is
// in force is a candidate no more. One that is forgotten without being a member was rejected, or has waited too long.
func (h *host) outcome(i invitation) string {
	rejected, known := h.clerk.rejected(i.Use.Hash)
	_, taken := h.gov.Current().Get(i.Invitee)
	switch {
	case h.isMember(i):
		return invite.StateMember
	case rejected, !known && !taken:
		return invite.StateRejected
	}
	return invite.StateAwaiting
}

// stand says how far whoever has used the invitation is.
func (h *host) stand(i *invitation, a *invite.Answer) {
	if i.Use == nil {
		return
	}
	a.Hash = i.Use.Hash
	if a.State = h.outcome(*i); a.State != invite.StateAwaiting {
		return
	}
	for _, v := range h.clerk.views() {
		if v.Hash == i.Use.Hash {
			a.Standing, a.Waiting = &v.Standing, v.Waiting
			if v.Complete && v.Waiting == "" {
				a.Waiting = "the members' cosignatures"
			}
		}
	}
}
