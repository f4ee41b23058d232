package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"fednode/transport/pipenet"
)

// elsewhere is a host that is no member's.
func (w *world) elsewhere(i byte) *pipenet.Host {
	addr := &net.TCPAddr{IP: net.IPv4(10, 2, 0, i), Port: 1}
	w.router.mu.Lock()
	w.router.up[addr.String()] = true
	w.router.mu.Unlock()
	return w.router.streams.Host(addr)
}

func (w *world) connectTCP(t *testing.T, from *pipenet.Host, to OrgID) net.Conn {
	t.Helper()
	c, err := from.Dial(t.Context(), w.orgs[to].addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Who is no member, or speaks something else, gets no further than the handshake, and members notice nothing.
func TestTCPHandshakesThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
			n.Handle("question", echo)
			n.c.Web = http.NotFoundHandler()
		})
		foreign := w.stranger(t, "org-x")
		impostor := w.stranger(t, "org-a")
		for name, change := range map[string]func(*tls.Config){
			"TLS 1.2":             func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
			"wrong ALPN":          func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} },
			"no ALPN":             func(c *tls.Config) { c.NextProtos = nil },
			"joining, no handler": func(c *tls.Config) { c.NextProtos = []string{joinProtocol} },
			"no certificate": func(c *tls.Config) {
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
			},
			"foreign certificate": func(c *tls.Config) {
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return foreign, nil }
			},
			"same name, other root": func(c *tls.Config) {
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return impostor, nil }
			},
			"foreign certificate to the web": func(c *tls.Config) {
				c.NextProtos = []string{"h2"}
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return foreign, nil }
			},
		} {
			conf := a.clientTLS("org-b")
			conf.VerifyConnection = nil
			change(conf)
			c := tls.Client(w.connectTCP(t, w.elsewhere(1), "org-b"), conf)
			err := c.HandshakeContext(t.Context())
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			c.Close()
			a.mustCall(t, "org-b")
		}
		b.verifyReceipts(t, w, 8)
	})
}

// Connections that begin a handshake and don't end it are closed in time, and as many as one address opens leave room for
// another's.
func TestTCPSlowHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		w.blockUDP(true)
		b := w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		var slow []net.Conn
		for i := range 200 {
			c := w.connectTCP(t, w.elsewhere(1), "org-b")
			switch i % 3 {
			case 0:
				c.Write([]byte{22, 3, 1, 0, 200, 1})
			case 1:
				c.Write([]byte("GET / HTTP/1.1\r\n"))
			}
			slow = append(slow, c)
		}
		a := w.start("org-a", nil)
		within(t, time.Second, "a member's call", func() { a.mustCall(t, "org-b") })
		start := time.Now()
		for _, c := range slow {
			io.Copy(io.Discard, c)
			c.Close()
		}
		if d := time.Since(start); d > handshakeTimeout+time.Second {
			t.Errorf("the last was closed after %v", d)
		}
		synctest.Wait()
		if n := b.tcpGate.pending; n != 0 {
			t.Errorf("%d handshakes are pending", n)
		}
	})
}

// An attacker is a member whose program speaks HTTP/2 as it likes.
type attacker struct {
	t *testing.T
	c net.Conn
	*http2.Framer
	headers bytes.Buffer
	hpack   *hpack.Encoder
}

func (p *peer) attack(t *testing.T, to OrgID) *attacker {
	t.Helper()
	c := tls.Client(p.w.connectTCP(t, p.w.host(p.o.addr), to), p.clientTLS(to))
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := &attacker{t: t, c: c, Framer: http2.NewFramer(c, c)}
	x.hpack = hpack.NewEncoder(&x.headers)
	x.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(c, http2.ClientPreface)
	x.WriteSettings()
	return x
}

// ask opens a stream.
func (x *attacker) ask(stream uint32, end bool, more ...hpack.HeaderField) error {
	return x.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: x.fields(more...), EndHeaders: true, EndStream: end})
}

func (x *attacker) fields(more ...hpack.HeaderField) []byte {
	x.headers.Reset()
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "peer"}, {Name: ":path", Value: "/"}}, more...) {
		if err := x.hpack.WriteField(f); err != nil {
			x.t.Fatal(err)
		}
	}
	return bytes.Clone(x.headers.Bytes())
}

// until reads frames to the end of the connection, or until fn says so.
func (x *attacker) until(fn func(http2.Frame) bool) (ended bool) {
	for {
		f, err := x.ReadFrame()
		if err != nil {
			return true
		}
		if fn(f) {
			return false
		}
	}
}

func goneAway(http2.Frame) bool { return false }

