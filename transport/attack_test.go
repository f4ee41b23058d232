package transport

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/transport/pki"
)

// A forgery is what an attacker with a node of its own puts on the wire.
type forgery struct {
	envelope *Envelope
	wire     []byte
	proof    []byte
}

// bytes is the request as an honest node would frame it.
func (f forgery) bytes() []byte {
	return appendFrame(appendFrame(header{kind: kindRequest, timeout: 30 * time.Second}.append(nil), f.wire), f.proof)
}

// forge seals m as p after a change, and records and proves it as p would.
func (p *peer) forge(t *testing.T, m Message, change func(*Envelope)) forgery {
	t.Helper()
	out, err := p.seal(m, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(out.envelope)
		if err := out.envelope.Seal(p.c.Key); err != nil {
			t.Fatal(err)
		}
		if out, err = out.envelope.outgoing(); err != nil {
			t.Fatal(err)
		}
	}
	return forgery{out.envelope, out.wire, p.record(t, requestSent, out)}
}

// record puts an envelope into p's log and returns the proof.
func (p *peer) record(t *testing.T, entryType string, out *outgoing) []byte {
	t.Helper()
	x := p.entry(entryType, testAudit, p.c.Org, out.envelope, resultOK)
	var i int64
	if err := p.db.Update(t.Context(), func(tx *store.Tx) (err error) { i, err = p.append(tx, x, out.form); return err }); err != nil {
		t.Fatal(err)
	}
	proof, err := p.prove(i, x)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// raw returns p's connection to another node, for bytes of any kind.
func (p *peer) raw(t *testing.T, to OrgID) conn {
	t.Helper()
	l, _, err := p.dialer(to).get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l.conn
}

func (p *peer) rawQUIC(t *testing.T, to OrgID) *quic.Conn {
	t.Helper()
	return p.raw(t, to).(quicConn).Conn
}

// send opens a stream for b and says what became of it: "reply", "refusal CODE" or "reset CODE".
func send(t *testing.T, c conn, b []byte) (outcome, text string) {
	t.Helper()
	s, err := c.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, werr := s.Write(b)
	s.Close()
	wire, err := readFrame(s, MaxEnvelope)
	if err != nil {
		var e *Error
		if !errors.As(fromStream(errors.Join(err, werr)), &e) {
			t.Fatalf("neither answer nor reset: %v, %v", err, werr)
		}
		return "reset " + string(e.Code), e.Text
	}
	e, err := ParseEnvelope(wire)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(e.MessageType, refusalSuffix) {
		return "reply", ""
	}
	var refusal Error
	if err := jcs.Unmarshal(e.Payload, &refusal); err != nil {
		t.Fatal(err)
	}
	return "refusal " + string(refusal.Code), refusal.Text
}

func TestForgedRequests(t *testing.T) {
	type attack func(t *testing.T, w *world, a *peer) []byte
	sealed := func(change func(*Envelope)) attack {
		return func(t *testing.T, w *world, a *peer) []byte { return a.forge(t, ask("org-b"), change).bytes() }
	}
	wire := func(edit func(f *forgery)) attack {
		return func(t *testing.T, w *world, a *peer) []byte {
			f := a.forge(t, ask("org-b"), nil)
			edit(&f)
			return f.bytes()
		}
	}
	replace := func(old, new string) attack {
		return wire(func(f *forgery) { f.wire = bytes.Replace(f.wire, []byte(old), []byte(new), 1) })
	}
	cases := map[string]struct {
		attack attack
		want   string
		text   string // part of the refusal's text
	}{
		"honest":           {sealed(nil), "reply", ""},
		"forged signature": {replace(`"signature":"`, `"signature":"AAAA`), "reset bad-signature", ""},
		"changed payload":  {replace("secret", "public"), "reset bad-signature", ""},
		"other member's key": {func(t *testing.T, w *world, a *peer) []byte {
			f := a.forge(t, ask("org-b"), nil)
			if err := f.envelope.Seal(w.orgs["org-c"].key); err != nil {
				t.Fatal(err)
			}
			f.wire = wireOf(t, f.envelope)
			return f.bytes()
		}, "reset bad-signature", ""},
		"unknown key": {sealed(func(e *Envelope) { e.Binding.KeyID = "other" }), "reset unknown-key", ""},
		"another member's message": {func(t *testing.T, w *world, a *peer) []byte {
			return w.peers["org-c"].forge(t, ask("org-b"), nil).bytes()
		}, "reset wrong-sender", ""},
		"in another's name": {sealed(func(e *Envelope) { e.Sender.OrganizationID = "org-c" }), "reset wrong-sender", ""},
		"for another":       {sealed(func(e *Envelope) { e.Recipient.OrganizationID = "org-c" }), "refusal wrong-recipient", ""},
		"other instance":    {sealed(func(e *Envelope) { e.Recipient.InstanceID = "elsewhere" }), "refusal wrong-recipient", ""},
		"other federation":  {sealed(func(e *Envelope) { e.Binding.FederationID = strings.Repeat("00", 32) }), "refusal wrong-federation", ""},
		"a reply":           {sealed(func(e *Envelope) { e.Binding.InReplyTo = strings.Repeat("00", 32) }), "refusal malformed", ""},
		"slow clock":        {sealed(func(e *Envelope) { e.Timestamp = NewTime(e.Timestamp.Add(-61 * time.Second)) }), "refusal clock-skew", "org-b's says 2000-01-01T00:00"},
		"fast clock":        {sealed(func(e *Envelope) { e.Timestamp = NewTime(e.Timestamp.Add(61 * time.Second)) }), "refusal clock-skew", "org-a's clock says 2000-01-01T00:01"},
		"a little off":      {sealed(func(e *Envelope) { e.Timestamp = NewTime(e.Timestamp.Add(-55 * time.Second)) }), "reply", ""},
		"expired":           {sealed(func(e *Envelope) { e.Binding.ExpiresAt = e.Timestamp }), "refusal expired", ""},
		"governance fork": {sealed(func(e *Envelope) {
			size, _, _ := strings.Cut(e.Binding.GovernanceHead, ":")
			e.Binding.GovernanceHead = size + ":" + strings.Repeat("00", 32)
		}), "refusal governance-fork", ""},
		"governance behind": {sealed(func(e *Envelope) { e.Binding.GovernanceHead = "1:" + strings.Repeat("00", 32) }), "reply", ""},
		"no proof":          {wire(func(f *forgery) { f.proof = nil }), "refusal bad-proof", ""},
		"garbage proof":     {wire(func(f *forgery) { f.proof = []byte("c2sp.org/tlog-proof@v1\nindex 0\n\n") }), "refusal bad-proof", ""},
		"proof of another entry": {func(t *testing.T, w *world, a *peer) []byte {
			f, other := a.forge(t, ask("org-b"), nil), a.forge(t, ask("org-b"), nil)
			f.proof = other.proof
			return f.bytes()
		}, "refusal bad-proof", ""},
		"proof of a reply": {func(t *testing.T, w *world, a *peer) []byte {
			f := a.forge(t, ask("org-b"), nil)
			out, err := f.envelope.outgoing()
			if err != nil {
				t.Fatal(err)
			}
			f.proof = a.record(t, replySent, out)
			return f.bytes()
		}, "refusal bad-proof", ""},
		"changed checkpoint": {wire(func(f *forgery) {
			f.proof = bytes.Replace(f.proof, []byte("\n\n"), []byte("\n\nx"), 1)
		}), "refusal bad-proof", ""},
		"duplicate key": {replace(`"message_id":`, `"message_id":"msg-0","message_id":`), "reset malformed", ""},
		"unknown field": {replace(`"message_id":`, `"admin":true,"message_id":`), "reset malformed", ""},
		"deep nesting":  {replace(`"secret question"`, strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), "reset malformed", ""},
		"not JSON":      {wire(func(f *forgery) { f.wire = []byte("\x16\x03\x01GET / HTTP/1.1") }), "reset malformed", ""},
		"no envelope":   {wire(func(f *forgery) { f.wire = nil }), "reset malformed", ""},
		"oversize": {func(*testing.T, *world, *peer) []byte {
			return append(header{kind: kindRequest}.append(nil), 0, 0x10, 0, 1)
		}, "reset too-large", ""},
		"oversize proof": {wire(func(f *forgery) { f.proof = make([]byte, maxProof+1) }), "reset too-large", ""},
		"empty stream":   {func(*testing.T, *world, *peer) []byte { return nil }, "reset malformed", ""},
		"truncated": {func(t *testing.T, w *world, a *peer) []byte {
			b := a.forge(t, ask("org-b"), nil).bytes()
			return b[:len(b)/2]
		}, "reset malformed", ""},
		"one byte short": {func(t *testing.T, w *world, a *peer) []byte {
			b := a.forge(t, ask("org-b"), nil).bytes()
			return b[:len(b)-1]
		}, "reset malformed", ""},
		"trailing bytes": {func(t *testing.T, w *world, a *peer) []byte { return append(a.forge(t, ask("org-b"), nil).bytes(), 0) }, "reset malformed", ""},
		"frame version":  {func(*testing.T, *world, *peer) []byte { b := header{kind: kindRequest}.append(nil); b[1] = 9; return b }, "reset unsupported-version", ""},
	}
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b", "org-c")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		w.start("org-c", nil)
		for name, c := range cases {
			before := len(b.entries(t))
			got, text := send(t, a.raw(t, "org-b"), c.attack(t, w, a))
			if got != c.want || !strings.Contains(text, c.text) {
				t.Errorf("%s: %s (%s); want %s (%s)", name, got, text, c.want, c.text)
			}
			synctest.Wait()
			var want []string
			switch kind, code, _ := strings.Cut(c.want, " "); kind {
			case "reply":
				want = []string{"request-received ok", "reply-sent ok"}
			case "refusal":
				want = []string{"request-received " + code, "reply-sent " + code}
			}
			if log := results(b.entries(t)[before:]); !slices.Equal(log, want) {
				t.Errorf("%s: on record are %q; want %q", name, log, want)
			}
			if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
				t.Errorf("%s: an honest call after it: %v", name, err)
			}
		}
	})
}

