package ui

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"fednode/flow"
	"fednode/node"
	"fednode/transport"
	"fednode/transport/member"
)

// memberRoutes are the calls that concern the membership and the charter.
func (s *Server) memberRoutes() {
	s.handle("POST /v1/members/{org}/suspend", func(r *http.Request) (any, error) {
		var q SuspendRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return struct{}{}, s.node.Suspend(r.Context(), caller(r), transport.OrgID(r.PathValue("org")), q.Reason)
	})
	s.handle("POST /v1/members/{org}/resume", func(r *http.Request) (any, error) {
		return struct{}{}, s.node.Resume(r.Context(), caller(r), transport.OrgID(r.PathValue("org")))
	})
	s.handle("POST /v1/record", func(r *http.Request) (any, error) {
		var q RenewRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return candidateReply(s.node.Renew(r.Context(), caller(r), q.Rotate, q.Drop))
	})
	s.handle("GET /v1/candidates", func(r *http.Request) (any, error) { return list(s.node.Candidates(), nil) })
	s.handle("POST /v1/candidates/approve", func(r *http.Request) (any, error) {
		var q ApproveRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return candidateReply(s.node.Approve(r.Context(), caller(r), q.Name, q.Withdraw))
	})
	s.handle("POST /v1/candidates/reject", func(r *http.Request) (any, error) {
		var q ApproveRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return candidateReply(s.node.Reject(r.Context(), caller(r), q.Name))
	})
	s.handle("GET /v1/invitations", func(r *http.Request) (any, error) { return list(s.node.Invitations()) })
	s.handle("POST /v1/invitations", func(r *http.Request) (any, error) {
		var q InviteRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return s.node.Invite(r.Context(), caller(r), q.Organization, time.Duration(q.Seconds)*time.Second)
	})
	s.handle("POST /v1/invitations/revoke", func(r *http.Request) (any, error) {
		var q RevokeRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return list(s.node.RevokeInvitation(r.Context(), caller(r), q.Name))
	})
	s.handle("POST /v1/doctor", func(r *http.Request) (any, error) {
		var q DoctorRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return s.node.Doctor(r.Context(), q.Members...)
	})
	s.handle("GET /v1/charter", func(r *http.Request) (any, error) { return s.node.Charter(), nil })
	s.handle("POST /v1/charter", func(r *http.Request) (any, error) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
		}
		return candidateReply(s.node.ProposeCharter(r.Context(), caller(r), r.FormValue("file"), data))
	})
}

func candidateReply(hash string, err error) (any, error) { return CandidateReply{hash}, err }

// Suspend denies a member everything at this node, at once.
func (c *Client) Suspend(ctx context.Context, org, reason string) error {
	_, err := call[struct{}](ctx, c, "POST", "/v1/members/"+url.PathEscape(org)+"/suspend", SuspendRequest{reason})
	return err
}

// Resume takes a suspension back.
func (c *Client) Resume(ctx context.Context, org string) error {
	_, err := call[struct{}](ctx, c, "POST", "/v1/members/"+url.PathEscape(org)+"/resume", nil)
	return err
}

// Renew brings in a new record of the node's organisation and returns its hash.
func (c *Client) Renew(ctx context.Context, r RenewRequest) (string, error) {
	reply, err := call[CandidateReply](ctx, c, "POST", "/v1/record", r)
	return reply.Hash, err
}

// Candidates returns what awaits approval.
func (c *Client) Candidates(ctx context.Context) ([]node.CandidateView, error) {
	return call[[]node.CandidateView](ctx, c, "GET", "/v1/candidates", nil)
}

// Approve gives the organisation's approval to a candidate, or takes it back, and returns the candidate's hash.
func (c *Client) Approve(ctx context.Context, name string, withdraw bool) (string, error) {
	reply, err := call[CandidateReply](ctx, c, "POST", "/v1/candidates/approve", ApproveRequest{name, withdraw})
	return reply.Hash, err
}

// Reject takes a candidate out, and returns its hash.
func (c *Client) Reject(ctx context.Context, name string) (string, error) {
	reply, err := call[CandidateReply](ctx, c, "POST", "/v1/candidates/reject", ApproveRequest{Name: name})
	return reply.Hash, err
}

// Invite makes an invitation.
func (c *Client) Invite(ctx context.Context, org string, validity time.Duration) (node.Invited, error) {
	return call[node.Invited](ctx, c, "POST", "/v1/invitations", InviteRequest{transport.OrgID(org), int64(validity / time.Second)})
}

// Invitations returns those that the node keeps, newest first.
func (c *Client) Invitations(ctx context.Context) ([]node.InvitationView, error) {
	return call[[]node.InvitationView](ctx, c, "GET", "/v1/invitations", nil)
}

// RevokeInvitation ends the open invitations of an organisation, or the one whose id begins so.
func (c *Client) RevokeInvitation(ctx context.Context, name string) ([]node.InvitationView, error) {
	return call[[]node.InvitationView](ctx, c, "POST", "/v1/invitations/revoke", RevokeRequest{name})
}

// Doctor has the node look at itself and at the way to and from the given members, or all.
func (c *Client) Doctor(ctx context.Context, members ...transport.OrgID) (node.Diagnosis, error) {
	return call[node.Diagnosis](ctx, c, "POST", "/v1/doctor", DoctorRequest{members})
}

// Charter returns the charter in force.
func (c *Client) Charter(ctx context.Context) (member.Charter, error) {
	return call[member.Charter](ctx, c, "GET", "/v1/charter", nil)
}

// ProposeCharter brings in a charter in YAML, and returns its hash; file is its name in errors.
func (c *Client) ProposeCharter(ctx context.Context, file string, data []byte) (string, error) {
	reply, err := callRaw[CandidateReply](ctx, c, "POST", "/v1/charter?"+url.Values{"file": {file}}.Encode(), bytes.NewReader(data), "application/yaml")
	return reply.Hash, err
}
