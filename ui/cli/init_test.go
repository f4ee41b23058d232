package cli

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fednode/hsm"
	"fednode/node"
	"fednode/transport"
	"fednode/ui"
)

// An init or join on a node that was made before takes it up only if it is the one that is meant.
func TestRelaunch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	site, err := node.Create(dir, node.Options{Org: "org-a", Advertise: []string{"fed.a.org:443"}, Passphrase: hsm.Unprotected(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := site.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		org   transport.OrgID
		flags []string
		want  string
	}{
		{"org-a", nil, ""},
		{"", nil, ""},
		{"org-a", []string{"--advertise", "fed.a.org"}, ""},
		{"org-z", nil, "holds the node of org-a, not of org-z"},
		{"org-a", []string{"--advertise", "fed.z.org"}, `was made with "fed.a.org:443"`},
		{"org-a", []string{"--listen", ":8443"}, `was made with ":443"`},
	} {
		var out bytes.Buffer
		a := &app{dir: dir, output: "table", in: strings.NewReader(""), out: &out, err: &out}
		var f siteFlags
		cmd := &cobra.Command{}
		f.register(cmd)
		if err := cmd.ParseFlags(c.flags); err != nil {
			t.Fatal(err)
		}
		cmd.SetContext(context.Background())
		err := a.relaunch(cmd, &f, c.org, func(ui.Status) bool { t.Error("no node runs"); return false })
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s %v: %v, want %q", c.org, c.flags, err, c.want)
		case c.want == "" && (err != nil || !strings.Contains(out.String(), "the node of org-a in "+dir+" was made before")):
			t.Errorf("%s %v: %v, %s", c.org, c.flags, err, &out)
		}
	}
}
