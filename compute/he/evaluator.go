package he

import (
	"fmt"
	"sync"

	"fednode/compute/he/ring"
)

// An Evaluator computes on ciphertexts of one Parameters. Its operations write to
// a destination that may be an operand and may be new(Ciphertext). They return
// ErrNoise, and leave the destination alone, if the result might not decrypt;
// ErrMismatch if operands do not fit; ErrNoKey where an evaluation key is missing.
// It is safe for concurrent use on different destinations.
type Evaluator struct {
	p       *Parameters
	keys    *EvaluationKeys
	workers int
	scratch sync.Pool // of *workspace
	turns   sync.Map  // permutations of values by Galois element
}

// NewEvaluator returns an evaluator with keys, which may be nil. It uses up to
// workers processors for one operation.
func NewEvaluator(p *Parameters, keys *EvaluationKeys, workers int) (*Evaluator, error) {
	if keys == nil {
		keys = NewEvaluationKeys(p)
	}
	if !p.SameLattice(keys.p) {
		return nil, fmt.Errorf("%w: evaluation keys of %s, not %s", ErrMismatch, keys.p, p)
	}
	ev := &Evaluator{p: p, keys: keys, workers: max(1, workers)}
	ev.scratch.New = func() any { return newWorkspace(p) }
	return ev, nil
}

// A workspace is the storage of one operation: polynomials over Q·B, rows, strips.
type workspace struct {
	wide   [10]ring.Poly // 2·MaxLevel rows
	key    [2]ring.Poly  // accumulators of key switching, of the key ring
	worker []*lane
}

// A lane is the storage of one worker.
type lane struct {
	strip  strip
	digits ring.Poly
}

func newWorkspace(p *Parameters) *workspace {
	w := new(workspace)
	for i := range w.wide {
		w.wide[i] = ring.NewPoly(2*p.MaxLevel(), p.N())
	}
	for i := range w.key {
		w.key[i] = p.qp.NewPoly()
	}
	return w
}

func (ev *Evaluator) open() *workspace {
	w := ev.scratch.Get().(*workspace)
	for len(w.worker) < ev.workers {
		w.worker = append(w.worker, &lane{digits: ring.NewPoly(ev.p.MaxLevel(), ev.p.N())})
	}
	return w
}

func (ev *Evaluator) close(w *workspace) { ev.scratch.Put(w) }

// each runs f for 0 … n-1, on as many workers as the evaluator may use; f gets
// the lane of its worker to itself.
func (ev *Evaluator) each(w *workspace, n int, f func(l *lane, i int)) {
	workers := min(ev.workers, n)
	if workers <= 1 {
		for i := range n {
			f(w.worker[0], i)
		}
		return
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	next := 0
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1
	}
	run := func(l *lane) {
		for i := take(); i < n; i = take() {
			f(l, i)
		}
	}
	for k := 1; k < workers; k++ {
		group.Go(func() { run(w.worker[k]) })
	}
	run(w.worker[0])
	group.Wait()
}

// Add sets dst = a+b.
func (ev *Evaluator) Add(dst, a, b *Ciphertext) error {
	return ev.linear(dst, a, b, (*ring.Ring).Add, false)
}

// Sub sets dst = a-b.
func (ev *Evaluator) Sub(dst, a, b *Ciphertext) error {
	return ev.linear(dst, a, b, (*ring.Ring).Sub, true)
}

func (ev *Evaluator) linear(dst, a, b *Ciphertext, op func(*ring.Ring, ring.Poly, ring.Poly, ring.Poly), negate bool) error {
	if err := ev.p.usable(a, b); err != nil {
		return err
	}
	noise, bounds := ev.p.NoiseAdd(a.noise, b.noise), a.bounds.join(b.bounds)
	if err := ev.p.room("a sum", noise, a.level); err != nil {
		return err
	}
	da, db := a.degree, b.degree // dst may be either
	dst.shape(ev.p, a.level, max(da, db))
	r := ev.p.Ring(a.level)
	for k := range dst.part {
		for i := range dst.degree + 1 {
			out, x, y := dst.part[k].c[i], a.part[k].c[i], b.part[k].c[i]
			switch {
			case i <= da && i <= db:
				op(r, out, x, y)
			case i <= da:
				r.Copy(out, x)
			case negate:
				r.Neg(out, y)
			default:
				r.Copy(out, y)
			}
		}
	}
	dst.noise, dst.bounds = noise, bounds
	return nil
}

// Neg sets dst = -a.
func (ev *Evaluator) Neg(dst, a *Ciphertext) error {
	if err := ev.p.usable(a); err != nil {
		return err
	}
	noise, bounds := a.noise, a.bounds
	dst.shape(ev.p, a.level, a.degree)
	for k := range dst.part {
		for i := range dst.degree + 1 {
			ev.p.Ring(a.level).Neg(dst.part[k].c[i], a.part[k].c[i])
		}
	}
	dst.noise, dst.bounds = noise, bounds
	return nil
}

