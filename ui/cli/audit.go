package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fednode/hsm/durable"
	"fednode/node"
	"fednode/store/ledger"
	"fednode/ui"
)

func (a *app) audit() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Read, prove, export and verify the ledger",
		Long: `Every organisation writes its own append-only log: requests, replies and refusals of both sides, decisions, approvals.
What it exports, anyone can verify offline: with fednode audit verify, or with public tools for the C2SP formats.`,
		Example: "  fednode audit log\n  fednode audit export org-a.tar\n  fednode audit verify org-a.tar"}
	c.AddCommand(a.auditLog(), a.auditShow(), a.auditProve(), a.auditExport(), a.auditVerify())
	return c
}

func (a *app) auditLog() *cobra.Command {
	var q ui.EntryQuery
	var category string
	c := &cobra.Command{Use: "log", Short: "List entries of the own log", Args: cobra.NoArgs,
		Long:    "Lists the last entries, or with --from those from an index on; with --category and --run, of those that match.",
		Example: "  fednode audit log\n  fednode audit log --from 0 --limit 20\n  fednode audit log --category policy_enforcement --run run-5f1c…",
		RunE: func(c *cobra.Command, _ []string) error {
			q.Category = ledger.Category(category)
			if category != "" && q.Category.Fields() == nil {
				return misusef("--category %q: use one of %s", category, strings.Join(categories(), ", "))
			}
			if q.Limit < 1 {
				return misusef("--limit %d: use 1 or more", q.Limit)
			}
			if !c.Flags().Changed("from") {
				q.From = -q.Limit
			}
			entries, err := a.client().Entries(c.Context(), q)
			if err != nil {
				return err
			}
			lines := [][]string{{"INDEX", "TIME", "CATEGORY", "TYPE", "ACTION", "RESULT", "ABOUT"}}
			for _, x := range entries {
				var e ledger.Entry
				if err := json.Unmarshal(x.Entry, &e); err != nil {
					return err
				}
				about := e.Reference
				if about == "" {
					about = e.Resource
				}
				lines = append(lines, []string{strconv.FormatInt(x.Index, 10), when(e.Timestamp), string(e.Category), e.Type, e.Action, e.Result, clean(about)})
			}
			return a.print(entries, func(w io.Writer) { rows(w, lines) })
		}}
	c.Flags().Int64Var(&q.From, "from", 0, "first index; negative: as many of the last (default the last --limit)")
	c.Flags().Int64Var(&q.Limit, "limit", 100, "how many at most")
	c.Flags().StringVar(&category, "category", "", "only entries of this category: "+strings.Join(categories(), ", "))
	c.Flags().StringVar(&q.Reference, "run", "", "only entries about this run, or run/step")
	_ = c.RegisterFlagCompletionFunc("category", cobra.FixedCompletions(categories(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("run", a.completeRuns)
	return c
}

func categories() []string {
	return []string{string(ledger.Authentication), string(ledger.Authorization), string(ledger.DataAccess), string(ledger.PolicyEnforcement), string(ledger.FederationManagement)}
}

func (a *app) auditShow() *cobra.Command {
	return &cobra.Command{Use: "show INDEX", Short: "Show one entry in full", Args: cobra.ExactArgs(1), Example: "  fednode audit show 17",
		RunE: func(c *cobra.Command, args []string) error {
			i, err := index(args[0])
			if err != nil {
				return err
			}
			entries, err := a.client().Entries(c.Context(), ui.EntryQuery{From: i, Limit: 1})
			if err != nil {
				return err
			}
			if len(entries) == 0 {
				return fmt.Errorf("the log has no entry %d; see fednode audit log", i)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, entries[0].Entry, "", "  "); err != nil {
				return err
			}
			return a.print(entries[0], func(w io.Writer) { fmt.Fprintln(w, pretty.String()) })
		}}
}

func index(s string) (int64, error) {
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil || i < 0 {
		return 0, misusef("%q is not an index: a number from 0 on, see fednode audit log", s)
	}
	return i, nil
}

func (a *app) auditProve() *cobra.Command {
	var out string
	var tlog bool
	c := &cobra.Command{Use: "prove RUN|INDEX", Short: "Write a proof of what concerns a run, or of one entry", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Long: `Writes one file that anyone can verify offline: the members from genesis on, each entry with its inclusion proof, and for
each message received its sender's receipt. With --tlog-proof, only the C2SP tlog-proof of one entry.`,
		Example: "  fednode audit prove run-5f1c…\n  fednode audit prove 17 --file - | fednode audit verify -\n  fednode audit prove 17 --tlog-proof --file 17.tlog-proof",
		RunE: func(c *cobra.Command, args []string) error {
			cl := a.client()
			var data bytes.Buffer
			i, err := strconv.ParseInt(args[0], 10, 64)
			switch {
			case err == nil && tlog:
				err = cl.Proof(c.Context(), i, &data)
			case err == nil:
				err = cl.ProveEntry(c.Context(), i, &data)
			case tlog:
				return misusef("--tlog-proof is of one entry: give its index, not a run")
			default:
				err = cl.ProveRun(c.Context(), args[0], &data)
			}
			if err != nil {
				return err
			}
			if out == "-" {
				_, err := data.WriteTo(a.out)
				return err
			}
			if out == "" {
				out = args[0] + ".proof"
			}
			if err := writeNew(out, data.Bytes()); err != nil {
				return err
			}
			return a.print(map[string]string{"file": out}, func(w io.Writer) {
				if tlog {
					fmt.Fprintf(w, "%s %s: the proof alone; who verifies it needs the entry and the log's key too\n", a.paint().good("✓"), out)
					return
				}
				fmt.Fprintf(w, "%s %s: verify it anywhere with: fednode audit verify %s\n", a.paint().good("✓"), out, out)
			})
		}}
	c.Flags().StringVar(&out, "file", "", "file to write, or - for standard output (default RUN.proof)")
	c.Flags().BoolVar(&tlog, "tlog-proof", false, "only the C2SP tlog-proof of one entry")
	_ = c.MarkFlagFilename("file")
	return c
}

// writeNew writes a file that must not be there yet.
func writeNew(name string, data []byte) error {
	err := durable.Create(name, data, 0o644|durable.Masked)
	if errors.Is(err, os.ErrExist) {
		return misusef("%s exists already; name another with --file", name)
	}
	return err
}

func (a *app) auditExport() *cobra.Command {
	return &cobra.Command{Use: "export DIR|FILE.tar", Short: "Write the audit archive: governance log, own log, receipts", Args: cobra.ExactArgs(1),
		Long: `The log in it is a static tlog-tiles directory, which public tools read. The archive holds no payload and no personal data:
payloads and users are committed to, with salts that stay here.`,
		Example: "  fednode audit export ./org-a-2026-11\n  fednode audit export org-a.tar",
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := os.Lstat(args[0]); err == nil {
				return misusef("%s exists already; name another", args[0])
			}
			r, w := io.Pipe()
			go func() { w.CloseWithError(a.client().Archive(c.Context(), w)) }()
			err := node.Save(r, args[0])
			r.CloseWithError(err)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"archive": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s: verify it anywhere with: fednode audit verify %s\n", a.paint().good("✓"), args[0], args[0])
			})
		}}
}

