package he

import (
	"fmt"

	"fednode/compute/he/ring"
)

// Mul sets dst = a·b, of degree 2: c0 + c1·s + c2·s². Relinearise it before
// multiplying or turning it. Factors have degree 1.
func (ev *Evaluator) Mul(dst, a, b *Ciphertext) error {
	if err := ev.checkProduct(a, b); err != nil {
		return err
	}
	level, bounds := a.level, a.bounds.join(b.bounds)
	noise := ev.p.NoiseMul(a.noise, b.noise, bounds, level)
	if err := ev.p.room("a product", noise, level); err != nil {
		return err
	}
	w := ev.open()
	defer ev.close(w)
	for k := range ev.p.plain {
		ev.tensor(w, &a.part[k], &b.part[k], k, level)
		if k == 0 {
			// Only now: dst may be a or b, whose polynomials it keeps.
			dst.shape(ev.p, level, 2)
		}
		ev.each(w, 3*level, func(_ *lane, i int) {
			out, row := dst.part[k].c[i/level][i%level], w.wide[i/level][i%level]
			copy(out, row)
			ev.p.q.NTTRow(i%level, out)
		})
	}
	dst.noise, dst.bounds = noise, bounds
	return nil
}

// MulRelin sets dst = a·b, relinearised: Mul and Relinearise with fewer
// transforms.
func (ev *Evaluator) MulRelin(dst, a, b *Ciphertext) error {
	if err := ev.checkProduct(a, b); err != nil {
		return err
	}
	key := ev.keys.relin
	if key == nil {
		return fmt.Errorf("%w: relinearisation", ErrNoKey)
	}
	level, bounds := a.level, a.bounds.join(b.bounds).join(key.bounds)
	noise := ev.p.NoiseMul(a.noise, b.noise, bounds, level) + ev.p.NoiseSwitch(bounds, level)
	if err := ev.p.room("a product", noise, level); err != nil {
		return err
	}
	w := ev.open()
	defer ev.close(w)
	for k := range ev.p.plain {
		ev.tensor(w, &a.part[k], &b.part[k], k, level)
		if k == 0 {
			dst.shape(ev.p, level, 1)
		}
		ev.switchDigits(w, key, w.wide[2], nil, level)
		ev.divideSpecial(w, w.wide[:2], level)
		for i := range 2 {
			ev.p.Ring(level).Copy(dst.part[k].c[i], w.key[i])
		}
	}
	dst.noise, dst.bounds = noise, bounds
	return nil
}

func (ev *Evaluator) checkProduct(a, b *Ciphertext) error {
	if err := ev.p.usable(a, b); err != nil {
		return err
	}
	if a.degree != 1 || b.degree != 1 {
		return fmt.Errorf("%w: factors of degrees %d and %d; Relinearise them", ErrMismatch, a.degree, b.degree)
	}
	return nil
}

// tensor leaves round(t/B·(a0·b0, a0·b1+a1·b0, a1·b1)) modulo Q, as coefficients,
// in w.wide[:3], where b was scaled by B/Q before (Kim–Polyakov–Zucca, section 3.1;
// the proof is at NoiseMul).
func (ev *Evaluator) tensor(w *workspace, a, b *part, k, level int) {
	p, tables := ev.p, ev.p.level[level-1]
	x, y := w.wide[0:2], w.wide[2:4] // factors over Q·B, as values
	coefficients := w.wide[5:9]
	ev.each(w, 4*level, func(_ *lane, i int) {
		from, row := a, i%level
		if i >= 2*level {
			from = b
		}
		out := coefficients[i/level][row]
		copy(out, from.c[i/level&1][row])
		if i < 2*level {
			copy(x[i/level][row], out) // already values
		}
		p.q.INTTRow(row, out)
	})
	blocks := p.N() / block
	ev.each(w, 4*blocks, func(l *lane, i int) {
		which, at := i/blocks, i%blocks*block
		in := coefficients[which]
		if which < 2 {
			tables.toAux.run(&l.strip, x[which][level:], in, nil, at)
			return
		}
		out := y[which-2]
		tables.scaleAux.run(&l.strip, out[level:], in, nil, at)
		tables.fromAux.run(&l.strip, out, out[level:], nil, at)
	})
	ev.each(w, 6*level, func(_ *lane, i int) {
		if i < 2*level { // the rows of b modulo Q
			tables.both.NTTRow(i%level, y[i/level][i%level])
			return
		}
		row := level + i%level
		tables.both.NTTRow(row, w.wide[i/level-2][row])
	})
	d2 := w.wide[4]
	ev.each(w, 2*level, func(l *lane, row int) {
		tensorRow(tables.both.Moduli[row], l.digits[0], d2[row], x[0][row], x[1][row], y[0][row], y[1][row])
		for _, d := range []ring.Poly{x[0], x[1], d2} {
			tables.both.INTTRow(row, d[row])
		}
	})
	product := tables.product[k]
	ev.each(w, 3*blocks, func(l *lane, i int) {
		d := [3]ring.Poly{x[0], x[1], d2}[i/blocks]
		out := [3]ring.Poly{x[0], x[1], w.wide[2]}[i/blocks]
		product.run(&l.strip, out, d[level:], d, i%blocks*block)
	})
}

// tensorRow sets d2 = x1·y1, x1 = x0·y1 + x1·y0, x0 = x0·y0.
func tensorRow(m *ring.Modulus, scratch, d2, x0, x1, y0, y1 []uint64) {
	m.MulRow(d2, x1, y1)
	m.DotRow(scratch, [][]uint64{x0, x1}, [][]uint64{y1, y0})
	copy(x1, scratch)
	m.MulRow(x0, x0, y0)
}

// Relinearise sets dst = a, of degree 1.
func (ev *Evaluator) Relinearise(dst, a *Ciphertext) error {
	if err := ev.p.usable(a); err != nil {
		return err
	}
	key := ev.keys.relin
	switch {
	case a.degree == 1:
		dst.set(a)
		return nil
	case key == nil:
		return fmt.Errorf("%w: relinearisation", ErrNoKey)
	}
	level, bounds := a.level, a.bounds.join(key.bounds)
	noise := a.noise + ev.p.NoiseSwitch(bounds, level)
	if err := ev.p.room("a relinearised product", noise, level); err != nil {
		return err
	}
	dst.set(a)
	w := ev.open()
	defer ev.close(w)
	r := ev.p.Ring(level)
	for k := range dst.part {
		c := &dst.part[k].c
		r.Copy(w.wide[2], c[2])
		r.INTT(w.wide[2])
		ev.switchDigits(w, key, w.wide[2], c[2], level)
		ev.divideSpecial(w, nil, level)
		for i := range 2 {
			r.Add(c[i], c[i], w.key[i])
		}
	}
	dst.degree, dst.noise, dst.bounds = 1, noise, bounds
	return nil
}
