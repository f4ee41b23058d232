package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
)

// Message types of the governance log; append-only.
const (
	msgGovernanceUpdate = "governance-update" // carries a member.Update; answered by a member.Ack
	msgGovernancePull   = "governance-pull"   // asks for a member.Update
)

const (
	// renewEvery is how often the chair has the governance log cosigned anew when nothing changes.
	renewEvery = time.Hour
	// renewRetry is how soon it tries again, and how soon a member asks around, when that did not come about, or came about
	// at a time that is yet to come.
	renewRetry = 5 * time.Minute
	// catchUpLimit bounds how long new work waits at a start for what the members have decided meanwhile.
	catchUpLimit  = 3 * time.Second
	governTimeout = 10 * time.Second
	// maxBackoff is how seldom a member is tried that cannot be reached or refuses. One that comes back asks by itself.
	maxBackoff = 10 * time.Minute
	// renewalPoll is how often a member asks the chair about a new record of its own, at most.
	renewalPoll = 2 * time.Second
	// maxPages bounds how many messages one pull may take.
	maxPages = 1024
)

// pullRequest says how many entries the asker has, and may carry its cosignature of them: a member that the chair cannot
// reach, because it has moved, gives it that way.
type pullRequest struct {
	Size        int64  `json:"size"`
	Cosignature string `json:"cosignature,omitempty"`
}

// A governor keeps this node's copy of the governance log in step with the members'. At the chair it tells every member
// what is new and collects their cosignatures; elsewhere it asks when it has reason to believe that it knows too little.
type governor struct {
	node  *transport.Node
	gov   *member.Governance
	clerk *clerk
	rekey func(context.Context) // looks whether another message key is in force; ends early with its context
	self  transport.OrgID
	db    *store.DB
	now   func() time.Time
	log   *slog.Logger

	wake      chan struct{}
	behind    chan transport.OrgID
	reporting chan struct{} // wakes who tells the chair
	caught    chan struct{} // closed once the start's questions are answered

	mu      sync.Mutex
	workers map[transport.OrgID]chan struct{} // at the chair: wakes who tells that member
	asked   map[transport.OrgID]ask
	work    sync.WaitGroup
}

// An ask is what a member was last asked, so that one that only claims to know more is not asked for ever.
type ask struct {
	at   time.Time
	wait time.Duration
}

func newGovernor(n *transport.Node, gov *member.Governance, site *Site, log *slog.Logger) (*governor, error) {
	g := &governor{node: n, gov: gov, self: site.Org(), db: site.db, now: site.now, log: log, wake: make(chan struct{}, 1),
		behind: make(chan transport.OrgID, 16), caught: make(chan struct{}), workers: map[transport.OrgID]chan struct{}{}, asked: map[transport.OrgID]ask{},
		reporting: make(chan struct{}, 1)}
	var err error
	if g.clerk, err = newClerk(gov, site, g.stir); err != nil {
		return nil, err
	}
	for _, t := range []string{msgProposal, msgApproval, msgCandidate} {
		n.Handle(t, g.clerk.handle)
	}
	n.Handle(msgGovernanceUpdate, g.handleUpdate)
	n.Handle(msgGovernancePull, g.handlePull)
	gov.Subscribe(func(*member.Set) { g.stir() })
	return g, nil
}

func (g *governor) stir() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// suspect notes that a member has shown that it knows more than this node.
func (g *governor) suspect(org transport.OrgID) {
	select {
	case g.behind <- org:
	default:
	}
}

// run works until ctx ends.
func (g *governor) run(ctx context.Context) error {
	g.catchUp(ctx)
	close(g.caught)
	defer g.work.Wait()
	g.work.Go(func() { g.report(ctx) })
	stopRekey := func() {}
	defer func() { stopRekey() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		g.clerk.enact(ctx)
		g.employ(ctx)
		stopRekey() // it looks at the record in force from the beginning
		rctx, cancel := context.WithCancel(ctx)
		rekeyed := make(chan struct{})
		g.work.Go(func() {
			defer close(rekeyed)
			g.rekey(rctx)
		})
		stopRekey = func() { cancel(); <-rekeyed }
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
			g.node.Recheck()
		case org := <-g.behind:
			g.follow(ctx, org)
		case <-timer.C:
			timer.Reset(g.lookAfter(ctx))
		}
	}
}

