package threshold

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// A ciphertext has two hashes. Shares are bound to all of it; uses are counted by
// c1 alone, for a share depends on nothing else: another c0, level label or noise
// bound does not make it another ciphertext.

func hashCiphertext(ct *he.Ciphertext) (whole, source [32]byte) {
	p, r := ct.Parameters(), ct.Parameters().Ring(ct.Level())
	id := p.ID()
	w, s := sha256.New(), sha256.New()
	w.Write([]byte("fednode/threshold/ciphertext/v1\n"))
	w.Write(append(id[:], byte(ct.Level())))
	s.Write([]byte("fednode/threshold/source/v1\n"))
	for part := range p.Parts() {
		c1 := he.AppendPoly(nil, r, ct.Poly(part, 1))
		w.Write(he.AppendPoly(nil, r, ct.Poly(part, 0)))
		w.Write(c1)
		s.Write(c1)
	}
	return [32]byte(w.Sum(nil)), [32]byte(s.Sum(nil))
}

// A DecryptionShare is what one party releases of a ciphertext for one set of
// parties and one session. It is public: with the others' it gives the plaintext.
type DecryptionShare struct {
	key, sharing, session, ciphertext [32]byte
	set                               []int // places in the key, ascending
	self                              int
	level                             int
	h                                 []ring.Poly // by plaintext prime
	signature                         []byte
}

// Party returns the place in the key's parties of who released the share.
func (d *DecryptionShare) Party() int { return d.self }

// Set returns the places of the parties that it was released to decrypt with.
func (d *DecryptionShare) Set() []int { return slices.Clone(d.set) }

// acceptable refuses ciphertexts that the key does not decrypt, and returns the flood.
func (k *Key) acceptable(ct *he.Ciphertext, reserve float64) (flood, error) {
	switch {
	case ct == nil || ct.Parameters() == nil:
		return flood{}, fmt.Errorf("%w: an empty ciphertext", he.ErrMismatch)
	case ct.Parameters().ID() != k.p.ID():
		return flood{}, fmt.Errorf("%w: a ciphertext of %s; the key is for %s", he.ErrMismatch, ct.Parameters(), k.p)
	case ct.Degree() != 1:
		return flood{}, fmt.Errorf("%w: a product that was not relinearised", he.ErrMismatch)
	}
	f, err := k.policy.flooding(k.p, ct.Level(), reserve)
	if err != nil {
		return f, err
	}
	if ct.Noise() > f.worst {
		return f, fmt.Errorf("%w: the ciphertext may have noise of 2^%.1f; shares with smudging of 2^%d decrypt up to 2^%.1f at level %d; decrypt before switching levels, or take larger parameters",
			he.ErrNoise, ct.Noise().Bits(), k.policy.Smudging, f.worst.Bits(), ct.Level())
	}
	return f, nil
}

// check refuses sets that are not threshold distinct parties, ascending.
func (k *Key) checkSet(set []int) error {
	ok := len(set) == k.policy.Threshold
	for i, at := range set {
		ok = ok && at >= 0 && at < len(k.parties) && (i == 0 || at > set[i-1])
	}
	if !ok {
		return fmt.Errorf("%w: %v is no set of %d different parties, in order", ErrPolicy, set, k.policy.Threshold)
	}
	return nil
}

func pointsAt(set []int) []uint64 {
	out := make([]uint64, len(set))
	for i, at := range set {
		out[i] = uint64(at + 1)
	}
	return out
}

// useOf is what a release is recorded under: purpose, session, set and source, so that
// no session gets two shares of the same.
func useOf(purpose string, session [32]byte, set []int, source [32]byte) [32]byte {
	b := fmt.Appendf(nil, "fednode/threshold/use/v1\n%s\n%x\n%v\n%x\n", purpose, session, set, source)
	return sha256.Sum256(b)
}

// SessionID turns the name of a decryption by files to what shares are bound to. The
// parties must not use a name for two decryptions; a party refuses to release two
// shares of a ciphertext under one.
func SessionID(name string) [32]byte {
	return sha256.Sum256([]byte("fednode/threshold/session/v1\n" + name))
}

// DecryptionShare releases this party's share of ct for a session and a set, the
// places of threshold parties. The use is recorded in the store before. It returns
// ErrQuota or ErrReplayed where it may not be, he.ErrNoise for a ciphertext too noisy.
func (k *KeyShare) DecryptionShare(store *Store, signer crypto.Signer, session [32]byte, ct *he.Ciphertext, set []int) (*DecryptionShare, error) {
	shares, err := k.release(store, signer, session, ct, [][]int{set})
	if err != nil {
		return nil, err
	}
	return shares[0], nil
}

