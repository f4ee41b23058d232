package program

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
)

// Limits of programs: they come with plans, from others.
const (
	maxText    = 64 << 10
	maxOutputs = 64
	maxNodes   = 4096
	maxPower   = 64
)

type op int

const (
	opColumn op = iota
	opConstant
	opLength // the number of rows of a column
	opAdd
	opSub
	opNeg
	opMul
	opSum
)

// A node is a step of a program. Equal steps are one node.
type node struct {
	id     int
	op     op
	column string // of opColumn and opLength
	value  int64  // of opConstant
	args   []*node

	plain bool     // known without a key: constants, lengths and what is made of them
	total bool     // the same in every slot
	zero  bool     // zero in the slots beyond the last row
	depth int      // products in a row
	over  []string // the columns whose rows it has
}

// An output is a named result.
type output struct {
	name, text string
	node       *node
}

// A Program is a list of named expressions.
type Program struct {
	text    string
	outputs []output
	nodes   []*node // each after what it is made of
	columns []string
}

// String returns the text that p was parsed from.
func (p *Program) String() string { return p.text }

// Columns returns the names of the columns that p reads, sorted.
func (p *Program) Columns() []string { return p.columns }

var assignmentRE = regexp.MustCompile(`^([\pL_][\pL\pN_]*)\s*=([^=].*)$`)

// Parse reads a program: on each line NAME = EXPRESSION, or one expression that is then called result. Empty lines and
// lines that begin with # are skipped; an expression may use the names of earlier lines. Errors say where and what.
func Parse(text string) (*Program, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("the program has %d bytes; at most %d are read", len(text), maxText)
	}
	if err := printable(strings.NewReplacer("\n", "", "\t", "", "\r", "").Replace(text)); err != nil {
		return nil, fmt.Errorf("the program has %w", err)
	}
	b := &builder{p: &Program{text: text}, known: map[string]*node{}, names: map[string]*node{}}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, body := "result", line
		if m := assignmentRE.FindStringSubmatch(line); m != nil {
			name, body = m[1], strings.TrimSpace(m[2])
		}
		if err := b.output(name, body); err != nil {
			return nil, fmt.Errorf("program, line %d: %w", i+1, err)
		}
	}
	if len(b.p.outputs) == 0 {
		return nil, fmt.Errorf("the program is empty: write an expression such as sum(price * quantity)")
	}
	for _, n := range b.p.nodes {
		if n.op == opColumn {
			b.p.columns = append(b.p.columns, n.column)
		}
	}
	slices.Sort(b.p.columns)
	return b.p, nil
}

// printable refuses text that shows as something else than it is.
func printable(text string) error {
	for _, r := range text {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError {
			return fmt.Errorf("a character that does not show, %U", r)
		}
	}
	return nil
}

// A builder turns the syntax tree into nodes.
type builder struct {
	p     *Program
	known map[string]*node // by what they are
	names map[string]*node // earlier outputs
	sums  map[*node]*node  // what sum made of nodes, in the sum at hand
}

func (b *builder) output(name, body string) error {
	if len(b.p.outputs) == maxOutputs {
		return fmt.Errorf("more than %d results", maxOutputs)
	}
	if _, twice := b.names[name]; twice {
		return fmt.Errorf("%s is defined twice", name)
	}
	tree, err := parser.Parse(body)
	if err != nil {
		return err
	}
	n, err := b.build(tree.Node, b.names)
	if err != nil {
		return err
	}
	if n.plain {
		return fmt.Errorf("%s uses no column: nothing there is to be encrypted", name)
	}
	for _, x := range b.p.nodes {
		if x.op == opColumn && x.column == name {
			return fmt.Errorf("%s is the name of a result and of a column; take another for the result", name)
		}
	}
	b.names[name] = n
	b.p.outputs = append(b.p.outputs, output{name, body, n})
	return nil
}

// at wraps what is wrong with where.
func at(n ast.Node, format string, a ...any) error {
	return fmt.Errorf("character %d: %w", n.Location().From+1, fmt.Errorf(format, a...))
}

const supported = "use + - * ** with whole constants, sum(…), len(column) and let"

