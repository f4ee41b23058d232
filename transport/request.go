package transport

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport/member"
)

const (
	replySuffix   = "-reply"
	refusalSuffix = "-refusal"

	maxRefusalText = 1024 // bytes
	// recordTimeout bounds putting a refusal on record once the request's own context is over.
	recordTimeout = 10 * time.Second
)

// A Request is a signed, proven and timely message of a member, being handled.
type Request struct {
	Envelope *Envelope
	From     *member.Member
	Payload  json.RawMessage // RFC 8785 form
	// Audit is what the sender's own entry says; the entries of this request and its reply repeat it. A handler that
	// knows better may change it before it accepts.
	Audit AuditInfo

	n       *Node
	in      *incoming
	kind    kind
	offset  int64 // of a fetch
	timeout time.Duration
	conn    conn
	stream  stream
	arrived time.Time

	mu       sync.Mutex
	accepted bool
	result   Code        // of the answer; "" is ok
	done     atomic.Bool // answered; nothing may follow
}

// Remote is where the peer calls from.
func (r *Request) Remote() net.Addr { return r.conn.RemoteAddr() }

// ReplyOptions are the optional parts of a reply. Salt is given when a stored reply is delivered again; a zero Audit
// repeats the request's.
type ReplyOptions struct {
	Salt       []byte
	Audit      AuditInfo
	Governance Governance
}

var errAnswered = errors.New("the request was answered before")

func (r *Request) answered() bool { return r.done.Load() }

// Accept puts the request on record, once: replay set, entry "request-received", receipt and what with writes, in one
// transaction. It fails with an *Error if the message was accepted before; the handler returns that.
func (r *Request) Accept(ctx context.Context, with func(*store.Tx) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accepted || r.answered() {
		return errors.New("the request was accepted before")
	}
	err := r.n.c.DB.Update(ctx, func(tx *store.Tx) error {
		if err := r.accept(tx); err != nil {
			return err
		}
		return run(with, tx)
	})
	r.accepted = err == nil
	return err
}

func run(with func(*store.Tx) error, tx *store.Tx) error {
	if with == nil {
		return nil
	}
	return with(tx)
}

// accept is the transport's part of accepting; it fails if anything about the message is not new.
func (r *Request) accept(tx *store.Tx) error {
	if err := r.n.remember(tx, r.Envelope); err != nil {
		return err
	}
	if r.in.proven() {
		if err := r.n.checkHead(tx, r.in); err != nil {
			return err
		}
		if err := r.n.advance(tx, r.in); err != nil {
			return err
		}
	}
	return r.receive(tx, resultOK)
}

// receive writes entry and receipt of the request.
func (r *Request) receive(tx *store.Tx, result string) error {
	x := r.n.entry(requestReceived, r.Audit, r.From.ID, r.Envelope, result)
	i, err := r.n.append(tx, x, r.in.form)
	if err != nil || !r.in.proven() {
		return err
	}
	return r.in.keepReceipt(tx, i)
}

// precheck finds out cheaply what accept would refuse, before a handler does any work.
func (n *Node) precheck(r *Request) error {
	return n.c.DB.View(func(tx *store.Tx) error {
		if err := n.seen(tx, r.Envelope); err != nil || !r.in.proven() {
			return err
		}
		return n.checkHead(tx, r.in)
	})
}

// Reply signs the answer, puts it on record (entry "reply-sent", what with writes, and the request too if it was not
// accepted yet) in one transaction, and only then releases it. A nil error means that it is on record; if it could not
// be delivered, the caller will ask again.
func (r *Request) Reply(ctx context.Context, payload any, o ReplyOptions, with func(*store.Tx) error) error {
	p, err := jcs.Marshal(payload)
	if err != nil {
		return err
	}
	if o.Audit == (AuditInfo{}) {
		o.Audit = r.Audit
	}
	return r.answer(ctx, r.Envelope.MessageType+replySuffix, p, o, "", func(tx *store.Tx) error {
		if !r.accepted {
			if err := r.accept(tx); err != nil {
				return err
			}
		}
		return run(with, tx)
	})
}