func TestReplayIsRefusedAlsoAfterARestart(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		serve := func(n *Node) { n.Handle("question", echo) }
		a, b := w.start("org-a", nil), w.start("org-b", serve)
		f := a.forge(t, ask("org-b"), nil)
		if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "reply" {
			t.Fatal(got)
		}
		for range 2 {
			if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "refusal replayed" {
				t.Fatalf("delivered again: %s", got)
			}
			b.stop(t)
			b = w.start("org-b", serve)
			a.stop(t)
			a = w.start("org-a", nil)
		}
		b.wantLog(t, "request-received ok", "reply-sent ok", "reply-sent replayed", "reply-sent replayed")
		// After the window the clock refuses it, and after the memory is gone the horizon does.
		time.Sleep(2 * time.Minute)
		if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "refusal clock-skew" {
			t.Errorf("after the window: %s", got)
		}
	})
}

// A clock that is set back far does not make forgotten messages new.
func TestReplayAfterTheClockWasSetBack(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		var back atomic.Int64
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.c.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
			n.Handle("question", echo)
		})
		f := a.forge(t, ask("org-b"), nil)
		f.envelope.Binding.ExpiresAt = NewTime(time.Now().Add(time.Hour))
		if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "reply" {
			t.Fatal(got)
		}
		time.Sleep(10 * time.Minute)
		for range 2 { // what makes org-b forget
			if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.count("transport/replay"); n > 4 {
			t.Errorf("%d message ids are remembered", n)
		}
		back.Store(int64(10 * time.Minute))
		if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "refusal expired" {
			t.Errorf("replayed with the clock set back: %s", got)
		}
	})
}

