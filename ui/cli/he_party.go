package cli

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fednode/compute"
	"fednode/compute/he/program"
	"fednode/compute/threshold"
	"fednode/hsm"
)

// The files of a party's directory.
const (
	partyCard    = "party.json"
	partyKeyring = "keyring"
	partyKey     = "file:party.key"
	partyShares  = "shares"
)

func (a *app) heParty() *cobra.Command {
	c := &cobra.Command{Use: "party", Short: "Hold a key together with others, and decrypt together",
		Long: `A key that nobody has: some organisations make it together, each holds a share, and any three of five, say, decrypt
together. Fewer learn nothing. Every organisation runs the same command at the same time; their processes meet over TCP
with TLS 1.3, each known by the key in its card.

  init      each makes a key of its own and a card with name, address and that key
  propose   one collects the cards and plans the program
  keygen    all make the key; each gets the public keys, and a share that stays in its directory
  decrypt   enough of them decrypt results, which all of those see
  refresh   all get new shares of the same key, say every 30 days

In between, fednode he encrypt and fednode he eval work as with any key.`,
		Example: `  fednode he party init me --name org-a --address a.example:7100
  fednode he party propose proposal.json --member org-a.json --member org-b.json --member org-c.json --threshold 2 --program 'sum(x * y)' --column x=0..99 --column y=0..99 --rows 1000
  fednode he party keygen keys --proposal proposal.json --party me
  fednode he party decrypt total.enc --keys keys --party me --with org-a,org-c`}
	c.AddCommand(a.hePartyInit(), a.hePartyPropose(), a.hePartyKeygen(), a.hePartyDecrypt(), a.hePartyRefresh())
	return c
}

func (a *app) hePartyInit() *cobra.Command {
	var name, address string
	var pass passphraseFlags
	c := &cobra.Command{Use: "init DIR", Short: "Make a key of one's own, and the card that the others need", Args: cobra.ExactArgs(1),
		Long: `Makes a directory with a signing key, sealed to a passphrase, and party.json: the card with name, address and public
key that goes to whoever proposes. The others must get the card on a way that they trust. Port 0 takes one that is free.`,
		Example: "  fednode he party init me --name org-a --address a.example:7100 --passphrase-file secret",
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "name", "address"); err != nil {
				return err
			}
			address, err := fixedPort(address)
			if err != nil {
				return err
			}
			card := filepath.Join(args[0], partyCard)
			if _, err := os.Lstat(card); err == nil {
				return fmt.Errorf("%s is there already: a party keeps its key; name another directory", card)
			}
			m := program.Member{Name: name, Address: address, Key: make([]byte, ed25519.PublicKeySize)}
			if err := m.Check(); err != nil {
				return misuse{err}
			}
			source, err := a.passphrase(pass, true)
			if err != nil {
				return err
			}
			ring, err := hsm.CreateKeyring(filepath.Join(args[0], partyKeyring), source)
			if err != nil {
				return err
			}
			defer ring.Close()
			key, err := ring.Generate(partyKey, hsm.Ed25519)
			if err != nil {
				return err
			}
			defer key.Close()
			m.Key = key.Public().(ed25519.PublicKey)
			b, err := json.MarshalIndent(m, "", "  ")
			if err != nil {
				return err
			}
			if err := writeWhole(card, append(b, '\n'), 0o644); err != nil {
				return err
			}
			return a.print(m, func(w io.Writer) {
				fmt.Fprintf(w, "%s at %s; give %s to whoever proposes, all else stays\n", clean(name), address, card)
			})
		}}
	c.Flags().StringVar(&name, "name", "", "name of the organisation")
	c.Flags().StringVar(&address, "address", "", "HOST:PORT where the others reach this party")
	pass.register(c, true)
	return c
}

// fixedPort replaces port 0 by one that is free now.
func fixedPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", misusef("--address %q: write HOST:PORT", address)
	}
	if port != "0" {
		return address, nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port), err
}

