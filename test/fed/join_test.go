package fed

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/hsm"
	"fednode/node"
	"fednode/transport"
	"fednode/transport/invite"
)

// invited returns a new invitation.
func (f *Federation) invited(by, who *Org) *node.Invited {
	f.t.Helper()
	i, err := by.Node.Invite(context.Background(), "tester", who.ID, node.DefaultValidity)
	f.must(err)
	return i
}

// met has a stranger join up to where it has confirmed the federation.
func (o *Org) met(token string) *node.Joiner {
	o.f.t.Helper()
	j, err := o.Join(token)
	o.f.must(err)
	_, err = j.Meet(context.Background())
	o.f.must(err)
	o.f.must(j.Confirm(context.Background()))
	return j
}

// asked asks to be a member, or how far that is.
func (f *Federation) asked(j *node.Joiner) *node.Progress {
	f.t.Helper()
	at, err := j.Ask(context.Background())
	for err != nil && !node.Final(err) { // it may have asked too often
		time.Sleep(time.Second)
		at, err = j.Ask(context.Background())
	}
	f.must(err)
	return at
}

// enters waits until the joiner is a member, and has its node begin.
func (o *Org) enters(j *node.Joiner) {
	o.f.t.Helper()
	o.f.Wait(string(o.ID)+" to be a member", func() bool { return o.f.asked(j).State == invite.StateMember })
	o.f.must(j.Enter(context.Background()))
	o.Begin()
}

// refusal is the code and text with which a joiner was refused.
func joinRefusal(err error) (transport.Code, string) {
	var e *transport.Error
	if errors.As(err, &e) {
		return e.Code, e.Text
	}
	return "", fmt.Sprint(err)
}

func approve(f *Federation, name string, by ...*Org) {
	f.t.Helper()
	for _, o := range by {
		f.Wait(string(o.ID)+" to hear of "+name, func() bool {
			return slices.ContainsFunc(o.Node.Candidates(), func(v node.CandidateView) bool { return string(v.Organization) == name || v.Hash == name })
		})
		_, err := o.Node.Approve(context.Background(), "tester", name, false)
		f.must(err)
	}
}

// TestStrangersBecomeMembers has two organisations join, the second by an invitation of the first, who is not the chair;
// nobody restarts, and all three work together at once.
func TestStrangersBecomeMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 2, Agents: map[int]string{0: ApproveAll}})
		a, b, c := f.Orgs[0], f.Strangers[0], f.Strangers[1]
		i := f.invited(a, b)
		j, err := b.Join(i.Token)
		f.must(err)
		m, err := j.Meet(context.Background())
		f.must(err)
		if m.Words != i.Words || m.Federation != "test" || m.Chair != a.ID || m.FederationID != i.FederationID || m.State != invite.StateInvited {
			t.Errorf("%+v; the inviter has %q", m, i.Words)
		}
		if _, err := j.Ask(context.Background()); err == nil {
			t.Error("asked to join before the words were compared")
		}
		checks, err := b.Check(j, m)
		f.must(err)
		if len(checks) != 5 || slices.ContainsFunc(checks, func(c node.JoinCheck) bool { return !c.OK }) {
			t.Errorf("%+v", checks)
		}
		if got, _ := a.Node.Invitations(); got[0].State != node.InvitationOpen {
			t.Errorf("before it asks, the invitation is %s", got[0].State)
		}
		f.must(j.Confirm(context.Background()))
		if at := f.asked(j); at.State != invite.StateAwaiting || at.Standing.Need != 1 || !slices.Equal(at.Standing.Missing, []transport.OrgID{a.ID}) {
			t.Errorf("%+v", at)
		}
		approve(f, "org-b", a)
		b.enters(j)
		f.must(errOf(a.Node.Invitations()))

		j = c.met(f.invited(b, c).Token)
		if at := f.asked(j); at.Standing.Need != 2 {
			t.Errorf("%+v", at)
		}
		approve(f, "org-c", a)
		f.Wait("org-c to hear that org-b has yet to approve", func() bool { return slices.Equal(f.asked(j).Standing.Missing, []transport.OrgID{b.ID}) })
		approve(f, "org-c", b)
		c.enters(j)
		if run := f.Finish(f.Begin(f.Agree(Workflow), "lease.txt", Lease).ID); run.State != flow.StateCompleted {
			t.Errorf("run is %s: %v", run.State, run.Error)
		}
		if got, err := b.Node.Invitations(); err != nil || got[0].State != node.InvitationMember {
			t.Errorf("the invitation is %+v, %v", got, err)
		}
		f.Verify()
	})
}

