package document

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// read reads a file that must be readable.
func read(t *testing.T, name string, data []byte) *Document {
	t.Helper()
	doc, err := Read(t.Context(), File{Name: name, Data: data})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return doc
}

// refused wants a file to be refused for a reason, by an error that tells how to mend it.
func refused(t *testing.T, what string, f File, want Problem) {
	t.Helper()
	_, err := Read(t.Context(), f)
	var own *Error
	if !errors.Is(err, want) || !errors.As(err, &own) {
		t.Errorf("%s: %v, want %s", what, err, want)
	} else if own.Text == "" || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "utf-7") {
		t.Errorf("%s: the refusal %q", what, err)
	}
}

// zipped makes a ZIP of names and contents, in turn.
func zipped(parts ...string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		w, err := z.Create(parts[i])
		if err == nil {
			_, err = w.Write([]byte(parts[i+1]))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// word is a WordprocessingML part of this body.
func word(body string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="x" xmlns:mc="y"><w:body>` + body + `</w:body></w:document>`
}

func para(text string) string { return "<w:p><w:r><w:t>" + text + "</w:t></w:r></w:p>" }

func docx(body string) []byte {
	return zipped("[Content_Types].xml", "<Types/>", "word/document.xml", word(body))
}

// pdfOf is a small PDF that shows one line.
func pdfOf(line string) []byte {
	program := "BT /F 10 Tf 50 700 Td (" + line + ") Tj ET"
	return fmt.Appendf(nil, "%%PDF-1.4\n1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj 2 0 obj <</Kids[3 0 R]>> endobj 3 0 obj <</Type/Page/Contents 4 0 R>> endobj\n"+
		"4 0 obj <</Length %d>> stream\n%s\nendstream endobj trailer <</Root 1 0 R>>\n%%%%EOF", len(program), program)
}

func TestProducersOfDOCX(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.txt")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.docx")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		doc := read(t, name, data)
		if got := strings.TrimSpace(doc.Text); doc.MediaType != DOCX || got != strings.TrimSpace(string(sample)) {
			t.Errorf("%s: %s %q", name, doc.MediaType, got)
		}
	}
}

func TestDOCX(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"paragraphs", para("one") + para("two"), "one\ntwo"},
		{"runs join", "<w:p><w:r><w:t>split</w:t></w:r><w:r><w:t xml:space=\"preserve\">ted word</w:t></w:r></w:p>", "splitted word"},
		{"white space around", "\n <w:p>\n <w:r>\n <w:t>x</w:t>\n </w:r>\n </w:p>\n", "x"},
		{"entities", para("a &amp; b &lt;c&gt; &#228;"), "a & b <c> ä"},
		{"tabs and breaks", "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r></w:p>", "a\tb\nc-d"},
		{"table", "<w:tbl><w:tr><w:tc>" + para("l") + "</w:tc><w:tc>" + para("r") + "</w:tc></w:tr></w:tbl>", "l\n\tr"},
		{"deleted text", "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>", "new"},
		{"field codes", "<w:p><w:r><w:instrText>HYPERLINK x</w:instrText></w:r><w:r><w:t>link</w:t></w:r></w:p>", "link"},
		{"text box and its fallback", "<w:p><mc:AlternateContent><mc:Choice>" + para("box") + "</mc:Choice><mc:Fallback>" + para("box") + "</mc:Fallback></mc:AlternateContent></w:p>" + para("after"), "box\n\nafter"},
	} {
		got := read(t, c.name+".docx", docx(c.body)).Text
		got = strings.Join(strings.FieldsFunc(got, func(r rune) bool { return r == '\n' }), "\n")
		want := strings.ReplaceAll(c.want, "\n\n", "\n")
		if got != want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
	all := zipped("word/footer1.xml", word(para("foot")), "word/comments.xml", word(para("comment")), "word/footnotes.xml", word(para("note")),
		"word/document.xml", word(para("body")), "word/header2.xml", word(para("head 2")), "word/header1.xml", word(para("head 1")),
		"word/endnotes.xml", word(para("end")), "word/styles.xml", word(para("no")), "word/media/image.xml", "junk", "docProps/core.xml", "junk")
	if got := strings.Fields(read(t, "all.docx", all).Text); strings.Join(got, " ") != "head 1 head 2 body note end comment foot" {
		t.Errorf("parts: %q", got)
	}
}

func TestHTML(t *testing.T) {
	for _, c := range []struct{ html, want string }{
		{"<html><head><title>T</title></head><body><p>one\n  two</p><p>three</p></body></html>", "T\n\none two\n\nthree"},
		{"<!DOCTYPE html><body>a&amp;b &euro;&#x41;&nbsp;c", "a&b €A c"},
		{"<html>x<script>var p = '<p>no</p>'</script><style>p{}</style><template>no</template><!-- no -->y", "xy"},
		{"<html><ul><li>one<li>two</ul><table><tr><td>a<td>b</td></tr></table>", "- one\n- two\n\na\tb"},
		{"<html>a<br>b<img alt='pic'><input value='typed'>", "a\nb pic  typed"},
		{"<html><svg><text>drawn</text></svg><svg/> after <object/> here<iframe></iframe>", "drawn after  here"},
		{"<html><p>unclosed <b>bold <a href='x'>link", "unclosed bold link"},
		{"<?xml version='1.0'?><!-- c --><html><body>x</body></html>", "x"},
	} {
		if got := read(t, "a.html", []byte(c.html)); got.Text != c.want || got.MediaType != HTML {
			t.Errorf("%s: %s %q, want %q", c.html, got.MediaType, got.Text, c.want)
		}
	}
	for charset, data := range map[string]string{
		"in a meta element": "<html><meta charset=\"iso-8859-2\"><p>\xb1</p>",
		"http-equiv":        "<html><meta http-equiv=Content-Type content='text/html; charset=iso-8859-2'>\xb1",
	} {
		if got := read(t, "a.html", []byte(data)).Text; got != "ą" {
			t.Errorf("%s: %q", charset, got)
		}
	}
	doc, err := Read(t.Context(), File{MediaType: "text/html; charset=windows-1251", Data: []byte("<html>\xcf\xf0\xe8\xe2\xe5\xf2")})
	if err != nil || doc.Text != "Привет" {
		t.Errorf("declared: %v %v", doc, err)
	}
}

func TestCharsets(t *testing.T) {
	for _, c := range []struct{ name, data, label, want string }{
		{"UTF-8", "Grüße", "", "Grüße"},
		{"UTF-8 with mark", "\xef\xbb\xbfGrüße", "iso-8859-1", "Grüße"},
		{"UTF-16LE with mark", "\xff\xfeG\x00r\x00\xfc\x00", "", "Grü"},
		{"UTF-16BE with mark", "\xfe\xff\x00G\x00r\x00\xfc", "", "Grü"},
		{"UTF-16LE without", "t\x00e\x00x\x00t\x00 \x00o\x00f\x00 \x00m\x00a\x00n\x00y\x00", "", "text of many"},
		{"UTF-16BE without", "\x00t\x00e\x00x\x00t\x00 \x00o\x00f\x00 \x00m\x00a\x00n\x00y", "", "text of many"},
		{"UTF-16 pair", "\xff\xfe\x3d\xd8\x00\xde", "", "😀"},
		{"UTF-16 half a pair", "\xff\xfe\x3d\xd8a\x00", "", "\ufffda"},
		{"UTF-16 cut in a pair", "\xff\xfea\x00\x3d\xd8", "", "a\ufffd"},
		{"UTF-16 odd", "\xff\xfea\x00b", "", "a\ufffd"},
		{"Windows-1252", "Gr\xfc\xdfe \x80 \x93x\x94", "", "Grüße € “x”"},
		{"Latin 1 is Windows-1252", "\x80", "ISO-8859-1", "€"},
		{"Latin 9", "\xa4", "\"iso-8859-15\"", "€"},
		{"KOI8-R", "\xf0\xd2\xc9", "koi8-r", "При"},
		{"Greek", "\xe1\xe2", "iso-8859-7", "αβ"},
		{"Turkish", "\xfe", "windows-1254", "ş"},
		{"Mac", "\x8a", "macintosh", "ä"},
		{"UTF-8 by label, broken", "a\xff", "utf-8", "a\ufffd"},
		{"unknown label", "Grüße", "x-unknown", "Grüße"},
	} {
		if got := decode([]byte(c.data), c.label); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// A cut character at the end of the beginning of a file doesn't make it another charset.
	long := strings.Repeat("a", 64<<10-1) + "é" + strings.Repeat("b", 100)
	if got := read(t, "a.txt", []byte(long)).Text; got != long {
		t.Error("a character across 64 KiB was lost")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"a\r\nb\rc\n\n\n\nd":               "a\nb\nc\n\nd",
		"\n\n a":                           " a",
		"a  \nb \t":                        "a\nb",
		"4111\u200b1111\u00ad\u2060\ufeff": "41111111",
		"a\u00a0b\u202fc\u2003d":           "a b c d",
		"o\ufb03ce \ufb01t":                "office fit",
		"a\x00b\x1bc\u0085d":               "abc\nd",
		"a\u202eb\ufffd\xff":               "ab\ufffd\ufffd",
		"page\fpage\vline\u2028line":       "page\npage\nline\nline",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestHyphens puts words of a PDF together again that were hyphenated.
func TestHyphens(t *testing.T) {
	for in, want := range map[string]string{
		"Insur-\nance":           "Insurance",
		"a.b@mail-\nbox.example": "a.b@mailbox.example",
		"soft\u00ad\nhyphen":     "softhyphen",
		"other\u2010\nhyphen\n":  "otherhyphen\n",
		"1-\nyear":               "1-\nyear",
		"E-\nMail":               "E-\nMail",
		"- \n- item":             "- \n- item",
		"x -\ny":                 "x -\ny",
		"A-\n\nb":                "A-\n\nb",
		"trailing-":              "trailing-",
		"two-\nby-\ntwo":         "twobytwo",
		"Straßen-\nübergang":     "Straßenübergang",
	} {
		if got := joined(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestDetect wants the content to decide, and a name that says otherwise to be refused.
func TestDetect(t *testing.T) {
	mail := "From: a@b.example\nTo: c@d.example\nSubject: x\n\nhello\n"
	for _, c := range []struct{ name, mediaType, data, want string }{
		{"a.pdf", "", "%PDF-1.4 x", PDF},
		{"a", "text/plain", "junk\n%PDF-1.4", Text},
		{"a", "", "junk\n%PDF-1.4", PDF},
		{"a.md", "", "# How a %PDF-1.7 file begins", Markdown},
		{"a.bin", "", string(docx(para("x"))), DOCX},
		{"", "", mail, Mail},
		{"a.EML", "", mail, Mail},
		{"a.eml", "", "From alice@example Mon Jan 1 00:00:00 2026\n" + mail, Mail},
		{"a.txt", "", mail, Text},
		{"", "text/markdown; charset=utf-8", "x", Markdown},
		{"a.txt", "", "<!doctype html><p>x", HTML},
		{"a", "", "  <HTML>", HTML},
		{"a.htm", "", "no tags", HTML},
		{"a.txt", "", "plain", Text},
		{"a.json", "application/json", "{}", Text},
		{"a", "", "Note: this\nAlso: that\n\nx", Text},
	} {
		got, err := Detect(File{Name: c.name, MediaType: c.mediaType, Data: []byte(c.data)})
		if got != c.want || err != nil {
			t.Errorf("%s %s %.20q: %s, %v; want %s", c.name, c.mediaType, c.data, got, err, c.want)
		}
	}
}

// FuzzRead wants no panic, an error of a known class, and clean text, for any bytes under any name.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"hello", "\xff\xfeh\x00", "<html><p>x</p><script>y", "%PDF-1.4\n%%EOF", "From: a@b\nTo: c@d\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\ny\n--x--\n"} {
		f.Add("a", "", []byte(s))
	}
	f.Add("a.docx", "", docx(para("x")+"<w:tbl/>"))
	f.Add("a.pdf", "", pdfOf("x"))
	f.Add("a.htm", "text/html; charset=koi8-r", []byte("<meta charset=utf-16><p>x"))
	f.Fuzz(func(t *testing.T, name, mediaType string, data []byte) {
		sound(t, File{Name: name, MediaType: mediaType, Data: data})
	})
}

// FuzzHTML, FuzzMail, FuzzDOCX and FuzzCharset reach the readers without the right beginning.
func FuzzHTML(f *testing.F) {
	f.Add("<p>x<b>y</b><img alt=z><table><td>1<template><script><![CDATA[x]]></svg>")
	f.Fuzz(func(t *testing.T, s string) {
		if text, err := readHTML(s); err == nil && len(text) > 4*len(s)+4 {
			t.Fatalf("%d bytes became %d", len(s), len(text))
		}
	})
}

func FuzzMail(f *testing.F) {
	f.Add("multipart/mixed; boundary=x", "base64", []byte("--x\nContent-Type: text/html\n\n<b>y\n--x\nContent-Type: message/rfc822\n\nFrom: a@b\nTo: c@d\n\nz\n--x--\n"))
	f.Add("text/plain; charset=iso-8859-2", "quoted-printable", []byte("=B1=\nx"))
	f.Fuzz(func(t *testing.T, contentType, encoding string, body []byte) {
		head := "From: =?utf-8?q?a=20b?= <a@b.example>\nTo: c@d.example\nContent-Type: " + contentType + "\nContent-Transfer-Encoding: " + encoding + "\n\n"
		sound(t, File{Name: "a.eml", Data: append([]byte(head), body...)})
	})
}

func FuzzDOCX(f *testing.F) {
	f.Add(word(para("x")))
	f.Add("<a><b c='d'>&amp;<![CDATA[e]]><!-- f --></b></a>")
	f.Fuzz(func(t *testing.T, part string) {
		sound(t, File{Name: "a.docx", Data: zipped("word/document.xml", part)})
	})
}

func FuzzCharset(f *testing.F) {
	f.Add("utf-16", []byte("\x00a\xd8\x3d\xde\x00"))
	f.Add("koi8-r", []byte("\xf0"))
	f.Fuzz(func(t *testing.T, label string, data []byte) {
		if s := decode(data, label); !utf8.ValidString(s) || len(s) > 3*len(data) {
			t.Fatalf("%q", s)
		}
	})
}

// sound wants a file read into clean text or refused with a class.
func sound(t *testing.T, f File) {
	t.Helper()
	doc, err := Read(context.Background(), f)
	if err != nil {
		var own *Error
		if !errors.As(err, &own) || own.Problem == "" || own.Text == "" {
			t.Fatalf("an error of no class: %v", err)
		}
		return
	}
	if !utf8.ValidString(doc.Text) || len(doc.Text) > MaxText || strings.TrimSpace(doc.Text) == "" || strings.Contains(doc.Text, "\n\n\n") {
		t.Fatalf("%q", doc.Text)
	}
	if i := strings.IndexFunc(doc.Text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }); i >= 0 {
		t.Fatalf("a control character at %d of %q", i, doc.Text)
	}
}

func BenchmarkReadDOCX(b *testing.B) {
	data := docx(strings.Repeat(para("The parties agree to what follows and sign it."), 2000))
	b.SetBytes(2000 * 46)
	for b.Loop() {
		if _, err := Read(context.Background(), File{Data: data}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadText(b *testing.B) {
	data := bytes.Repeat([]byte("The parties agree to what follows and sign it.\n"), 2000)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Read(context.Background(), File{Data: data}); err != nil {
			b.Fatal(err)
		}
	}
}
