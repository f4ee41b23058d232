package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/node"
	"fednode/transport"
	"fednode/ui"
)

// effectLimit is how long a command waits for a change that has all its approvals to take effect.
const effectLimit = 30 * time.Second

func (a *app) membersApprove() *cobra.Command {
	var withdraw bool
	c := &cobra.Command{Use: "approve ORG|HASH", Short: "Approve that an organisation becomes a member, or changes its record", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeCandidates,
		Long: `Signs this organisation's approval of a record that awaits it; fednode members list shows which do. The charter says how
many approvals are needed: by default a quorum of the members. Before you approve, compare the root's SHA-256 that
fednode members list shows with what the organisation itself says: its fednode join and fednode ca export print it. Where
two records bear one name, give the beginning of the hash; where another of that name was taken out before, the whole of
it. With --withdraw the approval is taken back, as long as it has not taken effect.`,
		Example: "  fednode members approve org-b\n  fednode members approve org-b --withdraw",
		RunE: func(c *cobra.Command, args []string) error {
			cl := a.client()
			hash, err := cl.Approve(c.Context(), args[0], withdraw)
			if err != nil {
				return err
			}
			if withdraw {
				return a.print(ui.CandidateReply{Hash: hash}, func(w io.Writer) { fmt.Fprintf(w, "%s approval withdrawn\n", a.paint().good("✓")) })
			}
			return a.awaitEffect(c.Context(), cl, hash, "member")
		}}
	c.Flags().BoolVar(&withdraw, "withdraw", false, "take the approval back")
	return c
}

func (a *app) membersReject() *cobra.Command {
	return &cobra.Command{Use: "reject ORG|HASH", Short: "Take out a record that awaits approval, such as an impostor's", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeCandidates,
		Long: `Takes a record that this organisation brought in, by its invitation, out of what awaits approval, at every member; the
chair may do so with any. The invitation stays used: invite the organisation anew if it was a thief who came with it.`,
		Example: "  fednode members reject org-b\n  fednode members reject 3f9a11c02b7d",
		RunE: func(c *cobra.Command, args []string) error {
			hash, err := a.client().Reject(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(ui.CandidateReply{Hash: hash}, func(w io.Writer) { fmt.Fprintf(w, "%s %s rejected\n", a.paint().good("✓"), short(hash)) })
		}}
}

func (a *app) completeCandidates(c *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	all, _ := a.client().Candidates(c.Context())
	for _, x := range all {
		if x.Organization != "" {
			out = append(out, string(x.Organization)+"\t"+clean(x.Name))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// awaitEffect waits until a candidate is in force, or says whose approval it waits for.
func (a *app) awaitEffect(ctx context.Context, cl *ui.Client, hash, what string) error {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, effectLimit)
	defer cancel()
	for {
		all, err := cl.Candidates(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		i := slices.IndexFunc(all, func(v node.CandidateView) bool { return v.Hash == hash })
		switch {
		case err == nil && i < 0:
			return a.inEffect(ctx, cl, what, started)
		case err == nil && (!all[i].Complete || all[i].Waiting != "" && !strings.HasPrefix(all[i].Waiting, "a change")), ctx.Err() != nil && i >= 0:
			return a.print(all[i], func(w io.Writer) { fmt.Fprintln(w, a.paint().warn("…"), awaiting(all[i])) })
		case ctx.Err() != nil:
			return fmt.Errorf("the change has its approvals, and is not in effect after %s; see fednode status", effectLimit)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// confirmLimit is how long a command waits for all members to confirm a change that is in effect: a new one has yet to
// learn that it is one.
const confirmLimit = 5 * time.Second

// inEffect says that a change took effect, once the members have confirmed it or a moment is over.
func (a *app) inEffect(ctx context.Context, cl *ui.Client, what string, started time.Time) error {
	took := time.Since(started)
	st, err := cl.Status(ctx)
	confirmed := func() bool { // of more than the certificate only the chair knows
		return st.Governance.Cosigned >= st.Members || st.Organization != st.Chair
	}
	for limit := time.Now().Add(confirmLimit); err == nil && !confirmed() && time.Now().Before(limit); {
		time.Sleep(20 * time.Millisecond)
		st, err = cl.Status(ctx)
	}
	if err != nil {
		return err
	}
	later := ""
	if confirmed() {
		took = time.Since(started)
	} else {
		later = "; the others confirm it once their nodes run and are reached"
	}
	return a.print(st.Governance, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s, committed %d/%d, %.1fs%s\n", a.paint().good("✓"), what, st.Governance.Cosigned, st.Members, took.Seconds(), later)
	})
}

// awaiting says what a candidate waits for.
func awaiting(v node.CandidateView) string {
	t := v.Standing
	text := fmt.Sprintf("awaiting approval %d/%d", len(t.Approved), t.Need)
	if v.Complete {
		text = fmt.Sprintf("approved %d/%d, awaiting the members' cosignatures", len(t.Approved), t.Need)
	} else if len(t.Missing) > 0 {
		names := make([]string, len(t.Missing))
		for i, id := range t.Missing {
			names[i] = string(id)
		}
		verb := "has"
		if len(names) > 1 {
			verb = "have"
		}
		text += fmt.Sprintf(": %s %s yet to approve", strings.Join(names, ", "), verb)
	}
	if v.Waiting != "" {
		text += "; " + v.Waiting
	}
	return text
}

// suspension is what suspend and resume print as JSON.
type suspension struct {
	Organization string `json:"organization_id"`
	Suspended    bool   `json:"suspended"`
}

func (a *app) membersSuspend() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "suspend ORG", Short: "Deny a member everything at this node, at once", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMembers,
		Long: `Closes the member's sessions and refuses its requests from now on; nothing is sent to it either, and steps that are its
to run end with the reason. It is this organisation's own decision: nobody has to agree, the other members are not
affected, and it is on record in this organisation's log.`,
		Example: "  fednode members suspend org-b --reason 'stolen key'",
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.client().Suspend(c.Context(), args[0], reason); err != nil {
				return err
			}
			return a.print(suspension{args[0], true}, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s is suspended here; take it back with fednode members resume %s\n", a.paint().good("✓"), args[0], args[0])
			})
		}}
	c.Flags().StringVar(&reason, "reason", "", "why; shown with every refusal here, not to the member")
	return c
}

func (a *app) membersResume() *cobra.Command {
	return &cobra.Command{Use: "resume ORG", Short: "Take a suspension back", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMembers,
		Example: "  fednode members resume org-b",
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.client().Resume(c.Context(), args[0]); err != nil {
				return err
			}
			return a.print(suspension{args[0], false}, func(w io.Writer) { fmt.Fprintf(w, "%s %s is no longer suspended\n", a.paint().good("✓"), args[0]) })
		}}
}

func (a *app) membersRenew() *cobra.Command {
	var q ui.RenewRequest
	c := &cobra.Command{Use: "renew", Short: "Publish this organisation's record anew: endpoints, message key", Args: cobra.NoArgs,
		Long: `Makes a new record of this organisation, with the endpoints that advertise in node.yaml names now, and brings it in; every
member learns of it without restart. With --rotate it has a new message key: the one before stays valid for a minute of
overlap and until the next renewal, and for ever verifies what it signed. With --drop only the newest key is listed from
now on, as after a theft.`,
		Example: "  fednode members renew\n  fednode members renew --rotate\n  fednode members renew --rotate --drop",
		RunE: func(c *cobra.Command, _ []string) error {
			cl := a.client()
			hash, err := cl.Renew(c.Context(), q)
			if err != nil {
				return err
			}
			return a.awaitEffect(c.Context(), cl, hash, "record renewed")
		}}
	c.Flags().BoolVar(&q.Rotate, "rotate", false, "with a new message key")
	c.Flags().BoolVar(&q.Drop, "drop", false, "list no earlier message keys: they are not to be trusted any more")
	return c
}

func (a *app) charter() *cobra.Command {
	c := &cobra.Command{Use: "charter", Short: "Print the federation's charter, as YAML to edit", Args: cobra.NoArgs,
		Long: `The charter says who approves what, and how fresh the members' confirmation of the governance log has to be. To change
it, edit what this prints, raise its sequence, and propose it; the others approve with fednode charter approve.`,
		Example: "  fednode charter > charter.yaml\n  fednode charter propose charter.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			ch, err := a.client().Charter(c.Context())
			if err != nil {
				return err
			}
			return a.print(ch, func(w io.Writer) { printYAML(w, ch) })
		}}
	c.AddCommand(a.charterPropose(), a.charterApprove())
	return c
}

