package transport

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"fednode/transport/member"
)

// h2Bytes are what a peer sends to begin and a POST with body, or the answer to one.
func h2Bytes(preface string, head []hpack.HeaderField, body []byte) []byte {
	var b, block bytes.Buffer
	b.WriteString(preface)
	e := hpack.NewEncoder(&block)
	for _, f := range head {
		_ = e.WriteField(f)
	}
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings()
	_ = fr.WriteSettingsAck()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = fr.WriteData(1, true, body)
	return b.Bytes()
}

// h2Connection is one inside of TLS that has been left, with its end for the fuzzer.
func h2Connection() (*tcpConn, net.Conn) {
	near, far := net.Pipe()
	c := &tcpConn{Conn: near, raw: near, first: make(chan struct{})}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	return c, far
}

func fuzzNode() *Node {
	l := Limits{FrameTimeout: 50 * time.Millisecond, QueueTimeout: 10 * time.Millisecond, RequestBurst: 1 << 30}.withDefaults()
	n, cancel := &Node{limit: l, m: meters{metrics.NewSet()}, slots: make(chan struct{}, l.Handlers), shares: map[OrgID]*peerLimit{}}, func() {}
	n.ctx, n.cancel = context.Background(), cancel
	n.c = Config{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Members: func() *member.Set { return nil }}
	return n
}

// Whatever a member's program sends after its handshake, the node neither fails nor keeps anything of it.
func FuzzTCPLaneRequests(f *testing.F) {
	post := []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "peer"}, {Name: ":path", Value: "/"}}
	for _, body := range [][]byte{nil, header{kind: kindPing}.append(nil), appendFrame(appendFrame(header{kind: kindRequest}.append(nil), []byte("{}")), []byte("x")),
		append(header{kind: kindFetch, offset: 1}.append(nil), 0, 16, 0, 1)} {
		f.Add(h2Bytes(http2.ClientPreface, post, body))
	}
	n := fuzzNode()
	in := newHandoff(&net.TCPAddr{})
	s := n.h2Server()
	var panicked atomic.Pointer[string] // net/http catches them
	s.ErrorLog = log.New(writerFunc(func(b []byte) (int, error) {
		if text := string(b); strings.Contains(text, "panic") {
			panicked.Store(&text)
		}
		return len(b), nil
	}), "", 0)
	go s.Serve(in)
	f.Cleanup(func() {
		s.Close()
		n.mu.Lock()
		n.closed = true
		n.mu.Unlock()
		n.work.Wait()
		if len(n.slots) != 0 {
			f.Errorf("%d handlers are taken", len(n.slots))
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, far := h2Connection()
		c.link = &link{conn: c, org: "org-a", member: &member.Member{ID: "org-a"}, notAfter: time.Now().Add(time.Hour)}
		in.give(c)
		go io.Copy(io.Discard, far)
		far.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		far.Write(data) // returns when all is read, or when the server reads no more
		c.Close()
		far.Close()
		if text := panicked.Load(); text != nil {
			t.Fatal(*text)
		}
	})
}

// Whatever a peer answers, the asker gets frames, or an error in bounded time.
func FuzzTCPLaneAnswers(f *testing.F) {
	for _, status := range []string{"200", "400", "100", "999"} {
		for _, body := range [][]byte{nil, appendFrame(appendFrame(nil, []byte("{}")), []byte("x")), {255, 255, 255, 255}} {
			f.Add(h2Bytes("", []hpack.HeaderField{{Name: ":status", Value: status}, {Name: "fednode-code", Value: "7"}}, body))
		}
	}
	n := fuzzNode()
	f.Fuzz(func(t *testing.T, data []byte) {
		c, far := h2Connection()
		defer c.Close()
		go io.Copy(io.Discard, far)
		go func() {
			far.SetWriteDeadline(time.Now().Add(time.Second))
			far.Write(data)
			far.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.connect(ctx, n); err != nil {
			return
		}
		wire, proof, err := exchange(ctx, &link{conn: c}, []byte("{}"), nil)
		if err == nil && len(wire)+len(proof) > len(data) {
			t.Errorf("%d and %d bytes of %d", len(wire), len(proof), len(data))
		}
	})
}
