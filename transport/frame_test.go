package transport

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"testing"
	"testing/iotest"
	"time"
)

func TestHeaderRoundTrip(t *testing.T) {
	for _, h := range []header{{kind: kindRequest}, {kind: kindRequest, timeout: time.Millisecond}, {kind: kindFetch, timeout: time.Hour, offset: math.MaxInt64}} {
		got, err := readHeader(bytes.NewReader(h.append(nil)))
		if err != nil || got != h {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
	}
	got, err := readHeader(bytes.NewReader(header{kind: kindRequest, timeout: 1}.append(nil)))
	if err != nil || got.timeout != time.Millisecond {
		t.Errorf("a nanosecond became %v, %v: a deadline must not vanish", got.timeout, err)
	}
}

func TestHeaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		code Code
	}{
		"version":         {[]byte{1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, CodeUnsupportedVersion},
		"kind":            {[]byte{4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, CodeMalformed},
		"reserved":        {[]byte{1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, CodeMalformed},
		"ping offset":     {[]byte{3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, CodeMalformed},
		"request offset":  {[]byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, CodeMalformed},
		"negative offset": {[]byte{2, 1, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}, CodeMalformed},
	} {
		_, err := readHeader(bytes.NewReader(c.b))
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: %v; want %s", name, err, c.code)
		}
	}
}

func TestFrames(t *testing.T) {
	for _, size := range []int{0, 1, frameStep - 1, frameStep, frameStep + 1, 3*frameStep + 5, MaxEnvelope} {
		want := bytes.Repeat([]byte{'x'}, size)
		b := appendFrame(nil, want)
		got, err := readFrame(iotest.HalfReader(bytes.NewReader(b)), MaxEnvelope)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("frame of %d: got %d, %v", size, len(got), err)
		}
		if size > 0 {
			if _, err := readFrame(bytes.NewReader(b[:len(b)-1]), MaxEnvelope); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("truncated frame of %d: %v", size, err)
			}
		}
	}
	var e *Error
	if _, err := readFrame(bytes.NewReader([]byte{0, 0x10, 0, 1}), MaxEnvelope); !errors.As(err, &e) || e.Code != CodeTooLarge {
		t.Errorf("frame over the limit: %v", err)
	}
}

// Announcing a large frame must not make the receiver allocate it.
func TestAnnouncedFrameCostsNothing(t *testing.T) {
	const rounds = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		if _, err := readFrame(bytes.NewReader([]byte{0, 0x10, 0, 0, 'x'}), MaxEnvelope); err == nil {
			t.Fatal("read")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > 4*frameStep {
		t.Errorf("%d bytes allocated for a frame that never came", each)
	}
}

func TestReadEnd(t *testing.T) {
	if err := readEnd(bytes.NewReader(nil)); err != nil {
		t.Error(err)
	}
	if err := readEnd(bytes.NewReader([]byte{0})); err == nil {
		t.Error("bytes after the last frame pass")
	}
}

func TestCodesHaveStableNumbers(t *testing.T) {
	for number, want := range map[uint64]Code{1: CodeDenied, 2: CodeInternal, 3: CodeMalformed, 13: CodeNotMember, 14: CodeClockSkew,
		16: CodeReplayed, 22: CodeOverloaded, 25: CodeCancelled, 29: CodeLost} {
		if codeOf(number) != want || want.number() != number {
			t.Errorf("number %d is %s, and %s has number %d", number, codeOf(number), want, want.number())
		}
	}
	if codeOf(0) != CodeInternal || codeOf(9999) != CodeInternal || Code("made-up").number() != CodeInternal.number() {
		t.Error("unknown codes and numbers must read as internal")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(appendFrame(header{kind: kindRequest, timeout: time.Second}.append(nil), []byte("{}")), nil))
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		h, err := readHeader(r)
		if err != nil {
			return
		}
		a, err := readFrame(r, MaxEnvelope)
		if err != nil {
			return
		}
		b, err := readFrame(r, maxProof)
		if err != nil || readEnd(r) != nil {
			return
		}
		if len(a) > MaxEnvelope || len(b) > maxProof {
			t.Fatalf("frames of %d and %d pass", len(a), len(b))
		}
		if !bytes.Equal(appendFrame(appendFrame(h.append(nil), a), b), data) {
			t.Fatal("not what was read")
		}
	})
}
