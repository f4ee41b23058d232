package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// msgDoctor asks a member's node to look back at the asker's; it answers with a lookback. It is for members, like every
// message, and tells them nothing about the node that its work with them does not show: of its own disk, only whether it
// is well.
const msgDoctor = "doctor"

const (
	// Looking back costs a few handshakes to the asker's own endpoints. One member may have it done lookbackBurst times at
	// once, and then every lookbackEvery.
	lookbackEvery = 2 * time.Second
	lookbackBurst = 5
	// maxFindings, maxFindingText and maxVersionText bound what is taken from a lookback.
	maxFindings    = 32
	maxFindingText = 600
	maxVersionText = 40

	// clockWarning is how far apart two clocks may be without a word. Beyond clockProblem, messages that are long under
	// way are refused, and beyond a minute all.
	clockWarning = 5 * time.Second
	clockProblem = 30 * time.Second
)

// A lookback is what a member's node finds of the asker's, and tells of itself.
type lookback struct {
	Version    string         `json:"version"`
	Wire       []int          `json:"wire"`       // versions of envelopes that it speaks
	Log        int64          `json:"log"`        // entries of its own log
	Seen       int64          `json:"seen"`       // entries of the asker's log that it had seen before it was asked
	Governance int64          `json:"governance"` // entries of the governance log that it has
	Confirmed  transport.Time `json:"confirmed,omitzero"`
	Findings   []Finding      `json:"findings"`
}

// looker answers the members that ask this node to look back.
type looker struct {
	node  *Node
	mu    sync.Mutex
	asked map[transport.OrgID]*rate.Limiter
}

// admit counts a question against its asker.
func (l *looker) admit(org transport.OrgID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	set := l.node.site.members.Current()
	for id := range l.asked {
		if _, ok := set.Get(id); !ok {
			delete(l.asked, id)
		}
	}
	limit := l.asked[org]
	if limit == nil {
		limit = rate.NewLimiter(rate.Every(lookbackEvery), lookbackBurst)
		l.asked[org] = limit
	}
	return limit.Allow()
}

func (l *looker) handle(ctx context.Context, r *transport.Request) error {
	if string(r.Payload) != "{}" {
		return &transport.Error{Code: transport.CodeMalformed, Text: msgDoctor + " carries {}"}
	}
	if !l.admit(r.From.ID) {
		return &transport.Error{Code: transport.CodeRateLimited, Text: fmt.Sprintf("%s looks back every %s; ask again in a moment", l.node.site.Org(), lookbackEvery)}
	}
	n := l.node
	known, err := n.transport.KnownHead(r.From.ID)
	if err != nil {
		return err
	}
	g := n.governance()
	b := lookback{Version: Version(), Wire: []int{transport.Version}, Log: n.Log.Head().Size, Seen: known.Size, Governance: g.Size, Confirmed: transport.NewTime(g.Confirmed)}
	b.Findings = append(n.tellOfWay(ctx, r.From.ID, r.Remote()), n.health()...)
	return r.Reply(ctx, b, transport.ReplyOptions{}, nil)
}

// tellOfWay is what the asker may know of the way to it: for each lane, whether its node answers. The asker's record says
// where that is tried, and might name anything in this node's network. So there is one word for whatever else is there, it
// takes the same time, and no address is told; and what is nearer to this node than to the asker is not called at all.
func (n *Node) tellOfWay(ctx context.Context, org transport.OrgID, asker net.Addr) []Finding {
	c := &chart{by: n.site.Org(), about: org}
	enough := time.After(probeLimit)
	var probes [2]probe
	var work sync.WaitGroup
	for i, lane := range []transport.Lane{transport.LaneQUIC, transport.LaneTCP} {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, probeLimit)
			defer cancel()
			probes[i].rtt, _, probes[i].err = n.transport.Probe(ctx, org, lane, asker)
		})
	}
	work.Wait()
	if probes[0].err != nil || probes[1].err != nil {
		select {
		case <-enough:
		case <-ctx.Done():
		}
	}
	for i, lane := range []struct{ check, name string }{{CheckUDP, "UDP"}, {CheckTCP, "TCP"}} {
		if p := probes[i]; p.err == nil {
			c.ok(lane.check, "in "+p.rtt.Round(100*time.Microsecond).String())
			continue
		}
		c.problem(lane.check, fmt.Sprintf("%s's node does not answer at what its record names", org),
			fmt.Sprintf("see whether that is where it is (advertise in node.yaml, DNS), then let %s through to the port, out at %s and in at %s", lane.name, c.by, org))
	}
	n.lookAtSession(c)
	return c.findings
}

