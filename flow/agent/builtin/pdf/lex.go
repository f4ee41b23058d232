package pdf

import (
	"bytes"
	"strconv"
)

// Objects are nil, bool, float64, text, name, array, dict, ref or *stream. An operator is a token only.
type (
	text     string // of PDF: bytes without an encoding
	name     string
	array    []any
	dict     map[name]any
	ref      struct{ num int }
	operator string
	stream   struct {
		dict dict
		raw  []byte
	}
)

// A lexer reads tokens and objects from data[pos:].
type lexer struct {
	data []byte
	pos  int
	refs bool // "1 0 R" is a reference; not in page programs
	left int  // elements of arrays and dictionaries that may still come; below 0 the data is taken for ended
}

// elementsPerDict is what an empty dictionary takes of memory, in elements.
const elementsPerDict = 4

// end is the token after the last.
const end = operator("")

func space(c byte) bool {
	return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '\f' || c == 0
}

func delimiter(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '[', ']', '{', '}', '/', '%':
		return true
	}
	return false
}

func (l *lexer) skip() {
	for l.pos < len(l.data) {
		switch c := l.data[l.pos]; {
		case space(c):
			l.pos++
		case c == '%':
			for l.pos < len(l.data) && l.data[l.pos] != '\n' && l.data[l.pos] != '\r' {
				l.pos++
			}
		default:
			return
		}
	}
}

// object returns the next object or operator; end after the last. Malformed pieces are passed over, as readers do.
func (l *lexer) object() any { return l.nested(0) }

func (l *lexer) nested(depth int) any {
	l.skip()
	if l.pos >= len(l.data) {
		return end
	}
	switch c := l.data[l.pos]; c {
	case '(':
		return l.literal()
	case '/':
		return l.name()
	case '[':
		l.pos++
		return l.array(depth)
	case '<':
		if l.pos+1 < len(l.data) && l.data[l.pos+1] == '<' {
			l.pos += 2
			return l.dict(depth)
		}
		return l.hex()
	case '>':
		if l.pos+1 < len(l.data) && l.data[l.pos+1] == '>' {
			l.pos += 2
			return operator(">>")
		}
		l.pos++
		return operator(">")
	case ']', '{', '}', ')':
		l.pos++
		return operator(string(c))
	}
	return l.word()
}

// word reads a number, reference or operator.
func (l *lexer) word() any {
	w := l.run()
	if c := w[0]; c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' {
		if v, ok := number(w); ok {
			if l.refs && v >= 0 && v == float64(int(v)) {
				if r, ok := l.reference(int(v)); ok {
					return r
				}
			}
			return v
		}
	}
	switch string(w) {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	}
	return operator(w)
}

func (l *lexer) run() []byte {
	start := l.pos
	for l.pos < len(l.data) && !space(l.data[l.pos]) && !delimiter(l.data[l.pos]) {
		l.pos++
	}
	return l.data[start:l.pos]
}

// reference reads "G R" after a number, or nothing.
func (l *lexer) reference(num int) (ref, bool) {
	back := l.pos
	l.skip()
	gen := l.run()
	if len(gen) > 0 && len(gen) <= 5 && digits(gen) {
		l.skip()
		if r := l.run(); len(r) == 1 && r[0] == 'R' {
			return ref{num}, true
		}
	}
	l.pos = back
	return ref{}, false
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// number reads what PDF allows: digits, a sign and a point; no exponents.
func number(w []byte) (float64, bool) {
	if len(w) > 32 || bytes.ContainsAny(w, "eExXpPnNiI_") {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(w), 64)
	return v, err == nil
}

func (l *lexer) array(depth int) any {
	a := array{}
	for {
		switch o := l.deeper(depth).(type) {
		case operator:
			if o == "]" || o == end {
				return a
			}
		default:
			if !l.take() {
				return a
			}
			a = append(a, o)
		}
	}
}

// take reports whether another element may come; after the last, nothing does.
func (l *lexer) take() bool {
	if l.left--; l.left < 0 {
		l.pos = len(l.data)
	}
	return l.left >= 0
}

func (l *lexer) dict(depth int) any {
	d := dict{}
	l.left -= elementsPerDict
	for {
		switch k := l.deeper(depth).(type) {
		case operator:
			if k == ">>" || k == end || k == "endobj" || k == "stream" {
				return d
			}
		case name:
			v := l.deeper(depth)
			if op, ok := v.(operator); ok {
				if op == ">>" || op == end {
					return d
				}
				continue
			}
			if !l.take() {
				return d
			}
			d[k] = v
		}
	}
}

// deeper stops at MaxNesting: what lies deeper is passed over token by token.
func (l *lexer) deeper(depth int) any {
	if depth < MaxNesting {
		return l.nested(depth + 1)
	}
	l.skip()
	if l.pos < len(l.data) && (l.data[l.pos] == '[' || bytes.HasPrefix(l.data[l.pos:], []byte("<<"))) {
		l.pos = len(l.data)
		return end
	}
	return l.nested(depth)
}

func (l *lexer) name() name {
	l.pos++
	raw := l.run()
	if bytes.IndexByte(raw, '#') < 0 {
		return name(raw)
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] == '#' && i+2 < len(raw) {
			hi, lo := unhex(raw[i+1]), unhex(raw[i+2])
			if hi >= 0 && lo >= 0 {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		out = append(out, raw[i])
	}
	return name(out)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func (l *lexer) hex() text {
	l.pos++
	var out []byte
	half := -1
	for l.pos < len(l.data) {
		c := l.data[l.pos]
		l.pos++
		if c == '>' {
			break
		}
		v := unhex(c)
		switch {
		case v < 0:
		case half < 0:
			half = v
		default:
			out = append(out, byte(half<<4|v))
			half = -1
		}
	}
	if half >= 0 {
		out = append(out, byte(half<<4))
	}
	return text(out)
}

// literal reads a string in parentheses (7.3.4.2).
func (l *lexer) literal() text {
	l.pos++
	var out []byte
	open := 1
	for l.pos < len(l.data) {
		c := l.data[l.pos]
		l.pos++
		switch c {
		case '(':
			open++
		case ')':
			if open--; open == 0 {
				return text(out)
			}
		case '\\':
			out = l.escape(out)
			continue
		case '\r':
			if l.pos < len(l.data) && l.data[l.pos] == '\n' {
				l.pos++
			}
			c = '\n'
		}
		out = append(out, c)
	}
	return text(out)
}

func (l *lexer) escape(out []byte) []byte {
	if l.pos >= len(l.data) {
		return out
	}
	c := l.data[l.pos]
	l.pos++
	switch c {
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case '\n':
		return out
	case '\r':
		if l.pos < len(l.data) && l.data[l.pos] == '\n' {
			l.pos++
		}
		return out
	}
	if c < '0' || c > '7' {
		return append(out, c)
	}
	v := int(c - '0')
	for i := 0; i < 2 && l.pos < len(l.data) && l.data[l.pos] >= '0' && l.data[l.pos] <= '7'; i++ {
		v = v<<3 | int(l.data[l.pos]-'0')
		l.pos++
	}
	return append(out, byte(v))
}
