// Package jcs is the JSON Canonicalization Scheme, RFC 8785, with the stricter reading that signatures need.
//
// Its nouns: a value is exactly one JSON value; its canonical form is the one byte sequence that stands for it. It
// promises that two parties that hold the same value hash the same bytes, and that what has no such form is refused:
// duplicate keys, invalid UTF-8, lone surrogates, numbers that binary64 cannot carry exactly as written, nesting beyond
// MaxDepth, and anything after the value.
package jcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is the deepest nesting of arrays and objects that is accepted.
const MaxDepth = 64

// Transform returns the RFC 8785 form of the one JSON value in.
func Transform(in []byte) ([]byte, error) {
	p := parser{in: in, out: make([]byte, 0, len(in))}
	return p.transform()
}

// Marshal returns the RFC 8785 form of v's JSON. Text in v that is not UTF-8 is refused.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("jcs: %w", err)
	}
	p := parser{in: b.Bytes(), encoded: true}
	return p.transform()
}

// Unmarshal decodes in into v strictly: what Transform refuses and what v has no field for is refused.
func Unmarshal(in []byte, v any) error {
	canonical, err := Transform(in)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(canonical))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("jcs: %w", err)
	}
	return nil
}

// UnmarshalCanonical decodes in into v, if in is exactly what Marshal makes of v then. So it has one reading: canonical
// form, no name that v has no field for, none in another case, no null or empty value for a field that leaves it out.
func UnmarshalCanonical(in []byte, v any) error {
	if err := Unmarshal(in, v); err != nil {
		return err
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, in) {
		return errForm
	}
	return nil
}

type parser struct {
	in      []byte
	pos     int
	out     []byte
	depth   int
	encoded bool // in was written by encoding/json, which writes \ufffd, escaped, only for what is not UTF-8
}

func (p *parser) transform() ([]byte, error) {
	if err := p.document(); err != nil {
		return nil, fmt.Errorf("jcs: byte %d: %w", p.pos, err)
	}
	return p.out, nil
}

var (
	errEnd   = errors.New("the value is cut short")
	errTrail = errors.New("there is something after the value")
	errForm  = errors.New("jcs: not in the one form that it has")
)

func (p *parser) document() error {
	p.space()
	if err := p.value(); err != nil {
		return err
	}
	p.space()
	if p.pos != len(p.in) {
		return errTrail
	}
	return nil
}

func (p *parser) space() {
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) value() error {
	if p.pos >= len(p.in) {
		return errEnd
	}
	switch c := p.in[p.pos]; {
	case c == '{':
		return p.nested(p.object)
	case c == '[':
		return p.nested(p.array)
	case c == '"':
		s, err := p.str()
		if err != nil {
			return err
		}
		p.out = appendString(p.out, s)
		return nil
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for _, w := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(p.in[p.pos:], []byte(w)) {
			p.pos += len(w)
			p.out = append(p.out, w...)
			return nil
		}
	}
	return fmt.Errorf("%q begins no value", p.in[p.pos])
}