// lookAtSession judges the certificate that a member shows.
func (n *Node) lookAtSession(c *chart) {
	if slices.ContainsFunc(c.findings, func(f Finding) bool { return f.Check == CheckCertificate }) {
		return
	}
	var until time.Time
	for _, s := range n.transport.Sessions() {
		if s.Org == c.about && s.Expires.After(until) {
			until = s.Expires
		}
	}
	switch left := until.Sub(n.site.now()); {
	case until.IsZero():
		c.skip("there is no session", CheckCertificate)
	case left < leafAlarm:
		c.warning(CheckCertificate, fmt.Sprintf("%s's certificate expires at %s and is not renewed", c.about, stamp(until)), "the log of its node says why")
	default:
		c.ok(CheckCertificate, "valid until "+stamp(until))
	}
}

// health is what a member may know of this node's own state: whether it is well.
func (n *Node) health() []Finding {
	var full, told chart
	v, err := measure(n.site.Dir)
	full.vitals(v, err)
	n.lookAtGovernance(&full)
	told.by, told.about = n.site.Org(), n.site.Org()
	for _, f := range full.findings {
		switch {
		case f.State == FindingSkipped:
		case f.State == FindingOK:
			told.ok(f.Check, "well")
		default:
			told.add(f.Check, f.State, "not well", fmt.Sprintf("ask the operator of %s for fednode doctor", n.site.Org()))
		}
	}
	return told.findings
}

// diagnose looks at the way to a member, and has it look back.
func (n *Node) diagnose(ctx context.Context, org transport.OrgID) []Finding {
	self := n.site.Org()
	c := &chart{by: self, about: org}
	m, ok := n.site.members.Current().Get(org)
	if !ok {
		c.problem(CheckMembership, "not a member any more", "")
		return c.findings
	}
	rest := []string{CheckClock, CheckVersion, CheckGovernance, CheckLog}
	if m.Suspended {
		c.warning(CheckMembership, strings.TrimSpace("suspended by this node since "+m.Suspension.Since+" "+m.Suspension.Reason), "fednode members resume "+string(org)+" takes it back")
		c.skip("it is suspended here", append([]string{CheckDNS, CheckUDP, CheckTCP, CheckCertificate}, rest...)...)
		return c.findings
	}
	if !n.lookAt(ctx, c) {
		if slices.ContainsFunc(c.findings, func(f Finding) bool { return f.Check == CheckClock }) {
			rest = rest[1:]
		}
		c.skip(fmt.Sprintf("%s could not be asked; its operator can: fednode doctor %s", org, self), rest...)
		return c.findings
	}
	before, err := n.transport.KnownHead(org)
	if err != nil {
		c.problem(CheckLog, err.Error(), "")
	}
	sent := n.site.now()
	reply, err := n.transport.Call(ctx, transport.Message{To: org, Type: msgDoctor, Payload: struct{}{},
		Audit: transport.AuditInfo{Category: ledger.FederationManagement, Action: msgDoctor, Resource: "member:" + string(org)}}, nil)
	arrived := n.site.now()
	if err == nil {
		err = n.site.db.Update(ctx, func(tx *store.Tx) error { return reply.Record(tx) })
	}
	n.lookAtSession(c)
	if err != nil {
		c.unanswered(err, rest...)
		return c.findings
	}
	c.clock(reply.Envelope.Timestamp.Time.Sub(sent.Add(arrived.Sub(sent) / 2)))
	if reply.Refusal != nil {
		c.refused(reply.Refusal)
		return c.findings
	}
	b, err := parseLookback(reply.Payload, org, self)
	if err != nil {
		c.problem(CheckVersion, "what "+string(org)+" answers is not understood: "+cause(err), "bring both nodes to one version")
		c.skip("the answer is not understood", CheckGovernance, CheckLog)
		return c.findings
	}
	c.compare(b, comparison{seen: before.Size, log: n.Log.Head().Size, governance: n.site.members.Log().Head().Size, now: n.site.now(),
		alarm: time.Duration(n.site.members.Current().Charter().Freshness.Alarm)})
	return append(c.findings, b.Findings...)
}

