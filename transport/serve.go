package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"fednode/transport/member"
)

// maxProof bounds a .tlog-proof with the entry it carries, in bytes.
const maxProof = 32 << 10

// serveConn serves one inbound connection until it ends.
func (n *Node) serveConn(conn *quic.Conn) {
	l, err := n.newLink(quicConn{conn}, conn.ConnectionState().TLS, "")
	admitted(conn)
	if err == nil && !n.enlist(l) {
		err = errors.New("too many connections")
	}
	if err != nil {
		n.m.handshake(LaneQUIC, "refused")
		_ = conn.CloseWithError(quic.ApplicationErrorCode(CodeNotMember.number()), "refused")
		return
	}
	n.m.handshake(LaneQUIC, "ok")
	n.m.connections(LaneQUIC, 1)
	defer n.m.connections(LaneQUIC, -1)
	defer n.delist(l)
	n.heard(l.org)
	for {
		s, err := conn.AcceptStream(n.ctx)
		if err != nil {
			return
		}
		if !n.spawn(func() { n.serveStream(l, quicStream{s}) }) {
			return
		}
	}
}

func (n *Node) enlist(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.inbound[l.org]) >= n.limit.ConnsPerPeer {
		return false
	}
	if n.inbound[l.org] == nil {
		n.inbound[l.org] = map[*link]struct{}{}
	}
	n.inbound[l.org][l] = struct{}{}
	return true
}

func (n *Node) delist(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.inbound[l.org], l)
	if len(n.inbound[l.org]) == 0 {
		delete(n.inbound, l.org)
	}
}

// reset ends a stream without an answer. What a peer sent is never logged: it is foreign and may be anything.
func (n *Node) reset(s stream, l *link, c Code) {
	n.m.rejected(l.org, l.conn.lane(), c)
	s.abort(c)
}

// serveStream takes one request from s to its answer.
func (n *Node) serveStream(l *link, s stream) {
	share := n.share(l.org)
	release, code := n.slot(s.Context(), share)
	if code != "" {
		n.reset(s, l, code)
		return
	}
	defer release()
	r, err := n.receive(l, s, share)
	if err != nil {
		code := CodeMalformed
		var e *Error
		if errors.As(err, &e) {
			code = e.Code
		} else if s.Context().Err() != nil {
			code = CodeCancelled
		} else if isTimeout(err) {
			code = CodeTimeout
		}
		n.reset(s, l, code)
		return
	}
	if r != nil {
		n.handle(r)
	}
}

// slot admits one request: the peer's rate first, then its share of the handlers, then a handler.
func (n *Node) slot(ctx context.Context, share *peerLimit) (release func(), refused Code) {
	if !share.requests.Allow() {
		return nil, CodeRateLimited
	}
	timer := time.NewTimer(n.limit.QueueTimeout)
	defer timer.Stop()
	for _, slots := range [...]chan struct{}{share.handlers, n.slots} {
		select {
		case slots <- struct{}{}:
		case <-timer.C:
			refused = CodeOverloaded
		case <-ctx.Done():
			refused = CodeCancelled
		}
		if refused != "" {
			if slots == n.slots {
				<-share.handlers
			}
			return nil, refused
		}
	}
	return func() { <-n.slots; <-share.handlers }, ""
}