func (b *builder) build(n ast.Node, names map[string]*node) (*node, error) {
	if len(b.p.nodes) > maxNodes {
		return nil, fmt.Errorf("more than %d steps", maxNodes)
	}
	switch n := n.(type) {
	case *ast.IntegerNode:
		return b.constant(int64(n.Value)), nil
	case *ast.FloatNode:
		return nil, at(n, "%v is not a whole number; scale columns and constants, say to cents", n.Value)
	case *ast.IdentifierNode:
		if x, ok := names[n.Value]; ok {
			return x, nil
		}
		return b.column(n.Value), nil
	case *ast.MemberNode:
		if env, ok := n.Node.(*ast.IdentifierNode); ok && env.Value == "$env" {
			if name, ok := n.Property.(*ast.StringNode); ok {
				return b.column(name.Value), nil
			}
		}
	case *ast.UnaryNode:
		x, err := b.build(n.Node, names)
		switch {
		case err != nil:
			return nil, err
		case n.Operator == "+":
			return x, nil
		case n.Operator == "-":
			return b.neg(x), nil
		}
		return nil, at(n, "%s is no operation on encrypted numbers: %s", n.Operator, supported)
	case *ast.BinaryNode:
		return b.binary(n, names)
	case *ast.BuiltinNode:
		return b.call(n, n.Name, n.Arguments, names)
	case *ast.CallNode:
		if f, ok := n.Callee.(*ast.IdentifierNode); ok {
			return b.call(n, f.Value, n.Arguments, names)
		}
	case *ast.VariableDeclaratorNode:
		x, err := b.build(n.Value, names)
		if err != nil {
			return nil, err
		}
		inner := make(map[string]*node, len(names)+1)
		for k, v := range names {
			inner[k] = v
		}
		inner[n.Name] = x
		return b.build(n.Expr, inner)
	}
	return nil, at(n, "%s is nothing that can be computed on encrypted numbers: %s", n, supported)
}

func (b *builder) binary(n *ast.BinaryNode, names map[string]*node) (*node, error) {
	x, err := b.build(n.Left, names)
	if err != nil {
		return nil, err
	}
	switch n.Operator {
	case "+", "-", "*":
	case "**", "^":
		e, ok := n.Right.(*ast.IntegerNode)
		if !ok || e.Value < 1 || e.Value > maxPower {
			return nil, at(n.Right, "%s is no whole constant from 1 to %d, as powers take", n.Right, maxPower)
		}
		return b.product(slices.Repeat([]*node{x}, e.Value)), nil
	case "/", "%":
		return nil, at(n, "encrypted numbers can't be divided; decrypt dividend and divisor, and divide those")
	default:
		return nil, at(n, "%s is no operation on encrypted numbers: %s", n.Operator, supported)
	}
	y, err := b.build(n.Right, names)
	if err != nil {
		return nil, err
	}
	switch n.Operator {
	case "+":
		return b.add(opAdd, x, y), nil
	case "-":
		return b.add(opSub, x, y), nil
	}
	list := factors(nil, x)
	if list = factors(list, y); len(list) > maxPower {
		list = []*node{x, y}
	}
	return b.product(list), nil
}

func (b *builder) call(n ast.Node, name string, args []ast.Node, names map[string]*node) (*node, error) {
	if name != "sum" && name != "len" {
		return nil, at(n, "%s() can't be computed on encrypted numbers: %s", name, supported)
	}
	if len(args) != 1 {
		return nil, at(n, "%s() takes one column", name)
	}
	x, err := b.build(args[0], names)
	if err != nil {
		return nil, err
	}
	if len(x.over) == 0 {
		return nil, at(n, "%s is one number, and %s() takes a column", args[0], name)
	}
	if name == "len" {
		return b.node(node{op: opLength, column: x.over[0], plain: true, total: true}), nil
	}
	b.sums = map[*node]*node{}
	out, err := b.sum(x, x.over[0])
	if err != nil {
		return nil, at(n, "%w", err)
	}
	return out, nil
}

