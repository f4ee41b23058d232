package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fednode/hsm"
	"fednode/node"
	"fednode/node/config"
	"fednode/node/service"
	"fednode/transport"
)

// siteFlags are what a new data directory is made with.
type siteFlags struct {
	o         node.Options
	advertise []string
	passFile  string
	run       bool
}

func (f *siteFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringSliceVar(&f.advertise, "advertise", nil, "where the members reach this node, HOST or HOST:PORT; may be given several times")
	fl.StringVar(&f.o.Listen, "listen", ":443", "address to listen on, UDP and TCP")
	fl.StringVar(&f.o.Name, "name", "", "name of the organisation, for people (default its id)")
	fl.StringVar(&f.o.Domain, "domain", "", "DNS domain of the organisation, which its certificates may name")
	fl.StringVar(&f.o.Jurisdiction, "jurisdiction", "", "jurisdiction that the organisation is under, which policies may look at")
	fl.StringVar(&f.o.Instance, "instance", "", "name of this node in the organisation (default its id with -1)")
	fl.StringVar(&f.passFile, "passphrase-file", "", "file with the passphrase of the keys, mode 0600 (default: one is made)")
	fl.BoolVar(&f.run, "run", false, "then run the node here, in the foreground")
	_ = c.MarkFlagFilename("passphrase-file")
}

// complete turns the flags into options of the organisation's node on dir.
func (f *siteFlags) complete(dir string, org transport.OrgID) error {
	f.o.Org = org
	_, port, err := net.SplitHostPort(f.o.Listen)
	if err != nil || port == "0" || port == "" {
		return misusef("--listen %q: write host:port, or :port for all addresses", f.o.Listen)
	}
	for _, a := range f.advertise {
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), port)
		}
		f.o.Advertise = append(f.o.Advertise, a)
	}
	if f.passFile == "" && service.Wanted(dir) {
		f.o.Credential = service.Credential
		f.o.Passphrase, err = service.Options{}.Passphrase()
		return err
	}
	if f.passFile == "" {
		f.o.MakePass = true
		return nil
	}
	path, err := filepath.Abs(f.passFile)
	if err != nil {
		return err
	}
	f.o.PassFile, f.o.Passphrase = path, hsm.PassphraseFile(path)
	return nil
}

// prepare opens the data directory, or makes it. What the flags say of one that is there is said by its node.yaml.
func (a *app) prepare(c *cobra.Command, f *siteFlags, org transport.OrgID) (*node.Site, error) {
	if service.Wanted(a.dir) {
		if err := ownService(a.dir); err != nil {
			return nil, err
		}
	}
	if err := f.complete(a.dir, org); err != nil {
		return nil, err
	}
	ask, err := a.askPassphrase()
	if err != nil {
		return nil, err
	}
	if len(f.o.Advertise) == 0 && !nodeIn(a.dir) {
		return nil, misusef("--advertise is missing: the name or address under which the other members reach this node")
	}
	if !nodeIn(a.dir) { // a port that cannot be had is better found before anything is made
		conn, ln, err := listen(f.o.Listen)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(conn.Close(), ln.Close()); err != nil {
			return nil, err
		}
	}
	s, made, err := node.Prepare(a.dir, f.o, ask)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("%w; run it as root, or name a directory of your own with -D", err)
	}
	if err != nil {
		return nil, err
	}
	if !made {
		if err := f.agree(c, a.dir, s.Config); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	fmt.Fprintf(a.notes(), "%s keys and certificates of %s made in %s\n", a.paint().good("✓"), org, a.dir)
	if f.o.MakePass {
		fmt.Fprintf(a.notes(), "  their passphrase is in %s, so that the node starts unattended: keep it apart from backups of the keys\n", filepath.Join(a.dir, node.PassphraseName))
	}
	return s, nil
}

// ownService lets root make what is to be the service's: the directory, if a package has made it for the service's user
// and nothing is in it, and the passphrase, which no service manager hands to this process.
func ownService(dir string) error {
	if os.Getenv("CREDENTIALS_DIRECTORY") == "" {
		if err := os.Setenv("CREDENTIALS_DIRECTORY", service.ConfigDir); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		return nil // it is not there yet, or somebody's; whoever opens it will say
	}
	return os.Chown(dir, os.Geteuid(), os.Getegid())
}