// Two clocks that are wrong together, and are mended, leave nothing refused but what was forgotten meanwhile.
func TestReplayAfterClocksWereWrongTogether(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		var ahead atomic.Int64
		wrong := func(n *Node) {
			n.c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			o, err := w.orgs[n.c.Org], error(nil)
			n.c.Leaf, err = pki.NewRenewer(pki.RenewerConfig{Org: string(o.id), Instance: "i1", FederationID: w.set.FederationID(),
				Identity: o.chain[0], Issuing: o.chain[1], Key: o.identity, Now: n.c.Now})
			w.must(err)
			n.Handle("question", echo)
		}
		a, b := w.start("org-a", wrong), w.start("org-b", wrong)
		for _, by := range []time.Duration{0, 5 * time.Minute, 24 * time.Hour, 300 * 24 * time.Hour} {
			ahead.Store(int64(by))
			f := a.forge(t, ask("org-b"), nil)
			f.envelope.Binding.ExpiresAt = NewTime(a.c.Now().Add(time.Hour))
			if got, text := send(t, a.raw(t, "org-b"), f.bytes()); got != "reply" {
				t.Fatalf("%v ahead: %s (%s)", by, got, text)
			}
			time.Sleep(10 * time.Minute)
			for range 20 { // so many that spans are joined
				if reply, err := a.Call(t.Context(), ask("org-b"), nil); err != nil || reply.Refusal != nil {
					t.Fatalf("%v ahead: %v, %v", by, reply, err)
				}
				time.Sleep(4 * time.Minute)
			}
			for i := range 20 { // so far apart that all others are joined before them
				ancient := a.forge(t, ask("org-b"), func(e *Envelope) { e.Timestamp = NewTime(e.Timestamp.AddDate(-5*i-5, 0, 0)) })
				if got, _ := send(t, a.raw(t, "org-b"), ancient.bytes()); got != "refusal clock-skew" {
					t.Errorf("%v ahead: %s", by, got)
				}
			}
			ahead.Add(int64(-90 * time.Minute)) // to when f was sent
			if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "refusal expired" {
				t.Errorf("%v ahead: what was forgotten was delivered again: %s", by, got)
			}
			ahead.Store(0)
			if reply, err := a.Call(t.Context(), ask("org-b"), nil); err != nil || reply.Refusal != nil {
				t.Errorf("%v ahead, and mended: %v, %v", by, reply, err)
			}
		}
		if n := b.count("transport/replay"); n > 8 {
			t.Errorf("%d message ids are remembered", n)
		}
	})
}