// receive reads a request and attributes it: an error means that it is not a signed envelope of the peer's. A ping is
// answered, and is no request.
func (n *Node) receive(l *link, s stream, share *peerLimit) (*Request, error) {
	arrived := time.Now()
	if err := s.SetReadDeadline(arrived.Add(n.limit.FrameTimeout)); err != nil {
		return nil, err
	}
	h, err := readHeader(s)
	if err != nil {
		return nil, err
	}
	if h.kind == kindPing {
		if err := readEnd(s); err != nil {
			return nil, err
		}
		return nil, s.Close()
	}
	wire, err := readFrame(s, MaxEnvelope)
	if err != nil {
		return nil, err
	}
	proof, err := readFrame(s, maxProof)
	if err != nil {
		return nil, err
	}
	if h.kind == kindRequest { // a fetch keeps its sending side open, to acknowledge
		if err := readEnd(s); err != nil {
			return nil, err
		}
	}
	if !share.bytes.AllowN(arrived, len(wire)+len(proof)) {
		return nil, &Error{CodeRateLimited, "too many bytes"}
	}
	m, err := n.check(l)
	if err != nil {
		return nil, err
	}
	e, err := ParseEnvelope(wire)
	if err != nil {
		return nil, err
	}
	in, err := attribute(e, m)
	if err != nil {
		var unknown *Error
		if errors.As(err, &unknown) && unknown.Code == CodeUnknownKey { // it may be one of a record that is not here yet
			n.c.Behind(m.ID)
		}
		return nil, err
	}
	in.proof = proof
	return &Request{Envelope: e, From: m, Payload: e.Payload, n: n, in: in, kind: h.kind, offset: h.offset, timeout: h.timeout, conn: l.conn, stream: s, arrived: arrived}, nil
}

// An incoming is an envelope that m has signed, with what was sent along.
type incoming struct {
	envelope *Envelope
	from     *member.Member
	form     []byte // ledger form
	hash     string // of the signed bytes
	proof    []byte
	entry    peerEntry // what proof proves; zero if there is no proof
	inTime   bool      // its checkpoint was found not to be one that was left behind long ago
}

// attribute verifies that e is m's.
func attribute(e *Envelope, m *member.Member) (*incoming, error) {
	if e.Sender.OrganizationID != m.ID {
		return nil, &Error{CodeWrongSender, "the envelope's sender is not the peer"}
	}
	// The member also knows its replaced keys, for old entries. Nothing new may be signed with them.
	key, ok := m.MessageKey(e.Binding.KeyID)
	current := slices.ContainsFunc(m.Record().Record.Keys.Message, func(k member.MessageKey) bool { return k.KeyID == e.Binding.KeyID })
	if !ok || !current {
		return nil, &Error{CodeUnknownKey, "key_id is not in the sender's member record"}
	}
	signed, err := e.SignedBytes()
	if err != nil {
		return nil, err
	}
	if err := verifySignature(key, signed, e.Signature); err != nil {
		return nil, &Error{CodeBadSignature, "the envelope's " + err.Error()}
	}
	form, err := e.LedgerForm()
	if err != nil {
		return nil, err
	}
	return &incoming{envelope: e, from: m, form: form, hash: hashHex(signed)}, nil
}

// context returns the handler's context. A stream's own ends when its sending side is closed, so also after a reply; the
// handler's ends early only if nobody waits for an answer any more.
func (r *Request) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithValue(r.conn.Context(), traceKey{}, r.Envelope.Traceparent))
	stop := context.AfterFunc(r.stream.Context(), func() {
		if !r.answered() {
			cancel()
		}
	})
	return ctx, func() { stop(); cancel() }
}

// handle serves an attributed request: from here on every answer is signed and on record.
func (n *Node) handle(r *Request) {
	ctx, cancel := r.context()
	defer cancel()
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.arrived.Add(r.timeout))
		defer cancel()
	}
	label := r.Envelope.MessageType
	h, f := n.handler(r)
	if h == nil && f == nil {
		label = "unknown"
	}
	err := n.acceptable(r)
	if err == nil {
		err = n.dispatch(ctx, r, h, f)
	}
	if err != nil && !r.answered() {
		err = r.refuse(ctx, err, nil)
	} else if err != nil {
		n.c.Logger.Warn("handler failed after it had answered", "type", label, "peer", r.From.ID, "err", err)
		err = nil
	}
	if err == nil && !r.answered() {
		err = r.refuse(ctx, fmt.Errorf("handler of %s returned without an answer", label), nil)
	}
	if err != nil {
		n.c.Logger.Error("request could not be answered", "type", label, "peer", r.From.ID, "message", r.Envelope.MessageID, "err", err)
		r.stream.abort(CodeInternal)
		n.m.rejected(r.From.ID, r.conn.lane(), CodeInternal)
	}
	n.m.requests("in", r.From.ID, r.conn.lane(), label, r.result)
}

