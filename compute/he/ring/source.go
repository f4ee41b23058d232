package ring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// A Seed is 32 bytes that stand for a random object: public for polynomials
// that everyone may expand, secret for everything else.
type Seed [32]byte

// NewSeed draws a seed from crypto/rand.
func NewSeed() (s Seed) {
	rand.Read(s[:]) // never fails (Go 1.24)
	return s
}

// A Source is the AES-256-CTR keystream under SHA-256(domain, label, seed): a
// pseudo-random generator (NIST SP 800-90A's CTR_DRBG without reseeding), in
// constant time on processors with AES instructions, which amd64 and arm64
// servers have. It is not safe for concurrent use.
type Source struct {
	stream cipher.Stream
	buf    [4096]byte
	at     int // first unused byte of buf
}

const sourceDomain = "fednode/ring/source/v1\n"

// NewSource expands a seed. Streams under different labels are independent.
func NewSource(seed Seed, label string) *Source {
	h := sha256.New()
	h.Write([]byte(sourceDomain))
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(label))))
	h.Write([]byte(label))
	h.Write(seed[:])
	key := h.Sum(nil)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	clear(key)
	s := &Source{stream: cipher.NewCTR(block, make([]byte, aes.BlockSize))}
	s.at = len(s.buf)
	return s
}

// FreshSource is a Source under a seed nobody knows.
func FreshSource() *Source { return NewSource(NewSeed(), "fresh") }

// Wipe forgets buffered keystream. The cipher's key schedule is left to the
// garbage collector.
func (s *Source) Wipe() {
	clear(s.buf[:])
	s.at = len(s.buf)
	s.stream = nil
}

// Word returns the next 64 bits of the stream.
func (s *Source) Word() uint64 {
	if s.at == len(s.buf) {
		clear(s.buf[:])
		s.stream.XORKeyStream(s.buf[:], s.buf[:])
		s.at = 0
	}
	w := binary.LittleEndian.Uint64(s.buf[s.at:])
	s.at += 8
	return w
}

// Uniform sets p to the uniform polynomial of a seed. Each prime has a stream of
// its own: words masked to the prime's length, those not below it rejected. The
// result is public: which words are rejected can be timed. It is uniform as
// coefficients and as values alike.
func (r *Ring) Uniform(p Poly, seed Seed, label string) {
	for i, m := range r.Moduli {
		m.uniformRow(p[i][:r.N], NewSource(seed, fmt.Sprintf("uniform/%d/%s", m.Q, label)))
	}
}

func (m *Modulus) uniformRow(row []uint64, s *Source) {
	mask := uint64(1)<<m.Bits - 1
	for j := 0; j < len(row); {
		if w := s.Word() & mask; w < m.Q {
			row[j] = w
			j++
		}
	}
}

// Ternary fills out with independent values of {-1, 0, 1}, uniform but for 2^-62
// in statistical distance each, in constant time: the high word of 3·w.
func (s *Source) Ternary(out []int32) {
	for j := range out {
		hi, _ := bits.Mul64(s.Word(), 3)
		out[j] = int32(hi) - 1
	}
}

// The error distribution: centred binomial, the difference of two sums of
// ErrorBound bits. Its standard deviation is √(ErrorBound/2) = 3.24, not less
// than the 3.19 of the HomomorphicEncryption.org standard (Albrecht et al. 2018,
// section 2.1), and |e| ≤ ErrorBound always, which makes noise bounds proofs.
const ErrorBound = 21

// Binomial fills out with independent errors, in constant time.
func (s *Source) Binomial(out []int32) {
	const mask = 1<<ErrorBound - 1
	for j := range out {
		w := s.Word()
		out[j] = int32(bits.OnesCount64(w&mask)) - int32(bits.OnesCount64(w>>ErrorBound&mask))
	}
}

// UniformSigned sets the coefficients of p to independent integers, uniform in
// [-2^bitLen, 2^bitLen), in constant time. bitLen may exceed a word and the ring's
// modulus; the values are then taken modulo Q. It is for flooding (smudging).
func (r *Ring) UniformSigned(p Poly, s *Source, bitLen int) {
	words := make([]uint64, bitLen/64+1)
	defer clear(words)
	top := uint64(1)<<(bitLen%64+1) - 1 // all ones where the shift is 64
	offset := make([]uint64, len(r.Moduli))
	for i, m := range r.Moduli {
		offset[i] = m.Pow(2, uint64(bitLen))
	}
	for j := range r.N {
		for k := range words {
			words[k] = s.Word()
		}
		words[len(words)-1] &= top
		for i, m := range r.Moduli {
			p[i][j] = m.Sub(m.reduceWords(words), offset[i])
		}
	}
}

// reduceWords returns Σ words[k]·2^64k mod q.
func (m *Modulus) reduceWords(words []uint64) uint64 {
	var x uint64
	for k := len(words) - 1; k >= 0; k-- {
		// x·2^64 + w with x < q is too long for Reduce at once: two halves.
		w := words[k]
		x = m.reduceShifted(x, w>>32)
		x = m.reduceShifted(x, w&0xffffffff)
	}
	return x
}

// reduceShifted returns x·2^32 + w mod q for x < q, w < 2^32.
func (m *Modulus) reduceShifted(x, w uint64) uint64 {
	return m.Reduce(x>>32, x<<32|w)
}
