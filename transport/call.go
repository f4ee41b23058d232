package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/transport/member"
)

// A Message is what [Node.Call] and [Node.Fetch] seal and send.
type Message struct {
	To         OrgID
	ToInstance string // optional
	Type       string
	Run        string // workflow_id; empty outside of runs
	Step       string
	Payload    any    // what encoding/json can write
	Salt       []byte // optional; the same at redelivery, so that the commitment is the same
	Governance Governance
	Agreement  string // hash of the signed definition; empty for governance messages
	Attempt    int
	ExpiresAt  time.Time // optional, default Limits.Lifetime from now
	Audit      AuditInfo
}

// An outgoing is a sealed envelope in its three forms.
type outgoing struct {
	envelope *Envelope
	wire     []byte
	form     []byte // ledger form
	hash     string // of the signed bytes
	lane     Lane   // it went over last
}

// seal makes an envelope of m, in reply to a request's hash or to none.
func (n *Node) seal(m Message, inReplyTo, trace string) (*outgoing, error) {
	payload, err := jcs.Marshal(m.Payload)
	if err != nil {
		return nil, fmt.Errorf("payload of %s: %w", m.Type, err)
	}
	set, now := n.c.Members(), n.c.Now()
	if m.ExpiresAt.IsZero() {
		m.ExpiresAt = now.Add(n.limit.Lifetime)
	}
	k := n.key.Load()
	b := &Binding{Version: Version, FederationID: set.FederationID(), KeyID: k.id, Alg: Ed25519, Agreement: m.Agreement,
		Attempt: m.Attempt, ExpiresAt: NewTime(m.ExpiresAt), InReplyTo: inReplyTo}
	if h := set.Head(); h.Size > 0 {
		b.GovernanceHead = strconv.FormatInt(h.Size, 10) + ":" + rootHex(h)
	}
	e := &Envelope{MessageID: NewMessageID(), Timestamp: NewTime(now), Sender: Address{OrganizationID: n.c.Org, InstanceID: n.c.Instance}, Recipient: Address{OrganizationID: m.To, InstanceID: m.ToInstance},
		WorkflowID: RunID(m.Run), StepID: m.Step, MessageType: m.Type, Payload: payload, Governance: m.Governance,
		Traceparent: childTrace(trace), Salt: m.Salt, Binding: b}
	if err := e.Seal(k.key); err != nil {
		return nil, err
	}
	return e.outgoing()
}

func (e *Envelope) outgoing() (*outgoing, error) {
	hash, err := e.Hash()
	if err != nil {
		return nil, err
	}
	form, err := e.LedgerForm()
	if err != nil {
		return nil, err
	}
	wire, err := e.Marshal()
	if err != nil {
		return nil, err
	}
	return &outgoing{envelope: e, wire: wire, form: form, hash: hash}, nil
}

// traceKey finds the traceparent of the request being handled in a handler's context.
type traceKey struct{}

func trace(ctx context.Context) string {
	s, _ := ctx.Value(traceKey{}).(string)
	return s
}

// WithTraceparent makes the calls under ctx part of a trace (W3C trace context). Handlers' contexts are part of the
// caller's trace already.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	return context.WithValue(ctx, traceKey{}, traceparent)
}

// A Reply is the verified answer to a call. Refusal is set if the peer refused: that is an answer too, signed and to
// be recorded like any other.
type Reply struct {
	Envelope *Envelope
	Payload  json.RawMessage // RFC 8785 form
	Refusal  *Error

	n        *Node
	in       *incoming
	recorded atomic.Bool
}

// Record puts the reply on record with tx: entry "reply-received" and receipt. The caller does so exactly once, in the
// transaction that takes the reply into account; again after that is committed, it does nothing.
func (p *Reply) Record(tx *store.Tx) error {
	if p.recorded.Load() {
		return nil
	}
	result := resultOK
	if p.Refusal != nil {
		result = string(p.Refusal.Code)
	}
	// A contradiction that came up since the reply arrived must not undo the caller's transaction: it is kept, and
	// the peer's next message will be refused.
	var conflict *Error
	err := p.n.checkHead(tx, p.in)
	switch {
	case errors.As(err, &conflict):
		result = string(conflict.Code)
		err = p.n.convict(tx, p.in, conflict.Code)
	case err == nil:
		err = p.n.advance(tx, p.in)
	}
	if err != nil {
		return err
	}
	x := p.n.entry(replyReceived, p.in.entry.audit(), p.in.from.ID, p.Envelope, result)
	i, err := p.n.append(tx, x, p.in.form)
	if err != nil {
		return err
	}
	if err := p.in.keepReceipt(tx, i); err != nil {
		return err
	}
	tx.AfterCommit(func() { p.recorded.Store(true) })
	return nil
}

