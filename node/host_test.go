package node

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/hsm"
	"fednode/transport"
	"fednode/transport/invite"
	"fednode/transport/member"
)

// inviting runs fn with a founder's node that has invited org-b. asks makes org-b's requests to join, each with another
// record, under one root.
func inviting(t *testing.T, fn func(t *testing.T, n *Node, asks func() *invite.Request)) {
	synctest.Test(t, func(t *testing.T) {
		create := func(org transport.OrgID) *Site {
			s, err := Create(filepath.Join(t.TempDir(), string(org)), Options{Org: org, Advertise: []string{"10.0.0.1:443"}, Listen: "127.0.0.1:0", Passphrase: hsm.Unprotected()})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		a, b := create("org-a"), create("org-b")
		defer b.Close()
		if err := a.Found(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		n, err := New(a, Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := n.close(); err != nil {
				t.Error(err)
			}
		}()
		i, err := n.Invite(t.Context(), "tester", "org-b", DefaultValidity)
		if err != nil {
			t.Fatal(err)
		}
		fn(t, n, func() *invite.Request {
			time.Sleep(time.Second) // records tell when they were issued
			r, err := b.Record()
			if err != nil {
				t.Fatal(err)
			}
			return &invite.Request{Ask: invite.AskJoin, Invitation: i.ID, RootSHA256: fingerprint(b.root), Member: &r}
		})
	})
}

// TestOneInvitationBringsOneRecord has its holder ask with two at once, which both find it unused.
func TestOneInvitationBringsOneRecord(t *testing.T) {
	inviting(t, func(t *testing.T, n *Node, asks func() *invite.Request) {
		h, first, second := n.host, asks(), asks()
		now, overtaken := h.now, false
		h.now = func() time.Time { // is asked after the one was looked at and before it is taken in
			if !overtaken {
				overtaken = true
				if _, err := h.admit(t.Context(), second); err != nil {
					t.Error(err)
				}
			}
			return now()
		}
		if _, err := h.admit(t.Context(), first); err == nil || len(n.Candidates()) != 1 {
			t.Errorf("%d records await approval; the second ended with %v", len(n.Candidates()), err)
		}
	})
}

// TestWhoWasRejectedDoesNotComeBack, not with the same invitation when the rejection is forgotten.
func TestWhoWasRejectedDoesNotComeBack(t *testing.T) {
	inviting(t, func(t *testing.T, n *Node, asks func() *invite.Request) {
		q := asks()
		if _, err := n.host.admit(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Reject(t.Context(), "tester", "org-b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(candidateLife + time.Second)
		if err := n.site.members.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.governor.clerk.enact(t.Context()) // forgets candidates of this age
		i, err := n.host.admit(t.Context(), q)
		if err != nil || len(n.Candidates()) != 0 {
			t.Fatalf("%d records await approval, %v", len(n.Candidates()), err)
		}
		var a invite.Answer
		if n.host.stand(i, &a); a.State != invite.StateRejected {
			t.Errorf("it is told that it is %s", a.State)
		}
		if got, err := n.Invitations(); err != nil || got[0].State != InvitationRejected {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestInvitationsAreForgotten, also where nobody is invited any more: there, nothing is deleted.
func TestInvitationsAreForgotten(t *testing.T) {
	inviting(t, func(t *testing.T, n *Node, _ func() *invite.Request) {
		time.Sleep(DefaultValidity + inviteKept)
		if got, err := n.Invitations(); err != nil || len(got) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestCandidatesDoNotOutliveTheirTime: what the chair dates far ahead would be kept for ever.
func TestCandidatesDoNotOutliveTheirTime(t *testing.T) {
	inviting(t, func(t *testing.T, n *Node, asks func() *invite.Request) {
		for ahead, ok := range map[time.Duration]bool{100 * 365 * 24 * time.Hour: false, -candidateLife - time.Hour: false, time.Minute: true} {
			since := transport.NewTime(time.Now().Add(ahead)).String()
			err := n.governor.clerk.learn(t.Context(), notice{Candidate: member.Candidate{Member: asks().Member}, Sponsor: "org-a", Since: since})
			if (err == nil) != ok {
				t.Errorf("brought in %s from now: %v", ahead, err)
			}
		}
	})
}

// TestOneWrongClockForgetsNothing: a candidate's time is over when a quorum has shown that it is.
func TestOneWrongClockForgetsNothing(t *testing.T) {
	inviting(t, func(t *testing.T, n *Node, asks func() *invite.Request) {
		if _, err := n.host.admit(t.Context(), asks()); err != nil {
			t.Fatal(err)
		}
		ahead := func() time.Time { return time.Now().AddDate(1, 0, 0) }
		n.governor.clerk.now, n.host.now = ahead, ahead
		n.governor.clerk.enact(t.Context())
		if _, err := n.Invite(t.Context(), "tester", "org-c", DefaultValidity); err != nil { // which forgets old ones
			t.Fatal(err)
		}
		n.governor.clerk.now, n.host.now = time.Now, time.Now
		got, err := n.Invitations()
		if err != nil || len(n.Candidates()) != 1 || len(got) != 2 || got[1].State != InvitationUsed {
			t.Errorf("%d records await approval; %+v, %v", len(n.Candidates()), got, err)
		}
		if got[0].State != InvitationExpired {
			t.Errorf("one that was made in the future is %s", got[0].State)
		}
		i := invitation{Invitee: "org-c", Created: got[0].Created, Expires: got[0].Expires}
		if err := n.host.usable(&i, asks()); err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("it was used: %v", err)
		}
		if _, err := n.RevokeInvitation(t.Context(), "tester", "org-c"); err != nil {
			t.Error(err)
		}
		n.host.now = ahead
		if got, err := n.Invitations(); err != nil || got[0].State != InvitationRevoked {
			t.Errorf("when its time has come, it is %s, %v", got[0].State, err)
		}
	})
}

// TestCandidatesFromTheFuture are dated anew by the chair, for its members take none.
func TestCandidatesFromTheFuture(t *testing.T) {
	inviting(t, func(t *testing.T, n *Node, asks func() *invite.Request) {
		c := n.governor.clerk
		if _, err := c.propose(t.Context(), member.Candidate{Member: asks().Member}, "org-a", transport.NewTime(time.Now().AddDate(1, 0, 0)).String()); err != nil {
			t.Fatal(err)
		}
		c.enact(t.Context())
		notices, _ := c.notices()
		if len(notices) != 1 || c.learn(t.Context(), notices[0]) != nil {
			t.Errorf("%+v", notices)
		}
	})
}
