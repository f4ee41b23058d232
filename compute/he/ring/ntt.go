package ring

import "math/bits"

// A transform is the negacyclic NTT of one prime and length. Its twiddles are
// powers of a primitive 2N-th root ψ in bit-reversed order, each beside its
// Shoup quotient: w[2i] = ψ^brv(i), w[2i+1] = ⌊w[2i]·2^64/q⌋.
type transform struct {
	m       *Modulus
	n       int
	forward []uint64      // 2n words
	inverse []uint64      // 2n words, powers of ψ^-1
	last    [4]uint64     // n^-1 and ψ^-brv(1)·n^-1, each with its Shoup quotient
	vector  *vectorTables // nil where the assembly does not apply
}

func newTransform(m *Modulus, n int) (*transform, error) {
	psi, err := m.primitiveRoot(n)
	if err != nil {
		return nil, err
	}
	t := &transform{m: m, n: n}
	t.forward = twiddles(m, n, psi)
	t.inverse = twiddles(m, n, m.Inv(psi))
	nInv := m.Inv(uint64(n) % m.Q)
	w := m.Mul(t.inverse[2], nInv)
	t.last = [4]uint64{nInv, m.Shoup(nInv), w, m.Shoup(w)}
	t.vector = newVectorTables(t)
	return t, nil
}

func twiddles(m *Modulus, n int, root uint64) []uint64 {
	out := make([]uint64, 2*n)
	shift := 64 - bits.Len(uint(n-1))
	for i, w := 0, uint64(1); i < n; i++ {
		at := bits.Reverse64(uint64(i)) >> shift
		out[2*at], out[2*at+1] = w, m.Shoup(w)
		w = m.Mul(w, root)
	}
	return out
}

// ntt transforms a, N values below 4q, to N residues: a(ψ^(2·brv(i)+1)) at i.
func (t *transform) ntt(a []uint64) {
	if t.vector != nil {
		t.vectorNTT(a)
		return
	}
	t.plainNTT(a)
}

// intt inverts ntt; a holds N values below 2q and ends as residues.
func (t *transform) intt(a []uint64) {
	if t.vector != nil {
		t.vectorINTT(a)
		return
	}
	t.plainINTT(a)
}

// plainNTT is Longa–Naehrig algorithm 1 with Harvey's lazy butterflies, two
// stages a pass. A butterfly (x, y) → (x+wy, x-wy) computes wy mod q in [0, 2q)
// for any word y, so that only x has to be kept small: values below bound·q grow
// by 2q a stage, and x is brought below 4q before they could pass 16q.
func (t *transform) plainNTT(a []uint64) {
	a = a[:t.n]
	m, span, bound := 1, t.n, 4
	if bits.Len(uint(t.n))%2 == 0 { // an odd number of stages
		span /= 2
		t.forwardOne(a[:span], a[span:])
		m, bound = 2, 6
	}
	for ; span > 4; m, span = 4*m, span/4 {
		lazy := bound <= 12
		if !lazy {
			bound = 4
		}
		for i := range m {
			t.forwardTwo(a[i*span:(i+1)*span], m+i, lazy)
		}
		bound += 4
	}
	t.forwardLast(a, m)
}

// forwardOne is the first stage: x and y are the halves of the input.
func (t *transform) forwardOne(x, y []uint64) {
	q := t.m.Q
	w, ws := t.forward[2], t.forward[3]
	y = y[:len(x)]
	for j, u := range x {
		v := mulLazy(y[j], w, ws, q)
		x[j], y[j] = u+v, u+2*q-v
	}
}

// forwardTwo is two stages on one block of the array, with twiddles k of the
// first and 2k, 2k+1 of the second stage.
func (t *transform) forwardTwo(a []uint64, k int, lazy bool) {
	q := t.m.Q
	q2 := 2 * q
	w := (*[2]uint64)(t.forward[2*k:])
	w0, s0 := w[0], w[1]
	v := (*[4]uint64)(t.forward[4*k:])
	w1, s1, w2, s2 := v[0], v[1], v[2], v[3]
	h := len(a) / 4
	a0, a1, a2, a3 := a[:h], a[h:2*h], a[2*h:3*h], a[3*h:]
	a1, a2, a3 = a1[:len(a0)], a2[:len(a0)], a3[:len(a0)]
	for j := range a0 {
		x0, x1 := a0[j], a1[j]
		if !lazy {
			x0, x1 = subtractIf(subtractIf(x0, 8*q), 4*q), subtractIf(subtractIf(x1, 8*q), 4*q)
		}
		y0, y1 := mulLazy(a2[j], w0, s0, q), mulLazy(a3[j], w0, s0, q)
		x0, y0 = x0+y0, x0+q2-y0
		x1, y1 = x1+y1, x1+q2-y1
		x1, y1 = mulLazy(x1, w1, s1, q), mulLazy(y1, w2, s2, q)
		a0[j], a1[j] = x0+x1, x0+q2-x1
		a2[j], a3[j] = y0+y1, y0+q2-y1
	}
}

