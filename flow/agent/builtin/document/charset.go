package document

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// decode returns data as UTF-8. A byte order mark decides; then the label, where it names a charset that is known; then
// what the bytes look like: UTF-8 if they are valid UTF-8, UTF-16 if every other byte is mostly zero, else Windows-1252.
// Bytes that no charset has become U+FFFD.
func decode(data []byte, label string) string {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return strings.ToValidUTF8(string(data[3:]), "\ufffd")
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return decodeUTF16(data[2:], false)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return decodeUTF16(data[2:], true)
	}
	switch label = strings.ToLower(strings.Trim(label, " \t\"'")); label {
	case "utf-16le":
		return decodeUTF16(data, false)
	case "utf-16", "utf-16be":
		return decodeUTF16(data, true)
	}
	if m := single(label); m != nil {
		return decodeSingle(data, m)
	}
	if little, big := zeros(data); little || big {
		return decodeUTF16(data, big)
	}
	if valid(data) || label == "utf-8" || label == "us-ascii" {
		return strings.ToValidUTF8(string(data), "\ufffd")
	}
	return decodeSingle(data, charmap.Windows1252)
}

// valid is utf8.Valid, but for a character cut off at the end: callers pass the beginnings of files.
func valid(data []byte) bool {
	for i := 0; i < utf8.UTFMax && i < len(data); i++ {
		if cut := data[:len(data)-i]; utf8.Valid(cut) {
			return i == 0 || !utf8.FullRune(data[len(cut):])
		}
	}
	return len(data) == 0
}

// single returns the single-byte charset of a label, nil if unknown. ISO-8859-1 is read as Windows-1252, as the WHATWG
// Encoding Standard has it.
func single(label string) *charmap.Charmap {
	switch label {
	case "iso-8859-1", "latin1", "windows-1252", "cp1252":
		return charmap.Windows1252
	case "iso-8859-15", "latin9":
		return charmap.ISO8859_15
	case "iso-8859-2", "latin2":
		return charmap.ISO8859_2
	case "windows-1250", "cp1250":
		return charmap.Windows1250
	case "windows-1251", "cp1251":
		return charmap.Windows1251
	case "windows-1254", "iso-8859-9":
		return charmap.Windows1254
	case "macintosh":
		return charmap.Macintosh
	case "iso-8859-5":
		return charmap.ISO8859_5
	case "iso-8859-7":
		return charmap.ISO8859_7
	case "windows-1253":
		return charmap.Windows1253
	case "windows-1257":
		return charmap.Windows1257
	case "koi8-r":
		return charmap.KOI8R
	case "koi8-u":
		return charmap.KOI8U
	}
	return nil
}

func decodeSingle(data []byte, m *charmap.Charmap) string {
	var b strings.Builder
	b.Grow(len(data) + len(data)/16)
	for _, c := range data {
		b.WriteRune(m.DecodeByte(c))
	}
	return b.String()
}

func decodeUTF16(data []byte, big bool) string {
	unit := func(i int) rune {
		if i+1 >= len(data) {
			return utf8.RuneError
		}
		if big {
			return rune(data[i])<<8 | rune(data[i+1])
		}
		return rune(data[i+1])<<8 | rune(data[i])
	}
	var b strings.Builder
	b.Grow(len(data) / 2)
	for i := 0; i < len(data); i += 2 {
		c := unit(i)
		if utf16.IsSurrogate(c) {
			if c = utf16.DecodeRune(c, unit(i+2)); c != utf8.RuneError {
				i += 2
			}
		}
		b.WriteRune(c)
	}
	return b.String()
}

// zeros reports whether data looks like UTF-16 of mostly Latin text without a byte order mark.
func zeros(data []byte) (little, big bool) {
	data = data[:min(len(data), 4096)&^1]
	even, odd := 0, 0
	for i := 0; i < len(data); i += 2 {
		if data[i] == 0 {
			even++
		}
		if data[i+1] == 0 {
			odd++
		}
	}
	half := len(data) / 2
	return half >= 8 && odd*10 > half*7 && even*10 < half, half >= 8 && even*10 > half*7 && odd*10 < half
}

// charsetReader serves mime.WordDecoder.
func charsetReader(label string, in io.Reader) (io.Reader, error) {
	data, err := io.ReadAll(io.LimitReader(in, MaxHeaderBytes))
	if err != nil {
		return nil, err
	}
	return strings.NewReader(decode(data, label)), nil
}
