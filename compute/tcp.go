package compute

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"time"
)

// TCPConfig says how a party reaches the others.
type TCPConfig struct {
	Roster    Roster
	Self      int
	Key       crypto.Signer // the private key of Roster[Self]
	Addresses []string      // host:port by party; those after Self are dialled
	Listener  net.Listener  // takes the connections of those before Self
}

// Limits of making connections.
const (
	tcpALPN          = "fednode-compute/1"
	handshakeTimeout = 10 * time.Second
	maxHandshakes    = 2 * MaxParties // at once, strangers' included
	dialPause        = 50 * time.Millisecond
	maxDialPause     = time.Second
)

// TCP is a Net of TLS 1.3 connections, one for each pair of parties, both ends
// authenticated by the keys of the roster; its suites are those of the process (ADR 3).
// A frame is its length (32 bits, big-endian) and its bytes.
type TCP struct {
	links []*link // by party; nil for self
}

// A link is the connection to a party.
type link struct {
	conn    *tls.Conn
	in, out direction
}

// A direction is one way of a connection. What breaks it is final: nothing can
// follow half a frame.
type direction struct {
	mu     sync.Mutex
	broken error
}

// DialTCP connects to every party and returns when all connections stand. Until
// then, it dials again where nobody answers, and turns strangers away. The listener
// is closed when it returns.
func DialTCP(ctx context.Context, c TCPConfig) (*TCP, error) {
	session := Config{Name: tcpALPN, Roster: c.Roster, Self: c.Self, Key: c.Key}
	if err := session.check(); err != nil {
		return nil, err
	}
	if len(c.Addresses) != len(c.Roster) || c.Listener == nil {
		return nil, fmt.Errorf("%w: %d addresses for %d parties, or no listener", ErrRoster, len(c.Addresses), len(c.Roster))
	}
	config, err := tlsConfig(c.Key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &dialling{c: c, tls: config, links: make([]*link, len(c.Roster)), done: cancel, missing: len(c.Roster) - 1}
	var group sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { c.Listener.Close() })
	defer stop()
	group.Go(func() { d.accept(ctx) })
	for to := c.Self + 1; to < len(c.Roster); to++ {
		group.Go(func() { d.dial(ctx, to) })
	}
	group.Wait()
	return d.finish(ctx)
}

// dialling is the making of a TCP.
type dialling struct {
	c   TCPConfig
	tls *tls.Config

	mu      sync.Mutex
	links   []*link
	missing int
	last    []error // why dialling failed
	done    context.CancelFunc
}

func (d *dialling) finish(ctx context.Context) (*TCP, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &TCP{links: d.links}
	if d.missing == 0 {
		return t, nil
	}
	t.Close()
	for i, l := range d.links {
		if l == nil && i != d.c.Self {
			err := fmt.Errorf("%w: no connection: %w", ErrMissing, errors.Join(append(d.last, context.Cause(ctx))...))
			return nil, &PartyError{d.c.Roster[i].Name, "connecting", err}
		}
	}
	return nil, ErrMissing
}

// add takes a connection whose peer is known; a second one is turned away.
func (d *dialling) add(party int, conn *tls.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links[party] != nil {
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	d.links[party] = &link{conn: conn}
	if d.missing--; d.missing == 0 {
		d.done()
	}
}

func (d *dialling) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = []error{err}
}

func (d *dialling) accept(ctx context.Context) {
	slots := make(chan struct{}, maxHandshakes)
	var group sync.WaitGroup
	defer group.Wait()
	for ctx.Err() == nil {
		raw, err := d.c.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !pause(ctx, dialPause) {
				return
			}
			continue // out of descriptors, or the client was faster to leave
		}
		select {
		case slots <- struct{}{}:
		default:
			raw.Close()
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			d.serve(ctx, raw)
		})
	}
}