// release makes shares of one ciphertext for several sets.
func (k *KeyShare) release(store *Store, signer crypto.Signer, session [32]byte, ct *he.Ciphertext, sets [][]int) ([]*DecryptionShare, error) {
	if err := k.live(); err != nil {
		return nil, err
	}
	if signer == nil || !k.parties[k.self].Key.Equal(signer.Public()) {
		return nil, fmt.Errorf("%w: the signing key is not that of %q", ErrPolicy, k.Party())
	}
	f, err := k.acceptable(ct, 0)
	if err != nil {
		return nil, err
	}
	whole, source := hashCiphertext(ct)
	var uses [][32]byte
	for _, set := range sets {
		if err := k.checkSet(set); err != nil {
			return nil, err
		}
		if !slices.Contains(set, k.self) {
			return nil, fmt.Errorf("%w: %q is not in the set %v", ErrPolicy, k.Party(), set)
		}
		uses = append(uses, useOf("decrypt", session, set, source))
	}
	if err := store.spend(k.id, k.policy.Quota, source, uses); err != nil {
		return nil, err
	}
	src := ring.FreshSource()
	defer src.Wipe()
	var out []*DecryptionShare
	for i, set := range sets {
		d := &DecryptionShare{key: k.id, sharing: k.sharing, session: session, ciphertext: whole, set: set, self: k.self, level: ct.Level()}
		d.h = k.floodedParts(src, ct, set, uses[i], f.bits)
		if d.signature, err = signer.Sign(rand.Reader, d.signedText(k.p), crypto.Hash(0)); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// A maskedShare is an additive share of s among a set of places, for one use.
type maskedShare struct {
	share ring.Poly
	set   []int
	use   [32]byte
}

// flooded returns c1·share + e and this party's part of a sharing of zero.
func (k *KeyShare) flooded(r *ring.Ring, src *ring.Source, c1 ring.Poly, s *maskedShare, part, bits int) ring.Poly {
	h := floodedShare(r, src, c1, s.share, bits)
	mask := k.pairs.mask(r, k.self, s.set, s.use, part)
	defer mask.Wipe()
	r.Add(h, h, mask)
	return h
}

// floodedParts returns this party's flooded shares of every part.
func (k *KeyShare) floodedParts(src *ring.Source, ct *he.Ciphertext, set []int, use [32]byte, bits int) []ring.Poly {
	r := k.p.Ring(ct.Level())
	s := &maskedShare{weighted(r, k.f, pointsAt(set), slices.Index(set, k.self)), set, use}
	defer s.share.Wipe()
	var out []ring.Poly
	for part := range k.p.Parts() {
		out = append(out, k.flooded(r, src, ct.Poly(part, 1), s, part, bits))
	}
	return out
}

// Decryption shares, version 1 (see Version):
//
//	head of kind 3  key:32×8  sharing:32×8  session:32×8  ciphertext:32×8
//	place:16  set:16, each :16  level:8  parts:8  polynomials modulo Q of the level
//	Ed25519 signature over "fednode/threshold/decryption/v1\n" and all before:64×8

const shareDomain = "fednode/threshold/decryption/v1\n"

func (d *DecryptionShare) signedText(p *he.Parameters) []byte {
	return append([]byte(shareDomain), d.body(p)...)
}

func (d *DecryptionShare) body(p *he.Parameters) []byte {
	b := newFile(kindDecryptionShare)
	for _, id := range [][32]byte{d.key, d.sharing, d.session, d.ciphertext} {
		b = append(b, id[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(d.self))
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.set)))
	for _, at := range d.set {
		b = binary.BigEndian.AppendUint16(b, uint16(at))
	}
	b = append(b, byte(d.level), byte(len(d.h)))
	for _, h := range d.h {
		b = he.AppendPoly(b, p.Ring(d.level), h)
	}
	return b
}

// MarshalShare returns a share of a ciphertext of k as a file or message.
func (k *Key) MarshalShare(d *DecryptionShare) []byte {
	return append(d.body(k.p), d.signature...)
}

// shareSize is the length of a share of a ciphertext of a level.
func (k *Key) shareSize(level int) int {
	return len(fileMagic) + 2 + 4*32 + 2 + 2 + 2*k.policy.Threshold + 2 + k.p.Parts()*he.PolySize(k.p.Ring(level)) + ed25519.SignatureSize
}

// ParseShare reads a share of a ciphertext of k and checks its signature: ErrForeign
// for a share of another key or sharing, ErrMalformed for everything else.
func (k *Key) ParseShare(b []byte) (*DecryptionShare, error) {
	r := openFile(b, kindDecryptionShare)
	d := new(DecryptionShare)
	for _, id := range []*[32]byte{&d.key, &d.sharing, &d.session, &d.ciphertext} {
		copy(id[:], r.take(32))
	}
	if r.err == nil && (d.key != k.id || d.sharing != k.sharing) {
		return nil, fmt.Errorf("%w: a decryption share of another key or sharing than %s", ErrForeign, k)
	}
	d.self = r.short()
	count := r.short()
	if r.err == nil && count != k.policy.Threshold {
		r.fail("a set of %d parties; %d decrypt", count, k.policy.Threshold)
	}
	for i := 0; r.err == nil && i < count; i++ {
		d.set = append(d.set, r.short())
	}
	var parts int
	d.level, parts = r.byte(), r.byte()
	if r.err == nil && (k.checkSet(d.set) != nil || !slices.Contains(d.set, d.self) || d.level < 1 || d.level > k.p.MaxLevel() || parts != k.p.Parts()) {
		r.fail("a share of party %d in %v, level %d, %d parts", d.self, d.set, d.level, parts)
	}
	for i := 0; r.err == nil && i < parts; i++ {
		h, rest, err := he.TakePoly(r.b, k.p.Ring(d.level))
		if err != nil {
			r.fail("%v", err)
			break
		}
		d.h, r.b = append(d.h, h), rest
	}
	d.signature = slices.Clone(r.take(ed25519.SignatureSize))
	if err := r.done(); err != nil {
		return nil, err
	}
	signed := append([]byte(shareDomain), b[:len(b)-ed25519.SignatureSize]...)
	if !ed25519.Verify(k.parties[d.self].Key, signed, d.signature) {
		return nil, fmt.Errorf("%w: the signature of a decryption share of %q does not verify", ErrMalformed, k.parties[d.self].Name)
	}
	return d, nil
}

// Combine returns the plaintext of ct from one share of each party of a set, all
// released for this ciphertext and session. A share that belongs elsewhere is
// ErrForeign and its party named; shares that make no plaintext are ErrShares: one of
// the set computed wrongly, or the ciphertext has more noise than it says.
func (k *Key) Combine(session [32]byte, ct *he.Ciphertext, shares []*DecryptionShare) (*he.Plaintext, error) {
	if _, err := k.acceptable(ct, 0); err != nil {
		return nil, err
	}
	if len(shares) != k.policy.Threshold {
		return nil, fmt.Errorf("%w: %d decryption shares; %d are needed", ErrPolicy, len(shares), k.policy.Threshold)
	}
	whole, _ := hashCiphertext(ct)
	seen := make(map[int]bool)
	for _, d := range shares {
		foreign := ""
		switch {
		case d.key != k.id || d.sharing != k.sharing:
			foreign = "another key or sharing"
		case d.session != session:
			foreign = "another session"
		case d.ciphertext != whole || d.level != ct.Level():
			foreign = "another ciphertext"
		case !slices.Equal(d.set, shares[0].set):
			foreign = "another set of parties"
		case seen[d.self]:
			foreign = "a party that is there already"
		}
		if foreign != "" {
			return nil, &compute.PartyError{Party: k.parties[d.self].Name, Round: "decryption", Err: fmt.Errorf("%w: a share of %s", ErrForeign, foreign)}
		}
		seen[d.self] = true
	}
	r := k.p.Ring(ct.Level())
	phases := make([]ring.Poly, k.p.Parts())
	for part := range phases {
		phases[part] = ct.Poly(part, 0).Clone()
		for _, d := range shares {
			r.Add(phases[part], phases[part], d.h[part])
		}
		r.INTT(phases[part])
	}
	pt, _, err := ct.Decode(phases)
	if err != nil {
		var names []string
		for _, d := range shares {
			names = append(names, k.parties[d.self].Name)
		}
		return nil, fmt.Errorf("%w: of %q: %w", ErrShares, names, err)
	}
	return pt, nil
}
