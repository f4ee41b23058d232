package pdf

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"strings"
)

// A maker writes PDF files for tests, with a true cross-reference table.
type maker struct {
	out     bytes.Buffer
	offsets map[int]int
	last    int // greatest object number
}

func newMaker() *maker {
	m := &maker{offsets: map[int]int{}}
	m.out.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	return m
}

// object writes "N 0 obj body endobj".
func (m *maker) object(n int, format string, args ...any) *maker {
	m.offsets[n] = m.out.Len()
	m.last = max(m.last, n)
	fmt.Fprintf(&m.out, "%d 0 obj\n%s\nendobj\n", n, fmt.Sprintf(format, args...))
	return m
}

// stream writes a stream object; entries go into its dictionary.
func (m *maker) stream(n int, entries string, data []byte) *maker {
	return m.object(n, "<< %s /Length %d >>\nstream\n%s\nendstream", entries, len(data), data)
}

// bytes ends the file.
func (m *maker) bytes() []byte {
	at := m.out.Len()
	fmt.Fprintf(&m.out, "xref\n0 %d\n0000000000 65535 f \n", m.last+1)
	for i := 1; i <= m.last; i++ {
		fmt.Fprintf(&m.out, "%010d 00000 n \n", m.offsets[i])
	}
	fmt.Fprintf(&m.out, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", m.last+1, at)
	return m.out.Bytes()
}

// tree writes a catalogue (1), pages (2) and one page (3) whose program is object 4 and whose font F is object 5.
func (m *maker) tree() *maker {
	return m.object(1, "<< /Type /Catalog /Pages 2 0 R >>").
		object(2, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>").
		object(3, "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F 5 0 R >> /XObject << /X 6 0 R >> >> >>")
}

const helveticaFont = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"

// programmed is a file of one page with this program.
func programmed(program string) []byte {
	return newMaker().tree().stream(4, "", []byte(program)).object(5, helveticaFont).bytes()
}

// filtered is a file of one page whose program is packed.
func filtered(entries string, packed []byte) []byte {
	return newMaker().tree().stream(4, entries, packed).object(5, helveticaFont).bytes()
}

// fonted is a file of one page that shows a string in a font.
func fonted(font, shown string, more func(*maker)) []byte {
	m := newMaker().tree().stream(4, "", []byte("BT /F 10 Tf 50 700 Td "+shown+" Tj ET")).object(5, "%s", font)
	if more != nil {
		more(m)
	}
	return m.bytes()
}

func deflated(data []byte) []byte {
	var b bytes.Buffer
	z, err := zlib.NewWriterLevel(&b, zlib.BestCompression)
	if err == nil {
		_, err = z.Write(data)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// lines is a program that shows one line after the other.
func lines(texts ...string) string {
	var b strings.Builder
	b.WriteString("BT /F 11 Tf 14 TL 60 780 Td\n")
	for _, t := range texts {
		fmt.Fprintf(&b, "(%s) Tj T*\n", strings.NewReplacer(`\`, `\\`, "(", `\(`, ")", `\)`).Replace(t))
	}
	b.WriteString("ET\n")
	return b.String()
}
