package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/store"
	"fednode/store/ledger"
)

var testAudit = AuditInfo{Category: ledger.Authorization, Resource: "step:classify", Action: "step.execute"}

func ask(to OrgID) Message {
	return Message{To: to, Type: "question", Run: "wf-1", Step: "s1", Attempt: 1, Payload: map[string]string{"text": "secret question"}, Audit: testAudit}
}

// echo accepts and answers with what it was asked.
func echo(ctx context.Context, r *Request) error {
	if err := r.Accept(ctx, nil); err != nil {
		return err
	}
	return r.Reply(ctx, r.Payload, ReplyOptions{}, nil)
}

func put(bucket, key string) func(*store.Tx) error {
	return func(tx *store.Tx) error { return tx.Bucket(bucket).Put([]byte(key), []byte("1")) }
}

func TestCallIsOnRecordOnBothSides(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error {
				if string(r.Payload) != `{"text":"secret question"}` || r.From.ID != "org-a" || r.Audit.Resource != "step:classify" {
					t.Errorf("handler got %s from %s, %+v", r.Payload, r.From.ID, r.Audit)
				}
				if err := r.Accept(ctx, put("app", "accepted")); err != nil {
					return err
				}
				return r.Reply(ctx, map[string]int{"answer": 42}, ReplyOptions{}, put("app", "replied"))
			})
		})
		reply, err := a.Call(t.Context(), ask("org-b"), put("app", "asked"))
		if err != nil {
			t.Fatal(err)
		}
		if string(reply.Payload) != `{"answer":42}` || reply.Refusal != nil || reply.Envelope.MessageType != "question-reply" {
			t.Errorf("reply %s %s, %v", reply.Envelope.MessageType, reply.Payload, reply.Refusal)
		}
		for range 2 { // the second does nothing
			if err := a.db.Update(t.Context(), reply.Record); err != nil {
				t.Fatal(err)
			}
		}
		a.wantLog(t, "request-sent ok", "reply-received ok")
		b.wantLog(t, "request-received ok", "reply-sent ok")
		for p, keys := range map[*peer][]string{a: {"asked"}, b: {"accepted", "replied"}} {
			for _, k := range keys {
				if !p.has("app", k) {
					t.Errorf("%s: what the caller wrote in the same transaction is missing: %s", p.c.Org, k)
				}
			}
			p.verifyReceipts(t, w, 1)
		}
		if e := a.entries(t)[0]; e.OrganizationID != "org-a" || e.Reference != "wf-1/s1/1" || e.Action != "step.execute" || e.UserID == "" {
			t.Errorf("entry %+v", e)
		}
		if e := b.entries(t)[0]; e.OrganizationID != "org-a" || e.Resource != "step:classify" {
			t.Errorf("entry %+v", e)
		}
		for _, p := range []*peer{a, b} {
			for _, e := range p.entries(t) {
				if strings.Contains(string(e.Envelope), "secret") {
					t.Errorf("payload in the log of %s", p.c.Org)
				}
			}
		}
	})
}

func TestReplyAcceptsWhatWasNotAccepted(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error { return r.Reply(ctx, true, ReplyOptions{}, nil) })
		})
		if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
			t.Fatal(err)
		}
		b.wantLog(t, "request-received ok", "reply-sent ok")
		b.verifyReceipts(t, w, 1)
	})
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		handler Handler
		want    Error
		text    string
	}{
		"coded error": {func(context.Context, *Request) error {
			return fmt.Errorf("inner detail: %w", &Error{CodeDenied, "purpose not allowed"})
		}, Error{CodeDenied, "purpose not allowed"}, ""},
		"plain error is withheld": {func(context.Context, *Request) error { return errors.New("db password is hunter2") }, Error{CodeInternal, "withheld"}, ""},
		"no answer":               {func(context.Context, *Request) error { return nil }, Error{CodeInternal, "withheld"}, ""},
		"panic":                   {func(context.Context, *Request) error { panic("boom") }, Error{CodeInternal, "withheld"}, ""},
		"no handler":              {nil, Error{CodeUnknownType, "no handler for this message type"}, ""},
		"failed transaction": {func(ctx context.Context, r *Request) error {
			return r.Reply(ctx, 1, ReplyOptions{}, func(*store.Tx) error { return &Error{CodeClosed, "closed before"} })
		}, Error{CodeClosed, "closed before"}, ""},
		"after accepting": {func(ctx context.Context, r *Request) error {
			if err := r.Accept(ctx, nil); err != nil {
				return err
			}
			return &Error{CodeLost, "gone"}
		}, Error{CodeLost, "gone"}, "ok"},
		"text that would move a cursor": {func(context.Context, *Request) error {
			return &Error{CodeDenied, "no\x1b[2J\u009b1A\nyes\u202e"}
		}, Error{CodeDenied, "no [2J 1A yes "}, ""},
		"long text": {func(ctx context.Context, r *Request) error {
			return r.Refuse(ctx, &Error{CodeDenied, strings.Repeat("ä", 5000)}, nil)
		}, Error{CodeDenied, strings.Repeat("ä", 512)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "org-a", "org-b")
				a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
					if c.handler != nil {
						n.Handle("question", c.handler)
					}
				})
				reply, err := a.Call(t.Context(), ask("org-b"), nil)
				if err != nil {
					t.Fatal(err)
				}
				if reply.Refusal == nil || *reply.Refusal != c.want || reply.Envelope.MessageType != "question-refusal" {
					t.Fatalf("refusal %+v, want %+v", reply.Refusal, c.want)
				}
				if err := a.db.Update(t.Context(), reply.Record); err != nil {
					t.Fatal(err)
				}
				received := string(c.want.Code)
				if c.text != "" {
					received = c.text
				}
				a.wantLog(t, "request-sent ok", "reply-received "+string(c.want.Code))
				b.wantLog(t, "request-received "+received, "reply-sent "+string(c.want.Code))
				a.verifyReceipts(t, w, 1)
				b.verifyReceipts(t, w, 1)
			})
		})
	}
}

