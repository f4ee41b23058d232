package review

import (
	"slices"
	"strconv"
	"strings"
)

// unsigned reports that nothing looks like a signature, an electronic one or a line for one.
func unsigned(d *reading) bool {
	return !anyOf(d.lower, "signed", "signature", "signatory", "executed by", "in witness whereof", "unterschrift", "unterzeichn", "gezeichnet", "gez.", "____", "/s/")
}

const months = "january february march april may june july august september october november december januar februar märz mai juni juli oktober dezember"

// undated reports that there is no date: three numbers with separators, or a month's name beside a year.
func undated(d *reading) bool {
	if strings.Contains(d.Text, "<DATE") {
		return false
	}
	for i := range len(d.lower) {
		if digit(d.lower[i]) && (i == 0 || !digit(d.lower[i-1])) && date(d.lower[i:]) {
			return false
		}
	}
	for m := range strings.FieldsSeq(months) {
		for from := 0; ; {
			at := strings.Index(d.words[from:], m+" ")
			if at < 0 {
				break
			}
			from += at + len(m) + 1
			if rest := d.words[from:]; year(rest) || year(afterDay(rest)) {
				return false
			}
		}
	}
	return true
}

// afterDay returns what follows a day of the month, its ordinal ending and its comma.
func afterDay(s string) string {
	i := 0
	for i < len(s) && i < 2 && digit(s[i]) {
		i++
	}
	s = s[i:]
	for _, ending := range []string{"st", "nd", "rd", "th"} {
		s = strings.TrimPrefix(s, ending)
	}
	return strings.TrimLeft(s[:min(len(s), 8)], "., ")
}

func year(s string) bool {
	return len(s) >= 4 && (s[:2] == "19" || s[:2] == "20") && digit(s[2]) && digit(s[3])
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// date reports whether s begins with three numbers of one to four digits between equal separators.
func date(s string) bool {
	at := 0
	var sep byte
	for k := range 3 {
		n := 0
		for at < len(s) && digit(s[at]) && n < 5 {
			at, n = at+1, n+1
		}
		if n == 0 || n > 4 {
			return false
		}
		if k == 2 {
			return n == 2 || n == 4
		}
		if at >= len(s) || strings.IndexByte("./-", s[at]) < 0 || sep != 0 && s[at] != sep {
			return false
		}
		sep = s[at]
		at++
		for at < len(s) && s[at] == ' ' {
			at++
		}
	}
	return false
}

// shortNotice looks for less than thirty days beside words of notice.
func shortNotice(d *reading) bool {
	units := []struct {
		name string
		days int
	}{{"day", 1}, {"tag", 1}, {"week", 7}, {"woche", 7}}
	words := strings.Fields(d.words)
	for i := 1; i < len(words); i++ {
		n := count(words[i-1])
		if n == 0 {
			continue
		}
		w := strings.TrimPrefix(strings.TrimPrefix(words[i], "calendar"), "business")
		for _, u := range units {
			if !strings.HasPrefix(w, u.name) || n*u.days >= 30 {
				continue
			}
			near := strings.Join(words[max(0, i-8):min(len(words), i+8)], " ")
			if anyOf(near, "notice", "terminat", "kündig", "frist von") && !anyOf(near, "payment", "invoice", "zahl", "rechnung") {
				return true
			}
		}
	}
	return false
}

// count reads a small number in digits or words; 0 for none.
func count(w string) int {
	w = strings.Trim(w, "()[],.;:")
	if n, err := strconv.Atoi(w); err == nil && n > 0 && n < 1000 {
		return n
	}
	switch w {
	case "one", "einem", "einer", "einen":
		return 1
	case "two", "zwei":
		return 2
	case "three", "drei":
		return 3
	case "five", "fünf":
		return 5
	case "seven", "sieben":
		return 7
	case "ten", "zehn":
		return 10
	case "fourteen", "vierzehn":
		return 14
	}
	return 0
}

// largest returns the greatest amount of money in the text: a number beside a currency, in any of the usual writings.
func (d *reading) largest() float64 {
	most := 0.0
	s := d.words
	for i := 0; i < len(s); i++ {
		if !digit(s[i]) {
			continue
		}
		end := i
		for end < len(s) && (digit(s[end]) || end+1 < len(s) && strings.IndexByte(".,'", s[end]) >= 0 && digit(s[end+1])) {
			end++
		}
		scale, after := scaled(s[end:min(len(s), end+24)])
		if endsInCurrency(s[max(0, i-8):i]) || beginsWithCurrency(after) {
			most = max(most, amount(s[i:end])*scale)
		}
		i = end
	}
	return most
}

// scales are what may stand between a number and its currency, the longer of two with the same beginning first.
var scales = []struct {
	name  string
	times float64
}{{"thousand", 1e3}, {"tausend", 1e3}, {"millionen", 1e6}, {"million", 1e6}, {"mio.", 1e6}, {"mio", 1e6}, {"milliarden", 1e9}, {"milliarde", 1e9},
	{"mrd.", 1e9}, {"mrd", 1e9}, {"billion", 1e9}, {"bn", 1e9}, {"m", 1e6}, {"k", 1e3}}

// scaled reads the word for thousands, millions or billions that s, what follows a number, may begin with.
func scaled(s string) (times float64, after string) {
	s = strings.TrimLeft(s, " ")
	for _, x := range scales {
		if rest, ok := strings.CutPrefix(s, x.name); ok && (rest == "" || !letter(rest[0]) || beginsWithCurrency(rest)) {
			return x.times, strings.TrimLeft(rest, " ")
		}
	}
	return 1, s
}

var currencies = []string{"€", "$", "£", "eur", "usd", "gbp", "chf", "euro", "dollars"}

func endsInCurrency(s string) bool {
	s = strings.TrimRight(s, " ")
	return slices.ContainsFunc(currencies, func(c string) bool { return strings.HasSuffix(s, c) })
}

func beginsWithCurrency(s string) bool {
	return slices.ContainsFunc(currencies, func(c string) bool { return strings.HasPrefix(s, c) })
}

// amount reads 1,250,000.00 as 1.250.000,00: one or two digits after the last separator are decimals.
func amount(s string) float64 {
	cut := strings.LastIndexAny(s, ".,")
	decimals := ""
	if cut >= 0 && len(s)-cut-1 < 3 {
		s, decimals = s[:cut], s[cut+1:]
	}
	whole := strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
	v, err := strconv.ParseFloat(whole+"."+decimals+"0", 64)
	if err != nil || len(whole) > 15 {
		return 0
	}
	return v
}
