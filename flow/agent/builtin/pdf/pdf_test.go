package pdf

import (
	"bytes"
	"context"
	"encoding/ascii85"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const maxText = 8 << 20

func words(s string) string { return strings.Join(strings.Fields(s), " ") }

// reads wants a file to say these words.
func reads(t *testing.T, name string, data []byte, want string) {
	t.Helper()
	got, _, err := Text(t.Context(), data, maxText)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if words(got) != want {
		t.Errorf("%s: read %q, want %q", name, words(got), want)
	}
}

// TestProducers reads the same text out of files that as many programs made of it; see testdata/README.
func TestProducers(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.txt")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.pdf")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "encrypted") {
			if _, _, err := Text(t.Context(), data, maxText); !errors.Is(err, Encrypted) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		reads(t, name, data, words(string(sample)))
		text, pages, err := Text(t.Context(), data, maxText)
		if err != nil || pages != 1 {
			t.Errorf("%s: %d pages, %v", name, pages, err)
		}
		if got := strings.Count(strings.TrimSpace(text), "\n"); got < 3 {
			t.Errorf("%s: lines run together: %q", name, text)
		}
	}
}

// TestGaps reads where spaces and line ends are shown, not written.
func TestGaps(t *testing.T) {
	for _, c := range []struct{ name, program, want string }{
		{"Tj", "BT /F 10 Tf 50 700 Td (one) Tj ( two) Tj ET", "one two"},
		{"kerning is no space", "BT /F 10 Tf 50 700 Td [(A) 80 (V) -60 (e)] TJ ET", "AVe"},
		{"a wide step is one", "BT /F 10 Tf 50 700 Td [(one) -400 (two)] TJ ET", "one two"},
		{"columns", "BT /F 10 Tf 50 700 Td (left) Tj 200 0 Td (right) Tj ET", "left\tright"},
		{"lines", "BT /F 10 Tf 12 TL 50 700 Td (one) Tj T* (two) Tj ET", "one\ntwo"},
		{"paragraphs", "BT /F 10 Tf 50 700 Td (one) Tj 0 -40 Td (two) Tj ET", "one\n\ntwo"},
		{"quote", "BT /F 10 Tf 12 TL 50 700 Td (one) Tj (two) ' 1 2 (three) \" ET", "one\ntwo\nthree"},
		{"TD sets leading", "BT /F 10 Tf 50 700 Td (one) Tj 0 -12 TD (two) Tj T* (three) Tj ET", "one\ntwo\nthree"},
		{"Tm", "BT /F 10 Tf 1 0 0 1 50 700 Tm (one) Tj 1 0 0 1 50 688 Tm (two) Tj ET", "one\ntwo"},
		{"turned by a quarter", "BT /F 10 Tf 0 1 -1 0 50 700 Tm [(one) -400 (two)] TJ 0 1 -1 0 62 700 Tm (three) Tj ET", "one two\nthree"},
		{"scaled", "q 0.1 0 0 0.1 0 0 cm BT /F 100 Tf 500 7000 Td [(one) -400 (two)] TJ ET Q", "one two"},
		{"superscript stays in line", "BT /F 10 Tf 50 700 Td (m) Tj 3 Ts (2) Tj ET", "m2"},
		{"letters spaced out", "BT /F 10 Tf 1 Tc 50 700 Td (word) Tj ET", "word"},
		{"nested strings", `BT /F 10 Tf 50 700 Td (a \(b\) (c) \\ \101\12d) Tj ET`, "a (b) (c) \\ A\nd"},
		{"hexadecimal", "BT /F 10 Tf 50 700 Td <48 65 6C6c 6F2> Tj ET", "Hello "},
		{"inline image", "BI /W 2 /H 1 /BPC 8 /CS /G ID (\xffEI(( EI BT /F 10 Tf 50 700 Td (after) Tj ET", "after"},
		{"state is restored", "q BT /F 10 Tf 50 700 Td (a) Tj ET Q Q Q BT /F 10 Tf 56 700 Td (b) Tj ET", "ab"},
		{"no font", "BT 50 700 Td (plain) Tj ET", "plain"},
		{"marked content", "/P <</MCID 0>> BDC BT /F 10 Tf 50 700 Td (marked) Tj ET EMC", "marked"},
		{"foreign operands", "BT /F /F Tf (x) Td [[1]] TJ <</A 1>> Tj null Tj (fine) Tj ET", "fine"},
	} {
		got, _, err := Text(t.Context(), programmed(c.program), maxText)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.name, got, c.want, err)
		}
	}
}

