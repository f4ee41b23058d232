// Package review rates how risky a document is to approve. Its nouns are the Facts about a document, the rule that looks
// for one thing in them, and the Assessment that the rules add up to. It promises the same assessment for the same
// facts, a reason for every point of the score, and reasons in fixed words that quote nothing. It is a checklist of
// phrases in English and German: it sees what it knows the words for, and is no legal advice.
package review

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Levels of risk, and the scores they begin at.
const (
	Low    = "low"
	Medium = "medium"
	High   = "high"

	mediumFrom = 0.30
	highFrom   = 0.60
)

// Facts are what is known of a document.
type Facts struct {
	Text       string         // as it came, redacted or not
	Class      string         // of the classification
	Confidence float64        // of the classification, 0 to 1
	Found      map[string]int // personal data by type that the detector reported; nil if it didn't run
	Left       map[string]int // personal data by type that is in Text now
}

// A Reason is a rule that fired, with its weight, 0 to 1.
type Reason struct {
	Rule   string  `json:"rule"`
	Weight float64 `json:"weight"`
	Text   string  `json:"text"`
}

// An Assessment is the review-result artifact.
type Assessment struct {
	Risk           string   `json:"risk"`
	Score          float64  `json:"score"`   // 0 to 1: one less the product of what each reason leaves
	Reasons        []Reason `json:"reasons"` // the heaviest first
	DocumentClass  string   `json:"document_class"`
	Recommendation string   `json:"recommendation"`
}

// Assess applies every rule for the document's class.
func Assess(f Facts) Assessment {
	d := &reading{Facts: f, lower: strings.ToLower(f.Text)}
	d.words = strings.Join(strings.Fields(d.lower), " ")
	a := Assessment{DocumentClass: f.Class, Reasons: []Reason{}}
	safe := 1.0
	for _, r := range rules() {
		if (len(r.classes) == 0 || slices.Contains(r.classes, f.Class)) && r.fires(d) {
			a.Reasons = append(a.Reasons, Reason{r.id, r.weight, r.text})
			safe *= 1 - r.weight
		}
	}
	slices.SortStableFunc(a.Reasons, func(x, y Reason) int { return cmp.Compare(y.Weight, x.Weight) })
	a.Score = math.Round((1-safe)*100) / 100
	switch {
	case a.Score >= highFrom:
		a.Risk, a.Recommendation = High, "Do not approve before legal or compliance staff have looked at the reasons given."
	case a.Score >= mediumFrom:
		a.Risk, a.Recommendation = Medium, "Check the reasons given before approving."
	default:
		a.Risk, a.Recommendation = Low, "Nothing stands against approval after the usual look."
	}
	return a
}

// A reading is the facts in the forms that rules look at.
type reading struct {
	Facts
	lower string // the text in lower case
	words string // the same with single spaces, for phrases that run over lines
}

// says reports whether one of the phrases (lower case, separated by |) occurs and isn't denied just before.
func (d *reading) says(phrases string) bool {
	for p := range strings.SplitSeq(phrases, "|") {
		for from := 0; ; {
			at := strings.Index(d.words[from:], p)
			if at < 0 {
				break
			}
			at += from
			if boundary(d.words, at, p) && !denied(d.before(at)) {
				return true
			}
			from = at + len(p)
		}
	}
	return false
}

// boundary wants a phrase to begin where a word does; it may end inside one, as stems do.
func boundary(s string, at int, phrase string) bool {
	if at == 0 || !letter(phrase[0]) {
		return true
	}
	return !letter(s[at-1])
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 0x80 }

// before returns the few whole words before at.
func (d *reading) before(at int) string {
	from := max(0, at-24)
	for from > 0 && from < at && d.words[from-1] != ' ' {
		from++
	}
	return d.words[from:at]
}

// denied reports whether a word of negation stands in the few words before, in the same sentence.
func denied(before string) bool {
	if i := strings.LastIndexAny(before, ".;:"); i >= 0 {
		before = before[i+1:]
	}
	for w := range strings.FieldsSeq(before) {
		switch w {
		case "no", "not", "without", "never", "nor", "kein", "keine", "keinen", "keiner", "nicht", "ohne":
			return true
		}
	}
	return false
}
