package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func serveHTTP(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func httpConfig(url string) Config {
	return Config{Kind: "http", URL: url, Inputs: []string{"document"}, Outputs: []string{"answer"}}
}

func TestHTTPAgent(t *testing.T) {
	var got atomic.Pointer[http.Request]
	var body atomic.Value
	srv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Store(r)
		body.Store(b)
		io.WriteString(w, `{"outputs":[{"type":"answer","text":"done"}],"headline":"h"}`)
	})
	s, _ := newTestSet(t, map[string]Config{"web": httpConfig(srv.URL + "/agent")})
	task := Task{IdempotencyKey: "fed/run/1", Run: "run", Inputs: textDocument("words")}
	res, err := get(t, s, "web").Run(t.Context(), task)
	if err != nil || string(res.Outputs[0].Data) != "done" || res.Headline != "h" {
		t.Fatalf("%+v, %v", res, err)
	}
	r := got.Load()
	want, err := encodeTask(task)
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != "POST" || r.URL.Path != "/agent" || r.Header.Get("Idempotency-Key") != "fed/run/1" || r.Header.Get("Content-Type") != "application/json" ||
		!bytes.Equal(body.Load().([]byte), want) {
		t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, body.Load())
	}
}

// TestCallOut: restricted data reaches a service only if its owner lets it.
func TestCallOut(t *testing.T) {
	var calls atomic.Int32
	srv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if strings.HasSuffix(r.URL.Path, "/completions") {
			io.WriteString(w, completion(`{"risk":"low"}`, 10))
			return
		}
		io.WriteString(w, `{"outputs":[]}`)
	})
	s, _ := newTestSet(t, map[string]Config{"web": httpConfig(srv.URL), "m": llmConfig(srv.URL + "/v1")})
	for _, name := range []string{"web", "m"} {
		for _, task := range []Task{{NoStorage: true}, {NoExtraction: true}, {NoStorage: true, NoExtraction: true}} {
			task.Inputs = textDocument("words")
			before := calls.Load()
			_, err := get(t, s, name).Run(t.Context(), task)
			wantKind(t, err, KindRefused)
			if calls.Load() != before {
				t.Errorf("%s was called with restricted data", name)
			}
			task.OwnerAllowsCallOut = true
			if _, err := get(t, s, name).Run(t.Context(), task); err != nil || calls.Load() != before+1 {
				t.Errorf("%s with the owner's leave: %v", name, err)
			}
		}
	}
}