// What is of another time is refused, and takes no room: neither until then, nor, of before 1970, for ever.
func TestMessagesOfAnotherTimeAreNotRemembered(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		b := w.start("org-b", func(n *Node) { n.limit.ReplayEntries = 3; n.Handle("question", echo) })
		for i := range 10 {
			f := a.forge(t, ask("org-b"), func(e *Envelope) {
				e.Timestamp = NewTime(e.Timestamp.AddDate([]int{1, -1, -100}[i%3], 0, 0))
				if i%2 == 0 { // refused for something else before
					e.Binding.FederationID = strings.Repeat("0", 64)
				}
			})
			if got, _ := send(t, a.raw(t, "org-b"), f.bytes()); got != "refusal clock-skew" && got != "refusal wrong-federation" {
				t.Errorf("message %d: %s", i, got)
			}
		}
		if n := b.count("transport/replay"); n != 0 {
			t.Errorf("%d message ids are remembered", n)
		}
	})
}

func TestReplaySetIsBounded(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) { n.limit.ReplayEntries = 3; n.Handle("question", echo) })
		for i := range 5 {
			reply, err := a.Call(t.Context(), ask("org-b"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if full := reply.Refusal != nil && reply.Refusal.Code == CodeOverloaded; full != (i >= 3) {
				t.Errorf("message %d: %v", i, reply.Refusal)
			}
		}
		time.Sleep(5 * time.Minute)
		if reply, err := a.Call(t.Context(), ask("org-b"), nil); err != nil || reply.Refusal != nil {
			t.Errorf("after they expired: %+v, %v", reply, err)
		}
	})
}