func errOf[T any](_ T, err error) error { return err }

// TestThiefUsesTheTokenFirst: the invitee learns who has used its invitation, the inviter throws the thief out with all
// members, and invites anew.
func TestThiefUsesTheTokenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Strangers: 2})
		a, b, c, thief := f.Orgs[0], f.Orgs[1], f.Strangers[0], f.Strangers[1]
		thief.rename(c.ID)
		i := f.invited(b, c)
		stolen := thief.met(i.Token)
		hash := f.asked(stolen).Hash
		j, err := c.Join(i.Token)
		f.must(err)
		_, err = j.Meet(context.Background())
		code, text := joinRefusal(err)
		for _, want := range []string{stolen.RootSHA256(), j.RootSHA256(), "fednode members reject " + hash[:12], "tell org-b"} {
			if code != transport.CodeConflict || !strings.Contains(text, want) {
				t.Errorf("%v; want %s", err, want)
			}
		}
		approve(f, "org-c", a)
		if got, _ := b.Node.Invitations(); got[0].State != node.InvitationUsed || got[0].RootSHA256 != stolen.RootSHA256() || got[0].Hash != hash {
			t.Errorf("%+v", got)
		}
		if _, err := b.Node.Reject(context.Background(), "tester", "org-x"); !errors.Is(err, flow.ErrNotFound) {
			t.Errorf("rejected nobody: %v", err)
		}
		_, err = b.Node.Reject(context.Background(), "tester", "org-c")
		f.must(err)
		for _, o := range f.Orgs {
			f.Wait(string(o.ID)+" to forget the thief", func() bool { return len(o.Node.Candidates()) == 0 })
		}
		if at := f.asked(stolen); at.State != invite.StateRejected {
			t.Errorf("the thief is told %+v", at)
		}
		f.must(b.Stop())
		b.Start()
		j = c.met(f.invited(b, c).Token)
		f.asked(j)
		approve(f, "org-c", a, b)
		c.enters(j)
		if got := f.at(a, "org-c").RootSHA256[0]; got != j.RootSHA256() {
			t.Errorf("org-c is %s", got)
		}
		if code, text := joinRefusal(errOf(stolen.Ask(context.Background()))); code != transport.CodeDenied || !strings.Contains(text, "org-c is a member already, and its keys are others") {
			t.Errorf("afterwards the thief is told %s: %s", code, text)
		}
	})
}

// rename makes a stranger's data directory anew, under the name of another organisation.
func (o *Org) rename(id transport.OrgID) {
	o.f.t.Helper()
	o.f.must(o.site.Close())
	o.ID, o.Dir = id, o.Dir+"-as-"+string(id)
	o.create("")
}

// TestRejectionIsTheSponsors: a member that neither brought a candidate in nor chairs leaves it alone.
func TestRejectionIsTheSponsors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 3, Strangers: 1})
		a, b, c, d := f.Orgs[0], f.Orgs[1], f.Orgs[2], f.Strangers[0]
		j := d.met(f.invited(b, d).Token)
		f.asked(j)
		f.Wait("org-c to hear of it", func() bool { return len(c.Node.Candidates()) == 1 })
		if _, err := c.Node.Reject(context.Background(), "tester", "org-d"); !errors.Is(err, flow.ErrMisuse) || !strings.Contains(err.Error(), "org-b brought it in") {
			t.Errorf("rejected by org-c: %v", err)
		}
		_, err := a.Node.Reject(context.Background(), "tester", "org-d")
		f.must(err)
		f.Wait("the joiner to be told", func() bool { return f.asked(j).State == invite.StateRejected })
		f.Wait("org-c to be told", func() bool { return len(c.Node.Candidates()) == 0 })

		// It stays rejected, whoever says again what was said before, until it is brought in anew.
		f.must(b.Stop())
		b.Start()
		time.Sleep(time.Minute)
		for _, o := range f.Orgs {
			if len(o.Node.Candidates()) != 0 {
				t.Errorf("%s has %+v", o.ID, o.Node.Candidates())
			}
		}
		if j = d.met(f.invited(b, d).Token); f.asked(j).State != invite.StateAwaiting {
			t.Errorf("with a new invitation: %+v", f.asked(j))
		}
		approve(f, "org-d", a, b, c)
		d.enters(j)
	})
}

