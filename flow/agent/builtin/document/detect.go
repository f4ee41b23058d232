package document

import (
	"archive/zip"
	"bytes"
	"path"
	"slices"
	"strings"
)

// Detect returns the media type of f by its content. The name and declared type only decide between kinds of text, and
// a name that claims another kind than the content is a Mismatch.
func Detect(f File) (string, error) {
	if len(f.Data) > MaxBytes {
		return "", refuse(TooLarge, "is %d MiB, the limit is %d MiB; split it", len(f.Data)>>20, MaxBytes>>20)
	}
	if len(bytes.TrimSpace(f.Data)) == 0 {
		return "", refuse(Empty, "is empty; send the document itself")
	}
	claim := claimed(f)
	kind, err := sniff(f.Data, claim)
	if err != nil {
		return "", err
	}
	if kind == "" {
		if claim == PDF || claim == DOCX {
			return "", refuse(Mismatch, "is named as %s but does not begin like one: it is truncated or misnamed; export it again", title(claim))
		}
		return sniffText(f.Data, claim)
	}
	if claim != "" && claim != kind {
		return "", refuse(Mismatch, "is named as %s but holds %s; give it its right extension", title(claim), title(kind))
	}
	return kind, nil
}

// claimed returns the kind that the name's extension claims or, without one that is known, the declared media type's
// when that is a kind of text; "" for none.
func claimed(f File) string {
	switch strings.ToLower(path.Ext(f.Name)) {
	case ".pdf":
		return PDF
	case ".docx":
		return DOCX
	case ".eml":
		return Mail
	case ".html", ".htm", ".xhtml":
		return HTML
	case ".md", ".markdown":
		return Markdown
	case ".txt", ".text":
		return Text
	}
	base, _, _ := strings.Cut(strings.ToLower(f.MediaType), ";")
	switch base = strings.TrimSpace(base); base {
	case Mail, HTML, Markdown, Text:
		return base
	}
	return ""
}

func title(kind string) string {
	switch kind {
	case PDF:
		return "PDF"
	case DOCX:
		return "DOCX"
	case Mail:
		return "e-mail"
	case HTML:
		return "HTML"
	case Markdown:
		return "Markdown"
	}
	return "text"
}

// A signature is how a kind that isn't read begins, so that the refusal can name it.
type signature struct{ begin, text string }

func unreadable() []signature {
	return []signature{
		{"{\\rtf", "is RTF; save it as DOCX or PDF"},
		{"\x89PNG", "is a picture; run optical character recognition first, e.g. ocrmypdf"},
		{"\xff\xd8\xff", "is a picture; run optical character recognition first, e.g. ocrmypdf"},
		{"GIF8", "is a picture; run optical character recognition first, e.g. ocrmypdf"},
		{"II*\x00", "is a picture; run optical character recognition first, e.g. ocrmypdf"},
		{"MM\x00*", "is a picture; run optical character recognition first, e.g. ocrmypdf"},
		{"%!PS", "is PostScript; convert it, e.g. ps2pdf"},
		{"\x1f\x8b", "is a gzip archive; unpack it and send the document"},
		{"BZh", "is a bzip2 archive; unpack it and send the document"},
		{"7z\xbc\xaf", "is a 7z archive; unpack it and send the document"},
		{"Rar!", "is a RAR archive; unpack it and send the document"},
		{"\x7fELF", "is a program, not a document"},
		{"MZ\x90\x00", "is a program, not a document"},
	}
}

