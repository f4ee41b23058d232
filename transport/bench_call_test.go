package transport

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// BenchmarkCall is the whole way between two nodes on one machine: seal, record, fsync, prove, QUIC, verify, record,
// fsync, and back. "accept" is a handler that accepts first and so takes a second fsync, as a step does.
func BenchmarkCall(b *testing.B) {
	for name, h := range map[string]Handler{
		"reply":  func(ctx context.Context, r *Request) error { return r.Reply(ctx, r.Payload, ReplyOptions{}, nil) },
		"accept": echo,
	} {
		for _, concurrency := range []int{1, 32} {
			for _, lane := range []Lane{LaneQUIC, LaneTCP} {
				b.Run(name+"-"+strconv.Itoa(concurrency)+"-"+string(lane), func(b *testing.B) { benchmarkCall(b, lane, h, concurrency) })
			}
		}
	}
}

// newLane makes a federation on loopback that has only that lane.
func newLane(t testing.TB, lane Lane, names ...OrgID) *world {
	w := newLoopback(t, names...)
	if lane == LaneTCP {
		for _, o := range w.orgs {
			o.conn = mute{o.conn}
		}
	}
	return w
}

// mute is a socket whose packets are dropped.
type mute struct{ net.PacketConn }

func (mute) WriteTo(p []byte, _ net.Addr) (int, error) { return len(p), nil }

func benchmarkCall(b *testing.B, lane Lane, h Handler, concurrency int) {
	w := newLane(b, lane, "org-a", "org-b")
	a := w.start("org-a", nil)
	w.start("org-b", func(n *Node) {
		n.limit.RequestsPerSecond, n.limit.RequestBurst = 1e6, 1e6
		n.Handle("question", h)
	})
	m := ask("org-b")
	m.Payload = map[string]string{"text": strings.Repeat("x", 1100)}
	call := func() {
		reply, err := a.Call(context.Background(), m, nil)
		if err != nil || reply.Refusal != nil {
			b.Errorf("%+v, %v", reply, err)
		}
	}
	call()
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			for range work {
				call()
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkFetch streams an artifact over loopback, commitment included.
func BenchmarkFetch(b *testing.B) {
	for _, lane := range []Lane{LaneQUIC, LaneTCP} {
		b.Run(string(lane), func(b *testing.B) { benchmarkFetch(b, lane) })
	}
}

func benchmarkFetch(b *testing.B, lane Lane) {
	const size = 64 << 20
	w := newLane(b, lane, "org-a", "org-b")
	done := make(chan delivery, 1)
	a := w.start("org-a", nil)
	w.start("org-b", serveArtifact(size, done))
	want := commitment(size)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Fetch(context.Background(), fetchMessage(), Sink{Writer: io.Discard, Commitment: want}); err != nil {
			b.Fatal(err)
		}
		<-done
	}
}
