package cli

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fednode/compute/he/program"
	"fednode/compute/he/ring"
)

//go:embed example/run.sh
var exampleScript []byte

const exampleProgram = `# what the doses of all patients cost together, in cents
cost = sum(doses * price)
`

func (a *app) heExample() *cobra.Command {
	var patients int
	var seed int64
	c := &cobra.Command{Use: "example DIR", Short: "Write a worked example: two organisations' data, a program and a script", Args: cobra.ExactArgs(1),
		Long: `Writes made-up data of two organisations (doses given to patients, and what a dose costs), the program cost =
sum(doses * price), what comes out in the clear, and run.sh: five organisations make a key that none of them has, two
encrypt their columns, one computes, three of the five decrypt. Read the script, then run it.

The data is a function of --seed and --patients.`,
		Example: "  fednode he example ex && sh ex/run.sh\n  fednode he example ex --patients 20000 --seed 7",
		RunE: func(c *cobra.Command, args []string) error {
			if patients < 1 || patients > program.MaxRows {
				return misusef("--patients %d: use 1 to %d", patients, program.MaxRows)
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return misusef("%s is there already; name another directory", args[0])
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			files, cost := exampleFiles(patients, seed)
			quoted := "'" + strings.ReplaceAll(self, "'", `'\''`) + "'"
			files["run.sh"] = strings.Replace(files["run.sh"], "${FEDNODE:-fednode}", "${FEDNODE:-"+quoted+"}", 1)
			for name, text := range files {
				path := filepath.Join(args[0], name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					return err
				}
			}
			for _, org := range []string{"org-c", "org-d", "org-e"} {
				if err := os.MkdirAll(filepath.Join(args[0], org), 0o755); err != nil {
					return err
				}
			}
			return a.print(map[string]any{"directory": args[0], "patients": patients, "seed": seed, "cost": strconv.FormatInt(cost, 10)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s of org-a and org-b; next: sh %s\n", args[0], plural(patients, "row"), filepath.Join(args[0], "run.sh"))
			})
		}}
	c.Flags().IntVar(&patients, "patients", 2000, "how many rows of data")
	c.Flags().Int64Var(&seed, "seed", 1, "other data for other numbers")
	return c
}

// exampleFiles makes up the data, and returns the files and what the program comes to.
func exampleFiles(patients int, seed int64) (files map[string]string, cost int64) {
	var key ring.Seed
	copy(key[:], strconv.FormatInt(seed, 10))
	src := ring.NewSource(key, "fednode/he/example")
	var doses, prices strings.Builder
	doses.WriteString("patient,doses\n")
	prices.WriteString("patient,price\n")
	for i := range patients {
		d, p := int64(src.Word()>>32*13>>32), 50+int64(src.Word()>>32*24951>>32)
		fmt.Fprintf(&doses, "%d,%d\n", i+1, d)
		fmt.Fprintf(&prices, "%d,%d\n", i+1, p)
		cost += d * p
	}
	return map[string]string{
		"org-a/doses.csv": doses.String(), "org-b/prices.csv": prices.String(), "program.txt": exampleProgram,
		"rows.txt": fmt.Sprintln(patients), "expected.txt": fmt.Sprintf("cost  %d\n", cost), "run.sh": string(exampleScript),
	}, cost
}