// TestInvitationsEnd: revoked, expired, altered, of another federation, of nobody.
func TestInvitationsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 1})
		other := New(t, Options{Orgs: 1, Strangers: 1})
		a, b := f.Orgs[0], f.Strangers[0]
		meets := func(token string) (transport.Code, string) {
			t.Helper()
			j, err := b.Join(token)
			f.must(err)
			_, err = j.Meet(context.Background())
			if err == nil {
				t.Fatal("met with an invitation that is of no use")
			}
			return joinRefusal(err)
		}
		i := f.invited(a, b)
		_, err := a.Node.RevokeInvitation(context.Background(), "tester", "org-b")
		f.must(err)
		if code, text := meets(i.Token); code != transport.CodeDenied || !strings.Contains(text, "org-a revoked the invitation at 20") {
			t.Errorf("revoked: %s: %s", code, text)
		}
		if _, err := a.Node.RevokeInvitation(context.Background(), "tester", "org-b"); !errors.Is(err, flow.ErrNotFound) {
			t.Errorf("revoked twice: %v", err)
		}
		if _, err := a.Node.RevokeInvitation(context.Background(), "tester", i.ID); !errors.Is(err, flow.ErrMisuse) {
			t.Errorf("revoked twice by its id: %v", err)
		}

		i = f.invited(a, b)
		time.Sleep(node.DefaultValidity)
		if code, text := meets(i.Token); code != transport.CodeExpired || !strings.Contains(text, "was valid until") || !strings.Contains(text, "org-a's clock says") {
			t.Errorf("expired: %s: %s", code, text)
		}

		// Every byte, altered by somebody who can make a checksum.
		i = f.invited(a, b)
		for at := range tokenBytes(t, i.Token) {
			token := altered(t, i.Token, at)
			j, err := b.Join(token)
			if err != nil {
				continue // it is no token any more, or one of another organisation
			}
			if at%7 == 0 { // the rest is the same again
				if _, err := j.Meet(context.Background()); err == nil {
					t.Fatalf("met with byte %d altered", at)
				}
			}
		}
		if got, _ := a.Node.Invitations(); got[0].State != node.InvitationOpen {
			t.Errorf("the invitation is %s", got[0].State)
		}
		time.Sleep(time.Minute)

		// Another federation's, whose member has another root, and one of a member that knows nothing of it.
		foreign := other.invited(other.Orgs[0], other.Strangers[0])
		if _, text := meets(foreign.Token); !strings.Contains(text, "its root is not the one that was named") {
			t.Errorf("foreign: %s", text)
		}
		f.must(a.Stop())
		a.forgetInvitations()
		a.Start()
		if code, text := meets(i.Token); code != "" || !strings.Contains(text, "unreachable") {
			t.Errorf("at a node that has invited nobody: %s %s", code, text)
		}
		f.invited(a, b)
		if code, text := meets(i.Token); code != transport.CodeDenied || !strings.Contains(text, "org-a knows no such invitation") {
			t.Errorf("forgotten: %s %s", code, text)
		}
	})
}

func tokenBytes(t *testing.T, token string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "fed1_"))
	if err != nil {
		t.Fatal(err)
	}
	return b[:len(b)-4]
}

