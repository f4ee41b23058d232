package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"fednode/flow"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/pki"
)

// What a doctor looks at; append-only, partners of other versions read them.
const (
	CheckMembership  = "membership"
	CheckDNS         = "dns"
	CheckUDP         = "udp"
	CheckTCP         = "tcp"
	CheckCertificate = "certificate"
	CheckClock       = "clock"
	CheckVersion     = "version"
	CheckGovernance  = "governance"
	CheckLog         = "log"
	CheckEndpoints   = "endpoints"
	CheckDisk        = "disk"
	CheckFsync       = "fsync"
	CheckRunning     = "running"
)

// States of a finding.
const (
	FindingOK      = "ok"
	FindingWarning = "warning"
	FindingProblem = "problem"
	FindingSkipped = "skipped" // could not be looked at, because of another finding
)

// A Finding is one thing that was looked at.
type Finding struct {
	Check string          `json:"check"`
	State string          `json:"state"`
	By    transport.OrgID `json:"by"`    // whose node looked
	About transport.OrgID `json:"about"` // whose node it is about, or the way to which
	Text  string          `json:"text"`
	Mend  string          `json:"mend,omitempty"`
}

// A Diagnosis is what a doctor found, by this node and by the members that were asked to look back.
type Diagnosis struct {
	Organization transport.OrgID `json:"organization_id"`
	Version      string          `json:"version"`
	Running      bool            `json:"running"` // whether the node that looked runs; if not, only its directory was looked at
	Findings     []Finding       `json:"findings"`
}

// Problems returns the findings that want mending.
func (d Diagnosis) Problems() (out []Finding) {
	for _, f := range d.Findings {
		if f.State == FindingProblem {
			out = append(out, f)
		}
	}
	return out
}

// A chart collects the findings of one node about another, or itself.
type chart struct {
	by, about transport.OrgID
	findings  []Finding
}

func (c *chart) add(check, state, text, mend string) {
	c.findings = append(c.findings, Finding{Check: check, State: state, By: c.by, About: c.about, Text: text, Mend: mend})
}
func (c *chart) ok(check, text string)            { c.add(check, FindingOK, text, "") }
func (c *chart) problem(check, text, mend string) { c.add(check, FindingProblem, text, mend) }
func (c *chart) warning(check, text, mend string) { c.add(check, FindingWarning, text, mend) }
func (c *chart) skip(text string, checks ...string) {
	for _, check := range checks {
		c.add(check, FindingSkipped, text, "")
	}
}

const (
	// resolveLimit bounds the resolution of a member's endpoints, probeLimit the try of one lane, and diagnoseLimit all that
	// is found out about one member.
	resolveLimit  = 4 * time.Second
	probeLimit    = 3 * time.Second
	diagnoseLimit = 20 * time.Second
	// leafAlarm is before its end that a leaf should long have been renewed, which happens at half its life.
	leafAlarm = time.Hour
	// authorityAlarm is before the end of a certificate whose key has to be fetched, and authorityUrgent when that presses.
	authorityAlarm  = 60 * 24 * time.Hour
	authorityUrgent = 14 * 24 * time.Hour
	// rootAlarm is before a root's end, with which everything under it ends.
	rootAlarm   = 365 * 24 * time.Hour
	anotherRoot = "plan for another root, which the members have to approve: this version of fednode makes none"
	// unseenAlarm is how long entries of the own log may be unseen by every other member. The chair and each member
	// exchange messages every hour.
	unseenAlarm = 2 * time.Hour
)

// Doctor looks at this node, and at the way to and from the given members, or all of them, each of which is asked to look
// back.
func (n *Node) Doctor(ctx context.Context, orgs ...transport.OrgID) (Diagnosis, error) {
	d := Diagnosis{Organization: n.site.Org(), Version: Version(), Running: true}
	var names []string
	for _, m := range n.site.members.Current().All() {
		if m.ID != n.site.Org() {
			names = append(names, string(m.ID))
		}
	}
	for _, org := range orgs {
		if org == n.site.Org() {
			return d, fmt.Errorf("%w: %s is this node itself, which is looked at in any case; name another member, or none for all", flow.ErrMisuse, org)
		}
		if len(names) == 0 {
			return d, fmt.Errorf("%w: %.63q is not a member; there is no other than %s", flow.ErrMisuse, org, n.site.Org())
		}
		if !slices.Contains(names, string(org)) {
			return d, fmt.Errorf("%w: %.63q is not a member; the others are %s", flow.ErrMisuse, org, strings.Join(names, ", "))
		}
	}
	if len(orgs) == 0 {
		for _, name := range names {
			orgs = append(orgs, transport.OrgID(name))
		}
	}
	d.Findings = n.lookAtSelf(ctx)
	found := make([][]Finding, len(orgs))
	var work sync.WaitGroup
	for i, org := range orgs {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, diagnoseLimit)
			defer cancel()
			found[i] = n.diagnose(ctx, org)
		})
	}
	work.Wait()
	for _, f := range found {
		d.Findings = append(d.Findings, f...)
	}
	return d, ctx.Err()
}