// pngRows filters rows of data with one PNG filter.
func pngRows(kind byte, data []byte, columns int) []byte {
	data = append(bytes.Clone(data), bytes.Repeat([]byte{' '}, (columns-len(data)%columns)%columns)...)
	above := make([]byte, columns)
	var out []byte
	for at := 0; at < len(data); at += columns {
		row := data[at : at+columns]
		out = append(out, kind)
		for i, v := range row {
			left, upLeft := 0, 0
			if i > 0 {
				left, upLeft = int(row[i-1]), int(above[i-1])
			}
			guess := map[byte]int{0: 0, 1: left, 2: int(above[i]), 3: (left + int(above[i])) / 2, 4: paeth(left, int(above[i]), upLeft)}[kind]
			out = append(out, v-byte(guess))
		}
		above = row
	}
	return out
}

// lzwPacked packs with LZW as PDF has it (7.4.4): codes high bit first, widened one entry early unless told otherwise.
func lzwPacked(data []byte, early int) []byte {
	var out []byte
	bits, have, width := 0, 0, 9
	emit := func(code int) {
		bits, have = bits<<width|code, have+width
		for have >= 8 {
			out = append(out, byte(bits>>(have-8)))
			have -= 8
			bits &= 1<<have - 1
		}
	}
	table := map[string]int{}
	reset := func() {
		clear(table)
		for i := range 256 {
			table[string([]byte{byte(i)})] = i
		}
		width = 9
	}
	reset()
	emit(256)
	next, seq := 258, ""
	for _, c := range data {
		if _, ok := table[seq+string([]byte{c})]; ok {
			seq += string([]byte{c})
			continue
		}
		emit(table[seq])
		table[seq+string([]byte{c})] = next
		if next++; next+early > 1<<width {
			width++
		}
		if next == 4094 {
			emit(256)
			reset()
			next = 258
		}
		seq = string([]byte{c})
	}
	emit(table[seq])
	if next++; next+early > 1<<width {
		width++
	}
	emit(257)
	return append(out, byte(bits<<(8-have)))
}

