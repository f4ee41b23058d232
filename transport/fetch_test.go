package transport

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pattern is an artifact of any size that takes no memory: byte i is a function of i.
type pattern struct{ at, size int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at >= p.size {
		return 0, io.EOF
	}
	n := min(int64(len(b)), p.size-p.at)
	for i := range b[:n] {
		at := p.at + int64(i)
		b[i] = byte(at ^ at>>8 ^ at>>16)
	}
	p.at += n
	return int(n), nil
}

func (p *pattern) Close() error { return nil }

var artifactSalt = bytes.Repeat([]byte{3}, SaltSize)

func commitment(size int64) string {
	m := hmac.New(sha256.New, artifactSalt)
	io.Copy(m, &pattern{0, size})
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

func content(size int64) []byte {
	b, _ := io.ReadAll(&pattern{0, size})
	return b
}

func fetchMessage() Message {
	return Message{To: "org-b", Type: "artifact-fetch", Run: "wf-1", Step: "s1", Payload: map[string]string{"grant": "g"}}
}

type delivery struct {
	sent int64
	err  error
}

// serveArtifact makes n the holder of a pattern and reports deliveries.
func serveArtifact(size int64, done chan delivery) func(n *Node) {
	return func(n *Node) {
		n.HandleFetch(func(ctx context.Context, r *Request) (*Source, error) {
			return &Source{Size: size, Salt: artifactSalt, MediaType: "application/pdf",
				Open: func(offset int64) (io.ReadCloser, error) { return &pattern{offset, size}, nil },
				Done: func(sent int64, err error) { done <- delivery{sent, err} }}, nil
		})
	}
}

func TestFetch(t *testing.T) {
	for _, size := range []int64{0, 1, bufferSize, 300_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
				w := newWorld(t, "org-a", "org-b")
				done := make(chan delivery, 1)
				a, b := w.start("org-a", nil), w.start("org-b", serveArtifact(size, done))
				var got bytes.Buffer
				info, err := a.Fetch(t.Context(), fetchMessage(), Sink{Writer: &got, Commitment: commitment(size), MaxSize: size})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Bytes(), content(size)) {
					t.Error("other bytes")
				}
				if info.Size != size || info.MediaType != "application/pdf" || !bytes.Equal(info.Salt, artifactSalt) || info.Attempts != 1 {
					t.Errorf("info %+v", info)
				}
				if d := <-done; d.sent != size || d.err != nil {
					t.Errorf("the holder was told %d bytes, %v", d.sent, d.err)
				}
				a.wantLog(t)
				b.wantLog(t)
			})
		})
	}
}

func TestFetchFails(t *testing.T) {
	source := func(change func(*Source)) FetchHandler {
		return func(context.Context, *Request) (*Source, error) {
			s := &Source{Size: 1000, Salt: artifactSalt, Open: func(o int64) (io.ReadCloser, error) { return &pattern{o, 1000}, nil }}
			change(s)
			return s, nil
		}
	}
	for name, c := range map[string]struct {
		handler FetchHandler
		code    Code // expected in the chain, if not ""
		is      error
		signed  bool // the refusal is on record on both sides
	}{
		"denied":     {func(context.Context, *Request) (*Source, error) { return nil, &Error{CodeDenied, "no grant"} }, CodeDenied, nil, true},
		"withheld":   {func(context.Context, *Request) (*Source, error) { return nil, errors.New("secret") }, CodeInternal, nil, true},
		"no handler": {nil, CodeUnknownType, nil, true},
		"no source":  {func(context.Context, *Request) (*Source, error) { return nil, nil }, CodeInternal, nil, true},
		"can't open": {source(func(s *Source) {
			s.Open = func(int64) (io.ReadCloser, error) { return nil, &Error{CodeLost, "gone"} }
		}), CodeLost, nil, true},
		"other bytes": {source(func(s *Source) {
			s.Open = func(int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(make([]byte, 1000))), nil }
		}), "", ErrCommitment, false},
		"other salt": {source(func(s *Source) { s.Salt = bytes.Repeat([]byte{4}, 32) }), "", ErrCommitment, false},
		"short salt": {source(func(s *Source) { s.Salt = s.Salt[:31] }), CodeInternal, nil, true},
		"too large": {source(func(s *Source) {
			s.Size, s.Open = 1001, func(o int64) (io.ReadCloser, error) { return &pattern{o, 1001}, nil }
		}), CodeTooLarge, nil, false},
		"ends early": {source(func(s *Source) {
			s.Open = func(int64) (io.ReadCloser, error) { return &pattern{0, 999}, nil }
		}), CodeInternal, nil, false},
		"fails in the middle": {source(func(s *Source) {
			s.Open = func(int64) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(&pattern{0, 500}, errReader{})), nil
			}
		}), CodeInternal, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "org-a", "org-b")
				a, b := w.start("org-a", nil), w.start("org-b", func(n *Node) {
					if c.handler != nil {
						n.HandleFetch(c.handler)
					}
				})
				_, err := a.Fetch(t.Context(), fetchMessage(), Sink{Writer: io.Discard, Commitment: commitment(1000), MaxSize: 1000})
				var e *Error
				if err == nil || c.is != nil && !errors.Is(err, c.is) || c.code != "" && (!errors.As(err, &e) || e.Code != c.code) {
					t.Fatalf("%v; want %s %v", err, c.code, c.is)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Error("a detail leaked")
				}
				synctest.Wait()
				if c.signed {
					a.wantLog(t, "reply-received "+string(c.code))
					b.wantLog(t, "request-received "+string(c.code), "reply-sent "+string(c.code))
				}
			})
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("disk") }

