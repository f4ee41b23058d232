package transport

import (
	"encoding/binary"
	"io"
	"math"
	"time"
)

// A request stream begins with a header and carries two frames, envelope and proof, each with a 4-byte big-endian
// length; a proof of length 0 means that there is none. The answer is the same two frames without header.
//
//	header: kind (1 byte) · version (1 byte) · reserved, zero (2 bytes) · timeout in ms, 0 for none (4 bytes) · offset (8 bytes)
const headerSize = 16

type kind byte

const (
	kindRequest kind = 1
	kindFetch   kind = 2
	kindPing    kind = 3 // the header alone; the answer is empty
)

// A header opens a request stream. Offset is where a fetch resumes.
type header struct {
	kind    kind
	timeout time.Duration
	offset  int64
}

// append writes h after b. Timeouts are rounded up to the millisecond and capped at 49 days, the field's range.
func (h header) append(b []byte) []byte {
	ms := (h.timeout + time.Millisecond - 1) / time.Millisecond
	b = append(b, byte(h.kind), Version, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(ms, 0), math.MaxUint32)))
	return binary.BigEndian.AppendUint64(b, uint64(h.offset))
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	if b[1] != Version {
		return header{}, refuse(CodeUnsupportedVersion, "frame version %d; this node speaks %d", b[1], Version)
	}
	h := header{kind: kind(b[0]), timeout: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Millisecond, offset: int64(binary.BigEndian.Uint64(b[8:]))}
	if h.kind < kindRequest || h.kind > kindPing || b[2]|b[3] != 0 || h.offset < 0 || h.kind != kindFetch && h.offset != 0 {
		return header{}, &Error{CodeMalformed, "stream header"}
	}
	return h, nil
}

func appendFrame(b, frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(frame))), frame...)
}

// frameStep is how much readFrame allocates ahead of the bytes that have arrived, so that announcing a large frame
// costs the sender what it costs us.
const frameStep = 16 << 10

// readFrame reads one frame of at most limit bytes.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(b[:]))
	if n > int64(limit) {
		return nil, refuse(CodeTooLarge, "frame of %d bytes; at most %d", n, limit)
	}
	frame := make([]byte, 0, min(n, frameStep))
	for int64(len(frame)) < n {
		if len(frame) == cap(frame) {
			frame = append(frame, 0)[:len(frame)]
		}
		k, err := io.ReadFull(r, frame[len(frame):min(int64(cap(frame)), n)])
		frame = frame[:len(frame)+k]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return frame, nil
}

// readEnd checks that nothing follows.
func readEnd(r io.Reader) error {
	var b [1]byte
	if n, err := io.ReadFull(r, b[:]); n != 0 {
		return &Error{CodeMalformed, "bytes after the last frame"}
	} else if err != io.EOF {
		return err
	}
	return nil
}
