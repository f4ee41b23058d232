package he

import (
	"fmt"

	"fednode/compute/he/ring"
)

// switchDigits sets w.key to Σ d_i·(b_i, a_i) modulo q_1 … q_level and P, as values:
// d_i is row i of x, coefficients, taken in [0, q_i). values are x after the NTT,
// or nil.
func (ev *Evaluator) switchDigits(w *workspace, key *SwitchingKey, x, values ring.Poly, level int) {
	ev.each(w, level+1, func(l *lane, i int) {
		row := ev.keyRow(i, level)
		for d := range level {
			ev.digit(l.digits[d], x, values, d, row)
		}
		ev.dot(w, key, l.digits[:level], row)
	})
}

// keyRow returns the row of the key ring that is target i of a level: the special
// prime is the last of either.
func (ev *Evaluator) keyRow(i, level int) int {
	if i == level {
		return ev.p.MaxLevel()
	}
	return i
}

// digit sets out to digit d of x modulo the prime of a row, as values.
func (ev *Evaluator) digit(out []uint64, x, values ring.Poly, d, row int) {
	if values != nil && d == row {
		copy(out, values[d])
		return
	}
	// All primes of a chain are within one bit, so that digits are below 4q.
	copy(out, x[d])
	ev.p.qp.NTTRow(row, out)
}

func (ev *Evaluator) dot(w *workspace, key *SwitchingKey, digits ring.Poly, row int) {
	var b, a [16][]uint64
	for d := range digits {
		b[d], a[d] = key.b[d][row], key.a[d][row]
	}
	m := ev.p.qp.Moduli[row]
	m.DotRow(w.key[0][row], digits, b[:len(digits)])
	m.DotRow(w.key[1][row], digits, a[:len(digits)])
}

// divideSpecial divides w.key by P, rounding, to values modulo q_1 … q_level. If
// add is given, two polynomials of coefficients, it adds them: with r the residue
// modulo P, (key - NTT(r - P·add))/P.
func (ev *Evaluator) divideSpecial(w *workspace, add []ring.Poly, level int) {
	p, special := ev.p, ev.p.MaxLevel()
	ev.each(w, 2, func(_ *lane, i int) {
		p.qp.INTTRow(special, w.key[i][special])
		addConstant(w.key[i][special], p.Special(), p.Special().Q/2)
	})
	ev.each(w, 2*level, func(l *lane, i int) {
		j, m, row := i%level, p.q.Moduli[i%level], l.digits[0]
		key := w.key[i/level]
		if add == nil {
			lift(row, key[special], m, p.half[j])
		} else {
			liftSub(row, key[special], add[i/level][j], m, p.half[j], p.pMod[j])
		}
		p.q.NTTRow(j, row)
		m.SubRow(row, key[j], row)
		m.ScaleRow(key[j], row, p.pInv[j])
	})
}

// liftSub sets out to x - half - c·y mod m.
func liftSub(out, x, y []uint64, m *ring.Modulus, half, c uint64) {
	x, y = x[:len(out)], y[:len(out)]
	shoup := m.Shoup(c)
	for k := range out {
		out[k] = m.ReduceWord(x[k] + 2*m.Q - half - m.MulShoup(y[k], c, shoup))
	}
}

// Rotate sets dst = a with both rows of slots turned left by steps places (right
// if negative).
func (ev *Evaluator) Rotate(dst, a *Ciphertext, steps int) error {
	return ev.Turn(dst, a, ev.p.GaloisElement(steps))
}

// SwapRows sets dst = a with the two rows of slots exchanged.
func (ev *Evaluator) SwapRows(dst, a *Ciphertext) error {
	return ev.Turn(dst, a, ev.p.SwapElement())
}

// Turn sets dst = a(X^g) under the same key, for a Galois element g.
func (ev *Evaluator) Turn(dst, a *Ciphertext, g uint64) error {
	if err := ev.p.usable(a); err != nil {
		return err
	}
	if g == 1 {
		dst.set(a)
		return nil
	}
	key, noise, err := ev.turnKey(a, g)
	if err != nil {
		return err
	}
	w := ev.open()
	defer ev.close(w)
	index := ev.permutation(g)
	level, bounds := a.level, a.bounds.join(key.bounds)
	r := ev.p.Ring(level)
	x := w.wide[2]
	for k := range a.part {
		c1 := a.part[k].c[1]
		ev.each(w, level, func(_ *lane, i int) {
			copy(x[i], c1[i])
			ev.p.q.INTTRow(i, x[i])
		})
		ev.switchDigits(w, key, x, c1, level)
		ev.finishTurn(w, dst, a, r, k, index)
	}
	dst.noise, dst.bounds = noise, bounds
	return nil
}

