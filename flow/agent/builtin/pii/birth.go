package pii

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// birthWords are what makes a date one of birth.
const birthWords = "born|birth|dob|d.o.b|geboren|geb.|geburt|né le|née le|naissance|nacimiento|nacido|nacida|nato il|nata il|nascita|geboortedatum"

// months by the first letters of English and German names, in the order of the year.
const months = "jan|feb|mar mär|apr|may mai|jun|jul|aug|sep|oct okt|nov|dec dez"

// birth finds a date after a word of birth: 3.4.1958, 03/04/1958, 1958-04-03, 3 April 1958, 3. April 1958.
func (s *scan) birth(i int) {
	end := s.numericDate(i)
	if end == 0 {
		end = s.dayMonthYear(i)
	}
	if end > 0 && s.born(i) {
		s.add(DateOfBirth, i, end, 0.95, "birth/context")
	}
}

// born reports whether a word of birth stands before the date at i, and no number between: one that does belongs to the
// word, and the date to something else.
func (s *scan) born(i int) bool {
	from := max(0, i-reach)
	from += 1 + strings.LastIndexAny(s.text[from:i], "0123456789")
	return s.contextFrom(from, i, birthWords)
}

// birthByName finds a date that begins with a month's name: April 3, 1958.
func (s *scan) birthByName(i int) {
	at := s.month(i)
	if at == 0 {
		return
	}
	at = s.skip(at, " .\n")
	day, at := s.integer(at, 2)
	at = s.skip(at, "stndrh, \n")
	year, end := s.integer(at, 4)
	if day >= 1 && day <= 31 && plausible(year) && s.ends(end) && s.born(i) {
		s.add(DateOfBirth, i, end, 0.95, "birth/context")
	}
}

// integer reads 1 to most digits; 0 at at if there is none.
func (s *scan) integer(at, most int) (v, end int) {
	for end = at; end < len(s.text) && end-at < most && digit(s.text[end]); end++ {
		v = v*10 + int(s.text[end]-'0')
	}
	return v, end
}

// skip passes over at most six bytes of a set.
func (s *scan) skip(at int, set string) int {
	for k := 0; k < 6 && at < len(s.text) && strings.IndexByte(set, s.text[at]) >= 0; k++ {
		at++
	}
	return at
}

func plausible(year int) bool { return year >= 1880 && year <= 2100 }

// numericDate returns the end of a date of three numbers at i, 0 if there is none.
func (s *scan) numericDate(i int) int {
	a, at := s.integer(i, 4)
	wide := at-i == 4
	if at >= len(s.text) || strings.IndexByte("./-", s.text[at]) < 0 {
		return 0
	}
	sep := s.text[at]
	at = s.skip(at+1, " ")
	b, at2 := s.integer(at, 2)
	if at2 == at || at2 >= len(s.text) || s.text[at2] != sep {
		return 0
	}
	at = s.skip(at2+1, " ")
	c, end := s.integer(at, 4)
	if !s.ends(end) || end == at {
		return 0
	}
	year, day, month := c, a, b
	if wide {
		year, day = a, c
	} else if end-at == 2 {
		year += 1900
	}
	if month > 12 { // month first, as in 04/23/1958
		day, month = month, day
	}
	if day < 1 || day > 31 || month < 1 || month > 12 || !plausible(year) {
		return 0
	}
	return end
}

func (s *scan) dayMonthYear(i int) int {
	day, at := s.integer(i, 2)
	at = s.skip(at, "stndrh. \n")
	if rest, ok := strings.CutPrefix(s.text[at:], "of "); ok {
		at = len(s.text) - len(rest)
	}
	at = s.month(at)
	if day < 1 || day > 31 || at == 0 {
		return 0
	}
	year, end := s.integer(s.skip(at, " .,\n"), 4)
	if !plausible(year) || !s.ends(end) {
		return 0
	}
	return end
}

// month returns the end of a month's name at at, 0 if there is none.
func (s *scan) month(at int) int {
	end := at
	for end < len(s.text) && end-at < 12 {
		r, n := utf8.DecodeRuneInString(s.text[end:])
		if !unicode.IsLetter(r) {
			break
		}
		end += n
	}
	if end-at < 3 {
		return 0
	}
	name := strings.ToLower(s.text[at:end])
	for group := range strings.SplitSeq(months, "|") {
		for prefix := range strings.SplitSeq(group, " ") {
			if strings.HasPrefix(name, prefix) {
				return end
			}
		}
	}
	return 0
}
