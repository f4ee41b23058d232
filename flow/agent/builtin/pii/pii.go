// Package pii finds personal data in text, in the manner of Microsoft Presidio: recognizers by form, check digit and
// context words. Its nouns are the Finding, a span with a type and a score; the recognizer that made it; and the context,
// words nearby that raise the score. It promises one pass in linear time over any text, findings that don't overlap and
// never hold what they found, and check digits verified wherever the number has one.
//
// It is rules, not a language model: names of people are found after titles, labels and common given names only.
// Precision and recall on a small labelled set are printed by TestPrecisionRecall and published in
// packaging/doc/adr/0009.
package pii

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Types of findings; Presidio's names where it has one.
const (
	EmailAddress = "EMAIL_ADDRESS"
	PhoneNumber  = "PHONE_NUMBER"
	IBAN         = "IBAN_CODE"
	CreditCard   = "CREDIT_CARD"
	IPAddress    = "IP_ADDRESS"
	DateOfBirth  = "DATE_OF_BIRTH"
	USSSN        = "US_SSN"
	USPassport   = "US_PASSPORT"
	UKNINO       = "UK_NINO"
	UKNHS        = "UK_NHS"
	DETaxID      = "DE_TAX_ID"
	FRNIR        = "FR_NIR"
	ESDNI        = "ES_DNI"
	ITFiscalCode = "IT_FISCAL_CODE"
	NLBSN        = "NL_BSN"
	CHAHV        = "CH_AHV"
	Person       = "PERSON"
)

// Threshold is the least score of a finding that counts.
const Threshold = 0.5

// A Finding is a span of the text, in bytes, and what it is. It never holds the text itself.
type Finding struct {
	Type       string  `json:"type"`
	Start      int     `json:"start"` // byte offset of the first byte in the extracted text
	End        int     `json:"end"`   // of the byte after the last
	Score      float64 `json:"score"` // 0 to 1; a rule's confidence, not a probability
	Recognizer string  `json:"recognizer"`
}

// Find returns the findings of Threshold and above, in order, none overlapping another: of two that do the higher score
// wins, then the longer. text must be valid UTF-8.
func Find(text string) []Finding {
	s := &scan{text: text}
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '@':
			s.email(i)
		case c == '\n':
			s.signed(i)
		case c == ':':
			s.labelled(i)
			if strings.HasPrefix(text[i:], "::") && !s.inWord(i) {
				s.ipv6(i)
			}
		case c < utf8.RuneSelf && !digit(c) && !letter(c) && c != '+' && c != '(':
		case s.inWord(i):
		case c == '(' || c == '+':
			s.phone(i)
		case digit(c):
			s.number(i)
		case c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'f':
			s.word(i)
		}
		i++
	}
	s.repeats()
	return resolve(s.found)
}

// Redact returns text with every finding replaced by its type in angle brackets. Findings must be in order and apart, as
// Find returns them.
func Redact(text string, findings []Finding) string {
	var b strings.Builder
	b.Grow(len(text))
	at := 0
	for _, f := range findings {
		b.WriteString(text[at:f.Start])
		b.WriteString("<" + f.Type + ">")
		at = f.End
	}
	b.WriteString(text[at:])
	return b.String()
}

// Counts returns how many findings there are of each type.
func Counts(findings []Finding) map[string]int {
	n := map[string]int{}
	for _, f := range findings {
		n[f.Type]++
	}
	return n
}

// resolve drops what is below Threshold and, of findings that overlap, the weaker.
func resolve(found []Finding) []Finding {
	found = slices.DeleteFunc(found, func(f Finding) bool { return f.Score < Threshold })
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.Score, a.Score), cmp.Compare(b.End, a.End))
	})
	kept := found[:0]
	for _, f := range found {
		keep := true
		for len(kept) > 0 && kept[len(kept)-1].End > f.Start {
			last := kept[len(kept)-1]
			if cmp.Or(cmp.Compare(last.Score, f.Score), cmp.Compare(last.End-last.Start, f.End-f.Start)) >= 0 {
				keep = false
				break
			}
			kept = kept[:len(kept)-1]
		}
		if keep {
			kept = append(kept, f)
		}
	}
	return kept
}

// A scan is one pass over a text.
type scan struct {
	text  string
	found []Finding
	names map[string]bool // surnames and full names seen, for repeats
}

func (s *scan) add(kind string, start, end int, score float64, recognizer string) {
	s.found = append(s.found, Finding{kind, start, end, min(score, 1), recognizer})
}

func digit(c byte) bool  { return c >= '0' && c <= '9' }
func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// inWord reports whether the character before i is a letter or digit, so that nothing begins at i.
func (s *scan) inWord(i int) bool {
	if i == 0 {
		return false
	}
	if c := s.text[i-1]; c < utf8.RuneSelf {
		return digit(c) || letter(c) || c == '_'
	}
	r, _ := utf8.DecodeLastRuneInString(s.text[:i])
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

// ends reports whether a word can end at i.
func (s *scan) ends(i int) bool {
	if i >= len(s.text) {
		return true
	}
	if c := s.text[i]; c < utf8.RuneSelf {
		return !digit(c) && !letter(c) && c != '_'
	}
	r, _ := utf8.DecodeRuneInString(s.text[i:])
	return !unicode.IsLetter(r) && !unicode.IsDigit(r)
}

// reach is how many bytes before a span context words count.
const reach = 64

// context reports whether one of the words (lower case, separated by |) stands in the reach before i, and begins a word.
func (s *scan) context(i int, words string) bool { return s.contextFrom(max(0, i-reach), i, words) }

// contextFrom is context for the words between from and i.
func (s *scan) contextFrom(from, i int, words string) bool { return s.nearest(from, i, words) >= 0 }

// nearest returns where between from and i the last of the words begins, counted from from; -1 if none stands there.
func (s *scan) nearest(from, i int, words string) int {
	near := strings.ToLower(s.text[from:i])
	last := -1
	for w := range strings.SplitSeq(words, "|") {
		for end := len(near); ; {
			at := strings.LastIndex(near[:end], w)
			if at < 0 {
				break
			}
			if at == 0 || !letter(near[at-1]) {
				last = max(last, at)
				break
			}
			end = at + len(w) - 1
		}
	}
	return last
}

// number tries everything that begins with a digit.
func (s *scan) number(i int) {
	s.ipv4(i)
	s.ipv6(i)
	s.card(i)
	s.ssn(i)
	s.passport(i)
	s.nhs(i)
	s.taxID(i)
	s.nir(i)
	s.dni(i)
	s.bsn(i)
	s.ahv(i)
	s.birth(i)
	s.phone(i)
}

// word tries everything that begins with a letter.
func (s *scan) word(i int) {
	c := s.text[i]
	if c < utf8.RuneSelf && i+4 < len(s.text) {
		if c >= 'A' && c <= 'Z' && digit(s.text[i+1]) {
			s.dni(i)
			s.passport(i)
		}
		if c >= 'A' && c <= 'Z' && s.text[i+1] >= 'A' && s.text[i+1] <= 'Z' {
			s.iban(i)
			s.nino(i)
			s.fiscalCode(i)
		}
		s.ipv6(i)
	}
	if c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf {
		s.person(i)
		s.birthByName(i)
	}
}
