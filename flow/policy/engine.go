package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"fednode/store/jcs"
)

// Sources are the policies that a node decides by. All are optional; without any, nothing but agreements allows.
type Sources struct {
	Local      *LocalPolicy
	Governance []*GovernancePolicy
	Now        func() time.Time
}

// An Engine decides. It is never changed, and safe for concurrent use.
type Engine struct {
	local      *LocalPolicy
	governance []*GovernancePolicy
	now        func() time.Time
	epoch      string
}

// Compile makes an Engine of the sources.
func Compile(s Sources) (*Engine, error) {
	e := &Engine{local: s.Local, governance: slices.Clone(s.Governance), now: s.Now}
	if e.now == nil {
		e.now = time.Now
	}
	slices.SortFunc(e.governance, func(a, b *GovernancePolicy) int { return strings.Compare(a.PolicyID, b.PolicyID) })
	for i, g := range e.governance {
		if i > 0 && g.PolicyID == e.governance[i-1].PolicyID {
			return nil, fmt.Errorf("two governance policies are called %s", g.PolicyID)
		}
	}
	epoch, err := jcs.Marshal(struct {
		Local      *LocalPolicy
		Governance []*GovernancePolicy
	}{e.local, e.governance})
	if err != nil {
		return nil, fmt.Errorf("policy epoch: %w", err)
	}
	h := sha256.Sum256(epoch)
	e.epoch = hex.EncodeToString(h[:8])
	return e, nil
}
