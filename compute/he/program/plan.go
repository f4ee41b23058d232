package program

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"

	"fednode/compute/he"
	"fednode/compute/he/ring"
	"fednode/compute/threshold"
)

// MaxRows is the most rows of a plan: some hundred ciphertexts a column.
const MaxRows = 1 << 20

// maxDepth bounds products in a row; no set on offer takes more.
const maxDepth = 12

// ErrUnfit: no parameters on offer hold the program. The text says why and what would help.
var ErrUnfit = errors.New("no parameters fit the program")

// Holders say whose the secret key is: one organisation's, or that of several who decrypt together.
type Holders struct {
	Parties   int `json:"parties"`         // 1: the key is in one hand
	Threshold int `json:"threshold"`       // how many of them it takes to decrypt
	Quota     int `json:"quota,omitempty"` // how often they decrypt one ciphertext; of several
}

// Alone is a key in one hand.
var Alone = Holders{Parties: 1, Threshold: 1}

// Policy returns that of a collective key.
func (h Holders) Policy() threshold.Policy {
	return threshold.Policy{Threshold: h.Threshold, Quota: h.Quota}
}

// bounds returns what is known of the size of the key and of the public key's errors.
func (h Holders) bounds() he.KeyBounds {
	if h.Parties == 1 {
		return he.OwnBounds
	}
	return threshold.Bounds(h.Parties)
}

// evaluationBounds are those of evaluation keys, which several make with more noise.
func (h Holders) evaluationBounds(p *he.Parameters) he.KeyBounds {
	if h.Parties == 1 {
		return he.OwnBounds
	}
	return threshold.EvaluationBounds(p.N(), h.Parties, h.Parties)
}

// capacity returns the largest noise that can be decrypted: several flood it, and need room for that.
func (h Holders) capacity(p *he.Parameters, level int) (he.Noise, error) {
	if h.Parties == 1 {
		return p.Capacity(level), nil
	}
	return h.Policy().Capacity(p, level, h.Parties)
}

// A Result describes an output: one number, or a column of numbers.
type Result struct {
	Name  string `json:"name"`
	Total bool   `json:"total"` // one number
	Min   string `json:"min"`
	Max   string `json:"max"`
}

// A Plan is a program with everything that it takes to run it. It is immutable.
type Plan struct {
	program *Program
	bounds  map[string]Range
	rows    int
	holders Holders
	p       *he.Parameters
	ranges  []Range    // by node
	noise   []he.Noise // by node; of nodes that are not plain
	id      [32]byte
}

// New plans a program over columns of at most rows rows, within bounds. It returns ErrUnfit if no parameters hold it.
func New(p *Program, bounds map[string]Range, rows int, holders Holders) (*Plan, error) {
	pl, err := draft(p, bounds, rows, holders)
	if err != nil {
		return nil, err
	}
	need := pl.need()
	var reason error // of the largest set: what narrows it there would help everywhere
	for _, set := range he.Sets() {
		tried := false
		for parts := 1; parts <= 3; parts++ {
			params, err := smallest(set, parts, need)
			if err == nil {
				if err = pl.try(params); err == nil {
					return pl, nil
				}
			} else if tried {
				continue
			}
			if !tried {
				reason, tried = fmt.Errorf("%w: %w", ErrUnfit, err), params != nil
			}
		}
	}
	return nil, reason
}

// draft is a plan without parameters.
func draft(p *Program, bounds map[string]Range, rows int, holders Holders) (*Plan, error) {
	switch {
	case rows < 1 || rows > MaxRows:
		return nil, fmt.Errorf("%d rows; a plan has 1 to %d", rows, MaxRows)
	case holders.Parties == 1 && holders != Alone || holders.Parties < 1 || holders.Parties > threshold.MaxParties ||
		holders.Parties > 1 && (holders.Threshold < 2 || holders.Threshold > holders.Parties || holders.Quota < 1):
		return nil, fmt.Errorf("a key of which %d of %d holders decrypt a ciphertext at most %s: take 1 of 1, or at least 2 of up to %d, and a quota of 1 or more",
			holders.Threshold, holders.Parties, count(holders.Quota, "time"), threshold.MaxParties)
	}
	for _, name := range p.columns {
		if _, ok := bounds[name]; !ok {
			return nil, fmt.Errorf("column %s has no bounds%s", name, near(name, slices.Sorted(maps.Keys(bounds))))
		}
	}
	for name := range bounds {
		if !slices.Contains(p.columns, name) {
			return nil, fmt.Errorf("the program does not use column %s%s", name, near(name, p.columns))
		}
	}
	pl := &Plan{program: p, bounds: bounds, rows: rows, holders: holders}
	for _, n := range p.nodes {
		if n.depth > maxDepth {
			return nil, fmt.Errorf("%w: %d products in a row; the largest parameters take seven at most", ErrUnfit, n.depth)
		}
		r := pl.rangeOf(n)
		if r.bits() > 4096 {
			return nil, fmt.Errorf("%w: numbers of more than 4096 bits on the way", ErrUnfit)
		}
		pl.ranges = append(pl.ranges, r)
	}
	return pl, nil
}