func (a *app) auditVerify() *cobra.Command {
	var live bool
	var federation string
	c := &cobra.Command{Use: "verify DIR|FILE... | --live", Short: "Verify archives and proofs, offline",
		Long: `Verifies, with nothing but the files: the governance log from genesis; every entry, tile and the signed checkpoint of the
log; the signature of every message; and for each message received, that its sender's log holds it. Several archives of one
federation are also held against each other. --live verifies the running node's own log. Exits 1 if anything does not hold.

--federation pins the federation by its id, which you know from elsewhere: without it, what is verified is that the files
agree with themselves.`,
		Example: "  fednode audit verify ./org-a-2026-11\n  fednode audit verify org-a.tar org-b.tar org-c.tar --federation 5d41…\n  fednode audit verify run-5f1c….proof\n  fednode audit verify --live",
		RunE: func(c *cobra.Command, args []string) error {
			if live == (len(args) > 0) {
				return misusef("name archives or proofs, or give --live")
			}
			v := &verifier{app: a, federation: federation}
			defer v.clean()
			if live {
				r, w := io.Pipe()
				go func() { w.CloseWithError(a.client().Archive(c.Context(), w)) }()
				err := v.tar(a.dir, r)
				r.CloseWithError(err)
				if err != nil {
					return err
				}
			}
			for _, name := range args {
				if err := v.path(name); err != nil {
					return named(name, err)
				}
			}
			if len(v.archives) > 1 {
				if err := node.CrossCheck(v.archives); err != nil {
					return err
				}
			}
			return a.print(v.done, func(w io.Writer) { v.table(w) })
		}}
	c.Flags().BoolVar(&live, "live", false, "verify the running node's log")
	c.Flags().StringVar(&federation, "federation", "", "id that the federation must have")
	return c
}

