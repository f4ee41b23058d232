package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"fednode/node"
	"fednode/transport"
	"fednode/transport/member"
	"fednode/ui"
)

// initReply is what init prints as JSON.
type initReply struct {
	Federation   string          `json:"federation"`
	FederationID string          `json:"federation_id"`
	Organization transport.OrgID `json:"organization_id"`
	Charter      member.Charter  `json:"charter"`
	launched
}

func (a *app) init() *cobra.Command {
	var f siteFlags
	var org, charterFile string
	var printCharter bool
	c := &cobra.Command{Use: "init FEDERATION", Short: "Found a federation, with this organisation as its first member and chair", Args: cobra.MaximumNArgs(1),
		Long: `Makes this organisation's data directory (keys, certificates, node.yaml, policy.yaml) and founds a federation in it, which
others then join by invitation. The charter says who approves what; print it with --print-charter, edit it, and found with
--charter, or change it later with fednode charter propose. An init that was interrupted is taken up again by the same
command. The name of a host without a port is advertised with the port of --listen.

The organisation's root key is needed to renew its issuing CA once a year, and for nothing that the node does in between:
take it offline with fednode ca export.`,
		Example: "  fednode init health-net --org org-a --advertise fed.a.org\n  fednode init health-net --org org-a --advertise fed.a.org:8443 --listen :8443 --run\n  fednode init --print-charter > charter.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			charter := member.DefaultCharter()
			if charterFile != "" {
				data, err := os.ReadFile(charterFile)
				if err != nil {
					return misusef("--charter: %w", err)
				}
				if charter, err = member.ParseCharter(charterFile, data); err != nil {
					return misuse{err}
				}
			}
			switch {
			case printCharter:
				return a.print(charter, func(w io.Writer) { printYAML(w, charter) })
			case len(args) == 0:
				return misusef("name the federation; usage: %s", c.UseLine())
			case org == "":
				return misusef("--org is missing: the id of this organisation, such as org-a")
			}
			return a.found(c, &f, args[0], transport.OrgID(org), charter)
		}}
	f.register(c)
	c.Flags().StringVar(&org, "org", "", "id of this organisation: lower-case letters, digits and hyphens")
	c.Flags().StringVar(&charterFile, "charter", "", "file with the charter to found the federation under")
	c.Flags().BoolVar(&printCharter, "print-charter", false, "print the charter that would be in force, as YAML to edit, and do nothing else")
	_ = c.MarkFlagFilename("charter", "yaml", "yml")
	return c
}

// printYAML writes a charter for people to edit.
func printYAML(w io.Writer, ch member.Charter) {
	fmt.Fprintln(w, "# quorum: of the members in force; all: every one of them; self (record_update only): the organisation alone.")
	_ = yaml.NewEncoder(w).Encode(ch)
}

func (a *app) found(c *cobra.Command, f *siteFlags, name string, org transport.OrgID, charter member.Charter) error {
	if err := errors.Join(org.Validate(), member.CheckName(name)); err != nil {
		return misuse{err}
	}
	if installed(a.dir) {
		return a.relaunch(c, f, org, func(st ui.Status) bool { return st.Federation == name && st.Chair == org })
	}
	site, err := a.prepare(c, f, org)
	if err != nil {
		return err
	}
	reply := initReply{Federation: name, Organization: org, Charter: charter}
	err = a.foundIn(c, site, name, charter)
	reply.FederationID = site.FederationID()
	if err := errors.Join(err, site.Close()); err != nil {
		return err
	}
	if f.run {
		return a.serve(c.Context())
	}
	if reply.launched, err = a.launch(c.Context()); err != nil {
		return err
	}
	return a.print(reply, func(w io.Writer) {
		a.printLaunched(w, reply.launched, string(site.Config.Listen))
		fmt.Fprintln(w, "Keep the root key offline: fednode ca export")
	})
}

// foundIn founds the federation, unless the site belongs to it already, as after an init that was interrupted.
func (a *app) foundIn(c *cobra.Command, site *node.Site, name string, charter member.Charter) error {
	p := a.paint()
	if joining, err := site.Joining(); err != nil || joining {
		return errors.Join(err, fmt.Errorf("%s is on its way into another federation: go on with fednode join, or name another directory with -D", a.dir))
	}
	if site.FederationID() != "" {
		is, chair := site.Federation()
		if is != name || !chair {
			return fmt.Errorf("%s belongs to federation %s already; name another data directory with -D", a.dir, is)
		}
		fmt.Fprintf(a.notes(), "%s %s was founded before\n", p.good("✓"), clean(name))
		return nil
	}
	if err := site.FoundUnder(c.Context(), name, charter); err != nil {
		return err
	}
	fmt.Fprintf(a.notes(), "%s %s founded, chair %s; new members need the approval of: %s. The charter: fednode charter\n",
		p.good("✓"), clean(name), site.Org(), rule(charter.Approvals.Member))
	return nil
}

func rule(r string) string {
	if r == "all" {
		return "all members"
	}
	return "a quorum of the members"
}

// notes is where the lines go that say what is being done: nowhere in the way of JSON.
func (a *app) notes() io.Writer {
	if a.output == "json" {
		return a.err
	}
	return a.out
}

// relaunch takes up an installation again that was interrupted; the node itself is complete. It has to be the one that is
// meant: of org, as the flags say it, and of the federation, as far as same can tell from a node that runs.
func (a *app) relaunch(c *cobra.Command, f *siteFlags, org transport.OrgID, same func(ui.Status) bool) error {
	conf, err := node.ReadConfig(a.dir)
	if err != nil {
		return err
	}
	if is := transport.OrgID(conf.Organization.ID); org != "" && org != is {
		return fmt.Errorf("%s holds the node of %s, not of %s; name another data directory with -D", a.dir, is, org)
	}
	if err := f.complete(a.dir, org); err != nil {
		return err
	}
	if err := f.agree(c, a.dir, conf); err != nil {
		return err
	}
	st, unreached := a.client().Status(c.Context())
	if unreached == nil && !same(st) {
		return fmt.Errorf("%s belongs to federation %s already; name another data directory with -D", a.dir, clean(st.Federation))
	}
	l, err := a.launch(c.Context())
	if err != nil {
		return err
	}
	if unreached == nil {
		l = launched{Running: true}
	}
	return a.print(l, func(w io.Writer) {
		fmt.Fprintf(w, "%s the node of %s in %s was made before; see fednode status\n", a.paint().good("✓"), conf.Organization.ID, a.dir)
		if !l.Running {
			fmt.Fprintf(w, "Start it: %s\n", l.Command)
		}
	})
}

func (a *app) printLaunched(w io.Writer, l launched, listens string) {
	listens = strings.TrimPrefix(listens, ":")
	if l.Running {
		fmt.Fprintf(w, "%s service running, udp+tcp %s\n", a.paint().good("✓"), listens)
		return
	}
	fmt.Fprintf(w, "Start the node, udp+tcp %s: %s\n", listens, l.Command)
}
