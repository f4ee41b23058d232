package document

import (
	"bytes"
	"io"
	"mime"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// readHTML returns what a reader would see. It works on the token stream, in one pass and without a tree, so nesting
// costs nothing.
func readHTML(s string) (string, error) {
	z := html.NewTokenizer(strings.NewReader(s))
	z.SetMaxBuf(MaxElement)
	var out strings.Builder
	hidden := atom.Atom(0) // the element whose content is not shown
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() != io.EOF {
				return "", refuse(TooLarge, "has an element of more than %d MiB; save it without embedded pictures", MaxElement>>20)
			}
			return out.String(), nil
		case html.TextToken:
			if hidden == 0 {
				writeRun(&out, string(z.Text()))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, attrs := z.TagName()
			tag := atom.Lookup(name)
			if hidden == 0 && concealed(tag) {
				hidden = tag
			}
			if hidden == 0 {
				openTag(&out, tag)
				for attrs && (tag == atom.Img || tag == atom.Input) {
					var key, val []byte
					if key, val, attrs = z.TagAttr(); string(key) == "alt" || string(key) == "value" {
						writeRun(&out, " "+string(val)+" ")
					}
				}
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			tag := atom.Lookup(name)
			if hidden != 0 {
				if tag == hidden {
					hidden = 0
				}
				continue
			}
			closeTag(&out, tag)
		}
	}
}

// concealed reports whether no browser shows an element's text. What some show is text: it must not escape detection.
func concealed(tag atom.Atom) bool {
	return tag == atom.Script || tag == atom.Style || tag == atom.Template
}

// writeRun writes text with runs of white space as one space, as a browser shows them.
func writeRun(out *strings.Builder, s string) {
	space := false
	for _, c := range s {
		if c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' {
			space = true
			continue
		}
		if space {
			out.WriteByte(' ')
			space = false
		}
		out.WriteRune(c)
	}
	if space {
		out.WriteByte(' ')
	}
}

func openTag(out *strings.Builder, tag atom.Atom) {
	switch {
	case tag == atom.Br:
		out.WriteByte('\n')
	case tag == atom.Li:
		out.WriteString("\n- ")
	case tag == atom.Td || tag == atom.Th: // the tag that closes the cell before is often left out
		if s := out.String(); s != "" && s[len(s)-1] != '\n' {
			out.WriteByte('\t')
		}
	case block(tag):
		out.WriteByte('\n')
	}
}

func closeTag(out *strings.Builder, tag atom.Atom) {
	if block(tag) || tag == atom.Title {
		out.WriteByte('\n')
	}
}

func block(tag atom.Atom) bool {
	switch tag {
	case atom.P, atom.Div, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Ul, atom.Ol, atom.Table, atom.Tr,
		atom.Section, atom.Article, atom.Header, atom.Footer, atom.Blockquote, atom.Pre, atom.Hr, atom.Dl, atom.Dt, atom.Dd,
		atom.Address, atom.Form, atom.Main, atom.Nav, atom.Aside, atom.Fieldset, atom.Body, atom.Caption:
		return true
	}
	return false
}

// htmlCharset returns the charset that the declared type or a meta element in the first 1,024 bytes names, or "".
func htmlCharset(f File) string {
	if _, params, err := mime.ParseMediaType(f.MediaType); err == nil && params["charset"] != "" {
		return params["charset"]
	}
	head := bytes.ToLower(f.Data[:min(len(f.Data), 1024)])
	_, after, found := bytes.Cut(head, []byte("charset="))
	if !found {
		return ""
	}
	after = bytes.TrimLeft(after, "\"' ")
	if end := bytes.IndexAny(after, "\"' ;/>"); end >= 0 {
		after = after[:end]
	}
	return string(after)
}