func (a *app) hePartyPropose() *cobra.Command {
	var plan planFlags
	var cards []string
	holders := program.Holders{}
	c := &cobra.Command{Use: "propose FILE", Short: "Plan a program for a key held together", Args: cobra.ExactArgs(1),
		Long: `Plans a program as keygen does, for a key that the members of the given cards hold together, and writes the proposal
that all of them make the key from. Decrypting together floods the noise by at least 2^40, which takes room: larger
parameters than for a key in one hand.`,
		Example: `  fednode he party propose proposal.json --member a.json --member b.json --member c.json --threshold 2 --program 'sum(x * y)' --column x=0..99 --column y=0..99 --rows 1000`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "member", "threshold"); err != nil {
				return err
			}
			var members []program.Member
			for _, path := range cards {
				b, err := readFile(path, 1<<20)
				if err != nil {
					return err
				}
				m, err := program.ParseMember(b)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				members = append(members, m)
			}
			holders.Parties = len(members)
			pl, err := plan.plan(holders)
			if err != nil {
				return err
			}
			p, err := program.NewProposal(pl, members)
			if err != nil {
				return err
			}
			b := p.Marshal()
			if err := writeWhole(args[0], b, 0o644); err != nil {
				return err
			}
			return a.print(json.RawMessage(b), func(w io.Writer) {
				fmt.Fprint(w, pl.Describe())
				fmt.Fprintf(w, "proposal    %s; give it to all members\n", args[0])
			})
		}}
	plan.register(c)
	c.Flags().StringArrayVar(&cards, "member", nil, "card of a member; once for each")
	c.Flags().IntVar(&holders.Threshold, "threshold", 0, "how many members it takes to decrypt")
	c.Flags().IntVar(&holders.Quota, "quota", 1, "how often a member helps to decrypt one ciphertext")
	_ = c.MarkFlagFilename("member", "json")
	return c
}

// meetFlags say who one is and how long to wait for the others.
type meetFlags struct {
	party, listen string
	wait          time.Duration
	pass          passphraseFlags
}

func (f *meetFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.party, "party", "", "directory of this party, as init makes it")
	c.Flags().StringVar(&f.listen, "listen", "", "HOST:PORT to listen on (default the address in the card)")
	c.Flags().DurationVar(&f.wait, "wait", 5*time.Minute, "how long to wait for the others to come")
	_ = c.MarkFlagDirname("party")
	f.pass.register(c, false)
}

// A partySelf is this party with its secrets open.
type partySelf struct {
	program.Member
	ring  *hsm.Keyring
	key   hsm.Key
	store *threshold.Store
}

func (p *partySelf) close() {
	p.key.Close()
	p.ring.Close()
}

func (a *app) openParty(f meetFlags) (*partySelf, error) {
	b, err := readFile(filepath.Join(f.party, partyCard), 1<<20)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is no party's directory, it has no %s: make one with fednode he party init", f.party, partyCard)
	}
	if err != nil {
		return nil, err
	}
	p := new(partySelf)
	if p.Member, err = program.ParseMember(b); err != nil {
		return nil, err
	}
	source, err := a.passphrase(f.pass, false)
	if err != nil {
		return nil, err
	}
	if p.ring, err = hsm.OpenKeyring(filepath.Join(f.party, partyKeyring), source); err != nil {
		return nil, err
	}
	if p.key, err = p.ring.Open(partyKey); err != nil {
		p.ring.Close()
		return nil, err
	}
	if p.store, err = threshold.OpenStore(filepath.Join(f.party, partyShares), p.ring.Sealer()); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// meet connects to the other members and opens a session of the given name.
