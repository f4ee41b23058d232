package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fednode/flow"
	"fednode/transport"
	"fednode/transport/member"
)

// A candidate that is rejected is kept as such, for as long as candidates are, so that nobody who missed it brings it
// back; only its sponsor can, by proposing it again.

// reject takes a candidate out, which its sponsor and the chair may.
func (c *clerk) reject(ctx context.Context, name string) (hash string, err error) {
	hash, x, err := c.find(name)
	if err != nil {
		return "", err
	}
	if x.Sponsor != c.self && !c.gov.Chair() {
		return "", fmt.Errorf("%w: %s brought it in; it and the chair can reject it, and you can leave it without your approval", flow.ErrMisuse, x.Sponsor)
	}
	if err := c.strike(ctx, hash); err != nil {
		return "", err
	}
	c.changed()
	return hash, nil
}

// proposed takes in, at the chair, what a member brings in. What was rejected comes back only if it is brought in anew:
// not because its sponsor says again what it said before.
func (c *clerk) proposed(ctx context.Context, n notice, from transport.OrgID) error {
	hash, err := n.Candidate.Hash()
	if err != nil {
		return err
	}
	c.mu.Lock()
	x, ok := c.open[hash]
	c.mu.Unlock()
	if ok && x.Rejected && x.Sponsor == from && x.Proposed == n.Since {
		return nil
	}
	if hash, err = c.propose(ctx, n.Candidate, from, transport.NewTime(c.now()).String()); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok = c.open[hash]
	if !ok || x.Sponsor != from || x.Proposed == n.Since || len(n.Since) > maxStamp {
		return nil
	}
	next := x.clone()
	next.Proposed = n.Since
	return c.keep(ctx, hash, next)
}

// maxStamp bounds a time in a notice, in bytes.
const maxStamp = 40

// withdraw takes out, at the chair, what its sponsor has rejected.
func (c *clerk) withdraw(ctx context.Context, m member.Candidate, from transport.OrgID) error {
	hash, err := m.Hash()
	if err != nil {
		return err
	}
	c.mu.Lock()
	x, ok := c.open[hash]
	c.mu.Unlock()
	if !ok || x.Sponsor != from {
		return nil // it is not here, or not theirs: nothing awaits approval because of them
	}
	return c.strike(ctx, hash)
}

func (c *clerk) strike(ctx context.Context, hash string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.open[hash]
	if !ok || x.Rejected {
		return nil
	}
	next := x.clone()
	next.Rejected, next.Approvals, next.Approved = true, nil, nil
	return c.keep(ctx, hash, next)
}

// rejected reports whether a candidate was, and whether it is known at all.
func (c *clerk) rejected(hash string) (rejected, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, known := c.open[hash]
	return known && x.Rejected, known
}

// since returns when this node took in a candidate.
func (c *clerk) since(hash string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, ok := c.open[hash]; ok {
		return x.Since
	}
	return ""
}

// learn takes in what the chair says awaits approval, or no longer does.
func (c *clerk) learn(ctx context.Context, n notice) error {
	since, err := time.Parse(time.RFC3339, n.Since)
	if _, member := c.gov.Current().Get(n.Sponsor); err != nil || len(n.Approved) > 1000 || !member || c.now().Sub(since).Abs() > candidateLife {
		return errors.New("a candidate without time, too old or of the future, or brought in by a stranger")
	}
	hash, err := n.Candidate.Hash()
	if err != nil {
		return err
	}
	switch rejected, known := c.rejected(hash); {
	case n.Withdrawn && n.Sponsor == c.self && n.Proposed != c.since(hash):
		return nil // it is about what this node brought in before
	case n.Withdrawn && known:
		return c.strike(ctx, hash)
	case n.Withdrawn, rejected && n.Sponsor == c.self: // the chair has yet to hear of it
		return nil
	}
	if _, err = c.propose(ctx, n.Candidate, n.Sponsor, n.Since); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.open[hash]
	if !ok || slices.Equal(x.Approved, n.Approved) {
		return nil
	}
	next := x.clone()
	next.Approved = n.Approved
	return c.keep(ctx, hash, next)
}

// Reject takes a candidate out, named by its organisation or the beginning of its hash: of two that bear one name, the
// one that is not who it says. It returns the candidate's hash.
func (n *Node) Reject(ctx context.Context, user flow.User, name string) (string, error) {
	hash, err := n.governor.clerk.reject(ctx, name)
	if err != nil {
		return "", err
	}
	return hash, n.Engine.RecordOperation(ctx, user, "governance-rejection", "reject", "candidate:"+hash, name)
}