// employ sees to it that, at the chair, there is a worker for every other member, and tells all of them to look.
func (g *governor) employ(ctx context.Context) {
	if !g.gov.Chair() {
		select {
		case g.reporting <- struct{}{}:
		default:
		}
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.gov.Current().All() {
		signal, ok := g.workers[m.ID]
		if m.ID == g.self {
			continue
		}
		if !ok {
			signal = make(chan struct{}, 1)
			g.workers[m.ID] = signal
			g.work.Go(func() { g.tell(ctx, m.ID, signal) })
		}
		select {
		case signal <- struct{}{}:
		default:
		}
	}
}

// tell keeps one member informed, for as long as it is one.
func (g *governor) tell(ctx context.Context, org transport.OrgID, signal <-chan struct{}) {
	told, noticed, size, backoff := uint64(0), uint64(0), g.gov.Log().Head().Size, time.Second
	for {
		wait := time.Duration(0)
		if version, candidates := g.gov.Version(), g.clerk.Version(); told != version || noticed != candidates {
			var err error
			if told != version {
				told, size, err = g.update(ctx, org, size)
			}
			if err == nil && noticed != candidates {
				noticed, err = g.notify(ctx, org)
			}
			if err != nil && ctx.Err() == nil {
				g.log.Debug("member was not told of the governance log", "peer", org, "err", err)
				wait, backoff = backoff, min(2*backoff, maxBackoff)
			} else {
				backoff = time.Second
			}
		}
		if m, ok := g.gov.Current().Get(org); ctx.Err() != nil || !ok {
			g.mu.Lock()
			delete(g.workers, org)
			g.mu.Unlock()
			return
		} else if m.Suspended {
			wait = 0
		}
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-signal:
		case <-again:
		}
	}
}

// notify tells a member what awaits approval.
func (g *governor) notify(ctx context.Context, org transport.OrgID) (version uint64, err error) {
	notices, version := g.clerk.notices()
	for _, n := range notices {
		var answer notice
		err := g.call(ctx, org, msgCandidate, n, &answer)
		var refused *transport.Error
		if errors.As(err, &refused) && refused.Code == transport.CodeDenied { // it may know more, or less, than this node
			g.log.Info("member does not take a candidate", "peer", org, "err", err)
			continue
		}
		if err != nil {
			return 0, err
		}
	}
	return version, nil
}

// report keeps the chair informed of what this member proposes and approves.
func (g *governor) report(ctx context.Context) {
	backoff, asked := time.Second, time.Time{}
	for {
		var again <-chan time.Time
		if err := g.clerk.report(ctx, g.call); err != nil && ctx.Err() == nil {
			g.log.Info("the chair was not told of a candidate", "err", err)
			limit := maxBackoff
			if errors.Is(err, transport.ErrUnreachable) {
				limit = time.Minute
			}
			again, backoff = time.After(backoff), min(2*backoff, limit)
		} else if backoff = time.Second; g.clerk.moving() { // where the chair looks for this member, it may not be any more
			if time.Since(asked) >= renewalPoll {
				asked = time.Now()
				g.suspect(g.gov.Current().Chair())
			}
			again = time.After(renewalPoll)
		}
		select {
		case <-ctx.Done():
			return
		case <-g.reporting:
		case <-again:
		}
	}
}

// update tells a member that is believed to have size entries what this node knows, and collects its cosignature. It
// returns the version that the member knows now.
func (g *governor) update(ctx context.Context, org transport.OrgID, size int64) (version uint64, has int64, err error) {
	for range maxPages {
		u, version, err := g.gov.UpdateFrom(size)
		if err != nil {
			return 0, size, err
		}
		var ack member.Ack
		if err := g.call(ctx, org, msgGovernanceUpdate, u, &ack); err != nil {
			return 0, size, err
		}
		if ack.Cosignature != "" {
			if err := g.gov.Collect(ctx, ack.Cosignature); err != nil && version == g.gov.Version() {
				return 0, ack.Size, fmt.Errorf("cosignature: %w", err)
			}
			return version, ack.Size, nil
		}
		if ack.Size > g.gov.Log().Head().Size {
			g.suspect(org)
			return version, ack.Size, nil
		}
		if ack.Size == size { // it takes more than a message; the member fetches it
			return version, size, nil
		}
		size = ack.Size
	}
	return 0, size, errors.New("the member's answers lead nowhere")
}

