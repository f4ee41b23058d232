package pii

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Greatest lengths of an address (RFC 5321, 4.5.3.1).
const (
	maxLocal  = 64
	maxDomain = 255
)

// email finds addresses around the @ at i: dot-atoms of letters, digits and .!#$%&'*+/=?^_`{|}~-, and a domain of two
// labels or more whose last is letters.
func (s *scan) email(i int) {
	start := i
	for start > 0 && i-start < maxLocal {
		r, n := utf8.DecodeLastRuneInString(s.text[:start])
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".!#$%&*+/=?^_{|}~-", r) {
			break
		}
		start -= n
	}
	for start < i && strings.IndexByte("./-*=|", s.text[start]) >= 0 {
		start++ // what precedes is punctuation of the text
	}
	end, lastDot := i+1, -1
	for end < len(s.text) && end-i < maxDomain {
		r, n := utf8.DecodeRuneInString(s.text[end:])
		if r == '.' {
			if end == i+1 || s.text[end-1] == '.' {
				break
			}
			lastDot = end
		} else if !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' {
			break
		}
		end += n
	}
	if lastDot == end-1 { // a full stop
		end--
		lastDot = i + 1 + strings.LastIndexByte(s.text[i+1:max(end, i+1)], '.')
	}
	if start == i || lastDot <= i || end-lastDot < 3 {
		return
	}
	for _, r := range s.text[lastDot+1 : end] {
		if !unicode.IsLetter(r) {
			return
		}
	}
	s.add(EmailAddress, start, end, 1, "email/form")
}

// ipv4 finds four octets. Four numbers with dots are often a version or a section: those words before take the score
// below the threshold.
func (s *scan) ipv4(i int) {
	if i > 0 && s.text[i-1] == '.' {
		return
	}
	end, dots := i, 0
	for end < len(s.text) && (digit(s.text[end]) || s.text[end] == '.') && end-i < 16 {
		if s.text[end] == '.' {
			if dots == 3 {
				break
			}
			dots++
		}
		end++
	}
	if dots != 3 || !s.ends(end) || end+1 < len(s.text) && s.text[end] == '.' && digit(s.text[end+1]) {
		return
	}
	if _, err := netip.ParseAddr(s.text[i:end]); err != nil {
		return
	}
	near := strings.ToLower(strings.TrimRight(s.text[max(0, i-16):i], " ."))
	word := near[1+strings.LastIndexFunc(near, func(r rune) bool { return !unicode.IsLetter(r) }):]
	if listed(" version v release section clause abschnitt ziffer no nr room raum ", word) {
		return
	}
	s.add(IPAddress, i, end, 0.8, "ip/v4")
}

// ipv6 finds addresses of RFC 4291's text forms, with two colons or more.
func (s *scan) ipv6(i int) {
	end, colons := i, 0
	for end < len(s.text) && end-i < 46 {
		c := s.text[end]
		if c == ':' {
			colons++
		} else if !digit(c) && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') && c != '.' {
			break
		}
		if end++; end-i > 5 && colons == 0 {
			return
		}
	}
	for end > i && (s.text[end-1] == '.' || s.text[end-1] == ':' && !strings.HasSuffix(s.text[i:end], "::")) {
		end--
	}
	if colons < 2 || end-i < 3 || !s.ends(end) {
		return
	}
	if a, err := netip.ParseAddr(s.text[i:end]); err == nil && a.Is6() {
		s.add(IPAddress, i, end, 0.95, "ip/v6")
	}
}

// phone finds telephone numbers. International form (+49 …, 0049 …) stands alone; (212) 555-0187 and 212-555-0187 are
// North American; other national numbers begin with 0, and need context or the usual grouping.
func (s *scan) phone(i int) {
	if i > 0 && (s.text[i-1] == '+' || s.text[i-1] == '.' || s.text[i-1] == '-' || s.text[i-1] == '/' || s.text[i-1] == ',') {
		return
	}
	n, end, groups, dots := 0, i, 0, 0
	var digits [16]byte
	var sizes [16]int
	gap := true
	for j := i; j < len(s.text) && j-i < 32; j++ {
		c := s.text[j]
		switch {
		case digit(c):
			if n == len(digits) {
				return
			}
			if gap {
				groups++
			}
			gap = false
			sizes[groups-1]++
			digits[n] = c
			n++
			end = j + 1
			continue
		case c == '+' && j == i, c == '(' || c == ')':
		case (c == ' ' || c == '-' || c == '/') && !doubled(s.text[:j+1]):
		case c == '.' && j+1 < len(s.text) && digit(s.text[j+1]) && n > 0:
			dots++
		default:
			j = len(s.text)
			continue
		}
		gap = true
	}
	if n < 7 || !s.ends(end) {
		return
	}
	known := s.context(i, "tel|phone|fon|mobil|cell|fax|call|ruf|handy|durchwahl|contact|hotline|tél|teléfono|whatsapp|sms")
	all := string(digits[:n])
	score, by := 0.0, "phone/national"
	switch {
	case s.text[i] == '+' && n >= 8 && n <= 15 && all[0] != '0':
		score, by = 0.85, "phone/international"
	case strings.HasPrefix(all, "00") && n >= 10 && groups > 1 && all[2] != '0':
		score, by = 0.6, "phone/international"
	case n == 10 && sizes[0] == 3 && sizes[1] == 3 && sizes[2] == 4 && all[0] > '1' && all[3] > '1':
		score, by = 0.65, "phone/north-american"
	case all[0] == '0' && groups > 1 && groups <= 5 && n >= 9 && n <= 12 && sizes[0] >= 3 && sizes[0] <= 6 && dots == 0:
		score = 0.55
	case known && dots < 3 && (all[0] == '0' || groups > 1) && n <= 13:
		score = 0.4
	}
	if score > 0 && known {
		score += 0.3
	}
	if score == 0 || s.numericDate(i) == end || dots == 2 && groups == 3 && sizes[0] <= 2 && sizes[1] <= 2 { // a date
		return
	}
	s.add(PhoneNumber, i, end, min(score, 0.99), by)
}

// doubled reports whether the last two bytes are separators that don't follow each other inside a number.
func doubled(head string) bool {
	if len(head) < 2 {
		return false
	}
	a, b := head[len(head)-2], head[len(head)-1]
	return a == ' ' && b == ' ' || a == '-' && b == '-' || a == '/' && b == '/'
}
