package he

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"

	"fednode/compute/he/ring"
)

// A Set names a lattice: the degree N and the bits of the whole modulus Q·P.
type Set struct{ N, Bits int }

// The sets on offer. At t = 65537 their noise bounds allow products one, three
// and seven deep.
var (
	Set4096  = Set{4096, 109}
	Set8192  = Set{8192, 218}
	Set16384 = Set{16384, 438}
)

// Sets returns the sets on offer, smallest first.
func Sets() []Set { return []Set{Set4096, Set8192, Set16384} }

func (s Set) String() string { return fmt.Sprintf("%d/%d", s.N, s.Bits) }

// ParseSet reads what Set.String writes, of the sets on offer.
func ParseSet(text string) (Set, error) {
	for _, s := range Sets() {
		if s.String() == text {
			return s, nil
		}
	}
	return Set{}, fmt.Errorf("%w: %.40q; take one of %v", ErrUnsupported, text, Sets())
}

// MaxBits returns the largest log2(Q·P) that the HomomorphicEncryption.org
// standard (2018, table 1: classical attacks, uniform ternary secret, σ ≈ 3.2)
// gives 128 bits of security at degree n, or 0 for a degree it does not list.
func MaxBits(n int) int {
	return map[int]int{1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}[n]
}

// chain returns the bit lengths of the primes of Q and of the special prime,
// which is the largest so that key switching adds little noise. They stay at or
// below 50 bits: there the AVX512-IFMA transforms apply.
func (s Set) chain() (q []int, special int) {
	switch s {
	case Set4096:
		return []int{36, 36}, 37
	case Set8192:
		return []int{43, 43, 44, 44}, 44
	case Set16384:
		return []int{48, 48, 48, 49, 49, 49, 49, 49}, 49
	}
	return nil, 0
}

// auxiliaryBits returns the size of the primes of the second modulus of products: of
// count of them, sums are below 2^52, what the assembly takes (see conversion).
func auxiliaryBits(count int) int { return min(50, 52-bits.Len(uint(count-1))) }

// check explains why a set is not on offer.
func (s Set) check() error {
	limit := MaxBits(s.N)
	switch q, _ := s.chain(); {
	case limit == 0:
		return fmt.Errorf("%w: degree %d is not in the standard's table (1024, 2048, … 32768)", ErrInsecure, s.N)
	case s.Bits > limit:
		return fmt.Errorf("%w: %d bits of modulus at degree %d are more than the standard's %d for 128-bit security", ErrInsecure, s.Bits, s.N, limit)
	case q == nil:
		return fmt.Errorf("%w: %s; take one of %v", ErrUnsupported, s, Sets())
	}
	return nil
}

// T16 is the plaintext prime 2^16+1: 17 bits, slots at every degree.
const T16 = 65537

// WidePrimes returns the count largest 33-bit primes that are 1 mod 65536, which
// have slots at every degree. One holds integers of ±2^31; two ±2^64; three ±2^97.
func WidePrimes(count int) []uint64 {
	p, err := ring.Primes(33, ring.MaxDegree, count)
	if err != nil {
		panic(err) // there are far more than maxPlain
	}
	return p
}

// Limits of plaintext moduli: primes of at most 34 bits, below every prime of Q;
// at most three, so that integers fit 128 bits.
const (
	maxPlainBits = 34
	maxPlain     = 3
)

// Parameters is a lattice and its plaintext primes. It is immutable, safe for
// concurrent use, and costs milliseconds and megabytes to make: keep it.
type Parameters struct {
	set    Set
	q, qp  *ring.Ring // qp has the special prime as its last
	aux    *ring.Ring // as many primes as q, of no smaller product
	plain  []*plainModulus
	level  []*levelTables // by level-1
	half   []uint64       // ⌊P/2⌋ mod q_j
	pMod   []uint64       // P mod q_j
	pInv   []uint64       // P^-1 mod q_j
	slotAt []uint32

	lattice, id [32]byte
}

// New returns the parameters of a set and plaintext moduli: distinct odd primes
// of 4 to 34 bits, at most three. It returns ErrInsecure or ErrUnsupported.
func New(set Set, plain ...uint64) (*Parameters, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	p := &Parameters{set: set, slotAt: slotIndex(set.N)}
	if err := p.makeRings(); err != nil {
		return nil, err
	}
	if err := p.setPlain(plain); err != nil {
		return nil, err
	}
	special := p.Special()
	for _, m := range p.q.Moduli {
		r := m.ReduceWord(special.Q)
		p.pMod = append(p.pMod, r)
		p.pInv = append(p.pInv, m.Inv(r))
		p.half = append(p.half, m.ReduceWord(special.Q/2))
	}
	for l := 1; l <= p.MaxLevel(); l++ {
		p.level = append(p.level, newLevelTables(p, l))
	}
	p.hash()
	return p, nil
}