func (a *app) charterPropose() *cobra.Command {
	return &cobra.Command{Use: "propose FILE", Short: "Propose a charter, with this organisation's approval", Args: cobra.ExactArgs(1),
		Example: "  fednode charter propose charter.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			cl := a.client()
			hash, err := cl.ProposeCharter(c.Context(), args[0], data)
			if err != nil {
				return err
			}
			return a.awaitEffect(c.Context(), cl, hash, "charter in force")
		}}
}

func (a *app) charterApprove() *cobra.Command {
	var withdraw bool
	c := &cobra.Command{Use: "approve [HASH]", Short: "Approve the charter that is proposed", Args: cobra.MaximumNArgs(1),
		Example: "  fednode charter approve",
		RunE: func(c *cobra.Command, args []string) error {
			cl := a.client()
			hash, err := cl.Approve(c.Context(), strings.Join(append(args, "charter")[:1], ""), withdraw)
			if err != nil {
				return err
			}
			return a.awaitEffect(c.Context(), cl, hash, "charter in force")
		}}
	c.Flags().BoolVar(&withdraw, "withdraw", false, "take the approval back")
	return c
}

// printCandidates shows what awaits approval, under the members.
func (a *app) printCandidates(w io.Writer, all []node.CandidateView, self transport.OrgID) {
	p := a.paint()
	for _, v := range all {
		what, how := "charter", "fednode charter approve"
		if v.Organization != "" {
			what, how = string(v.Organization), "fednode members approve "+string(v.Organization)
		}
		fmt.Fprintf(w, "%s %s (%s) %s\n", p.warn("…"), what, short(v.Hash), awaiting(v))
		if v.Awaits(self) {
			fmt.Fprintf(w, "  brought in by %s; yours to approve: %s\n", v.Sponsor, how)
		}
		for _, r := range v.RootSHA256 {
			fmt.Fprintf(w, "  root sha256 %s  %s\n", r, strings.Join(v.Endpoints, " "))
		}
	}
}