// sniff recognises binary kinds; "" is left to sniffText.
func sniff(data []byte, claim string) (string, error) {
	// Readers of PDF allow up to 1,024 bytes before the header (ISO 32000-1, annex H.3.4.1); a text may speak of it.
	if at := bytes.Index(data[:min(len(data), 1024)], []byte("%PDF-")); at == 0 || at > 0 && (claim == "" || claim == PDF) {
		return PDF, nil
	}
	for _, s := range unreadable() {
		if bytes.HasPrefix(data, []byte(s.begin)) {
			return "", refuse(Unsupported, "%s", s.text)
		}
	}
	switch {
	case bytes.HasPrefix(data, []byte("PK\x03\x04")), bytes.HasPrefix(data, []byte("PK\x05\x06")):
		return sniffZip(data)
	case bytes.HasPrefix(data, []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")):
		// A password-protected DOCX is an OLE file with this stream, its name in UTF-16 (MS-OFFCRYPTO 2.3.4.4).
		if bytes.Contains(data, []byte("E\x00n\x00c\x00r\x00y\x00p\x00t\x00e\x00d\x00P\x00a\x00c\x00k\x00a\x00g\x00e\x00")) {
			return "", refuse(Encrypted, "is encrypted with a password; remove it in the word processor and save again")
		}
		return "", refuse(Unsupported, "is of the old binary Office format; save it as DOCX or PDF")
	}
	return "", nil
}

func sniffZip(data []byte) (string, error) {
	// Embedded archives have entries of their own; a directory that would fill memory is not opened.
	if n := bytes.Count(data, []byte("PK\x01\x02")); n > 4*MaxZipEntries {
		return "", refuse(Bomb, "holds %d parts, the limit is %d; save it again from a word processor, or as PDF", n, MaxZipEntries)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", &Error{Damaged, "is a truncated or damaged DOCX or ZIP; export it again", err}
	}
	if len(z.File) > MaxZipEntries {
		return "", refuse(Bomb, "holds %d parts, the limit is %d; save it again from a word processor, or as PDF", len(z.File), MaxZipEntries)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(z.File, func(f *zip.File) bool { return f.Name == name })
	}
	switch {
	case has("word/document.xml"):
		return DOCX, nil
	case has("xl/workbook.xml"):
		return "", refuse(Unsupported, "is an Excel workbook; print it to PDF")
	case has("ppt/presentation.xml"):
		return "", refuse(Unsupported, "is a PowerPoint presentation; print it to PDF")
	case has("content.xml") && has("mimetype"):
		return "", refuse(Unsupported, "is an OpenDocument file; save it as DOCX or PDF")
	}
	return "", refuse(Unsupported, "is a ZIP archive; unpack it and send the documents")
}

func sniffText(data []byte, claim string) (string, error) {
	head := decode(data[:min(len(data), 64<<10)], "")
	if junk(head) {
		return "", refuse(Unsupported, "is binary and of no known kind; send PDF, DOCX, e-mail, HTML, Markdown or text")
	}
	mail := mailHeaders(head) >= 2
	switch {
	case claim == Mail && !mail:
		return "", refuse(Mismatch, "is named as e-mail but has no mail headers; give it its right extension")
	case mail && (claim == "" || claim == Mail):
		return Mail, nil
	case claim == Text || claim == Markdown || claim == HTML:
		if claim == Text && looksHTML(head) {
			return HTML, nil
		}
		return claim, nil
	case looksHTML(head):
		return HTML, nil
	}
	return Text, nil
}

// junk reports whether more than 1 character in 200 is one that text doesn't have.
func junk(s string) bool {
	bad, all := 0, 0
	for _, c := range s {
		all++
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != '\v' && c != 0x1b || c >= 0x7f && c < 0xa0 && c != 0x85 || c == 0xfffd {
			bad++
		}
	}
	return bad*200 > all
}

// looksHTML wants a doctype or an html, head or body element at the start, after comments and an XML declaration.
func looksHTML(s string) bool {
	s = strings.ToLower(strings.TrimSpace(s[:min(len(s), 2048)]))
	for strings.HasPrefix(s, "<!--") || strings.HasPrefix(s, "<?xml") {
		_, rest, found := strings.Cut(s, ">")
		if !found {
			return false
		}
		s = strings.TrimSpace(rest)
	}
	for _, p := range []string{"<!doctype html", "<html", "<head", "<body"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// mailHeaders counts distinct usual header fields before the first empty line.
func mailHeaders(s string) int {
	usual := []string{"from:", "to:", "subject:", "date:", "mime-version:", "received:", "message-id:", "return-path:", "content-type:", "delivered-to:", "reply-to:", "cc:"}
	seen := 0
	if strings.HasPrefix(s, mailboxMark) {
		_, s, _ = strings.Cut(s, "\n")
	}
	for line := range strings.Lines(s) {
		line = strings.ToLower(strings.TrimRight(line, "\r\n"))
		if line == "" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if name, _, ok := strings.Cut(line, ":"); !ok || strings.ContainsAny(name, " \t") {
			break
		}
		for i, u := range usual {
			if u != "" && strings.HasPrefix(line, u) {
				usual[i] = ""
				seen++
			}
		}
	}
	return seen
}
