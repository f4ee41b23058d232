// Package cli is the fednode command line.
//
// Its three nouns: the command table, one file a command; the printer, which writes a table for people or JSON for
// programs; the exit code: 0 done, 1 failed, 2 misuse.
//
// It promises: commands that look at or change a running node go through its local API (package ui) and nothing else;
// errors go to standard error and say what to do next; colour only on a terminal.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fednode/flow/agent"
	"fednode/ui"
	"fednode/ui/cli/quiet"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitMisuse = 2
)

// DefaultDir is where a node installed as a service keeps its data.
const DefaultDir = "/var/lib/fednode"

// misuse marks an error that is the caller's.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

func misusef(format string, a ...any) error { return misuse{fmt.Errorf(format, a...)} }

// app is what all commands share: the global flags and where output goes.
type app struct {
	dir    string
	output string
	in     io.Reader
	out    io.Writer
	err    io.Writer
}

// Main runs the command line with args, without the program's name, and returns the exit code.
func Main(args []string) int {
	quiet.End()
	if len(args) > 0 && args[0] == agent.WorkerArg {
		return agent.WorkerMain()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var m misuse
	var p *ui.Problem
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(errw, "fednode: interrupted")
		return exitFailed
	case errors.As(err, &m), errors.As(err, &p) && p.Code == "misuse":
		fmt.Fprintln(errw, "fednode:", cleanLines(err.Error()))
		return exitMisuse
	case errors.Is(err, errSilent):
		return exitFailed
	}
	fmt.Fprintln(errw, "fednode:", cleanLines(err.Error()))
	return exitFailed
}

// errSilent fails a command that has already said why.
var errSilent = errors.New("failed")

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fednode",
		Short: "Make this server a member of a federation",
		Long: `fednode turns this server into a member of a federation: organisations that keep their own data, keys and say,
and run workflows together under agreements that all of them have signed, recorded in ledgers that anyone can verify.

Start with:  fednode demo, then fednode init or fednode join`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misusef("unknown command %q; %s", args[0], suggest(c, args[0]))
			}
			return c.Help()
		},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if a.output != "table" && a.output != "json" {
				return misusef("--output %q: use table or json", a.output)
			}
			return nil
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return misusef("%w; see %s --help", err, c.CommandPath())
	})
	dir := os.Getenv("FEDNODE_DIR")
	if dir == "" {
		dir = DefaultDir
	}
	root.PersistentFlags().StringVarP(&a.dir, "directory", "D", dir, "data directory of the node (or $FEDNODE_DIR)")
	root.PersistentFlags().Lookup("directory").DefValue = DefaultDir // what help and manual show, whoever prints them
	root.PersistentFlags().StringVar(&a.output, "output", "table", "output format: table or json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.MarkPersistentFlagDirname("directory")
	root.AddCommand(a.init(), a.invite(), a.join(), a.runCommand(), a.status(), a.doctor(), a.members(), a.charter(), a.ca(), a.check(),
		a.apply(), a.flow(), a.policy(), a.audit(), a.agents(), a.he(), a.demo(), a.version(), a.man())
	root.SetHelpCommand(helpCommand())
	root.InitDefaultCompletionCmd() // now, so that it is held to what the others are
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

func helpCommand() *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]", Short: "Show the help of a command", Example: "  fednode help flow accept",
		RunE: func(c *cobra.Command, args []string) error {
			target, rest, err := c.Root().Find(args)
			if err != nil {
				return misuse{err}
			}
			if len(rest) > 0 {
				return misusef("unknown command %q for %s; %s", rest[0], target.CommandPath(), suggest(target, rest[0]))
			}
			return target.Help()
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			if target, rest, err := c.Root().Find(args); err == nil && len(rest) == 0 {
				for _, sub := range target.Commands() {
					if sub.IsAvailableCommand() {
						out = append(out, sub.Name()+"\t"+sub.Short)
					}
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}}
}

// suggest names the commands nearest to what was typed.
func suggest(c *cobra.Command, typed string) string {
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(typed); len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	return "see " + c.CommandPath() + " --help"
}

// wrapArgs makes wrong arguments misuse, here and in all subcommands. A command that only groups others says which
// there are.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			switch err := check(c, args); {
			case err == nil:
				return nil
			case len(args) == 0:
				return misusef("an argument is missing; usage: %s", c.UseLine())
			default:
				return misusef("arguments %q do not fit; usage: %s", args, c.UseLine())
			}
		}
	}
	if c.RunE == nil && c.Run == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misusef("unknown command %q for %s; %s", args[0], c.CommandPath(), suggest(c, args[0]))
			}
			return c.Help()
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// client returns a client of the node on the data directory.
func (a *app) client() *ui.Client { return ui.NewClient(a.dir) }
