package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"fednode/store"
)

const suspendedBucket = "governance/suspended" // OrgID → Suspension

// A Suspension is this node's own denial of a member, which needs nobody's consent.
type Suspension struct {
	Since  string `json:"since"`
	Reason string `json:"reason,omitempty"`
}

// Suspend denies a member everything at this node, from the moment it returns, until Resume.
func (g *Governance) Suspend(ctx context.Context, org OrgID, reason string) error {
	if len(reason) > maxText || !isText(reason) {
		return fmt.Errorf("reason of %d bytes; at most %d, printable", len(reason), maxText)
	}
	s := &Suspension{g.o.Now().UTC().Format(timeFormat), reason}
	return g.suspend(ctx, org, s)
}

// Resume takes a suspension back.
func (g *Governance) Resume(ctx context.Context, org OrgID) error { return g.suspend(ctx, org, nil) }

func (g *Governance) suspend(ctx context.Context, org OrgID, s *Suspension) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.Current().Get(org)
	switch {
	case !ok:
		return fmt.Errorf("%.63s is not a member", org)
	case org == g.o.Org:
		return errors.New("an organisation does not suspend itself")
	case s == nil && !m.Suspended:
		return fmt.Errorf("%s is not suspended", org)
	}
	v, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = g.db.Update(ctx, func(tx *store.Tx) error {
		if s == nil {
			return tx.Bucket(suspendedBucket).Delete([]byte(org))
		}
		return tx.Bucket(suspendedBucket).Put([]byte(org), v)
	})
	if err != nil {
		return err
	}
	g.suspended = maps.Clone(g.suspended)
	if s == nil {
		delete(g.suspended, org)
	} else {
		g.suspended[org] = *s
	}
	g.install(g.unsuspended)
	return nil
}

func (g *Governance) loadSuspended(tx *store.Tx) error {
	b := tx.Bucket(suspendedBucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var s Suspension
		if err := json.Unmarshal(v, &s); err != nil {
			return fmt.Errorf("suspension of %s: %w", k, err)
		}
		g.suspended[OrgID(k)] = s
		return nil
	})
}

// deny returns the set with this node's suspensions in it.
func (g *Governance) deny(s *Set) *Set {
	next := s
	for org, why := range g.suspended {
		m, ok := s.members[org]
		if !ok {
			continue
		}
		if next == s {
			next = s.clone()
		}
		out := *m
		out.Suspended, out.Suspension = true, why
		next.members[org] = &out
	}
	return next
}