// forwardLast is the last two stages, on runs of four, and the full reduction.
func (t *transform) forwardLast(a []uint64, m int) {
	q := t.m.Q
	q2 := 2 * q
	first, second := t.forward[2*m:4*m], t.forward[4*m:]
	for len(a) >= 4 && len(first) >= 2 && len(second) >= 4 {
		w := (*[2]uint64)(first)
		v := (*[4]uint64)(second)
		b := (*[4]uint64)(a)
		x0 := subtractIf(subtractIf(b[0], 8*q), 4*q)
		x1 := subtractIf(subtractIf(b[1], 8*q), 4*q)
		y0, y1 := mulLazy(b[2], w[0], w[1], q), mulLazy(b[3], w[0], w[1], q)
		x0, y0 = x0+y0, x0+q2-y0
		x1, y1 = x1+y1, x1+q2-y1
		x1, y1 = mulLazy(x1, v[0], v[1], q), mulLazy(y1, v[2], v[3], q)
		b[0], b[1] = reduce8(x0+x1, q), reduce8(x0+q2-x1, q)
		b[2], b[3] = reduce8(y0+y1, q), reduce8(y0+q2-y1, q)
		a, first, second = a[4:], first[2:], second[4:]
	}
}

// reduce8 brings x < 8q below q.
func reduce8(x, q uint64) uint64 {
	return subtractIf(subtractIf(subtractIf(x, 4*q), 2*q), q)
}

// plainINTT is Longa–Naehrig algorithm 2, two stages a pass. Between passes all
// values are below 4q: of the four outputs of a double butterfly only the sum of
// sums, below 16q, needs reducing.
func (t *transform) plainINTT(a []uint64) {
	a = a[:t.n]
	m, span := t.n/4, 4
	t.inverseFirst(a, m)
	for ; m >= 16; m, span = m/4, span*4 {
		for i := range m / 4 {
			t.inverseTwo(a[4*i*span:4*(i+1)*span], m/4+i)
		}
	}
	if m == 8 { // an odd number of stages
		for i := range m / 2 {
			t.inverseOne(a[2*i*span:2*(i+1)*span], m/2+i)
		}
	}
	t.inverseLast(a)
}

// inverseFirst is the first two stages, on runs of four.
func (t *transform) inverseFirst(a []uint64, m int) {
	q := t.m.Q
	first, second := t.inverse[4*m:], t.inverse[2*m:4*m]
	for len(a) >= 4 && len(first) >= 4 && len(second) >= 2 {
		v := (*[4]uint64)(first)
		w := (*[2]uint64)(second)
		b := (*[4]uint64)(a)
		x0, x1 := b[0]+b[1], mulLazy(b[0]+4*q-b[1], v[0], v[1], q)
		y0, y1 := b[2]+b[3], mulLazy(b[2]+4*q-b[3], v[2], v[3], q)
		b[0], b[1] = subtractIf(x0+y0, 4*q), x1+y1
		b[2], b[3] = mulLazy(x0+8*q-y0, w[0], w[1], q), mulLazy(x1+2*q-y1, w[0], w[1], q)
		a, first, second = a[4:], first[4:], second[2:]
	}
}

// inverseTwo is two stages on one block, twiddles 2k, 2k+1 and then k.
func (t *transform) inverseTwo(a []uint64, k int) {
	q := t.m.Q
	q4, q8 := 4*q, 8*q
	w := (*[2]uint64)(t.inverse[2*k:])
	w0, s0 := w[0], w[1]
	v := (*[4]uint64)(t.inverse[4*k:])
	w1, s1, w2, s2 := v[0], v[1], v[2], v[3]
	h := len(a) / 4
	a0, a1, a2, a3 := a[:h], a[h:2*h], a[2*h:3*h], a[3*h:]
	a1, a2, a3 = a1[:len(a0)], a2[:len(a0)], a3[:len(a0)]
	for j := range a0 {
		x0, x1 := a0[j]+a1[j], mulLazy(a0[j]+q4-a1[j], w1, s1, q)
		y0, y1 := a2[j]+a3[j], mulLazy(a2[j]+q4-a3[j], w2, s2, q)
		a0[j], a1[j] = subtractIf(subtractIf(x0+y0, q8), q4), x1+y1
		a2[j], a3[j] = mulLazy(x0+q8-y0, w0, s0, q), mulLazy(x1+2*q-y1, w0, s0, q)
	}
}

func (t *transform) inverseOne(a []uint64, k int) {
	q := t.m.Q
	w := (*[2]uint64)(t.inverse[2*k:])
	x, y := a[:len(a)/2], a[len(a)/2:]
	y = y[:len(x)]
	for j, u := range x {
		v := y[j]
		x[j], y[j] = subtractIf(u+v, 4*q), mulLazy(u+4*q-v, w[0], w[1], q)
	}
}

// inverseLast is the last two stages with the division by N folded into their
// multiplications.
func (t *transform) inverseLast(a []uint64) {
	q := t.m.Q
	q4, q8 := 4*q, 8*q
	v := (*[4]uint64)(t.inverse[4:])
	w1, s1, w2, s2 := v[0], v[1], v[2], v[3]
	n0, ns0, n1, ns1 := t.last[0], t.last[1], t.last[2], t.last[3]
	h := len(a) / 4
	a0, a1, a2, a3 := a[:h], a[h:2*h], a[2*h:3*h], a[3*h:]
	a1, a2, a3 = a1[:len(a0)], a2[:len(a0)], a3[:len(a0)]
	for j := range a0 {
		x0, x1 := a0[j]+a1[j], mulLazy(a0[j]+q4-a1[j], w1, s1, q)
		y0, y1 := a2[j]+a3[j], mulLazy(a2[j]+q4-a3[j], w2, s2, q)
		a0[j] = subtractIf(mulLazy(x0+y0, n0, ns0, q), q)
		a1[j] = subtractIf(mulLazy(x1+y1, n0, ns0, q), q)
		a2[j] = subtractIf(mulLazy(x0+q8-y0, n1, ns1, q), q)
		a3[j] = subtractIf(mulLazy(x1+2*q-y1, n1, ns1, q), q)
	}
}