func TestHTTP2Abuse(t *testing.T) {
	for name, abuse := range map[string]func(t *testing.T, x *attacker, b *peer, whole []byte){
		"too many streams": func(t *testing.T, x *attacker, b *peer, _ []byte) {
			refused := 0
			go func() {
				for i := range b.limit.StreamsPerConn + 50 {
					if x.ask(uint32(2*i+1), false) != nil {
						return
					}
				}
			}()
			x.until(func(f http2.Frame) bool {
				if r, ok := f.(*http2.RSTStreamFrame); ok && r.ErrCode == http2.ErrCodeRefusedStream {
					refused++
				}
				return refused == 50
			})
			if refused != 50 {
				t.Errorf("%d streams refused", refused)
			}
		},
		"rapid reset": func(t *testing.T, x *attacker, b *peer, _ []byte) {
			go func() {
				for i := range 50_000 {
					if x.ask(uint32(2*i+1), false) != nil || x.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel) != nil {
						return
					}
				}
			}()
			if !x.until(goneAway) {
				t.Error("the connection goes on")
			}
		},
		"CONTINUATION flood": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			x.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: x.fields(), EndStream: true})
			go func() {
				for range 100_000 {
					if x.WriteContinuation(1, false, x.fields(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 1000)})[1:]) != nil {
						return
					}
				}
			}()
			if !x.until(goneAway) {
				t.Error("the connection goes on")
			}
		},
		"giant fields": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			f := x.fields(hpack.HeaderField{Name: "x", Value: strings.Repeat("\x01y", 15_000)})
			x.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f[:15_000], EndStream: true})
			x.WriteContinuation(1, true, f[15_000:])
			x.until(func(f http2.Frame) bool {
				h, ok := f.(*http2.MetaHeadersFrame)
				if ok && h.PseudoValue("status") != "431" {
					t.Errorf("status %s", h.PseudoValue("status"))
				}
				return ok
			})
		},
		"ping flood that reads nothing": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			for range 50_000 {
				if x.WritePing(false, [8]byte{1}) != nil {
					return
				}
			}
			t.Error("the connection goes on")
		},
		"settings flood that reads nothing": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			for range 50_000 { // they may all be read: their acknowledgements don't queue up
				if x.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384}) != nil {
					return
				}
			}
		},
		"no window for the answer": func(t *testing.T, x *attacker, b *peer, whole []byte) {
			x.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			x.ask(1, false)
			x.WriteData(1, true, whole)
			x.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameRSTStream })
		},
		"data on a stream that is over": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			x.ask(1, true)
			go func() {
				for range 1000 {
					if x.WriteData(1, false, make([]byte, 16000)) != nil {
						return
					}
				}
			}()
			x.until(func(f http2.Frame) bool {
				return f.Header().Type == http2.FrameRSTStream || f.Header().Type == http2.FrameGoAway
			})
		},
		"HTTP/1.1": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			io.WriteString(x.c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if !x.until(goneAway) {
				t.Error("the connection goes on")
			}
		},
		"garbage": func(t *testing.T, x *attacker, _ *peer, _ []byte) {
			x.c.Write(bytes.Repeat([]byte{0xff}, 1<<16))
			if !x.until(goneAway) {
				t.Error("the connection goes on")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "org-a", "org-b", "org-c")
				w.blockUDP(true)
				a, c := w.start("org-a", nil), w.start("org-c", nil)
				b := w.start("org-b", func(n *Node) { n.Handle("question", echo) })
				c.mustCall(t, "org-b")
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				x := a.attack(t, "org-b")
				abuse(t, x, b, a.forge(t, ask("org-b"), nil).bytes())
				c.mustCall(t, "org-b")
				runtime.GC()
				runtime.ReadMemStats(&after)
				if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 32<<20 {
					t.Errorf("%d MiB more in use", grown>>20)
				}
				x.c.Close()
				time.Sleep(b.limit.FrameTimeout + time.Second)
				if n := len(b.slots); n != 0 {
					t.Errorf("%d handlers are still taken", n)
				}
				a.mustCall(t, "org-b") // the attacker's own node, when it behaves
			})
		})
	}
}

// The web server has bounds of its own.
func TestWebIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		w.blockUDP(true)
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.limit.HandshakesPerSec = 1000
			n.Handle("question", echo)
			n.c.Web = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
		})
		web := func(host byte, protocols ...string) *tls.Conn {
			c := tls.Client(w.connectTCP(t, w.elsewhere(host), "org-b"), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
			if err := c.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			return c
		}
		var open []net.Conn
		for range webConns {
			open = append(open, web(1, "http/1.1")) // and say nothing
		}
		got := httptest.NewRecorder()
		c := web(2, "http/1.1")
		io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		io.Copy(got, c)
		if !strings.HasSuffix(got.Body.String(), "ok") {
			t.Errorf("another address: %q", got.Body)
		}
		a.mustCall(t, "org-b")
		start := time.Now()
		for _, c := range open {
			io.Copy(io.Discard, c)
			c.Close()
		}
		if d := time.Since(start); d > webTimeout+time.Second {
			t.Errorf("silent connections were closed after %v", d)
		}
		c.Close()
	})
}
