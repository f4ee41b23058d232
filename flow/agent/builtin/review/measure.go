package review

import (
	"strconv"
	"strings"
)

// unsigned reports that nothing looks like a signature, an electronic one or a line for one.
func unsigned(d *reading) bool {
	return !anyOf(d.lower, "signed", "signature", "signatory", "executed by", "in witness whereof", "unterschrift", "unterzeichn", "gezeichnet", "gez.", "____", "/s/")
}

// undated reports that there is no date: three numbers with separators, or a month's name beside a year.
func undated(d *reading) bool {
	if anyOf(d.text(), "<DATE") {
		return false
	}
	for i := 0; i+7 < len(d.lower); i++ {
		if digit(d.lower[i]) && (i == 0 || !digit(d.lower[i-1])) && date(d.lower[i:]) {
			return false
		}
	}
	for w := range strings.FieldsSeq("january february march april may june july august september october november december januar februar märz mai juni juli oktober dezember") {
		for from := 0; ; {
			at := strings.Index(d.words[from:], w+" ")
			if at < 0 {
				break
			}
			from += at + len(w) + 1
			if year(d.words[from:]) || year(strings.TrimLeft(d.words[from:min(len(d.words), from+8)], "0123456789, stndrh")) || year(after(d.words[from:])) {
				return false
			}
		}
	}
	return true
}

func (d *reading) text() string { return d.Text }

// after returns what follows a day and its comma.
func after(s string) string {
	i := 0
	for i < len(s) && i < 2 && digit(s[i]) {
		i++
	}
	return strings.TrimLeft(s[i:min(len(s), i+8)], ", ")
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
		if money(s[max(0, i-8):i], s[end:min(len(s), end+20)]) {
			most = max(most, amount(s[i:end])*scale(s[end:min(len(s), end+12)]))
		}
		i = end
	}
	return most
}

func money(before, after string) bool {
	before = strings.TrimRight(before, " ")
	after = strings.TrimLeft(after, " ")
	for _, c := range []string{"€", "$", "£", "eur", "usd", "gbp", "chf", "euro", "dollars"} {
		if strings.HasSuffix(before, c) || strings.HasPrefix(after, c) {
			return true
		}
	}
	for _, m := range []string{"million", "mio.", "mio", "m", "bn", "thousand"} {
		if rest, ok := strings.CutPrefix(after, m); ok {
			rest = strings.TrimLeft(strings.TrimLeft(rest, "enr"), " ")
			for _, c := range []string{"€", "$", "£", "eur", "usd", "gbp", "chf", "dollars"} {
				if strings.HasPrefix(rest, c) {
					return true
				}
			}
		}
	}
	return false
}

func scale(after string) float64 {
	after = strings.TrimLeft(after, " ")
	switch {
	case strings.HasPrefix(after, "million"), strings.HasPrefix(after, "mio"):
		return 1e6
	case strings.HasPrefix(after, "billion"), strings.HasPrefix(after, "milliarde"), strings.HasPrefix(after, "mrd"):
		return 1e9
	case strings.HasPrefix(after, "thousand"), strings.HasPrefix(after, "tausend"):
		return 1e3
	}
	return 1
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
