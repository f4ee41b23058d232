// Package document turns the files that people send one another into plain text: PDF, DOCX, e-mail, HTML, Markdown and
// text. Its nouns are the File as it came, the Document that was read from it, and the Problem that says why it could
// not be. It promises that the kind is found by content and not believed from a name; that every file is read within
// the limits below, whatever its author intended; that a file is read as a whole or refused, never cut silently; and
// that a refusal says what is wrong and how to mend it, without quoting the file. Pictures are not looked at.
package document

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of one file. A file beyond them is refused with TooLarge or Bomb.
const (
	MaxBytes       = 64 << 20  // of a file as it came
	MaxText        = 8 << 20   // of the text read from it, in UTF-8
	MaxZipEntries  = 4096      // of a DOCX
	MaxUnzipped    = 128 << 20 // bytes of all parts of a DOCX that are read
	MaxRatio       = 200       // decompressed to compressed, once ratioFrom bytes have come out
	MaxXMLDepth    = 256       // of nested elements in a DOCX part
	MaxToken       = 2 << 20   // bytes of one tag or run of a DOCX part
	MaxElement     = 8 << 20   // bytes of one tag or run of HTML
	MaxMailDepth   = 8         // of parts within parts, and mails within mails
	MaxMailParts   = 256       // of one mail, its attached mails included
	MaxMailCopies  = 192 << 20 // bytes of all parts of a mail, each counted with the parts that it holds
	MaxHeaderBytes = 1 << 20   // of a mail's headers
	ratioFrom      = 1 << 20
)

// Media types of the kinds that are read.
const (
	PDF      = "application/pdf"
	DOCX     = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	Mail     = "message/rfc822"
	HTML     = "text/html"
	Markdown = "text/markdown"
	Text     = "text/plain"
)

// A Problem is the class of a refusal. Problems are sentinels for errors.Is.
type Problem string

// The problems a caller can tell apart.
const (
	Empty       Problem = "empty"       // no bytes, or only white space
	TooLarge    Problem = "too-large"   // beyond a limit
	Unsupported Problem = "unsupported" // another kind of file, or no known kind
	Mismatch    Problem = "mismatch"    // the name says another kind than the content
	Encrypted   Problem = "encrypted"   // needs a password
	Damaged     Problem = "damaged"     // truncated or malformed
	Bomb        Problem = "bomb"        // decompresses to much more than it should
	NoText      Problem = "no-text"     // pictures only
)

// Error returns the problem's name.
func (p Problem) Error() string { return string(p) }

// An Error is a refused file: what is wrong and how to mend it. It holds no part of the file.
type Error struct {
	Problem Problem
	Text    string
	Err     error // the parser's word, or nil
}

// Error returns the text, with the parser's word where there is one.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + " (" + e.Err.Error() + ")"
	}
	return e.Text
}

// Is reports whether target is the error's Problem.
func (e *Error) Is(target error) bool { return target == error(e.Problem) }

// Unwrap returns the parser's error.
func (e *Error) Unwrap() error { return e.Err }

func refuse(p Problem, format string, args ...any) error {
	return &Error{Problem: p, Text: fmt.Sprintf(format, args...)}
}

// A File is a document as it came. Name and MediaType are its sender's word; they break ties between kinds of text
// and are otherwise checked, not believed.
type File struct {
	Name      string
	MediaType string
	Data      []byte
}

// A Document is what was read from a file.
type Document struct {
	MediaType string // found by content; one of the constants above
	Text      string // valid UTF-8, lines end in \n, no control characters but \n and \t
	Pages     int    // of a PDF, else 0
	Attached  int    // attachments of a mail whose text is in Text
	Unread    int    // attachments of a mail that are not, each marked in Text
}

// Words returns how many space-separated words the text has.
func (d *Document) Words() int { return len(strings.Fields(d.Text)) }

// Read finds what kind of file f is and returns its text. Errors are an *Error, or ctx's when it ends first.
func Read(ctx context.Context, f File) (*Document, error) {
	r := &reader{ctx: ctx, left: MaxText, copies: MaxMailCopies}
	doc, err := r.read(f, 0)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(doc.Text) == "" {
		return nil, refuse(NoText, "holds no text, only pictures or nothing at all; run optical character recognition first, e.g. ocrmypdf")
	}
	return doc, nil
}

// A reader holds the budget that all parts of one file share.
type reader struct {
	ctx    context.Context
	left   int // bytes of text that may still come
	parts  int // of mails so far
	copies int // bytes of mails' parts that may still be copied
}

func (r *reader) read(f File, depth int) (*Document, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	kind, err := Detect(f)
	if err != nil {
		return nil, err
	}
	doc := &Document{MediaType: kind}
	var raw string
	switch kind {
	case PDF:
		raw, doc.Pages, err = readPDF(r.ctx, f.Data)
	case DOCX:
		raw, err = readDOCX(r.ctx, f.Data)
	case Mail:
		raw, err = r.readMail(f.Data, doc, depth)
	case HTML:
		raw, err = readHTML(decode(f.Data, htmlCharset(f)))
	default:
		if len(f.Data) > 4*MaxText { // no charset takes more than four bytes for one
			return nil, refuse(TooLarge, "holds more than %d MiB of text; split it", MaxText>>20)
		}
		raw = decode(f.Data, "")
	}
	if err != nil {
		return nil, err
	}
	doc.Text = clean(raw)
	if r.left -= len(doc.Text); r.left < 0 {
		return nil, refuse(TooLarge, "holds more than %d MiB of text; split it", MaxText>>20)
	}
	return doc, nil
}

// clean makes text uniform: \n line ends, no control or invisible characters (they would hide a number from the
// detectors), Latin ligatures spelled out, at most two line ends in a row.
func clean(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	lines, spaces := 2, 0 // line ends and spaces held back
	for i := 0; i < len(s); {
		c, n := rune(s[i]), 1
		if c >= utf8.RuneSelf {
			c, n = utf8.DecodeRuneInString(s[i:])
		}
		i += n
		switch c {
		case '\r':
			if i < len(s) && s[i] == '\n' {
				continue
			}
			c = '\n'
		case '\f', '\v', '\u0085', '\u2028', '\u2029':
			c = '\n'
		case '\u00a0', '\u2007', '\u202f', '\u2002', '\u2003', '\u2009':
			c = ' '
		}
		switch {
		case c == '\n':
			spaces = 0
			if lines < 2 {
				b.WriteByte('\n')
			}
			lines++
			continue
		case c == ' ':
			spaces++
			continue
		case invisible(c):
			continue
		}
		for ; spaces > 0; spaces-- {
			b.WriteByte(' ')
		}
		lines = 0
		if l := ligature(c); l != "" {
			b.WriteString(l)
		} else {
			b.WriteRune(c)
		}
	}
	return strings.TrimRight(b.String(), "\n\t ")
}

func invisible(c rune) bool {
	switch {
	case c == '\t':
		return false
	case c < ' ', c >= 0x7f && c < 0xa0:
		return true
	case c == 0xad, c >= 0x200b && c <= 0x200f, c >= 0x202a && c <= 0x202e, c >= 0x2060 && c <= 0x2064, c == 0xfeff:
		return true
	}
	return false
}

func ligature(c rune) string {
	if c < 0xfb00 || c > 0xfb06 {
		return ""
	}
	return [...]string{"ff", "fi", "fl", "ffi", "ffl", "st", "st"}[c-0xfb00]
}
