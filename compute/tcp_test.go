package compute

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

func stranger(t *testing.T) *tls.Config {
	t.Helper()
	seed := sha256.Sum256([]byte("stranger"))
	config, err := tlsConfig(ed25519.NewKeyFromSeed(seed[:]))
	must(t, err)
	return config
}

// TestStrangersDoNotDisturb: connections that are no TLS, of unknown keys, of older TLS and of a party that should be
// dialled are turned away, and the parties find each other all the same.
func TestStrangersDoNotDisturb(t *testing.T) {
	roster, keys := parties(3)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	third := TCPConfig{roster, 2, keys[2], make([]string, 3), listener}
	done := make(chan error, 1)
	var end *TCP
	go func() {
		var err error
		end, err = DialTCP(t.Context(), third)
		done <- err
	}()
	// What is turned away reads the end of its connection.
	ended := func(c net.Conn) {
		t.Helper()
		if _, err := io.ReadAll(c); err != nil && errors.Is(err, io.ErrUnexpectedEOF) {
			t.Log(err)
		}
		c.Close()
	}
	raw, err := net.Dial("tcp", address)
	must(t, err)
	raw.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	ended(raw)
	if c, err := tls.Dial("tcp", address, stranger(t)); err == nil {
		ended(c)
	}
	old := stranger(t)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := tls.Dial("tcp", address, old); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	anonymous := stranger(t)
	anonymous.Certificates = nil
	if c, err := tls.Dial("tcp", address, anonymous); err == nil {
		ended(c)
	}
	var conns [2]net.Conn
	for i := range conns {
		config, err := tlsConfig(keys[i])
		must(t, err)
		conns[i], err = tls.Dial("tcp", address, config)
		must(t, err)
	}
	must(t, <-done)
	defer end.Close()
	go conns[1].Write(append(binary.BigEndian.AppendUint32(nil, 5), "hello"...))
	got, err := end.Receive(t.Context(), 1, 5)
	must(t, err)
	if string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	// A length beyond the limit is refused before anything is allocated, and ends the connection's use.
	go conns[0].Write([]byte{0xff, 0xff, 0xff, 0xff})
	if _, err := end.Receive(t.Context(), 0, 1000); !errors.Is(err, ErrTooLong) {
		t.Errorf("a frame of 4 GiB: %v", err)
	}
	if _, err := end.Receive(t.Context(), 0, 1000); !errors.Is(err, ErrTooLong) {
		t.Errorf("after it: %v", err)
	}
	conns[1].Write([]byte{0, 0, 0, 9, 1})
	conns[1].Close()
	if _, err := end.Receive(t.Context(), 1, 1000); !errors.Is(err, ErrMissing) {
		t.Errorf("half a frame: %v", err)
	}
}

// TestWrongPartyAtAddress: whoever answers at a party's address must have its key.
func TestWrongPartyAtAddress(t *testing.T) {
	roster, keys := parties(2)
	impostor, err := tls.Listen("tcp", "127.0.0.1:0", stranger(t))
	must(t, err)
	defer impostor.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	go func() {
		for {
			c, err := impostor.Accept()
			if err != nil {
				return
			}
			go func() {
				c.(*tls.Conn).Handshake()
				io.Copy(io.Discard, c) // until it is turned away
				c.Close()
				once.Do(cancel)
			}()
		}
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, err = DialTCP(ctx, TCPConfig{roster, 0, keys[0], []string{"", impostor.Addr().String()}, listener})
	wantParty(t, err, "org-b", ErrMissing)
}

// TestCancelledReceive ends at once, and leaves the connection to be written to.
func TestCancelledReceive(t *testing.T) {
	nets := tcpNets(t, 2)
	defer nets[0].Close()
	defer nets[1].Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nets[0].Receive(ctx, 1, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	must(t, nets[0].Send(t.Context(), 1, []byte("still here")))
	got, err := nets[1].Receive(t.Context(), 0, 10)
	must(t, err)
	if string(got) != "still here" {
		t.Errorf("got %q", got)
	}
}