func TestHTTPFailures(t *testing.T) {
	endless := make(chan struct{})
	defer close(endless)
	var log bytes.Buffer
	var mu sync.Mutex
	for _, c := range []struct {
		name  string
		kind  Kind
		says  string
		serve http.HandlerFunc
	}{
		{"500", KindUnavailable, "500 Internal Server Error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "secret", 500) }},
		{"its own status line", KindUnavailable, "503 Service Unavailable", func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "HTTP/1.1 503 secret\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
			}
		}},
		{"no JSON", KindOutput, "not one JSON value", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>secret") }},
		{"undeclared", KindUndeclared, "does not declare", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"outputs":[{"type":"secret","text":""}]}`)
		}},
		{"redirect to metadata", KindUnavailable, "redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/secret", http.StatusTemporaryRedirect)
		}},
		{"redirect to itself", KindUnavailable, "redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusSeeOther) }},
		{"broken off", KindUnavailable, "broke off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "secret")
		}},
		{"huge", KindFlood, "more than", func(w http.ResponseWriter, r *http.Request) {
			for chunk := make([]byte, 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serveHTTP(t, c.serve)
			s, err := newSet(map[string]Config{"web": httpConfig(srv.URL)}, Env{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, err = get(t, s, "web").Run(t.Context(), Task{Inputs: textDocument("x")})
			text := wantKind(t, err, c.kind)
			if !strings.Contains(text, c.says) || strings.Contains(text, "secret") || strings.Contains(text, "127.0.0.1") {
				t.Errorf("%q: want %q, and neither the service's words nor its address", text, c.says)
			}
		})
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestHTTPSlow: a service that does not answer, and one that does not stop answering, cost no more than the deadline.
func TestHTTPSlow(t *testing.T) {
	for _, begun := range []bool{false, true} {
		reached, release := make(chan struct{}), make(chan struct{})
		srv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			if begun {
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
			}
			close(reached)
			<-release
		})
		s, _ := newTestSet(t, map[string]Config{"web": httpConfig(srv.URL)})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-reached; cancel() }()
		_, err := get(t, s, "web").Run(ctx, Task{Inputs: textDocument("x")})
		wantKind(t, err, KindTimeout)
		close(release)
	}
}

func TestHTTPRefusesPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s, _ := newTestSet(t, map[string]Config{"web": httpConfig("http://" + addr)})
	_, err = get(t, s, "web").Run(t.Context(), Task{})
	if text := wantKind(t, err, KindUnavailable); !strings.Contains(text, "connection refused") || strings.Contains(text, addr) {
		t.Error(text)
	}
}

func TestCallableAddresses(t *testing.T) {
	for addr, want := range map[string][2]bool{ // for another host's name, for a loopback name
		"127.0.0.1": {false, true}, "127.8.8.8": {false, true}, "::1": {false, true}, "::ffff:127.0.0.1": {false, true},
		"10.0.0.1": {true, true}, "192.0.2.1": {true, true}, "2001:db8::1": {true, true}, "fd00::1": {true, true},
		"169.254.169.254": {}, "::ffff:169.254.169.254": {}, "fe80::1": {}, "fe80::1%eth0": {}, "0.0.0.0": {}, "::": {}, "224.0.0.1": {}, "ff02::1": {},
		"fd00:ec2::254": {}, "fd20:ce::254": {}, "100.100.100.200": {}, "192.0.0.192": {}, "168.63.129.16": {},
		"64:ff9b::a9fe:a9fe": {}, "64:ff9b::7f00:1": {}, "64:ff9b::c000:201": {true, true}, "2002:a9fe:a9fe::1": {}, "2002:7f00:1::": {},
	} {
		for i, loopback := range []bool{false, true} {
			if got := callable(netip.MustParseAddr(addr), loopback); got != want[i] {
				t.Errorf("%s, loopback name %v: callable %v", addr, loopback, got)
			}
		}
	}
	for host, want := range map[string]bool{"localhost": true, "LocalHost.": true, "a.localhost": true, "127.0.0.1": true, "::1": true, "example.org": false, "localhost.example.org": false} {
		if isLoopbackName(host) != want {
			t.Errorf("%s is a loopback name: %v", host, !want)
		}
	}
}

// resolveTo makes every name stand for addr, for this test.
func resolveTo(t *testing.T, addr netip.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for b := make([]byte, 4096); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA && addr.Is4() {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: addr.As4()}}}
			} else if q.Type == dnsmessage.TypeAAAA && addr.Is6() {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
	})
}

// TestNamesOfForbiddenAddresses: what a name stands for is looked at, once, where the call is made.
func TestNamesOfForbiddenAddresses(t *testing.T) {
	for _, addr := range []string{"169.254.169.254", "127.0.0.1", "fe80::1", "fd00:ec2::254", "0.0.0.0"} {
		resolveTo(t, netip.MustParseAddr(addr))
		s, _ := newTestSet(t, map[string]Config{"web": httpConfig("http://service.example.org/"), "m": llmConfig("http://model.example.org/v1")})
		for _, name := range []string{"web", "m"} {
			_, err := get(t, s, name).Run(t.Context(), Task{Inputs: textDocument("x")})
			if text := wantKind(t, err, KindUnavailable); !strings.Contains(text, "do not call") || strings.Contains(text, addr) {
				t.Errorf("%s: %s", addr, text)
			}
		}
	}
}

func TestClientKeepsToItsHost(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	srv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {})
	c, err := newClient("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	c.Timeout = 10 * time.Second
	if resp, err := c.Get(srv.URL); err == nil {
		resp.Body.Close()
		t.Error("reached another port than its own")
	} else if errors.Is(err, errAddress) {
		t.Error(err)
	}
}
