package threshold

import (
	"context"
	"fmt"
	"math"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// Switch turns ct to a ciphertext under a recipient's own public key (MHE's
// PubKeySwitch), with exactly threshold parties of a session. The parties learn
// nothing; the recipient, who need not be one of them, decrypts the result with its
// secret key. It counts for the quota as a decryption does.
func (k *KeyShare) Switch(ctx context.Context, s *compute.Session, store *Store, ct *he.Ciphertext, to *he.PublicKey) (*he.Ciphertext, error) {
	points, share, err := k.joint(s)
	if err != nil {
		return nil, s.Fail(err)
	}
	defer share.Wipe()
	if len(points) != k.policy.Threshold {
		return nil, s.Fail(fmt.Errorf("%w: %d parties; exactly %d switch a ciphertext", ErrPolicy, len(points), k.policy.Threshold))
	}
	reserve := switchReserve(k.p, len(points), to.Bounds())
	f, err := k.acceptable(ct, reserve)
	if err != nil {
		return nil, s.Fail(err)
	}
	whole, source := hashCiphertext(ct)
	if err := s.Agree(ctx, "switching: ciphertext and key", k.agreement("switch", whole[:], to.Marshal())); err != nil {
		return nil, err
	}
	_, places, err := k.pointsOf(s.Roster())
	if err != nil {
		return nil, s.Fail(err)
	}
	use := useOf("switch", s.ID(), places, source)
	if err := store.spend(k.id, k.policy.Quota, source, [][32]byte{use}); err != nil {
		return nil, s.Fail(err)
	}
	sums, err := k.switched(ctx, s, ct, to, &maskedShare{share, places, use}, f.bits)
	if err != nil {
		return nil, err
	}
	noise := he.Noise(float64(f.worst) + float64(len(points))*math.Ldexp(1, f.bits) + reserve)
	out, err := he.CiphertextOf(k.p, ct.Level(), sums, min(noise, k.p.Capacity(ct.Level())), to.Bounds())
	if err != nil {
		return nil, s.Fail(err)
	}
	return out, nil
}

// switched returns (c0 + Σ h0, Σ h1) for every part.
func (k *KeyShare) switched(ctx context.Context, s *compute.Session, ct *he.Ciphertext, to *he.PublicKey, share *maskedShare, bits int) ([][]ring.Poly, error) {
	const round = "switching: shares"
	r := k.p.Ring(ct.Level())
	src := ring.FreshSource()
	defer src.Wipe()
	p0, p1 := to.B(), k.p.PublicMask(to.Mask())
	var payload []byte
	for part := range k.p.Parts() {
		h0 := k.flooded(r, src, ct.Poly(part, 1), share, part, bits)
		u := smallPoly(r, src.Ternary)
		h1 := smallPoly(r, src.Binomial)
		r.MulAdd(h0, u, p0)
		r.MulAdd(h1, u, p1)
		u.Wipe()
		payload = he.AppendPoly(he.AppendPoly(payload, r, h0), r, h1)
	}
	all, err := s.Simultaneous(ctx, round, payload, len(payload))
	if err != nil {
		return nil, err
	}
	sums := make([][]ring.Poly, k.p.Parts())
	for part := range sums {
		sums[part] = []ring.Poly{ct.Poly(part, 0).Clone(), r.NewPoly()}
	}
	for i, b := range all {
		for _, sum := range sums {
			for _, c := range sum {
				var h ring.Poly
				if h, b, err = he.TakePoly(b, r); err != nil {
					return nil, s.Blame(i, round, fmt.Errorf("%w: %w", compute.ErrMisbehaved, err))
				}
				r.Add(c, c, h)
			}
		}
		if len(b) != 0 {
			return nil, s.Blame(i, round, fmt.Errorf("%w: %d bytes too many", compute.ErrMisbehaved, len(b)))
		}
	}
	return sums, nil
}
