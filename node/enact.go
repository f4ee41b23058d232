package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"fednode/transport"
	"fednode/transport/member"
)

// enact, at the chair, appends the oldest candidate that has its approvals, if no change is in flight. Everywhere it
// forgets candidates that are in force, can no longer be, or have waited too long.
func (c *clerk) enact(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.gov.Current()
	hashes := slices.SortedFunc(maps.Keys(c.open), func(a, b string) int {
		x, y := c.open[a], c.open[b]
		if x.Since != y.Since {
			if x.Since < y.Since {
				return -1
			}
			return 1
		}
		return 0
	})
	for _, hash := range hashes {
		x := c.open[hash]
		t, valid := set.Stand(x.Candidate, x.Approvals)
		since, err := time.Parse(time.RFC3339, x.Since)
		if t.InForce || err != nil || c.passed().Sub(since) > candidateLife || !c.possible(hash, x, set) {
			if err := c.keep(ctx, hash, nil); err != nil {
				return
			}
			continue
		}
		if c.gov.Chair() && c.gov.Ahead(since) { // the clock was ahead; members take nothing that is dated so
			next := x.clone()
			next.Since = transport.NewTime(c.now()).String()
			if err := c.keep(ctx, hash, next); err != nil {
				return
			}
			x = next
		}
		if x.Rejected || !c.gov.Chair() || !t.Complete(x.Subject(set)) {
			continue
		}
		err = c.gov.Enact(ctx, x.Candidate, valid)
		switch {
		case errors.Is(err, member.ErrInFlight):
		case err != nil:
			c.trouble[hash] = err.Error()
		default:
			delete(c.trouble, hash)
			set = c.gov.Current()
		}
	}
}

// passed is a time that has passed by this node's clock and by those of a quorum: what is forgotten for its age is not for
// one clock that is wrong.
func (c *clerk) passed() time.Time {
	now := c.now()
	if at, certified := c.gov.Seen(); certified && at.Before(now) {
		return at
	}
	return now
}

// possible reports whether a candidate may still come into force. It verifies signatures, so once for each set. c.mu is
// held.
func (c *clerk) possible(hash string, x *candidate, set *member.Set) bool {
	if c.checked[hash] == set {
		return true
	}
	if set.Check(x.Candidate) != nil {
		return false
	}
	c.checked[hash] = set
	return true
}
