package pdf

import (
	"bytes"
	"math"
	"strings"
)

// A matrix is the first two columns of a transformation (8.3.3): x' = a·x + c·y + e, y' = b·x + d·y + f.
type matrix struct{ a, b, c, d, e, f float64 }

func identity() matrix { return matrix{a: 1, d: 1} }

// then returns the transformation m followed by n.
func (m matrix) then(n matrix) matrix {
	return matrix{
		m.a*n.a + m.b*n.c, m.a*n.b + m.b*n.d,
		m.c*n.a + m.d*n.c, m.c*n.b + m.d*n.d,
		m.e*n.a + m.f*n.c + n.e, m.e*n.b + m.f*n.d + n.f,
	}
}

// state is the part of the graphics state that text depends on (8.4, 9.3).
type state struct {
	ctm                        matrix
	font                       *font
	size, charSpace, wordSpace float64
	scale, leading             float64
}

// A drawing runs page programs and writes the text they show.
type drawing struct {
	file    *file
	fonts   map[int]*font
	out     strings.Builder
	maxText int

	fallback  *font // for text without a font
	resources dict
	state     state
	saved     []state
	text, row matrix // text and line matrices

	shown          bool    // something stands on this page
	endX, endY     float64 // where the last glyph ended, in page space
	dirX, dirY, em float64 // its direction and size there
	forms          int     // depth of forms
}

func (d *drawing) page(p page) error {
	d.resources, d.shown = p.resources, false
	d.state, d.saved = state{ctm: identity(), scale: 1}, nil
	var program bytes.Buffer
	for _, o := range d.file.list(p.dict["Contents"]) {
		if err := d.file.pay(1); err != nil {
			return err
		}
		s, ok := d.file.get(o).(*stream)
		if !ok {
			continue
		}
		data, err := d.file.decode(s)
		if err != nil {
			return err
		}
		program.Write(data)
		program.WriteByte('\n')
	}
	return d.run(program.Bytes())
}

// run executes a page's or form's program. Operands that don't fit are passed over, as readers do.
func (d *drawing) run(program []byte) error {
	l := &lexer{data: program, left: maxOperands}
	var args []any
	for {
		o := l.object()
		if l.left < 0 {
			return tooLarge("more than %d operands", maxOperands)
		}
		op, ok := o.(operator)
		if !ok {
			if len(args) < 64 {
				args = append(args, o)
			}
			continue
		}
		if op == end {
			return nil
		}
		if err := d.file.pay(1); err != nil {
			return err
		}
		if d.file.ops%4096 == 0 && d.file.ctx.Err() != nil {
			return d.file.ctx.Err()
		}
		if op == "ID" {
			skipImage(l)
		} else if err := d.operate(op, args); err != nil {
			return err
		}
		if d.out.Len() > d.maxText {
			return tooLarge("more than %d bytes of text", d.maxText)
		}
		args, l.left = args[:0], maxOperands
	}
}

// skipImage passes over the bytes of an inline image, up to an EI that stands alone.
func skipImage(l *lexer) {
	for l.pos < len(l.data) {
		i := bytes.Index(l.data[l.pos:], []byte("EI"))
		if i < 0 {
			l.pos = len(l.data)
			return
		}
		at := l.pos + i
		l.pos = at + 2
		if at > 0 && space(l.data[at-1]) && (l.pos == len(l.data) || space(l.data[l.pos])) {
			return
		}
	}
}

func (d *drawing) operate(op operator, args []any) error {
	n := func(i int) float64 {
		if i < len(args) {
			if v, ok := args[i].(float64); ok {
				return v
			}
		}
		return 0
	}
	s := &d.state
	switch op {
	case "q":
		if len(d.saved) < 4096 {
			d.saved = append(d.saved, *s)
		}
	case "Q":
		if k := len(d.saved); k > 0 {
			d.state, d.saved = d.saved[k-1], d.saved[:k-1]
		}
	case "cm":
		s.ctm = matrix{n(0), n(1), n(2), n(3), n(4), n(5)}.then(s.ctm)
	case "BT":
		d.text, d.row = identity(), identity()
	case "Tf":
		if len(args) >= 2 {
			key, _ := args[0].(name)
			s.font, s.size = d.font(d.file.dict(d.resources["Font"])[key]), n(1)
		}
	case "Tc":
		s.charSpace = n(0)
	case "Tw":
		s.wordSpace = n(0)
	case "Tz":
		s.scale = n(0) / 100
	case "TL":
		s.leading = n(0)
	case "Tm":
		d.row = matrix{n(0), n(1), n(2), n(3), n(4), n(5)}
		d.text = d.row
	case "Td":
		d.move(n(0), n(1))
	case "TD":
		s.leading = -n(1)
		d.move(n(0), n(1))
	case "T*":
		d.move(0, -s.leading)
	case "Tj", "'", "\"", "TJ":
		d.showing(op, args)
	case "Do":
		if len(args) > 0 {
			key, _ := args[0].(name)
			return d.form(d.file.dict(d.resources["XObject"])[key])
		}
	}
	return nil
}

