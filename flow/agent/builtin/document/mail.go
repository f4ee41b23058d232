package document

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

// mailboxMark begins the line that mailboxes put before a mail (RFC 4155).
const mailboxMark = "From "

// notRead stands in the text for an attachment that could not be read.
const notRead = "\n[attachment not read]\n"

// readMail returns the usual headers, the body (plain text where a mail offers alternatives) and the text of
// attachments of the kinds that are read (RFC 5322, RFC 2045 to 2049).
func (r *reader) readMail(data []byte, doc *Document, depth int) (string, error) {
	if bytes.HasPrefix(data, []byte(mailboxMark)) {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	if end := headerEnd(data); end > MaxHeaderBytes {
		return "", refuse(TooLarge, "is an e-mail with more than %d KiB of headers", MaxHeaderBytes>>10)
	}
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		return "", refuse(Damaged, "is a damaged or truncated e-mail; export it again") // the parser's error quotes it
	}
	var out strings.Builder
	words := mime.WordDecoder{CharsetReader: charsetReader}
	for _, name := range []string{"From", "To", "Cc", "Date", "Subject"} {
		if v := m.Header.Get(name); v != "" {
			if plain, err := words.DecodeHeader(v); err == nil {
				v = plain
			}
			out.WriteString(name + ": " + v + "\n")
		}
	}
	out.WriteByte('\n')
	body, err := io.ReadAll(m.Body)
	if err != nil {
		return "", refuse(Damaged, "is a damaged e-mail; export it again")
	}
	err = r.part(textproto.MIMEHeader(m.Header), body, doc, depth, &out)
	return out.String(), err
}

// headerEnd returns where the first empty line ends the headers, whatever the line ends.
func headerEnd(data []byte) int {
	end := len(data)
	for _, sep := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(data[:end], []byte(sep)); i >= 0 {
			end = i
		}
	}
	return end
}

// part writes the text of one MIME part.
func (r *reader) part(h textproto.MIMEHeader, body []byte, doc *Document, depth int, out *strings.Builder) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if depth > MaxMailDepth {
		return refuse(TooLarge, "is an e-mail nested deeper than %d parts", MaxMailDepth)
	}
	if r.copies -= len(body); r.copies < 0 {
		return refuse(TooLarge, "is an e-mail whose nested parts come to more than %d MiB", MaxMailCopies>>20)
	}
	if r.parts++; r.parts > MaxMailParts {
		return refuse(TooLarge, "is an e-mail of more than %d parts", MaxMailParts)
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		kind, params = Text, nil
	}
	if strings.HasPrefix(kind, "multipart/") {
		return r.multipart(kind, params["boundary"], body, doc, depth, out)
	}
	body, err = unwrap(h.Get("Content-Transfer-Encoding"), body)
	if err != nil {
		return err
	}
	disposition, dparams, _ := mime.ParseMediaType(h.Get("Content-Disposition"))
	name := dparams["filename"]
	if name == "" {
		name = params["name"]
	}
	if disposition == "attachment" || name != "" || kind == Mail {
		return r.attachment(File{Name: name, MediaType: kind, Data: body}, doc, depth, out)
	}
	switch kind {
	case HTML:
		text, err := readHTML(decode(body, params["charset"]))
		if err != nil {
			return err
		}
		out.WriteString(text)
	case Text, Markdown:
		out.WriteString(decode(body, params["charset"]))
	default:
		return r.attachment(File{MediaType: kind, Data: body}, doc, depth, out)
	}
	out.WriteByte('\n')
	return nil
}

func (r *reader) multipart(kind, boundary string, body []byte, doc *Document, depth int, out *strings.Builder) error {
	if boundary == "" {
		return refuse(Damaged, "is an e-mail in parts without a boundary; export it again")
	}
	mr := multipart.NewReader(bytes.NewReader(body), boundary)
	type section struct {
		h    textproto.MIMEHeader
		body []byte
	}
	var sections []section
	for {
		p, err := mr.NextRawPart()
		// The reader says EOF, too, where a part's header is cut off.
		if err == io.EOF && bytes.Contains(body, []byte("--"+boundary+"--")) {
			break
		}
		if err != nil {
			return refuse(Damaged, "is a truncated e-mail: its last part is cut off; export it again")
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return refuse(Damaged, "is a truncated e-mail: a part is cut off; export it again")
		}
		if len(sections) >= MaxMailParts {
			return refuse(TooLarge, "is an e-mail of more than %d parts", MaxMailParts)
		}
		sections = append(sections, section{p.Header, data})
	}
	if kind == "multipart/alternative" && len(sections) > 0 {
		// The same text in several forms, the plainest first (RFC 2046, 5.1.4).
		best := sections[0]
		for _, s := range sections {
			if t, _, err := mime.ParseMediaType(s.h.Get("Content-Type")); err == nil && t == Text {
				best = s
				break
			}
		}
		sections = sections[:1]
		sections[0] = best
	}
	for _, s := range sections {
		if err := r.part(s.h, s.body, doc, depth+1, out); err != nil {
			return err
		}
	}
	return nil
}

// unwrap undoes the transfer encoding. Line ends and blanks in base64 are allowed, other foreign bytes are not.
func unwrap(encoding string, body []byte) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		packed := bytes.Map(func(c rune) rune {
			if c == '\n' || c == '\r' || c == ' ' || c == '\t' {
				return -1
			}
			return c
		}, body)
		out := make([]byte, base64.StdEncoding.DecodedLen(len(packed)))
		n, err := base64.StdEncoding.Decode(out, packed)
		if err != nil {
			return nil, refuse(Damaged, "is an e-mail with a damaged base64 part; export it again")
		}
		return out[:n], nil
	case "quoted-printable":
		out, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
		if err != nil {
			return nil, refuse(Damaged, "is an e-mail with a damaged quoted-printable part; export it again")
		}
		return out, nil
	}
	return body, nil
}

// attachment reads what it can. A kind that isn't read is marked in the text, so that nobody takes the mail for
// searched; a limit or the end of ctx fails the mail as a whole.
func (r *reader) attachment(f File, doc *Document, depth int, out *strings.Builder) error {
	if depth >= MaxMailDepth {
		return refuse(TooLarge, "is an e-mail nested deeper than %d parts", MaxMailDepth)
	}
	inner, err := r.read(f, depth+1)
	switch {
	case err == nil:
		doc.Attached += 1 + inner.Attached
		doc.Unread += inner.Unread
		out.WriteString("\n" + inner.Text + "\n")
		return nil
	case errors.Is(err, TooLarge), errors.Is(err, Bomb), r.ctx.Err() != nil:
		return err
	default:
		doc.Unread++
		out.WriteString(notRead)
		return nil
	}
}
