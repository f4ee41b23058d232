package hsm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A sealed stream is
//
//	magic (16) ‖ nonce (24) ‖ wrapped file key (32+16) ‖ chunk 0 ‖ chunk 1 ‖ …
//
// The random file key is encrypted with XChaCha20-Poly1305 under the keyring's
// stream key; magic ‖ aad is its associated data. Each chunk is 65,536 bytes of
// plaintext (the last one 0 to 65,536; 0 only when the stream is empty)
// encrypted with AES-256-GCM under the file key. As in STREAM (Hoang,
// Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its
// Nonce-Reuse Misuse-Resistance", 2015) the nonce is the chunk's number, 11 bytes
// big-endian, and one byte that is 1 for the last chunk: so a chunk that is
// moved, left out or cut off does not open.
const (
	streamMagic      = "fednode-stream/1"
	fileKeySize      = 32
	gcmTagSize       = 16
	xNonceSize       = 24
	streamHeaderSize = len(streamMagic) + xNonceSize + fileKeySize + gcmTagSize

	// StreamChunk is the plaintext size of a chunk in bytes: what a read at a
	// random offset has to decrypt.
	StreamChunk = 64 << 10
	sealedChunk = StreamChunk + gcmTagSize

	// maxStreamChunks bounds a stream to 256 TiB.
	maxStreamChunks = 1 << 32
)

// SealedSize returns the size in bytes of a sealed stream of n plaintext bytes.
func SealedSize(n int64) int64 {
	chunks := max(1, (n+StreamChunk-1)/StreamChunk)
	return int64(streamHeaderSize) + n + chunks*gcmTagSize
}

// plainSize is the inverse of SealedSize; it fails for sizes no stream has.
func plainSize(sealed int64) (int64, error) {
	body := sealed - int64(streamHeaderSize)
	chunks := (body + sealedChunk - 1) / sealedChunk
	n := body - chunks*gcmTagSize
	if body < gcmTagSize || chunks > maxStreamChunks || n < 0 || SealedSize(n) != sealed {
		return 0, fmt.Errorf("%w: no stream has %d bytes: truncated or not a stream", ErrUnseal, sealed)
	}
	return n, nil
}

type chunkNonce [12]byte

func nonceOf(chunk int64, last bool) (n chunkNonce) {
	binary.BigEndian.PutUint64(n[3:11], uint64(chunk))
	if last {
		n[11] = 1
	}
	return n
}

