package threshold

import (
	"errors"
	"testing"

	"fednode/compute"
	"fednode/compute/he"
)

// TestThreeOfFive: five organisations make a key and evaluation keys; a sum of products of encrypted columns, rotated,
// is decrypted by different threes, and right.
func TestThreeOfFive(t *testing.T) {
	p := parameters(t, he.Set8192, he.T16)
	members := newMembers(t, orgs(5)...)
	keys := make([]*he.EvaluationKeys, 5)
	must(t, errors.Join(inSession(t, members, func(s *compute.Session, m *member) (err error) {
		if m.share, err = Generate(t.Context(), s, m.store, p, Policy{Threshold: 3, Quota: 4}); err != nil {
			return err
		}
		keys[s.Self()], err = m.share.EvaluationKeys(t.Context(), s, p.GaloisElement(1), p.SwapElement())
		return err
	})...))
	n := p.N()
	x, y, z, want := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range x {
		x[i], y[i], z[i] = int64(i%199), int64(i%151)-75, int64(i)
	}
	for i := range want {
		row, at := i/(n/2)*(n/2), (i+1)%(n/2)
		want[i] = x[row+at]*y[row+at] + z[row+at]
	}
	ev, err := he.NewEvaluator(p, keys[4], 1)
	must(t, err)
	ct := new(he.Ciphertext)
	k := members[0].share.Key
	must(t, ev.MulRelin(ct, encrypt(t, k, x), encrypt(t, k, y)))
	must(t, ev.Add(ct, ct, encrypt(t, k, z)))
	must(t, ev.Rotate(ct, ct, 1))
	for _, set := range [][]int{{0, 1, 2}, {4, 1, 3}} {
		d := decrypted(t, pick(members, set...), ct)
		wantValues(t, d.Plaintext, true, want)
	}
}
