package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/node"
	"fednode/transport"
	"fednode/transport/invite"
	"fednode/ui"
)

// joinReply is what join prints as JSON.
type joinReply struct {
	*node.Meeting
	Organization transport.OrgID  `json:"organization_id"`
	RootSHA256   string           `json:"root_sha256"`
	Checks       []node.JoinCheck `json:"checks,omitempty"`
	*node.Progress
	Seconds float64 `json:"seconds"`
	launched
}

// A joinCommand is one run of join.
type joinCommand struct {
	*app
	flags       siteFlags
	tokenFile   string
	fingerprint string
	yes, noWait bool
	began       time.Time
	reply       joinReply
}

func (a *app) join() *cobra.Command {
	j := &joinCommand{app: a}
	c := &cobra.Command{Use: "join [TOKEN]", Short: "Join a federation, with the token that a member's fednode invite printed", Args: cobra.MaximumNArgs(1),
		Long: `Makes this organisation's data directory, fetches the federation's log from the inviter and verifies it from its genesis,
and shows three words: ask the inviter, by telephone, whether they are the same there. Then it checks clocks and networks
in both directions, asks to be a member, and waits for the approvals that the charter asks for.

Ctrl-C is safe at any time: the same command goes on where it was, and needs no token the second time. For automation,
--yes with --fingerprint takes the place of the words: the federation's id, or the SHA-256 of the inviter's root
certificate, from a source that you trust. With --no-wait it ends when the request is with the inviter.`,
		Example: "  fednode join fed1_… --advertise fed.b.org\n  fednode join --token-file token --advertise 10.0.0.2:8443 --listen :8443 --yes --fingerprint 3f9a… --run\n  fednode join",
		RunE: func(c *cobra.Command, args []string) error {
			j.began = time.Now()
			token := strings.Join(args, "")
			if j.tokenFile != "" && token != "" {
				return misusef("two invitations: pass the token, or --token-file")
			}
			if j.tokenFile != "" {
				b, err := os.ReadFile(j.tokenFile)
				if err != nil {
					return misusef("--token-file: %w", err)
				}
				token = strings.TrimSpace(string(b))
			}
			return j.do(c, token)
		}}
	j.flags.register(c)
	c.Flags().StringVar(&j.tokenFile, "token-file", "", "file with the token, which the list of processes does not show")
	c.Flags().StringVar(&j.fingerprint, "fingerprint", "", "with --yes: id of the federation, or SHA-256 of the inviter's root certificate, in hex")
	c.Flags().BoolVar(&j.yes, "yes", false, "compare the fingerprint instead of asking whether the words are the same")
	c.Flags().BoolVar(&j.noWait, "no-wait", false, "don't wait for the approvals; fednode join goes on")
	_ = c.MarkFlagFilename("token-file")
	return c
}

func (j *joinCommand) do(c *cobra.Command, token string) (err error) {
	if err := j.checkFlags(); err != nil {
		return err
	}
	if installed(j.dir) {
		t, err := invite.Parse(token)
		if err != nil && token != "" {
			return misuse{err}
		}
		var org transport.OrgID
		if err == nil {
			org = t.Invitee
		}
		return j.relaunch(c, &j.flags, org, func(st ui.Status) bool { return token == "" || st.FederationID == t.FederationID })
	}
	site, err := j.open(c, token)
	if err != nil {
		return err
	}
	listens := string(site.Config.Listen)
	member, err := j.with(c.Context(), site, token)
	if err := errors.Join(err, site.Close()); err != nil {
		return err
	}
	if member && j.flags.run {
		return j.serve(c.Context())
	}
	if member {
		if j.reply.launched, err = j.launch(c.Context()); err != nil {
			return err
		}
	}
	j.reply.Seconds = time.Since(j.began).Seconds()
	return j.print(j.reply, func(w io.Writer) {
		if member {
			j.printLaunched(w, j.reply.launched, listens)
		}
	})
}

func (j *joinCommand) checkFlags() error {
	j.fingerprint = strings.ToLower(strings.ReplaceAll(j.fingerprint, ":", ""))
	switch {
	case j.yes && j.fingerprint == "":
		return misusef("--yes needs --fingerprint: the federation's id, or the SHA-256 of the inviter's root certificate; fednode invite prints it")
	case j.fingerprint != "" && len(j.fingerprint) != 64:
		return misusef("--fingerprint has %d digits; a SHA-256 has 64 in hex", len(j.fingerprint))
	case j.flags.run && j.noWait:
		return misusef("--run and --no-wait exclude each other: a node that is no member yet does not run")
	}
	return nil
}