// lookAtSelf is what a node finds about itself.
func (n *Node) lookAtSelf(ctx context.Context) []Finding {
	c := &chart{by: n.site.Org(), about: n.site.Org()}
	c.ok(CheckVersion, fmt.Sprintf("fednode %s, envelopes of version %d", Version(), transport.Version))
	if n.lookAtAuthorities(c) {
		c.leaf(n.site.now(), n.leaf.Leaf().Leaf.NotAfter)
	}
	n.lookAtGovernance(c)
	n.lookAtLog(c)
	n.lookAtEndpoints(ctx, c)
	v, err := measure(n.site.Dir)
	c.vitals(v, err)
	return c.findings
}

// authorities judges the certificates above a node's leaf, and reports whether there is nothing to say. What then happens
// follows what to do.
func (c *chart) authorities(now time.Time, root *x509.Certificate, in issuers, then string) bool {
	here, rootUntil, rootLeft := stamp(now), stamp(root.NotAfter), root.NotAfter.Sub(now)
	if now.Before(root.NotBefore) {
		c.problem(CheckCertificate, fmt.Sprintf("the root is valid from %s only, it is %s here: the clock is wrong, or was when the organisation was made", stamp(root.NotBefore), here),
			"see whether the clock is right (date -u); if so, make the organisation anew with fednode init in another data directory")
		return false
	}
	if rootLeft <= 0 {
		c.problem(CheckCertificate, fmt.Sprintf("the root expired at %s; it is %s here", rootUntil, here), "see whether the clock is right; if so, "+anotherRoot)
		return false
	}
	of, reason, mend := in.identity, "it is being renewed", "see whether the clock is right; if so, wait a minute"
	what, offline := "the node identity", false
	if in.issuing.NotAfter.Before(of.NotAfter) {
		what, of = "the issuing CA", in.issuing
	}
	if l := in.lapse; l != nil {
		what, of, reason, mend, offline = l.what, l.cert, l.reason, l.mend+then, l.offline
	}
	until := stamp(of.NotAfter)
	switch left := of.NotAfter.Sub(now); {
	case left <= 0:
		c.problem(CheckCertificate, fmt.Sprintf("%s expired at %s, it is %s here; %s", what, until, here, reason), mend)
	case now.Before(of.NotBefore):
		c.problem(CheckCertificate, fmt.Sprintf("%s is valid from %s only, it is %s here: the clock is wrong, or was; %s", what, stamp(of.NotBefore), here, reason), mend)
	case in.lapse != nil && left < authorityUrgent:
		c.problem(CheckCertificate, fmt.Sprintf("%s expires at %s; %s", what, until, reason), mend)
	case in.lapse != nil && (left < authorityAlarm || !offline):
		c.warning(CheckCertificate, fmt.Sprintf("%s expires at %s; %s", what, until, reason), mend)
	case rootLeft < rootAlarm:
		c.warning(CheckCertificate, "the root expires at "+rootUntil+", and with it all under it", anotherRoot)
	default:
		return true
	}
	return false
}

// leaf judges the certificate that a node shows.
func (c *chart) leaf(now, until time.Time) {
	switch left := until.Sub(now); {
	case left <= 0:
		c.problem(CheckCertificate, fmt.Sprintf("the leaf expired at %s; it is %s here", stamp(until), stamp(now)), "check the clock; the node's log says why it was not renewed")
	case left < leafAlarm:
		c.warning(CheckCertificate, "the leaf expires at "+stamp(until)+" and is not renewed", "the node's log says why")
	default:
		c.ok(CheckCertificate, "valid until "+stamp(until)+", renewed by itself")
	}
}

func (n *Node) lookAtGovernance(c *chart) {
	g := n.governance()
	switch {
	case n.site.members.Ahead(g.Confirmed):
		c.problem(CheckGovernance, g.Alarm, "compare the clocks of the members (date -u) and have them set by NTP (timedatectl set-ntp true)")
	case g.Alarm != "":
		c.problem(CheckGovernance, g.Alarm, "reach a quorum of the members: fednode status shows who is not reached, fednode doctor why")
	case g.Confirmed.IsZero():
		c.ok(CheckGovernance, fmt.Sprintf("%s, not yet confirmed by a quorum", entries(g.Size)))
	default:
		c.ok(CheckGovernance, fmt.Sprintf("%s, confirmed by a quorum %s ago", entries(g.Size), age(n.site.now().Sub(g.Confirmed))))
	}
	if g.InFlight != "" {
		c.warning(CheckGovernance, "a change is "+g.InFlight, "it takes effect when the nodes of a quorum have confirmed it: fednode status shows who is not reached, fednode doctor why")
	}
}

