package he

import (
	"slices"
	"testing"

	"fednode/compute/he/ring"
)

// TestCiphertextOfItsPolynomials takes a ciphertext apart and puts it together.
func TestCiphertextOfItsPolynomials(t *testing.T) {
	w := newWorld(t, Set4096, T16)
	r := words(11)
	values := r.values(w.p.N(), T16)
	ct := w.encrypt(t, values)
	parts := [][]ring.Poly{{ct.Poly(0, 0).Clone(), ct.Poly(0, 1).Clone()}}
	again, err := CiphertextOf(w.p, ct.Level(), parts, ct.Noise(), ct.Bounds())
	must(t, err)
	pt, err := w.sk.Decrypt(again)
	must(t, err)
	got, err := pt.Slots()
	must(t, err)
	if !slices.Equal(got, values) {
		t.Error("a ciphertext made of its polynomials decrypts to something else")
	}
	other, err := w.p.EncodeSlots(r.values(w.p.N(), T16))
	must(t, err)
	if same, err := w.p.EncodeSlots(values); err != nil || !pt.Equal(same) || pt.Equal(other) {
		t.Error("plaintexts are not equal as their values are")
	}
	_, err = CiphertextOf(w.p, ct.Level(), parts, w.p.Capacity(ct.Level())*1.01, ct.Bounds())
	wantError(t, err, ErrNoise)
	_, err = CiphertextOf(w.p, ct.Level()+1, parts, ct.Noise(), ct.Bounds())
	wantError(t, err, ErrMismatch)
	_, err = CiphertextOf(w.p, ct.Level()-1, parts, ct.Noise(), ct.Bounds())
	wantError(t, err, ErrMismatch)
	_, err = CiphertextOf(w.p, ct.Level(), [][]ring.Poly{parts[0][:1]}, ct.Noise(), ct.Bounds())
	wantError(t, err, ErrMismatch)
	parts[0][1][0][7] = w.p.q.Moduli[0].Q
	_, err = CiphertextOf(w.p, ct.Level(), parts, ct.Noise(), ct.Bounds())
	wantError(t, err, ErrMalformed)
}

func TestPackedPolynomials(t *testing.T) {
	p := newWorld(t, Set4096, T16).p
	r := p.KeyRing()
	x := r.NewPoly()
	r.Uniform(x, ring.Seed{1}, "test")
	b := AppendPoly([]byte{7}, r, x)
	if len(b) != 1+PolySize(r) {
		t.Fatalf("packed to %d bytes, PolySize says %d", len(b)-1, PolySize(r))
	}
	y, rest, err := TakePoly(append(b[1:], 9), r)
	must(t, err)
	if !r.Equal(x, y) || !slices.Equal(rest, []byte{9}) {
		t.Error("a packed polynomial came back changed")
	}
	_, _, err = TakePoly(b[1:len(b)-1], r)
	wantError(t, err, ErrMalformed)
	for i := range b {
		b[i] = 0xff
	}
	_, _, err = TakePoly(b[1:], r)
	wantError(t, err, ErrMalformed)
}