func TestFilters(t *testing.T) {
	var texts []string
	for i := range 400 { // enough for LZW to clear its table
		texts = append(texts, fmt.Sprintf("line %d of %x", i, i*i*7919))
	}
	program := []byte(lines(texts...))
	want := strings.Join(texts, " ")
	a85 := func(data []byte) []byte {
		var b bytes.Buffer
		w := ascii85.NewEncoder(&b)
		w.Write(data)
		w.Close()
		return append(b.Bytes(), "~>"...)
	}
	var rle []byte
	for at := 0; at < len(program); at += 100 {
		chunk := program[at:min(at+100, len(program))]
		rle = append(append(rle, byte(len(chunk)-1)), chunk...)
	}
	tiff := bytes.Clone(program)
	for i := len(tiff) - 1; i > 0; i-- {
		if i%20 != 0 {
			tiff[i] -= tiff[i-1]
		}
	}
	for name, data := range map[string][]byte{
		"none":                filtered("", program),
		"Flate":               filtered("/Filter /FlateDecode", deflated(program)),
		"abbreviated":         filtered("/Filter /Fl", deflated(program)),
		"Flate, wrong length": bytes.Replace(filtered("/Filter /FlateDecode", deflated(program)), []byte("/Length "), []byte("/Length 9"), 1),
		"Flate, checksum cut": filtered("/Filter /FlateDecode", deflated(program)[:len(deflated(program))-4]),
		"LZW":                 filtered("/Filter /LZWDecode", lzwPacked(program, 1)),
		"LZW, late":           filtered("/Filter /LZWDecode /DecodeParms << /EarlyChange 0 >>", lzwPacked(program, 0)),
		"hexadecimal":         filtered("/Filter /ASCIIHexDecode", append([]byte(hex.EncodeToString(program)), '>')),
		"base 85":             filtered("/Filter /ASCII85Decode", a85(program)),
		"base 85 with mark":   filtered("/Filter /ASCII85Decode", append([]byte("<~"), a85(program)...)),
		"run lengths":         filtered("/Filter /RunLengthDecode", append(rle, 128)),
		"base 85 of Flate":    filtered("/Filter [/ASCII85Decode /FlateDecode]", a85(deflated(program))),
		"TIFF":                filtered("/Filter /FlateDecode /DecodeParms << /Predictor 2 /Columns 20 >>", deflated(tiff)),
		"PNG none":            filtered("/Filter /FlateDecode /DecodeParms << /Predictor 10 /Columns 31 >>", deflated(pngRows(0, program, 31))),
		"PNG sub":             filtered("/Filter /FlateDecode /DecodeParms << /Predictor 11 /Columns 31 >>", deflated(pngRows(1, program, 31))),
		"PNG up":              filtered("/Filter [/FlateDecode] /DecodeParms [<< /Predictor 12 /Columns 31 >>]", deflated(pngRows(2, program, 31))),
		"PNG average":         filtered("/Filter /FlateDecode /DecodeParms << /Predictor 13 /Columns 31 >>", deflated(pngRows(3, program, 31))),
		"PNG Paeth":           filtered("/Filter /FlateDecode /DecodeParms << /Predictor 15 /Columns 31 >>", deflated(pngRows(4, program, 31))),
		"LZW and PNG":         filtered("/Filter /LZWDecode /DecodeParms << /Predictor 12 /Columns 31 >>", lzwPacked(pngRows(2, program, 31), 1)),
	} {
		reads(t, name, data, want)
	}
	for name, data := range map[string][]byte{
		"an unknown filter":    filtered("/Filter /JBIG2Decode", program),
		"not deflated":         filtered("/Filter /FlateDecode", program),
		"a giant's predictor":  filtered("/Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 999999999 >>", deflated(program)),
		"hexadecimal for a 85": filtered("/Filter /ASCII85Decode", []byte("\xff\xfe\xfd")),
	} {
		if _, _, err := Text(t.Context(), data, maxText); !errors.Is(err, Damaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Text(t.Context(), filtered("/Filter ["+strings.Repeat("/AHx ", 9)+"]", program), maxText); !errors.Is(err, TooLarge) {
		t.Errorf("nine filters: %v", err)
	}
}

// TestObjectStreams reads objects that are packed in streams, and the right version of those that come again.
func TestObjectStreams(t *testing.T) {
	packed := func(objects ...string) (string, []byte) {
		var index, body strings.Builder
		for _, o := range objects {
			num, value, _ := strings.Cut(o, " ")
			fmt.Fprintf(&index, "%s %d ", num, body.Len())
			body.WriteString(value + "\n")
		}
		return fmt.Sprintf("/Type /ObjStm /N %d /First %d /Filter /FlateDecode", len(objects), index.Len()), deflated([]byte(index.String() + body.String()))
	}
	tree := []string{"1 << /Type /Catalog /Pages 2 0 R >>", "2 << /Type /Pages /Kids [3 0 R] /Count 1 >>",
		"3 << /Type /Page /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>", "5 " + helveticaFont}
	entries, data := packed(tree...)
	m := newMaker().stream(9, entries, data).stream(4, "", []byte(lines("first")))
	// A cross-reference stream as trailer; its table lies, and must not matter.
	m.stream(10, "/Type /XRef /Size 11 /Root 1 0 R /W [1 2 1]", bytes.Repeat([]byte{1, 0, 0, 0}, 11))
	m.out.WriteString("startxref\n7\n%%EOF\n")
	first := bytes.Clone(m.out.Bytes())
	reads(t, "packed", first, "first")

	m.stream(4, "", []byte(lines("second")))
	m.out.WriteString("%%EOF\n")
	reads(t, "updated plain", m.out.Bytes(), "second")

	entries, data = packed("3 << /Type /Page /Contents 11 0 R /Resources << /Font << /F 5 0 R >> >> >>")
	m.stream(11, "", []byte(lines("third"))).stream(12, entries, data)
	m.out.WriteString("%%EOF\n")
	reads(t, "updated packed", m.out.Bytes(), "third")

	m.object(3, "<< /Type /Page /Contents 4 0 R >>")
	m.out.WriteString("%%EOF\n")
	reads(t, "plain after packed", m.out.Bytes(), "second")
}

func TestFonts(t *testing.T) {
	cmap := func(body string) func(*maker) {
		return func(m *maker) {
			m.stream(7, "", []byte("/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange\n"+body+"\nendcmap end"))
		}
	}
	const wide = "<< /Type /Font /Subtype /Type0 /Encoding /Identity-H /DescendantFonts [<< /DW 500 /W [1 [600 700] 5 9 400] >>] /ToUnicode 7 0 R >>"
	for _, c := range []struct {
		name, font, shown string
		more              func(*maker)
		want              string
	}{
		{"bfchar", wide, "<000100020003>", cmap("3 beginbfchar <0001> <0041> <0002> <00660066> <0003> <D83DDE00> endbfchar"), "Aff😀"},
		{"bfrange", wide, "<000500060007>", cmap("1 beginbfrange <0005> <0007> <0061> endbfrange"), "abc"},
		{"bfrange with a list", wide, "<000500060007>", cmap("1 beginbfrange <0005> <0007> [<0078> <0079> <007A007A>] endbfrange"), "xyzz"},
		{"two ranges", wide, "<00050105>", cmap("2 beginbfrange <0005> <0005> <0061> <0105> <0105> <0062> endbfrange"), "ab"},
		{"without a meaning", wide, "<0042>", cmap(""), "\ufffd"},
		{"odd byte at the end", wide, "<000142>", cmap("1 beginbfchar <0001> <0041> endbfchar"), "A"},
		{"predefined UTF-16", "<< /Subtype /Type0 /Encoding /UniGB-UTF16-H /DescendantFonts [<<>>] >>", "<004100e4>", nil, "Aä"},
		{"WinAnsi", helveticaFont, "<80e4f6fcdf96>", nil, "€äöüß–"},
		{"MacRoman", "<< /Subtype /Type1 /Encoding /MacRomanEncoding >>", "<8a9a9fa7>", nil, "äöüß"},
		{"differences", "<< /Subtype /Type1 /Encoding << /Differences [1 /Adieresis /f_i 30 /uni20AC /Zcaron /fi /Lslash 65 /B.alt /.notdef] >> >>",
			"<01021e1f20214142>", nil, "Ä\ufffd€ŽﬁŁBB"},
		{"Type 1 ToUnicode", "<< /Subtype /Type1 /ToUnicode 7 0 R >>", "(ab)", cmap("1 beginbfchar <61> <0058> endbfchar"), "Xb"},
	} {
		got, _, err := Text(t.Context(), fonted(c.font, c.shown, c.more), maxText)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.name, got, c.want, err)
		}
	}
	// Widths decide what is a gap: the same step is one after a narrow letter and none after a wide one.
	for width, want := range map[int]string{200: "a b", 700: "ab"} {
		font := fmt.Sprintf("<< /Subtype /TrueType /FirstChar 97 /LastChar 98 /Widths [%d 500] >>", width)
		m := newMaker().tree().stream(4, "", []byte("BT /F 10 Tf 50 700 Td (a) Tj 7 0 Td (b) Tj ET")).object(5, "%s", font)
		reads(t, fmt.Sprint("width ", width), m.bytes(), want)
	}
	// A Type 3 font of a thousand units and one of a hundred show the same.
	for matrix, width := range map[string]int{"[0.001 0 0 0.001 0 0]": 700, "[0.01 0 0 0.01 0 0]": 70} {
		font := fmt.Sprintf("<< /Subtype /Type3 /FontMatrix %s /FirstChar 97 /Widths [%d %d] >>", matrix, width, width)
		m := newMaker().tree().stream(4, "", []byte("BT /F 10 Tf 50 700 Td (a) Tj 7 0 Td (b) Tj 12 0 Td (a) Tj ET")).object(5, "%s", font)
		reads(t, "Type 3 "+matrix, m.bytes(), "ab a")
	}
}

