package pdf

import (
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"
)

// maxDifferences is how many entries of an encoding's differences count; an honest one names 256 codes at most.
const maxDifferences = 1024

// A font says what codes mean and how wide they are.
type font struct {
	wide     bool           // codes are of two bytes
	mapped   map[int]string // from ToUnicode; it goes before the encoding
	encoding *[256]rune     // of fonts with one-byte codes
	utf16    bool           // codes are UTF-16 (predefined CMaps Uni…)
	widths   map[int]float64
	standard float64 // width of codes without one; 0: as Helvetica
}

// font returns the font of a resource, parsed once for each object.
func (d *drawing) font(o any) *font {
	r, shared := o.(ref)
	if shared {
		if f := d.fonts[r.num]; f != nil {
			return f
		}
	}
	d.file.ops -= opsPerFont // the next operator finds it spent
	f := d.file.font(d.file.dict(o))
	if shared {
		d.fonts[r.num] = f
	}
	return f
}

func (f *file) font(d dict) *font {
	out := &font{widths: map[int]float64{}}
	if s, ok := f.get(d["ToUnicode"]).(*stream); ok {
		if data, err := f.decode(s); err == nil {
			out.mapped = f.toUnicode(data)
		}
	}
	if f.name(d["Subtype"]) == "Type0" {
		out.wide = true
		enc := f.name(d["Encoding"])
		out.utf16 = strings.Contains(string(enc), "UCS2") || strings.Contains(string(enc), "UTF16")
		if kids := f.array(d["DescendantFonts"]); len(kids) > 0 {
			f.cidWidths(f.dict(kids[0]), out)
		}
		return out
	}
	out.encoding = f.encoding(d)
	// Widths of Type 3 fonts are in the glyphs' own space (9.6.5), of all others in thousandths.
	unit := 1.0
	if m := f.array(d["FontMatrix"]); f.name(d["Subtype"]) == "Type3" && len(m) == 6 {
		unit = f.number(m[0]) * 1000
	}
	first := f.int(d["FirstChar"])
	for i, w := range f.array(d["Widths"]) {
		if i > 255 {
			break
		}
		f.widen(out, first+i, f.number(w)*unit)
	}
	if strings.Contains(string(f.name(d["BaseFont"])), "Courier") {
		out.standard = 600
	}
	return out
}

// cidWidths reads W and DW (9.7.4.3): "c [w1 w2 …]" and "first last w".
func (f *file) cidWidths(d dict, out *font) {
	out.standard = 1000
	if v, ok := f.get(d["DW"]).(float64); ok {
		out.standard = v
	}
	w := f.array(d["W"])
	for i := 0; i+1 < len(w) && f.mappings >= 0; {
		first := f.int(w[i])
		if list := f.array(w[i+1]); list != nil {
			for j, v := range list[:min(len(list), 1<<16)] {
				f.widen(out, first+j, f.number(v))
			}
			i += 2
			continue
		}
		if i+2 >= len(w) {
			return
		}
		last := min(f.int(w[i+1]), 1<<16-1)
		for c := max(first, 0); c <= last && f.mappings >= 0; c++ {
			f.widen(out, c, f.number(w[i+2]))
		}
		i += 3
	}
}

// widen gives a code its width.
func (f *file) widen(out *font, code int, width float64) {
	if f.map1() && code >= 0 && code < 1<<16 {
		out.widths[code] = width
	}
}

// map1 reports whether one more code may be mapped. After the last, the next operator finds the budget spent.
func (f *file) map1() bool {
	if f.mappings--; f.mappings < 0 {
		f.ops = 0
	}
	return f.mappings >= 0
}

// encoding returns the table of a font with one-byte codes (9.6.6): a base, and differences by glyph name.
func (f *file) encoding(d dict) *[256]rune {
	base := f.name(d["Encoding"])
	var differences array
	if e := f.dict(d["Encoding"]); e != nil {
		base = f.name(e["BaseEncoding"])
		differences = f.array(e["Differences"])
	}
	var table [256]rune
	from := charmap.Windows1252
	if base == "MacRomanEncoding" {
		from = charmap.Macintosh
	}
	for i := range table {
		table[i] = from.DecodeByte(byte(i))
	}
	code := 0
	for _, o := range differences[:min(len(differences), maxDifferences)] {
		switch o := f.get(o).(type) {
		case float64:
			code = int(o)
		case name:
			if code >= 0 && code < 256 {
				if r := glyph(string(o)); r != 0 {
					table[code] = r
				} else if o != ".notdef" && code < ' ' {
					table[code] = '\ufffd'
				}
			}
			code++
		}
	}
	return &table
}