// open opens or makes the data directory of the organisation that the token invites.
func (j *joinCommand) open(c *cobra.Command, token string) (*node.Site, error) {
	var org transport.OrgID
	if token != "" {
		t, err := invite.Parse(token)
		if err != nil {
			return nil, misuse{err}
		}
		org = t.Invitee
	} else if !nodeIn(j.dir) {
		return nil, misuse{node.ErrNotInvited}
	}
	return j.prepare(c, &j.flags, org)
}

// with takes the site as far as it goes. It reports whether it is a member's.
func (j *joinCommand) with(ctx context.Context, site *node.Site, token string) (member bool, err error) {
	p := j.paint()
	j.reply.Organization = site.Org()
	if site.FederationID() != "" {
		name, _ := site.Federation()
		if t, err := invite.Parse(token); err == nil && t.FederationID != site.FederationID() {
			return false, fmt.Errorf("%s belongs to %s, and the invitation is to another federation; name another data directory with -D", j.dir, name)
		}
		j.reply.Progress = &node.Progress{State: invite.StateMember}
		fmt.Fprintf(j.notes(), "%s %s is a member of %s already\n", p.good("✓"), site.Org(), clean(name))
		return true, nil
	}
	joiner, err := site.Join(ctx, token, transport.JoinDialer{})
	if err != nil {
		return false, err
	}
	j.reply.RootSHA256 = joiner.RootSHA256()
	m, err := j.meet(ctx, joiner)
	if err != nil && !node.Final(err) && ctx.Err() == nil {
		err = fmt.Errorf("%w\nIs the node of %s running, and are UDP and TCP open towards %s? Nothing is used up: run the same again",
			err, joiner.Token().Inviter, strings.Join(joiner.Token().Endpoints, " "))
	}
	if err != nil {
		return false, err
	}
	j.reply.Meeting = m
	if err := j.confirm(ctx, joiner, m); err != nil {
		return false, err
	}
	if m.State == invite.StateInvited {
		if err := j.check(ctx, joiner, m, string(site.Config.Listen)); err != nil {
			return false, err
		}
	}
	return j.await(ctx, joiner, m)
}