// TestTwoJoinersAtOnce: of two with one invitation one gets it, and two with one each both become members.
func TestTwoJoinersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 3})
		a, b, c, twin := f.Orgs[0], f.Strangers[0], f.Strangers[1], f.Strangers[2]
		twin.rename(b.ID)
		i := f.invited(a, b)
		both := []*node.Joiner{b.met(i.Token), twin.met(i.Token)}
		errs := make(chan error, 2)
		for _, j := range both {
			go func() { errs <- errOf(j.Ask(context.Background())) }()
		}
		first, second := <-errs, <-errs
		if code, _ := joinRefusal(errors.Join(first, second)); (first == nil) == (second == nil) || code != transport.CodeConflict {
			t.Fatalf("%v; %v", first, second)
		}
		if len(a.Node.Candidates()) != 1 {
			t.Errorf("%+v", a.Node.Candidates())
		}
		winner, w := b, both[0]
		if errOf(both[0].Ask(context.Background())) != nil {
			winner, w = twin, both[1]
		}
		j := c.met(f.invited(a, c).Token)
		f.asked(j)
		approve(f, "org-b", a)
		approve(f, "org-c", a)
		winner.enters(w)
		approve(f, "org-c", winner)
		c.enters(j)
	})
}

// TestApprovalIsWithdrawnWhileJoining: until it is in effect, an approval can be taken back.
func TestApprovalIsWithdrawnWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Strangers: 1})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Strangers[0]
		j := c.met(f.invited(a, c).Token)
		f.asked(j)
		approve(f, "org-c", a)
		if at := f.asked(j); !slices.Equal(at.Standing.Missing, []transport.OrgID{b.ID}) {
			t.Errorf("%+v", at.Standing)
		}
		_, err := a.Node.Approve(context.Background(), "tester", "org-c", true)
		f.must(err)
		approve(f, "org-c", b)
		f.Wait("org-a to have org-b's", func() bool { return slices.Equal(f.asked(j).Standing.Missing, []transport.OrgID{a.ID}) })
		time.Sleep(time.Minute)
		if at := f.asked(j); at.State != invite.StateAwaiting {
			t.Errorf("with an approval withdrawn, the joiner is %s", at.State)
		}
		approve(f, "org-c", a)
		c.enters(j)
	})
}

// TestChairIsOfflineDuringAJoin: the inviter is another member, which says what it waits for, and goes on by itself.
func TestChairIsOfflineDuringAJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Strangers: 1})
		a, b, c := f.Orgs[0], f.Orgs[1], f.Strangers[0]
		f.must(a.Stop())
		j := c.met(f.invited(b, c).Token)
		f.asked(j)
		approve(f, "org-c", b)
		f.Wait("the joiner to hear of it", func() bool {
			at := f.asked(j)
			return at.State == invite.StateAwaiting && strings.Contains(at.Waiting, "org-a (chair) cannot be reached; it is told as soon as it can")
		})
		f.must(b.Stop())
		if _, err := j.Ask(context.Background()); err == nil || node.Final(err) || !errors.Is(err, transport.ErrUnreachable) {
			t.Errorf("with nobody there: %v", err)
		}
		time.Sleep(time.Hour)
		b.Start()
		a.Start()
		approve(f, "org-c", a)
		c.enters(j)
	})
}

// TestJoinSurvivesCrashes kills inviter and joiner between what they do: whoever has used the invitation goes on with it,
// nobody else can.
func TestJoinSurvivesCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 2, Limits: idle()})
		a, b, twin := f.Orgs[0], f.Strangers[0], f.Strangers[1]
		twin.rename(b.ID)
		i, err := a.Node.Invite(context.Background(), "tester", b.ID, 5*time.Minute)
		f.must(err)
		a.Crash()
		a.Start()
		hash := f.asked(b.met(i.Token)).Hash // an answer that the joiner never gets to see
		a.Crash()
		a.Start()
		time.Sleep(time.Minute)
		if all := a.Node.Candidates(); len(all) != 1 || all[0].Waiting != "" {
			t.Errorf("the chair waits for %+v", all)
		}
		b.reopen()
		j, err := b.Join("")
		f.must(err)
		if !j.Confirmed() {
			t.Error("the words would have to be compared again")
		}
		at := f.asked(j)
		if at.State != invite.StateAwaiting || at.Hash != hash || len(a.Node.Candidates()) != 1 {
			t.Errorf("after a crash of both: %+v, %d candidates", at, len(a.Node.Candidates()))
		}
		k, err := twin.Join(i.Token)
		f.must(err)
		if code, _ := joinRefusal(errOf(k.Meet(context.Background()))); code != transport.CodeConflict {
			t.Errorf("somebody else goes on with it: %s", code)
		}
		approve(f, "org-b", a)
		f.Wait("membership", func() bool { return f.asked(j).State == invite.StateMember })
		b.reopen()
		if j, err = b.Join(i.Token); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // what is used does not expire
		b.enters(j)
		b.Crash()
		b.Start()
		if f.at(b, a.ID).ID != a.ID {
			t.Error("org-b knows nobody")
		}
	})
}

