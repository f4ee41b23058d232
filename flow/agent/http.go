package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// httpAgent calls a local service that speaks the exec protocol.
type httpAgent struct {
	spec Spec
	service
}

func newHTTP(name string, c Config, log *slog.Logger) (Agent, error) {
	client, err := newClient(c.URL)
	if err != nil {
		return nil, configError(name, "%w", err)
	}
	return &httpAgent{Spec{name, "http", c.Inputs, c.Optional, c.Outputs}, service{name, c.URL, client, log}}, nil
}

func (a *httpAgent) Spec() Spec { return a.spec }

func (a *httpAgent) Run(ctx context.Context, t Task) (*Result, error) {
	if err := mayCallOut(a.spec.Name, t); err != nil {
		return nil, err
	}
	body, err := encodeTask(t)
	if err != nil {
		return nil, fail(a.spec.Name, KindInput, "task cannot be written: %v", err)
	}
	b, err := a.post(ctx, body, http.Header{"Idempotency-Key": {t.IdempotencyKey}})
	if err != nil {
		return nil, err
	}
	return decodeReply(a.spec, b)
}

// mayCallOut refuses to give restricted data to a service, unless its owner's policy names the agent.
func mayCallOut(name string, t Task) error {
	if t.restricted() && !t.OwnerAllowsCallOut {
		return fail(name, KindRefused, "calls a service, and the data is restricted; its owner's policy has to allow agent.call-out for %s when it signs the workflow, and this organisation's now", name)
	}
	return nil
}

// newClient returns a client that reaches the host and port of the URL and nothing else: no redirects, no proxy, no
// link-local or metadata addresses, and loopback only where the URL names it.
func newClient(raw string) (*http.Client, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	allowed := net.JoinHostPort(u.Hostname(), port)
	t := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != allowed {
				return nil, fmt.Errorf("%s is not the configured %s", addr, allowed)
			}
			return dialAllowed(ctx, u.Hostname(), port)
		}}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errRedirect
	}}, nil
}

// dialAllowed resolves host once and connects to an address that may be called.
func dialAllowed(ctx context.Context, host, port string) (net.Conn, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	local := isLoopbackName(host)
	d := net.Dialer{Timeout: 10 * time.Second} // of each address, so that a dead one leaves time for the next
	var errs []error
	for _, a := range addrs {
		a = a.Unmap()
		if !callable(a, local) {
			errs = append(errs, fmt.Errorf("%s resolves to %s: %w", host, a, errAddress))
			continue
		}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func isLoopbackName(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// metadata are the addresses at which clouds give instances their credentials and that are not link-local: AWS and
// Google over IPv6, Alibaba, Oracle, Azure.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16")}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: the last four bytes are an IPv4 address
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056: bytes 2 to 5 are
)

// callable reports whether an agent may call an address, a loopback one only if its URL says so.
func callable(a netip.Addr, loopback bool) bool {
	a = a.Unmap()
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return callable(netip.AddrFrom4([4]byte(b[12:])), false)
	case sixToFour.Contains(a):
		return callable(netip.AddrFrom4([4]byte(b[2:6])), false)
	case a.IsLoopback():
		return loopback
	}
	return !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && !slices.Contains(metadata, a.WithZone(""))
}

// A service is where an agent's calls go.
type service struct {
	agent  string
	url    string
	client *http.Client
	log    *slog.Logger
}

func (s *service) closeIdle() { s.client.CloseIdleConnections() }

// post sends JSON and returns the answer's body. Its errors, which the other organisation reads, carry a status at most,
// never the service's words or address; the node's log has those.
func (s *service) post(ctx context.Context, body []byte, h http.Header) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, fail(s.agent, KindUnavailable, "its url is not one")
	}
	req.Header = h
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fail(s.agent, KindTimeout, "its service did not answer in time")
	case err != nil:
		s.log.Warn("an agent's service cannot be called", "agent", s.agent, "err", err)
		return nil, fail(s.agent, KindUnavailable, "its service cannot be called: %s", because(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{resp.StatusCode, fail(s.agent, KindUnavailable, "its service answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fail(s.agent, KindTimeout, "its service did not answer in time")
	case err != nil:
		return nil, fail(s.agent, KindUnavailable, "its service broke off its answer")
	case len(b) > maxReply:
		return nil, fail(s.agent, KindFlood, "its service answered with more than %d bytes", maxReply)
	}
	return b, nil
}

var (
	errRedirect = errors.New("it redirects, which agents do not follow; configure the final url")
	errAddress  = errors.New("its name stands for an address that agents do not call")
)

// because says why a call failed in words that name no address.
func because(err error) string {
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.Is(err, errRedirect):
		return errRedirect.Error()
	case errors.Is(err, errAddress):
		return errAddress.Error()
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return "the node's log says why"
}

// statusError is an answer other than 200.
type statusError struct {
	status int
	err    *Error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }
