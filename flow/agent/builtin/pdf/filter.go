package pdf

import (
	"bytes"
	"compress/zlib"
	"encoding/ascii85"
	"io"
	"slices"
)

// decode returns the bytes of s after its filters (7.4). A stream that breaks off gives what came before, as readers
// show it; one that gives nothing is damaged.
func (f *file) decode(s *stream) ([]byte, error) {
	filters, params := f.list(s.dict["Filter"]), f.list(s.dict["DecodeParms"])
	data := s.raw
	if n := f.int(s.dict["Length"]); n > 0 && n < len(data) {
		data = data[:n]
	}
	if len(filters) > 8 {
		return nil, tooLarge("a stream of %d filters", len(filters))
	}
	// Unpacked streams are paid for too: a program may ask for the same one again and again.
	if err := f.pay(1 + opsPerStream*len(filters)); err != nil {
		return nil, err
	}
	if _, err := f.spend(data); err != nil {
		return nil, err
	}
	for i, o := range filters {
		var parm dict
		if i < len(params) {
			parm = f.dict(params[i])
		}
		var err error
		if data, err = f.filter(f.name(o), data, parm); err != nil {
			return nil, err
		}
		if err := f.ctx.Err(); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (f *file) list(o any) array {
	switch o := f.get(o).(type) {
	case nil:
		return nil
	case array:
		return o
	default:
		return array{o}
	}
}

func (f *file) filter(kind name, data []byte, parm dict) ([]byte, error) {
	var out []byte
	var err error
	switch kind {
	case "FlateDecode", "Fl":
		out, err = f.inflate(data)
	case "LZWDecode", "LZW":
		early := 1
		if v, ok := f.get(parm["EarlyChange"]).(float64); ok {
			early = int(v)
		}
		out, err = f.spend(lzw(data, early != 0, f.inflated))
	case "ASCIIHexDecode", "AHx":
		l := &lexer{data: append([]byte{'<'}, data...)}
		out, err = f.spend([]byte(l.hex()))
	case "ASCII85Decode", "A85":
		out, err = f.ascii85(data)
	case "RunLengthDecode", "RL":
		out, err = f.spend(runLength(data, f.inflated))
	case "Crypt":
		out = data
	default:
		return nil, damaged("a stream of text packed in a way that is not read")
	}
	if err != nil {
		return nil, err
	}
	return f.predict(out, parm)
}

// spend takes n bytes off the budget of all filters.
func (f *file) spend(out []byte) ([]byte, error) {
	if f.inflated -= len(out); f.inflated <= 0 {
		return nil, tooLarge("more than %d MiB after decompression", MaxInflated>>20)
	}
	return out, nil
}

func (f *file) inflate(data []byte) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, damaged("a compressed stream does not begin as one")
	}
	var out bytes.Buffer
	for {
		n, err := io.CopyN(&out, z, 1<<20)
		if f.ctx.Err() != nil {
			return nil, f.ctx.Err()
		}
		if out.Len() >= f.inflated {
			return nil, tooLarge("more than %d MiB after decompression", MaxInflated>>20)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if out.Len() == 0 && n == 0 {
				return nil, damaged("a compressed stream breaks off")
			}
			break
		}
	}
	return f.spend(out.Bytes())
}

func (f *file) ascii85(data []byte) ([]byte, error) {
	data = bytes.TrimPrefix(bytes.TrimLeft(data, " \r\n\t"), []byte("<~"))
	if i := bytes.IndexByte(data, '~'); i >= 0 {
		data = data[:i]
	}
	out := make([]byte, len(data)+3*bytes.Count(data, []byte("z"))+4) // "z" is 4 bytes, five others are
	n, _, err := ascii85.Decode(out, data, true)
	if err != nil && n == 0 {
		return nil, damaged("a base-85 stream does not decode")
	}
	return f.spend(out[:n])
}

// lzw undoes LZW with codes of 9 to 12 bits, high bit first. early is PDF's habit of widening codes one entry early,
// which compress/lzw doesn't know.
func lzw(data []byte, early bool, limit int) []byte {
	const clearCode, eod = 256, 257
	type entry struct {
		prev int16
		last byte
		size int
	}
	var table [4096]entry
	next, width, prev := 258, 9, -1
	lead := 0
	if early {
		lead = 1
	}
	var out []byte
	bits, have := 0, 0
	for _, c := range data {
		bits, have = bits<<8|int(c), have+8
		if have < width {
			continue
		}
		code := bits >> (have - width) & (1<<width - 1)
		have -= width
		bits &= 1<<have - 1
		if code == eod || len(out) > limit {
			break
		}
		if code == clearCode {
			next, width, prev = 258, 9, -1
			continue
		}
		size := func(k int) int {
			if k < 256 {
				return 1
			}
			return table[k].size
		}
		if code > next || code == next && prev < 0 {
			break
		}
		from := code
		if code == next {
			from = prev
		}
		n := size(from)
		at := len(out)
		out = room(out, n+1)[:at+n]
		for k, i := from, at+n-1; i >= at; i-- {
			if k < 256 {
				out[i] = byte(k)
				break
			}
			out[i] = table[k].last
			k = int(table[k].prev)
		}
		first := out[at]
		if code == next {
			out = append(out, first)
		}
		if prev >= 0 && next < 4096 {
			table[next] = entry{int16(prev), first, size(prev) + 1}
			next++
		}
		if next+lead >= 1<<width && width < 12 {
			width++
		}
		prev = code
	}
	return out
}

// room returns out with space for n bytes more. It doubles, where append would copy large slices far more often.
func room(out []byte, n int) []byte {
	if cap(out)-len(out) < n {
		return slices.Grow(out, max(n, cap(out)))
	}
	return out
}

func runLength(data []byte, limit int) []byte {
	var out []byte
	for i := 0; i < len(data) && data[i] != 128 && len(out) <= limit; {
		n := int(data[i])
		out = room(out, 128)
		i++
		if n < 128 {
			stop := min(len(data), i+n+1)
			out = append(out, data[i:stop]...)
			i = stop
		} else if i < len(data) {
			out = append(out, bytes.Repeat(data[i:i+1], 257-n)...)
			i++
		}
	}
	return out
}

// predict undoes PNG and TIFF prediction (7.4.4.4); object streams use them.
func (f *file) predict(data []byte, parm dict) ([]byte, error) {
	kind := f.int(parm["Predictor"])
	if kind < 2 {
		return data, nil
	}
	colors, bits, columns := max(f.int(parm["Colors"]), 1), f.int(parm["BitsPerComponent"]), max(f.int(parm["Columns"]), 1)
	if bits == 0 {
		bits = 8
	}
	if colors > 32 || bits < 1 || bits > 16 || columns > 1<<20 || colors*bits*columns > 8<<20 {
		return nil, damaged("a predictor of impossible size")
	}
	unit, row := (colors*bits+7)/8, (colors*bits*columns+7)/8
	if kind == 2 {
		out := bytes.Clone(data)
		for at := 0; bits == 8 && at < len(out); at += row {
			for i := at + unit; i < min(at+row, len(out)); i++ {
				out[i] += out[i-unit]
			}
		}
		return out, nil
	}
	var out []byte
	above := make([]byte, row)
	for at := 0; at+1 < len(data); at += row + 1 {
		line := bytes.Clone(data[at+1 : min(at+1+row, len(data))])
		unfilter(data[at], line, above, unit)
		out = append(out, line...)
		copy(above, line)
	}
	return out, nil
}

// unfilter undoes one PNG row filter (PNG specification, clause 9).
func unfilter(kind byte, line, above []byte, unit int) {
	for i := range line {
		var left, upLeft int
		if i >= unit {
			left, upLeft = int(line[i-unit]), int(above[i-unit])
		}
		up := int(above[i])
		switch kind {
		case 1:
			line[i] += byte(left)
		case 2:
			line[i] += byte(up)
		case 3:
			line[i] += byte((left + up) / 2)
		case 4:
			line[i] += byte(paeth(left, up, upLeft))
		}
	}
}

func paeth(a, b, c int) int {
	p := a + b - c
	pa, pb, pc := max(p-a, a-p), max(p-b, b-p), max(p-c, c-p)
	switch {
	case pa <= pb && pa <= pc:
		return a
	case pb <= pc:
		return b
	}
	return c
}