// installed reports whether the directory has been handed over to the service, whose node was complete by then.
func installed(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || !service.Wanted(dir) || !nodeIn(dir) {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) != os.Geteuid()
}

// agree refuses flags that say something else than the node.yaml that is there.
func (f *siteFlags) agree(c *cobra.Command, dir string, conf *config.Node) error {
	for _, name := range []string{"advertise", "listen", "name", "domain", "jurisdiction", "instance"} {
		if err := f.differs(c, dir, conf, name); err != nil {
			return err
		}
	}
	return nil
}

func (f *siteFlags) differs(c *cobra.Command, dir string, conf *config.Node, name string) error {
	if !c.Flags().Changed(name) {
		return nil
	}
	said, is := "", ""
	switch name {
	case "advertise":
		said = strings.Join(f.o.Advertise, " ")
		for _, e := range conf.Advertise {
			is = strings.TrimSpace(is + " " + string(e))
		}
	case "listen":
		said, is = f.o.Listen, string(conf.Listen)
	case "name":
		said, is = f.o.Name, string(conf.Organization.Name)
	case "domain":
		said, is = f.o.Domain, string(conf.Organization.Domain)
	case "jurisdiction":
		said, is = f.o.Jurisdiction, string(conf.Organization.Jurisdiction)
	case "instance":
		said, is = f.o.Instance, string(conf.Instance)
	}
	if said == is {
		return nil
	}
	return misusef("--%s %q: %s was made with %q; leave the flag out, or edit %s", name, said, dir, is, filepath.Join(dir, node.ConfigName))
}

func nodeIn(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, node.ConfigName))
	return err == nil
}

// askPassphrase asks for the passphrase of a node whose node.yaml names no place for it, if there is a terminal.
func (a *app) askPassphrase() (hsm.Passphrase, error) {
	if f, ok := a.terminal(); ok && node.AsksPassphrase(a.dir) {
		return a.askSecret(f, "Passphrase of the keys: ")
	}
	return hsm.Passphrase{}, nil
}

func (a *app) askSecret(f *os.File, prompt string) (hsm.Passphrase, error) {
	fmt.Fprint(a.err, prompt)
	secret, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.err)
	if err != nil {
		return hsm.Passphrase{}, err
	}
	defer clear(secret)
	return hsm.PassphraseBytes(secret), nil
}

// terminal returns standard input, if it is a terminal.
func (a *app) terminal() (*os.File, bool) {
	f, ok := a.in.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// listen opens both lanes, or says what stands against it.
func listen(addr string) (net.PacketConn, net.Listener, error) {
	conn, ln, err := transport.Listen(addr)
	_, port, _ := net.SplitHostPort(addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, nil, fmt.Errorf("port %s is taken by another program: %w; end it, or choose another port: --listen :8443 --advertise HOST:8443, or, if there is one already, the same in %s", port, err, node.ConfigName)
	case errors.Is(err, os.ErrPermission):
		return nil, nil, fmt.Errorf("port %s needs privilege: %w; run it as root, or choose one from 1024 on: --listen :8443 --advertise HOST:8443, or, if there is one already, the same in %s", port, err, node.ConfigName)
	}
	return conn, ln, err
}

// launched says how the node of a data directory runs.
type launched struct {
	Running bool   `json:"running"`
	Command string `json:"command,omitempty"` // that starts it, if it does not run
}

// launch makes the node of a data directory that is complete a service, where that is wanted, or says how to start it.
func (a *app) launch(ctx context.Context) (launched, error) {
	if !service.Wanted(a.dir) {
		return launched{Command: "fednode -D " + a.dir + " run"}, nil
	}
	r, err := service.Install(ctx, service.Options{})
	return launched{Running: r.Started, Command: r.Command}, err
}

// elapsed is a duration as the output shows it.
func elapsed(began time.Time) string {
	d := time.Since(began)
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