// node returns the one node that is what n says.
func (b *builder) node(n node) *node {
	key := fmt.Sprint(n.op, " ", n.value, " ", len(n.column), n.column)
	for _, x := range n.args {
		key += fmt.Sprint(" ", x.id)
	}
	if old, ok := b.known[key]; ok {
		return old
	}
	n.id = len(b.p.nodes)
	b.p.nodes = append(b.p.nodes, &n)
	b.known[key] = &n
	return &n
}

func (b *builder) constant(v int64) *node {
	return b.node(node{op: opConstant, value: v, plain: true, total: true})
}

func (b *builder) column(name string) *node {
	return b.node(node{op: opColumn, column: name, zero: true, over: []string{name}})
}

func (b *builder) neg(x *node) *node {
	return b.node(node{op: opNeg, args: []*node{x}, plain: x.plain, total: x.total, zero: x.zero, depth: x.depth, over: x.over})
}

// add is x+y or x-y. A constant is added to the rows that a column has, and so leaves zeros where they are; a total is
// in every slot.
func (b *builder) add(o op, x, y *node) *node {
	zero := func(n *node) bool { return n.zero || n.plain }
	return b.node(node{op: o, args: []*node{x, y}, plain: x.plain && y.plain, total: x.total && y.total,
		zero: zero(x) && zero(y) && !(x.total && y.total), depth: max(x.depth, y.depth), over: merge(x.over, y.over)})
}

func merge(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// factors appends what n is a product of, for product to balance it anew; no further where there are too many.
func factors(list []*node, n *node) []*node {
	if n.op != opMul || len(list) > maxPower {
		return append(list, n)
	}
	return factors(factors(list, n.args[0]), n.args[1])
}

// product multiplies, the two least deep first, so that a chain of products is as flat as it can be; constants by
// themselves.
func (b *builder) product(list []*node) *node {
	for len(list) > 1 {
		slices.SortStableFunc(list, func(x, y *node) int {
			if x.plain != y.plain {
				if x.plain {
					return -1
				}
				return 1
			}
			if x.depth != y.depth {
				return x.depth - y.depth
			}
			return x.id - y.id
		})
		i := 0
		if list[0].plain && !list[1].plain && len(list) > 2 {
			i = 1 // the one constant comes last
		}
		z := b.mul(list[i], list[i+1])
		list = append(slices.Delete(slices.Clone(list), i, i+2), z)
	}
	return list[0]
}

func (b *builder) mul(x, y *node) *node {
	depth := max(x.depth, y.depth)
	if !x.plain && !y.plain {
		depth++
	}
	return b.node(node{op: opMul, args: []*node{x, y}, plain: x.plain && y.plain, total: x.total && y.total,
		zero: x.zero || y.zero, depth: depth, over: merge(x.over, y.over)})
}

// sum adds the rows of x, which must be zero beyond the last. A total that was added to a column isn't: it is summed by
// itself, as often as there are rows.
func (b *builder) sum(x *node, column string) (*node, error) {
	if done, ok := b.sums[x]; ok {
		return done, nil
	}
	out, err := b.distribute(x, column)
	if err == nil {
		b.sums[x] = out
	}
	return out, err
}

func (b *builder) distribute(x *node, column string) (*node, error) {
	var parts []*node // the sums of what x is made of
	for _, y := range x.args {
		if len(x.over) == 0 || x.zero || x.op == opMul && y.total {
			parts = append(parts, y)
			continue
		}
		z, err := b.sum(y, column)
		if err != nil {
			return nil, err
		}
		parts = append(parts, z)
	}
	switch {
	case len(x.over) == 0:
		return b.product([]*node{b.node(node{op: opLength, column: column, plain: true, total: true}), x}), nil
	case x.zero:
		return b.node(node{op: opSum, args: []*node{x}, total: true, depth: x.depth}), nil
	case x.op == opNeg:
		return b.neg(parts[0]), nil
	case x.op == opAdd || x.op == opSub:
		return b.add(x.op, parts[0], parts[1]), nil
	case x.op == opMul && (x.args[0].total || x.args[1].total):
		return b.product(parts), nil
	}
	return nil, fmt.Errorf("sum() over a product of columns to which totals were added: multiply it out, so that each product has a column of its own")
}
