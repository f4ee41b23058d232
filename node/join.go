package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"fednode/store"
	"fednode/transport"
	"fednode/transport/invite"
	"fednode/transport/member"
	"fednode/transport/pki"
)

// bucketJoining holds, until this organisation is a member, with what and as what it asks to be one.
const bucketJoining = "joining"

var joiningKey = []byte("invitation")

// joiningAAD binds a sealed token to its purpose.
var joiningAAD = []byte("fednode/joining")

const (
	// askTimeout bounds one request to the inviter.
	askTimeout = 20 * time.Second
	// maxLog bounds the governance log that is fetched, in bytes.
	maxLog = 64 << 20
)

// joining is what a site remembers of its way into a federation.
type joining struct {
	Token     []byte              `json:"token"` // sealed
	Record    member.SignedRecord `json:"record"`
	Confirmed bool                `json:"confirmed,omitempty"` // a human, or a fingerprint, has confirmed the federation
	Asked     bool                `json:"asked,omitempty"`     // the record may be with the inviter: it stays as it is
}

// A Joiner takes a site into the federation that it is invited to. Every step can be done again, also by another process
// after this one was killed.
type Joiner struct {
	site  *Site
	token *invite.Token
	state joining
	dial  transport.JoinDialer
}

// A Meeting is what a joiner has verified of a federation before it has said anything about itself but its root's hash.
type Meeting struct {
	Federation   string          `json:"federation"`
	FederationID string          `json:"federation_id"`
	Chair        transport.OrgID `json:"chair"`
	Inviter      transport.OrgID `json:"inviter"`
	RootSHA256   string          `json:"inviter_root_sha256"`
	Members      int             `json:"members"`
	Words        string          `json:"words"`
	Charter      member.Charter  `json:"charter"`
	State        string          `json:"-"`       // of this joiner at the inviter
	Skew         time.Duration   `json:"skew_ns"` // of the inviter's clock against this one
}

// A JoinCheck is one thing that has to work between the two nodes.
type JoinCheck struct {
	Name    string        `json:"name"`
	OK      bool          `json:"ok"`
	Problem string        `json:"problem,omitempty"` // with how to mend it
	RTT     time.Duration `json:"rtt_ns,omitempty"`
}

// A Progress is how far a joiner is.
type Progress struct {
	State    string           `json:"state"`
	Hash     string           `json:"hash,omitempty"` // of its record
	Standing *member.Standing `json:"standing,omitempty"`
	Waiting  string           `json:"waiting,omitempty"`
}

// ErrNotInvited is returned when a site has no invitation to go on with.
var ErrNotInvited = errors.New("no invitation: pass the token that the inviter's fednode invite printed")

// Join begins, or takes up again, to join with a token; with an empty one, with that of the last time.
func (s *Site) Join(ctx context.Context, token string, dial transport.JoinDialer) (*Joiner, error) {
	if s.members != nil {
		return nil, fmt.Errorf("%s belongs to a federation already, %s", s.Dir, s.members.Current().Name())
	}
	dial.Now = s.now
	j := &Joiner{site: s, dial: dial}
	kept, err := s.joining()
	if err != nil {
		return nil, err
	}
	if kept != nil {
		j.state = *kept
	}
	if token == "" {
		if kept == nil {
			return nil, ErrNotInvited
		}
		text, err := s.keyring.Sealer().Unseal(kept.Token, joiningAAD)
		if err != nil {
			return nil, err
		}
		j.token, err = invite.Parse(string(text))
		clear(text)
		return j, err
	}
	if j.token, err = invite.Parse(token); err != nil {
		return nil, err
	}
	if j.token.Invitee != s.Org() {
		return nil, fmt.Errorf("the invitation is for %s, and %s is of %s: name another data directory with -D, or ask for an invitation of %s",
			j.token.Invitee, s.Dir, s.Org(), s.Org())
	}
	return j, j.begin(ctx, kept)
}

