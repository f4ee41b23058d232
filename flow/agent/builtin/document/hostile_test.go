package document

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// maxAllocated bounds what a hostile file may make the reader allocate in all, and so at any one time.
const maxAllocated = 640 << 20

// forged changes the sizes that a ZIP's directory claims for its first file.
func forged(data []byte, packed, unpacked uint32) []byte {
	data = bytes.Clone(data)
	at := bytes.Index(data, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(data[at+20:], packed)
	binary.LittleEndian.PutUint32(data[at+24:], unpacked)
	return data
}

// miscounted changes the checksum that a ZIP's directory has for its last file.
func miscounted(data []byte) []byte {
	data = bytes.Clone(data)
	data[bytes.LastIndex(data, []byte("PK\x01\x02"))+16] ^= 1
	return data
}

// locked sets the flag of encryption on every file of a ZIP.
func locked(data []byte) []byte {
	data = bytes.Clone(data)
	for mark, offset := range map[string]int{"PK\x01\x02": 8, "PK\x03\x04": 6} {
		for at := 0; ; at++ {
			i := bytes.Index(data[at:], []byte(mark))
			if i < 0 {
				break
			}
			at += i
			data[at+offset] |= 1
		}
	}
	return data
}

// directory is a ZIP whose directory has n entries for no files.
func directory(n int) []byte {
	entry := make([]byte, 46)
	copy(entry, "PK\x01\x02")
	out := append([]byte("PK\x03\x04"), bytes.Repeat(entry, n)...)
	end := make([]byte, 22)
	copy(end, "PK\x05\x06")
	binary.LittleEndian.PutUint16(end[8:], uint16(n))
	binary.LittleEndian.PutUint16(end[10:], uint16(n))
	binary.LittleEndian.PutUint32(end[12:], uint32(46*n))
	binary.LittleEndian.PutUint32(end[16:], 4)
	return append(out, end...)
}

func TestRefused(t *testing.T) {
	ole := append([]byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), make([]byte, 512)...)
	encrypted, err := os.ReadFile("../pdf/testdata/encrypted.pdf")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile("testdata/pandoc.docx")
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 4096)
	for i := range junk {
		junk[i] = byte(i * i * 7 >> 3)
	}
	var many []string
	for i := range MaxZipEntries + 1 {
		many = append(many, fmt.Sprintf("word/%d.xml", i), "x")
	}
	repeat := strings.Repeat
	for _, c := range []struct {
		what, name string
		data       []byte
		want       Problem
	}{
		{"nothing", "a.txt", nil, Empty},
		{"white space", "a.pdf", []byte(" \r\n\t "), Empty},
		{"binary junk", "secret", junk, Unsupported},
		{"binary junk as text", "secret.txt", junk, Unsupported},
		{"binary junk as PDF", "a.pdf", junk, Mismatch},
		{"text as PDF", "a.pdf", []byte("secret"), Mismatch},
		{"text as DOCX", "a.docx", []byte("secret"), Mismatch},
		{"text as mail", "a.eml", []byte("secret"), Mismatch},
		{"PDF as text", "a.txt", pdfOf("secret"), Mismatch},
		{"PDF as DOCX", "a.docx", pdfOf("secret"), Mismatch},
		{"DOCX as PDF", "a.pdf", docx(para("secret")), Mismatch},
		{"a picture", "a.png", []byte("\x89PNG\r\n\x1a\nsecret"), Unsupported},
		{"RTF", "a.rtf", []byte(`{\rtf1 secret}`), Unsupported},
		{"old Word", "a.doc", ole, Unsupported},
		{"Excel", "a.xlsx", zipped("xl/workbook.xml", "x"), Unsupported},
		{"PowerPoint", "a.pptx", zipped("ppt/presentation.xml", "x"), Unsupported},
		{"OpenDocument", "a.odt", zipped("mimetype", "x", "content.xml", "x"), Unsupported},
		{"a ZIP", "a.zip", zipped("a.txt", "secret"), Unsupported},
		{"a program", "a", []byte("\x7fELFsecret"), Unsupported},
		{"encrypted PDF", "a.pdf", encrypted, Encrypted},
		{"encrypted Office", "a.docx", append(bytes.Clone(ole), "E\x00n\x00c\x00r\x00y\x00p\x00t\x00e\x00d\x00P\x00a\x00c\x00k\x00a\x00g\x00e\x00"...), Encrypted},
		{"encrypted ZIP parts", "a.docx", locked(docx(para("secret"))), Encrypted},
		{"PDF without text", "a.pdf", pdfOf(""), NoText},
		{"DOCX without text", "a.docx", docx("<w:drawing/>"), NoText},
		{"HTML without text", "a.html", []byte("<html><script>secret</script>"), NoText},
		{"invisible text", "a.txt", []byte("\u200b\u200b\u200b"), NoText},
		{"cut PDF", "a.pdf", pdfOf("secret")[:200], Damaged},
		{"cut DOCX", "a.docx", whole[:len(whole)/2], Damaged},
		{"XML cut off", "a.docx", zipped("word/document.xml", word(para("secret"))[:90]), Damaged},
		{"XML of another charset", "a.docx", zipped("word/document.xml", `<?xml version="1.0" encoding="utf-7"?><a>secret</a>`), Damaged},
		{"undefined entities", "a.docx", docx("<!DOCTYPE x [<!ENTITY secret 'secret'>]>" + para("&secret;")), Damaged},
		{"more ends than starts", "a.docx", zipped("word/document.xml", "<a></a></b>"), Damaged},
		{"a wrong checksum", "a.docx", miscounted(docx(para("secret"))), Damaged},
		{"too many bytes", "a.txt", make([]byte, MaxBytes+1), TooLarge},
		{"too much text", "a.txt", []byte(repeat("secret ", MaxText/7+1)), TooLarge},
		{"far too much text", "a.txt", []byte(repeat("secret ", 5*MaxText/7)), TooLarge},
		{"too much HTML", "a.html", []byte("<html>" + repeat("<p>secret ", MaxText/7+1)), TooLarge},
		{"an HTML tag of a bomb", "a.html", []byte("<html><p " + repeat("a ", MaxElement/2+1) + ">secret"), TooLarge},
		{"too many parts", "a.docx", zipped(append(many, "word/document.xml", word(para("x")))...), Bomb},
		{"a directory of a bomb", "a.docx", directory(1_000_000), Bomb},
		{"blanks", "a.docx", docx(repeat(" ", 1<<20) + repeat("<w:p/>"+repeat(" ", 1<<16), 400)), Bomb},
		{"many parts of blanks", "a.docx", zipped("word/document.xml", word(repeat("<w:p/>"+repeat(" ", 1<<16), 15)), "word/header1.xml", word(repeat("<w:p/>"+repeat(" ", 1<<16), 400))), Bomb},
		{"one long run", "a.docx", docx(para(repeat("secret ", MaxToken/7+1))), Bomb},
		{"attributes", "a.docx", docx("<w:p " + repeat(`secret=">" `, MaxToken/10) + "/>"), Bomb},
		{"deep XML", "a.docx", docx(repeat("<w:p>", MaxXMLDepth+1) + repeat("</w:p>", MaxXMLDepth+1)), Bomb},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		refused(t, c.what, File{Name: c.name, Data: c.data}, c.want)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > maxAllocated {
			t.Errorf("%s: %d MiB allocated for a file of %d KiB", c.what, got>>20, len(c.data)>>10)
		}
	}
}

