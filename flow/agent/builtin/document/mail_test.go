package document

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const mailHead = "From: =?iso-8859-1?Q?J=F6rdis?= <j@example.org>\r\nTo: k@example.net\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\nMIME-Version: 1.0\r\n"

func mailOf(contentType, body string) []byte {
	return []byte(mailHead + "Content-Type: " + contentType + "\r\n\r\n" + strings.ReplaceAll(body, "\n", "\r\n"))
}

func b64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func attached(name, mediaType string, data []byte) string {
	return fmt.Sprintf("--b\nContent-Type: %s\nContent-Disposition: attachment; filename=\"%s\"\nContent-Transfer-Encoding: base64\n\n%s\n", mediaType, name, b64(data))
}

func TestMail(t *testing.T) {
	const head = "From: Jördis <j@example.org>\nTo: k@example.net\nSubject: Grüße\n\n"
	for _, c := range []struct {
		name             string
		data             []byte
		want             string
		attached, unread int
	}{
		{"plain", mailOf("text/plain; charset=utf-8", "hällo\nyou"), "hällo\nyou", 0, 0},
		{"no type", []byte(mailHead + "\r\nhello"), "hello", 0, 0},
		{"a malformed type", mailOf("text/plain; charset=\"", "hello"), "hello", 0, 0},
		{"Latin 1", mailOf("text/plain; charset=iso-8859-1", "h\xe4llo"), "hällo", 0, 0},
		{"quoted-printable", []byte(mailHead + "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nh=E4l=\r\nlo"), "hällo", 0, 0},
		{"base64", []byte(mailHead + "Content-Transfer-Encoding: BASE64\r\n\r\naGVs\r\nbG8=\r\n"), "hello", 0, 0},
		{"HTML", mailOf("text/html", "<p>hello</p><script>no</script>"), "hello", 0, 0},
		{"alternatives", mailOf("multipart/alternative; boundary=b", "preamble\n--b\nContent-Type: text/html\n\n<p>rich\n--b\nContent-Type: text/plain\n\npoor\n--b--\n"), "poor", 0, 0},
		{"HTML only as alternative", mailOf("multipart/alternative; boundary=b", "--b\nContent-Type: text/html\n\n<p>rich\n--b--\n"), "rich", 0, 0},
		{"nested", mailOf("multipart/mixed; boundary=b", "--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\ninner\n--c--\n--b\nContent-Type: text/plain\n\nouter\n--b--\n"), "inner\nouter", 0, 0},
		{"PDF attached", mailOf("multipart/mixed; boundary=b", "--b\n\nsee\n"+attached("a.pdf", "application/pdf", pdfOf("in the PDF"))+"--b--\n"), "see\n\nin the PDF", 1, 0},
		{"DOCX attached", mailOf("multipart/mixed; boundary=b", "--b\n\nsee\n"+attached("a.docx", "application/octet-stream", docx(para("in the DOCX")))+"--b--\n"), "see\n\nin the DOCX", 1, 0},
		{"a picture attached", mailOf("multipart/mixed; boundary=b", "--b\n\nsee\n"+attached("a.png", "image/png", []byte("\x89PNG\r\n"))+"--b--\n"), "see\n\n[attachment not read]", 0, 1},
		{"an encrypted one", mailOf("multipart/mixed; boundary=b", "--b\n\nsee\n"+attached("a.pdf", "application/pdf", bytes.Replace(pdfOf("x"), []byte("/Root"), []byte("/Encrypt 9 0 R/Root"), 1))+"--b--\n"), "see\n\n[attachment not read]", 0, 1},
		{"a text by name", mailOf("multipart/mixed; boundary=b", "--b\n\nsee\n--b\nContent-Type: text/plain; name=notes.txt\n\nnotes\n--b--\n"), "see\n\nnotes", 1, 0},
		{"a mail in a mail", mailOf("multipart/mixed; boundary=b", "--b\n\nsee\n--b\nContent-Type: message/rfc822\n\nFrom: x@y.example\nTo: z@y.example\n\nforwarded\n--b--\n"),
			"see\n\nFrom: x@y.example\nTo: z@y.example\n\nforwarded", 1, 0},
		{"from a mailbox", append([]byte("From j@example.org Mon Jan  5 09:00:00 2026\n"), mailOf("text/plain", "hello")...), "hello", 0, 0},
	} {
		doc := read(t, "a.eml", c.data)
		if doc.MediaType != Mail || doc.Text != head+c.want || doc.Attached != c.attached || doc.Unread != c.unread {
			t.Errorf("%s: %s, %d read, %d not:\n%s", c.name, doc.MediaType, doc.Attached, doc.Unread, doc.Text)
		}
	}
}

func TestMailRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"no end of the parts": mailOf("multipart/mixed; boundary=b", "--b\n\nsecret"),
		"no boundary":         mailOf("multipart/mixed", "secret"),
		"base64 cut off":      []byte(mailHead + "Content-Transfer-Encoding: base64\r\n\r\nc2VjcmV0LX"),
		"base64 of junk":      []byte(mailHead + "Content-Transfer-Encoding: base64\r\n\r\n!!!!"),
		"headers broken":      []byte("From: a@b.example\nTo: c@d.example\n no colon\nsecret here\n\nx"),
	} {
		refused(t, name, File{Name: "a.eml", Data: data}, Damaged)
	}
	deep := "hello"
	for i := range MaxMailDepth + 3 {
		deep = fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%s\n--b%d--\n", i, i, deep, i)
	}
	mails := "hello"
	for range MaxMailDepth + 3 {
		mails = "From: a@b.example\nTo: c@d.example\nContent-Type: message/rfc822\n\n" + mails
	}
	for name, data := range map[string][]byte{
		"parts in parts": []byte(mailHead + deep),
		"mails in mails": []byte(mails),
		"many parts":     mailOf("multipart/mixed; boundary=b", strings.Repeat("--b\n\nx\n", MaxMailParts+1)+"--b--\n"),
		"long headers":   []byte(mailHead + "X: " + strings.Repeat("x", MaxHeaderBytes) + "\r\n\r\nhello"),
		"many headers":   []byte(mailHead + strings.Repeat("X: y\n", MaxHeaderBytes/5) + "\n\nhello"),
		"text of a bomb": mailOf("multipart/mixed; boundary=b", "--b\n\n"+strings.Repeat("all the same ", MaxText/13+1)+"\n--b--\n"),
	} {
		refused(t, name, File{Name: "a.eml", Data: data}, TooLarge)
	}
	refused(t, "a bomb attached", File{Name: "a.eml", Data: mailOf("multipart/mixed; boundary=b", attached("a.docx", DOCX, docx(strings.Repeat(" ", 40<<20)))+"--b--\n")}, Bomb)
	// Parts that hold one another are counted as often as they are copied.
	r := &reader{ctx: t.Context(), left: MaxText, copies: 10_000}
	nested := mailOf("multipart/mixed; boundary=b", "--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\n"+strings.Repeat("x", 5000)+"\n--c--\n--b--\n")
	if _, err := r.read(File{Name: "a.eml", Data: nested}, 0); !errors.Is(err, TooLarge) {
		t.Errorf("copies: %v", err)
	}
	if end := headerEnd([]byte("a: b\n\r\nc\n\nd")); end != 4 {
		t.Errorf("headers end at %d", end)
	}
}