// reopen is what happens to a stranger's site when its process is killed and another begins.
func (o *Org) reopen() {
	o.f.t.Helper()
	o.f.must(o.site.Close())
	var err error
	o.site, err = node.Open(o.Dir, hsm.Passphrase{}, o.now)
	o.f.must(err)
}

// TestJoinersClock: a clock that is wrong is found before anything is used up, and both clocks are named.
func TestJoinersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 1})
		a, b := f.Orgs[0], f.Strangers[0]
		time.Sleep(4*24*time.Hour + 6*time.Hour) // nothing of org-a's is so young that its age says the time
		i := f.invited(a, b)
		for _, skew := range []time.Duration{-10 * time.Minute, 10 * time.Minute, -3 * 24 * time.Hour, 400 * 24 * time.Hour} {
			b.Skew(skew)
			b.rename(b.ID) // its keys are made by that clock
			j, err := b.Join(i.Token)
			f.must(err)
			_, err = j.Meet(context.Background())
			here, there := b.now().UTC().Format("2006-01-02T15:04"), time.Now().UTC().Format("2006-01-02T15:04")
			if skew.Abs() > 24*time.Hour {
				there = time.Now().UTC().Format("2006-01-") // the certificate's times tell it to a day
			}
			if err == nil || !node.Final(err) || !strings.Contains(err.Error(), here) || !strings.Contains(err.Error(), there) {
				t.Errorf("%s off: %v; want %s and %s", skew, err, here, there)
			}
		}
		b.Skew(30 * time.Second)
		b.rename(b.ID)
		j := b.met(i.Token)
		f.asked(j)
		approve(f, "org-b", a)
		b.enters(j)
	})
}

// TestUnreachableJoiner: what the inviter cannot call back is said lane by lane, and nothing is used up.
func TestUnreachableJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 1})
		a, b := f.Orgs[0], f.Strangers[0]
		f.Network.BlockUDP(a, b, true)
		j := b.met(f.invited(a, b).Token)
		m, err := j.Meet(context.Background())
		f.must(err)
		checks, err := b.Check(j, m)
		f.must(err)
		got := ""
		for _, c := range checks {
			got += fmt.Sprintf("%s=%v ", c.Name, c.OK)
			if !c.OK && (c.Problem == "" || !strings.Contains(c.Problem, "udp") && !strings.Contains(c.Problem, "quic")) {
				t.Errorf("%+v", c)
			}
		}
		at := b.addr.String()
		if want := "clock=true udp=false tcp=true org-a reaches " + at + " over udp=false org-a reaches " + at + " over tcp=true "; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		f.asked(j)
		approve(f, "org-b", a)
		b.enters(j) // over TCP alone
	})
}

// TestMembersJoinOneAfterTheOther, each by the invitation of the one before, and all learn what changes.
func TestMembersJoinOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { joinAll(t, 4) })
}

// joinAll has n strangers join a founder, one after the other, and then a member change its record.
func joinAll(t *testing.T, n int) {
	f := New(t, Options{Orgs: 1, Strangers: n})
	for len(f.Strangers) > 0 {
		s, inviter := f.Strangers[0], f.Orgs[len(f.Orgs)-1]
		j := s.met(f.invited(inviter, s).Token)
		at := f.asked(j)
		for _, o := range f.Orgs[:at.Standing.Need] {
			approve(f, string(s.ID), o)
		}
		s.enters(j)
		f.Wait("all to know "+string(s.ID), func() bool {
			return !slices.ContainsFunc(f.Orgs, func(o *Org) bool { return len(o.Node.Members()) != len(f.Orgs) })
		})
	}
	began := time.Now()
	_, err := f.Orgs[n/2].Node.Renew(context.Background(), "tester", true, false)
	f.must(err)
	f.everywhere(f.Orgs[n/2].ID, 2)
	t.Logf("a change reached all %d members in %s of the federation's time", n+1, time.Since(began))
}
