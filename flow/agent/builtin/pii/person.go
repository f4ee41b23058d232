package pii

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// titles stand before names. Those with a full stop are written with or without.
const titles = " mr mrs ms miss mx dr prof professor doctor sir dame herr herrn frau hr fr mme mlle monsieur madame señor señora sr sra signor signora dott med "

// maxTitles is how many titles after the first are read as one person's; it also bounds the work at each word.
const maxTitles = 6

// labels stand on forms before a name, and a colon.
const labels = "|name|full name|patient|patient name|patientin|employee|employee name|mitarbeiter|mitarbeiterin|vorname|nachname|" +
	"first name|last name|surname|given name|contact|contact person|ansprechpartner|ansprechpartnerin|attn|from|to|cc|von|an|" +
	"account holder|kontoinhaber|cardholder|insured|versicherter|versicherte|signed|signed by|manager|next of kin|physician|arzt|" +
	"customer name|beneficiary|applicant|bewerber|bewerberin|tenant|mieter|mieterin|"

// greetings stand before a name.
const greetings = "|dear|liebe|lieber|hello|hallo|hi|"

// particles stand inside names.
const particles = " von und van de der den zu zur du di da del della la le dos ter ten bin al "

// common are capitalised words that follow titles, labels and greetings and are no names.
const common = " sir madam customer customers team all colleague colleagues everyone both client clients shareholder shareholders " +
	"board members member friends kunde kunden kollegen kolleginnen damen herren mitarbeiter partner partners hiring manager " +
	"the department accounts support office human resources sales service finance legal our your this that please thank " +
	"doktor professor president director committee friend valued sirs ltd gmbh inc ag llc plc corp company bank hospital clinic " +
	"klinik university name address date number phone email subject re fwd geehrte geehrter invoice there and or "

// given names that often begin a full name, English, German and of their neighbours. A modest list, on purpose.
const given = " james john robert michael william david richard joseph thomas charles christopher daniel matthew anthony mark " +
	"steven andrew paul joshua kenneth kevin brian george edward ronald timothy jason jeffrey ryan jacob gary nicholas eric " +
	"jonathan stephen larry justin scott brandon benjamin samuel gregory patrick alexander jack dennis peter mary patricia " +
	"jennifer linda elizabeth barbara susan jessica sarah karen lisa nancy betty margaret sandra ashley kimberly emily donna " +
	"michelle carol amanda dorothy melissa deborah stephanie rebecca sharon laura cynthia kathleen amy angela shirley anna " +
	"brenda pamela emma nicole helen samantha katherine christine rachel carolyn janet catherine maria heather diane ruth " +
	"julie olivia joyce virginia hans klaus jürgen wolfgang günter dieter horst manfred uwe stefan andreas markus matthias " +
	"frank bernd ralf rainer sven lukas jonas felix leon tobias sabine petra monika ursula renate karin heike birgit gabriele " +
	"claudia katrin anke silke anja ingrid helga gisela lena leonie johanna franziska annika greta pierre jean marie luc " +
	"françois sophie camille giulia marco luca giovanni francesca josé juan carlos luis ana carmen sofia miguel pedro " +
	"oliver harry amelia isla grace charlotte martin simon fatima mohammed ahmed ali aisha priya ravi wei mei "

// nameWord reads one capitalised word of a name, hyphens, apostrophes and initials included; its end, 0 if none.
func (s *scan) nameWord(at int) int {
	r, n := utf8.DecodeRuneInString(s.text[at:])
	if !unicode.IsUpper(r) {
		return 0
	}
	end, letters := at+n, 1
	for end < len(s.text) {
		r, n := utf8.DecodeRuneInString(s.text[end:])
		if !unicode.IsLetter(r) && !(strings.ContainsRune("-'’", r) && end+n < len(s.text) && letterAt(s.text, end+n)) {
			break
		}
		letters++
		if letters > 40 {
			return 0
		}
		end += n
	}
	if letters == 1 { // an initial
		if end < len(s.text) && s.text[end] == '.' {
			return end + 1
		}
		return 0
	}
	if end < len(s.text) && (digit(s.text[end]) || s.text[end] == '_') {
		return 0
	}
	return end
}

func letterAt(s string, i int) bool {
	r, _ := utf8.DecodeRuneInString(s[i:])
	return unicode.IsLetter(r)
}

func listed(list, word string) bool {
	return len(word) < 24 && strings.Contains(list, " "+strings.ToLower(word)+" ")
}

// name reads up to four words of a name at at; its end and how many words, 0 if none.
func (s *scan) name(at int) (end, words int) {
	for words < 4 {
		next := s.nameWord(at)
		if next == 0 {
			at = s.particles(at)
			if next = s.nameWord(at); next == 0 {
				return end, words
			}
		}
		if w := strings.TrimRight(s.text[at:next], "."); listed(common, w) || listed(titles, w) {
			return end, words
		}
		end = next
		words++
		if end >= len(s.text) || s.text[end] != ' ' {
			return end, words
		}
		at = end + 1
	}
	return end, words
}

