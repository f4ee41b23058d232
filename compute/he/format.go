package he

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"fednode/compute/he/ring"
)

// Files and messages, version 1 (the decision is ADR 10). All numbers are
// little-endian; floats are IEEE 754 binary64.
//
//	"FNHE"  version=1:8  kind:8  log2(N):8  primes:8  bits:16  t:64 …  ID:32×8
//	body, by kind
//	SHA-256 of everything before:32×8
//
// Keys have no plaintext primes, and the lattice's ID. A polynomial is its rows one
// after the other, a row its N residues as values in as many bits as the prime has,
// lowest bit first. There is one encoding of each object, and its length follows
// from its head. The hash finds damage, not malice.

// Version is the version of the format that this package writes and reads.
const Version = 1

const magic = "FNHE"

// A Kind says what a file holds.
type Kind uint8

// The kinds of files.
const (
	KindCiphertext Kind = iota + 1
	KindPublicKey
	KindEvaluationKeys
	KindSwitchingKey
	KindSecretKey
)

func (k Kind) String() string {
	names := []string{"", "ciphertext", "public key", "evaluation keys", "switching key", "secret key"}
	if int(k) < len(names) && k > 0 {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Header is what the first bytes of a file say.
type Header struct {
	Kind   Kind
	Set    Set
	Plain  []uint64 // of ciphertexts
	ID     [32]byte // Parameters.ID of ciphertexts, LatticeID of keys
	length int
}

// Inspect reads the header of a file and checks its hash. It returns ErrMalformed,
// or ErrUnsupported for another version of the format.
func Inspect(file []byte) (Header, error) {
	var h Header
	if len(file) < len(magic)+6+32+32 || string(file[:len(magic)]) != magic {
		return h, fmt.Errorf("%w: no file of this package", ErrMalformed)
	}
	if v := file[4]; v != Version {
		return h, fmt.Errorf("%w: format version %d; this build reads %d", ErrUnsupported, v, Version)
	}
	body, sum := file[:len(file)-32], file[len(file)-32:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return h, fmt.Errorf("%w: damaged, its hash differs", ErrMalformed)
	}
	logN, primes := file[6], int(file[7])
	h.length = len(magic) + 6 + 8*primes + 32
	if h.Kind = Kind(file[5]); h.Kind < KindCiphertext || h.Kind > KindSecretKey {
		return h, fmt.Errorf("%w: unknown %s", ErrMalformed, h.Kind)
	}
	if primes > maxPlain || (primes > 0) != (h.Kind == KindCiphertext) || logN > 15 || h.length > len(body) {
		return h, fmt.Errorf("%w: a header that does not fit a %s", ErrMalformed, h.Kind)
	}
	h.Set = Set{1 << logN, int(binary.LittleEndian.Uint16(file[8:]))}
	at := file[10:]
	for range primes {
		h.Plain = append(h.Plain, binary.LittleEndian.Uint64(at))
		at = at[8:]
	}
	copy(h.ID[:], at)
	return h, nil
}

// ParametersOf returns the parameters of a ciphertext's file, and for a key's those
// of its set with the given plaintext primes.
func ParametersOf(file []byte, plain ...uint64) (*Parameters, error) {
	h, err := Inspect(file)
	if err != nil {
		return nil, err
	}
	if h.Kind == KindCiphertext {
		plain = h.Plain
	}
	p, err := New(h.Set, plain...)
	if err != nil {
		return nil, err
	}
	_, err = p.open(file, h.Kind)
	return p, err
}

// A writer appends to a file.
type writer struct{ b []byte }

func (p *Parameters) create(kind Kind, size int) *writer {
	w := &writer{make([]byte, 0, size+128)}
	id, plain := p.lattice, []uint64(nil)
	if kind == KindCiphertext {
		id, plain = p.id, p.PlainPrimes()
	}
	w.b = append(w.b, magic...)
	w.b = append(w.b, Version, byte(kind), byte(bits.Len(uint(p.N()))-1), byte(len(plain)))
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(p.set.Bits))
	for _, t := range plain {
		w.word(t)
	}
	w.b = append(w.b, id[:]...)
	return w
}

func (w *writer) word(x uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, x) }

func (w *writer) float(x float64) { w.word(math.Float64bits(x)) }

func (w *writer) bounds(b KeyBounds) {
	w.float(b.Secret)
	w.float(b.Error)
}

func (w *writer) poly(r *ring.Ring, p ring.Poly) {
	for i, m := range r.Moduli {
		w.row(p[i], m.Bits)
	}
}

// row packs residues; N·width is a multiple of 64.
func (w *writer) row(row []uint64, width int) {
	var sum uint64
	filled := 0
	for _, x := range row {
		sum |= x << filled
		if filled += width; filled >= 64 {
			w.word(sum)
			filled -= 64
			sum = x >> (width - filled)
		}
	}
}

func (w *writer) finish() []byte {
	sum := sha256.Sum256(w.b)
	return append(w.b, sum[:]...)
}

// A reader takes from a body and remembers the first failure.
type reader struct {
	b   []byte
	err error
}

// open checks the header of a file against p and returns a reader of its body.
func (p *Parameters) open(file []byte, kind Kind) (*reader, error) {
	h, err := Inspect(file)
	if err != nil {
		return nil, err
	}
	want := p.lattice
	if kind == KindCiphertext {
		want = p.id
	}
	switch {
	case h.Kind != kind:
		return nil, fmt.Errorf("%w: a %s, not a %s", ErrMismatch, h.Kind, kind)
	case h.ID != want || h.Set != p.set:
		return nil, fmt.Errorf("%w: a %s of other parameters (%s, t = %v) than %s", ErrMismatch, h.Kind, h.Set, h.Plain, p)
	}
	for i, t := range h.Plain {
		if t != p.plain[i].m.Q {
			return nil, fmt.Errorf("%w: plaintext primes that are not those of its hash", ErrMalformed)
		}
	}
	return &reader{b: file[h.length : len(file)-32]}, nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		if r.err == nil {
			r.err = fmt.Errorf("%w: truncated", ErrMalformed)
		}
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) word() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) float() float64 { return math.Float64frombits(r.word()) }

func (r *reader) bounds() KeyBounds {
	b := KeyBounds{r.float(), r.float()}
	if r.err == nil {
		r.fail(b.check())
	}
	return b
}

func (r *reader) seed() (s ring.Seed) {
	copy(s[:], r.take(len(s)))
	return s
}

func (r *reader) fail(err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
}

func (r *reader) poly(in *ring.Ring) ring.Poly {
	size := 0
	for _, m := range in.Moduli {
		size += in.N / 8 * m.Bits
	}
	if r.err != nil || len(r.b) < size {
		r.take(size)
		return nil
	}
	p := in.NewPoly()
	for i, m := range in.Moduli {
		r.row(p[i], m.Bits)
	}
	r.fail(checkPoly(in, p))
	return p
}

func (r *reader) row(row []uint64, width int) {
	b := r.take(len(row) / 8 * width)
	if b == nil {
		return
	}
	mask := uint64(1)<<width - 1
	var sum uint64
	filled := 0
	for k := range row {
		x := sum
		if filled < width {
			next := binary.LittleEndian.Uint64(b)
			b = b[8:]
			x |= next << filled
			sum = next >> (width - filled)
			filled += 64
		} else {
			sum >>= width
		}
		filled -= width
		row[k] = x & mask
	}
}

// done returns the first failure, or that something is left.
func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(r.b))
	}
	return r.err
}
