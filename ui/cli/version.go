package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"fednode/node"
)

// build is what `fednode version` shows.
type build struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Settings map[string]string `json:"settings,omitempty"` // revision, time and flags as the linker recorded them
	Modules  map[string]string `json:"modules,omitempty"`
}

func (a *app) version() *cobra.Command {
	var modules bool
	c := &cobra.Command{Use: "version", Short: "Print the version and how it was built", Args: cobra.NoArgs,
		Example: "  fednode version\n  fednode version --modules --output json",
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			b := newBuild(info, modules)
			return a.print(b, b.table)
		}}
	c.Flags().BoolVar(&modules, "modules", false, "list the modules it was built from")
	return c
}

// newBuild describes this program; info is nil if the linker recorded none.
func newBuild(info *debug.BuildInfo, modules bool) build {
	b := build{Version: node.Version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Settings: map[string]string{}}
	if info == nil {
		return b
	}
	for _, s := range info.Settings {
		b.Settings[s.Key] = s.Value
	}
	if modules {
		b.Modules = map[string]string{}
		for _, m := range info.Deps {
			b.Modules[m.Path] = m.Version
		}
	}
	return b
}

func (b build) table(w io.Writer) {
	fmt.Fprintf(w, "fednode %s %s %s\n", b.Version, b.Go, b.Platform)
	if rev := b.Settings["vcs.revision"]; rev != "" {
		fmt.Fprintf(w, "revision %s of %s\n", rev, b.Settings["vcs.time"])
	}
	for _, m := range slices.Sorted(maps.Keys(b.Modules)) {
		fmt.Fprintf(w, "  %s %s\n", m, b.Modules[m])
	}
}

func (a *app) man() *cobra.Command {
	return &cobra.Command{Use: "man DIR", Short: "Write the manual pages", Args: cobra.ExactArgs(1),
		Long: "Writes fednode(1) and a page for every command to DIR, in the format of man(1).", Example: "  fednode man /usr/local/share/man/man1",
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, &doc.GenManHeader{Title: "FEDNODE", Section: "1", Source: "fednode " + node.Version(), Manual: "fednode manual"}, args[0]); err != nil {
				return err
			}
			pages, err := filepath.Glob(filepath.Join(args[0], "fednode*.1"))
			if err != nil {
				return err
			}
			fmt.Fprintf(a.err, "%d pages in %s\n", len(pages), args[0])
			return nil
		}}
}
