package classify

import (
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"
)

// stem is how many letters of a word count: a crude stemmer that works for German compounds as for English endings.
const stem = 8

// bag returns the words of a text, each with 1 + ⌊log₂ of how often it occurs⌋: the tenth "invoice" says less than the
// first. Amounts, dates, shares and other numbers count as their kind; words that begin a line before a colon count
// twice, once as a label, so that the shape of forms and mails counts. Pairs of neighbours count too.
func bag(text string) map[string]int {
	seen := map[string]int{}
	last := ""
	each(text, func(word string, label bool) {
		seen[word]++
		if label {
			seen[word+":"]++
		}
		if last != "" && len(last)+len(word) < maxWord {
			seen[last+" "+word]++
		}
		last = word
	})
	for w, n := range seen {
		seen[w] = bits.Len(uint(n))
	}
	return seen
}

// each calls f with every word, lower-cased and stemmed, and whether it is a label.
func each(text string, f func(word string, label bool)) {
	for line := range strings.Lines(text) {
		rest, first := line, true
		for rest != "" {
			c, n := utf8.DecodeRuneInString(rest)
			switch {
			case c == '<':
				// A placeholder of the detector says that something stood there, nothing about the class.
				if end := strings.IndexByte(rest[:min(len(rest), 32)], '>'); end > 1 && placeholder(rest[1:end]) {
					rest = rest[end+1:]
					continue
				}
				rest = rest[n:]
			case unicode.IsLetter(c):
				end := strings.IndexFunc(rest, func(r rune) bool { return !unicode.IsLetter(r) && r != '-' && r != '\'' && r != '’' })
				if end < 0 {
					end = len(rest)
				}
				word := rest[:end]
				rest = rest[end:]
				f(stemmed(word), first && strings.HasPrefix(rest, ":"))
				first = false
			case c >= '0' && c <= '9':
				end := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && !strings.ContainsRune(".,:/-'", r) })
				if end < 0 {
					end = len(rest)
				}
				f(numeral(rest[:end], rest[end:]), false)
				rest = rest[end:]
			case strings.ContainsRune("€$£%§", c):
				f(string(c), false)
				rest = rest[n:]
			default:
				rest = rest[n:]
			}
		}
	}
}

func placeholder(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '_' && (r < '0' || r > '9') }) < 0
}

func stemmed(word string) string {
	word = strings.ToLower(strings.TrimRight(word, "-'’"))
	n := 0
	for i := range word {
		if n == stem {
			return word[:i]
		}
		n++
	}
	return word
}

// numeral returns the kind of a number: "#date", "#time", "#amount", "#share", "#count" or "#code".
func numeral(s, after string) string {
	s = strings.TrimRight(s, ".,:/-'")
	digits := 0
	for _, c := range s {
		if c >= '0' && c <= '9' {
			digits++
		}
	}
	parts := func(sep string) int { return strings.Count(s, sep) }
	switch {
	case strings.HasPrefix(strings.TrimLeft(after, " "), "%"):
		return "#share"
	case parts(".") == 2 || parts("/") == 2 || parts("-") == 2:
		return "#date"
	case parts(":") == 1 && digits <= 4:
		return "#time"
	case len(s) > 3 && strings.ContainsAny(s[len(s)-3:len(s)-2], ".,"):
		return "#amount"
	case digits <= 4:
		return "#count"
	}
	return "#code"
}
