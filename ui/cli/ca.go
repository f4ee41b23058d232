package cli

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fednode/hsm"
	"fednode/hsm/durable"
	"fednode/node"
	"fednode/node/service"
)

func (a *app) ca() *cobra.Command {
	c := &cobra.Command{Use: "ca", Short: "Look after this organisation's own certificate authority", Example: "  fednode ca export\n  fednode ca renew --key /media/usb/org-a-root.age"}
	c.AddCommand(a.caExport(), a.caRenew())
	return c
}

// caReply is what ca export prints as JSON.
type caReply struct {
	*node.Authority
	KeyFile string `json:"key_file,omitempty"`
	Removed bool   `json:"removed"`
}

func (a *app) caExport() *cobra.Command {
	var key, passFile string
	var remove bool
	c := &cobra.Command{Use: "export", Short: "Write out the organisation's root: its certificate, and, to take it offline, its key", Args: cobra.NoArgs,
		Long: `Prints the root certificate. With --key the root's private key is written to a file of its own, encrypted to a passphrase of
its own: copy that file to two media, and keep them where no network reaches. With --remove the key is then deleted here,
after the file has been opened again and held against the certificate.

Without the root key on this machine, the node runs on: its daily certificates come from its identity key. What needs the
root is a new issuing CA, which is valid for a year: fednode ca renew makes it from the file. The node warns in time. Whoever takes this machine's disk, and its
passphrase, then has a node of yours, whose keys you can replace; with the root key they would have the organisation.`,
		Example: "  fednode ca export > root.pem\n  fednode ca export --key /media/usb/org-a-root.age\n  fednode ca export --key /media/usb/org-a-root.age --remove",
		RunE: func(c *cobra.Command, _ []string) error {
			if remove && key == "" {
				return misusef("--remove needs --key: the file that the root key is taken away in")
			}
			return a.export(key, passFile, remove)
		}}
	c.Flags().StringVar(&key, "key", "", "file to write the root's private key to, encrypted")
	c.Flags().StringVar(&passFile, "passphrase-file", "", "file with the passphrase of that file (default: it is asked for)")
	c.Flags().BoolVar(&remove, "remove", false, "then delete the root key from the data directory")
	_ = c.MarkFlagFilename("key")
	_ = c.MarkFlagFilename("passphrase-file")
	return c
}

// export opens what this process's user may reach before it becomes the owner of the data directory.
func (a *app) export(key, passFile string, remove bool) (err error) {
	ask, err := a.askPassphrase()
	if err != nil {
		return err
	}
	var ca *node.Authority
	var leaves bool // whether the key is here, and is not to be
	var out *os.File
	var pass hsm.Passphrase
	if key != "" {
		if pass, err = a.exportPassphrase(passFile, "Passphrase for the exported root key: ", "The same again: "); err != nil {
			return err
		}
		if key, err = filepath.Abs(key); err != nil {
			return err
		}
		if out, err = os.OpenFile(key, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
			return fmt.Errorf("%w; name a new file", err)
		}
		defer func() {
			if err = errors.Join(err, out.Close()); err == nil {
				return
			}
			if leaves && !ca.RootKey {
				err = fmt.Errorf("%w; keep %s: the root key may be nowhere else", err, key)
				return
			}
			_ = os.Remove(key) // it is ours, and holds nothing that is not elsewhere
		}()
		if err := durable.SyncDir(filepath.Dir(key)); err != nil {
			return err
		}
	}
	if err := service.Become(a.dir); err != nil {
		return err
	}
	ca, err = node.OpenAuthority(a.dir, ask)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w; run it as root, or as the user that the node runs as", err)
	}
	if err != nil {
		return err
	}
	if out == nil {
		return a.print(caReply{Authority: ca}, func(w io.Writer) { a.printRoot(w, ca) })
	}
	leaves = remove && ca.RootKey
	if err := ca.ExportRootKey(out, pass, remove); err != nil {
		return err
	}
	return a.print(caReply{Authority: ca, KeyFile: key, Removed: remove}, func(w io.Writer) {
		p := a.paint()
		fmt.Fprintf(w, "%s root key of %s in %s, encrypted; opens with: age -d %s\n", p.good("✓"), ca.Org, key, key)
		if remove {
			fmt.Fprintf(w, "%s removed from %s: keep two copies of the file, and its passphrase, apart from each other\n", p.good("✓"), a.dir)
		} else {
			fmt.Fprintf(w, "%s it is still in %s as well: take it away from there with --remove\n", p.warn("!"), a.dir)
		}
	})
}

func (a *app) printRoot(w io.Writer, ca *node.Authority) {
	fmt.Fprint(w, ca.RootPEM)
	fmt.Fprintf(a.err, "root of %s, sha256 %s\n", ca.Org, ca.RootSHA256)
	if ca.RootKey {
		fmt.Fprintf(a.err, "%s its private key is on this machine; take it offline: fednode -D %s ca export --key FILE --remove\n", a.paint().warn("!"), a.dir)
	}
}

// renewal is what ca renew prints as JSON.
type renewal struct {
	Organization string    `json:"organization_id"`
	Issuing      time.Time `json:"issuing_expires"`
}

func (a *app) caRenew() *cobra.Command {
	var key, passFile string
	c := &cobra.Command{Use: "renew --key FILE", Short: "Renew the issuing CA with a root key that is kept offline", Args: cobra.NoArgs,
		Long: `Makes a new issuing CA, for the same key and valid for a year, with the root key in the file that ca export --key wrote. The
root key stays in its file: nothing of it is left on this machine. A node that runs takes the certificate up by itself, within
a minute, or once the old one is four months from its end; no connection is closed for that. Where the root key is on this
machine, the node does all this by itself. fednode status warns from two months before the issuing CA ends.`,
		Example: "  fednode ca renew --key /media/usb/org-a-root.age",
		RunE: func(*cobra.Command, []string) error {
			if key == "" {
				return misusef("--key is missing: the file that fednode ca export --key wrote")
			}
			return a.renewIssuing(key, passFile)
		}}
	c.Flags().StringVar(&key, "key", "", "file with the root's private key, encrypted")
	c.Flags().StringVar(&passFile, "passphrase-file", "", "file with the passphrase of that file (default: it is asked for)")
	_ = c.MarkFlagFilename("key")
	_ = c.MarkFlagFilename("passphrase-file")
	return c
}

// renewIssuing, too, reads what this process's user may before it becomes the owner of the data directory. The root's key is
// not to be had from its memory by another process of that owner: this may be the one machine that it is kept away from.
func (a *app) renewIssuing(key, passFile string) error {
	if err := node.Protect(); err != nil {
		return err
	}
	file, err := readExported(key)
	if err != nil {
		return err
	}
	pass, err := a.exportPassphrase(passFile, "Passphrase of the exported root key: ")
	if err != nil {
		return err
	}
	if err := service.Become(a.dir); err != nil {
		return err
	}
	ca, err := node.OpenAuthority(a.dir, hsm.Passphrase{})
	var until time.Time
	if err == nil {
		until, err = ca.RenewIssuing(file, pass, time.Now())
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w; run it as root, or as the user that the node runs as", err)
	}
	if err != nil {
		return fmt.Errorf("the issuing CA was not renewed: %s: %w", key, err)
	}
	return a.print(renewal{ca.Org, until}, func(w io.Writer) {
		fmt.Fprintf(w, "%s issuing CA of %s valid until %s; the node takes it up by itself\n", a.paint().good("✓"), ca.Org, until.Local().Format(time.DateTime))
	})
}

// readExported reads the file of an exported key, or the beginning of one that is too large.
func readExported(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w; name the file that fednode ca export --key wrote", err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

// exportPassphrase is that of an exported key: from a file, or asked for with each prompt.
func (a *app) exportPassphrase(file string, prompts ...string) (hsm.Passphrase, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return hsm.Passphrase{}, err
		}
		defer clear(text)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			return hsm.Passphrase{}, errors.Join(err, fmt.Errorf("%s can be read by others: chmod 600 %s", file, file))
		}
		return hsm.PassphraseBytes(bytes.TrimRight(text, "\r\n")), nil
	}
	f, ok := a.terminal()
	if !ok {
		return hsm.Passphrase{}, misusef("nobody is at a terminal to be asked for a passphrase; name a file with it: --passphrase-file FILE")
	}
	var said []byte
	for i, prompt := range prompts {
		fmt.Fprint(a.err, prompt)
		secret, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return hsm.Passphrase{}, err
		}
		defer clear(secret)
		if i > 0 && subtle.ConstantTimeCompare(said, secret) != 1 {
			return hsm.Passphrase{}, errors.New("the two are not the same")
		}
		said = secret
	}
	return hsm.PassphraseBytes(said), nil
}
