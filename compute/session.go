package compute

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// DefaultTimeout is how long a round waits for the slowest party.
const DefaultTimeout = time.Minute

// abortTimeout is how long telling the others why a session ends may take.
const abortTimeout = 2 * time.Second

// A Config starts a session.
type Config struct {
	Name    string        // what is computed, the same at all parties: a job's identifier
	Roster  Roster        // the same at all parties
	Self    int           // this party's place in it
	Key     crypto.Signer // Ed25519, the private key of Roster[Self]
	Timeout time.Duration // of a round; DefaultTimeout if zero
}

// A Session is one run of a protocol. It is not safe for concurrent use: rounds
// follow each other. The Net stays the caller's to close.
type Session struct {
	net      Net
	config   Config
	id       [32]byte
	sequence uint32
	private  hpke.PrivateKey
	public   []hpke.PublicKey // by party; nil for self
	err      error            // why it is over
}

// Open starts a session with all parties of the roster: they exchange fresh
// randomness, which with the name and the roster makes the session's identifier,
// and keys for private messages. It fails like a round does. After a failure the Net
// is of no use to another session either: close it.
func Open(ctx context.Context, net Net, c Config) (*Session, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Session{net: net, config: c}
	hello := append([]byte("fednode/compute/hello/v1\n"), s.binding()...)
	nonces, err := s.hello(ctx, hello)
	if err != nil {
		return nil, s.end(err)
	}
	h := sha256.New()
	h.Write([]byte("fednode/compute/session/v1\n"))
	h.Write(s.binding())
	for _, nonce := range nonces {
		h.Write(nonce)
	}
	h.Sum(s.id[:0])
	if s.private, err = kem().GenerateKey(); err != nil {
		return nil, s.end(err)
	}
	keys, err := s.Broadcast(ctx, "session keys", s.private.PublicKey().Bytes(), kemKeySize)
	if err != nil {
		return nil, err
	}
	for i, b := range keys {
		key, err := kem().NewPublicKey(b)
		if err != nil {
			return nil, s.Blame(i, "session keys", fmt.Errorf("%w: %w", ErrMisbehaved, err))
		}
		s.public = append(s.public, key)
	}
	return s, nil
}

func (c *Config) check() error {
	if err := c.Roster.Check(); err != nil {
		return err
	}
	if c.Self < 0 || c.Self >= len(c.Roster) {
		return fmt.Errorf("%w: place %d among %d parties", ErrRoster, c.Self, len(c.Roster))
	}
	if c.Key == nil || !c.Roster[c.Self].Key.Equal(c.Key.Public()) {
		return fmt.Errorf("%w: the private key is not that of party %q", ErrRoster, c.Roster[c.Self].Name)
	}
	if c.Name == "" {
		return fmt.Errorf("%w: a session needs a name", ErrRoster)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	return nil
}

// binding is what all parties of a session have to agree on beforehand.
func (s *Session) binding() []byte {
	name, roster := sha256.Sum256([]byte(s.config.Name)), s.config.Roster.Hash()
	return append(name[:], roster[:]...)
}

// ID identifies the session: nobody alone can have it come out as another's.
func (s *Session) ID() [32]byte { return s.id }

// Roster returns the parties, not to be changed.
func (s *Session) Roster() Roster { return s.config.Roster }

// Self returns this party's place in the roster.
func (s *Session) Self() int { return s.config.Self }

// Key returns this party's signing key.
func (s *Session) Key() crypto.Signer { return s.config.Key }

// Blame ends the session because of a party, and returns the error that says so.
func (s *Session) Blame(party int, round string, err error) error {
	return s.end(&PartyError{s.config.Roster[party].Name, round, err})
}

// Fail ends the session for a reason that is no party's, and returns the error. The
// others learn that it failed here, and nothing of the reason.
func (s *Session) Fail(err error) error { return s.end(err) }

// end makes err the session's last word and tells the others, as well as that goes.
func (s *Session) end(err error) error {
	if s.err != nil {
		return s.err
	}
	s.err = err
	ctx, cancel := context.WithTimeout(context.Background(), min(abortTimeout, s.config.Timeout))
	defer cancel()
	text := reason(err)
	f := frame{kind: kindAbort, sender: s.config.Self, sequence: s.sequence, session: s.id,
		payload: []byte(text[:min(len(text), maxReason)])}
	b := f.marshal()
	var group sync.WaitGroup
	for to := range s.config.Roster {
		if to != s.config.Self {
			group.Go(func() { s.net.Send(ctx, to, b) })
		}
	}
	group.Wait()
	return err
}

// reason is what others are told of an error: the round, the party and the class of
// what went wrong, and nothing that an error may say of this machine.
func reason(err error) string {
	var named *PartyError
	if !errors.As(err, &named) {
		return "for a reason of its own"
	}
	for _, class := range []error{ErrEquivocated, ErrMissing, ErrTooLong, ErrMisbehaved, ErrInconsistent, ErrAborted} {
		if errors.Is(named.Err, class) {
			return fmt.Sprintf("%s: %q: %v", named.Round, named.Party, class)
		}
	}
	return fmt.Sprintf("%s: %q", named.Round, named.Party)
}

// maxReason is the longest reason of giving up that is sent and shown.
const maxReason = 400

// swap is one exchange of frames: one to every other party, one from each. take is
// called at the same time for different senders. On failure it returns what names
// most: a party that misbehaved before one that is missing, before one that gave up.
func (s *Session) swap(ctx context.Context, label string, limit int, give func(to int) ([]byte, error), take func(from int, f *frame) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	var mu sync.Mutex
	var worst error
	report := func(party int, err error) {
		if err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if err = s.classify(ctx, party, label, err); rank(err) > rank(worst) {
			worst = err
		}
		if !errors.Is(err, ErrAborted) { // why it gave up, another's frame may show
			cancel()
		}
	}
	var group sync.WaitGroup
	for i := range s.config.Roster {
		if i == s.config.Self {
			continue
		}
		group.Go(func() {
			if b, err := give(i); err != nil {
				report(s.config.Self, err)
			} else {
				report(i, s.net.Send(ctx, i, b))
			}
		})
		group.Go(func() {
			f, err := s.receive(ctx, i, limit)
			if err == nil {
				err = take(i, f)
			}
			report(i, err)
		})
	}
	group.Wait()
	return worst
}

// classify names the party of an error. A context that ended because another party
// failed says nothing about this one.
func (s *Session) classify(ctx context.Context, party int, label string, err error) error {
	switch {
	case party == s.config.Self, errors.Is(err, context.Canceled) && ctx.Err() != nil, errors.Is(err, ErrOver):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%w: nothing came through within %v", ErrMissing, s.config.Timeout)
	case errors.Is(err, ErrTooLong), errors.Is(err, errFrame):
		err = fmt.Errorf("%w: %w", ErrMisbehaved, err)
	case rank(err) == 1:
		err = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return &PartyError{s.config.Roster[party].Name, label, err}
}

func rank(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrMisbehaved), errors.Is(err, ErrEquivocated):
		return 5
	case errors.Is(err, ErrInconsistent):
		return 4
	case errors.Is(err, ErrMissing):
		return 3
	case errors.Is(err, ErrAborted):
		return 2
	}
	return 1
}

