package transport

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"time"

	"fednode/store"
	"fednode/store/jcs"
)

// The answer to a fetch begins with a status byte: an artifact (one frame with the header, then exactly the bytes from
// the offset on), or a refusal (the two frames of any answer). The recipient acknowledges with one byte and the end of
// its own direction, once it has verified the whole.
const (
	fetchArtifact byte = 1
	fetchRefused  byte = 2
	fetchReceived byte = 6

	maxFetchHeader = 4 << 10
	maxMediaType   = 256
	bufferSize     = 64 << 10

	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// fetchHeader describes an artifact before its bytes.
type fetchHeader struct {
	Size      int64  `json:"size"`
	Offset    int64  `json:"offset"`
	Salt      []byte `json:"salt"`
	MediaType string `json:"media_type"`
}

// A Sink says where an artifact goes and what it must be.
type Sink struct {
	Writer     io.Writer // gets the bytes in order, each once
	Commitment string    // expected HMAC-SHA-256(salt, bytes), base64
	MaxSize    int64     // bytes; more is refused before any are read. 0: the node's limit
	// Held is what an earlier Fetch of the same artifact has already written, if anything; it is read once.
	Held *io.SectionReader
}

// FetchInfo describes a fetched artifact.
type FetchInfo struct {
	Size      int64
	MediaType string
	Salt      []byte // of the commitment; it is the recipient's to keep or forget
	Attempts  int    // connections it took
}

// ErrCommitment means that an artifact is not the one that was committed to. What the sink got must be thrown away.
var ErrCommitment = errors.New("artifact does not match its commitment")

// errStalled means that a stream has made no progress in Limits.ArtifactStall.
var errStalled = errors.New("no progress")

// A download is one artifact on its way, over however many connections.
type download struct {
	n        *Node
	m        Message
	sink     Sink
	written  int64 // to the sink, with what it held before
	info     FetchInfo
	lane     Lane      // of the last attempt
	mac      hash.Hash // keyed once the salt is known
	progress int64     // written when the attempt under way began
}

// Fetch streams an artifact from its holder m.To into sink, in bounded memory. After a lost connection it goes on where
// it was, until ctx ends. m asks and authorises; its payload is the message type's. It needs no entry before it starts;
// a refusal is signed, put on record here and returned as an *[Error]. The bytes are right if and only if the error is
// nil: they are checked against the commitment at the end.
func (n *Node) Fetch(ctx context.Context, m Message, sink Sink) (FetchInfo, error) {
	start := time.Now()
	if sink.MaxSize <= 0 || sink.MaxSize > n.limit.ArtifactSize {
		sink.MaxSize = n.limit.ArtifactSize
	}
	d := &download{n: n, m: m, sink: sink}
	if sink.Held != nil {
		d.written = sink.Held.Size()
	}
	held := d.written
	err := d.run(ctx)
	n.m.transfer("in", m.To, d.lane, d.written-held, time.Since(start))
	if err != nil {
		return FetchInfo{}, fmt.Errorf("%s from %s: %w", m.Type, m.To, err)
	}
	return d.info, nil
}

func (d *download) run(ctx context.Context) error {
	if b, err := decodeStrict(d.sink.Commitment); err != nil || len(b) != sha256.Size {
		return errors.New("the expected commitment is not 32 bytes in padded base64")
	}
	if err := d.n.callable(d.m.To); err != nil {
		return err
	}
	backoff := firstBackoff
	for {
		d.info.Attempts++
		d.progress = d.written
		err := d.attempt(ctx)
		if err == nil || !passing(err) {
			return err
		}
		if d.written > d.progress {
			backoff = firstBackoff
		}
		d.n.c.Logger.Info("artifact stream interrupted", "peer", d.m.To, "offset", d.written, "attempt", d.info.Attempts, "err", err)
		timer := time.NewTimer(jitter(backoff))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w; last attempt: %w", context.Cause(ctx), err)
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// jitter spreads d over [d/2, d), so that peers cut off together don't come back together.
func jitter(d time.Duration) time.Duration {
	r, err := rand.Int(rand.Reader, big.NewInt(int64(d/2)))
	if err != nil {
		return d
	}
	return d/2 + time.Duration(r.Int64())
}

// passing reports whether another attempt may succeed where this one failed.
func passing(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Code == CodeOverloaded || e.Code == CodeRateLimited
	}
	return errors.Is(err, ErrUnreachable) || errors.Is(err, errStalled) || connectionLost(err)
}

// attempt asks once and reads as far as it gets.
func (d *download) attempt(ctx context.Context) error {
	out, err := d.n.seal(d.m, "", trace(ctx))
	if err != nil {
		return err
	}
	dl := d.n.dialer(d.m.To)
	l, _, err := dl.get(ctx)
	if err != nil {
		return err
	}
	defer dl.release(l)
	d.lane = l.conn.lane()
	s, err := l.conn.open(ctx)
	if err != nil {
		return err
	}
	stop := abortWith(ctx, s)
	defer stop()
	err = d.receive(ctx, s, out)
	if err != nil {
		s.abort(CodeCancelled)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if connectionLost(err) {
			dl.lost(l)
		} else if isTimeout(err) {
			return fmt.Errorf("%w for %s", errStalled, d.n.limit.ArtifactStall)
		}
		return fromStream(err)
	}
	return nil
}

func (d *download) receive(ctx context.Context, s stream, out *outgoing) error {
	h := header{kind: kindFetch, offset: d.written}
	if at, ok := ctx.Deadline(); ok {
		h.timeout = max(time.Until(at), time.Millisecond)
	}
	r := &stallReader{s, d.n.limit.ArtifactStall}
	if err := s.SetWriteDeadline(time.Now().Add(d.n.limit.ArtifactStall)); err != nil {
		return err
	}
	if _, err := s.Write(appendFrame(appendFrame(h.append(nil), out.wire), nil)); err != nil {
		return err
	}
	var status [1]byte
	if _, err := io.ReadFull(r, status[:]); err != nil {
		return err
	}
	switch status[0] {
	case fetchArtifact:
		if err := d.begin(r); err != nil {
			return err
		}
		if err := d.copy(r); err != nil {
			return err
		}
		return d.finish(r, s)
	case fetchRefused:
		return d.refused(ctx, r, out)
	}
	return &Error{CodeMalformed, "status of the artifact stream"}
}

// begin reads the artifact's header and, the first time, keys the running commitment.
func (d *download) begin(r io.Reader) error {
	b, err := readFrame(r, maxFetchHeader)
	if err != nil {
		return err
	}
	var h fetchHeader
	if err := jcs.Unmarshal(b, &h); err != nil || len(h.Salt) != SaltSize || len(h.MediaType) > maxMediaType || h.Size < 0 || h.Offset != d.written || h.Size < h.Offset {
		return &Error{CodeMalformed, "header of the artifact stream"}
	}
	if h.Size > d.sink.MaxSize {
		return refuse(CodeTooLarge, "the artifact has %d bytes; at most %d are wanted", h.Size, d.sink.MaxSize)
	}
	if d.mac == nil {
		d.info.Size, d.info.MediaType, d.info.Salt = h.Size, h.MediaType, h.Salt
		d.mac = hmac.New(sha256.New, h.Salt)
		if d.sink.Held != nil {
			if _, err := io.Copy(d.mac, io.NewSectionReader(d.sink.Held, 0, d.sink.Held.Size())); err != nil {
				return fmt.Errorf("read what is held: %w", err)
			}
		}
	}
	if d.info.Size != h.Size || !hmac.Equal(d.info.Salt, h.Salt) {
		return fmt.Errorf("%w: size or salt changed between attempts", ErrCommitment)
	}
	return nil
}

// copy moves the rest of the artifact to the sink.
func (d *download) copy(r io.Reader) error {
	buf := make([]byte, min(bufferSize, max(d.info.Size-d.written, 1)))
	for d.written < d.info.Size {
		k, err := r.Read(buf[:min(int64(len(buf)), d.info.Size-d.written)])
		if k > 0 {
			w, werr := d.sink.Writer.Write(buf[:k])
			d.mac.Write(buf[:w])
			d.written += int64(w)
			if werr != nil {
				return fmt.Errorf("write artifact: %w", werr)
			}
		}
		if err == io.EOF && d.written < d.info.Size {
			return refuse(CodeMalformed, "the artifact ends after %d of %d bytes", d.written, d.info.Size)
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// finish verifies the whole and tells the holder that it has arrived.
func (d *download) finish(r io.Reader, s stream) error {
	if base64.StdEncoding.EncodeToString(d.mac.Sum(nil)) != d.sink.Commitment {
		return ErrCommitment
	}
	// The artifact is here and right; that the acknowledgement is lost is the holder's uncertainty, not an error. On the
	// TCP lane the holder's direction ends after it only.
	if _, err := s.Write([]byte{fetchReceived}); err == nil && s.Close() == nil && readEnd(r) != nil {
		s.abort(CodeCancelled)
	}
	return nil
}

// refused verifies and records a signed refusal.
func (d *download) refused(ctx context.Context, r io.Reader, out *outgoing) error {
	wire, err := readFrame(r, MaxEnvelope)
	if err != nil {
		return err
	}
	proof, err := readFrame(r, maxProof)
	if err != nil {
		return err
	}
	reply, err := d.n.verifyReply(d.m.To, out, wire, proof)
	if err != nil {
		return err
	}
	if reply.Refusal == nil {
		return &Error{CodeMalformed, "the answer to a fetch is neither artifact nor refusal"}
	}
	if err := d.n.c.DB.Update(ctx, func(tx *store.Tx) error { return reply.Record(tx) }); err != nil {
		return fmt.Errorf("record refusal: %w", err)
	}
	return reply.Refusal
}

// A stallReader fails when the peer sends nothing for too long, however long the whole takes.
type stallReader struct {
	s     stream
	limit time.Duration
}

func (r *stallReader) Read(p []byte) (int, error) {
	if err := r.s.SetReadDeadline(time.Now().Add(r.limit)); err != nil {
		return 0, err
	}
	return r.s.Read(p)
}
