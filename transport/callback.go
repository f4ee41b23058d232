package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Who has invited somebody calls back at the endpoints that the joiner is going to have, to see that they lead there.
// What answers is the handshake of the joining protocol alone: no request is read.

// callbackLinger is how long a connection may stay after its handshake.
const callbackLinger = 5 * time.Second

// maxCallbacks bounds the connections that a callback listener has at once, on each lane.
const maxCallbacks = 16

// ServeCallbacks answers the handshakes of [Node.CallBack] on conn, which it does not close, and ln, which it does, until
// ctx ends. chain is the leaf that is shown, root last.
func ServeCallbacks(ctx context.Context, conn net.PacketConn, ln net.Listener, chain tls.Certificate, now func() time.Time) error {
	conf := baseTLS(joinProtocol)
	conf.Certificates = []tls.Certificate{chain}
	conf.Time = now
	tr := &quic.Transport{Conn: conn, ConnectionIDLength: 8}
	quicLn, err := tr.Listen(conf, &quic.Config{HandshakeIdleTimeout: handshakeTimeout, MaxIdleTimeout: callbackLinger, MaxIncomingStreams: -1, MaxIncomingUniStreams: -1})
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", conn.LocalAddr(), err), ln.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var work sync.WaitGroup
	var tcpErr error
	work.Go(func() {
		defer cancel()
		tcpErr = callbacksTCP(ctx, ln, conf, &work)
	})
	slots := make(chan struct{}, maxCallbacks)
	for err == nil {
		var c *quic.Conn
		if c, err = quicLn.Accept(ctx); err != nil {
			break
		}
		select {
		case slots <- struct{}{}:
			work.Go(func() {
				defer func() { <-slots }()
				select {
				case <-c.Context().Done(): // the caller closes
				case <-time.After(callbackLinger):
				case <-ctx.Done():
				}
				_ = c.CloseWithError(0, "")
			})
		default:
			_ = c.CloseWithError(closeNumber(CodeOverloaded), "")
		}
	}
	ended := ctx.Err() != nil
	cancel()
	work.Wait()
	if ended {
		err = nil
	}
	return errors.Join(err, tcpErr, quicLn.Close(), tr.Close())
}

func callbacksTCP(ctx context.Context, ln net.Listener, conf *tls.Config, work *sync.WaitGroup) error {
	slots := make(chan struct{}, maxCallbacks)
	for {
		raw, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
			work.Go(func() {
				defer func() { <-slots }()
				defer raw.Close()
				hctx, cancel := context.WithTimeout(ctx, callbackLinger)
				defer cancel()
				_ = tls.Server(raw, conf).HandshakeContext(hctx) // a caller that fails knows why
			})
		default:
			_ = raw.Close()
		}
	}
}

// A Callback is how a joiner's endpoint answered over one lane.
type Callback struct {
	Endpoint string
	Lane     Lane
	RTT      time.Duration // of the handshake
	Err      error
}

// CallBack calls a joiner back at endpoint, "host:port", over both lanes at once, from where this node calls members. verify
// judges the chain that is shown there, as with [JoinDialer.Dial]. asker is where the joiner asks from: nothing nearer to this
// node than that is called, which is [ErrElsewhere].
func (n *Node) CallBack(ctx context.Context, asker net.Addr, endpoint string, verify func(chain []*x509.Certificate) error) []Callback {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil
	}
	out := make([]Callback, len(n.lanes()))
	addrs, err := n.resolveFor(ctx, asker, endpoint)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	var work sync.WaitGroup
	for i, lane := range n.lanes() {
		out[i] = Callback{Endpoint: endpoint, Lane: lane, Err: err}
		if err != nil {
			continue
		}
		work.Go(func() {
			for _, a := range addrs[:min(len(addrs), maxAddresses)] {
				began := time.Now()
				if out[i].Err = n.callOver(ctx, lane, a, verify); out[i].Err == nil {
					out[i].RTT = time.Since(began)
					return
				}
			}
		})
	}
	work.Wait()
	return out
}

func (n *Node) callOver(ctx context.Context, lane Lane, a net.Addr, verify func(chain []*x509.Certificate) error) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conf := JoinDialer{Now: n.c.Now}.tls(verify)
	if lane == LaneQUIC {
		c, err := n.tr.Dial(ctx, udpAddr(a), conf, n.quicConfig())
		if err != nil {
			return err
		}
		return c.CloseWithError(0, "")
	}
	raw, err := n.c.Dial(ctx, a.String())
	if err != nil {
		return err
	}
	t := tls.Client(raw, conf)
	return errors.Join(t.HandshakeContext(ctx), raw.Close())
}
