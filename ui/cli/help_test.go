package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func tree() *cobra.Command {
	return (&app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}).root()
}

// all returns a command and its subcommands, those of cobra's own completion excepted.
func all(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.Name() != "completion" {
			out = append(out, all(sub)...)
		}
	}
	return out
}

// called runs the command line up to the point at which the command would do its work, and returns the command.
func called(args []string) (*cobra.Command, error) {
	c, rest, err := tree().Find(args)
	if err != nil {
		return nil, err
	}
	if err := c.ParseFlags(rest); err != nil {
		return c, err
	}
	return c, c.ValidateArgs(c.Flags().Args())
}

// commandLines returns what a shell would run of each line: the words of every fednode in it.
func commandLines(text string) (out [][]string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		line, _, _ = strings.Cut(line, " >")
		for part := range strings.SplitSeq(strings.ReplaceAll(line, "&&", "|"), "|") {
			words := shellWords(part)
			if i := slices.IndexFunc(words, func(w string) bool { return w == "fednode" || w == "./fednode" }); i >= 0 {
				out = append(out, words[i+1:])
			}
		}
	}
	return out
}

var wordRE = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)

func shellWords(s string) (out []string) {
	for _, w := range wordRE.FindAllString(s, -1) {
		out = append(out, strings.Trim(w, `'"`))
	}
	return out
}

// TestHelpOfEveryCommand asks each command for its help, and holds its text to what the command takes.
func TestHelpOfEveryCommand(t *testing.T) {
	for _, c := range all(tree()) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 100 {
				t.Errorf("short text %q", c.Short)
			}
			var out, errw bytes.Buffer
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			if code := run(context.Background(), args, strings.NewReader(""), &out, &errw); code != exitOK || errw.Len() > 0 {
				t.Fatalf("exit code %d: %s", code, errw.String())
			}
			if !c.HasParent() {
				return
			}
			if !strings.Contains(out.String(), "Examples:\n"+c.Example) || c.Example == "" {
				t.Errorf("help shows no example:\n%s", out.String())
			}
			own := false
			for _, words := range commandLines(c.Example) {
				shown, err := called(words)
				if err != nil {
					t.Errorf("example %q: %v", words, err)
				} else if shown.CommandPath() == c.CommandPath() || strings.HasPrefix(shown.CommandPath(), c.CommandPath()+" ") {
					own = true
				}
			}
			if !own {
				t.Errorf("no example is of the command:\n%s", c.Example)
			}
			c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
					t.Errorf("--%s: usage %q", f.Name, f.Usage)
				}
			})
		})
	}
}

var flagRE = regexp.MustCompile(`--[a-z][a-z-]*`)

// TestTextsNameOnlyWhatExists reads the flags and commands that help and documents mention.
func TestTextsNameOnlyWhatExists(t *testing.T) {
	texts := map[string]string{}
	known := map[string]bool{"--help": true}
	for _, c := range all(tree()) {
		mentioned := c.Short + "\n" + c.Long
		add := func(f *pflag.Flag) {
			known["--"+f.Name] = true
			mentioned += "\n" + f.Usage
		}
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		texts[c.CommandPath()] = mentioned
	}
	root := filepath.Join("..", "..")
	for _, name := range []string{"README.md", "packaging/doc/AGENTS.md", "packaging/doc/ARCHITECTURE.md", "packaging/doc/CONFIG.md", "packaging/doc/THREATS.md"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(b)
	}
	held := 0
	for where, text := range texts {
		for _, words := range commandLines(joinContinued(text)) {
			if len(words) == 0 || strings.ContainsAny(words[0], "=.,;:`)") {
				continue // prose
			}
			if c, _, err := tree().Find(words); err != nil || !c.HasParent() {
				continue // prose, too
			}
			if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") }) {
				continue // perhaps without the arguments that it would need
			}
			held++
			if _, err := called(words); err != nil {
				t.Errorf("%s: fednode %s: %v", where, strings.Join(words, " "), err)
			}
		}
		if strings.HasPrefix(where, "fednode") {
			for _, f := range flagRE.FindAllString(text, -1) {
				if !known[f] {
					t.Errorf("%s mentions %s, which is no flag", where, f)
				}
			}
		}
	}
	if held < 5 {
		t.Errorf("%d command lines with flags were found; the README alone has more", held)
	}
}

// joinContinued joins lines that end in a backslash with the next.
func joinContinued(text string) string { return strings.ReplaceAll(text, "\\\n", " ") }

// groupRE finds a command that only groups others, and the word after it.
var groupRE = regexp.MustCompile(`fednode (flow|audit|members|agents|policy|he) ([a-z]+)`)

// TestMendsNameCommandsThatExist reads the commands that the program tells its users to run.
func TestMendsNameCommandsThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() && e.Name() == "dist" {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range groupRE.FindAllStringSubmatch(string(b), -1) {
			seen++
			if c, _, err := tree().Find(m[1:]); err != nil || c.Name() != m[2] {
				t.Errorf("%s: there is no command %s", path, m[0])
			}
		}
		return nil
	})
	if err != nil || seen < 20 {
		t.Errorf("%d commands seen: %v", seen, err)
	}
}

// TestManualPages writes the manual, which has a page for every command that says what its help says.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	var errw bytes.Buffer
	if code := run(context.Background(), []string{"man", dir}, strings.NewReader(""), io.Discard, &errw); code != exitOK {
		t.Fatal(errw.String())
	}
	roff := strings.NewReplacer(`\-`, "-", `\&`, "", `\fB`, "", `\fI`, "", `\fP`, "", `\(aq`, "'", `\(rq`, `"`, `\(lq`, `"`)
	want := 0
	for _, c := range all(tree()) {
		want++
		b, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		page := roff.Replace(string(b))
		for _, text := range []string{c.Short, firstLine(c.Long), firstLine(strings.TrimSpace(c.Example))} {
			if !strings.Contains(page, text) {
				t.Errorf("the page of %s does not say %q", c.CommandPath(), text)
			}
		}
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(page, "--"+f.Name) || !strings.Contains(page, f.Usage) {
				t.Errorf("the page of %s does not describe --%s", c.CommandPath(), f.Name)
			}
		})
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < want || !strings.Contains(errw.String(), fmt.Sprintf("%d pages in ", len(pages))) {
		t.Errorf("%d pages of %d, %v: %s", len(pages), want, err, errw.String())
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
