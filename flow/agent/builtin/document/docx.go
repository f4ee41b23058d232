package document

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
)

// readDOCX returns the text of headers, body, notes, comments and footers, in that order. Paragraphs end lines, table
// cells end in tabs. Deleted text of tracked changes is left out; inserted text counts.
func readDOCX(ctx context.Context, data []byte) (string, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", &Error{Damaged, "is a truncated or damaged DOCX; export it again", err}
	}
	parts := slices.DeleteFunc(slices.Clone(z.File), func(f *zip.File) bool { return rank(f.Name) < 0 })
	slices.SortStableFunc(parts, func(a, b *zip.File) int {
		if d := rank(a.Name) - rank(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	var out strings.Builder
	total := &meter{left: MaxUnzipped}
	for _, f := range parts {
		if f.Flags&1 != 0 {
			return "", refuse(Encrypted, "is encrypted with a password; remove it in the word processor and save again")
		}
		if err := readPart(ctx, f, total, &out); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// rank orders the parts that are read; -1 leaves a part out.
func rank(name string) int {
	dir, base := path.Split(name)
	if dir != "word/" || path.Ext(base) != ".xml" {
		return -1
	}
	for i, prefix := range []string{"header", "document.xml", "footnotes.xml", "endnotes.xml", "comments.xml", "footer"} {
		if strings.HasPrefix(base, prefix) {
			return i
		}
	}
	return -1
}

// A meter counts what comes out of decompression, over all parts.
type meter struct{ left int64 }

// A bounded reader stops a part that expands too far, on the bytes that really come out; sizes in a ZIP's directory are
// its author's word.
type bounded struct {
	ctx    context.Context
	in     io.Reader
	packed int64 // compressed size
	out    int64
	token  int64 // bytes read for the token at hand
	total  *meter
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.in.Read(p)
	b.out += int64(n)
	b.token += int64(n)
	b.total.left -= int64(n)
	switch {
	case b.total.left < 0:
		return 0, refuse(Bomb, "decompresses to more than %d MiB; save it again from a word processor, or as PDF", MaxUnzipped>>20)
	case b.out > ratioFrom && b.out/MaxRatio > b.packed:
		return 0, refuse(Bomb, "decompresses more than %d-fold; save it again from a word processor, or as PDF", MaxRatio)
	case b.token > MaxToken: // the decoder keeps a tag and its attributes in memory
		return 0, refuse(Bomb, "has a tag or run of more than %d MiB; save it again from a word processor, or as PDF", MaxToken>>20)
	}
	return n, err
}

func readPart(ctx context.Context, f *zip.File, total *meter, out *strings.Builder) error {
	in, err := f.Open()
	if err != nil {
		return &Error{Damaged, "is a damaged DOCX; export it again", err}
	}
	defer in.Close()
	err = wordText(&bounded{ctx: ctx, in: in, packed: int64(min(f.CompressedSize64, MaxBytes)), total: total}, out)
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own), ctx.Err() != nil:
		return err
	default: // the decoder's errors quote what they stumble over
		return refuse(Damaged, "is a damaged DOCX; export it again")
	}
}

// wordText writes the text of one WordprocessingML part (ECMA-376 part 1, clause 17).
func wordText(in *bounded, out *strings.Builder) error {
	d := xml.NewDecoder(in)
	depth, text, skip := 0, false, 0
	for {
		in.token = 0
		tok, err := d.RawToken()
		if err == io.EOF {
			if depth != 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if depth++; depth > MaxXMLDepth {
				return refuse(Bomb, "nests deeper than %d elements; save it again from a word processor, or as PDF", MaxXMLDepth)
			}
			// A fallback repeats in old markup what its AlternateContent already said.
			if skip == 0 && tok.Name.Local == "Fallback" {
				skip = depth
			}
			if skip == 0 {
				text = startWord(tok.Name.Local, out)
			}
		case xml.EndElement:
			if depth == skip {
				skip = 0
			}
			if depth--; depth < 0 {
				return io.ErrUnexpectedEOF
			}
			text = false
			if skip == 0 {
				endWord(tok.Name.Local, out)
			}
		case xml.CharData:
			if text && skip == 0 {
				out.Write(tok)
			}
		}
		if out.Len() > MaxText*2 {
			return refuse(TooLarge, "holds more than %d MiB of text; split it", MaxText>>20)
		}
	}
}

// startWord reports whether the element's characters are text.
func startWord(name string, out *strings.Builder) bool {
	switch name {
	case "t":
		return true
	case "tab", "ptab":
		out.WriteByte('\t')
	case "br", "cr":
		out.WriteByte('\n')
	case "noBreakHyphen":
		out.WriteByte('-')
	}
	return false
}

func endWord(name string, out *strings.Builder) {
	switch name {
	case "p", "tr":
		out.WriteByte('\n')
	case "tc":
		out.WriteByte('\t')
	}
}
