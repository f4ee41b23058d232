package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"fednode/store/jcs"
)

// A Source is an artifact that a [FetchHandler] lets the peer have.
type Source struct {
	Size      int64
	Salt      []byte // of the commitment; exactly SaltSize bytes
	MediaType string
	Open      func(offset int64) (io.ReadCloser, error) // the bytes from offset on
	// Done is called once, when it is over; optional. sent counts the bytes handed to the network. A nil error means
	// that the recipient has the whole and has verified it.
	Done func(sent int64, err error)
}

var errUnacknowledged = errors.New("the recipient has not acknowledged the artifact")

// serveFetch answers a fetch: with a refusal if f or the source fails before the first byte, else with the stream.
func (r *Request) serveFetch(ctx context.Context, f FetchHandler) error {
	src, err := f(ctx, r)
	if err != nil {
		return err
	}
	if src == nil || r.answered() {
		return nil
	}
	started := time.Now()
	sent, err := r.sendSource(ctx, src)
	if src.Done != nil {
		src.Done(sent, err)
	}
	r.n.m.transfer("out", r.From.ID, r.conn.lane(), sent, time.Since(started))
	if err != nil && r.answered() {
		r.n.c.Logger.Info("artifact stream ended early", "peer", r.From.ID, "sent", sent, "err", fromStream(err))
		code := CodeInternal
		if ctx.Err() != nil {
			code = CodeTimeout
		}
		r.stream.abort(code)
		return nil
	}
	return err
}

// sendSource sends src once, from the offset asked for.
func (r *Request) sendSource(ctx context.Context, src *Source) (sent int64, err error) {
	if len(src.Salt) != SaltSize || len(src.MediaType) > maxMediaType || src.Size < 0 {
		return 0, fmt.Errorf("source of %s has a salt of %d bytes, a media type of %d, and size %d", r.Envelope.MessageType, len(src.Salt), len(src.MediaType), src.Size)
	}
	if r.offset > src.Size {
		return 0, refuse(CodeMalformed, "offset %d in an artifact of %d bytes", r.offset, src.Size)
	}
	head, err := jcs.Marshal(fetchHeader{src.Size, r.offset, src.Salt, src.MediaType})
	if err != nil {
		return 0, err
	}
	from, err := src.Open(r.offset)
	if err != nil {
		return 0, fmt.Errorf("open artifact at %d: %w", r.offset, err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	r.done.Store(true)

	w := &stallWriter{ctx, r.stream, r.n.limit.ArtifactStall}
	if _, err := w.Write(appendFrame([]byte{fetchArtifact}, head)); err != nil {
		return 0, err
	}
	// The struct hides the stream's other methods from io.CopyBuffer: the buffer bounds the memory of a stream.
	want := src.Size - r.offset
	buf := make([]byte, min(bufferSize, want+1))
	sent, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(from, want)}, buf)
	if err != nil {
		return sent, err
	}
	if sent != want {
		return sent, fmt.Errorf("artifact has %d bytes from %d on; %d were promised", sent, r.offset, want)
	}
	if err := r.stream.Close(); err != nil {
		return sent, err
	}
	return sent, r.acknowledged()
}

func (r *Request) acknowledged() error {
	var ack [1]byte
	_, err := io.ReadFull(&stallReader{r.stream, r.n.limit.ArtifactStall}, ack[:])
	if err == nil && ack[0] != fetchReceived {
		err = errors.New("bad acknowledgement")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnacknowledged, err)
	}
	return nil
}

// A stallWriter fails when the peer takes nothing for too long, or when ctx ends.
type stallWriter struct {
	ctx   context.Context
	s     stream
	limit time.Duration
}

func (w *stallWriter) Write(p []byte) (int, error) {
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	if err := w.s.SetWriteDeadline(time.Now().Add(w.limit)); err != nil {
		return 0, err
	}
	return w.s.Write(p)
}
