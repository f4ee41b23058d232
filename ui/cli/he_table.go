package cli

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fednode/compute/he"
	"fednode/compute/he/program"
)

func (a *app) heEncrypt() *cobra.Command {
	var keys, to string
	c := &cobra.Command{Use: "encrypt FILE.csv", Short: "Encrypt the columns that a plan uses", Args: cobra.ExactArgs(1),
		Long: `Encrypts those columns of a CSV file that the plan's program uses, under the public key in the directory of --keys,
which needs no secret. The first line of the file names the columns. A number outside the bounds that the plan gives its
column is refused, and nothing is written.`,
		Example: "  fednode he encrypt prices.csv --keys keys --to prices.enc",
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "keys", "to"); err != nil {
				return err
			}
			k, err := program.OpenKeys(keys)
			if err != nil {
				return err
			}
			columns, err := readCSV(args[0], k.Plan.Program().Columns(), k.Plan.Rows())
			if err != nil {
				return err
			}
			tell, done := a.progress("encrypting")
			t, err := program.Encrypt(c.Context(), k.Plan, k.Public, k.ID, columns, tell)
			done()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			var rest []string
			for _, name := range k.Plan.Program().Columns() {
				if !slices.ContainsFunc(columns, func(v program.Values) bool { return v.Name == name }) {
					rest = append(rest, name)
				}
			}
			return a.writeTable(t, to, func(w io.Writer) {
				if len(rest) > 0 {
					fmt.Fprintf(w, "not in %s, and to come from another table: %s\n", args[0], strings.Join(rest, ", "))
				}
			})
		}}
	keysFlag(c, &keys)
	toFlag(c, &to, "write the encrypted columns to this file")
	return c
}

func keysFlag(c *cobra.Command, keys *string) {
	c.Flags().StringVar(keys, "keys", "", "directory of keys, as keygen makes it")
	_ = c.MarkFlagDirname("keys")
}

func toFlag(c *cobra.Command, to *string, usage string) {
	c.Flags().StringVar(to, "to", "", usage)
	_ = c.MarkFlagFilename("to")
}

func (a *app) writeTable(t *program.Table, to string, more func(io.Writer)) error {
	b, err := t.Marshal()
	if err != nil {
		return err
	}
	if err := writeWhole(to, b, 0o644); err != nil {
		return err
	}
	r := reportTable(t, to, len(b))
	return a.print(r, func(w io.Writer) {
		r.write(w)
		more(w)
	})
}

func (a *app) heEval() *cobra.Command {
	var keys, to string
	var workers int
	c := &cobra.Command{Use: "eval FILE…", Short: "Run a plan's program on encrypted columns", Args: cobra.MinimumNArgs(1),
		Long: `Runs the program of the plan on tables of encrypted columns, which between them have all columns that it uses, and
writes the encrypted results. It needs no secret and learns no number. Tables of another plan, under another key or with
another number of rows are refused.`,
		Example: "  fednode he eval prices.enc quantities.enc --keys keys --to total.enc",
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "keys", "to"); err != nil {
				return err
			}
			if workers < 1 || workers > 1024 {
				return misusef("--workers %d: use 1 to 1024", workers)
			}
			k, err := program.OpenKeys(keys)
			if err != nil {
				return err
			}
			tell, done := a.progress("computing")
			t, err := evaluate(c.Context(), k, args, workers, tell)
			done()
			if err != nil {
				return err
			}
			return a.writeTable(t, to, func(io.Writer) {})
		}}
	keysFlag(c, &keys)
	toFlag(c, &to, "write the encrypted results to this file")
	c.Flags().IntVar(&workers, "workers", runtime.NumCPU(), "processors to use")
	c.Flags().Lookup("workers").DefValue = "all"
	return c
}