// Connect sees that there is a connection to a member, as a call would. It puts nothing on record.
func (n *Node) Connect(ctx context.Context, org OrgID) error {
	if err := n.callable(org); err != nil {
		return fmt.Errorf("connect to %s: %w", org, err)
	}
	d := n.dialer(org)
	l, _, err := d.get(ctx)
	if err != nil {
		return err
	}
	d.release(l)
	return nil
}

// Call asks another organisation. It seals m, puts it on record (entry "request-sent" and what with writes) in one
// transaction, sends it with its proof and returns the verified answer, which may be a refusal.
//
// An error means that there is no answer that can be held against the peer. It wraps [ErrUnreachable] if the request
// has not left, [ErrUnknownOutcome] if the peer may have acted on it, and an [Error] if the peer refused without a
// signature (overloaded, rate-limited) or if its answer was not acceptable. The request is on record in all these
// cases; errors before that wrap neither.
func (n *Node) Call(ctx context.Context, m Message, with func(*store.Tx) error) (*Reply, error) {
	start := time.Now()
	if err := n.callable(m.To); err != nil {
		return nil, fmt.Errorf("call %s: %w", m.To, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, n.limit.CallTimeout)
		defer cancel()
	}
	out, err := n.seal(m, "", trace(ctx))
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", m.To, err)
	}
	d := n.dialer(m.To)
	d.warm() // while the disk works
	x := n.entry(requestSent, m.Audit, n.c.Org, out.envelope, resultOK)
	var index int64
	err = n.c.DB.Update(ctx, func(tx *store.Tx) (err error) {
		if index, err = n.append(tx, x, out.form); err != nil {
			return err
		}
		return run(with, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("record %s to %s: %w", m.Type, m.To, err)
	}
	reply, err := n.converse(ctx, d, out, func() ([]byte, error) { return n.prove(index, x) })
	c := Code("")
	var e *Error
	switch {
	case err == nil && reply.Refusal != nil:
		c = reply.Refusal.Code
	case errors.As(err, &e):
		c = e.Code
	case err != nil:
		c = CodeInternal
	}
	n.m.requests("out", m.To, out.lane, m.Type, c)
	if err != nil {
		return nil, fmt.Errorf("%s to %s: %w", m.Type, m.To, err)
	}
	n.m.latency(m.To, out.lane, m.Type, time.Since(start))
	return reply, nil
}

// callable says early what dialling would only say after the request is on record.
func (n *Node) callable(to OrgID) error {
	if to == n.c.Org {
		return errors.New("that is this organisation itself")
	}
	m, ok := n.c.Members().Get(to)
	switch {
	case !ok:
		return &Error{CodeNotMember, string(to) + " is not a member"}
	case m.Suspended:
		return &Error{CodeNotMember, fmt.Sprintf("%s is suspended by %s since %s: %s", to, n.c.Org, m.Suspension.Since, orElse(m.Suspension.Reason, "no reason given"))}
	}
	return n.ctx.Err()
}

// converse sends a request and verifies the answer. If a connection from before turns out to be dead, it sends the same
// bytes once more on a new one: the peer's replay set sees to it that they count once.
func (n *Node) converse(ctx context.Context, d *dialer, out *outgoing, prove func() ([]byte, error)) (*Reply, error) {
	for again := false; ; again = true {
		l, reused, err := d.get(ctx)
		if err != nil {
			if again {
				err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
			}
			return nil, err
		}
		out.lane = l.conn.lane()
		known := n.c.Log.Head().Size
		p, err := prove() // now: against the newest checkpoint
		if err != nil {
			d.release(l)
			return nil, err
		}
		wire, proof, err := exchange(ctx, l, out.wire, p)
		d.release(l)
		if err != nil && ctx.Err() == nil && connectionLost(err) {
			d.lost(l)
			if !again && (reused || l.forsaken.Load()) {
				continue
			}
		}
		if err != nil {
			return nil, unanswered(ctx, err)
		}
		reply, err := n.verifyReply(d.org, out, wire, proof)
		if err == nil {
			n.shown(d.org, known)
		}
		if err == nil && again && reply.Refusal != nil && reply.Refusal.Code == CodeReplayed {
			return nil, fmt.Errorf("%w: the connection was lost, and the first delivery had arrived", ErrUnknownOutcome)
		}
		return reply, err
	}
}

// exchange opens a stream for one request and reads the answer.
func exchange(ctx context.Context, l *link, envelope, proof []byte) (wire, wireProof []byte, err error) {
	s, err := l.conn.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := abortWith(ctx, s)
	defer stop()
	defer func() {
		if err != nil {
			s.abort(CodeCancelled)
		}
	}()
	h := header{kind: kindRequest}
	if at, ok := ctx.Deadline(); ok {
		h.timeout = max(time.Until(at), time.Millisecond)
	}
	b := make([]byte, 0, headerSize+8+len(envelope)+len(proof))
	if _, err := s.Write(appendFrame(appendFrame(h.append(b), envelope), proof)); err != nil {
		return nil, nil, err
	}
	if err := s.Close(); err != nil {
		return nil, nil, err
	}
	if wire, err = readFrame(s, MaxEnvelope); err != nil {
		return nil, nil, err
	}
	if wireProof, err = readFrame(s, maxProof); err != nil {
		return nil, nil, err
	}
	return wire, wireProof, readEnd(s)
}

// abortWith resets s when ctx ends, which ends the context of the handler on the other side.
func abortWith(ctx context.Context, s stream) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		c := CodeCancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c = CodeTimeout
		}
		s.abort(c)
	})
}

