// Found makes the data directories of a federation for shell scripts, through the functions that an operator's commands
// use. It prints the federation's id.
//
//	found [-agents ORG=FILE] [-pass ORG=FILE] DIR ORG=HOST:PORT...
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"fednode/test/netns"
	"fednode/transport"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "found:", err)
		os.Exit(1)
	}
}

// files is a flag that names a file for an organisation, and may be given several times.
type files map[string]string

func (f files) String() string { return "" }

func (f files) Set(s string) error {
	org, file, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%q: write ORG=FILE", s)
	}
	f[org] = file
	return nil
}

func run() error {
	agents, pass := files{}, files{}
	flag.Var(agents, "agents", "file with the agents section of an organisation's node.yaml")
	flag.Var(pass, "pass", "file with the passphrase of an organisation's keys")
	flag.Parse()
	if flag.NArg() < 2 {
		return fmt.Errorf("name a directory and at least one ORG=HOST:PORT")
	}
	p := netns.Plan{Name: "e2e", Dir: flag.Arg(0)}
	for _, arg := range flag.Args()[1:] {
		org, address, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q: write ORG=HOST:PORT", arg)
		}
		o := netns.Org{ID: transport.OrgID(org), Address: address, Pass: pass[org]}
		if file := agents[org]; file != "" {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			o.Agents = string(text)
		}
		p.Orgs = append(p.Orgs, o)
	}
	id, err := p.Found(context.Background())
	if err != nil {
		return err
	}
	fmt.Println(id)
	return nil
}