// evaluate runs the program of a key set on tables in files.
func evaluate(ctx context.Context, k *program.KeySet, files []string, workers int, tell program.Progress) (*program.Table, error) {
	var tables []*program.Table
	for _, path := range files {
		t, err := readTable(k, path)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	keys, err := k.Evaluation()
	if err != nil {
		return nil, err
	}
	return program.Evaluate(ctx, k.Plan, keys, k.ID, tables, workers, tell)
}

// decrypted is what decrypt prints as JSON. Numbers are strings: they may have more digits than JSON's keep.
type decrypted struct {
	Name   string   `json:"name"`
	Total  bool     `json:"total"`
	Values []string `json:"values"`
}

func (a *app) heDecrypt() *cobra.Command {
	var keys, to string
	var pass passphraseFlags
	c := &cobra.Command{Use: "decrypt FILE", Short: "Decrypt results", Args: cobra.ExactArgs(1),
		Long: `Decrypts a table of results, or of columns, with the secret key in the directory of --keys. Totals are printed by name;
columns as CSV, to a file with --to. Whoever decrypts sees what there is: results only, if nothing else was handed over.

A table of another plan or another key is refused, and so is a ciphertext with more noise than decrypts with certainty.`,
		Example: "  fednode he decrypt total.enc --keys keys\n  fednode he decrypt rows.enc --keys keys --passphrase-file secret --to rows.csv",
		RunE: func(c *cobra.Command, args []string) error {
			if err := requireFlags(c, "keys"); err != nil {
				return err
			}
			k, err := program.OpenKeys(keys)
			if err != nil {
				return err
			}
			t, err := readTable(k, args[0])
			if err != nil {
				return err
			}
			source, err := a.passphrase(pass, false)
			if err != nil {
				return err
			}
			sk, err := k.Secret(source)
			if err != nil {
				return err
			}
			defer sk.Wipe()
			tell, done := a.progress("decrypting")
			values, err := program.Decrypt(k.Plan, sk, t, tell)
			done()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.printValues(values, to)
		}}
	keysFlag(c, &keys)
	toFlag(c, &to, "write columns to this CSV file")
	pass.register(c, false)
	return c
}

// printValues writes totals by name and columns as CSV.
func (a *app) printValues(values []program.Values, to string) error {
	var out []decrypted
	var totals [][]string
	var columns []program.Values
	for _, v := range values {
		d := decrypted{Name: v.Name, Total: v.Total}
		for _, x := range v.Rows {
			d.Values = append(d.Values, x.String())
		}
		out = append(out, d)
		if v.Total {
			totals = append(totals, []string{clean(v.Name), d.Values[0]})
		} else {
			columns = append(columns, v)
		}
	}
	if to != "" {
		if len(columns) == 0 {
			return misusef("--to: there is no column to write, the results are totals")
		}
		var b strings.Builder
		if err := writeCSV(&b, columns); err != nil {
			return err
		}
		if err := writeWhole(to, []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	var failed error
	err := a.print(out, func(w io.Writer) {
		rows(w, totals)
		if to != "" {
			fmt.Fprintf(w, "%s written to %s\n", plural(len(columns), "column"), to)
		} else if len(columns) > 0 {
			failed = writeCSV(w, columns)
		}
	})
	if err == nil {
		err = failed
	}
	return err
}

// writeCSV writes columns side by side; shorter ones end in empty fields.
func writeCSV(w io.Writer, columns []program.Values) error {
	out := csv.NewWriter(w)
	record := make([]string, len(columns))
	most := 0
	for i, v := range columns {
		record[i] = v.Name
		most = max(most, len(v.Rows))
	}
	if err := out.Write(record); err != nil {
		return err
	}
	for row := range most {
		for i, v := range columns {
			record[i] = ""
			if row < len(v.Rows) {
				record[i] = v.Rows[row].String()
			}
		}
		if err := out.Write(record); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// inspected is what inspect says of a file.
type inspected struct {
	File       string       `json:"file"`
	Bytes      int          `json:"bytes"`
	Kind       string       `json:"kind"`
	Parameters string       `json:"parameters,omitempty"`
	Plain      []uint64     `json:"plaintext_primes,omitempty"`
	ID         string       `json:"id,omitempty"`
	Level      int          `json:"level,omitempty"`
	Degree     int          `json:"degree,omitempty"`
	Noise      float64      `json:"noise_bits,omitempty"`
	Capacity   float64      `json:"capacity_bits,omitempty"`
	Table      *tableReport `json:"table,omitempty"`
	Plan       any          `json:"plan,omitempty"`
	Key        string       `json:"key,omitempty"`
	Secret     bool         `json:"secret,omitempty"`
}

func (a *app) heInspect() *cobra.Command {
	c := &cobra.Command{Use: "inspect FILE|DIR…", Short: "Say what keys, plans and encrypted files are", Args: cobra.MinimumNArgs(1),
		Long: `Says what files are, by their content: directories of keys, plans, tables of encrypted columns or results, single
ciphertexts and keys. It checks that they are whole, and needs no secret. The noise of a ciphertext is the worst-case
bound that its maker wrote into it.`,
		Example: "  fednode he inspect keys prices.enc total.enc\n  fednode he inspect keys/public.key --output json",
		RunE: func(c *cobra.Command, args []string) error {
			var all []inspected
			var texts []string
			for _, path := range args {
				x, text, err := inspect(path)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				all, texts = append(all, x), append(texts, text)
			}
			return a.print(all, func(w io.Writer) { fmt.Fprint(w, strings.Join(texts, "\n")) })
		}}
	return c
}

func inspect(path string) (inspected, string, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return inspectKeys(path)
	}
	b, err := readFile(path, maxTable)
	if err != nil {
		return inspected{}, "", err
	}
	x := inspected{File: path, Bytes: len(b)}
	var text strings.Builder
	switch {
	case program.IsTable(b):
		t, err := program.InspectTable(b)
		if err != nil {
			return x, "", err
		}
		r := reportTable(t, path, len(b))
		x.Kind, x.Table = "table", &r
		r.write(&text)
	case len(b) > 0 && b[0] == '{' || filepath.Ext(path) == ".json":
		pl, err := program.ParsePlan(b)
		if err != nil {
			return x, "", err
		}
		x.Kind, x.Plan = "plan", json.RawMessage(pl.Marshal())
		text.WriteString(pl.Describe())
	default:
		return inspectFile(x, b)
	}
	return x, text.String(), nil
}

func inspectFile(x inspected, b []byte) (inspected, string, error) {
	h, err := he.Inspect(b)
	if err != nil {
		return x, "", err
	}
	x.Kind, x.Parameters, x.Plain, x.ID = h.Kind.String(), h.Set.String(), h.Plain, fmt.Sprintf("%x", h.ID[:6])
	text := fmt.Sprintf("%s: %s of BFV %s, %s, identity %s\n", x.File, x.Kind, x.Parameters, size(int64(x.Bytes)), x.ID)
	if h.Kind != he.KindCiphertext {
		return x, text, nil
	}
	p, err := he.ParametersOf(b)
	if err != nil {
		return x, "", err
	}
	ct, err := p.ParseCiphertext(b)
	if err != nil {
		return x, "", err
	}
	x.Level, x.Degree, x.Noise, x.Capacity = ct.Level(), ct.Degree(), ct.Noise().Bits(), p.Capacity(ct.Level()).Bits()
	text += fmt.Sprintf("  plaintext primes %v, level %d, degree %d, noise at most 2^%.1f of the 2^%.1f that decrypt\n",
		x.Plain, x.Level, x.Degree, x.Noise, x.Capacity)
	return x, text, nil
}

func inspectKeys(dir string) (inspected, string, error) {
	k, err := program.OpenKeys(dir)
	if err != nil {
		return inspected{}, "", err
	}
	if _, err := k.Evaluation(); err != nil {
		return inspected{}, "", err
	}
	x := inspected{File: dir, Kind: "keys", Plan: json.RawMessage(k.Plan.Marshal()), Key: k.ID.String(), Secret: k.HasSecret()}
	secret := "without the secret key"
	if x.Secret {
		secret = "with the secret key, sealed"
	}
	return x, fmt.Sprintf("%s: keys, %s, key %s\n%s", dir, secret, x.Key, k.Plan.Describe()), nil
}