func TestFetchStopsAtTheSinksError(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		done := make(chan delivery, 1)
		a := w.start("org-a", nil)
		w.start("org-b", serveArtifact(5<<20, done))
		full := errors.New("disk full")
		_, err := a.Fetch(t.Context(), fetchMessage(), Sink{Writer: writerFunc(func([]byte) (int, error) { return 0, full }), Commitment: commitment(5 << 20)})
		if !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
		if d := <-done; d.err == nil {
			t.Error("the holder believes that it was delivered")
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The connection is lost several times in the middle; every byte arrives once.
func TestFetchResumes(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		const size = 3 << 20
		w := newWorld(t, "org-a", "org-b")
		done := make(chan delivery, 16)
		a := w.start("org-a", nil)
		w.start("org-b", serveArtifact(size, done))
		var got bytes.Buffer
		cuts := []int{100_000, 100_001, 1 << 20, size - 1}
		sink := writerFunc(func(p []byte) (int, error) {
			n, err := got.Write(p)
			if len(cuts) > 0 && got.Len() >= cuts[0] {
				cuts = cuts[1:]
				a.dialer("org-b").links()[0].conn.shut("", "cut")
			}
			return n, err
		})
		info, err := a.Fetch(t.Context(), fetchMessage(), Sink{Writer: sink, Commitment: commitment(size)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), content(size)) {
			t.Error("other bytes")
		}
		want := 4
		if w.lane() == LaneTCP {
			want = 3 // what HTTP/2 has received is still read when the connection is gone
		}
		if info.Attempts < want {
			t.Errorf("%d attempts; want %d", info.Attempts, want)
		}
		var sent int64
		for range info.Attempts {
			d := <-done
			sent += d.sent
		}
		if sent >= 2*size {
			t.Errorf("%d bytes were sent for %d", sent, size)
		}
	})
}

// The network swallows everything for a while: the stream stalls, the connection dies, and it goes on afterwards.
func TestFetchSurvivesAPartition(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		const size = 1 << 20
		w := newWorld(t, "org-a", "org-b")
		done := make(chan delivery, 64)
		a := w.start("org-a", nil)
		w.start("org-b", serveArtifact(size, done))
		var got bytes.Buffer
		var once atomic.Bool
		sink := writerFunc(func(p []byte) (int, error) {
			if got.Len() > 300_000 && once.CompareAndSwap(false, true) {
				w.partition(true)
				time.AfterFunc(2*time.Minute, func() { w.partition(false) })
			}
			return got.Write(p)
		})
		info, err := a.Fetch(t.Context(), fetchMessage(), Sink{Writer: sink, Commitment: commitment(size)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), content(size)) || info.Attempts < 2 {
			t.Errorf("%d bytes in %d attempts", got.Len(), info.Attempts)
		}
	})
}