// TestForgedSizes wants a ZIP's word on sizes not to be believed: what comes out counts.
func TestForgedSizes(t *testing.T) {
	bomb := zipped("word/document.xml", word(strings.Repeat("<w:p/>"+strings.Repeat(" ", 1<<16), 400)))
	for name, data := range map[string][]byte{
		"small": forged(bomb, uint32(len(bomb))/2, 10),
		"large": forged(bomb, 60<<20, 60<<20),
	} {
		_, err := Read(t.Context(), File{Name: "a.docx", Data: data})
		if !errors.Is(err, Bomb) && !errors.Is(err, Damaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCut wants no file cut short to be taken for whole where its format can tell.
func TestCut(t *testing.T) {
	good := docx(para("hello"))
	for n := 1; n < len(good); n++ {
		if doc, err := Read(t.Context(), File{Name: "a.docx", Data: good[:n]}); err == nil {
			t.Fatalf("DOCX cut at %d: %q", n, doc.Text)
		}
	}
	mail := mailOf("multipart/mixed; boundary=b", "--b\n\nhello\n"+attached("a.txt", "text/plain", []byte("there"))+"--b--\n")
	for n := bytes.Index(mail, []byte("hello")); n < len(mail)-4; n++ {
		if doc, err := Read(t.Context(), File{Name: "a.eml", Data: mail[:n]}); err == nil {
			t.Fatalf("mail cut at %d: %q", n, doc.Text)
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, data := range map[string][]byte{"a.pdf": pdfOf("x"), "a.docx": docx(para("x")), "a.txt": []byte("x")} {
		if _, err := Read(ctx, File{Name: name, Data: data}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStored reads a DOCX whose parts are not compressed.
func TestStored(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "word/document.xml", Method: zip.Store})
	if err == nil {
		_, err = w.Write([]byte(word(para("stored"))))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if doc := read(t, "a.docx", b.Bytes()); doc.Text != "stored" || doc.Words() != 1 {
		t.Errorf("%q", doc.Text)
	}
}