// TestPages wants pages in the tree's order, with inherited resources, and forms drawn where they are called.
func TestPages(t *testing.T) {
	m := newMaker().object(1, "<< /Type /Catalog /Pages 2 0 R >>").
		object(2, "<< /Kids [8 0 R 3 0 R 8 0 R] /Resources << /Font << /F 5 0 R >> /XObject << /X 6 0 R /L 10 0 R >> >> >>").
		object(3, "<< /Type /Page /Contents [4 0 R 7 0 R] >>").
		stream(4, "", []byte("BT /F 10 Tf 50 700 Td (sp")).stream(7, "", []byte("lit) Tj ET /X Do /L Do /None Do")).
		object(5, helveticaFont).
		stream(6, "/Subtype /Form /Matrix [1 0 0 1 0 -100] /Resources << /Font << /F 5 0 R >> >>", []byte("BT /F 10 Tf 50 700 Td (form) Tj ET")).
		object(8, "<< /Kids [9 0 R 2 0 R] >>").object(9, "<< /Type /Page /Contents 11 0 R >>").
		stream(10, "/Subtype /Form", []byte("BT /F 10 Tf 50 500 Td (loop) Tj ET")).
		stream(11, "", []byte(lines("one")))
	text, pages, err := Text(t.Context(), m.bytes(), maxText)
	if err != nil || pages != 2 || words(text) != "one sp lit form loop" || !strings.Contains(text, "one\f") {
		t.Errorf("%q, %d pages, %v", text, pages, err)
	}
}

