package program

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"fednode/compute/he"
)

// A value is what a node came to: ciphertexts, or a number that is no secret.
type value struct {
	parts  []*he.Ciphertext
	rows   int    // 0 for totals
	number *Range // of one number
}

// An evaluation is one run of a plan.
type evaluation struct {
	pl       *Plan
	ev       *he.Evaluator
	columns  map[string]Column
	values   []value
	progress Progress
}

// Evaluate runs the program on tables, which between them have its columns, and returns the results.
func Evaluate(ctx context.Context, pl *Plan, keys *he.EvaluationKeys, key KeyID, tables []*Table, workers int, progress Progress) (*Table, error) {
	ev, err := he.NewEvaluator(pl.p, keys, workers)
	if err != nil {
		return nil, err
	}
	e := &evaluation{pl: pl, ev: ev, columns: map[string]Column{}, progress: progress}
	if err := e.gather(tables, key); err != nil {
		return nil, err
	}
	last := lastUses(pl.program)
	for i, n := range pl.program.nodes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := e.compute(n)
		if err != nil {
			return nil, err
		}
		e.values = append(e.values, v)
		for j := range e.values {
			if last[j] == i {
				e.values[j].parts = nil // let go of what nobody needs any more
			}
		}
		progress.tell(i+1, len(pl.program.nodes))
	}
	out := &Table{Plan: pl.id, Key: key, Results: true}
	for _, o := range pl.program.outputs {
		v := e.values[o.node.id]
		c := Column{Name: o.name, Rows: max(v.rows, 1), Total: o.node.total}
		for _, ct := range v.parts {
			small, err := e.shrink(ct)
			if err != nil {
				return nil, err
			}
			c.Parts = append(c.Parts, small)
		}
		out.Columns = append(out.Columns, c)
	}
	return out, nil
}

// Same says whether two tables hold the same ciphertexts under the same names. Evaluation has no randomness: who has the
// tables of columns can tell whether a table of results is what comes of them, or holds somebody's column as it is.
func Same(a, b *Table) bool {
	if a.Plan != b.Plan || a.Key != b.Key || a.Results != b.Results || len(a.Columns) != len(b.Columns) {
		return false
	}
	for i, x := range a.Columns {
		y := b.Columns[i]
		if x.Name != y.Name || x.Rows != y.Rows || x.Total != y.Total || !slices.EqualFunc(x.Parts, y.Parts, sameCiphertext) {
			return false
		}
	}
	return true
}

// sameCiphertext compares polynomials; bounds are floats, which differ in their last bits between processors.
func sameCiphertext(a, b *he.Ciphertext) bool {
	if a.Level() != b.Level() || a.Degree() != b.Degree() || a.Parameters().ID() != b.Parameters().ID() {
		return false
	}
	r := a.Parameters().Ring(a.Level())
	for part := range a.Parameters().Parts() {
		for i := range a.Degree() + 1 {
			if !r.Equal(a.Poly(part, i), b.Poly(part, i)) {
				return false
			}
		}
	}
	return true
}

// lastUses returns after which node the value of each is of no use; results are always.
func lastUses(p *Program) []int {
	last := make([]int, len(p.nodes))
	for i, n := range p.nodes {
		last[i] = i
		for _, x := range n.args {
			last[x.id] = i
		}
	}
	for _, o := range p.outputs {
		last[o.node.id] = -1
	}
	return last
}