// lookAtLog says how far the other members have seen this organisation's own log.
func (n *Node) lookAtLog(c *chart) {
	size, shown, to, others := n.Log.Head().Size, int64(0), transport.OrgID(""), 0
	for _, m := range n.site.members.Current().All() {
		if m.ID == n.site.Org() {
			continue
		}
		others++
		if r := n.transport.Reach(m.ID); r.Shown > shown {
			shown, to = r.Shown, m.ID
		}
	}
	now, since := n.site.now(), n.started
	if to != "" && shown < size {
		if b, err := n.Log.Entry(shown); err == nil {
			if e, err := ledger.ParseEntry(b); err == nil {
				if at, err := time.Parse(time.RFC3339, e.Timestamp); err == nil && !at.After(now) {
					since = at
				} else { // the clock was ahead
					since = now
				}
			}
		}
	}
	switch {
	case others == 0:
		c.ok(CheckLog, entries(size)+"; there is no other member to see them")
	case shown < size && now.Sub(since) > unseenAlarm:
		c.problem(CheckLog, fmt.Sprintf("%s of this node's log, the oldest from %s ago, have been seen by no other member", entries(size-shown), age(now.Sub(since))),
			"reach any member: fednode doctor says what is in the way; until then, nobody can notice if they are lost")
	case to == "":
		c.ok(CheckLog, entries(size)+", of which no member was shown any since this node started")
	default:
		c.ok(CheckLog, fmt.Sprintf("%s, %d seen by %s", entries(size), shown, to))
	}
}

// lookAtEndpoints compares what node.yaml advertises with the record that the members have, and resolves it.
func (n *Node) lookAtEndpoints(ctx context.Context, c *chart) {
	cfg, err := ReadConfig(n.site.Dir)
	if err != nil {
		c.problem(CheckEndpoints, err.Error(), "mend the file before the next start")
		return
	}
	own, ok := n.site.own()
	if !ok {
		c.skip("this organisation is not a member", CheckEndpoints)
		return
	}
	var advertised []string
	for _, a := range cfg.Advertise {
		advertised = append(advertised, string(a))
	}
	if !slices.Equal(advertised, own.Endpoints) {
		c.warning(CheckEndpoints, fmt.Sprintf("%s advertises %s; the members know %s", ConfigName, strings.Join(advertised, " "), strings.Join(own.Endpoints, " ")), "fednode members renew")
	}
	places, err := n.locate(ctx, n.site.Org())
	c.places(places, err)
}

// locate resolves a member's endpoints, for which it takes its time, but not too much.
func (n *Node) locate(ctx context.Context, org transport.OrgID) ([]transport.Location, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	return n.transport.Locate(ctx, org)
}

// places judges how endpoints resolve, and reports whether there is any address to try.
func (c *chart) places(places []transport.Location, err error) bool {
	if err != nil {
		c.problem(CheckDNS, err.Error(), "")
		return false
	}
	var good []string
	for _, p := range places {
		if p.Err == nil && len(p.Addrs) == 0 {
			p.Err = errors.New("the name has no address")
		}
		if p.Err != nil {
			c.problem(CheckDNS, fmt.Sprintf("%s does not resolve where %s is: %s", p.Endpoint, c.by, cause(p.Err)),
				fmt.Sprintf("mend the name's DNS record or the resolver of %s; or %s drops it from advertise in node.yaml and runs fednode members renew", c.by, c.about))
			continue
		}
		text := p.Endpoint
		if a := p.Addrs[0].String(); a != p.Endpoint {
			text += " is " + a
		}
		good = append(good, text)
	}
	if len(good) > 0 && len(good) == len(places) {
		c.ok(CheckDNS, strings.Join(good, ", "))
	}
	return len(good) > 0
}

// A probe is the try of one lane.
type probe struct {
	rtt time.Duration
	at  net.Addr
	err error
}

