package transport

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"

	"fednode/store"
	"fednode/store/ledger"
)

// impostor runs org with its real keys, but answers every request with whatever bytes answer returns.
func (w *world) impostor(org OrgID, answer func(p *peer, q *Envelope) []byte) *peer {
	w.t.Helper()
	p := w.newPeer(org)
	tr := &quic.Transport{Conn: p.o.conn, ConnectionIDLength: 8}
	ln, err := tr.Listen(p.serverTLS(), p.quicConfig())
	w.must(err)
	w.setUp(p.o, true)
	var served sync.WaitGroup
	serve := func(c *quic.Conn) {
		for {
			s, err := c.AcceptStream(context.Background())
			if err != nil {
				return
			}
			if _, err := readHeader(s); err != nil {
				continue
			}
			wire, err := readFrame(s, MaxEnvelope)
			if err != nil {
				continue
			}
			q, err := ParseEnvelope(wire)
			if err != nil {
				w.t.Error(err)
			}
			s.CancelRead(0)
			s.Write(answer(p, q))
			s.Close()
		}
	}
	go func() {
		defer close(p.done)
		defer served.Wait()
		for {
			c, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			served.Go(func() { serve(c) })
		}
	}()
	p.cancel = func() { ln.Close(); tr.Close() }
	w.t.Cleanup(func() { p.stop(w.t) })
	return p
}

func (p *peer) entries(t testing.TB) []ledger.Entry {
	t.Helper()
	var out []ledger.Entry
	for i, b := range p.log.Entries(0, p.log.Head().Size) {
		if i < 0 {
			t.Fatalf("log of %s: %s", p.c.Org, b)
		}
		e, err := ledger.ParseEntry(b)
		if err != nil {
			t.Fatalf("entry %d of %s: %v", i, p.c.Org, err)
		}
		out = append(out, e)
	}
	return out
}

// wantLog compares the types and results of all entries.
func (p *peer) wantLog(t testing.TB, want ...string) {
	t.Helper()
	if got := results(p.entries(t)); !slices.Equal(got, want) {
		t.Errorf("log of %s: %q; want %q", p.c.Org, got, want)
	}
}

func results(entries []ledger.Entry) (out []string) {
	for _, e := range entries {
		out = append(out, e.Type+" "+e.Result)
	}
	return out
}

func (p *peer) has(bucket, key string) (ok bool) {
	p.w.must(p.db.View(func(tx *store.Tx) error {
		b := tx.Bucket(bucket)
		ok = b != nil && b.Get([]byte(key)) != nil
		return nil
	}))
	return ok
}

func (p *peer) count(bucket string) (n int) {
	p.w.must(p.db.View(func(tx *store.Tx) error {
		if b := tx.Bucket(bucket); b != nil {
			return b.ForEach(func(k, v []byte) error { n++; return nil })
		}
		return nil
	}))
	return n
}

// verifyReceipts does what an auditor would: every receipt offline, with the member record's keys alone.
func (p *peer) verifyReceipts(t testing.TB, w *world, want int) {
	t.Helper()
	n := 0
	own := p.entries(t)
	err := p.db.View(func(tx *store.Tx) error {
		return Receipts(tx, func(r Receipt) error {
			n++
			m, _ := w.set.Get(r.Peer)
			key, _ := m.MessageKey("k1")
			if err := VerifyLedgerForm(r.Envelope, key); err != nil {
				t.Errorf("envelope of receipt %d: %v", r.EntryIndex, err)
			}
			leaf, proof, err := r.Leaf()
			if err != nil {
				return err
			}
			if !bytes.Contains(leaf, r.Envelope) {
				t.Errorf("receipt %d proves another envelope", r.EntryIndex)
			}
			if _, _, err := ledger.VerifyProof(proof, leaf, m.LogVerifier()); err != nil {
				t.Errorf("proof of receipt %d: %v", r.EntryIndex, err)
			}
			if !bytes.Equal(own[r.EntryIndex].Envelope, r.Envelope) {
				t.Errorf("entry %d holds another envelope than its receipt", r.EntryIndex)
			}
			return nil
		})
	})
	if err != nil || n != want {
		t.Errorf("%s has %d receipts, %v; want %d", p.c.Org, n, err, want)
	}
}