func TestASecondAnswerIsAnError(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		second := make(chan error, 2)
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error {
				err := echo(ctx, r)
				second <- r.Reply(ctx, 2, ReplyOptions{}, nil)
				second <- r.Accept(ctx, nil)
				return err
			})
		})
		if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if <-second == nil {
				t.Error("a second answer or acceptance went through")
			}
		}
		b.wantLog(t, "request-received ok", "reply-sent ok")
	})
}

// The handler's context ends when the caller gives up, long before the handler would be done.
func TestCancellationReachesTheHandler(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		began, ended := make(chan struct{}), make(chan error, 1)
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error {
				if err := r.Accept(ctx, nil); err != nil {
					return err
				}
				close(began)
				<-ctx.Done()
				ended <- ctx.Err()
				return ctx.Err()
			})
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		_, err := a.Call(ctx, ask("org-b"), nil)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("call: %v", err)
		}
		start := time.Now()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("handler: %v", err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("the handler heard of it after %v", d)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		b.wantLog(t, "request-received ok", "reply-sent cancelled")
	})
}

// The deadline travels as a duration: it holds however wrong the clocks are.
func TestDeadlineReachesTheHandler(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		left := make(chan time.Duration, 1)
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.c.Now = func() time.Time { return time.Now().Add(50 * time.Second) }
			n.Handle("question", func(ctx context.Context, r *Request) error {
				at, ok := ctx.Deadline()
				if !ok {
					t.Error("no deadline")
				}
				left <- time.Until(at)
				<-ctx.Done()
				return ctx.Err()
			})
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := a.Call(ctx, ask("org-b"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call: %v", err)
		}
		if d := <-left; d < 2*time.Second || d > 3*time.Second {
			t.Errorf("%v were left; the caller had 3 s", d)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		// The caller's reset and the handler's own timer race; either is the truth.
		code := "timeout"
		if es := b.entries(t); len(es) > 0 && es[0].Result == string(CodeCancelled) {
			code = string(CodeCancelled)
		}
		b.wantLog(t, "request-received "+code, "reply-sent "+code)
	})
}

func TestTraceGoesAlong(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		w := newWorld(t, "org-a", "org-b", "org-c")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.Handle("question", func(ctx context.Context, r *Request) error {
				reply, err := n.Call(ctx, ask("org-c"), nil)
				if err != nil {
					return err
				}
				return r.Reply(ctx, reply.Envelope.Traceparent, ReplyOptions{}, nil)
			})
		})
		w.start("org-c", func(n *Node) { n.Handle("question", echo) })
		reply, err := a.Call(WithTraceparent(t.Context(), parent), ask("org-b"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var third string
		if err := json.Unmarshal(reply.Payload, &third); err != nil || third[:36] != parent[:36] || third == parent {
			t.Errorf("trace at the third node: %q, %v", third, err)
		}
	})
}

func TestUnreachableAndUnknownPeers(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		if _, err := a.Call(t.Context(), ask("org-x"), nil); err == nil {
			t.Error("called a stranger")
		}
		if _, err := a.Call(t.Context(), ask("org-a"), nil); err == nil {
			t.Error("called itself")
		}
		a.wantLog(t)
		if _, err := a.Call(t.Context(), ask("org-b"), put("app", "asked")); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("nobody listens: %v", err)
		}
		a.wantLog(t, "request-sent ok")
		if !a.has("app", "asked") {
			t.Error("what the caller wrote with the request is missing")
		}
	})
}

func TestSeveralEndpoints(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		a := w.start("org-a", func(n *Node) {
			inner := n.c.Resolve
			n.c.Resolve = func(ctx context.Context, e string) ([]net.Addr, error) {
				good, err := inner(ctx, e)
				return append([]net.Addr{w.nowhere(1), w.nowhere(2)}, good...), err
			}
		})
		start := time.Now()
		if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*raceDelay+time.Second {
			t.Errorf("took %v past two dead addresses", d)
		}
	})
}

// A peer that was restarted does not know the old connection any more. The next call must not fail for that.
func TestPeerRestart(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		serve := func(n *Node) { n.Handle("question", echo) }
		a, b := w.start("org-a", nil), w.start("org-b", serve)
		for range 3 {
			if _, err := a.Call(t.Context(), ask("org-b"), nil); err != nil {
				t.Fatal(err)
			}
			b.stop(t)
			b = w.start("org-b", serve)
		}
	})
}

func TestManyCallsAtOnce(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		serve := func(n *Node) { n.Handle("question", echo) }
		a, b := w.start("org-a", serve), w.start("org-b", serve)
		errs := make(chan error, 100)
		for i := range cap(errs) {
			go func() {
				from, to := a, OrgID("org-b")
				if i%2 == 0 {
					from, to = b, "org-a"
				}
				reply, err := from.Call(t.Context(), ask(to), nil)
				if err == nil {
					err = from.db.Update(t.Context(), reply.Record)
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		a.verifyReceipts(t, w, 100)
		b.verifyReceipts(t, w, 100)
		if n := len(a.dialer("org-b").links()); n != 1 {
			t.Errorf("%d connections for 50 concurrent calls; want 1", n)
		}
	})
}