func (pl *Plan) rangeOf(n *node) Range {
	arg := func(i int) Range { return pl.ranges[n.args[i].id] }
	switch n.op {
	case opColumn:
		return pl.bounds[n.column]
	case opConstant:
		return point(n.value)
	case opLength:
		return point(1).join(point(int64(pl.rows)))
	case opAdd:
		return arg(0).add(arg(1))
	case opSub:
		return arg(0).add(arg(1).neg())
	case opNeg:
		return arg(0).neg()
	case opMul:
		if n.args[0] == n.args[1] {
			return arg(0).square()
		}
		return arg(0).mul(arg(1))
	}
	return arg(0).total(pl.rows)
}

// need is the range that plaintexts must hold: of columns, of constants and of results. What is between may wrap, as
// sums and products are those of integers modulo the plaintext modulus.
func (pl *Plan) need() Range {
	r := point(0)
	for _, n := range pl.program.nodes {
		if n.op == opColumn || n.plain {
			r = r.join(pl.ranges[n.id])
		}
	}
	for _, o := range pl.program.outputs {
		r = r.join(pl.ranges[o.node.id])
	}
	return r
}

// smallest returns the parameters of a set with the least plaintext primes that hold a range: the smaller they are, the
// less noise products make.
func smallest(set he.Set, parts int, need Range) (*he.Parameters, error) {
	const largest = 33
	if b := need.bits(); b > parts*largest {
		return nil, fmt.Errorf("numbers of up to %d bits; the widest plaintext, of three primes, holds %d", b, 3*largest)
	}
	for b := max(17, (need.bits()+parts-1)/parts); b <= largest; b++ {
		primes := []uint64{he.T16}
		if parts > 1 || b > 17 {
			var err error
			if primes, err = ring.Primes(b, set.N, parts); err != nil {
				continue
			}
		}
		p, err := he.New(set, primes...)
		if err != nil {
			return nil, err
		}
		if need.fits(p) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("numbers of %d bits; %d primes of up to %d bits hold less", need.bits(), parts, largest)
}

// try sets the parameters, if the noise of every step leaves results that decrypt.
func (pl *Plan) try(p *he.Parameters) error {
	if !pl.need().fits(p) {
		return fmt.Errorf("results beyond ±%s, which is what plaintexts of %s hold", p.Range(), p)
	}
	noise := make([]he.Noise, len(pl.program.nodes))
	capacity := p.Capacity(p.MaxLevel())
	for _, n := range pl.program.nodes {
		if n.plain {
			continue
		}
		v := pl.noiseOf(p, n, noise)
		if !(v <= capacity) {
			return fmt.Errorf("noise: after %s in a row it could have 2^%.0f at %s with plaintext primes of %d bits, where up to 2^%.0f decrypts correctly; fewer products, narrower bounds or fewer rows would help",
				count(n.depth, "product"), v.Bits(), p.Set(), bits.Len64(p.PlainPrimes()[0]), capacity.Bits())
		}
		noise[n.id] = v
	}
	limit, err := pl.holders.capacity(p, p.MaxLevel())
	if err != nil {
		return err
	}
	for _, o := range pl.program.outputs {
		if v := noise[o.node.id]; v > limit {
			return fmt.Errorf("noise: that of %s could have 2^%.0f at %s, and of that up to 2^%.0f is decrypted by several together, who flood it; fewer products, narrower bounds or fewer rows would help",
				o.name, v.Bits(), p.Set(), limit.Bits())
		}
	}
	pl.p, pl.noise = p, noise
	pl.id = sha256.Sum256(append([]byte("fednode/he/plan/v1\n"), pl.identity()...))
	return nil
}

func (pl *Plan) noiseOf(p *he.Parameters, n *node, noise []he.Noise) he.Noise {
	level, bounds := p.MaxLevel(), pl.holders.evaluationBounds(p)
	var x, y *node
	if len(n.args) > 0 {
		x = n.args[0]
	}
	if len(n.args) > 1 {
		if y = n.args[1]; x.plain {
			x, y = y, x
		}
	}
	switch n.op {
	case opColumn:
		return p.NoisePublicKey(pl.holders.bounds())
	case opNeg:
		return noise[x.id]
	case opAdd, opSub:
		if y.plain {
			return p.NoiseAddPlain(noise[x.id])
		}
		return p.NoiseAdd(noise[x.id], noise[y.id])
	case opMul:
		if y.plain {
			return p.NoiseMulPlain(noise[x.id], pl.norm(p, y))
		}
		return p.NoiseMul(noise[x.id], noise[y.id], bounds, level) + p.NoiseSwitch(bounds, level)
	}
	v := noise[x.id] * he.Noise((pl.rows+p.N()-1)/p.N())
	for range p.SumElements() {
		v = p.NoiseAdd(v, v+p.NoiseSwitch(bounds, level))
	}
	return v
}

// norm bounds the norm of a constant, by which a product with it multiplies noise: it is taken modulo each prime.
func (pl *Plan) norm(p *he.Parameters, n *node) float64 {
	return min(pl.ranges[n.id].float(), float64(slices.Max(p.PlainPrimes())/2))
}

// Parameters returns the lattice and the plaintext primes.
func (pl *Plan) Parameters() *he.Parameters { return pl.p }

// Program returns what is planned.
func (pl *Plan) Program() *Program { return pl.program }

// Rows returns the most rows that a column may have.
func (pl *Plan) Rows() int { return pl.rows }

// Holders returns whose the key is.
func (pl *Plan) Holders() Holders { return pl.holders }

// ID is the hash of what the plan says, in every table.
func (pl *Plan) ID() [32]byte { return pl.id }

// Bounds returns the bounds of a column of the program.
func (pl *Plan) Bounds(column string) Range { return pl.bounds[column] }

// Depth returns the most products in a row.
func (pl *Plan) Depth() int {
	depth := 0
	for _, n := range pl.program.nodes {
		depth = max(depth, n.depth)
	}
	return depth
}

// Noise returns the worst-case bound of the noisiest result and what would still decrypt, in bits.
func (pl *Plan) Noise() (bound, capacity float64) {
	for _, o := range pl.program.outputs {
		bound = max(bound, pl.noise[o.node.id].Bits())
	}
	limit, err := pl.holders.capacity(pl.p, pl.p.MaxLevel())
	if err != nil {
		panic(err) // try has asked before
	}
	return bound, limit.Bits()
}

// Results describes the outputs in order.
func (pl *Plan) Results() []Result {
	var out []Result
	for _, o := range pl.program.outputs {
		lo, hi := pl.ranges[o.node.id].Bounds()
		out = append(out, Result{o.name, o.node.total, lo, hi})
	}
	return out
}

// Elements returns the Galois elements that evaluation takes keys for.
func (pl *Plan) Elements() []uint64 {
	for _, n := range pl.program.nodes {
		if n.op == opSum {
			return pl.p.SumElements()
		}
	}
	return nil
}

// The file of a plan. Identity is what its hash is of; the rest follows, and is for people.
type (
	planColumn struct {
		Name string `json:"name"`
		Min  string `json:"min"`
		Max  string `json:"max"`
	}
	planIdentity struct {
		Version int          `json:"version"`
		Program string       `json:"program"`
		Columns []planColumn `json:"columns"`
		Rows    int          `json:"rows"`
		Key     Holders      `json:"key"`
		Set     string       `json:"parameters"`
		Plain   []uint64     `json:"plaintext_primes"`
	}
	planFile struct {
		planIdentity
		Depth    int      `json:"depth"`
		Noise    float64  `json:"noise_bits"`
		Capacity float64  `json:"capacity_bits"`
		Results  []Result `json:"results"`
	}
)

// planVersion is the version of the format.
const planVersion = 1

func (pl *Plan) record() planIdentity {
	out := planIdentity{Version: planVersion, Program: pl.program.text, Rows: pl.rows, Key: pl.holders,
		Set: pl.p.Set().String(), Plain: pl.p.PlainPrimes()}
	for _, name := range pl.program.columns {
		lo, hi := pl.bounds[name].Bounds()
		out.Columns = append(out.Columns, planColumn{name, lo, hi})
	}
	return out
}

func (pl *Plan) identity() []byte {
	b, err := json.Marshal(pl.record())
	if err != nil {
		panic(err) // strings and integers
	}
	return b
}

// Marshal returns the plan as a file.
func (pl *Plan) Marshal() []byte {
	f := planFile{planIdentity: pl.record(), Depth: pl.Depth(), Results: pl.Results()}
	f.Noise, f.Capacity = pl.Noise()
	f.Noise, f.Capacity = math.Ceil(f.Noise), math.Floor(f.Capacity)
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(f); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// maxPlan bounds the file of a plan.
const maxPlan = 1 << 20

// ParsePlan reads a plan and plans it anew: what it says of results must be what follows from the rest, and its
// parameters must hold it.
func ParsePlan(file []byte) (*Plan, error) {
	if len(file) > maxPlan {
		return nil, fmt.Errorf("a plan of %d bytes; at most %d are read", len(file), maxPlan)
	}
	var f planFile
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("not a plan: %w", err)
	}
	if f.Version != planVersion {
		return nil, fmt.Errorf("plan of format version %d; this build reads %d", f.Version, planVersion)
	}
	p, err := Parse(f.Program)
	if err != nil {
		return nil, err
	}
	bounds := make(map[string]Range, len(f.Columns))
	for _, c := range f.Columns {
		if bounds[c.Name], err = ParseRange(c.Min, c.Max); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	pl, err := draft(p, bounds, f.Rows, f.Key)
	if err != nil {
		return nil, err
	}
	set, err := he.ParseSet(f.Set)
	if err != nil {
		return nil, err
	}
	params, err := he.New(set, f.Plain...)
	if err != nil {
		return nil, err
	}
	if params.Slots() == 0 {
		return nil, fmt.Errorf("%w: plaintext primes %v", he.ErrSlots, f.Plain)
	}
	if err := pl.try(params); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	if !slices.Equal(pl.Results(), f.Results) || pl.Depth() != f.Depth || len(bounds) != len(f.Columns) {
		return nil, fmt.Errorf("the plan was altered: its results are not those of its program and columns")
	}
	return pl, nil
}

// Describe writes a plan for people.
func (pl *Plan) Describe() string {
	var b strings.Builder
	bound, capacity := pl.Noise()
	fmt.Fprintf(&b, "plan %s\n", hex.EncodeToString(pl.id[:6]))
	for _, o := range pl.program.outputs {
		lo, hi := pl.ranges[o.node.id].Bounds()
		kind := "a column"
		if o.node.total {
			kind = "one number"
		}
		fmt.Fprintf(&b, "  %s = %s\n    %s from %s to %s\n", o.name, o.text, kind, lo, hi)
	}
	fmt.Fprintf(&b, "parameters  BFV %s, plaintext primes %v (±%s)\n", pl.p.Set(), pl.p.PlainPrimes(), pl.p.Range())
	fmt.Fprintf(&b, "depth       %s\n", count(pl.Depth(), "product"))
	fmt.Fprintf(&b, "noise       at most 2^%.0f of the 2^%.0f that decrypt\n", math.Ceil(bound), math.Floor(capacity))
	fmt.Fprintf(&b, "rows        at most %d, %s a column\n", pl.rows, count((pl.rows+pl.p.N()-1)/pl.p.N(), "ciphertext"))
	if pl.holders.Parties > 1 {
		fmt.Fprintf(&b, "key         held by %d organisations, any %d of which decrypt a ciphertext, %s at most\n",
			pl.holders.Parties, pl.holders.Threshold, count(pl.holders.Quota, "time"))
	}
	return b.String()
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// near suggests the name that was perhaps meant.
func near(name string, known []string) string {
	best, distance := "", len(name)/3+2
	for _, k := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %s?", best)
	case len(known) == 0:
		return ""
	case len(known) > 20:
		return fmt.Sprintf("; there are %d others", len(known))
	}
	return "; there are " + strings.Join(known, ", ")
}

// edits is the Levenshtein distance of two names.
func edits(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 || len(y) > 64 {
		return 64
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}
