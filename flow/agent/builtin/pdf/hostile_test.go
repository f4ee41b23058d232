package pdf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// maxAllocated bounds what a hostile file may make the reader allocate in all, and so at any one time.
const maxAllocated = 640 << 20

// TestHostile wants every trick answered by TooLarge, or by less text, within the budgets. All but
// one get smaller budgets of operators and of unpacked bytes, which changes the time it takes and nothing else.
func TestHostile(t *testing.T) {
	const fewOps = 300_000
	repeat := strings.Repeat
	loop := func(form string) []byte {
		return newMaker().tree().stream(4, "", []byte("/X Do")).object(5, helveticaFont).
			stream(6, "/Subtype /Form /Resources << /XObject << /X 6 0 R >> /Font << /F 5 0 R >> >>", []byte(form)).bytes()
	}
	zeros := deflated(make([]byte, 140<<20))
	twice := deflated(zeros)
	shared := func(page string, more func(*maker)) []byte {
		m := newMaker().object(1, "<< /Type /Catalog /Pages 2 0 R >>").object(2, "<< /Kids 7 0 R >>").object(5, helveticaFont)
		var kids []string
		for i := range 2000 {
			m.object(100+i, "%s", page)
			kids = append(kids, fmt.Sprintf("%d 0 R", 100+i))
		}
		m.object(7, "[%s]", strings.Join(kids, " "))
		if more != nil {
			more(m)
		}
		return m.bytes()
	}
	cmap := "1 beginbfrange <0000> <ffff> <0041> endbfrange\n"
	for name, c := range map[string]struct {
		data []byte
		want error // nil: read with whatever text
	}{
		"a bomb":                    {filtered("/Filter /FlateDecode", zeros), TooLarge},
		"a bomb in a bomb":          {filtered("/Filter [/FlateDecode /FlateDecode]", twice), TooLarge},
		"run lengths":               {filtered("/Filter /RunLengthDecode", bytes.Repeat([]byte{129, 'x'}, 1<<20)), TooLarge},
		"base 85 of zeros":          {filtered("/Filter /ASCII85Decode", bytes.Repeat([]byte{'z'}, 9<<20)), TooLarge},
		"one stream many times":     {shared("<< /Contents 8 0 R >>", func(m *maker) { m.stream(8, "", bytes.Repeat([]byte{' '}, 1<<20)) }), TooLarge},
		"empty streams many times":  {shared("<< /Contents 8 0 R >>", func(m *maker) { m.object(8, "[%s]", repeat("9 0 R ", 100_000)).stream(9, "", nil) }), TooLarge},
		"kids many times":           {shared("<< /Kids 8 0 R >>", func(m *maker) { m.object(8, "[%s]", repeat("100 0 R ", 100_000)) }), TooLarge},
		"a form that draws itself":  {loop("BT /F 9 Tf (x) Tj ET /X Do"), TooLarge},
		"forms fanning out":         {loop(repeat("/X Do ", 64)), TooLarge},
		"deep arrays":               {programmed(repeat("[", 1<<20) + "(x) Tj"), nil},
		"deep dictionaries":         {programmed(repeat("<</A ", 1<<20) + "(x) Tj"), nil},
		"deep objects":              {newMaker().tree().stream(4, "", nil).object(5, "%s", repeat("[", 1<<20)).bytes(), nil},
		"a long array":              {filtered("/Filter /FlateDecode", deflated(bytes.Repeat([]byte("1 "), 4<<20))), nil},
		"a long array to show":      {filtered("/Filter /FlateDecode", deflated([]byte("["+repeat("1 ", 1<<20)+"] TJ"))), TooLarge},
		"elements":                  {newMaker().tree().object(7, "[%s]", repeat("0 ", MaxElements+9)).bytes(), TooLarge},
		"entries":                   {newMaker().tree().object(7, "%s", "["+repeat("<</A 1>>", MaxElements/2+9)+"]").bytes(), TooLarge},
		"saved states":              {programmed(repeat("q ", 1<<20)), TooLarge},
		"operators":                 {programmed(repeat("n ", fewOps)), TooLarge},
		"strings unclosed":          {[]byte("%PDF-1.4\n" + repeat("1 0 obj (", 1<<17) + "%%EOF"), Damaged},
		"dictionaries unclosed":     {[]byte("%PDF-1.4\n" + repeat("1 0 obj <<", 1<<17) + "%%EOF"), Damaged},
		"streams unclosed":          {[]byte("%PDF-1.4\n" + repeat("1 0 obj <<>> stream ", 1<<17) + "%%EOF"), Damaged},
		"trailers":                  {[]byte("%PDF-1.4\n" + repeat("trailer ", 1<<17) + "%%EOF"), Damaged},
		"objects that are nothing":  {[]byte("%PDF-1.4\n" + repeat("1 0 obj ", 1<<17) + "%%EOF"), Damaged},
		"blanks before obj":         {[]byte("%PDF-1.4\n" + repeat("1"+repeat(" ", 1000)+"0 obj ", 1<<12) + "%%EOF"), Damaged},
		"a wide range of widths":    {fonted("<< /Subtype /Type0 /Encoding /Identity-H /DescendantFonts [<< /W ["+repeat("0 65535 500 ", 100_000)+"] >>] >>", "(ab)", nil), TooLarge},
		"a range of texts repeated": {fonted("<< /Subtype /Type0 /ToUnicode 7 0 R >>", "(ab)", func(m *maker) { m.stream(7, "", []byte(repeat(cmap, 1000))) }), TooLarge},
		"fonts without end":         {programmed("BT " + repeat("/F 1 Tf ", 10) + repeat("<</A 1>> ", 10) + " ET"), nil},
		"one font at every use": {newMaker().tree().stream(4, "", []byte(repeat("/F 1 Tf ", 1000))).
			object(5, "<< /Subtype /Type1 /Encoding << /Differences [%s] >> >>", repeat("/odieresis ", 1<<18)).bytes(), nil},
		"fonts of one map": {func() []byte {
			m := newMaker().object(1, "<< /Type /Catalog /Pages 2 0 R >>").object(2, "<< /Kids [3 0 R] >>").stream(7, "", []byte(cmap))
			var fonts, program strings.Builder
			for i := range 200 {
				m.object(100+i, "<< /Subtype /Type0 /ToUnicode 7 0 R >>")
				fmt.Fprintf(&fonts, "/F%d %d 0 R ", i, 100+i)
				fmt.Fprintf(&program, "/F%d 1 Tf ", i)
			}
			return m.object(3, "<< /Contents 4 0 R /Resources << /Font << %s >> >> >>", fonts.String()).stream(4, "", []byte(program.String())).bytes()
		}(), TooLarge},
		"one string says more than all": {fonted("<< /Subtype /Type0 /ToUnicode 7 0 R >>", "("+repeat("ab", 1<<20)+")", func(m *maker) {
			m.stream(7, "", []byte("1 beginbfchar <6162> <00410041004100410041004100410041004100410041> endbfchar"))
		}), TooLarge},
		"packed objects overlap": {newMaker().tree().stream(4, "", nil).
			stream(9, "/Type /ObjStm /N 20000 /First 200000", []byte(repeat("50 0     ", 22222)+"  "+repeat("(", 1<<16))).bytes(), Damaged},
		"packed objects say more": {newMaker().tree().stream(4, "", nil).stream(9, "/Type /ObjStm /N 999999999 /First -5", []byte("1 2 3")).bytes(), Damaged},
		"numbers out of range":    {programmed("99999999999999999999 -99999999999999999999 Td 1e9 Tf 00000000000000000000000000000000000001 Tc BT (x) Tj ET"), nil},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := newFile(t.Context(), c.data)
		f.ops = fewOps
		if name != "a bomb" {
			f.inflated = 32 << 20
		}
		_, _, err := f.text(maxText)
		runtime.ReadMemStats(&after)
		if c.want == nil && err != nil && !errors.Is(err, Damaged) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > maxAllocated {
			t.Errorf("%s: %d MiB allocated for a file of %d KiB", name, got>>20, len(c.data)>>10)
		}
	}
}

