package fed

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"fednode/flow"
)

// TestProposalsDoNotPileUp has org-a leave more proposals at org-b than anybody could mean. What org-b has signed
// stays in force, and once org-a has cleared up, there is room again.
func TestProposalsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, gated())
		a, b := f.Orgs[0].Node.Engine, f.Orgs[1].Node.Engine
		signed := f.Agree(Gated)
		propose := func(version int) (*flow.Agreement, error) {
			d, err := flow.ParseDefinition("workflow.yaml", []byte(strings.Replace(Gated, "version: 1.0.0", fmt.Sprintf("version: 1.0.%d", version), 1)))
			f.must(err)
			return a.Submit(context.Background(), "tester", d)
		}
		first, err := propose(1)
		f.must(err)
		refused := 2
		for ; refused < 1000; refused++ {
			if _, err = propose(refused); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("org-b: overloaded: %d proposals of org-a wait here", refused-1)) {
			t.Fatalf("proposal %d: %v", refused, err)
		}
		if _, err := propose(1); err != nil {
			t.Errorf("one that is known already, again: %v", err)
		}
		all, err := b.Agreements()
		f.must(err)
		if len(all) != refused {
			t.Errorf("org-b holds %d agreements; %d were taken", len(all), refused)
		}
		if _, err := a.Withdraw(context.Background(), "tester", first.Hash, "cleared up"); err != nil {
			t.Fatal(err)
		}
		if _, err := propose(refused); err != nil {
			t.Errorf("after one was withdrawn: %v", err)
		}
		if at, err := b.Agreement(signed.Hash); err != nil || at.State != flow.InForce {
			t.Errorf("what was signed is %v, %v", at, err)
		}
		f.Verify()
	})
}