// AddPlain sets dst = a + pt.
func (ev *Evaluator) AddPlain(dst, a *Ciphertext, pt *Plaintext) error {
	if err := ev.p.usable(a); err != nil {
		return err
	}
	if pt.p.id != ev.p.id {
		return fmt.Errorf("%w: a plaintext of %s, not %s", ErrMismatch, pt.p, ev.p)
	}
	noise := ev.p.NoiseAddPlain(a.noise)
	if err := ev.p.room("a sum", noise, a.level); err != nil {
		return err
	}
	dst.set(a)
	dst.seed = nil
	w := ev.open()
	defer ev.close(w)
	message := w.wide[0]
	defer message.Wipe()
	r := ev.p.Ring(a.level)
	for k := range dst.part {
		ev.p.scaled(message, pt.part[k], k, a.level)
		r.NTT(message)
		r.Add(dst.part[k].c[0], dst.part[k].c[0], message)
	}
	dst.noise = noise
	return nil
}

// A Factor is a plaintext prepared for products: values modulo the primes of Q.
type Factor struct {
	p     *Parameters
	norm1 float64
	part  []ring.Poly
}

// NewFactor prepares a plaintext for MulPlain at all levels.
func NewFactor(pt *Plaintext) *Factor {
	p := pt.p
	f := &Factor{p: p, part: make([]ring.Poly, len(p.plain))}
	for k, t := range p.plain {
		f.part[k] = p.q.NewPoly()
		p.centred(f.part[k], pt.part[k], k, p.MaxLevel())
		p.q.NTT(f.part[k])
		f.norm1 = max(f.norm1, t.norm1(pt.part[k]))
	}
	return f
}

// Norm1 returns the sum of the absolute values of the plaintext's coefficients.
func (f *Factor) Norm1() float64 { return f.norm1 }

// MulPlain sets dst = a·f.
func (ev *Evaluator) MulPlain(dst, a *Ciphertext, f *Factor) error {
	if err := ev.p.usable(a); err != nil {
		return err
	}
	if f.p.id != ev.p.id {
		return fmt.Errorf("%w: a factor of %s, not %s", ErrMismatch, f.p, ev.p)
	}
	noise, bounds := ev.p.NoiseMulPlain(a.noise, f.norm1), a.bounds
	if err := ev.p.room("a product with a plaintext", noise, a.level); err != nil {
		return err
	}
	dst.shape(ev.p, a.level, a.degree)
	r := ev.p.Ring(a.level)
	for k := range dst.part {
		for i := range dst.degree + 1 {
			r.Mul(dst.part[k].c[i], a.part[k].c[i], f.part[k])
		}
	}
	dst.noise, dst.bounds = noise, bounds
	return nil
}

// ModSwitch sets dst = a at one level less: a smaller ciphertext with as much
// budget, less rounding.
func (ev *Evaluator) ModSwitch(dst, a *Ciphertext) error {
	if err := ev.p.usable(a); err != nil {
		return err
	}
	if a.level == 1 {
		return fmt.Errorf("%w: a ciphertext of level 1 has no prime to drop", ErrMismatch)
	}
	noise := ev.p.NoiseModSwitch(a.noise, a.bounds, a.level, a.degree)
	if err := ev.p.room("a ciphertext of one level less", noise, a.level-1); err != nil {
		return err
	}
	dst.set(a)
	w := ev.open()
	defer ev.close(w)
	r, last := ev.p.q, a.level-1
	row := w.wide[0][0]
	tables := ev.p.level[last]
	for k := range dst.part {
		for i := range dst.degree + 1 {
			c := dst.part[k].c[i]
			r.INTTRow(last, c[last])
			addConstant(c[last], r.Moduli[last], r.Moduli[last].Q/2)
			for j, m := range r.Moduli[:last] {
				lift(row, c[last], m, tables.dropHalf[j])
				r.NTTRow(j, row)
				m.SubRow(c[j], c[j], row)
				m.ScaleRow(c[j], c[j], tables.dropInv[j])
			}
		}
	}
	dst.level, dst.noise, dst.seed = last, noise, nil
	return nil
}

func addConstant(row []uint64, m *ring.Modulus, x uint64) {
	for k := range row {
		row[k] = m.Add(row[k], x)
	}
}

// lift sets out to x-half mod m for residues x of another prime.
func lift(out, x []uint64, m *ring.Modulus, half uint64) {
	x = x[:len(out)]
	for k := range out {
		out[k] = m.ReduceWord(x[k] + m.Q - half)
	}
}