func (p *Parameters) makeRings() error {
	lengths, special := p.set.chain()
	var primes []uint64
	for _, b := range append(lengths, special) {
		more, err := ring.Primes(b, p.set.N, 1, primes...)
		if err != nil {
			return err
		}
		primes = append(primes, more...)
	}
	aux, err := ring.Primes(auxiliaryBits(len(lengths)), p.set.N, len(lengths), primes...)
	if err != nil {
		return err
	}
	primes = append(primes, aux...)
	all, err := ring.New(p.set.N, primes)
	if err != nil {
		return err
	}
	l := len(lengths)
	p.q, p.qp, p.aux = all.Limbs(0, l), all.Limbs(0, l+1), all.Limbs(l+1, 2*l+1)
	return nil
}

func (p *Parameters) setPlain(plain []uint64) error {
	if len(plain) == 0 || len(plain) > maxPlain {
		return fmt.Errorf("%w: %d plaintext moduli; take 1 to %d", ErrUnsupported, len(plain), maxPlain)
	}
	for i, t := range plain {
		if bits.Len64(t) > maxPlainBits {
			return fmt.Errorf("%w: plaintext modulus %d has more than %d bits; compose it of several primes", ErrUnsupported, t, maxPlainBits)
		}
		for _, other := range plain[:i] {
			if other == t {
				return fmt.Errorf("%w: plaintext modulus %d is given twice", ErrUnsupported, t)
			}
		}
		m, err := newPlainModulus(p, t)
		if err != nil {
			return fmt.Errorf("%w: plaintext %w", ErrUnsupported, err)
		}
		p.plain = append(p.plain, m)
	}
	return nil
}

// hash names the lattice and the whole by what they are, so that a change of
// prime generation could not pass unnoticed.
func (p *Parameters) hash() {
	b := []byte("fednode/he/lattice/v1\n")
	b = binary.LittleEndian.AppendUint64(b, uint64(p.set.N))
	for _, q := range p.qp.Primes() {
		b = binary.LittleEndian.AppendUint64(b, q)
	}
	p.lattice = sha256.Sum256(b)
	b = append([]byte("fednode/he/parameters/v1\n"), p.lattice[:]...)
	for _, t := range p.plain {
		b = binary.LittleEndian.AppendUint64(b, t.m.Q)
	}
	p.id = sha256.Sum256(b)
}

// Set returns the set that p was made of.
func (p *Parameters) Set() Set { return p.set }

// N returns the degree.
func (p *Parameters) N() int { return p.set.N }

// MaxLevel returns the number of primes of Q, the level of fresh ciphertexts.
func (p *Parameters) MaxLevel() int { return len(p.q.Moduli) }

// Ring returns the ring modulo the first level primes of Q.
func (p *Parameters) Ring(level int) *ring.Ring { return p.q.Limbs(0, level) }

// KeyRing returns the ring modulo Q·P, the special prime last, where keys live.
func (p *Parameters) KeyRing() *ring.Ring { return p.qp }

// Special returns the special prime P.
func (p *Parameters) Special() *ring.Modulus { return p.qp.Moduli[len(p.q.Moduli)] }

// Parts returns the number of plaintext primes, and so of parts of a Ciphertext.
func (p *Parameters) Parts() int { return len(p.plain) }

// PlainPrimes returns the plaintext primes.
func (p *Parameters) PlainPrimes() []uint64 {
	out := make([]uint64, len(p.plain))
	for i, t := range p.plain {
		out[i] = t.m.Q
	}
	return out
}

// ID is the hash of the lattice and the plaintext primes, in every ciphertext.
func (p *Parameters) ID() [32]byte { return p.id }

// LatticeID is the hash of N, Q and P, in every key.
func (p *Parameters) LatticeID() [32]byte { return p.lattice }

// SameLattice reports whether keys of p work for o.
func (p *Parameters) SameLattice(o *Parameters) bool { return p.lattice == o.lattice }

func (p *Parameters) String() string {
	return fmt.Sprintf("BFV %s, t = %v, %s", p.set, p.PlainPrimes(), hex.EncodeToString(p.id[:4]))
}

// LogQ returns log2 of the ciphertext modulus at a level.
func (p *Parameters) LogQ(level int) float64 {
	var sum float64
	for _, m := range p.q.Moduli[:level] {
		sum += math.Log2(float64(m.Q))
	}
	return sum
}

// modulusAt returns Q of a level as a float, at most 2^390.
func (p *Parameters) modulusAt(level int) float64 {
	q := 1.0
	for _, m := range p.q.Moduli[:level] {
		q *= float64(m.Q)
	}
	return q
}