func (a *app) meet(ctx context.Context, f meetFlags, p *partySelf, name string, members []program.Member, self int) (*compute.Session, io.Closer, error) {
	if !ed25519.PublicKey(members[self].Key).Equal(p.key.Public()) {
		return nil, nil, fmt.Errorf("the key of %s in %s is not the one that the others know", p.Name, f.party)
	}
	listen := f.listen
	if listen == "" {
		listen = members[self].Address
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, nil, err
	}
	var addresses []string
	for _, m := range members {
		addresses = append(addresses, m.Address)
	}
	a.stage("waiting for the others on " + listen)
	waiting, cancel := context.WithTimeoutCause(ctx, f.wait, fmt.Errorf("not all came within %s", f.wait))
	defer cancel()
	roster := program.RosterOf(members)
	link, err := compute.DialTCP(waiting, compute.TCPConfig{Roster: roster, Self: self, Key: p.key, Addresses: addresses, Listener: l})
	if err != nil {
		return nil, nil, err
	}
	s, err := compute.Open(ctx, link, compute.Config{Name: name, Roster: roster, Self: self, Key: p.key})
	if err != nil {
		link.Close()
		return nil, nil, err
	}
	return s, link, nil
}

// stage says what a joint command is doing: others may keep it waiting.
func (a *app) stage(doing string) { fmt.Fprintln(a.err, doing) }

func (a *app) hePartyKeygen() *cobra.Command {
	var proposal string
	var meet meetFlags
	c := &cobra.Command{Use: "keygen DIR", Short: "Make a key together with the members of a proposal", Args: cobra.ExactArgs(1),
		Long: `Makes the key that a proposal plans, with all its members, who run this command at the same time. Writes the public keys
to DIR, the same at every member; this member's share goes to the directory of --party and stays there, sealed. A member
that cheats or does not answer is named. Nobody has the whole key at any time.`,
		Example: "  fednode he party keygen keys --proposal proposal.json --party me",
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "proposal", "party"); err != nil {
				return err
			}
			b, err := readFile(proposal, 4<<20)
			if err != nil {
				return err
			}
			p, err := program.ParseProposal(b)
			if err != nil {
				return fmt.Errorf("%s: %w", proposal, err)
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return fmt.Errorf("%s is there already: keys are not overwritten; name another directory", args[0])
			}
			self, err := a.openParty(meet)
			if err != nil {
				return err
			}
			defer self.close()
			place := program.RosterOf(p.Members).Index(self.Name)
			if place < 0 {
				return fmt.Errorf("%s is no member of %s", self.Name, proposal)
			}
			s, link, err := a.meet(c.Context(), meet, self, "fednode/he/keygen", p.Members, place)
			if err != nil {
				return err
			}
			defer link.Close()
			k, err := p.CreateJointly(c.Context(), s, self.store, args[0], a.stage)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"keys": args[0], "key": k.ID.String(), "collective_key": k.Collective.ID().String()}, func(w io.Writer) {
				fmt.Fprint(w, k.Plan.Describe())
				fmt.Fprintf(w, "keys        %s, key %s; this party's share is in %s\n", args[0], k.ID, meet.party)
			})
		}}
	c.Flags().StringVar(&proposal, "proposal", "", "the proposal, as propose writes it")
	_ = c.MarkFlagFilename("proposal", "json")
	meet.register(c)
	return c
}