// TestLimits tries the limits on pages, objects and text from both sides.
func TestLimits(t *testing.T) {
	paged := func(n int) []byte {
		m := newMaker().object(1, "<< /Type /Catalog /Pages 2 0 R >>")
		return m.object(2, "<< /Kids [%s] >>", strings.Repeat("<</A/B>>", n)).bytes()
	}
	if _, n, err := Text(t.Context(), paged(MaxPages), maxText); n != MaxPages || err != nil {
		t.Errorf("%d pages, %v", n, err)
	}
	if _, _, err := Text(t.Context(), paged(MaxPages+1), maxText); !errors.Is(err, TooLarge) {
		t.Errorf("a page more: %v", err)
	}
	var many bytes.Buffer
	many.WriteString("%PDF-1.4\n")
	for i := range MaxObjects + 1 {
		fmt.Fprintf(&many, "%d 0 obj 1\n", i)
	}
	many.WriteString("%%EOF")
	if _, _, err := Text(t.Context(), many.Bytes(), maxText); !errors.Is(err, TooLarge) {
		t.Errorf("objects: %v", err)
	}
	for limit, want := range map[int]error{5: nil, 3: TooLarge} {
		if _, _, err := Text(t.Context(), programmed("BT /F 9 Tf (12345) Tj ET"), limit); !errors.Is(err, want) {
			t.Errorf("five letters of %d: %v", limit, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Text(ctx, programmed(lines("late")), maxText); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
