package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fednode/compute/he/program"
	"fednode/hsm"
	"fednode/hsm/durable"
)

func (a *app) he() *cobra.Command {
	c := &cobra.Command{Use: "he", Short: "Compute on encrypted columns of numbers",
		Long: `Homomorphic encryption (BFV): whoever holds the key encrypts nothing itself and is given only the results; whoever
computes sees no number. A program of additions, subtractions, multiplications, constants and sums over columns is
planned first: depth, noise and the range of every result. Parameters come from the table of the
HomomorphicEncryption.org standard for 128-bit security; a program that none of them holds is refused with the reason,
before anything is encrypted.

The holder makes the keys, sends all but the secret to the others, who encrypt columns; anyone evaluates; the holder
decrypts.`,
		Example: `  fednode he keygen keys --program 'sum(price * quantity)' --column price=0..100000 --column quantity=0..1000 --rows 5000
  fednode he encrypt prices.csv --keys keys --to prices.enc
  fednode he encrypt quantities.csv --keys keys --to quantities.enc
  fednode he eval prices.enc quantities.enc --keys keys --to total.enc
  fednode he decrypt total.enc --keys keys`}
	c.AddCommand(a.heKeygen(), a.heEncrypt(), a.heEval(), a.heDecrypt(), a.heInspect(), a.heParty(), a.heExample())
	return c
}

// passphraseFlags say where the passphrase of a key set is read.
type passphraseFlags struct {
	file, env   string
	unprotected bool
}

func (p *passphraseFlags) register(c *cobra.Command, create bool) {
	c.Flags().StringVar(&p.file, "passphrase-file", "", "read the passphrase of the secret key from this file, which only its owner may read")
	c.Flags().StringVar(&p.env, "passphrase-env", "", "read the passphrase from this environment variable")
	c.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-env")
	_ = c.MarkFlagFilename("passphrase-file")
	if create {
		c.Flags().BoolVar(&p.unprotected, "unprotected", false, "keep the secret key without a passphrase: whoever reads the disk has it")
	} else {
		c.Flags().BoolVar(&p.unprotected, "unprotected", false, "the secret key has no passphrase")
	}
	c.MarkFlagsMutuallyExclusive("passphrase-file", "unprotected")
	c.MarkFlagsMutuallyExclusive("passphrase-env", "unprotected")
}

// passphrase returns the source of the passphrase: a flag, or the terminal, asked twice for a new one.
func (a *app) passphrase(p passphraseFlags, create bool) (hsm.Passphrase, error) {
	switch {
	case p.file != "":
		return hsm.PassphraseFile(p.file), nil
	case p.env != "":
		return hsm.PassphraseEnv(p.env), nil
	case p.unprotected:
		return hsm.Unprotected(), nil
	}
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return hsm.Passphrase{}, misusef("no passphrase for the secret key: use --passphrase-file, --passphrase-env or --unprotected, or a terminal")
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(a.err, prompt)
		defer fmt.Fprintln(a.err)
		return term.ReadPassword(int(f.Fd()))
	}
	secret, err := ask("Passphrase of the secret key: ")
	if err != nil {
		return hsm.Passphrase{}, err
	}
	defer clear(secret)
	if create {
		again, err := ask("The same again: ")
		if err != nil {
			return hsm.Passphrase{}, err
		}
		defer clear(again)
		if string(secret) != string(again) {
			return hsm.Passphrase{}, misusef("the two passphrases differ")
		}
	}
	return hsm.PassphraseBytes(secret), nil
}

// progress tells a terminal how far a command is; nothing else.
func (a *app) progress(doing string) (tell program.Progress, done func()) {
	f, ok := a.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil, func() {}
	}
	return func(n, of int) { fmt.Fprintf(f, "\r%s: %d of %d", doing, n, of) }, func() { fmt.Fprint(f, "\r\x1b[K") }
}

// writeWhole writes a file that must not exist yet.
func writeWhole(path string, b []byte, mode os.FileMode) error {
	err := durable.Create(path, b, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; name another file, or remove it", path)
	}
	return err
}

// maxTable bounds the tables that are read to memory.
const maxTable = 4 << 30

func readTable(k *program.KeySet, path string) (*program.Table, error) {
	b, err := readFile(path, maxTable)
	if err != nil {
		return nil, err
	}
	t, err := program.ParseTable(k.Plan, k.ID, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// tableReport is what commands say of a table that they wrote.
type tableReport struct {
	File    string         `json:"file"`
	Bytes   int            `json:"bytes"`
	Plan    string         `json:"plan"`
	Key     string         `json:"key"`
	Results bool           `json:"results"`
	Columns []columnReport `json:"columns"`
}

type columnReport struct {
	Name        string `json:"name"`
	Rows        int    `json:"rows"`
	Total       bool   `json:"total"`
	Ciphertexts int    `json:"ciphertexts"`
}

func reportTable(t *program.Table, file string, size int) tableReport {
	r := tableReport{File: file, Bytes: size, Plan: fmt.Sprintf("%x", t.Plan[:6]), Key: t.Key.String(), Results: t.Results}
	for _, c := range t.Columns {
		r.Columns = append(r.Columns, columnReport{c.Name, c.Rows, c.Total, len(c.Parts)})
	}
	return r
}

func (r tableReport) write(w io.Writer) {
	var lines [][]string
	for _, c := range r.Columns {
		what := plural(c.Rows, "row")
		if c.Total {
			what = "one number"
		}
		lines = append(lines, []string{"  " + clean(c.Name), what, plural(c.Ciphertexts, "ciphertext")})
	}
	kind := "encrypted columns"
	if r.Results {
		kind = "encrypted results"
	}
	fmt.Fprintf(w, "%s: %s, %s, plan %s, key %s\n", r.File, kind, size(int64(r.Bytes)), r.Plan, r.Key)
	rows(w, lines)
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return plural(n, "byte")
}

// requireFlags makes flags obligatory, in the words of the house.
func requireFlags(c *cobra.Command, names ...string) error {
	var missing []string
	for _, name := range names {
		if !c.Flags().Changed(name) {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return misusef("%s missing; see %s --help", strings.Join(missing, " and "), c.CommandPath())
	}
	return nil
}