// clock judges how far ahead the other clock is, as measured over a question and its answer.
func (c *chart) clock(ahead time.Duration) {
	text := fmt.Sprintf("%s apart", ahead.Abs().Round(time.Millisecond))
	if ahead.Abs() < clockWarning {
		c.ok(CheckClock, text)
		return
	}
	state, word := FindingWarning, "ahead"
	if ahead.Abs() >= clockProblem {
		state = FindingProblem
	}
	if ahead < 0 {
		word = "behind"
	}
	c.add(CheckClock, state, fmt.Sprintf("the clock of %s is %s %s of this node's; beyond a minute everything is refused", c.about, ahead.Abs().Round(time.Second), word),
		"see which of the two is wrong (date -u on both) and have it set by NTP (timedatectl set-ntp true)")
}

// unanswered judges why a question that was sent had no acceptable answer.
func (c *chart) unanswered(err error, rest ...string) {
	var e *transport.Error
	if errors.As(err, &e) {
		c.refused(e)
		return
	}
	if !errors.Is(err, transport.ErrUnreachable) && !errors.Is(err, transport.ErrUnknownOutcome) {
		c.skip("this node could not put its question on record: "+cause(err), rest...)
		return
	}
	c.problem(CheckUDP, "connections come about, and the question was not answered: "+cause(err), "see the log of "+string(c.about)+"'s node; large packets may be dropped on the way (MTU)")
	c.skip("it did not answer", rest...)
}

// refused judges why a member refuses to look back.
func (c *chart) refused(e *transport.Error) {
	text := fmt.Sprintf("%s refuses: %s", c.about, e)
	skip := []string{CheckVersion, CheckGovernance, CheckLog}
	done := ""
	switch e.Code {
	case transport.CodeClockSkew, transport.CodeExpired:
		done = CheckClock // judged by the answer's own time
		if !slices.ContainsFunc(c.findings, func(f Finding) bool { return f.Check == CheckClock && f.State != FindingOK }) {
			c.problem(CheckClock, text, "compare the clocks of both (date -u)")
		}
	case transport.CodeUnknownType, transport.CodeUnsupportedVersion, transport.CodeMalformed:
		done = CheckVersion
		c.problem(CheckVersion, text+": its fednode is of a version that does not understand this one, "+Version(), "bring both nodes to one version")
	case transport.CodeLogFork, transport.CodeLogRollback, transport.CodeBadProof:
		done = CheckLog
		c.problem(CheckLog, text, "if this node was restored from a backup, tell "+string(c.about)+"'s operator; its log must not be continued")
	case transport.CodeGovernanceFork, transport.CodeStaleGovernance:
		done = CheckGovernance
		c.problem(CheckGovernance, text, "have both operators compare fednode members list and the governance root in fednode status")
	case transport.CodeNotMember, transport.CodeUnknownKey, transport.CodeBadSignature:
		done = CheckMembership
		c.problem(CheckMembership, text, "its node does not take this one for a member in good standing, or does not know its newest record: ask its operator")
	case transport.CodeRateLimited, transport.CodeOverloaded:
		c.skip(text, skip...)
		return
	case transport.CodeInternal:
		c.problem(CheckRunning, fmt.Sprintf("%s's node cannot answer (%s)", c.about, e), "ask its operator for fednode doctor: its disk may be full")
	default:
		done = CheckMembership
		c.problem(CheckMembership, text, "ask the operator of "+string(c.about))
	}
	for _, check := range skip {
		if check != done {
			c.skip("it refused the question", check)
		}
	}
}

