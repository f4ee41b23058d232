package node

import (
	"context"
	"fmt"

	"fednode/flow"
	"fednode/transport"
	"fednode/transport/member"
)

// Suspend denies a member everything at this node, at once: its sessions are closed, its requests refused, and nothing
// is sent to it. It is this organisation's own decision, and on record in its log.
func (n *Node) Suspend(ctx context.Context, user flow.User, org transport.OrgID, reason string) error {
	if err := n.site.members.Suspend(ctx, org, reason); err != nil {
		return fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	n.transport.Recheck()
	return n.Engine.RecordOperation(ctx, user, "member-suspended", "suspend", "member:"+string(org), reason)
}

// Resume takes a suspension back.
func (n *Node) Resume(ctx context.Context, user flow.User, org transport.OrgID) error {
	if err := n.site.members.Resume(ctx, org); err != nil {
		return fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	return n.Engine.RecordOperation(ctx, user, "member-resumed", "resume", "member:"+string(org), "")
}

// Candidates returns what awaits approval, oldest first.
func (n *Node) Candidates() []CandidateView { return n.governor.clerk.views() }

// Approve gives this organisation's approval to a candidate, named by its organisation or the beginning of its hash, or
// takes it back. It returns the candidate's hash.
func (n *Node) Approve(ctx context.Context, user flow.User, name string, withdraw bool) (string, error) {
	hash, err := n.governor.clerk.approve(ctx, name, withdraw)
	if err != nil {
		return "", err
	}
	action := "approve"
	if withdraw {
		action = "withdraw-approval"
	}
	return hash, n.Engine.RecordOperation(ctx, user, "governance-"+action, action, "candidate:"+hash, name)
}

// Charter is the charter in force.
func (n *Node) Charter() member.Charter { return n.site.members.Current().Charter() }

// ProposeCharter brings in a charter, from a charter.yaml, with this organisation's approval. It returns its hash.
func (n *Node) ProposeCharter(ctx context.Context, user flow.User, file string, data []byte) (string, error) {
	c, err := member.ParseCharter(file, data)
	if err != nil {
		return "", fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	return n.proposeOwn(ctx, user, member.Candidate{Charter: &c}, "charter")
}

// Renew brings in a new record of this organisation: with the endpoints that node.yaml now advertises and, with rotate,
// a new message key. The old one keeps verifying what it signed; it is also taken for new messages until the next
// renewal, unless drop says that it is not to be trusted any more. It returns the record's hash.
func (n *Node) Renew(ctx context.Context, user flow.User, rotate, drop bool) (string, error) {
	c, err := ReadConfig(n.site.Dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	rec, err := n.site.renewed(c.Advertise, rotate, drop)
	if err != nil {
		return "", err
	}
	return n.proposeOwn(ctx, user, member.Candidate{Member: &rec}, "record")
}

// proposeOwn brings in a candidate of this organisation's and approves it.
func (n *Node) proposeOwn(ctx context.Context, user flow.User, c member.Candidate, what string) (string, error) {
	if t, _ := n.site.members.Current().Stand(c, nil); t.InForce {
		return "", fmt.Errorf("%w: this %s is in force already", flow.ErrMisuse, what)
	}
	hash, err := n.governor.clerk.propose(ctx, c, n.site.Org(), transport.NewTime(n.site.now()).String())
	if err != nil {
		return "", fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	if err := n.Engine.RecordOperation(ctx, user, "governance-proposal", "propose", "candidate:"+hash, what); err != nil {
		return "", err
	}
	if _, err := n.governor.clerk.approve(ctx, hash, false); err != nil {
		return "", err
	}
	return hash, nil
}