// particles returns where the word after the particles at at begins: at itself if there are none. Three follow each
// other at most, as in "von und zu der".
func (s *scan) particles(at int) int {
	for range 3 {
		sp := strings.IndexByte(s.text[at:min(len(s.text), at+8)], ' ')
		if sp < 1 || !listed(particles, s.text[at:at+sp]) || s.text[at] < 'a' || at+sp+1 >= len(s.text) {
			break
		}
		at += sp + 1
	}
	return at
}

// person finds names that begin after the word at i, a title or a greeting; or at i itself, if the word there is a given
// name and another capitalised one follows.
func (s *scan) person(i int) {
	end := s.nameWord(i)
	if end == 0 {
		return
	}
	word := s.text[i:end]
	rest := s.text[end:]
	switch {
	case listed(titles, strings.TrimRight(word, ".")) && (word != strings.ToUpper(word) || s.capitals(end)):
		if alone := s.addressee(i, end); alone > 0 {
			s.named(alone, 2, 0.9, "person/title")
			return
		}
		at := s.skip(end, ". ")
		for range maxTitles {
			next := s.nameWord(at)
			if next == 0 || !listed(titles, strings.TrimRight(s.text[at:next], ".")) {
				break
			}
			at = s.skip(next, ". ")
		}
		for faculty := range strings.SplitSeq("med. |dent. |jur. |phil. |rer. |nat. |pol. |h.c. ", "|") {
			if strings.HasPrefix(s.text[at:], faculty) {
				at += len(faculty)
			}
		}
		if at > end {
			s.named(at, 1, 0.9, "person/title")
		}
	case strings.Contains(greetings, "|"+strings.ToLower(word)+"|") && strings.HasPrefix(rest, " "):
		s.named(end+1, 1, 0.75, "person/greeting")
	case listed(given, word) && strings.HasPrefix(rest, " "):
		s.named(i, 2, 0.65, "person/given-name")
	}
}

// capitals reports whether the word after i is in capitals, as a name is after a title in capitals: "MR SMITH", but
// neither "HR Business Partner" nor "MS Office".
func (s *scan) capitals(i int) bool {
	at := s.skip(i, ". ")
	if at >= len(s.text) {
		return false
	}
	end := s.nameWord(at)
	return end > at && s.text[at:end] == strings.ToUpper(s.text[at:end])
}

// addressee returns where the line after a title that stands alone on its own begins, as on envelopes; 0 if it does not.
func (s *scan) addressee(start, end int) int {
	if start > 0 && s.text[start-1] != '\n' || end+1 >= len(s.text) || s.text[end] != '\n' {
		return 0
	}
	return end + 1
}

// closings are the last words of the lines that end a letter.
const closings = " sincerely faithfully truly respectfully regards wishes grüßen grüssen gruß hochachtungsvoll "

// signed finds a name that stands alone on the first line after a closing, whose line ends at i.
func (s *scan) signed(i int) {
	line := strings.TrimRight(s.text[max(0, i-24):i], " ,\t")
	if !listed(closings, line[1+strings.LastIndexAny(line, " \n\t"):]) {
		return
	}
	at := s.skip(i, "\n \t")
	if at >= len(s.text) {
		return
	}
	if end, _ := s.name(at); end > 0 && (end == len(s.text) || s.text[end] == '\n' || s.text[end] == ',') {
		s.named(at, 2, 0.7, "person/signature")
	}
}

// labelled finds the name after the colon at i, where the words before it, from the line's start or another break, are
// one of labels.
func (s *scan) labelled(i int) {
	from := max(0, i-24)
	from += strings.LastIndexAny(s.text[from:i], "\n\t|,;*") + 1
	if strings.Contains(labels, "|"+strings.ToLower(strings.TrimSpace(s.text[from:i]))+"|") {
		s.named(s.skip(i+1, " \t*"), 2, 0.8, "person/label")
	}
}

// named adds the name at at if it has the least number of words, and remembers it.
func (s *scan) named(at, least int, score float64, by string) {
	if at >= len(s.text) {
		return
	}
	end, words := s.name(at)
	if words < least {
		return
	}
	full := s.text[at:end]
	s.add(Person, at, end, score, by)
	if s.names == nil {
		s.names = map[string]bool{}
	}
	last := full[strings.LastIndexByte(full, ' ')+1:]
	if utf8.RuneCountInString(last) >= 4 && len(s.names) < 10_000 {
		s.names[last] = true
	}
}

// repeats finds surnames that were found elsewhere in the text beside a title, label or given name, with the
// capitalised words and initials around that were found with them.
func (s *scan) repeats() {
	if len(s.names) == 0 {
		return
	}
	for i := 0; i < len(s.text); i++ {
		c := s.text[i]
		if c < 'A' || c > 'Z' && c < utf8.RuneSelf || s.inWord(i) {
			continue
		}
		end := s.nameWord(i)
		if end > 0 && s.names[s.text[i:end]] {
			s.add(Person, i, end, 0.6, "person/repeat")
		}
	}
}
