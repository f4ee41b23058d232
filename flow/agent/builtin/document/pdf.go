package document

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"fednode/flow/agent/builtin/pdf"
)

func readPDF(ctx context.Context, data []byte) (string, int, error) {
	text, pages, err := pdf.Text(ctx, data, MaxText)
	switch {
	case err == nil:
		return joined(text), pages, nil
	case ctx.Err() != nil:
		return "", 0, ctx.Err()
	case errors.Is(err, pdf.Encrypted):
		return "", 0, refuse(Encrypted, "is encrypted; decrypt it first, e.g. qpdf --decrypt")
	case errors.Is(err, pdf.TooLarge):
		return "", 0, &Error{TooLarge, "is a PDF beyond the limits; split it, e.g. qpdf --split-pages", err}
	default:
		return "", 0, &Error{Damaged, "is a damaged or truncated PDF; export it again or repair it, e.g. qpdf in.pdf out.pdf", err}
	}
}

// joined puts words together that were hyphenated at the end of a line: a PDF shows lines, and half an address is found
// by no detector. A hyphen between letters goes if the next line begins in lower case; compounds that broke at their own
// hyphen lose it too.
func joined(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.IndexByte(s, '\n')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		line, rest := s[:i], s[i+1:]
		next, _ := utf8.DecodeRuneInString(rest)
		if stem, ok := hyphenated(line); ok && unicode.IsLower(next) {
			b.WriteString(stem)
		} else {
			b.WriteString(s[:i+1])
		}
		s = rest
	}
}

// hyphenated returns a line without the hyphen (plain, U+2010 or soft) that ends it after a letter.
func hyphenated(line string) (string, bool) {
	for _, hyphen := range []string{"-", "\u2010", "\u00ad"} {
		if stem, ok := strings.CutSuffix(line, hyphen); ok {
			last, _ := utf8.DecodeLastRuneInString(stem)
			return stem, unicode.IsLetter(last)
		}
	}
	return line, false
}