// Two logs under one key: whoever sees both holds the proof of it.
func TestForkAndRollbackAreKeptAsEvidence(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		serve := func(n *Node) { n.Handle("question", echo) }
		a, b := w.start("org-a", nil), w.start("org-b", serve)
		first := a.forge(t, ask("org-b"), nil)
		if got, _ := send(t, a.raw(t, "org-b"), first.bytes()); got != "reply" {
			t.Fatal(got)
		}
		a.stop(t)
		w.wipe("org-a") // the same keys begin another history
		a = w.start("org-a", nil)
		if got, text := send(t, a.raw(t, "org-b"), a.forge(t, ask("org-b"), nil).bytes()); got != "refusal log-fork" {
			t.Fatalf("another root for size 1: %s (%s)", got, text)
		}
		for range 4 {
			if got, _ := send(t, a.raw(t, "org-b"), a.forge(t, ask("org-b"), nil).bytes()); got != "reply" {
				t.Fatal(got)
			}
			time.Sleep(3 * time.Minute)
		}
		a.stop(t)
		w.wipe("org-a")
		a = w.start("org-a", nil)
		if got, _ := send(t, a.raw(t, "org-b"), a.forge(t, ask("org-b"), nil).bytes()); got != "refusal log-rollback" {
			t.Fatalf("size 1 long after size 5: %s", got)
		}
		var kinds []string
		if err := b.db.View(func(tx *store.Tx) error {
			return AllEvidence(tx, func(e Evidence) error {
				kinds = append(kinds, string(e.Kind))
				for _, note := range [][]byte{e.Known, e.Presented} {
					w.openNote(t, "org-a", note)
				}
				return nil
			})
		}); err != nil {
			t.Fatal(err)
		}
		if len(kinds) != 2 || kinds[0] == kinds[1] {
			t.Errorf("evidence of %q; want one fork and one rollback", kinds)
		}
	})
}

