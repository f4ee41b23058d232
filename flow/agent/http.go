package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// httpAgent calls a local service that speaks the exec protocol.
type httpAgent struct {
	spec   Spec
	url    string
	client *http.Client
}

func newHTTP(name string, c Config) (Agent, error) {
	client, err := newClient(c.URL)
	if err != nil {
		return nil, configError(name, "%w", err)
	}
	return &httpAgent{Spec{name, "http", c.Inputs, c.Optional, c.Outputs}, c.URL, client}, nil
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
	b, err := post(ctx, a.client, a.spec.Name, a.url, body, http.Header{"Idempotency-Key": {t.IdempotencyKey}})
	if err != nil {
		return nil, err
	}
	return decodeReply(a.spec, b)
}

// mayCallOut refuses to give restricted data to a service, unless its owner's policy names the agent.
func mayCallOut(name string, t Task) error {
	if t.restricted() && !t.OwnerAllowsCallOut {
		return fail(name, KindRefused, "calls a service, and the data is restricted; its owner's policy has to allow agent.call-out for %s", name)
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
	t := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: 0,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != allowed {
				return nil, fmt.Errorf("%s is not the configured %s", addr, allowed)
			}
			return dialAllowed(ctx, u.Hostname(), port)
		}}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the service redirects, which agents don't follow; configure the final url")
	}}, nil
}

// dialAllowed resolves host once and connects to an address that may be called.
func dialAllowed(ctx context.Context, host, port string) (net.Conn, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	local := isLoopbackName(host)
	var d net.Dialer
	var errs []error
	for _, a := range addrs {
		a = a.Unmap()
		if !callable(a, local) {
			errs = append(errs, fmt.Errorf("%s resolves to %s, which agents do not call", host, a))
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
		return a.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// awsMetadata6 is the one metadata address that is not link-local.
var awsMetadata6 = netip.MustParseAddr("fd00:ec2::254")

func callable(a netip.Addr, loopback bool) bool {
	if a.IsLoopback() {
		return loopback
	}
	return !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && a != awsMetadata6
}

// post sends JSON and returns the answer's body. Its errors carry a status at most, never the service's words.
func post(ctx context.Context, client *http.Client, name, to string, body []byte, h http.Header) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, fail(name, KindUnavailable, "%v", err)
	}
	req.Header = h
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fail(name, KindTimeout, "its service did not answer in time")
	case err != nil:
		return nil, fail(name, KindUnavailable, "its service cannot be called: %v", errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{resp.StatusCode, fail(name, KindUnavailable, "its service answered %s", resp.Status)}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fail(name, KindTimeout, "its service did not answer in time")
	case err != nil:
		return nil, fail(name, KindUnavailable, "its service broke off its answer")
	case len(b) > maxReply:
		return nil, fail(name, KindFlood, "its service answered with more than %d bytes", maxReply)
	}
	return b, nil
}

// statusError is an answer other than 200.
type statusError struct {
	status int
	err    *Error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }
