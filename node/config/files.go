package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxCertificateFile is the largest certificate file that is read, in bytes.
const maxCertificateFile = 1 << 20

// certificate looks at a certificate file a configuration names. Nothing about
// it is an error: the file may be written elsewhere than it is used.
func (c *checker) certificate(path string, f File) []*x509.Certificate {
	if f == "" || f.problem() != "" {
		return nil
	}
	data, err := c.read(f)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.warn(path, CodeMissingFile, "put the certificate there before you apply the file", "%s isn't there", f)
		return nil
	case err != nil:
		c.warn(path, CodeBadFile, "make it a readable PEM file", "%s can't be read: %v", f, err)
		return nil
	}
	list, err := parseCertificates(data)
	if err != nil {
		c.warn(path, CodeBadFile, "write one or more PEM blocks of type CERTIFICATE", "%s is no certificate file: %v", f, err)
		return nil
	}
	for _, certificate := range list {
		now := c.env.now()
		switch {
		case now.After(certificate.NotAfter):
			c.warn(path, CodeExpired, "have it renewed", "the certificate of %q in %s expired %s",
				certificate.Subject.CommonName, f, certificate.NotAfter.UTC().Format("2006-01-02"))
		case now.Before(certificate.NotBefore):
			c.warn(path, CodeNotYet, "compare the clocks", "the certificate of %q in %s is good from %s on",
				certificate.Subject.CommonName, f, certificate.NotBefore.UTC().Format("2006-01-02"))
		}
	}
	return list
}

// privateKey looks at who may read a private key; the key itself isn't read.
func (c *checker) privateKey(path string, f File) {
	if f == "" || f.problem() != "" {
		return
	}
	tree, name := c.locate(f)
	info, err := fs.Stat(tree, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.warn(path, CodeMissingFile, "put the key there before you apply the file", "%s isn't there", f)
	case err != nil:
		c.warn(path, CodeBadFile, "make it readable for the node", "%s can't be looked at: %v", f, err)
	case info.Mode().Perm()&0o077 != 0:
		c.warn(path, CodeBadFile, "chmod 600", "%s can be read by others than its owner (mode %04o)", f, info.Mode().Perm())
	}
}

// endpoint compares an endpoint with the organisation's member entry.
func (c *checker) endpoint(path string, org OrgID, endpoint HTTPS) {
	if c.env.Member == nil || endpoint == "" || endpoint.problem() != "" {
		return
	}
	m, ok := c.env.Member(org)
	if !ok {
		c.warn(path, CodeNotMember, "invite it, or correct the id", "%s is no member of this federation", org)
		return
	}
	u, err := url.Parse(string(endpoint))
	if err != nil {
		return // already reported
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if at := net.JoinHostPort(u.Hostname(), port); !slices.Contains(m.Endpoints, at) {
		c.warn(path, CodeMemberDiffers, "write the endpoint of the member entry, or have the entry renewed",
			"%s isn't an endpoint of %s; its member entry has %s", at, org, strings.Join(m.Endpoints, ", "))
	}
}

// issuedBy compares certificates with the roots of the organisation's member
// entry.
func (c *checker) issuedBy(path string, org OrgID, chain []*x509.Certificate) {
	if c.env.Member == nil || len(chain) == 0 {
		return
	}
	m, ok := c.env.Member(org)
	if !ok {
		return // endpoint says so
	}
	roots, rest := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range m.Roots {
		roots.AddCert(r)
	}
	for _, i := range chain[1:] {
		rest.AddCert(i)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: rest, CurrentTime: c.env.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		c.warn(path, CodeMemberDiffers, "use a certificate the organisation has issued",
			"the certificate doesn't lead to a root of %s: %v", org, err)
	}
}

// locate returns the file tree a path leads through, and its name in there.
func (c *checker) locate(f File) (fs.FS, string) {
	name := path.Clean(string(f))
	if rest, ok := strings.CutPrefix(name, "/"); ok {
		if c.env.Root == nil {
			return os.DirFS("/"), rest
		}
		return c.env.Root, rest
	}
	if c.env.FS == nil {
		return os.DirFS(filepath.Dir(c.file)), name
	}
	return c.env.FS, name
}

// read returns a regular file's content. What else a path may lead to, such as
// a pipe, is not opened: it could block for ever.
func (c *checker) read(f File) ([]byte, error) {
	tree, name := c.locate(f)
	info, err := fs.Stat(tree, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is no regular file")
	}
	if info.Size() > maxCertificateFile {
		return nil, fmt.Errorf("it has %d bytes; %d is the limit", info.Size(), maxCertificateFile)
	}
	file, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxCertificateFile))
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it has a block of type %s", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list, data = append(list, certificate), rest
	}
	if len(list) == 0 {
		return nil, errors.New("it has no PEM block")
	}
	return list, nil
}