// meet fetches and verifies the federation's log. A joiner that has asked before waits for an inviter who is away.
func (j *joinCommand) meet(ctx context.Context, joiner *node.Joiner) (*node.Meeting, error) {
	for said := false; ; said = true {
		m, err := joiner.Meet(ctx)
		if err == nil || node.Final(err) || !joiner.Asked() || j.noWait || ctx.Err() != nil {
			return m, err
		}
		if !said {
			fmt.Fprintf(j.notes(), "%s %s cannot be reached; trying again (Ctrl-C is safe; run again to resume)\n", j.paint().warn("…"), joiner.Token().Inviter)
		}
		select {
		case <-time.After(pollLater):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// confirm has a human compare the words, or compares the fingerprint.
func (j *joinCommand) confirm(ctx context.Context, joiner *node.Joiner, m *node.Meeting) error {
	line := fmt.Sprintf("%s, chair %s: %s.", clean(m.Federation), m.Chair, m.Words)
	switch {
	case j.fingerprint != "" && j.fingerprint != m.FederationID && j.fingerprint != m.RootSHA256:
		return fmt.Errorf("this is not the federation that is meant: its id is %s, the root certificate of %s has the SHA-256 %s, and the fingerprint given is %s; nothing was asked there",
			m.FederationID, m.Inviter, m.RootSHA256, j.fingerprint)
	case j.yes:
		fmt.Fprintf(j.notes(), "%s The fingerprint is the same\n", line)
		return joiner.Confirm(ctx)
	case joiner.Confirmed():
		fmt.Fprintln(j.notes(), line)
		return nil
	}
	f, ok := j.terminal()
	if !ok {
		return misusef("nobody is at a terminal to compare the words; pass --yes --fingerprint with the federation's id, as the inviter's fednode invite printed it")
	}
	fmt.Fprintf(j.err, "%s Same? ", line)
	answer, err := ask(ctx, f)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return joiner.Confirm(ctx)
	case "":
		return errors.New("the words were not compared: nothing was asked there, and nothing is used up; run the same again")
	default:
		return fmt.Errorf("not the same: nothing was asked there. Whoever gave you the token may not be %s; ask for another on another way", m.Inviter)
	}
}

// ask reads a line from the terminal, until ctx ends.
func ask(ctx context.Context, f *os.File) (string, error) {
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(io.LimitReader(f, 100)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// check looks whether the two nodes will reach each other, before anything is asked.
func (j *joinCommand) check(ctx context.Context, joiner *node.Joiner, m *node.Meeting, listens string) error {
	conn, ln, err := listen(listens)
	if err != nil {
		return err
	}
	checks, err := joiner.Check(ctx, m, conn, ln)
	if err != nil {
		return err
	}
	j.reply.Checks = checks
	p := j.paint()
	var good, problems []string
	clock, reached := true, false
	for _, c := range checks {
		text := strings.TrimSpace(c.Name + " " + rtt(c.RTT))
		if c.OK {
			good = append(good, p.good("✓")+" "+text)
		} else {
			problems = append(problems, fmt.Sprintf("%s %s: %s", p.bad("✗"), c.Name, c.Problem))
		}
		switch {
		case c.Name == "clock":
			clock = c.OK
		case c.OK && strings.Contains(c.Name, " reaches "):
			reached = true
		}
	}
	fmt.Fprintln(j.notes(), strings.Join(good, "  "))
	for _, text := range problems {
		fmt.Fprintln(j.notes(), text)
	}
	switch {
	case !clock:
		return errors.New("the clocks differ too much: set the one that is wrong and run the same again; the invitation is not used up")
	case !reached:
		return fmt.Errorf("%s does not reach this node at %s: mend that and run the same again; the invitation is not used up", m.Inviter, strings.Join(joiner.Record().Endpoints, " "))
	}
	return nil
}

func rtt(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%dms", max(d.Milliseconds(), 1))
}

const (
	// pollFirst is how often the inviter is asked how far it is, and pollLater after pollSoon.
	pollFirst = 700 * time.Millisecond
	pollLater = 5 * time.Second
	pollSoon  = 5 * time.Minute
)

// await asks until this organisation is a member, and says what it waits for whenever that changes.
func (j *joinCommand) await(ctx context.Context, joiner *node.Joiner, m *node.Meeting) (member bool, err error) {
	p, last := j.paint(), ""
	say := func(text string) {
		if last == "" {
			fmt.Fprintf(j.notes(), "%s\n", p.dim("  whoever approves sees the root of "+string(joiner.Record().OrganizationID)+", sha256 "+joiner.RootSHA256()+": let them compare"))
		}
		if text != last {
			fmt.Fprintf(j.notes(), "%s %s (Ctrl-C is safe; run again to resume)\n", p.warn("…"), text)
		}
		last = text
	}
	for {
		at, err := joiner.Ask(ctx)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil && node.Final(err):
			return false, err
		case err != nil:
			say(noAnswer(m, err))
		case at.State == invite.StateRejected:
			return false, fmt.Errorf("%s rejected the request; ask for a new invitation if that was a mistake", m.Inviter)
		case at.State == invite.StateMember:
			err = joiner.Enter(ctx)
			if err == nil {
				j.reply.Progress = at
				fmt.Fprintf(j.notes(), "%s member of %s, %s\n", p.good("✓"), clean(m.Federation), elapsed(j.began))
				return true, nil
			}
			if node.Final(err) {
				return false, err
			}
			say(noAnswer(m, err))
		default:
			j.reply.Progress = at
			say(awaitingJoiner(at))
			if j.noWait {
				return false, nil
			}
		}
		pause := pollFirst
		if time.Since(j.began) > pollSoon {
			pause = pollLater
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// noAnswer says that the inviter has to be asked again.
func noAnswer(m *node.Meeting, err error) string {
	if errors.Is(err, transport.ErrUnreachable) {
		return fmt.Sprintf("%s cannot be reached; trying again", m.Inviter)
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return "trying again: " + clean(text)
}

// awaitingJoiner says what a joiner waits for.
func awaitingJoiner(at *node.Progress) string {
	if at.Standing == nil {
		return "awaiting the inviter"
	}
	v := node.CandidateView{Standing: *at.Standing, Complete: len(at.Standing.Approved) >= at.Standing.Need}
	if !v.Complete || at.Waiting != "the members' cosignatures" {
		v.Waiting = at.Waiting
	}
	return awaiting(v)
}