// A comparison is what this node knows of what a member tells.
type comparison struct {
	seen       int64 // entries of the member's log that this node had seen
	log        int64 // entries of the own log
	governance int64
	now        time.Time
	alarm      time.Duration // age of the governance log's confirmation
}

// compare judges what a member tells against what this node knows.
func (c *chart) compare(b *lookback, own comparison) {
	switch {
	case !slices.Contains(b.Wire, transport.Version):
		c.problem(CheckVersion, fmt.Sprintf("fednode %s, whose envelopes are of versions %v; this node speaks %d", b.Version, b.Wire, transport.Version), "bring both nodes to one version")
	case b.Version != Version():
		c.ok(CheckVersion, fmt.Sprintf("fednode %s, this node %s; they understand each other", b.Version, Version()))
	default:
		c.ok(CheckVersion, "fednode "+b.Version)
	}
	switch since := own.now.Sub(b.Confirmed.Time); {
	case !b.Confirmed.IsZero() && since > own.alarm:
		c.problem(CheckGovernance, fmt.Sprintf("no quorum has confirmed %s's governance log for %s", c.about, age(since)), "its node must reach a quorum of the members: ask its operator for fednode doctor")
	case b.Governance < own.governance:
		c.warning(CheckGovernance, fmt.Sprintf("%s lacks %s of the governance log", c.about, entries(own.governance-b.Governance)), "the chair brings it up to date within moments; if not, ask its operator for fednode doctor")
	case b.Governance > own.governance:
		c.warning(CheckGovernance, fmt.Sprintf("this node lacks %s of the governance log that %s has", entries(b.Governance-own.governance), c.about), "it is fetched within moments; if not, see this node's log")
	default:
		c.ok(CheckGovernance, fmt.Sprintf("both have %s", entries(own.governance)))
	}
	c.ok(CheckLog, fmt.Sprintf("it had seen %d of this node's %s, this node %d of its %s", min(b.Seen, own.log), entries(own.log), min(own.seen, b.Log), entries(b.Log)))
}

// parseLookback reads a lookback of a member's. Its findings are its own word, about itself or the asker.
func parseLookback(payload []byte, from, asker transport.OrgID) (*lookback, error) {
	var b lookback
	if err := jcs.Unmarshal(payload, &b); err != nil {
		return nil, err
	}
	if len(b.Findings) > maxFindings || len(b.Wire) > maxFindings || b.Log < 0 || b.Seen < 0 || b.Governance < 0 || len(b.Version) > maxVersionText {
		return nil, errors.New("a number or a length is out of bounds")
	}
	for i := range b.Findings {
		f := &b.Findings[i]
		f.By = from
		if f.About != from && f.About != asker {
			return nil, fmt.Errorf("finding %d is about a third party", i)
		}
		if !slices.Contains([]string{FindingOK, FindingWarning, FindingProblem, FindingSkipped}, f.State) {
			return nil, fmt.Errorf("finding %d has no known state", i)
		}
		f.Check, f.Text, f.Mend = clip(f.Check, maxVersionText), clip(f.Text, maxFindingText), clip(f.Mend, maxFindingText)
	}
	return &b, nil
}

// clip shortens foreign text to at most size bytes of valid UTF-8.
func clip(s string, size int) string {
	s = strings.ToValidUTF8(s, "�")
	for len(s) > size {
		_, last := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-last]
	}
	return s
}