// TestDamaged wants files that are merely untidy to be read, and broken ones refused.
func TestDamaged(t *testing.T) {
	good := programmed(lines("still here"))
	for name, data := range map[string][]byte{
		"bytes before the header": append([]byte("junk\n"), good...),
		"bytes after the end":     append(bytes.Clone(good), bytes.Repeat([]byte{0}, 2000)...),
		"a table that lies":       bytes.ReplaceAll(good, []byte("00000 n"), []byte("00007 n")),
		"no table":                append(bytes.Clone(good[:bytes.Index(good, []byte("xref\n"))]), "%%EOF"...),
		"a wrong length":          bytes.Replace(good, []byte("/Length "), []byte("/Length 1"), 1),
		"no length":               bytes.Replace(good, []byte("/Length "), []byte("/Lenght "), 1),
		"a length by reference":   bytes.Replace(good, []byte("/Length "), []byte("/Length 9 0 R /L "), 1),
		"Mac line ends":           bytes.ReplaceAll(good, []byte("\n"), []byte("\r")),
		"Windows line ends":       bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		"no endobj":               bytes.ReplaceAll(good, []byte("endobj"), nil),
		"comments":                bytes.ReplaceAll(good, []byte("/Type /Pages"), []byte("% >> obj \n/Type /Pages")),
		"names escaped":           bytes.ReplaceAll(good, []byte("/Contents"), []byte("/Con#74ents")),
		"a lost catalogue":        bytes.Replace(good, []byte("/Root 1 0 R"), []byte("/Root 8 0 R"), 1),
	} {
		reads(t, name, data, "still here")
	}
	for name, data := range map[string][]byte{
		"nothing":      nil,
		"header only":  []byte("%PDF-1.7\n%%EOF"),
		"no pages":     newMaker().object(1, "<< /Type /Catalog /Pages 2 0 R >>").object(2, "<< /Kids [] >>").bytes(),
		"only a loop":  newMaker().object(1, "<< /Pages 2 0 R >>").object(2, "<< /Kids [2 0 R 2 0 R] >>").bytes(),
		"refers round": newMaker().object(1, "<< /Pages 2 0 R >>").object(2, "3 0 R").object(3, "2 0 R").bytes(),
	} {
		if _, _, err := Text(t.Context(), data, maxText); !errors.Is(err, Damaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range len(good) {
		if n >= bytes.LastIndex(good, []byte("%%EOF"))+5 {
			break
		}
		if _, _, err := Text(t.Context(), good[:n], maxText); !errors.Is(err, Damaged) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, _, err := Text(t.Context(), bytes.Replace(good, []byte("/Root"), []byte("/Encrypt << /Filter /Standard >> /Root"), 1), maxText); !errors.Is(err, Encrypted) {
		t.Errorf("encrypted: %v", err)
	}
}

// FuzzText wants no panic, no endless loop, valid text within the limit, and the same answer twice.
func FuzzText(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pdf")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 3000 {
			f.Add(data)
		}
	}
	f.Add(programmed(lines("hello", "(nested) \\ text")))
	f.Add(filtered("/Filter /LZWDecode", lzwPacked([]byte(lines("hello")), 1)))
	f.Add(filtered("/Filter [/AHx /RL]", []byte("03 42 54 20 45 80>")))
	f.Add(filtered("/Filter /Fl /DecodeParms << /Predictor 15 /Columns 5 /Colors 2 >>", deflated(pngRows(4, []byte(lines("x")), 10))))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 16
		text, pages, err := Text(context.Background(), data, limit)
		if err != nil {
			if !errors.Is(err, Damaged) && !errors.Is(err, TooLarge) && !errors.Is(err, Encrypted) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if pages < 1 || pages > MaxPages || len(text) > 3*limit || text != strings.ToValidUTF8(text, "") {
			t.Fatalf("%d pages, %d bytes", pages, len(text))
		}
		if again, _, err := Text(context.Background(), data, limit); err != nil || again != text {
			t.Fatalf("read again: %v", err)
		}
	})
}

