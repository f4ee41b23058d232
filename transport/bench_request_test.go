package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// BenchmarkRequest compares the wire alone, without envelopes and ledger: one request and one response of 1.2 KB, over
// QUIC as the node configures it and over HTTP/2, same certificates, same host, same run.
func BenchmarkRequest(b *testing.B) {
	for _, c := range []int{1, 32} {
		b.Run("quic-"+strconv.Itoa(c), func(b *testing.B) { benchmarkAsk(b, c, quicEcho(b)) })
		b.Run("http2-"+strconv.Itoa(c), func(b *testing.B) { benchmarkAsk(b, c, http2Echo(b)) })
	}
}

func benchmarkAsk(b *testing.B, concurrency int, ask func([]byte) ([]byte, error)) {
	payload := make([]byte, 1200)
	rand.Read(payload)
	if got, err := ask(payload); err != nil || !bytes.Equal(got, payload) {
		b.Fatalf("echo: %d bytes, %v", len(got), err)
	}
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			for range work {
				if got, err := ask(payload); err != nil || len(got) != len(payload) {
					b.Errorf("echo: %d bytes, %v", len(got), err)
				}
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

// benchTLS returns mutual TLS 1.3 for both ends.
func benchTLS(b *testing.B, alpn string) (server, client *tls.Config) {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"node"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, ServerName: "node", RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return c, c.Clone()
}

func listenUDP(tb testing.TB) *net.UDPConn {
	tb.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 89, 0, 1)}) // where no other program's connections take the same TCP port
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func quicEcho(b *testing.B) func([]byte) ([]byte, error) {
	server, client := benchTLS(b, protocol)
	n := &Node{limit: Limits{}.withDefaults()}
	str, ctr := &quic.Transport{Conn: listenUDP(b), ConnectionIDLength: 8}, &quic.Transport{Conn: listenUDP(b), ConnectionIDLength: 8}
	b.Cleanup(func() { ctr.Close(); str.Close() })
	ln, err := str.Listen(server, n.quicConfig())
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		for {
			s, err := c.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				if _, err := readHeader(s); err != nil {
					return
				}
				in, err := readFrame(s, MaxEnvelope)
				if err != nil || readEnd(s) != nil {
					return
				}
				s.Write(appendFrame(nil, in))
				s.Close()
			}()
		}
	}()
	c, err := ctr.Dial(context.Background(), str.Conn.LocalAddr(), client, n.quicConfig())
	if err != nil {
		b.Fatal(err)
	}
	return func(p []byte) ([]byte, error) {
		s, err := c.OpenStreamSync(context.Background())
		if err != nil {
			return nil, err
		}
		if _, err := s.Write(appendFrame(header{kind: kindRequest}.append(make([]byte, 0, headerSize+4+len(p))), p)); err != nil {
			return nil, err
		}
		s.Close()
		out, err := readFrame(s, MaxEnvelope)
		if err != nil {
			return nil, err
		}
		return out, readEnd(s)
	}
}

func http2Echo(b *testing.B) func([]byte) ([]byte, error) {
	server, client := benchTLS(b, "h2")
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{TLSConfig: server, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := io.ReadAll(io.LimitReader(r.Body, MaxEnvelope))
		if err != nil {
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(in)))
		w.Write(in)
	})}
	go srv.ServeTLS(ln, "", "")
	tr := &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true}
	b.Cleanup(func() { tr.CloseIdleConnections(); srv.Close() })
	hc := &http.Client{Transport: tr}
	url := "https://" + ln.Addr().String() + "/"
	return func(p []byte) ([]byte, error) {
		resp, err := hc.Post(url, "application/octet-stream", bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 {
			b.Errorf("protocol %s", resp.Proto)
		}
		return io.ReadAll(resp.Body)
	}
}