// receive returns a party's next frame, checked to be its own and of this session.
func (s *Session) receive(ctx context.Context, from, limit int) (*frame, error) {
	b, err := s.net.Receive(ctx, from, max(limit, maxReason)+frameOverhead)
	if err != nil {
		return nil, err
	}
	f, err := parseFrame(b)
	switch {
	case err != nil:
		return nil, err
	case f.sender != from:
		return nil, fmt.Errorf("%w: a frame in the name of party %d", ErrMisbehaved, f.sender)
	case f.kind == kindAbort:
		return nil, fmt.Errorf("%w: %q", ErrAborted, strings.ToValidUTF8(string(f.payload[:min(len(f.payload), maxReason)]), "?"))
	case f.session != s.id:
		return nil, fmt.Errorf("%w: a frame of session %x, this is %x", ErrInconsistent, f.session[:4], s.id[:4])
	case f.kind != kindEvidence && f.sequence != s.sequence:
		return nil, fmt.Errorf("%w: a frame of exchange %d in exchange %d", ErrInconsistent, f.sequence, s.sequence)
	}
	return f, nil
}

// expect checks what a frame of a round is.
func expect(f *frame, k kind, label string, limit int) error {
	switch {
	case f.kind == kindEvidence:
		return fmt.Errorf("%w: what it heard in a broadcast differs", ErrInconsistent)
	case f.kind != k || f.label != label:
		return fmt.Errorf("%w: it is at %q, we at %q", ErrInconsistent, f.label, label)
	case len(f.payload) > limit:
		return fmt.Errorf("%w: %w: %d bytes, %d are the most", ErrMisbehaved, ErrTooLong, len(f.payload), limit)
	}
	return nil
}

// hello exchanges nonces, unsigned: they are signed with everything that follows.
func (s *Session) hello(ctx context.Context, hello []byte) ([][]byte, error) {
	nonces := make([][]byte, len(s.config.Roster))
	own := make([]byte, 32)
	rand.Read(own) // never fails (Go 1.24)
	nonces[s.config.Self] = own
	f := frame{kind: kindHello, sender: s.config.Self, label: "hello", payload: append(hello, own...)}
	b := f.marshal()
	err := s.swap(ctx, f.label, len(f.payload), func(int) ([]byte, error) { return b, nil }, func(from int, in *frame) error {
		if err := expect(in, kindHello, f.label, len(f.payload)); err != nil {
			return err
		}
		if len(in.payload) != len(f.payload) || string(in.payload[:len(hello)]) != string(hello) {
			return fmt.Errorf("%w: its session has another name or another roster", ErrInconsistent)
		}
		nonces[from] = in.payload[len(hello):]
		return nil
	})
	s.sequence++
	return nonces, err
}

// newFrame returns a frame of this exchange, signed if its kind is.
func (s *Session) newFrame(k kind, label string, recipient int, payload []byte) (*frame, error) {
	f := &frame{kind: k, sender: s.config.Self, sequence: s.sequence, session: s.id, label: label, payload: payload}
	if !k.signed() {
		return f, nil
	}
	var err error
	f.signature, err = s.config.Key.Sign(rand.Reader, f.signedText(recipient, f.digest()), crypto.Hash(0))
	if err == nil && len(f.signature) != ed25519.SignatureSize {
		err = fmt.Errorf("%w: the signing key makes signatures of %d bytes", ErrRoster, len(f.signature))
	}
	return f, err
}
