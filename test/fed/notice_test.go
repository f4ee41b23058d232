package fed

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/transport"
)

// state is how far an agreement is at o; "" if it does not know it.
func (o *Org) state(hash string) flow.AgreementState {
	a, err := o.Node.Engine.Agreement(hash)
	if err != nil {
		return ""
	}
	return a.State
}

// TestWhoIsAbsentIsToldLater has every message about an agreement find its recipient away, and its sender crash before the
// recipient is back: all are told all the same, and nobody does anything for it.
func TestWhoIsAbsentIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Orgs[2]
		ctx := context.Background()
		d, err := flow.ParseDefinition("workflow.yaml", []byte(Workflow))
		f.must(err)
		back := func(sender *Org, away ...*Org) {
			sender.Crash()
			sender.Start()
			for _, o := range away {
				f.Network.Cut(sender, o, false)
			}
		}

		f.Network.Cut(a, b, true)
		f.Network.Cut(a, c, true)
		agreed, err := a.Node.Engine.Submit(ctx, "tester", d)
		if err == nil || agreed == nil {
			t.Fatalf("proposed to nobody: %v", err)
		}
		back(a, b, c)
		hash := agreed.Hash
		f.Wait("the proposal at org-b and org-c", func() bool { return b.state(hash) == flow.Pending && c.state(hash) == flow.Pending })

		f.Network.Cut(a, b, true)
		if _, err := b.Node.Engine.Accept(ctx, "tester", hash); err == nil {
			t.Fatal("org-b could tell org-a")
		}
		back(b, a)
		f.Wait("org-b's signature at org-a", func() bool {
			at, err := a.Node.Engine.Agreement(hash)
			f.must(err)
			n, _ := at.Signed()
			return n == 2
		})

		f.Network.Cut(a, b, true)
		_, err = c.Node.Engine.Accept(ctx, "tester", hash)
		f.must(err)
		f.Wait("in force at org-c", func() bool { return c.state(hash) == flow.InForce })
		if s := b.state(hash); s != flow.Accepted {
			t.Fatalf("%s at org-b, which nobody told", s)
		}
		back(a, b)
		f.Wait("in force at org-b", func() bool { return b.state(hash) == flow.InForce })

		f.Network.Cut(a, c, true)
		if _, err := a.Node.Engine.Withdraw(ctx, "tester", hash, "over"); err == nil {
			t.Fatal("org-a could tell org-c")
		}
		if s := b.state(hash); s != flow.Withdrawn {
			t.Fatalf("%s at org-b, which is there", s)
		}
		back(a, c)
		f.Wait("withdrawn at org-c", func() bool { return c.state(hash) == flow.Withdrawn })
		for _, o := range f.Orgs {
			if n := len(o.entries(t, "agreement-in-force", "")); n != 1 {
				t.Errorf("%s recorded %d times that the agreement is in force", o.ID, n)
			}
		}
		f.Verify()
	})
}

// TestAWithdrawalIsToldWhoeverElseWithdraws: that of another participant takes none away that is yet to be delivered.
func TestAWithdrawalIsToldWhoeverElseWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Orgs[2]
		ctx := context.Background()
		hash := f.Agree(Workflow).Hash
		f.Network.Cut(a, c, true)
		f.Network.Cut(b, c, true)
		if _, err := a.Node.Engine.Withdraw(ctx, "tester", hash, "over"); err == nil {
			t.Fatal("org-a could tell org-c")
		}
		if _, err := b.Node.Engine.Withdraw(ctx, "tester", hash, "because of org-a"); err == nil {
			t.Fatal("org-b could tell org-c")
		}
		if got, err := a.Node.Engine.Agreement(hash); err != nil || got.Reason != "over" {
			t.Errorf("org-a's reason became %q, %v", got.Reason, err)
		}
		f.Network.Cut(a, c, false)
		f.Wait("org-a's withdrawal at org-c", func() bool { return c.state(hash) == flow.Withdrawn })
	})
}

// TestNoticesCostLittle counts what org-a puts on record in three hours for a proposal that org-b never answers well.
func TestNoticesCostLittle(t *testing.T) {
	for name, c := range map[string]struct {
		most   int
		answer func(ctx context.Context, r *transport.Request) error // nil: org-b is away
	}{
		"away": {2, nil},
		"busy": {20, func(context.Context, *transport.Request) error {
			return &transport.Error{Code: transport.CodeOverloaded, Text: "always"}
		}},
		"nonsense": {1, func(ctx context.Context, r *transport.Request) error {
			return r.Reply(ctx, object{"state": 7}, transport.ReplyOptions{}, nil)
		}},
		"bad signature": {1, func(ctx context.Context, r *transport.Request) error {
			return r.Reply(ctx, object{"state": "accepted", "acceptance": object{"agreement": r.Envelope.Binding.Agreement, "organization_id": "org-b"}}, transport.ReplyOptions{}, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: func(_ *Org, n *Hostile) {
					if c.answer != nil {
						n.Handle("agreement-proposal", c.answer)
					}
				}})
				a, b := f.Orgs[0], f.Orgs[1]
				f.Network.Cut(a, b, c.answer == nil)
				d, err := flow.ParseDefinition("workflow.yaml", []byte(short))
				f.must(err)
				if _, err := a.Node.Engine.Submit(context.Background(), "tester", d); err == nil {
					t.Fatal("nobody says that it was not answered")
				}
				time.Sleep(3 * time.Hour)
				proposed := 0
				for _, e := range a.entries(t, "request-sent", "") {
					if e.Action == "propose" {
						proposed++
					}
				}
				if proposed == 0 || proposed > c.most {
					t.Errorf("org-a proposed %d times in three hours", proposed)
				}
			})
		})
	}
}

// TestARefusedProposalIsNotRepeated leaves alone whoever has answered, whatever the answer.
func TestARefusedProposalIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}, Handlers: func(_ *Org, n *Hostile) {
			n.Handle("agreement-proposal", func(ctx context.Context, r *transport.Request) error {
				return r.Reply(ctx, object{"state": "refused", "reason": "not with us"}, transport.ReplyOptions{}, nil)
			})
		}})
		d, err := flow.ParseDefinition("workflow.yaml", []byte(short))
		f.must(err)
		if _, err := f.Orgs[0].Node.Engine.Submit(context.Background(), "tester", d); err == nil {
			t.Fatal("nobody says that it was refused")
		}
		time.Sleep(time.Hour)
		proposed := 0
		for _, e := range f.Orgs[0].entries(t, "request-sent", "") {
			if e.Action == "propose" {
				proposed++
			}
		}
		if proposed != 1 {
			t.Errorf("org-a proposed %d times in an hour", proposed)
		}
	})
}

// TestAChairThatIsAwayCostsNoLog counts what the inviter puts on record in the hours in which it cannot tell the chair.
func TestAChairThatIsAwayCostsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Strangers: 1})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Strangers[0]
		f.must(a.Stop())
		j := c.met(f.invited(b, c).Token)
		f.asked(j)
		time.Sleep(3 * time.Hour)
		tried := 0
		for _, e := range b.entries(t, "request-sent", "") {
			if e.Action == "governance-proposal" {
				tried++
			}
		}
		if tried > 3 {
			t.Errorf("org-b tried %d times", tried)
		}
		a.Start()
		f.Wait("org-a to hear of it", func() bool { return len(a.Node.Candidates()) == 1 })
	})
}