// Refuse is [Request.Reply] with a refusal: message type "<type>-refusal", and e's code as result of the entries.
func (r *Request) Refuse(ctx context.Context, e *Error, with func(*store.Tx) error) error {
	p, err := jcs.Marshal(e.clipped())
	if err != nil {
		return err
	}
	return r.answer(ctx, r.Envelope.MessageType+refusalSuffix, p, ReplyOptions{Audit: r.Audit}, e.Code, func(tx *store.Tx) error {
		if !r.accepted {
			if err := r.recordRefused(tx, e.Code); err != nil {
				return err
			}
		}
		return run(with, tx)
	})
}

// recordRefused puts a request on record that is not going to be served. One that was received before is on record
// already, and a full replay set is no reason to forget a refusal.
func (r *Request) recordRefused(tx *store.Tx, c Code) error {
	if err := r.n.convict(tx, r.in, c); err != nil {
		return err
	}
	if c == CodeReplayed {
		return nil
	}
	if !r.n.skewed(r.Envelope) { // else a peer could fill the set for good, or have spans joined that are years apart
		var refused *Error
		if err := r.n.remember(tx, r.Envelope); err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	if r.in.proven() && c != CodeLogFork && c != CodeLogRollback && r.n.checkHead(tx, r.in) == nil {
		if err := r.n.advance(tx, r.in); err != nil {
			return err
		}
	}
	return r.receive(tx, string(c))
}

// refuse answers a handler's error. What is not meant for the peer stays here. It runs even when ctx is over: that a
// request was received and came to nothing goes on record.
func (r *Request) refuse(ctx context.Context, err error, with func(*store.Tx) error) error {
	var e *Error
	if !errors.As(err, &e) {
		r.n.c.Logger.Warn("request failed; the caller is told that the reason is withheld", "type", r.Envelope.MessageType,
			"organization", r.From.ID, "message", r.Envelope.MessageID, "err", err)
		e = &Error{CodeInternal, "withheld"}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return r.Refuse(ctx, e, with)
}

// answer seals, records and releases a reply.
func (r *Request) answer(ctx context.Context, messageType string, payload json.RawMessage, o ReplyOptions, c Code, with func(*store.Tx) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answered() {
		return errAnswered
	}
	e := r.Envelope
	out, err := r.n.seal(Message{To: r.From.ID, ToInstance: e.Sender.InstanceID, Type: messageType, Run: string(e.WorkflowID), Step: e.StepID,
		Payload: payload, Salt: o.Salt, Governance: o.Governance, Agreement: e.Binding.Agreement, Attempt: e.Binding.Attempt},
		r.in.hash, e.Traceparent)
	if err != nil {
		return err
	}
	result := resultOK
	if c != "" {
		result = string(c)
	}
	x := r.n.entry(replySent, o.Audit, r.n.c.Org, out.envelope, result)
	var index int64
	err = r.n.c.DB.Update(ctx, func(tx *store.Tx) (err error) {
		if err := with(tx); err != nil {
			return err
		}
		index, err = r.n.append(tx, x, out.form)
		return err
	})
	if err != nil {
		return err
	}
	r.accepted, r.result = true, c
	r.done.Store(true)
	if err := r.release(out, index, x); err != nil {
		r.n.c.Logger.Info("answer is on record but was not delivered", "type", messageType, "peer", r.From.ID, "err", fromStream(err))
		r.stream.abort(CodeInternal)
	}
	return nil
}

// release sends what is on record. On the stream of a fetch a status byte says that no artifact follows.
func (r *Request) release(out *outgoing, index int64, x ledger.Entry) error {
	known := r.n.c.Log.Head().Size
	p, err := r.n.prove(index, x)
	if err != nil {
		return err
	}
	b := make([]byte, 0, 9+len(out.wire)+len(p))
	if r.kind == kindFetch {
		b = append(b, fetchRefused)
	}
	if err := r.stream.SetWriteDeadline(time.Now().Add(r.n.limit.FrameTimeout)); err != nil {
		return err
	}
	if _, err := r.stream.Write(appendFrame(appendFrame(b, out.wire), p)); err != nil {
		return err
	}
	if err := r.stream.Close(); err != nil {
		return err
	}
	r.n.shown(r.From.ID, known)
	return nil
}