// BenchmarkText reads a file of 200 pages; MB/s are of the file as it came.
func BenchmarkText(b *testing.B) {
	m := newMaker().object(1, "<< /Type /Catalog /Pages 2 0 R >>").object(5, helveticaFont)
	var kids []string
	for p := range 200 {
		var page []string
		for l := range 50 {
			page = append(page, fmt.Sprintf("Page %d, line %d: the parties agree (as set out in clause %d) to what follows below.", p, l, l*p))
		}
		m.stream(10+2*p, "/Filter /FlateDecode", deflated([]byte(lines(page...))))
		m.object(11+2*p, "<< /Type /Page /Contents %d 0 R /Resources << /Font << /F 5 0 R >> >> >>", 10+2*p)
		kids = append(kids, fmt.Sprintf("%d 0 R", 11+2*p))
	}
	data := m.object(2, "<< /Type /Pages /Kids [%s] >>", strings.Join(kids, " ")).bytes()
	b.SetBytes(int64(len(data)))
	total := 0
	for b.Loop() {
		text, _, err := Text(context.Background(), data, maxText)
		if err != nil {
			b.Fatal(err)
		}
		total += len(text)
	}
	b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "text-MB/s")
}

// TestGlyphs wants names of the Adobe Glyph List to give their characters and no others.
func TestGlyphs(t *testing.T) {
	for n, want := range map[string]rune{"A": 'A', "space": ' ', "odieresis": 'ö', "Scaron": 'Š', "fl": 'ﬂ', "Euro": '€', "uni00DF": 'ß', "u1F600": '😀',
		"germandbls": 'ß', "a.sc": 'a', "two": '2', "ogonek": 0, "nosuchglyph": 0, "": 0, ".notdef": 0, "uniXYZW": 0, "wo": 0, "quotesingle": '\'', "zcaron": 'ž'} {
		if got := glyph(n); got != want {
			t.Errorf("%s: %q, want %q", n, got, want)
		}
	}
	if !slices.IsSorted([]float64{helvetica('i'), helvetica('a'), helvetica('W')}) || helvetica('W') < 900 || helvetica(' ') != 10*1000/36. {
		t.Error("widths of Helvetica are off")
	}
}