// connectionLost tells the loss of a connection from a peer's refusal. A socket that refuses to send, as it does where this
// host's own firewall drops UDP, ends a QUIC connection too.
func connectionLost(err error) bool {
	var idle *quic.IdleTimeoutError
	var gone *quic.StatelessResetError
	var socket *net.OpError
	var closed *quic.ApplicationError
	return errors.Is(err, errLost) || errors.As(err, &socket) || errors.As(err, &idle) || errors.As(err, &gone) || errors.As(err, &closed) && closed.ErrorCode == 0
}

// unanswered says what an exchange without answer means for the caller.
func unanswered(ctx context.Context, err error) error {
	err = fromStream(err)
	var e *Error
	if errors.As(err, &e) && (e.Code == CodeOverloaded || e.Code == CodeRateLimited) {
		return err // given before the request was read
	}
	var te *quic.TransportError
	if errors.As(err, &te) && te.Remote && te.ErrorCode.IsCryptoError() {
		// A TLS 1.3 client believes in the connection before the server has judged its certificate. A server that
		// refuses it has not read anything.
		return fmt.Errorf("%w: the peer refuses this node's certificate: %w", ErrUnreachable, err)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// verifyReply checks that wire is to's own, proven answer to out. There is no clock to check: in_reply_to binds the
// answer to a request of this moment, and a peer with a wrong clock must be able to say so.
func (n *Node) verifyReply(to OrgID, out *outgoing, wire, proof []byte) (*Reply, error) {
	set := n.c.Members()
	m, ok := set.Get(to)
	if !ok || m.Suspended {
		return nil, &Error{CodeNotMember, string(to) + " is no longer a member in good standing"}
	}
	in, err := n.openReply(set, m, out, wire)
	if err == nil {
		in.proof = proof
		err = in.prove(replySent)
	}
	if err == nil {
		err = n.c.DB.View(func(tx *store.Tx) error { return n.checkHead(tx, in) })
	}
	if err != nil {
		var conflict *Error
		if in != nil && errors.As(err, &conflict) {
			keep := n.c.DB.Update(n.ctx, func(tx *store.Tx) error { return n.convict(tx, in, conflict.Code) })
			err = errors.Join(err, keep)
		}
		return nil, fmt.Errorf("%w: answer: %w", ErrUnknownOutcome, err)
	}
	r := &Reply{Envelope: in.envelope, Payload: in.envelope.Payload, n: n, in: in}
	if in.envelope.MessageType == out.envelope.MessageType+refusalSuffix {
		r.Refusal = new(Error)
		if err := jcs.Unmarshal(r.Payload, r.Refusal); err != nil || r.Refusal.Code == "" || len(r.Refusal.Text) > maxRefusalText || checkType(string(r.Refusal.Code)) != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, refuse(CodeMalformed, "payload of the refusal"))
		}
		r.Refusal.Text = Printable(r.Refusal.Text)
	}
	return r, nil
}

func (n *Node) openReply(set *member.Set, m *member.Member, out *outgoing, wire []byte) (*incoming, error) {
	e, err := ParseEnvelope(wire)
	if err != nil {
		return nil, err
	}
	in, err := attribute(e, m)
	if err != nil {
		return nil, err
	}
	q := out.envelope
	switch {
	case e.Binding.FederationID != set.FederationID():
		return nil, refuse(CodeWrongFederation, "it is of federation %s", e.Binding.FederationID)
	case e.Recipient != q.Sender:
		return nil, refuse(CodeWrongRecipient, "it is for %s", e.Recipient.OrganizationID)
	case e.Binding.InReplyTo != out.hash:
		return nil, &Error{CodeConflict, "its in_reply_to is not the hash of this request"}
	case e.MessageType != q.MessageType+replySuffix && e.MessageType != q.MessageType+refusalSuffix:
		return nil, refuse(CodeMalformed, "its type %s does not answer %s", e.MessageType, q.MessageType)
	case e.WorkflowID != q.WorkflowID || e.StepID != q.StepID || e.Binding.Attempt != q.Binding.Attempt || e.Binding.Agreement != q.Binding.Agreement:
		return nil, &Error{CodeConflict, "it names another run, step, attempt or agreement"}
	}
	return in, n.checkGovernance(set, m.ID, e.Binding)
}
