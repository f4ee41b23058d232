package he

import (
	"fmt"
	"testing"
)

// TestRandomOperations draws operations and holds the results against plain arithmetic, and bounds against the noise
// measured, at every set, for one plaintext prime and for composed moduli.
func TestRandomOperations(t *testing.T) {
	for _, set := range Sets() {
		for _, plain := range [][]uint64{{T16}, WidePrimes(2)} {
			if set == Set16384 && testing.Short() {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", set, len(plain)), func(t *testing.T) { testRandom(t, newWorld(t, set, plain...)) })
		}
	}
}

// A model is a ciphertext and the residues it should decrypt to, by plaintext prime.
type model struct {
	ct   *Ciphertext
	want [][]uint64
}

func (w *world) fresh(t *testing.T, r *words) model {
	v := make([]int64, w.p.N())
	for i := range v {
		v[i] = int64(r.next()) >> 1
		if len(w.p.plain) == 1 {
			v[i] = centre(r.below(w.p.plain[0].m.Q), w.p.plain[0].m.Q)
		}
	}
	m := model{ct: w.encrypt(t, v)}
	for _, plain := range w.p.plain {
		row := make([]uint64, len(v))
		for i, x := range v {
			row[i] = plain.m.ReduceSigned(x >> 1)
			row[i] = plain.m.Add(row[i], plain.m.Add(row[i], uint64(x&1)))
		}
		m.want = append(m.want, row)
	}
	return m
}

func (w *world) combine(a, b model, f func(k int, x, y uint64) uint64) [][]uint64 {
	out := make([][]uint64, len(a.want))
	for k := range out {
		out[k] = make([]uint64, w.p.N())
		for i := range out[k] {
			out[k][i] = f(k, a.want[k][i], b.want[k][i])
		}
	}
	return out
}

func (w *world) hold(t *testing.T, what string, m model) {
	t.Helper()
	pt, err := w.sk.Decrypt(m.ct)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for k, plain := range w.p.plain {
		values := append([]uint64(nil), pt.part[k]...)
		plain.slots.NTTRow(0, values)
		for i, at := range w.p.slotAt {
			if values[at] != m.want[k][i] {
				t.Fatalf("%s: slot %d is %d mod %d, want %d", what, i, values[at], plain.m.Q, m.want[k][i])
			}
		}
	}
	measured, err := w.sk.MeasureNoise(m.ct)
	must(t, err)
	if measured > m.ct.Noise() {
		t.Fatalf("%s: noise is 2^%.1f, the bound 2^%.1f", what, measured.Bits(), m.ct.Noise().Bits())
	}
}

func testRandom(t *testing.T, w *world) {
	r := words(w.p.N() + len(w.p.plain))
	pool := []model{w.fresh(t, &r), w.fresh(t, &r)}
	refused := 0
	for step := range 24 {
		a, b := pool[r.below(uint64(len(pool)))], pool[r.below(uint64(len(pool)))]
		for a.ct.level > b.ct.level {
			lower := model{new(Ciphertext), a.want}
			must(t, w.ev.ModSwitch(lower.ct, a.ct))
			a = lower
		}
		for b.ct.level > a.ct.level {
			lower := model{new(Ciphertext), b.want}
			must(t, w.ev.ModSwitch(lower.ct, b.ct))
			b = lower
		}
		out, what, err := model{ct: new(Ciphertext)}, "", error(nil)
		switch r.below(6) {
		case 0:
			what, err = "sum", w.ev.Add(out.ct, a.ct, b.ct)
			out.want = w.combine(a, b, func(k int, x, y uint64) uint64 { return w.p.plain[k].m.Add(x, y) })
		case 1:
			what, err = "difference", w.ev.Sub(out.ct, a.ct, b.ct)
			out.want = w.combine(a, b, func(k int, x, y uint64) uint64 { return w.p.plain[k].m.Sub(x, y) })
		case 2, 3:
			what, err = "product", w.ev.MulRelin(out.ct, a.ct, b.ct)
			out.want = w.combine(a, b, func(k int, x, y uint64) uint64 { return w.p.plain[k].m.Mul(x, y) })
		case 4:
			what, err = "rotation", w.ev.Rotate(out.ct, a.ct, 64)
			half := w.p.N() / 2
			for _, row := range a.want {
				turned := make([]uint64, len(row))
				for i := range turned {
					turned[i] = row[i/half*half+(i+64)%half]
				}
				out.want = append(out.want, turned)
			}
		case 5:
			what, err = "switched", w.ev.ModSwitch(out.ct, a.ct)
			out.want = a.want
		}
		if err != nil {
			refused++
			continue
		}
		w.hold(t, fmt.Sprintf("step %d: %s", step, what), out)
		pool = append(pool, out)
	}
	if refused == 24 {
		t.Error("every operation was refused")
	}
	t.Logf("%d of 24 operations refused", refused)
}
