package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fednode/node/config"
	"fednode/transport"
	"fednode/transport/pki"
)

// DoctorOffline looks at the data directory of a node that does not run: at what would keep it from starting or being
// reached. Of the members it can say nothing. It fails if there is no node.yaml that can be read.
func DoctorOffline(ctx context.Context, dir string, now time.Time) (Diagnosis, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return Diagnosis{}, err
	}
	self := transport.OrgID(cfg.Organization.ID)
	c := &chart{by: self, about: self}
	c.problem(CheckRunning, "no node runs on "+dir+"; only what lies there was looked at, and no member was asked", fmt.Sprintf("fednode -D %s run, or systemctl start fednode", dir))
	c.ok(CheckVersion, "fednode "+Version())
	c.savedCertificates(dir, now)
	c.advertised(ctx, cfg)
	c.port(string(cfg.Listen))
	v, err := measure(dir)
	c.vitals(v, err)
	return Diagnosis{Organization: self, Version: Version(), Findings: c.findings}, nil
}

func (c *chart) savedCertificates(dir string, now time.Time) {
	var certs [3]*x509.Certificate
	for i, name := range []string{identityCert, issuingCert, rootCert} {
		loaded, err := pki.LoadCertificates(filepath.Join(dir, certDir, name))
		if err != nil {
			c.problem(CheckCertificate, err.Error(), "restore it from a backup")
			return
		}
		certs[i] = loaded[0]
	}
	saved, root := issuers{identity: certs[0], issuing: certs[1]}, certs[2]
	saved.lapse = savedLapse(dir, root, saved, now)
	renewed := saved.lapse == nil && !now.Before(root.NotBefore) && (due(saved.issuing, root, now) || due(saved.identity, saved.issuing, now))
	switch until := stamp(saved.identity.NotAfter); {
	case renewed && now.After(saved.identity.NotAfter):
		c.warning(CheckCertificate, "the node identity expired at "+until+", it is "+stamp(now)+" here", "see whether the clock is right; if so, start the node, which renews it")
	case renewed:
		c.ok(CheckCertificate, "the node identity, valid until "+until+", is renewed when the node starts")
	case c.authorities(now, root, saved, ""):
		c.ok(CheckCertificate, "the node identity is valid until "+until)
	}
}

// advertised resolves where members are told to find this node.
func (c *chart) advertised(ctx context.Context, cfg *config.Node) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	var places []transport.Location
	for _, a := range cfg.Advertise {
		p := transport.Location{Endpoint: string(a)}
		host, port, err := net.SplitHostPort(string(a))
		if err != nil {
			p.Err = err
		} else {
			var ips []net.IPAddr
			ips, p.Err = net.DefaultResolver.LookupIPAddr(ctx, host)
			for _, ip := range ips {
				p.Addrs = append(p.Addrs, address(net.JoinHostPort(ip.String(), port)))
			}
		}
		places = append(places, p)
	}
	c.places(places, nil)
}

// An address is shown, and not used.
type address string

func (address) Network() string  { return "" }
func (a address) String() string { return string(a) }

// port sees whether the node could listen.
func (c *chart) port(at string) {
	for _, lane := range []struct {
		check string
		try   func() (io.Closer, error)
	}{
		{CheckUDP, func() (io.Closer, error) { return net.ListenPacket("udp", at) }},
		{CheckTCP, func() (io.Closer, error) { return net.Listen("tcp", at) }},
	} {
		check := lane.check
		l, err := lane.try()
		switch {
		case err == nil:
			c.ok(check, at+" is free to listen on")
			_ = l.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			c.problem(check, at+" is taken by another program", fmt.Sprintf("ss -lpn 'sport = :%s' shows which; stop it, or choose another port with listen in node.yaml", at[strings.LastIndexByte(at, ':')+1:]))
		case errors.Is(err, syscall.EACCES):
			c.problem(check, "this user may not listen on "+at, "run the node as a service (it is given the right), or choose a port above 1023 with listen in node.yaml")
		default:
			c.problem(check, err.Error(), "choose an address of this machine with listen in node.yaml")
		}
	}
}