func (n *Node) handler(r *Request) (Handler, FetchHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.kind == kindFetch {
		return nil, n.fetch
	}
	return n.handlers[r.Envelope.MessageType], nil
}

// dispatch runs the handler. A panic is a bug of ours that a peer's bytes have found: it costs this request, not the node.
func (n *Node) dispatch(ctx context.Context, r *Request, h Handler, f FetchHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.c.Logger.Error("handler panicked", "type", r.Envelope.MessageType, "peer", r.From.ID, "stack", string(debug.Stack()))
			err = errors.New("handler panicked")
		}
	}()
	switch {
	case h != nil:
		err = h(ctx, r)
	case f != nil:
		err = r.serveFetch(ctx, f)
	default:
		return &Error{CodeUnknownType, "no handler for this message type"}
	}
	if err != nil && ctx.Err() != nil {
		return contextError(ctx, err)
	}
	return err
}

// contextError names the reason of an error that followed from the end of ctx.
func contextError(ctx context.Context, err error) error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{CodeTimeout, "the caller's deadline passed"}
	}
	return &Error{CodeCancelled, "the caller gave up"}
}

// acceptable checks everything that can be wrong with a well-signed request.
func (n *Node) acceptable(r *Request) error {
	e, now := r.Envelope, n.c.Now()
	set := n.c.Members()
	skew := now.Sub(e.Timestamp.Time)
	switch {
	case e.Binding.FederationID != set.FederationID():
		return refuse(CodeWrongFederation, "this is federation %s", set.FederationID())
	case e.Recipient.OrganizationID != n.c.Org:
		return refuse(CodeWrongRecipient, "this is %s", n.c.Org)
	case e.Recipient.InstanceID != "" && n.c.Instance != "" && e.Recipient.InstanceID != n.c.Instance:
		return refuse(CodeWrongRecipient, "this is instance %s of %s", n.c.Instance, n.c.Org)
	case e.Binding.InReplyTo != "":
		return &Error{CodeMalformed, "a request cannot be a reply"}
	case skew.Abs() > n.limit.ClockSkew:
		return refuse(CodeClockSkew, "%s's clock says %s, %s's says %s; they may differ by %s: set the clock that is wrong",
			r.From.ID, e.Timestamp, n.c.Org, NewTime(now), n.limit.ClockSkew)
	case !now.Before(e.Binding.ExpiresAt.Time):
		return refuse(CodeExpired, "expired at %s; it is %s", e.Binding.ExpiresAt, NewTime(now))
	}
	if err := n.checkGovernance(set, r.From.ID, e.Binding); err != nil {
		return err
	}
	if r.kind == kindRequest {
		if err := r.in.prove("request-sent"); err != nil {
			return err
		}
		r.Audit = r.in.entry.audit()
	} else {
		r.Audit = fetchAudit(e)
	}
	return n.precheck(r)
}

// checkGovernance refuses a peer whose governance log has our size and another root. Different sizes are no
// contradiction: one of the two is behind.
func (n *Node) checkGovernance(set *member.Set, from OrgID, b *Binding) error {
	size, root, err := b.governanceHead()
	if err != nil {
		return &Error{CodeMalformed, err.Error()}
	}
	head := set.Head()
	if size == head.Size && root != rootHex(head) {
		return refuse(CodeGovernanceFork, "at size %d this node holds governance root %s", size, rootHex(head))
	}
	if size > head.Size {
		n.c.Behind(from)
	}
	return nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout() && !errors.Is(err, io.EOF)
}