func (d *drawing) move(x, y float64) {
	d.row = matrix{1, 0, 0, 1, x, y}.then(d.row)
	d.text = d.row
}

func (d *drawing) showing(op operator, args []any) {
	if op == "'" || op == "\"" {
		d.move(0, -d.state.leading)
	}
	if len(args) == 0 {
		return
	}
	switch o := args[len(args)-1].(type) {
	case text:
		d.show(o)
	case array:
		for _, piece := range o {
			switch p := piece.(type) {
			case text:
				d.show(p)
			case float64:
				d.advance(-p / 1000 * d.state.size * d.state.scale)
			}
		}
	}
}

func (d *drawing) advance(x float64) {
	d.text = matrix{1, 0, 0, 1, x, 0}.then(d.text)
}

// show writes a string, with a space or line end before it where the page shows a gap.
func (d *drawing) show(t text) {
	s := &d.state
	if s.font == nil {
		if d.fallback == nil {
			d.fallback = d.file.font(dict{})
		}
		s.font = d.fallback
	}
	s.font.codes(t, func(code int, meaning string, width float64) {
		if d.out.Len() > d.maxText { // one string may say more than all that is allowed
			return
		}
		at := d.text.then(s.ctm)
		d.gap(at)
		d.out.WriteString(meaning)
		step := width/1000*s.size + s.charSpace
		if code == ' ' && !s.font.wide {
			step += s.wordSpace
		}
		d.advance(step * s.scale)
		after := d.text.then(s.ctm)
		d.shown = true
		d.endX, d.endY = after.e, after.f
		// The em in page space is the length of the baseline's unit vector times the font size.
		length := math.Hypot(at.a, at.b)
		d.em = length * math.Abs(s.size)
		if d.dirX, d.dirY = 1, 0; length > 0 {
			d.dirX, d.dirY = at.a/length, at.b/length
		}
		// A spacing that was added after the glyph is not part of it: it may be all that parts two words.
		d.endX -= d.dirX * s.charSpace * s.scale * length
		d.endY -= d.dirY * s.charSpace * s.scale * length
	})
}

// gap compares where the next glyph stands with where the last one ended, along the last baseline and across it. A
// quarter em is about a space; half a line's height is another line.
func (d *drawing) gap(at matrix) {
	if !d.shown || d.em == 0 {
		return
	}
	dx, dy := at.e-d.endX, at.f-d.endY
	along, across := dx*d.dirX+dy*d.dirY, dy*d.dirX-dx*d.dirY
	switch {
	case math.Abs(across) > d.em*0.45:
		d.out.WriteByte('\n')
		if math.Abs(across) > d.em*2 {
			d.out.WriteByte('\n')
		}
	case along > d.em*3:
		d.out.WriteByte('\t')
	case along > d.em*0.17, along < -d.em:
		d.out.WriteByte(' ')
	}
}

// form draws a form XObject (8.10) in the state of now, with its own resources.
func (d *drawing) form(o any) error {
	s, ok := d.file.get(o).(*stream)
	if !ok || d.file.name(s.dict["Subtype"]) != "Form" {
		return nil
	}
	if d.forms >= MaxForms {
		return tooLarge("forms nested deeper than %d", MaxForms)
	}
	data, err := d.file.decode(s)
	if err != nil {
		return err
	}
	state, saved, resources, text, row := d.state, d.saved, d.resources, d.text, d.row
	if own := d.file.dict(s.dict["Resources"]); own != nil {
		d.resources = own
	}
	if m := d.file.array(s.dict["Matrix"]); len(m) == 6 {
		v := [6]float64{}
		for i := range v {
			v[i] = d.file.number(m[i])
		}
		d.state.ctm = matrix{v[0], v[1], v[2], v[3], v[4], v[5]}.then(d.state.ctm)
	}
	d.saved = nil
	d.forms++
	err = d.run(data)
	d.forms--
	d.state, d.saved, d.resources, d.text, d.row = state, saved, resources, text, row
	return err
}