func (a *app) hePartyDecrypt() *cobra.Command {
	var keys, to string
	var with, from []string
	var meet meetFlags
	c := &cobra.Command{Use: "decrypt FILE", Short: "Decrypt results together", Args: cobra.ExactArgs(1),
		Long: `Decrypts a table of results with the members that --with names, this one included, who run this command at the same
time on the same file. Each of them gets the results. A member decrypts a ciphertext as often as the quota of the
proposal says, and counts on disk before it helps; with more members than it takes, shares are compared, and who computed
wrongly is named.

With --from, this member runs the program itself on the tables of columns, and helps only if the file is what comes of
them. Without, it takes whoever computed at their word: a file of results could hold somebody's column as it is.`,
		Example: `  fednode he party decrypt total.enc --keys keys --party me --with org-a,org-c,org-e --from doses.enc --from prices.enc`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "keys", "party", "with"); err != nil {
				return err
			}
			k, err := program.OpenKeys(keys)
			if err != nil {
				return err
			}
			if k.Collective == nil {
				return misusef("%s: the key is in one hand: use fednode he decrypt", keys)
			}
			t, err := readTable(k, args[0])
			if err != nil {
				return err
			}
			if !t.Results {
				return fmt.Errorf("%s holds encrypted columns, not results: what somebody encrypted is not decrypted as it is", args[0])
			}
			if err := a.recompute(c.Context(), k, t, args[0], from); err != nil {
				return err
			}
			self, err := a.openParty(meet)
			if err != nil {
				return err
			}
			defer self.close()
			members, place, err := k.Choose(self.Name, with)
			if err != nil {
				return err
			}
			s, link, err := a.meet(c.Context(), meet, self, "fednode/he/decrypt", members, place)
			if err != nil {
				return err
			}
			defer link.Close()
			tell, done := a.progress("decrypting")
			joint, err := k.DecryptJointly(c.Context(), s, self.store, t, tell)
			done()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			for _, group := range joint.Suspects {
				fmt.Fprintf(a.err, "fednode: shares contradict each other; computed wrongly by %s\n", clean(strings.Join(group, " and ")))
			}
			return a.printValues(joint.Values, to)
		}}
	keysFlag(c, &keys)
	toFlag(c, &to, "write columns to this CSV file")
	c.Flags().StringArrayVar(&from, "from", nil, "a table of columns that the results must come from; once for each")
	_ = c.MarkFlagFilename("from")
	c.Flags().StringSliceVar(&with, "with", nil, "the members who decrypt, separated by commas")
	meet.register(c)
	return c
}

func (a *app) hePartyRefresh() *cobra.Command {
	var keys string
	var promote bool
	var meet meetFlags
	c := &cobra.Command{Use: "refresh", Short: "Give all members new shares of the same key", Args: cobra.NoArgs,
		Long: `Deals the key anew among its members, who all run this command at the same time. Old shares are overwritten and fit no new
one, so that whoever stole some before gains nothing by stealing others later. Public keys, ciphertexts and quotas stay.

If a member's process ended in the middle and the others say that it succeeded there, --promote takes the share that this
member has stored by then.`,
		Example: "  fednode he party refresh --keys keys --party me",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := requireFlags(c, "keys", "party"); err != nil {
				return err
			}
			k, err := program.OpenKeys(keys)
			if err != nil {
				return err
			}
			if k.Collective == nil {
				return misusef("%s: the key is in one hand, there are no shares to refresh", keys)
			}
			self, err := a.openParty(meet)
			if err != nil {
				return err
			}
			defer self.close()
			var epoch int
			if promote {
				epoch, err = k.Promote(self.store)
			} else {
				epoch, err = a.refresh(c.Context(), k, self, meet)
			}
			if err != nil {
				return err
			}
			return a.print(map[string]any{"collective_key": k.Collective.ID().String(), "epoch": epoch}, func(w io.Writer) {
				fmt.Fprintf(w, "key %s: share of epoch %d\n", k.Collective.ID(), epoch)
			})
		}}
	keysFlag(c, &keys)
	c.Flags().BoolVar(&promote, "promote", false, "take the share that is stored and not yet in use; meets nobody")
	meet.register(c)
	return c
}

func (a *app) refresh(ctx context.Context, k *program.KeySet, self *partySelf, meet meetFlags) (int, error) {
	place := program.RosterOf(k.Members).Index(self.Name)
	if place < 0 {
		return 0, fmt.Errorf("%s holds no share of the key", self.Name)
	}
	s, link, err := a.meet(ctx, meet, self, "fednode/he/refresh", k.Members, place)
	if err != nil {
		return 0, err
	}
	defer link.Close()
	return k.Refresh(ctx, s, self.store)
}

// recompute runs the program on the tables of columns and refuses results that are not what comes of them.
func (a *app) recompute(ctx context.Context, k *program.KeySet, results *program.Table, file string, from []string) error {
	if len(from) == 0 {
		return nil
	}
	a.stage("computing the results again")
	again, err := evaluate(ctx, k, from, runtime.NumCPU(), nil)
	if err != nil {
		return err
	}
	if !program.Same(results, again) {
		return fmt.Errorf("%s is not what the program makes of %s: it may hold what was not to be decrypted; ask who computed it", file, strings.Join(from, " and "))
	}
	return nil
}
