package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/transport/pki"
)

// joiner returns what somebody without a member entry dials with, from an address of its own.
func (w *world) joiner(i int) JoinDialer {
	return JoinDialer{Packet: func() (net.PacketConn, error) { return kept{w.spare[i]}, nil }, Stream: w.host(w.spare[i].LocalAddr().(*net.UDPAddr)).Dial}
}

// kept is a socket that outlives who uses it.
type kept struct{ net.PacketConn }

func (kept) Close() error { return nil }

// pinned verifies as a joiner does that knows org and the hash of its root from an invitation.
func (w *world) pinned(org OrgID) func([]*x509.Certificate) error {
	return func(chain []*x509.Certificate) error {
		_, _, err := pki.VerifyPinned(chain, sha256.Sum256(w.orgs[org].root.Raw), string(org), w.set.FederationID(), time.Now())
		return err
	}
}

func TestJoin(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		var got JoinRequest
		w.start("org-b", func(n *Node) {
			n.HandleJoin(func(_ context.Context, r JoinRequest) ([]byte, error) {
				got = r
				switch string(r.Body) {
				case "no":
					return nil, &Error{CodeDenied, "the token is used up"}
				case "oops":
					return nil, errors.New("secret of the disk")
				case "panic":
					panic("bug")
				}
				return bytes.Repeat([]byte("y"), 1<<20), nil
			})
		})
		d := w.joiner(1)
		c, err := d.Dial(t.Context(), w.orgs["org-b"].addr.String(), w.pinned("org-b"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		reply, err := c.Do(t.Context(), bytes.Repeat([]byte("x"), MaxJoinRequest))
		if err != nil || len(reply) != 1<<20 {
			t.Fatalf("%d bytes, %v", len(reply), err)
		}
		if len(got.Exporter) != JoinExporterSize || !bytes.Equal(got.Exporter, c.Exporter()) {
			t.Errorf("the exporters are %x and %x", got.Exporter, c.Exporter())
		}
		if len(got.Body) != MaxJoinRequest || got.Lane != w.lane() || c.Lane != w.lane() || !strings.HasPrefix(got.Remote.String(), "10.1.0.1:") {
			t.Errorf("got %d bytes over %s from %s", len(got.Body), got.Lane, got.Remote)
		}
		if _, err := c.Do(t.Context(), []byte("again")); err == nil {
			t.Error("a second request on one connection was answered")
		}
		for i, ask := range []struct {
			body string
			want Error
		}{{"no", Error{CodeDenied, "the token is used up"}}, {"oops", Error{CodeInternal, "withheld"}}, {"panic", Error{CodeInternal, "withheld"}}} {
			c, err := w.joiner(2+i).Dial(t.Context(), w.orgs["org-b"].addr.String(), w.pinned("org-b"))
			if err != nil {
				t.Fatal(err)
			}
			var e *Error
			if _, err := c.Do(t.Context(), []byte(ask.body)); !errors.As(err, &e) || *e != ask.want {
				t.Errorf("%s: %v; want %v", ask.body, err, ask.want)
			}
			c.Close()
		}
	})
}

// The joiner talks to nobody but the one the invitation names.
func TestJoinerRefusesAnotherServer(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		asked := false
		w.start("org-b", func(n *Node) {
			n.HandleJoin(func(context.Context, JoinRequest) ([]byte, error) { asked = true; return nil, nil })
		})
		w.start("org-a", nil)
		for i, c := range []struct {
			at, want OrgID
			text     string
		}{{"org-b", "org-a", "not the one that was named"}, {"org-a", "org-a", "no application protocol"}} {
			_, err := w.joiner(i).Dial(t.Context(), w.orgs[c.at].addr.String(), w.pinned(c.want))
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(strings.ReplaceAll(err.Error(), "_", " "), c.text) {
				t.Errorf("%s taken for %s: %v", c.at, c.want, err)
			}
		}
		if asked {
			t.Error("a handler was asked")
		}
	})
}