// codes calls each with every code of s, its text and its width in thousandths of the font size.
func (f *font) codes(s text, each func(code int, meaning string, width float64)) {
	step := 1
	if f.wide {
		step = 2
	}
	for i := 0; i+step <= len(s); i += step {
		code := int(s[i])
		if f.wide {
			code = code<<8 | int(s[i+1])
		}
		each(code, f.meaning(code), f.width(code))
	}
}

func (f *font) meaning(code int) string {
	if m, ok := f.mapped[code]; ok {
		return m
	}
	switch {
	case f.utf16:
		return string(rune(code))
	case f.wide:
		return "\ufffd"
	}
	return string(f.encoding[code&0xff])
}

func (f *font) width(code int) float64 {
	if w, ok := f.widths[code]; ok && (w > 0 || f.wide) {
		return w
	}
	if f.standard > 0 {
		return f.standard
	}
	return helvetica(code)
}

// helvetica returns the width of an ASCII code in Helvetica (Adobe's metrics of the standard 14 fonts), which stands in
// for proportional fonts that bring no widths. A letter of the table is a width in steps of 1/36 em: A to Z are 0 to 25,
// a to z 26 to 51.
func helvetica(code int) float64 {
	const table = "KKNUUgYHMMOVKMKK" + "UUUUUUUUUU" + "KKVVVUl" + "YYaaYWcaKSYUeacYcaYWaYiYYW" + "KKKRUM" + "UUSUUKUUIISIeUUUUMSKUSaSSS" + "MJMV"
	if code < ' ' || code > '~' {
		return 556
	}
	step := int(table[code-' '] - 'A')
	if step > 25 {
		step = int(table[code-' ']-'a') + 26
	}
	return float64(step) * 1000 / 36
}

// toUnicode reads the mappings of a ToUnicode CMap (9.10.3).
func (f *file) toUnicode(data []byte) map[int]string {
	out := map[int]string{}
	l := &lexer{data: data, left: maxOperands}
	var stack []any
	for {
		o := l.object()
		op, ok := o.(operator)
		if !ok {
			if len(stack) < 4096 {
				stack = append(stack, o)
			}
			continue
		}
		switch op {
		case end:
			return out
		case "endbfchar":
			for i := 0; i+1 < len(stack); i += 2 {
				f.put(out, code(stack[i]), unicode(stack[i+1]))
			}
		case "endbfrange":
			for i := 0; i+2 < len(stack); i += 3 {
				f.putRange(out, code(stack[i]), code(stack[i+1]), stack[i+2])
			}
		}
		stack, l.left = stack[:0], maxOperands
	}
}

func (f *file) put(m map[int]string, code int, s string) {
	if code >= 0 && f.map1() {
		m[code] = s
	}
}

func (f *file) putRange(m map[int]string, lo, hi int, to any) {
	if lo < 0 || hi > 0xffff {
		return
	}
	if list, ok := to.(array); ok {
		for i, o := range list {
			if lo+i <= hi {
				f.put(m, lo+i, unicode(o))
			}
		}
		return
	}
	first := []rune(unicode(to))
	if len(first) == 0 {
		return
	}
	for c := lo; c <= hi && f.mappings >= 0; c++ {
		f.put(m, c, string(first))
		first[len(first)-1]++
	}
}

func code(o any) int {
	s, ok := o.(text)
	if !ok || len(s) == 0 || len(s) > 2 {
		return -1
	}
	v := 0
	for i := range len(s) {
		v = v<<8 | int(s[i])
	}
	return v
}

func unicode(o any) string {
	s, ok := o.(text)
	if !ok || len(s) > 32 {
		return ""
	}
	if len(s) == 1 {
		return string(rune(s[0]))
	}
	units := make([]uint16, len(s)/2)
	for i := range units {
		units[i] = uint16(s[2*i])<<8 | uint16(s[2*i+1])
	}
	return string(utf16.Decode(units))
}