// begin remembers a token, and makes the record that goes with it. The record stays what it is for as long as somebody
// may have it: it is by the record that a joiner is known again.
func (j *Joiner) begin(ctx context.Context, kept *joining) (err error) {
	sealer := j.site.keyring.Sealer()
	next, same, unmoved := joining{}, false, false
	if kept != nil {
		text, err := sealer.Unseal(kept.Token, joiningAAD)
		if err != nil {
			return err
		}
		same = string(text) == j.token.Text()
		unmoved = slices.Equal(kept.Record.Record.Endpoints, j.site.endpoints())
		clear(text)
	}
	switch {
	case same && (kept.Asked || unmoved):
		return nil
	case unmoved:
		next.Record = kept.Record
	default:
		if next.Record, err = j.site.Record(); err != nil {
			return err
		}
	}
	if next.Token, err = sealer.Seal([]byte(j.token.Text()), joiningAAD); err != nil {
		return err
	}
	next.Confirmed = same && kept.Confirmed
	j.state = next
	return j.keep(ctx)
}

func (s *Site) endpoints() (out []string) {
	for _, a := range s.Config.Advertise {
		out = append(out, string(a))
	}
	return out
}

func (s *Site) joining() (*joining, error) {
	var j *joining
	err := s.db.View(func(tx *store.Tx) error {
		b := tx.Bucket(bucketJoining)
		if b == nil || b.Get(joiningKey) == nil {
			return nil
		}
		j = new(joining)
		return json.Unmarshal(b.Get(joiningKey), j)
	})
	if err != nil {
		return nil, fmt.Errorf("what is left of an earlier fednode join in %s: %w", s.Dir, err)
	}
	return j, nil
}

// Joining reports whether the site has begun to join a federation, and is no member yet.
func (s *Site) Joining() (bool, error) {
	j, err := s.joining()
	return j != nil && s.members == nil, err
}

func (j *Joiner) keep(ctx context.Context) error {
	v, err := json.Marshal(j.state)
	if err != nil {
		return err
	}
	return j.site.db.Update(ctx, func(tx *store.Tx) error { return tx.Bucket(bucketJoining).Put(joiningKey, v) })
}

// Token says who has invited whom to what.
func (j *Joiner) Token() *invite.Token { return j.token }

// Record is the organisation's own, as it asks to be admitted.
func (j *Joiner) Record() member.Record { return j.state.Record.Record }

// RootSHA256 is the hash of this organisation's root certificate, by which the members can tell it from an impostor.
func (j *Joiner) RootSHA256() string { return fingerprint(j.site.root) }

// Confirmed reports whether [Joiner.Confirm] was called for this invitation, now or in an earlier process.
func (j *Joiner) Confirmed() bool { return j.state.Confirmed }

// Asked reports whether the inviter may have been asked already: what is left is to wait.
func (j *Joiner) Asked() bool { return j.state.Asked }

// Confirm notes that the federation is the one that is meant: the words are the same, or the fingerprint is.
func (j *Joiner) Confirm(ctx context.Context) error {
	j.state.Confirmed = true
	return j.keep(ctx)
}

