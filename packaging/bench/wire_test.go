package bench

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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// BenchmarkWire asks and answers 1.2 KB over gRPC and over net/http's HTTP/2, both with mutual TLS 1.3. The latter is the
// yardstick that BenchmarkRequest of package transport has too.
func BenchmarkWire(b *testing.B) {
	for _, c := range []int{1, 32} {
		b.Run("grpc-"+strconv.Itoa(c), func(b *testing.B) { benchmarkAsk(b, c, grpcEcho(b)) })
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
func benchTLS(b *testing.B) (server, client *tls.Config) {
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
	c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ServerName: "node", RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return c, c.Clone()
}

func listen(b *testing.B) net.Listener {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func grpcEcho(b *testing.B) func([]byte) ([]byte, error) {
	server, client := benchTLS(b)
	l := listen(b)
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(server)))
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "bench.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Ask",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			return in, decode(in)
		}}}}, nil)
	go srv.Serve(l)
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(client)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); srv.Stop() })
	return func(p []byte) ([]byte, error) {
		out := new(wrapperspb.BytesValue)
		err := c.Invoke(context.Background(), "/bench.Echo/Ask", wrapperspb.Bytes(p), out)
		return out.Value, err
	}
}

func http2Echo(b *testing.B) func([]byte) ([]byte, error) {
	server, client := benchTLS(b)
	l := listen(b)
	srv := &http.Server{TLSConfig: server, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(in)))
		w.Write(in)
	})}
	go srv.ServeTLS(l, "", "")
	tr := &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true}
	b.Cleanup(func() { tr.CloseIdleConnections(); srv.Close() })
	hc := &http.Client{Transport: tr}
	url := "https://" + l.Addr().String() + "/"
	return func(p []byte) ([]byte, error) {
		resp, err := hc.Post(url, "application/octet-stream", bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(resp.Body)
	}
}