// call asks a member and puts the answer on record.
func (g *governor) call(ctx context.Context, to transport.OrgID, messageType string, payload, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, governTimeout)
	defer cancel()
	m := transport.Message{To: to, Type: messageType, Payload: payload, Audit: transport.AuditInfo{Category: ledger.FederationManagement, Action: messageType}}
	if err := g.node.Connect(ctx, to); err != nil { // a try that does not get that far is none for the log
		return err
	}
	reply, err := g.node.Call(ctx, m, nil)
	if err != nil {
		return err
	}
	if err := g.db.Update(ctx, reply.Record); err != nil {
		return err
	}
	if reply.Refusal != nil {
		return reply.Refusal
	}
	return jcs.Unmarshal(reply.Payload, answer)
}

// handleUpdate takes in what a member tells, and answers with a cosignature.
func (g *governor) handleUpdate(ctx context.Context, r *transport.Request) error {
	var u member.Update
	if err := jcs.Unmarshal(r.Payload, &u); err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: msgGovernanceUpdate + ": " + err.Error()}
	}
	ack, err := g.gov.Take(ctx, u)
	switch {
	case errors.Is(err, ledger.ErrFork), errors.Is(err, member.ErrFrozen):
		g.suspect(r.From.ID)
		return &transport.Error{Code: transport.CodeGovernanceFork, Text: err.Error()}
	case err != nil:
		g.log.Error("update of the governance log refused", "peer", r.From.ID, "err", err)
		return &transport.Error{Code: transport.CodeMalformed, Text: err.Error()}
	case ack.Cosignature == "":
		g.suspect(r.From.ID)
	}
	if r.From.ID == g.gov.Current().Chair() { // it is there, for what it has not been told
		defer g.stir()
	}
	return r.Reply(ctx, ack, transport.ReplyOptions{}, nil)
}

// handlePull answers with what the asker lacks.
func (g *governor) handlePull(ctx context.Context, r *transport.Request) error {
	var q pullRequest
	if err := jcs.Unmarshal(r.Payload, &q); err != nil {
		return &transport.Error{Code: transport.CodeMalformed, Text: msgGovernancePull + ": " + err.Error()}
	}
	if q.Cosignature != "" {
		if err := g.gov.Collect(ctx, q.Cosignature); err != nil { // of a head that is the newest no more, as a rule
			g.log.Debug("cosignature not taken", "peer", r.From.ID, "err", err)
		}
	}
	u, _, err := g.gov.UpdateFrom(q.Size)
	if err != nil {
		return err
	}
	defer g.nudge(r.From.ID)
	return r.Reply(ctx, u, transport.ReplyOptions{}, nil)
}

// nudge has a member told at once, because it was just heard of.
func (g *governor) nudge(org transport.OrgID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case g.workers[org] <- struct{}{}:
	default:
	}
}

// pull asks a member for what it knows beyond the first size entries, of which it may hand over this node's cosignature.
func (g *governor) pull(ctx context.Context, org transport.OrgID, size int64, cosignature string) (member.Update, []byte, error) {
	var all member.Update
	var entries []json.RawMessage
	for range maxPages {
		var u member.Update
		if err := g.call(ctx, org, msgGovernancePull, pullRequest{Size: size + int64(len(entries)), Cosignature: cosignature}, &u); err != nil {
			return all, nil, err
		}
		old, _, checkpoint, err := ledger.ParseAddCheckpoint(u.AddCheckpoint)
		if err != nil {
			return all, nil, err
		}
		head, err := ledger.ParseCheckpoint(checkpoint, g.gov.Log().Verifier())
		if err != nil {
			return all, nil, err
		}
		if old != size+int64(len(entries)) { // it has less than this node
			return u, checkpoint, nil
		}
		entries = append(entries, u.Entries...)
		if len(u.Entries) == 0 || size+int64(len(entries)) >= head.Size {
			u.Entries, u.AddCheckpoint = entries, ledger.FormatAddCheckpoint(size, nil, checkpoint)
			return u, checkpoint, nil
		}
	}
	return all, nil, errors.New("the answers do not come to an end")
}

