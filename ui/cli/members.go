package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/node"
	"fednode/transport"
)

func (a *app) members() *cobra.Command {
	c := &cobra.Command{Use: "members", Short: "See, approve, reject and suspend the federation's members; renew this one's record",
		Example: "  fednode members list\n  fednode members approve org-b"}
	c.AddCommand(a.membersList(), a.membersShow(), a.membersApprove(), a.membersReject(), a.membersSuspend(), a.membersResume(), a.membersRenew())
	return c
}

// membersReply is what members list prints as JSON.
type membersReply struct {
	Members  []node.MemberView    `json:"members"`
	Awaiting []node.CandidateView `json:"awaiting_approval"`
}

func (a *app) membersList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the members, as this node's copy of the governance log has them", Args: cobra.NoArgs,
		Example: "  fednode members list",
		RunE: func(c *cobra.Command, _ []string) error {
			cl := a.client()
			all, err := cl.Members(c.Context())
			if err != nil {
				return err
			}
			open, err := cl.Candidates(c.Context())
			if err != nil {
				return err
			}
			self := transport.OrgID("")
			return a.print(membersReply{all, open}, func(w io.Writer) {
				lines := [][]string{{"MEMBER", "NAME", "ROLE", "ENDPOINTS", "SINCE"}}
				for _, m := range all {
					if m.Self {
						self = m.ID
					}
					lines = append(lines, []string{string(m.ID), clean(m.Name), role(m), strings.Join(m.Endpoints, " "), m.Since.Local().Format(time.DateTime)})
				}
				rows(w, lines)
				a.printCandidates(w, open, self)
			})
		}}
}

func role(m node.MemberView) string {
	words := []string{}
	if m.Self {
		words = append(words, "this node")
	}
	if m.Chair {
		words = append(words, "chair")
	}
	if m.Suspended {
		words = append(words, "suspended")
	}
	return strings.Join(words, ", ")
}

func (a *app) membersShow() *cobra.Command {
	return &cobra.Command{Use: "show ORG", Short: "Show one member's record", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMembers,
		Example: "  fednode members show org-b",
		RunE: func(c *cobra.Command, args []string) error {
			m, err := a.member(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(m, func(w io.Writer) {
				lines := [][]string{{"member", string(m.ID)}, {"name", clean(m.Name)}, {"role", role(*m)}, {"domain", m.Domain}, {"jurisdiction", m.Jurisdiction},
					{"endpoints", strings.Join(m.Endpoints, " ")}, {"since", m.Since.Local().Format(time.DateTime)}, {"record", fmt.Sprintf("sequence %d", m.Sequence)},
					{"log", m.LogOrigin}, {"message keys", strings.Join(m.KeyIDs, " ")}}
				if m.Suspended {
					lines = append(lines, []string{"suspended", clean(m.Suspension)})
				}
				for _, r := range m.RootSHA256 {
					lines = append(lines, []string{"root sha256", r})
				}
				for _, l := range lines {
					if l[1] == "" {
						l[1] = "-"
					}
				}
				rows(w, lines)
			})
		}}
}

func (a *app) member(ctx context.Context, id string) (*node.MemberView, error) {
	all, err := a.client().Members(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, m := range all {
		if string(m.ID) == id {
			return &m, nil
		}
		names[i] = string(m.ID)
	}
	return nil, fmt.Errorf("%q is not a member; the members are %s", id, strings.Join(names, ", "))
}

func (a *app) completeMembers(c *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	all, _ := a.client().Members(c.Context())
	for _, m := range all {
		out = append(out, string(m.ID)+"\t"+clean(m.Name))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
