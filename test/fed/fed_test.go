package fed

import (
	"testing"
	"testing/synctest"

	"fednode/flow"
)

func TestMain(m *testing.M) { Main(m) }

func TestADocumentCrossesThreeOrganisations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Agents: map[int]string{0: ApproveAll}})
		a := f.Agree(Workflow)
		run := f.Finish(f.Begin(a, "lease.txt", Lease).ID)
		if run.State != flow.StateCompleted {
			t.Fatalf("run is %s: %v", run.State, run.Error)
		}
		if n := f.Verify(); n < 10 {
			t.Errorf("%d receipts verified", n)
		}
	})
}