// Streams overtake one another: a proof against an older checkpoint is no offence while it may have been under way.
func TestOvertakenMessagesAreNoRollback(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		var fs []forgery
		for range 5 {
			fs = append(fs, a.forge(t, ask("org-b"), nil))
		}
		for _, i := range []int{4, 2, 0, 3, 1} {
			if got, text := send(t, a.raw(t, "org-b"), fs[i].bytes()); got != "reply" {
				t.Errorf("message %d: %s (%s)", i, got, text)
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// Nor is it one when a clock was set meanwhile, or when the message was taken up long after it came.
func TestNoClockMakesARollback(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		var ahead atomic.Int64 // of b's clock
		a := w.start("org-a", func(n *Node) { n.c.Now = func() time.Time { return time.Now().Add(50 * time.Second) } })
		b := w.start("org-b", func(n *Node) {
			n.c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			n.Handle("question", echo)
			n.Handle("errand", func(ctx context.Context, r *Request) error {
				time.Sleep(150 * time.Second)
				return echo(ctx, r)
			})
		})
		served := func(what string, f forgery) {
			t.Helper()
			request := header{kind: kindRequest, timeout: 15 * time.Minute}.append(nil)
			if got, text := send(t, a.raw(t, "org-b"), appendFrame(appendFrame(request, f.wire), f.proof)); got != "reply" {
				t.Errorf("%s: %s (%s)", what, got, text)
			}
		}
		late, errand := a.forge(t, ask("org-b"), nil), ask("org-b")
		errand.Type, errand.ExpiresAt = "errand", time.Now().Add(time.Hour)
		slow := a.forge(t, errand, nil)
		var other sync.WaitGroup
		other.Go(func() { served("taken up late", slow) })
		time.Sleep(time.Second)
		served("in order", a.forge(t, ask("org-b"), nil))
		ahead.Store(int64(100 * time.Second))
		served("overtaken, the clock set forward", late)
		late = a.forge(t, ask("org-b"), nil)
		ahead.Store(0)
		served("in order, the clock set back", a.forge(t, ask("org-b"), nil))
		served("overtaken, the clock set back", late)
		other.Wait()
		if err := b.db.View(func(tx *store.Tx) error {
			return AllEvidence(tx, func(e Evidence) error { return fmt.Errorf("%s is convicted of %s", e.Peer, e.Kind) })
		}); err != nil {
			t.Error(err)
		}
	})
}

func TestForgedReplies(t *testing.T) {
	type answer func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte
	reply := func(change func(m *Message, hash *string)) answer {
		return func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte {
			m := Message{To: "org-a", ToInstance: q.Sender.InstanceID, Type: "question-reply", Run: string(q.WorkflowID), Step: q.StepID, Attempt: q.Binding.Attempt, Payload: 1}
			change(&m, &hash)
			out, err := b.seal(m, hash, "")
			if err != nil {
				t.Fatal(err)
			}
			return appendFrame(appendFrame(nil, out.wire), b.record(t, replySent, out))
		}
	}
	cases := map[string]struct {
		answer answer
		want   Code // "": the reply is good; "?": any error
	}{
		"honest":            {reply(func(*Message, *string) {}), ""},
		"in_reply_to":       {reply(func(_ *Message, h *string) { *h = strings.Repeat("00", 32) }), CodeConflict},
		"no in_reply_to":    {reply(func(_ *Message, h *string) { *h = "" }), CodeConflict},
		"other type":        {reply(func(m *Message, _ *string) { m.Type = "answer" }), CodeMalformed},
		"other run":         {reply(func(m *Message, _ *string) { m.Run = "wf-2" }), CodeConflict},
		"other attempt":     {reply(func(m *Message, _ *string) { m.Attempt = 2 }), CodeConflict},
		"for another":       {reply(func(m *Message, _ *string) { m.To = "org-c" }), CodeWrongRecipient},
		"refusal of sorts":  {reply(func(m *Message, _ *string) { m.Type, m.Payload = "question-refusal", 7 }), CodeMalformed},
		"refusal, odd code": {reply(func(m *Message, _ *string) { m.Type, m.Payload = "question-refusal", Error{"no\nway", ""} }), CodeMalformed},
		"other organisation": {func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte {
			return reply(func(*Message, *string) {})(t, w, w.peers["org-c"], q, hash)
		}, CodeWrongSender},
		"other key": {func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte {
			m := Message{To: "org-a", ToInstance: q.Sender.InstanceID, Type: "question-reply", Payload: 1}
			out, err := b.seal(m, hash, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := out.envelope.Seal(ed25519.NewKeyFromSeed(make([]byte, 32))); err != nil {
				t.Fatal(err)
			}
			return appendFrame(appendFrame(nil, wireOf(t, out.envelope)), b.record(t, replySent, out))
		}, CodeBadSignature},
		"no proof": {func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte {
			whole := reply(func(*Message, *string) {})(t, w, b, q, hash)
			wire, err := readFrame(bytes.NewReader(whole), MaxEnvelope)
			if err != nil {
				t.Fatal(err)
			}
			return appendFrame(appendFrame(nil, wire), nil)
		}, CodeBadProof},
		"the request itself": {func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte {
			return appendFrame(appendFrame(nil, wireOf(t, q)), nil)
		}, CodeWrongSender},
		"garbage": {func(*testing.T, *world, *peer, *Envelope, string) []byte {
			return appendFrame(appendFrame(nil, []byte("{]")), nil)
		}, CodeMalformed},
		"oversize":  {func(*testing.T, *world, *peer, *Envelope, string) []byte { return []byte{0xff, 0xff, 0xff, 0xff} }, CodeTooLarge},
		"truncated": {func(*testing.T, *world, *peer, *Envelope, string) []byte { return []byte{0, 0, 0, 9, 'x'} }, "?"},
		"nothing":   {func(*testing.T, *world, *peer, *Envelope, string) []byte { return nil }, "?"},
		"and a byte": {func(t *testing.T, w *world, b *peer, q *Envelope, hash string) []byte {
			return append(reply(func(*Message, *string) {})(t, w, b, q, hash), 0)
		}, CodeMalformed},
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b", "org-c")
		a := w.start("org-a", nil)
		w.start("org-c", nil)
		var current atomic.Pointer[answer]
		w.impostor("org-b", func(b *peer, q *Envelope) []byte {
			hash, err := q.Hash()
			if err != nil {
				t.Error(err)
			}
			return (*current.Load())(t, w, b, q, hash)
		})
		for name, c := range cases {
			current.Store(&c.answer)
			got, err := a.Call(t.Context(), ask("org-b"), nil)
			if c.want == "" {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			var e *Error
			if err == nil || !errors.Is(err, ErrUnknownOutcome) || c.want != "?" && (!errors.As(err, &e) || e.Code != c.want) {
				t.Errorf("%s: %+v, %v; want %s", name, got, err, c.want)
			}
		}
		for _, e := range a.entries(t) {
			if e.Type != requestSent {
				t.Errorf("an entry %s is on record for an answer that does not hold", e.Type)
			}
		}
	})
}