func TestFetchGivesUpWithItsContext(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", nil) // nobody is org-b
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := a.Fetch(ctx, fetchMessage(), Sink{Writer: io.Discard, Commitment: commitment(1)})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d < 59*time.Second || d > 61*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

func TestFetchContinuesWhatIsHeld(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		const size, have = 200_000, 77_777
		w := newWorld(t, "org-a", "org-b")
		done := make(chan delivery, 1)
		a := w.start("org-a", nil)
		w.start("org-b", serveArtifact(size, done))
		held := content(size)[:have]
		var rest bytes.Buffer
		sink := Sink{Writer: &rest, Commitment: commitment(size), Held: io.NewSectionReader(bytes.NewReader(held), 0, have)}
		if _, err := a.Fetch(t.Context(), fetchMessage(), sink); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(append(held, rest.Bytes()...), content(size)) {
			t.Error("other bytes")
		}
		if d := <-done; d.sent != size-have {
			t.Errorf("%d bytes were sent for %d missing", d.sent, size-have)
		}
	})
}

// 50 MB over real sockets, neither end holding more than buffers and flow-control windows of it.
func TestFetchInBoundedMemory(t *testing.T) {
	for _, lane := range []Lane{LaneQUIC, LaneTCP} {
		t.Run(string(lane), func(t *testing.T) { testFetchInBoundedMemory(t, lane) })
	}
}

func testFetchInBoundedMemory(t *testing.T, lane Lane) {
	const size = 50 << 20
	w := newLane(t, lane, "org-a", "org-b")
	done := make(chan delivery, 1)
	a := w.start("org-a", nil)
	w.start("org-b", serveArtifact(size, done))
	a.raw(t, "org-b")
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sum, peak, seen := sha256.New(), uint64(0), int64(0)
	sink := writerFunc(func(p []byte) (int, error) {
		if seen += int64(len(p)); seen/(5<<20) != (seen-int64(len(p)))/(5<<20) {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
		return sum.Write(p)
	})
	if _, err := a.Fetch(t.Context(), fetchMessage(), Sink{Writer: sink, Commitment: commitment(size)}); err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	io.Copy(want, &pattern{0, size})
	if !equalSums(sum, want) {
		t.Error("other bytes")
	}
	if d := <-done; d.sent != size || d.err != nil {
		t.Errorf("the holder was told %d bytes, %v", d.sent, d.err)
	}
	if grown := int64(peak) - int64(before.HeapAlloc); grown > 24<<20 {
		t.Errorf("the heap of both ends together grew by %d MB", grown>>20)
	}
}

// A recipient that takes nothing for a while holds up the holder, and nobody else on the connection.
func TestBackPressure(t *testing.T) {
	onLanes(t, func(t *testing.T, newWorld func(testing.TB, ...OrgID) *world) {
		const size = 64 << 20
		w := newWorld(t, "org-a", "org-b")
		var read atomic.Int64
		a := w.start("org-a", nil)
		w.start("org-b", func(n *Node) {
			n.Handle("question", echo)
			n.HandleFetch(func(ctx context.Context, r *Request) (*Source, error) {
				return &Source{Size: size, Salt: artifactSalt, Open: func(offset int64) (io.ReadCloser, error) {
					p := &pattern{offset, size}
					return struct {
						io.Reader
						io.Closer
					}{io.TeeReader(p, writerFunc(func(b []byte) (int, error) { read.Add(int64(len(b))); return len(b), nil })), p}, nil
				}}, nil
			})
		})
		a.mustCall(t, "org-b")
		before := a.Sessions()
		blocked := false
		_, err := a.Fetch(t.Context(), fetchMessage(), Sink{Commitment: commitment(size), Writer: writerFunc(func(p []byte) (int, error) {
			if !blocked {
				blocked = true
				time.Sleep(20 * time.Second)
				if n := read.Load(); n > 8<<20 {
					t.Errorf("%d MiB were sent to a recipient that takes none", n>>20)
				}
				within(t, time.Second, "a call meanwhile", func() { a.mustCall(t, "org-b") })
			}
			return len(p), nil
		})})
		if err != nil {
			t.Error(err)
		}
		if after := a.Sessions(); w.lane() == LaneQUIC && (len(after) != 1 || after[0].Since != before[0].Since) {
			t.Errorf("sessions %+v before, %+v after", before, after)
		}
	})
}

func equalSums(a, b hash.Hash) bool { return bytes.Equal(a.Sum(nil), b.Sum(nil)) }