// serve takes a connection of a party before us, and no other.
func (d *dialling) serve(ctx context.Context, raw net.Conn) {
	conn := tls.Server(raw, d.tls)
	if party, err := d.handshake(ctx, conn); err != nil || party >= d.c.Self {
		raw.Close()
	} else {
		d.add(party, conn)
	}
}

func (d *dialling) dial(ctx context.Context, to int) {
	for wait := dialPause; ; wait = min(2*wait, maxDialPause) {
		err := d.dialOnce(ctx, to)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			d.fail(err)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (d *dialling) dialOnce(ctx context.Context, to int) error {
	dialer := net.Dialer{Timeout: handshakeTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", d.c.Addresses[to])
	if err != nil {
		return err
	}
	conn := tls.Client(raw, d.tls)
	party, err := d.handshake(ctx, conn)
	if err == nil && party != to {
		err = fmt.Errorf("%w: %s is %q, not %q", ErrRoster, d.c.Addresses[to], d.c.Roster[party].Name, d.c.Roster[to].Name)
	}
	if err != nil {
		raw.Close()
		return err
	}
	d.add(to, conn)
	return nil
}

// handshake returns the place of the peer. What the peer thinks of us, a client
// learns only when it reads: in TLS 1.3 its handshake ends before the server's.
func (d *dialling) handshake(ctx context.Context, conn *tls.Conn) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	key := conn.ConnectionState().PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	for i, p := range d.c.Roster {
		if i != d.c.Self && key.Equal(p.Key) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: the peer's key is in no roster of ours", ErrRoster)
}

// pause waits, and reports whether there is reason to go on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tlsConfig makes a certificate that says nothing but the key; the key is what
// peers check, and TLS proves its possession.
func tlsConfig(key crypto.Signer) (*tls.Config, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: tcpALPN},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{tcpALPN},
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // no authority vouches for parties: their keys are known
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != tcpALPN || len(state.PeerCertificates) != 1 {
				return fmt.Errorf("%w: the peer does not speak %s", ErrRoster, tcpALPN)
			}
			if _, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok {
				return fmt.Errorf("%w: the peer's key is not Ed25519", ErrRoster)
			}
			return nil
		},
	}, nil
}

// Send implements Net.
func (t *TCP) Send(ctx context.Context, to int, frame []byte) error {
	l := t.links[to]
	b := make([]byte, 0, 4+len(frame))
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(frame))), frame...)
	return l.out.do(ctx, l.conn.SetWriteDeadline, func() error {
		_, err := l.conn.Write(b)
		return err
	})
}

// Receive implements Net.
func (t *TCP) Receive(ctx context.Context, from, limit int) (frame []byte, err error) {
	l := t.links[from]
	err = l.in.do(ctx, l.conn.SetReadDeadline, func() error {
		var head [4]byte
		if _, err := io.ReadFull(l.conn, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if uint64(n) > uint64(limit) {
			return fmt.Errorf("%w: %d bytes where at most %d belong", ErrTooLong, n, limit)
		}
		frame = make([]byte, n)
		_, err := io.ReadFull(l.conn, frame)
		return err
	})
	return frame, err
}

// do runs f until the context ends, and remembers what broke the direction.
func (d *direction) do(ctx context.Context, deadline func(time.Time) error, f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline(time.Time{})
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		deadline(time.Unix(1, 0))
		close(interrupted)
	})
	err := f()
	if !stop() {
		<-interrupted // else it might hit the next frame
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		d.broken = fmt.Errorf("%w: given up in the middle of a frame", ErrMissing)
		return ctx.Err()
	case errors.Is(err, net.ErrClosed):
		d.broken = ErrOver
	case errors.Is(err, ErrTooLong):
		d.broken = err
	default:
		d.broken = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return d.broken
}

// Close implements Net.
func (t *TCP) Close() error {
	var group sync.WaitGroup
	for _, l := range t.links {
		if l != nil {
			group.Go(func() {
				l.conn.SetWriteDeadline(time.Now().Add(time.Second)) // of the last alert
				l.conn.Close()
			})
		}
	}
	group.Wait()
	return nil
}