// finishTurn divides the switched part k by P, adds c0 and turns the result to dst.
func (ev *Evaluator) finishTurn(w *workspace, dst, a *Ciphertext, r *ring.Ring, k int, index []uint32) {
	ev.divideSpecial(w, nil, a.level)
	r.Add(w.key[0], w.key[0], a.part[k].c[0])
	if k == 0 {
		dst.shape(ev.p, a.level, 1)
	}
	for i := range 2 {
		r.Permute(dst.part[k].c[i], w.key[i], index)
	}
}

func (ev *Evaluator) turnKey(a *Ciphertext, g uint64) (*SwitchingKey, Noise, error) {
	key := ev.keys.galois[g]
	switch {
	case a.degree != 1:
		return nil, 0, fmt.Errorf("%w: a product of degree %d; Relinearise it", ErrMismatch, a.degree)
	case key == nil:
		return nil, 0, fmt.Errorf("%w: Galois element %d", ErrNoKey, g)
	}
	noise := a.noise + ev.p.NoiseSwitch(a.bounds.join(key.bounds), a.level)
	return key, noise, ev.p.room("a rotation", noise, a.level)
}

func (ev *Evaluator) permutation(g uint64) []uint32 {
	if index, ok := ev.turns.Load(g); ok {
		return index.([]uint32)
	}
	index := ev.p.q.Permutation(g)
	ev.turns.Store(g, index)
	return index
}

// Hoisted are the digits of a ciphertext, from which many rotations of it come at
// less than half the price each.
type Hoisted struct {
	a      *Ciphertext
	digits [][]ring.Poly // by part and target; rows by digit
}

// Hoist decomposes a ciphertext of degree 1, which must not change while the
// result is in use.
func (ev *Evaluator) Hoist(a *Ciphertext) (*Hoisted, error) {
	if err := ev.p.usable(a); err != nil {
		return nil, err
	}
	if a.degree != 1 {
		return nil, fmt.Errorf("%w: a product of degree %d; Relinearise it", ErrMismatch, a.degree)
	}
	w := ev.open()
	defer ev.close(w)
	h := &Hoisted{a: a, digits: make([][]ring.Poly, len(a.part))}
	x := w.wide[2]
	r := ev.p.Ring(a.level)
	for k := range a.part {
		c1 := a.part[k].c[1]
		r.Copy(x, c1)
		r.INTT(x)
		h.digits[k] = make([]ring.Poly, a.level+1)
		ev.each(w, a.level+1, func(_ *lane, i int) {
			h.digits[k][i] = r.NewPoly()
			for d := range a.level {
				ev.digit(h.digits[k][i][d], x, c1, d, ev.keyRow(i, a.level))
			}
		})
	}
	return h, nil
}

// RotateHoisted is Rotate for a hoisted ciphertext; dst is not that ciphertext.
func (ev *Evaluator) RotateHoisted(dst *Ciphertext, h *Hoisted, steps int) error {
	g := ev.p.GaloisElement(steps)
	if err := ev.p.usable(h.a); err != nil {
		return err
	}
	if dst == h.a {
		return fmt.Errorf("%w: a hoisted ciphertext as its own destination", ErrMismatch)
	}
	if g == 1 {
		dst.set(h.a)
		return nil
	}
	key, noise, err := ev.turnKey(h.a, g)
	if err != nil {
		return err
	}
	w := ev.open()
	defer ev.close(w)
	index := ev.permutation(g)
	r := ev.p.Ring(h.a.level)
	for k := range h.a.part {
		ev.each(w, h.a.level+1, func(_ *lane, i int) {
			ev.dot(w, key, h.digits[k][i], ev.keyRow(i, h.a.level))
		})
		ev.finishTurn(w, dst, h.a, r, k, index)
	}
	dst.noise, dst.bounds = noise, h.a.bounds.join(key.bounds)
	return nil
}

// InnerSum sets dst to a with every slot holding the sum of all slots. It needs
// keys for SumElements.
func (ev *Evaluator) InnerSum(dst, a *Ciphertext) error {
	sum, turned := a.Clone(), new(Ciphertext)
	for _, g := range ev.p.SumElements() {
		if err := ev.Turn(turned, sum, g); err != nil {
			return err
		}
		if err := ev.Add(sum, sum, turned); err != nil {
			return err
		}
	}
	dst.set(sum)
	return nil
}