func (e *evaluation) gather(tables []*Table, key KeyID) error {
	for _, t := range tables {
		if err := t.belongs(e.pl, key); err != nil {
			return err
		}
		if t.Results {
			return fmt.Errorf("%w: a table of results where one of columns was expected", he.ErrMismatch)
		}
		for _, c := range t.Columns {
			if _, twice := e.columns[c.Name]; twice {
				return fmt.Errorf("two tables have a column %s", c.Name)
			}
			if !slices.Contains(e.pl.program.columns, c.Name) || c.Total || c.Rows > e.pl.rows {
				return fmt.Errorf("%w: column %.80q of %d rows is not of the plan", he.ErrMismatch, c.Name, c.Rows)
			}
			for _, ct := range c.Parts {
				// The plan counts on fresh ciphertexts. Bounds are less where a dealer was excluded when the key was made.
				b := e.pl.holders.bounds()
				if ct.Noise() > e.pl.p.NoisePublicKey(b) || ct.Level() != e.pl.p.MaxLevel() || ct.Degree() != 1 ||
					ct.Bounds().Secret > b.Secret || ct.Bounds().Error > b.Error {
					return fmt.Errorf("%w: column %.80q is not freshly encrypted under the plan's public key", he.ErrMismatch, c.Name)
				}
			}
			e.columns[c.Name] = c
		}
	}
	var missing []string
	for _, name := range e.pl.program.columns {
		if _, ok := e.columns[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("no table has column %s", strings.Join(missing, ", "))
	}
	return nil
}

func (e *evaluation) compute(n *node) (value, error) {
	arg := func(i int) value { return e.values[n.args[i].id] }
	switch n.op {
	case opColumn:
		c := e.columns[n.column]
		return value{parts: c.Parts, rows: c.Rows}, nil
	case opConstant:
		return number(point(n.value)), nil
	case opLength:
		return number(point(int64(e.columns[n.column].Rows))), nil
	case opNeg:
		return e.neg(arg(0))
	case opSum:
		return e.sum(arg(0))
	}
	x, y := arg(0), arg(1)
	if x.rows != 0 && y.rows != 0 && x.rows != y.rows {
		return value{}, fmt.Errorf("columns %s have %d rows and columns %s have %d: row by row operations take as many",
			strings.Join(n.args[0].over, ", "), x.rows, strings.Join(n.args[1].over, ", "), y.rows)
	}
	switch {
	case n.plain:
		return number(arithmetic(n.op, *x.number, *y.number)), nil
	case n.op == opSub && x.number != nil: // c - y
		negated, err := e.neg(y)
		if err != nil {
			return value{}, err
		}
		return e.withNumber(opAdd, negated, *x.number)
	case x.number != nil:
		return e.withNumber(n.op, y, *x.number)
	case y.number != nil:
		return e.withNumber(n.op, x, *y.number)
	}
	return e.pairs(n.op, x, y)
}

func number(r Range) value { return value{number: &r} }

// arithmetic is on numbers that are no secret.
func arithmetic(o op, x, y Range) Range {
	switch o {
	case opAdd:
		return x.add(y)
	case opSub:
		return x.add(y.neg())
	}
	return x.mul(y)
}

func (e *evaluation) neg(x value) (value, error) {
	if x.number != nil {
		return number(x.number.neg()), nil
	}
	out := value{rows: x.rows}
	for _, ct := range x.parts {
		z := new(he.Ciphertext)
		if err := e.ev.Neg(z, ct); err != nil {
			return value{}, err
		}
		out.parts = append(out.parts, z)
	}
	return out, nil
}

// pairs operates part by part; a total goes with every part of a column.
func (e *evaluation) pairs(o op, x, y value) (value, error) {
	f := map[op]func(dst, a, b *he.Ciphertext) error{opAdd: e.ev.Add, opSub: e.ev.Sub, opMul: e.ev.MulRelin}[o]
	out := value{rows: max(x.rows, y.rows)}
	for k := range max(len(x.parts), len(y.parts)) {
		a, b := x.parts[0], y.parts[0]
		if x.rows != 0 {
			a = x.parts[k]
		}
		if y.rows != 0 {
			b = y.parts[k]
		}
		z := new(he.Ciphertext)
		if err := f(z, a, b); err != nil {
			return value{}, err
		}
		out.parts = append(out.parts, z)
	}
	return out, nil
}

// withNumber is x+c, x-c or x·c. Sums with a column reach as far as its rows do: the slots beyond stay zero.
func (e *evaluation) withNumber(o op, x value, r Range) (value, error) {
	if o == opSub {
		o, r = opAdd, r.neg()
	}
	c := toInt(r.min)
	out := value{rows: x.rows}
	for k, ct := range x.parts {
		z := new(he.Ciphertext)
		var err error
		if o == opMul {
			var pt *he.Plaintext
			if pt, err = e.pl.p.EncodeConstant(c); err == nil {
				err = e.ev.MulPlain(z, ct, he.NewFactor(pt))
			}
		} else {
			n := e.pl.p.N()
			rows := n
			if x.rows != 0 {
				rows = min(n, x.rows-k*n)
			}
			var pt *he.Plaintext
			if pt, err = e.pl.p.EncodeWide(slices.Repeat([]he.Int{c}, rows)); err == nil {
				err = e.ev.AddPlain(z, ct, pt)
			}
		}
		if err != nil {
			return value{}, err
		}
		out.parts = append(out.parts, z)
	}
	return out, nil
}

func (e *evaluation) sum(x value) (value, error) {
	all := x.parts[0].Clone()
	for _, ct := range x.parts[1:] {
		if err := e.ev.Add(all, all, ct); err != nil {
			return value{}, err
		}
	}
	if err := e.ev.InnerSum(all, all); err != nil {
		return value{}, err
	}
	return value{parts: []*he.Ciphertext{all}}, nil
}

// shrink takes a result to the lowest level at which it still decrypts.
func (e *evaluation) shrink(ct *he.Ciphertext) (*he.Ciphertext, error) {
	p := e.pl.p
	for ct.Level() > 1 {
		limit, err := e.pl.holders.capacity(p, ct.Level()-1)
		if err != nil || p.NoiseModSwitch(ct.Noise(), ct.Bounds(), ct.Level(), ct.Degree()) > limit {
			return ct, nil
		}
		lower := new(he.Ciphertext)
		if err := e.ev.ModSwitch(lower, ct); err != nil {
			return nil, err
		}
		ct = lower
	}
	return ct, nil
}
