package hsm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
)

func testSealer(t testing.TB, fill byte) Sealer {
	t.Helper()
	s, err := newSealer(bytes.Repeat([]byte{fill}, sealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealRoundTrip(t *testing.T) {
	s := testSealer(t, 1)
	for _, n := range []int{0, 1, 1000} {
		plain := bytes.Repeat([]byte{7}, n)
		a, err := s.Seal(plain, []byte("context"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Seal(plain, []byte("context"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(a, b) {
			t.Error("sealing twice gives the same bytes")
		}
		if len(a) != n+SealOverhead {
			t.Errorf("%d bytes sealed to %d", n, len(a))
		}
		got, err := s.Unseal(a, []byte("context"))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("unsealed %x, %v", got, err)
		}
	}
}

func TestUnsealRefusesAlterations(t *testing.T) {
	s := testSealer(t, 1)
	sealed, err := s.Seal([]byte("data"), []byte("context"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x80
		_, err := s.Unseal(bad, []byte("context"))
		wantError(t, err, ErrUnseal)
		_, err = s.Unseal(sealed[:i], []byte("context"))
		wantError(t, err, ErrUnseal)
	}
	_, err = s.Unseal(append(sealed, 0), []byte("context"))
	wantError(t, err, ErrUnseal)
	_, err = s.Unseal(sealed, []byte("other"))
	wantError(t, err, ErrUnseal)
	_, err = testSealer(t, 2).Unseal(sealed, []byte("context"))
	wantError(t, err, ErrUnseal)
	_, err = Sealer{}.Unseal(sealed, nil)
	wantError(t, err, ErrClosed)
}

func seal(t testing.TB, s Sealer, plain []byte, aad string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := s.SealStream(&out, []byte(aad))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openAll(s Sealer, sealed []byte, aad string) ([]byte, error) {
	r, err := s.OpenStream(bytes.NewReader(sealed), int64(len(sealed)), []byte(aad))
	if err != nil {
		return nil, err
	}
	from, err := r.From(0)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	return io.ReadAll(from)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestStreamSizes(t *testing.T) {
	s := testSealer(t, 1)
	for _, n := range []int{0, 1, StreamChunk - 1, StreamChunk, StreamChunk + 1, 2 * StreamChunk, 3*StreamChunk + 17} {
		plain := randomBytes(n)
		sealed := seal(t, s, plain, "a")
		if int64(len(sealed)) != SealedSize(int64(n)) {
			t.Errorf("%d bytes sealed to %d, SealedSize says %d", n, len(sealed), SealedSize(int64(n)))
		}
		got, err := openAll(s, sealed, "a")
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
		r, err := s.OpenStream(bytes.NewReader(sealed), int64(len(sealed)), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != int64(n) {
			t.Errorf("size %d, want %d", r.Size(), n)
		}
		from, err := r.From(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(from, plain); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// Whatever the pieces it was written in and read by, the plaintext is the same.
func TestStreamRandomAccess(t *testing.T) {
	s := testSealer(t, 1)
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	plain := randomBytes(5*StreamChunk + 1234)
	var out bytes.Buffer
	w, err := s.SealStream(&out, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), rng.IntN(2*StreamChunk))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := s.OpenStream(bytes.NewReader(out.Bytes()), int64(out.Len()), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 60 {
		off, n := rng.IntN(len(plain)+1), rng.IntN(3*StreamChunk)
		wg.Go(func() {
			got := make([]byte, n)
			m, err := r.ReadAt(got, int64(off))
			want := plain[off:min(len(plain), off+n)]
			if !bytes.Equal(got[:m], want) || (m < n) != (err == io.EOF) {
				t.Errorf("ReadAt %d bytes at %d: %d, %v", n, off, m, err)
			}
			from, err := r.From(int64(off))
			if err != nil {
				t.Error(err)
				return
			}
			defer from.Close()
			if got, err := io.ReadAll(io.LimitReader(from, int64(n))); err != nil || !bytes.Equal(got, want) {
				t.Errorf("From %d: %d bytes, %v", off, len(got), err)
			}
		})
	}
	wg.Wait()
	for _, off := range []int64{-1, int64(len(plain)) + 1} {
		if _, err := r.From(off); err == nil {
			t.Errorf("reader from %d", off)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read at -1")
	}
}

func TestStreamRefusesAlterations(t *testing.T) {
	s := testSealer(t, 1)
	plain := randomBytes(3*StreamChunk + 100)
	sealed := seal(t, s, plain, "a")
	other := seal(t, s, plain, "a")
	chunk := func(b []byte, i int) []byte {
		start := streamHeaderSize + i*sealedChunk
		return b[start:min(len(b), start+sealedChunk)]
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	header := sealed[:streamHeaderSize]
	cases := map[string][]byte{
		"empty":                 {},
		"header only":           header,
		"cut in header":         sealed[:40],
		"last chunk missing":    sealed[:streamHeaderSize+3*sealedChunk],
		"cut in a chunk":        sealed[:streamHeaderSize+sealedChunk+99],
		"last byte missing":     sealed[:len(sealed)-1],
		"byte appended":         join(sealed, []byte{0}),
		"chunk appended":        join(sealed[:streamHeaderSize+3*sealedChunk], chunk(sealed, 0), chunk(sealed, 3)),
		"chunks swapped":        join(header, chunk(sealed, 1), chunk(sealed, 0), chunk(sealed, 2), chunk(sealed, 3)),
		"chunk repeated":        join(header, chunk(sealed, 0), chunk(sealed, 0), chunk(sealed, 2), chunk(sealed, 3)),
		"chunk left out":        join(header, chunk(sealed, 0), chunk(sealed, 2), chunk(sealed, 3)),
		"chunk of another file": join(header, chunk(sealed, 0), chunk(other, 1), chunk(sealed, 2), chunk(sealed, 3)),
		"header of another":     join(other[:streamHeaderSize], sealed[streamHeaderSize:]),
	}
	for i := 0; i < streamHeaderSize; i++ {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		cases[fmt.Sprintf("bit flipped in header byte %d", i)] = bad
	}
	for _, i := range []int{0, 1, 2, 3} {
		for _, at := range []int{0, 50, len(chunk(sealed, i)) - 1} {
			bad := bytes.Clone(sealed)
			chunk(bad, i)[at] ^= 1
			cases[fmt.Sprintf("bit flipped in chunk %d byte %d", i, at)] = bad
		}
	}
	for name, b := range cases {
		if _, err := openAll(s, b, "a"); !errors.Is(err, ErrUnseal) {
			t.Errorf("%s: error %v, want %v", name, err, ErrUnseal)
		}
	}
	if _, err := openAll(s, sealed, "b"); !errors.Is(err, ErrUnseal) {
		t.Errorf("other associated data: %v", err)
	}
	if _, err := openAll(testSealer(t, 2), sealed, "a"); !errors.Is(err, ErrUnseal) {
		t.Errorf("other key: %v", err)
	}
	// The file shrinks under an open stream.
	r, err := s.OpenStream(bytes.NewReader(sealed), int64(len(sealed)), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	r.src = bytes.NewReader(sealed[:streamHeaderSize+100])
	_, err = r.ReadAt(make([]byte, 10), 0)
	wantError(t, err, ErrUnseal)
}

func TestAlteredChunkDoesNotHideEarlierOnes(t *testing.T) {
	s := testSealer(t, 1)
	plain := randomBytes(3 * StreamChunk)
	sealed := seal(t, s, plain, "a")
	sealed[streamHeaderSize+sealedChunk] ^= 1
	got, err := openAll(s, sealed, "a")
	wantError(t, err, ErrUnseal, "chunk 1 of 3")
	if !bytes.Equal(got, plain[:StreamChunk]) {
		t.Errorf("%d bytes before the altered chunk", len(got))
	}
}

func TestUnfinishedStreamDoesNotOpen(t *testing.T) {
	s := testSealer(t, 1)
	for _, n := range []int{0, 10, StreamChunk, 2*StreamChunk + 1} {
		var out bytes.Buffer
		w, err := s.SealStream(&out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(randomBytes(n)); err != nil {
			t.Fatal(err)
		}
		_, err = openAll(s, out.Bytes(), "")
		wantError(t, err, ErrUnseal)
	}
}

type failingWriter struct{ left int }

var errDisk = errors.New("disk full")

func (f *failingWriter) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, errDisk
	}
	f.left -= len(p)
	return len(p), nil
}

func TestStreamWriterErrorsStick(t *testing.T) {
	s := testSealer(t, 1)
	_, err := s.SealStream(&failingWriter{}, nil)
	wantError(t, err, errDisk)
	w, err := s.SealStream(&failingWriter{left: streamHeaderSize + sealedChunk}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(make([]byte, 3*StreamChunk))
	wantError(t, err, errDisk)
	_, err = w.Write([]byte{1})
	wantError(t, err, errDisk)
	wantError(t, w.Close(), errDisk)

	w, err = s.SealStream(io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte{1})
	wantError(t, err, ErrClosed)
	wantError(t, w.Close(), ErrClosed)
	_, err = Sealer{}.SealStream(io.Discard, nil)
	wantError(t, err, ErrClosed)
	_, err = Sealer{}.OpenStream(bytes.NewReader(nil), 0, nil)
	wantError(t, err, ErrClosed)
}

func TestClosedReader(t *testing.T) {
	s := testSealer(t, 1)
	sealed := seal(t, s, []byte("hello"), "")
	r, err := s.OpenStream(bytes.NewReader(sealed), int64(len(sealed)), nil)
	if err != nil {
		t.Fatal(err)
	}
	from, err := r.From(0)
	if err != nil {
		t.Fatal(err)
	}
	from.Close()
	_, err = from.Read(make([]byte, 1))
	wantError(t, err, ErrClosed)
}

func FuzzUnseal(f *testing.F) {
	s := testSealer(f, 1)
	sealed, err := s.Seal([]byte("data"), []byte("a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{})
	f.Add([]byte{sealVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := s.Unseal(b, []byte("a")); err == nil && string(plain) != "data" {
			t.Errorf("forged %q", plain)
		}
	})
}

func FuzzOpenStream(f *testing.F) {
	s := testSealer(f, 1)
	sealed := seal(f, s, []byte("data"), "a")
	f.Add(sealed)
	f.Add(seal(f, s, nil, "a"))
	f.Add([]byte(streamMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := openAll(s, b, "a")
		if err == nil && len(plain) != 0 && string(plain) != "data" {
			t.Errorf("forged %q", plain)
		}
	})
}

func BenchmarkSealStream(b *testing.B) {
	s := testSealer(b, 1)
	plain := randomBytes(16 * StreamChunk)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		w, err := s.SealStream(io.Discard, nil)
		if err != nil {
			b.Fatal(err)
		}
		w.Write(plain)
		w.Close()
	}
}

func BenchmarkOpenStream(b *testing.B) {
	s := testSealer(b, 1)
	plain := randomBytes(16 * StreamChunk)
	sealed := seal(b, s, plain, "")
	r, err := s.OpenStream(bytes.NewReader(sealed), int64(len(sealed)), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		from, err := r.From(0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, from); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	s := testSealer(b, 1)
	plain := randomBytes(1024)
	b.SetBytes(1024)
	for b.Loop() {
		if _, err := s.Seal(plain, nil); err != nil {
			b.Fatal(err)
		}
	}
}