// learn takes in what a member knows. A history that contradicts this node's is fetched whole, and kept as evidence.
func (g *governor) learn(ctx context.Context, org transport.OrgID) error {
	var err error
	for cosignature, version := "", g.gov.Version(); ; version = g.gov.Version() {
		u, _, perr := g.pull(ctx, org, g.gov.Log().Head().Size, cosignature)
		if perr != nil {
			return perr
		}
		var ack member.Ack
		if ack, err = g.gov.TakeAll(ctx, u); err != nil {
			break
		}
		handedOver := cosignature != ""
		if cosignature = ack.Cosignature; cosignature == "" || org != g.gov.Current().Chair() || g.gov.Flight() == "" || handedOver && g.gov.Version() == version {
			return nil
		}
	}
	if !errors.Is(err, ledger.ErrFork) || g.gov.Frozen() != "" {
		return err
	}
	whole, checkpoint, ferr := g.pull(ctx, org, 0, "")
	if ferr != nil {
		return errors.Join(err, ferr)
	}
	entries := make([][]byte, len(whole.Entries))
	for i, e := range whole.Entries {
		entries[i] = e
	}
	return errors.Join(err, g.gov.Examine(ctx, entries, checkpoint))
}

// follow learns from a member that seems to know more, less and less often if that is not so.
func (g *governor) follow(ctx context.Context, org transport.OrgID) {
	last, before := g.asked[org], g.gov.Version()
	if time.Since(last.at) < last.wait || g.gov.Frozen() != "" {
		return
	}
	err := g.learn(ctx, org)
	switch {
	case errors.Is(err, ledger.ErrFork), errors.Is(err, member.ErrFrozen):
		g.log.Error("governance log", "peer", org, "err", err)
	case err != nil && ctx.Err() == nil:
		g.log.Info("governance log not learnt", "peer", org, "err", err)
	}
	next := ask{time.Now(), 0}
	if g.gov.Version() == before {
		next.wait = min(max(2*last.wait, time.Second), 10*time.Minute)
	}
	g.asked[org] = next
}

// catchUp asks all members at once what was decided while this node was away. It waits until the chair has answered,
// or, at the chair, any member, and not for ever.
func (g *governor) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	set := g.gov.Current()
	var asked sync.WaitGroup
	for _, m := range set.All() {
		if m.ID == g.self || m.Suspended {
			continue
		}
		asked.Go(func() {
			err := g.learn(ctx, m.ID)
			if err == nil && (m.ID == set.Chair() || g.gov.Chair()) {
				cancel()
			}
		})
	}
	asked.Wait()
}

// lookAfter renews, at the chair, the cosignatures, and elsewhere asks for newer ones if none came. It returns when to
// look again.
func (g *governor) lookAfter(ctx context.Context) time.Duration {
	at, certified := g.gov.Seen()
	age := g.now().Sub(at)
	if alarm := time.Duration(g.gov.Current().Charter().Freshness.Alarm); certified && age > alarm {
		g.log.Error("no quorum of the members has confirmed the governance log for long", "last", at, "age", age.Round(time.Second), "err", g.gov.Frozen())
	}
	if certified && g.gov.Ahead(at) {
		g.log.Error("the governance log was confirmed at a time that is yet to come: this node's clock is wrong, or those of a quorum were", "last", at)
	}
	switch {
	case !certified:
		return renewEvery
	case g.gov.Chair() && (age >= renewEvery || g.gov.Ahead(at)):
		if err := g.gov.Renew(ctx); err != nil && ctx.Err() == nil {
			g.log.Error("governance log not renewed", "err", err)
		}
		return renewRetry
	case g.gov.Chair():
		return min(renewEvery-age, renewEvery)
	case age >= renewEvery+renewRetry || g.gov.Ahead(at):
		for _, m := range g.gov.Current().All() {
			if m.ID != g.self && !m.Suspended {
				g.follow(ctx, m.ID)
			}
		}
	}
	return renewRetry
}

// upToDate waits until this node has caught up, and fails if it does not know for too long who the members are.
func (g *governor) upToDate(ctx context.Context) error {
	select {
	case <-g.caught:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	at, certified := g.gov.Seen()
	limit := time.Duration(g.gov.Current().Charter().Freshness.Limit)
	if age := g.now().Sub(at); certified && age > limit {
		return &transport.Error{Code: transport.CodeStaleGovernance, Text: fmt.Sprintf(
			"%s last heard a quorum of the members confirm the governance log at %s; the charter's limit is %s: see fednode status for who cannot be reached",
			g.self, transport.NewTime(at), limit)}
	}
	return nil
}
