package fed

import (
	"context"
	"slices"
	"testing"
	"time"
)

// BenchmarkGovernanceChange takes a member's new record, which needs nobody else's approval, to all of 20 members: two
// rounds of cosignatures by fourteen of them, and telling all. The federation is on the loopback interface.
func BenchmarkGovernanceChange(b *testing.B) {
	f := New(b, Options{Orgs: 20, Loopback: true})
	org := f.Orgs[7]
	sequence := int64(1)
	for b.Loop() {
		_, err := org.Node.Renew(context.Background(), "tester", false, false)
		f.must(err)
		sequence++
		for slices.ContainsFunc(f.Orgs, func(o *Org) bool { return f.at(o, org.ID).Sequence != sequence }) {
			time.Sleep(time.Millisecond)
		}
	}
}