// Strangers who are too many, too large, too slow or make no sense cost themselves the connection, and members nothing.
func TestJoinIsBounded(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.limit.JoinBurst, n.limit.JoinsPerSec = 4, 0.001
			n.Handle("question", echo)
			n.HandleJoin(func(context.Context, JoinRequest) ([]byte, error) { return []byte("ok"), nil })
		})
		from := -1
		question := ask("org-b")
		send := func(d JoinDialer, b []byte) Code {
			c, err := d.Dial(t.Context(), w.orgs["org-b"].addr.String(), w.pinned("org-b"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := c.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(b); err != nil {
				t.Fatal(err)
			}
			// On the TCP lane a refusal is an answer, on QUIC the connection's end says it.
			var status [1]byte
			_, err = io.ReadFull(s, status[:])
			var e *Error
			if errors.As(fromStream(err), &e) {
				return e.Code
			}
			frame, err := readFrame(s, 100)
			if err != nil || status[0] != joinRefused || json.Unmarshal(frame, &e) != nil {
				t.Fatalf("answer %d %q, %v", status, frame, err)
			}
			return e.Code
		}
		for name, c := range map[string]struct {
			b    []byte
			want Code
		}{
			"version":  {[]byte{9, 0, 0, 0}, CodeUnsupportedVersion},
			"reserved": {[]byte{1, 0, 1, 0}, CodeMalformed},
			"oversize": {[]byte{1, 0, 0, 0, 0, 1, 0, 1}, CodeTooLarge},
			"silent":   {[]byte{1, 0, 0, 0, 0, 0, 0, 9, 'x'}, CodeTimeout},
		} {
			from++
			if got := send(w.joiner(from), c.b); got != c.want {
				t.Errorf("%s: %q; want %q", name, got, c.want)
			}
		}
		limited := 0
		for range 7 {
			c, err := w.joiner(4).Dial(t.Context(), w.orgs["org-b"].addr.String(), w.pinned("org-b"))
			if err != nil {
				t.Fatal(err)
			}
			var e *Error
			if _, err := c.Do(t.Context(), []byte("hello")); errors.As(err, &e) && e.Code == CodeRateLimited {
				limited++
			} else if err != nil {
				t.Error(err)
			}
			c.Close()
		}
		if limited != 3 {
			t.Errorf("%d of 7 requests from one address were over the rate; the burst is 4", limited)
		}
		if _, err := a.Call(t.Context(), question, nil); err != nil {
			t.Errorf("a member's call: %v", err)
		}
	})
}

// Whoever says that it wants to join gets no further, and whoever says more than that is no stranger.
func TestStrangersAreNoMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.Handle("question", echo)
			n.HandleJoin(func(context.Context, JoinRequest) ([]byte, error) { return nil, nil })
		})
		a.raw(t, "org-b")
		conf := a.clientTLS("org-b")
		conf.NextProtos = []string{joinProtocol, protocol}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		c, err := a.tr.Dial(t.Context(), w.orgs["org-b"].addr, conf, a.quicConfig())
		if err == nil {
			_, err = c.AcceptStream(t.Context())
		}
		if err == nil {
			t.Error("served without a certificate")
		}
	})
}

// The fixture was written once, by another program: who joins and who is asked may be years of versions apart.
func TestGoldenJoin(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "test", "fed", "testdata", "join-v1", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	body, err := readJoinRequest(bytes.NewReader(read("request")))
	if err != nil || string(body) != "a request to join" {
		t.Errorf("request: %q, %v", body, err)
	}
	for name, want := range map[string]string{"reply": "a reply", "refusal": "denied: the token is used up"} {
		var sent bytes.Buffer
		got, err := exchangeJoin(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(read(name)), &sent}, body)
		if err != nil {
			got = []byte(err.Error())
		}
		if string(got) != want || !bytes.Equal(sent.Bytes(), read("request")) {
			t.Errorf("%s: got %q, sent %q", name, got, sent.Bytes())
		}
	}
	n := &Node{c: Config{Logger: slog.New(slog.DiscardHandler)}}
	for name, h := range map[string]JoinHandler{
		"reply": func(context.Context, JoinRequest) ([]byte, error) { return []byte("a reply"), nil },
		"refusal": func(context.Context, JoinRequest) ([]byte, error) {
			return nil, &Error{CodeDenied, "the token is used up"}
		},
	} {
		n.join = h
		if got := n.answerJoin(t.Context(), JoinRequest{}); !bytes.Equal(got, read(name)) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestCallback has a member call back somebody who is going to have an address of its own, over both lanes; it does not
// take anybody else for them.
func TestCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil)
		at := w.spare[0].LocalAddr().(*net.UDPAddr)
		ln, err := w.host(at).Listen()
		if err != nil {
			t.Fatal(err)
		}
		o := w.orgs["org-b"]
		chain := *o.leaf()
		chain.Certificate = append(append([][]byte{}, chain.Certificate...), o.root.Raw)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- ServeCallbacks(ctx, kept{w.spare[0]}, ln, chain, time.Now) }()
		synctest.Wait()
		for _, c := range []struct {
			as OrgID
			ok bool
		}{{"org-b", true}, {"org-a", false}, {"org-b", true}} {
			got := a.CallBack(t.Context(), at, at.String(), w.pinned(c.as))
			if len(got) != 2 || got[0].Lane != LaneQUIC || got[1].Lane != LaneTCP {
				t.Fatalf("%+v", got)
			}
			for _, r := range got {
				if (r.Err == nil) != c.ok || (r.RTT > 0) != c.ok || !c.ok && !strings.Contains(r.Err.Error(), "not the one that was named") {
					t.Errorf("%s as %s: %+v", r.Lane, c.as, r)
				}
			}
		}
		for _, r := range a.CallBack(t.Context(), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}, at.String(), w.pinned("org-b")) {
			if !errors.Is(r.Err, ErrElsewhere) {
				t.Errorf("%s: called at the wish of somebody who is not near there: %v", r.Lane, r.Err)
			}
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		for _, r := range a.CallBack(t.Context(), at, at.String(), w.pinned("org-b")) {
			if r.Err == nil {
				t.Errorf("%s: somebody answers still", r.Lane)
			}
		}
		if got := a.CallBack(t.Context(), at, "nowhere", w.pinned("org-b")); got[0].Err == nil || got[1].Err == nil {
			t.Errorf("%+v", got)
		}
	})
}
