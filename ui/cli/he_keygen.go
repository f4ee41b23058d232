package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fednode/compute/he/program"
)

// planFlags are what a plan is made of.
type planFlags struct {
	program, file string
	columns       []string
	measure       []string
	rows          int
}

func (f *planFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.program, "program", "", "the program: expressions of + - * ** constants, sum(…), len(…); lines NAME = EXPRESSION for several")
	c.Flags().StringVar(&f.file, "program-file", "", "read the program from this file")
	c.Flags().StringArrayVar(&f.columns, "column", nil, "a column and its bounds, NAME=MIN..MAX; once for each")
	c.Flags().StringArrayVar(&f.measure, "measure", nil, "take bounds and rows from the columns of this CSV file; the plan shows them to whoever gets it")
	c.Flags().IntVar(&f.rows, "rows", 0, "how many rows a column may have at most (default those measured)")
	c.MarkFlagsMutuallyExclusive("program", "program-file")
	_ = c.MarkFlagFilename("program-file")
	_ = c.MarkFlagFilename("measure", "csv")
}

// plan makes the plan for whoever holds the key.
func (f *planFlags) plan(holders program.Holders) (*program.Plan, error) {
	text := f.program
	if f.file != "" {
		b, err := readFile(f.file, 1<<20)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	if strings.TrimSpace(text) == "" {
		return nil, misusef("no program: use --program 'sum(price * quantity)' or --program-file FILE")
	}
	p, err := program.Parse(text)
	if err != nil {
		return nil, err
	}
	bounds, rows, err := f.bounds(p)
	if err != nil {
		return nil, err
	}
	return program.New(p, bounds, rows, holders)
}

func (f *planFlags) bounds(p *program.Program) (map[string]program.Range, int, error) {
	bounds, rows := map[string]program.Range{}, 0
	for _, path := range f.measure {
		columns, err := readCSV(path, p.Columns(), program.MaxRows)
		if err != nil {
			return nil, 0, err
		}
		for _, v := range columns {
			if bounds[v.Name], err = v.Measure(); err != nil {
				return nil, 0, fmt.Errorf("%s: column %s: %w", path, v.Name, err)
			}
			rows = max(rows, len(v.Rows))
		}
	}
	for _, text := range f.columns {
		name, r, ok := strings.Cut(text, "=")
		lo, hi, two := strings.Cut(r, "..")
		if !ok || !two || name == "" {
			return nil, 0, misusef("--column %q: write NAME=MIN..MAX, such as price=0..100000", text)
		}
		var err error
		if bounds[name], err = program.ParseRange(lo, hi); err != nil {
			return nil, 0, misusef("--column %q: %w", text, err)
		}
	}
	if f.rows != 0 {
		rows = f.rows
	}
	if rows == 0 {
		return nil, 0, misusef("how many rows may a column have? use --rows, or --measure FILE.csv")
	}
	return bounds, rows, nil
}

func readCSV(path string, names []string, maxRows int) ([]program.Values, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out, err := program.ReadColumns(f, names, maxRows)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

func (a *app) heKeygen() *cobra.Command {
	var plan planFlags
	var pass passphraseFlags
	var dry bool
	c := &cobra.Command{Use: "keygen DIR", Short: "Plan a program and make the keys that it takes", Args: cobra.MaximumNArgs(1),
		Long: `Plans a program and writes to DIR: plan.json, public.key, evaluation.keys and keys.json, which go to those who encrypt
and evaluate, and secret.sealed with its keyring, which stay. Nothing is written if no parameters hold the program: the
answer says whether it is depth, noise or range that is too much.

A program has one expression, or a line NAME = EXPRESSION for every result. Names are those of columns; sum(x) is the
total of a column, len(x) its number of rows, x ** 2 a power, let y = …; … a name for what is used twice. Numbers are
whole: scale others, say to cents. Columns with other names than letters and digits are $env["unit price"].`,
		Example: `  fednode he keygen keys --program 'sum(price * quantity)' --column price=0..100000 --column quantity=0..1000 --rows 5000
  fednode he keygen keys --program 'let d = a - b; sum(d * d)' --measure a.csv --measure b.csv --passphrase-file secret
  fednode he keygen --dry-run --program 'a ** 8' --column a=-10..10 --rows 100`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && !dry {
				return misusef("an argument is missing; usage: %s", c.UseLine())
			}
			pl, err := plan.plan(program.Alone)
			if errors.Is(err, program.ErrUnfit) {
				return fmt.Errorf("%w; nothing was written", err)
			}
			if err != nil {
				return err
			}
			if !dry {
				source, err := a.passphrase(pass, true)
				if err != nil {
					return err
				}
				if _, err := program.CreateKeys(args[0], pl, source); err != nil {
					return err
				}
			}
			return a.print(json.RawMessage(pl.Marshal()), func(w io.Writer) {
				fmt.Fprint(w, pl.Describe())
				if !dry {
					fmt.Fprintf(w, "keys        %s; give all of it away but secret.sealed and keyring\n", args[0])
				}
			})
		}}
	plan.register(c)
	pass.register(c, true)
	c.Flags().BoolVar(&dry, "dry-run", false, "plan, and make no keys")
	return c
}