func (p *parser) nested(fn func() error) error {
	if p.depth++; p.depth > MaxDepth {
		return fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	err := fn()
	p.depth--
	return err
}

func (p *parser) array() error {
	p.pos++
	p.out = append(p.out, '[')
	for first := true; ; first = false {
		p.space()
		if p.pos < len(p.in) && p.in[p.pos] == ']' && first {
			break
		}
		if err := p.value(); err != nil {
			return err
		}
		p.space()
		if p.pos >= len(p.in) {
			return errEnd
		}
		if p.in[p.pos] == ']' {
			break
		}
		if p.in[p.pos] != ',' {
			return errors.New("want ',' or ']'")
		}
		p.pos++
		p.out = append(p.out, ',')
	}
	p.pos++
	p.out = append(p.out, ']')
	return nil
}

// A field is one member of an object: its name, sorted by UTF-16 code units (RFC 8785 section 3.2.3), and where its
// canonical value stands in the scratch space.
type field struct {
	name       string
	from, upto int
}

func (p *parser) object() error {
	p.pos++
	outer := p.out
	p.out = nil // the fields' values gather here, in the order of the input
	var fields []field
	for first := true; ; first = false {
		p.space()
		if p.pos >= len(p.in) {
			return errEnd
		}
		if p.in[p.pos] == '}' && first {
			break
		}
		if p.in[p.pos] != '"' {
			return errors.New("want a quoted name")
		}
		name, err := p.str()
		if err != nil {
			return err
		}
		p.space()
		if p.pos >= len(p.in) || p.in[p.pos] != ':' {
			return errors.New("want ':'")
		}
		p.pos++
		p.space()
		f := field{name: name, from: len(p.out)}
		if err := p.value(); err != nil {
			return err
		}
		f.upto = len(p.out)
		fields = append(fields, f)
		p.space()
		if p.pos >= len(p.in) {
			return errEnd
		}
		if p.in[p.pos] == '}' {
			break
		}
		if p.in[p.pos] != ',' {
			return errors.New("want ',' or '}'")
		}
		p.pos++
	}
	p.pos++
	values := p.out
	slices.SortFunc(fields, func(a, b field) int { return compareUTF16(a.name, b.name) })
	p.out = append(outer, '{')
	for i, f := range fields {
		if i > 0 {
			if f.name == fields[i-1].name {
				return fmt.Errorf("the name %q appears twice", f.name)
			}
			p.out = append(p.out, ',')
		}
		p.out = append(appendString(p.out, f.name), ':')
		p.out = append(p.out, values[f.from:f.upto]...)
	}
	p.out = append(p.out, '}')
	return nil
}

// compareUTF16 orders as arrays of UTF-16 code units. It differs from the order of bytes only where one side has a
// character beyond the basic plane, which UTF-16 writes with surrogates, and the other one from U+E000 up.
func compareUTF16(a, b string) int {
	for i := 0; i < len(a) && i < len(b); {
		ra, n := utf8.DecodeRuneInString(a[i:])
		rb, _ := utf8.DecodeRuneInString(b[i:])
		if ra == rb {
			i += n
			continue
		}
		if ra > 0xFFFF && rb <= 0xFFFF {
			hi, _ := utf16.EncodeRune(ra)
			return int(hi) - int(rb)
		}
		if rb > 0xFFFF && ra <= 0xFFFF {
			hi, _ := utf16.EncodeRune(rb)
			return int(ra) - int(hi)
		}
		return int(ra) - int(rb)
	}
	return len(a) - len(b)
}

// str reads a quoted string and returns what it stands for.
func (p *parser) str() (string, error) {
	p.pos++
	start := p.pos
	for p.pos < len(p.in) && p.in[p.pos] != '"' && p.in[p.pos] != '\\' && p.in[p.pos] >= 0x20 {
		p.pos++
	}
	if p.pos < len(p.in) && p.in[p.pos] == '"' {
		s := p.in[start:p.pos]
		p.pos++
		if !utf8.Valid(s) {
			return "", errors.New("a string is not UTF-8")
		}
		return string(s), nil
	}
	b := append([]byte(nil), p.in[start:p.pos]...)
	for {
		if p.pos >= len(p.in) {
			return "", errEnd
		}
		switch c := p.in[p.pos]; {
		case c == '"':
			p.pos++
			if !utf8.Valid(b) {
				return "", errors.New("a string is not UTF-8")
			}
			return string(b), nil
		case c < 0x20:
			return "", errors.New("a control character in a string; write it as \\u00XX")
		case c == '\\':
			var err error
			if b, err = p.escape(b); err != nil {
				return "", err
			}
		default:
			b = append(b, c)
			p.pos++
		}
	}
}

func (p *parser) escape(b []byte) ([]byte, error) {
	if p.pos+1 >= len(p.in) {
		return nil, errEnd
	}
	c := p.in[p.pos+1]
	if i := bytes.IndexByte([]byte(`"\/bfnrt`), c); i >= 0 {
		p.pos += 2
		return append(b, "\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return nil, fmt.Errorf("\\%c is no escape", c)
	}
	r, err := p.unit()
	if err != nil {
		return nil, err
	}
	if p.encoded && r == utf8.RuneError {
		return nil, errors.New("a string is not UTF-8")
	}
	if utf16.IsSurrogate(r) {
		if p.pos+1 >= len(p.in) || p.in[p.pos] != '\\' || p.in[p.pos+1] != 'u' {
			return nil, errors.New("a lone surrogate")
		}
		low, err := p.unit()
		if err != nil {
			return nil, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return nil, errors.New("a lone surrogate")
		}
	}
	return utf8.AppendRune(b, r), nil
}

// unit reads \uXXXX.
func (p *parser) unit() (rune, error) {
	if p.pos+6 > len(p.in) {
		return 0, errEnd
	}
	n, err := strconv.ParseUint(string(p.in[p.pos+2:p.pos+6]), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no escape", p.in[p.pos:p.pos+6])
	}
	p.pos += 6
	return rune(n), nil
}

const hexDigits = "0123456789abcdef"

// appendString writes s as RFC 8785 section 3.2.2.2 says.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}

// number reads a number and writes it as ECMAScript does (section 3.2.2.3). What binary64 would change is refused.
func (p *parser) number() error {
	start := p.pos
	for p.pos < len(p.in) && (p.in[p.pos] >= '0' && p.in[p.pos] <= '9' || bytes.IndexByte([]byte("+-.eE"), p.in[p.pos]) >= 0) {
		p.pos++
	}
	text := p.in[start:p.pos]
	if len(text) > 400 {
		return fmt.Errorf("a number of %d digits", len(text))
	}
	if !json.Valid(text) {
		return fmt.Errorf("%q is no number", text)
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(f, 0) {
		return fmt.Errorf("%s is beyond binary64", text)
	}
	n := len(p.out)
	p.out = appendNumber(p.out, f)
	if written := p.out[n:]; !bytes.Equal(written, text) && !sameDecimal(text, written) {
		return fmt.Errorf("%s would become %s in canonical form; write it as a string", text, written)
	}
	return nil
}

// appendNumber writes f as ECMA-262 Number::toString does.
func appendNumber(b []byte, f float64) []byte {
	if f == 0 {
		return append(b, '0')
	}
	format := byte('f')
	if a := math.Abs(f); a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	n := len(b)
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if format == 'e' { // e-09 becomes e-9
		if e := len(b); e-n >= 4 && b[e-4] == 'e' && b[e-2] == '0' {
			b[e-2] = b[e-1]
			b = b[:e-1]
		}
	}
	return b
}

func sameDecimal(a, b []byte) bool {
	if exponentOf(a) > 400 {
		return false
	}
	x, ok1 := new(big.Rat).SetString(string(a))
	y, ok2 := new(big.Rat).SetString(string(b))
	return ok1 && ok2 && x.Cmp(y) == 0
}

// exponentOf returns the size of the written exponent, so that a tiny text cannot ask for a huge computation.
func exponentOf(text []byte) int {
	i := bytes.IndexAny(text, "eE")
	if i < 0 {
		return 0
	}
	n, err := strconv.Atoi(string(bytes.TrimLeft(text[i+1:], "+")))
	if err != nil {
		return math.MaxInt
	}
	return max(n, -n)
}