func newFileCipher(fileKey []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(fileKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// SealStream returns a writer that encrypts to w under a file key of its own.
// Close writes the end of the stream and must be called only when everything
// was written: a stream that was not closed does not open, which is what an
// interrupted write should leave. Close does not close w.
func (s Sealer) SealStream(w io.Writer, aad []byte) (io.WriteCloser, error) {
	_, wrap, err := s.ciphers()
	if err != nil {
		return nil, err
	}
	fileKey := make([]byte, fileKeySize)
	defer clear(fileKey)
	header := make([]byte, streamHeaderSize-fileKeySize-gcmTagSize, streamHeaderSize)
	nonce := header[copy(header, streamMagic):]
	if _, err := rand.Read(fileKey); err != nil {
		return nil, err
	}
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	header = wrap.Seal(header, nonce, fileKey, streamContext(aad))
	body, err := newFileCipher(fileKey)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, fmt.Errorf("sealed stream: %w", err)
	}
	return &streamWriter{w: w, aead: body, buf: make([]byte, 0, sealedChunk)}, nil
}

func streamContext(aad []byte) []byte {
	return append([]byte(streamMagic), aad...)
}

type streamWriter struct {
	w     io.Writer
	aead  cipher.AEAD
	buf   []byte // plaintext of the chunk being filled, encrypted in place
	chunk int64
	err   error // sticky
}

func (w *streamWriter) Write(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	for len(p) > 0 {
		// A full chunk waits for more to come: only then it is not the last.
		if len(w.buf) == StreamChunk {
			if w.err = w.flush(false); w.err != nil {
				return n, w.err
			}
		}
		taken := min(len(p), StreamChunk-len(w.buf))
		w.buf = append(w.buf, p[:taken]...)
		p, n = p[taken:], n+taken
	}
	return n, nil
}

func (w *streamWriter) flush(last bool) error {
	if w.chunk >= maxStreamChunks {
		return fmt.Errorf("sealed stream: longer than %d chunks", int64(maxStreamChunks))
	}
	nonce := nonceOf(w.chunk, last)
	sealed := w.aead.Seal(w.buf[:0], nonce[:], w.buf, nil)
	if _, err := w.w.Write(sealed); err != nil {
		return fmt.Errorf("sealed stream: %w", err)
	}
	w.buf = w.buf[:0]
	w.chunk++
	return nil
}

// Close seals the last chunk. After a failed Write it returns that error and
// leaves the stream unfinished.
func (w *streamWriter) Close() error {
	if w.err != nil {
		return w.err
	}
	err := w.flush(true)
	clear(w.buf[:cap(w.buf)])
	w.aead = nil
	if w.err = err; err == nil {
		w.err = fmt.Errorf("sealed stream: %w", ErrClosed)
	}
	return err
}

// Stream reads a sealed stream at any offset. It is safe for concurrent use.
type Stream struct {
	_      [0]func()
	src    io.ReaderAt
	size   int64
	chunks int64
	aead   cipher.AEAD
	pool   sync.Pool // of *[]byte, sealedChunk long
}

// OpenStream opens a sealed stream of sealedSize bytes in src. It verifies the
// header and the last chunk, so that Size is authentic; every other chunk is
// verified when it is read. The error wraps ErrUnseal if the stream was altered,
// cut off, or sealed with another aad. Closing src is the caller's business.
func (s Sealer) OpenStream(src io.ReaderAt, sealedSize int64, aad []byte) (*Stream, error) {
	_, wrap, err := s.ciphers()
	if err != nil {
		return nil, err
	}
	size, err := plainSize(sealedSize)
	if err != nil {
		return nil, err
	}
	header := make([]byte, streamHeaderSize)
	if err := readFullAt(src, header, 0); err != nil {
		return nil, err
	}
	if string(header[:len(streamMagic)]) != streamMagic {
		return nil, fmt.Errorf("%w: not a sealed stream of a known version", ErrUnseal)
	}
	nonce, wrapped := header[len(streamMagic):][:xNonceSize], header[len(streamMagic)+xNonceSize:]
	fileKey, err := wrap.Open(nil, nonce, wrapped, streamContext(aad))
	if err != nil {
		return nil, fmt.Errorf("%w: header altered, of another keyring, or not what it is taken for", ErrUnseal)
	}
	defer clear(fileKey)
	body, err := newFileCipher(fileKey)
	if err != nil {
		return nil, err
	}
	r := &Stream{src: src, size: size, chunks: max(1, (size+StreamChunk-1)/StreamChunk), aead: body}
	r.pool.New = func() any { b := make([]byte, sealedChunk); return &b }
	scratch := r.scratch()
	defer r.release(scratch)
	if _, err := r.openChunk(r.chunks-1, *scratch); err != nil {
		return nil, err
	}
	return r, nil
}

// Size is the plaintext's size in bytes.
func (r *Stream) Size() int64 { return r.size }

func (r *Stream) scratch() *[]byte { return r.pool.Get().(*[]byte) }

func (r *Stream) release(b *[]byte) {
	clear(*b)
	r.pool.Put(b)
}

// openChunk decrypts a chunk in place in buf, of length sealedChunk, and
// returns the plaintext part of it.
func (r *Stream) openChunk(chunk int64, buf []byte) ([]byte, error) {
	last := chunk == r.chunks-1
	length := int64(sealedChunk)
	if last {
		length = r.size - chunk*StreamChunk + gcmTagSize
	}
	sealed := buf[:length]
	if err := readFullAt(r.src, sealed, int64(streamHeaderSize)+chunk*sealedChunk); err != nil {
		return nil, err
	}
	nonce := nonceOf(chunk, last)
	plain, err := r.aead.Open(sealed[:0], nonce[:], sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %d of %d is altered, moved or cut off", ErrUnseal, chunk, r.chunks)
	}
	return plain, nil
}

// ReadAt implements io.ReaderAt over the plaintext. Each call decrypts every
// chunk it touches: read in pieces of StreamChunk or more, or use From.
func (r *Stream) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("sealed stream: negative offset %d", off)
	}
	scratch := r.scratch()
	defer r.release(scratch)
	for n < len(p) {
		if off >= r.size {
			return n, io.EOF
		}
		plain, err := r.openChunk(off/StreamChunk, *scratch)
		if err != nil {
			return n, err
		}
		taken := copy(p[n:], plain[off%StreamChunk:])
		n, off = n+taken, off+int64(taken)
	}
	return n, nil
}

// From returns a reader of the plaintext from offset on, which decrypts every
// chunk once. Closing it overwrites its buffer and does not close the source.
func (r *Stream) From(offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > r.size {
		return nil, fmt.Errorf("sealed stream: offset %d is outside of its %d bytes", offset, r.size)
	}
	return &streamReader{stream: r, offset: offset, buf: make([]byte, sealedChunk)}, nil
}

type streamReader struct {
	stream *Stream
	offset int64
	buf    []byte
	unread []byte // part of buf
	err    error  // sticky
}

func (r *streamReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.unread) == 0 {
		if r.offset >= r.stream.size {
			return 0, io.EOF
		}
		plain, err := r.stream.openChunk(r.offset/StreamChunk, r.buf)
		if err != nil {
			r.err = err
			return 0, err
		}
		r.unread = plain[r.offset%StreamChunk:]
	}
	n := copy(p, r.unread)
	r.unread = r.unread[n:]
	r.offset += int64(n)
	return n, nil
}

// Close overwrites the decrypted bytes held.
func (r *streamReader) Close() error {
	clear(r.buf)
	r.unread = nil
	r.err = fmt.Errorf("sealed stream: %w", ErrClosed)
	return nil
}

// readFullAt fills p; running out of bytes means the stream was cut off.
func readFullAt(src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends after %d bytes", ErrUnseal, off+int64(n))
	}
	return fmt.Errorf("sealed stream: %w", err)
}