// connect reaches the inviter at the first of its endpoints that answers, over the lanes given or any.
func (j *Joiner) connect(ctx context.Context, lanes ...transport.Lane) (*transport.JoinConn, error) {
	d := j.dial
	d.Lanes = lanes
	var errs []error
	for _, e := range j.token.Endpoints {
		c, err := d.Dial(ctx, e, j.verify)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%s: %w", j.token.Inviter, errors.Join(errs...))
}

// verify wants the node at the other end to be the inviter's, under the root that the token names.
func (j *Joiner) verify(chain []*x509.Certificate) error {
	_, _, err := pki.VerifyPinned(chain, j.token.Root, string(j.token.Inviter), j.token.FederationID, j.site.now())
	return err
}

// ask sends one request, MACed for the session that it goes through.
func (j *Joiner) ask(ctx context.Context, q invite.Request, lanes ...transport.Lane) (*invite.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := j.connect(ctx, lanes...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	q.Invitation, q.RootSHA256, q.Time = j.token.ID(), j.RootSHA256(), transport.NewTime(j.site.now()).String()
	b, err := q.Seal(j.token.Secret(), c.Exporter())
	if err != nil {
		return nil, err
	}
	reply, err := c.Do(ctx, b)
	var refused *transport.Error
	switch {
	case errors.As(err, &refused):
		return nil, fmt.Errorf("%s: %w", j.token.Inviter, err)
	case err != nil: // the request may have arrived; asked again, it changes nothing
		return nil, fmt.Errorf("%w: %s: %w", transport.ErrUnreachable, j.token.Inviter, err)
	}
	return invite.ParseAnswer(reply)
}

// Meet fetches the federation's governance log from the inviter and verifies it: from its genesis, whose hash the token
// names, through the head that the token names, to the inviter, whose key has signed the token.
func (j *Joiner) Meet(ctx context.Context) (*Meeting, error) {
	log, a, err := j.fetch(ctx)
	if err != nil {
		return nil, err
	}
	at, err := time.Parse(time.RFC3339, a.Time)
	if err != nil {
		return nil, fmt.Errorf("%s's clock: %w", j.token.Inviter, err)
	}
	skew := at.Sub(j.site.now())
	set, err := member.ReadBundleThrough(bytes.NewReader(log), j.token.FederationID, j.token.Governance)
	if err != nil {
		return nil, fmt.Errorf("the federation that %s shows is not that of the invitation: %w", j.token.Inviter, err)
	}
	if err := j.token.Verify(set); err != nil {
		return nil, err
	}
	words, err := j.token.Words()
	if err != nil {
		return nil, err
	}
	return &Meeting{Federation: set.Name(), FederationID: set.FederationID(), Chair: set.Chair(), Inviter: j.token.Inviter, Members: len(set.All()),
		RootSHA256: hex.EncodeToString(j.token.Root[:]), Words: words, Charter: set.Charter(), State: a.State, Skew: skew}, nil
}

// fetch gets the governance log, in as many pages as it takes, and the answer to the last of them.
func (j *Joiner) fetch(ctx context.Context) (log []byte, a *invite.Answer, err error) {
	digest := ""
	for try := 0; try < 100; try++ {
		if a, err = j.ask(ctx, invite.Request{Ask: invite.AskLog, Offset: int64(len(log))}); err != nil {
			return nil, nil, err
		}
		p := a.Log
		switch {
		case p == nil || p.Size > maxLog || int64(len(log)+len(p.Data)) > p.Size || len(p.Data) == 0:
			return nil, nil, fmt.Errorf("%s: a page of the governance log that does not fit", j.token.Inviter)
		case len(log) > 0 && p.SHA256 != digest: // it has changed meanwhile
			log = nil
			continue
		}
		log, digest = append(log, p.Data...), p.SHA256
		if int64(len(log)) == p.Size {
			if sum := sha256.Sum256(log); hex.EncodeToString(sum[:]) != digest {
				return nil, nil, fmt.Errorf("%s: the pages of the governance log don't fit together", j.token.Inviter)
			}
			return log, a, nil
		}
	}
	return nil, nil, fmt.Errorf("%s: the governance log changes faster than it can be fetched; try again", j.token.Inviter)
}

// Check looks whether the two nodes will reach each other: the clock, both lanes to the inviter, and, on conn and ln,
// which it closes, both lanes back. The inviter has called back before anything of the invitation is used up.
func (j *Joiner) Check(ctx context.Context, m *Meeting, conn net.PacketConn, ln net.Listener) (out []JoinCheck, err error) {
	clock := JoinCheck{Name: "clock", OK: m.Skew.Abs() <= maxSkew}
	if !clock.OK {
		now := j.site.now()
		clock.Problem = fmt.Sprintf("%s's clock says %s, this one says %s; they may differ by %s: set the clock that is wrong",
			m.Inviter, transport.NewTime(now.Add(m.Skew)), transport.NewTime(now), maxSkew)
	}
	out = append(out, clock)
	for _, lane := range []transport.Lane{transport.LaneQUIC, transport.LaneTCP} {
		c := JoinCheck{Name: laneName(lane)}
		began := time.Now()
		if conn, err := j.connect(ctx, lane); err != nil {
			c.Problem = fmt.Sprintf("%s is not reached over it: %v", m.Inviter, err)
		} else {
			c.OK, c.RTT = true, time.Since(began)
			_ = conn.Close() // it was for the handshake
		}
		out = append(out, c)
	}
	reached, err := j.callback(ctx, conn, ln)
	return append(out, reached...), err
}

func laneName(l transport.Lane) string {
	if l == transport.LaneQUIC {
		return "udp"
	}
	return string(l)
}

// callback has the inviter call back.
func (j *Joiner) callback(ctx context.Context, conn net.PacketConn, ln net.Listener) (out []JoinCheck, err error) {
	s := j.site
	above := s.renewCertificates()
	leaf, err := pki.NewRenewer(pki.RenewerConfig{Org: string(s.Org()), Instance: string(s.Config.Instance), FederationID: j.token.FederationID,
		Identity: above.identity, Issuing: above.issuing, Key: s.identity, Now: s.now})
	if err != nil {
		return nil, errors.Join(err, conn.Close(), ln.Close())
	}
	chain := *leaf.Leaf()
	chain.Certificate = append(slices.Clone(chain.Certificate), s.root.Raw)
	cctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func(chain tls.Certificate) { served <- transport.ServeCallbacks(cctx, conn, ln, chain, s.now) }(chain)
	a, err := j.ask(ctx, invite.Request{Ask: invite.AskReach, Member: &j.state.Record})
	stop()
	err = errors.Join(err, <-served, conn.Close())
	if err != nil {
		return nil, err
	}
	for _, r := range a.Reach {
		c := JoinCheck{Name: fmt.Sprintf("%s reaches %s over %s", j.token.Inviter, r.Endpoint, laneName(transport.Lane(r.Lane))), OK: r.OK, RTT: time.Duration(r.Millis) * time.Millisecond}
		if !r.OK {
			c.Problem = fmt.Sprintf("%s: open %s port %s towards this host, and see that the name leads here", r.Problem, laneName(transport.Lane(r.Lane)), portOf(r.Endpoint))
		}
		out = append(out, c)
	}
	return out, nil
}

func portOf(endpoint string) string {
	_, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return endpoint
	}
	return port
}

// Ask asks to be a member, or, once that was asked, how far it is. When the state is [invite.StateMember], [Joiner.Enter]
// is next.
func (j *Joiner) Ask(ctx context.Context) (*Progress, error) {
	if !j.state.Confirmed {
		return nil, errors.New("the federation has not been confirmed to be the one that is meant")
	}
	if !j.state.Asked {
		j.state.Asked = true
		if err := j.keep(ctx); err != nil {
			return nil, err
		}
	}
	a, err := j.ask(ctx, invite.Request{Ask: invite.AskJoin, Member: &j.state.Record})
	if err != nil {
		return nil, err
	}
	return &Progress{State: a.State, Hash: a.Hash, Standing: a.Standing, Waiting: a.Waiting}, nil
}

// Enter makes the site a member's: it takes in the governance log, in which its own record is in force.
func (j *Joiner) Enter(ctx context.Context) error {
	log, _, err := j.fetch(ctx)
	if err != nil {
		return err
	}
	set, err := member.ReadBundleThrough(bytes.NewReader(log), j.token.FederationID, j.token.Governance)
	if err != nil {
		return err
	}
	m, ok := set.Get(j.site.Org())
	if !ok || !slices.ContainsFunc(m.Roots, func(r *x509.Certificate) bool { return r.Equal(j.site.root) }) {
		return fmt.Errorf("%s says that %s is a member, and the governance log does not", j.token.Inviter, j.site.Org())
	}
	if err := j.site.Import(ctx, bytes.NewReader(log), j.token.FederationID); err != nil {
		return err
	}
	return j.site.db.Update(ctx, func(tx *store.Tx) error { return tx.Bucket(bucketJoining).Delete(joiningKey) })
}

// Final reports whether an error of a joiner's stays what it is however often it tries again: the inviter has refused, or
// something is wrong here. Others pass: the inviter cannot be reached, or has too much to do.
func Final(err error) bool {
	var refused *transport.Error
	switch {
	case errors.As(err, &refused):
		switch refused.Code {
		case transport.CodeOverloaded, transport.CodeRateLimited, transport.CodeTimeout, transport.CodeCancelled, transport.CodeInternal:
			return false
		}
		return true
	case errors.Is(err, pki.ErrExpired), errors.Is(err, pki.ErrNotYetValid), errors.Is(err, pki.ErrAuthority), errors.Is(err, pki.ErrName):
		return true
	}
	return !errors.Is(err, transport.ErrUnreachable)
}
