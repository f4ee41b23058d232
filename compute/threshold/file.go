package threshold

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"

	"fednode/compute"
	"fednode/compute/he"
)

// Key shares, version 1 (the decision is ADR 18); numbers are big-endian, floats IEEE
// 754 binary64, polynomials packed as in files of compute/he:
//
//	"FNTH"  version=1:8  kind:8
//	public part: log2(N):8  bits of Q·P:16  plaintext primes:8, each :64
//	  epoch:32  sharing:32×8  threshold:16  smudging:16  quota:32
//	  bounds of secret and error: 64 each  seed of a:32×8
//	  parties:16, each length of name:8, name, key:32×8
//	  threshold polynomials of Q·P: H
//	secret part: place:16  F  E (polynomials of Q·P)  secrets with each party: 32×8
//	  each, by place, zeros at its own
//
// The key's identifier follows from the public part.

// Version is the version of the formats that this package writes and reads.
const Version = 1

const fileMagic = "FNTH"

const (
	kindKey uint8 = iota + 1
	kindKeyShare
	kindDecryptionShare
)

// maxPublic bounds the public part of a key for those who read it from a peer.
func maxPublic(p *he.Parameters, threshold int) int {
	return 1024 + MaxParties*(1+255+ed25519.PublicKeySize) + threshold*he.PolySize(p.KeyRing())
}

func (k *Key) marshalPublic() []byte { return k.appendPublic(newFile(kindKey)) }

func newFile(kind uint8) []byte { return append([]byte(fileMagic), Version, kind) }

func (k *Key) appendPublic(b []byte) []byte {
	set := k.p.Set()
	logN := byte(0)
	for n := set.N; n > 1; n >>= 1 {
		logN++
	}
	b = append(b, logN)
	b = binary.BigEndian.AppendUint16(b, uint16(set.Bits))
	plain := k.p.PlainPrimes()
	b = append(b, byte(len(plain)))
	for _, t := range plain {
		b = binary.BigEndian.AppendUint64(b, t)
	}
	b = binary.BigEndian.AppendUint32(b, k.epoch)
	b = append(b, k.sharing[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(k.policy.Threshold))
	b = binary.BigEndian.AppendUint16(b, uint16(k.policy.Smudging))
	b = binary.BigEndian.AppendUint32(b, uint32(k.policy.Quota))
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(k.bounds.Secret))
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(k.bounds.Error))
	b = append(b, k.seed[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(k.parties)))
	for _, party := range k.parties {
		b = append(append(b, byte(len(party.Name))), party.Name...)
		b = append(b, party.Key...)
	}
	for _, h := range k.public {
		b = he.AppendPoly(b, k.p.KeyRing(), h)
	}
	return b
}

// marshal returns the share with its public part: it is secret.
func (k *KeyShare) marshal() []byte {
	r := k.p.KeyRing()
	b := make([]byte, 0, maxPublic(k.p, k.policy.Threshold)+2*he.PolySize(r)+MaxParties*pairSize)
	b = k.appendPublic(append(b, newFile(kindKeyShare)...))
	b = binary.BigEndian.AppendUint16(b, uint16(k.self))
	b = he.AppendPoly(he.AppendPoly(b, r, k.f), r, k.e)
	for _, secret := range k.pairs {
		b = append(b, secret[:]...)
	}
	return b
}

// A reader takes from a file and remembers the first failure.
type reader struct {
	b   []byte
	err error
}

func openFile(b []byte, kind uint8) *reader {
	r := &reader{b: b}
	head := r.take(len(fileMagic) + 2)
	switch {
	case r.err != nil || string(head[:len(fileMagic)]) != fileMagic:
		r.fail("not a file of this package")
	case head[4] != Version:
		r.fail("format version %d; this build reads %d", head[4], Version)
	case head[5] != kind:
		r.fail("a file of kind %d, not %d", head[5], kind)
	}
	return r
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
}

// take returns n bytes, few enough to be zeros after a failure.
func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.fail("truncated")
	}
	if r.err != nil {
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() int      { return int(r.take(1)[0]) }
func (r *reader) short() int     { return int(binary.BigEndian.Uint16(r.take(2))) }
func (r *reader) long() uint32   { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) word() uint64   { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) float() float64 { return math.Float64frombits(r.word()) }

func (r *reader) name() string {
	n := r.byte()
	if r.err == nil && len(r.b) < n {
		r.fail("truncated")
	}
	if r.err != nil {
		return ""
	}
	out := string(r.b[:n])
	r.b = r.b[n:]
	return out
}

// public reads the public part. A p that is given must be what it was made of;
// otherwise it is made, at a price.
func (r *reader) public(p *he.Parameters) *Key {
	logN, bits, count := r.byte(), r.short(), r.byte()
	if r.err == nil && (logN > 15 || count > 3) {
		r.fail("a lattice of degree 2^%d, %d plaintext primes", logN, count)
	}
	if r.err != nil {
		return nil
	}
	plain := make([]uint64, count)
	for i := range plain {
		plain[i] = r.word()
	}
	if r.err != nil {
		return nil
	}
	set := he.Set{N: 1 << logN, Bits: bits}
	if p == nil {
		made, err := he.New(set, plain...)
		if err != nil {
			r.fail("%v", err)
			return nil
		}
		p = made
	} else if mine := p.PlainPrimes(); set != p.Set() || fmt.Sprint(plain) != fmt.Sprint(mine) {
		r.fail("a key of %s, t = %v, not of %s", set, plain, p)
		return nil
	}
	k := &Key{p: p, epoch: r.long()}
	copy(k.sharing[:], r.take(32))
	k.policy = Policy{Threshold: r.short(), Smudging: r.short(), Quota: int(r.long())}
	k.bounds = he.KeyBounds{Secret: r.float(), Error: r.float()}
	copy(k.seed[:], r.take(32))
	parties := r.short()
	if r.err == nil && parties > MaxParties {
		r.fail("%d parties", parties)
	}
	for range parties {
		if r.err != nil {
			return nil
		}
		party := compute.Party{Name: r.name()}
		party.Key = append(party.Key, r.take(ed25519.PublicKeySize)...)
		k.parties = append(k.parties, party)
	}
	r.check(k)
	for i := 0; r.err == nil && i < k.policy.Threshold; i++ {
		h, rest, err := he.TakePoly(r.b, p.KeyRing())
		if err != nil {
			r.fail("%v", err)
		}
		r.b = rest
		k.public = append(k.public, h)
	}
	if r.err != nil {
		return nil
	}
	if _, err := k.PublicKey(); err != nil { // checks the bounds too
		r.fail("%v", err)
	}
	k.id = newKeyID(p, k.seed, k.public[0])
	return k
}

func (r *reader) check(k *Key) {
	if r.err != nil {
		return
	}
	if policy, err := k.policy.normal(len(k.parties)); err != nil || policy != k.policy {
		r.fail("its policy: %v", err)
	}
	if err := k.parties.Check(); err != nil {
		r.fail("%v", err)
	}
}

func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// parseKey reads the public part of a key of p.
func parseKey(p *he.Parameters, b []byte) (*Key, error) {
	r := openFile(b, kindKey)
	k := r.public(p)
	if err := r.done(); err != nil {
		return nil, err
	}
	return k, nil
}

// MarshalPublic returns the public part as a file, for those who hold no share:
// ParseKey reads it.
func (k *Key) MarshalPublic() []byte { return k.marshalPublic() }

// ParseKey reads the public part of a key. Nothing vouches for it but where it came
// from.
func ParseKey(b []byte) (*Key, error) { return parseKey(nil, b) }

// parseKeyShare reads what marshal wrote, of p if that is given. It checks that the
// share fits the key.
func parseKeyShare(p *he.Parameters, b []byte) (*KeyShare, error) {
	r := openFile(b, kindKeyShare)
	k := &KeyShare{Key: r.public(p), self: r.short()}
	if r.err == nil && k.self >= len(k.parties) {
		r.fail("the share of party %d of %d", k.self, len(k.parties))
	}
	if r.err != nil {
		return nil, r.err
	}
	ring := k.p.KeyRing()
	var err error
	if k.f, r.b, err = he.TakePoly(r.b, ring); err == nil {
		k.e, r.b, err = he.TakePoly(r.b, ring)
	}
	if err != nil {
		r.fail("%v", err)
	}
	k.pairs = make(pairs, len(k.parties))
	for i := range k.pairs {
		copy(k.pairs[i][:], r.take(pairSize))
	}
	if r.err == nil && k.pairs[k.self] != [pairSize]byte{} {
		r.fail("a secret of %q with itself", k.Party())
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	y := k.p.PublicMask(k.seed)
	defer y.Wipe()
	ring.Mul(y, y, k.f)
	ring.Sub(y, k.e, y)
	if !ring.Equal(y, evaluate(ring, k.public, uint64(k.self+1))) {
		k.Wipe()
		return nil, fmt.Errorf("%w: the share is not one of its key", ErrMalformed)
	}
	return k, nil
}
