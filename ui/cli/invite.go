package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/node"
)

func (a *app) invite() *cobra.Command {
	var valid time.Duration
	c := &cobra.Command{Use: "invite ORG", Short: "Invite an organisation into the federation", Args: cobra.ExactArgs(1),
		Long: `Prints a token for one organisation, which it can use once, and three words. Hand the token over on any way you have; read
the words aloud: the joiner sees the same, or the token is not yours. The token is a secret until it is used: whoever has
it can ask to join in the invitee's name, and will be seen by the fingerprint that fednode members list shows.

An organisation that comes with a token becomes a member by the approvals that the charter asks for.`,
		Example: "  fednode invite org-b\n  fednode invite org-b --valid 2h --output json",
		RunE: func(c *cobra.Command, args []string) error {
			i, err := a.client().Invite(c.Context(), args[0], valid)
			if err != nil {
				return err
			}
			return a.print(i, func(w io.Writer) {
				p := a.paint()
				fmt.Fprintf(w, "%s   valid %s, once. Read aloud: %s\n", i.Token, validity(valid), p.good(i.Words))
				fmt.Fprintf(w, "%s\n", p.dim("for automation: fednode join … --yes --fingerprint "+i.FederationID))
			})
		}}
	c.Flags().DurationVar(&valid, "valid", node.DefaultValidity, "how long the token can be used")
	c.AddCommand(a.inviteList(), a.inviteRevoke())
	return c
}

func validity(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	return text
}

func (a *app) inviteList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the invitations of this node, and who has used them", Args: cobra.NoArgs,
		Example: "  fednode invite list",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.client().Invitations(c.Context())
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) { a.printInvitations(w, all) })
		}}
}

func (a *app) printInvitations(w io.Writer, all []node.InvitationView) {
	lines := [][]string{{"INVITATION", "ORGANISATION", "STATE", "VALID UNTIL", "WORDS", "USED"}}
	for _, i := range all {
		used := "-"
		if !i.UsedAt.IsZero() {
			used = fmt.Sprintf("%s by root sha256 %s", i.UsedAt.Local().Format(time.DateTime), i.RootSHA256)
		}
		lines = append(lines, []string{i.ID, string(i.Organization), i.State, i.Expires.Local().Format(time.DateTime), i.Words, used})
	}
	rows(w, lines)
}

func (a *app) inviteRevoke() *cobra.Command {
	return &cobra.Command{Use: "revoke ORG|INVITATION", Short: "End invitations that nobody has used", Args: cobra.ExactArgs(1),
		Long: `Ends the open invitations of an organisation, or the one whose id begins so. One that was used is used: take out what
awaits approval with fednode members reject.`,
		Example: "  fednode invite revoke org-b\n  fednode invite revoke 5c1f9a0b",
		RunE: func(c *cobra.Command, args []string) error {
			gone, err := a.client().RevokeInvitation(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(gone, func(w io.Writer) {
				for _, i := range gone {
					fmt.Fprintf(w, "%s invitation %s of %s revoked\n", a.paint().good("✓"), i.ID, i.Organization)
				}
			})
		}}
}