// A verified is one file's verification.
type verified struct {
	File  string `json:"file"`
	About string `json:"about,omitempty"` // of a proof
	*node.Verification
}

type verifier struct {
	*app
	federation string
	archives   []*node.Archived
	done       []verified
	temporary  []string
}

func (v *verifier) clean() {
	for _, dir := range v.temporary {
		os.RemoveAll(dir)
	}
}

// named says which file an error is about, unless it does so itself.
func named(file string, err error) error {
	if pe := new(fs.PathError); errors.As(err, &pe) && pe.Path == file {
		return err
	}
	return fmt.Errorf("%s: %w", file, err)
}

// path verifies a directory, a tar file or a proof file, or standard input, which is a proof.
func (v *verifier) path(name string) error {
	if name == "-" {
		data, err := io.ReadAll(io.LimitReader(v.in, 64<<20+1))
		if err != nil {
			return err
		}
		return v.proof(name, data)
	}
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return v.dir(name, name)
	}
	if filepath.Ext(name) == ".tar" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return v.tar(name, f)
	}
	data, err := readFile(name, 64<<20)
	if err != nil {
		return err
	}
	return v.proof(name, data)
}

func (v *verifier) tar(name string, r io.Reader) error {
	dir, err := os.MkdirTemp("", "fednode-audit-")
	if err != nil {
		return err
	}
	v.temporary = append(v.temporary, dir)
	if err := node.Unpack(r, dir); err != nil {
		return err
	}
	return v.dir(name, dir)
}

func (v *verifier) dir(name, dir string) error {
	ar, err := node.OpenArchive(os.DirFS(dir), v.federation)
	if err != nil {
		return err
	}
	report, err := ar.Verify()
	if err != nil {
		return err
	}
	v.archives = append(v.archives, ar)
	v.done = append(v.done, verified{name, "", report})
	return nil
}

func (v *verifier) proof(name string, data []byte) error {
	if bytes.HasPrefix(data, []byte("c2sp.org/tlog-proof@")) {
		return misusef("a bare tlog-proof holds neither the entry nor the members' keys; write the proof without --tlog-proof")
	}
	report, about, err := node.VerifyProof(data, v.federation)
	if err != nil {
		return err
	}
	v.done = append(v.done, verified{name, about, report})
	return nil
}

func (v *verifier) table(w io.Writer) {
	p := v.paint()
	for _, d := range v.done {
		what := fmt.Sprintf("log of %s, %s, root %s", d.Organization, entries(d.Entries), short(d.Root))
		if d.About != "" {
			what = fmt.Sprintf("%s: %s proven in the log of %s", clean(d.About), entries(d.Entries), d.Organization)
		}
		fmt.Fprintf(w, "%s %s: %s\n", p.good("✓"), d.File, what)
		fmt.Fprintf(w, "  %s, %s of other organisations\n", plural(d.Envelopes, "signed message"), plural(d.Receipts, "receipt"))
	}
	if len(v.archives) > 1 {
		fmt.Fprintf(w, "%s held against each other: no log contradicts a receipt, a checkpoint or another archive\n", p.good("✓"))
	}
	ids := []string{}
	for _, d := range v.done {
		if !slices.Contains(ids, d.FederationID) {
			ids = append(ids, d.FederationID)
			fmt.Fprintf(w, "  federation %s %s, %s, governance log of %s from genesis\n", clean(d.Federation), d.FederationID, plural(d.Members, "member"), entries(d.Governance))
		}
	}
	if v.federation == "" {
		fmt.Fprintln(w, p.dim("  Compare the federation id with one you know from elsewhere, or pin it with --federation."))
	}
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