// lookAt is what this node finds of the way to a member's node. It reports whether the node answers.
func (n *Node) lookAt(ctx context.Context, c *chart) (answers bool) {
	places, err := n.locate(ctx, c.about)
	if !c.places(places, err) {
		c.skip("there is no address to try", CheckUDP, CheckTCP, CheckCertificate)
		return false
	}
	tried := make([][2]probe, len(places))
	var work sync.WaitGroup
	for i, p := range places {
		for j, lane := range []transport.Lane{transport.LaneQUIC, transport.LaneTCP} {
			work.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, probeLimit)
				defer cancel()
				p, to := &tried[i][j], p.Endpoint
				p.rtt, p.at, p.err = n.transport.Probe(ctx, c.about, lane, nil, to)
			})
		}
	}
	work.Wait()
	best := tried[0]
	for _, t := range tried[1:] {
		for j := range best {
			if t[j].better(best[j]) {
				best[j] = t[j]
			}
		}
	}
	for i, t := range tried {
		dead := t[0].silent() && t[1].silent()
		if others := !best[0].silent() || !best[1].silent(); dead && others && places[i].Err == nil {
			c.warning(CheckEndpoints, fmt.Sprintf("%s does not answer; others of %s do", places[i].Endpoint, c.about),
				fmt.Sprintf("see what is in the way; or %s drops it from advertise in node.yaml and runs fednode members renew", c.about))
		}
	}
	ahead := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		return n.transport.Clock(ctx, c.about)
	}
	return c.lanes(best[0], best[1], n.leaf.Leaf().Leaf.NotAfter, ahead)
}

// lanes judges the tries of both lanes. ahead asks the member's clock, where certificates are in dispute.
func (c *chart) lanes(udp, tcp probe, leaf time.Time, ahead func() (time.Duration, error)) (answers bool) {
	silent := udp.silent() && tcp.silent()
	for _, l := range []struct {
		check, lane, other string
		probe              probe
	}{{CheckUDP, "UDP", "TCP", udp}, {CheckTCP, "TCP", "UDP", tcp}} {
		switch {
		case l.probe.err == nil:
			c.ok(l.check, fmt.Sprintf("%s in %s", l.probe.at, l.probe.rtt.Round(100*time.Microsecond)))
		case !l.probe.silent():
			c.ok(l.check, "is let through")
		case silent:
			c.problem(l.check, "no answer: "+reason(l.probe.err),
				fmt.Sprintf("see whether %s's node runs and its address is right, then whether firewalls let UDP and TCP through to it", c.about))
		case l.check == CheckUDP:
			c.problem(l.check, "no answer: "+reason(l.probe.err),
				fmt.Sprintf("let UDP through to the port, out at %s and in at %s; until then everything goes over TCP", c.by, c.about))
		default:
			c.problem(l.check, "no answer: "+reason(l.probe.err),
				fmt.Sprintf("let TCP through to the port, out at %s and in at %s: there is no other way when UDP fails", c.by, c.about))
		}
	}
	if silent {
		c.skip("nobody answered", CheckCertificate)
		return false
	}
	if udp.err == nil || tcp.err == nil {
		return true
	}
	err := udp.err
	if udp.silent() {
		err = tcp.err
	}
	clocks := "compare the clocks (date -u); if they agree, "
	if !errors.Is(err, pki.ErrName) {
		if d, err := ahead(); err == nil && d.Abs() >= clockProblem {
			c.clock(d)
			c.skip("is in dispute because of the clocks", CheckCertificate)
			return false
		} else if err == nil {
			clocks = "the clocks agree, so "
		}
	}
	switch {
	case errors.Is(err, pki.ErrName):
		c.problem(CheckDNS, fmt.Sprintf("somebody else answers where %s should be: %s", c.about, cause(err)), "mend the DNS record, or whatever the address leads to")
	case errors.Is(err, transport.ErrOwnCertificate):
		c.problem(CheckCertificate, fmt.Sprintf("%s refuses %s's certificate, which is valid until %s", c.about, c.by, stamp(leaf)),
			clocks+fmt.Sprintf("%s has suspended %s or its governance log is not up to date: ask its operator for fednode doctor %s", c.about, c.by, c.by))
	default:
		c.problem(CheckCertificate, cause(err), fmt.Sprintf("ask the operator of %s for fednode doctor", c.about))
	}
	return false
}

// silent reports whether nobody answered, so that the address or the way to it is to blame.
func (p probe) silent() bool {
	if p.err == nil || errors.Is(p.err, transport.ErrOwnCertificate) {
		return false
	}
	for _, class := range []error{pki.ErrName, pki.ErrExpired, pki.ErrNotYetValid, pki.ErrAuthority, pki.ErrUsage, pki.ErrMalformed} {
		if errors.Is(p.err, class) {
			return false
		}
	}
	var refused *transport.Error
	return !errors.As(p.err, &refused)
}

// better reports whether p says more of the way to a member than q does, which was tried elsewhere.
func (p probe) better(q probe) bool {
	return q.err != nil && p.err == nil || q.silent() && !p.silent()
}

// reason says in few words why nobody answered.
func reason(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused, so that nothing listens there"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("nothing came back within %s", probeLimit)
	}
	return cause(err)
}

// cause is the text of an error on one line.
func cause(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func age(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
