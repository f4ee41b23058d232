package review

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// sound is a contract with nothing to object to.
const sound = `Services agreement of 3 March 2026 between Harbour Estates and the contractor. The contractor maintains the lifts of the
building and answers calls on working days. The price is 1,200 euros a month, payable by bank transfer. Each party is liable for damage
that it causes by negligence. Either party may end this agreement with three months of notice in writing. This agreement is governed by
the laws of Ireland. Signed by both parties.`

func ids(a Assessment) (out []string) {
	for _, r := range a.Reasons {
		out = append(out, r.Rule)
	}
	return out
}

func assess(class, text string) Assessment {
	return Assess(Facts{Text: text, Class: class, Confidence: 1})
}

func TestASoundDocumentHasNoReasons(t *testing.T) {
	a := assess(contract, sound)
	if a.Risk != Low || a.Score != 0 || len(a.Reasons) != 0 || a.DocumentClass != contract || a.Recommendation == "" {
		t.Errorf("%+v", a)
	}
	if a.Reasons == nil {
		t.Error("no reasons are written as null, not as an empty list")
	}
}

// TestEveryRule has a sentence for every rule of the checklist that fires it, and it alone of those that look for phrases,
// and one that is near and must not.
func TestEveryRule(t *testing.T) {
	unfired := map[string]bool{}
	for _, r := range rules() {
		if unfired[r.id] {
			t.Errorf("two rules are called %s", r.id)
		}
		unfired[r.id] = true
		if r.weight <= 0 || r.weight >= 1 || r.text == "" || !strings.HasSuffix(r.text, ".") {
			t.Errorf("%s weighs %v and says %q", r.id, r.weight, r.text)
		}
	}
	for _, c := range []struct{ id, class, fires, not string }{
		{"auto-renewal", contract, "It renews automatically for a year.", "It does not renew automatically."},
		{"unlimited-liability", contract, "The contractor's liability shall be\nunlimited.", "There is no unlimited liability."},
		{"no-liability-clause", contract, "-liab", ""},
		{"penalty", contract, "Delay costs a penalty of 5 percent.", "Delay is without penalty."},
		{"short-notice", contract, "Notice is fourteen (14) days.", "Notice is ninety days. Invoices are due in 14 days."},
		{"unilateral-change", contract, "Fees may be set at the provider's sole discretion.", "Changes need both signatures."},
		{"exclusivity", contract, "The buyer shall not compete.", "It does not ask for exclusivity."},
		{"indemnity", contract, "The buyer shall indemnify the seller.", "Nobody has to promise indemnities beyond the law."},
		{"missing-signature", contract, "-signed", ""},
		{"missing-date", contract, "-3 march 2026", ""},
		{"no-governing-law", contract, "-law", ""},
		{"subprocessors", contract, "Subcontractors may be used.", "No subcontractors may be used."},
		{"overdue", invoice, "This invoice is overdue.", "This invoice is not overdue."},
		{"changed-bank-details", invoice, "Our bank details have changed.", "Our bank details are as before."},
		{"pressing", email, "Please answer immediately.", "Please answer when you can."},
		{"unusual-payment", email, "Pay by gift card.", "Pay by card."},
		{"no-invoice-number", invoice, "Amount due within 30 days, VAT included.", "Invoice number 4, due within 30 days, VAT included."},
		{"no-due-date", invoice, "Invoice number 4, VAT included.", "Invoice number 4, payable on receipt, VAT included."},
		{"no-tax", invoice, "Invoice number 4, payable on receipt.", "Invoice number 4, payable on receipt, VAT 19 percent."},
		{"end-of-employment", hr, "This is a written warning.", "This is a letter of welcome."},
		{"pay", hr, "Your salary rises.", "Your office moves."},
		{"health-of-employee", hr, "You were on sick leave.", "You were on leave."},
		{"credentials", email, "Click here to verify your account.", "Come here with your bill."},
		{"breach", report, "Records were leaked in a data breach.", "There was no data breach."},
		{"weakness", report, "The audit found a material weakness.", "The audit found no material weakness."},
		{"special-category", medical, "Seen today.", ""},
		{"health-data", report, "The patient was seen.", "The visitor was seen."},
		{"cross-border", hr, "Data goes to third countries.", "Data stays in the country."},
		{"dispute", email, "We shall begin legal proceedings.", "We shall begin on Monday."},
		{"very-high-amount", report, "It cost EUR 1,250,000.00.", "It has 1,250,000 rows."},
		{"high-amount", report, "It cost 250 thousand euros.", "It cost 99,999 euros."},
		{"confidential", hr, "Strictly confidential.", "For everybody."},
	} {
		delete(unfired, c.id)
		text, near := c.fires, c.not
		if c.class == contract {
			near = sound + " " + near
			if gone, ok := strings.CutPrefix(text, "-"); ok {
				text = strings.NewReplacer(map[string][]string{"liab": {"liable", "bound"}, "signed": {"Signed", "Agreed"}, "3 march 2026": {"3 March 2026", "today"},
					"law": {"governed by\nthe laws of Ireland", "short"}}[gone]...).Replace(sound)
			} else {
				text = sound + " " + text
			}
		}
		if got := ids(assess(c.class, text)); !slices.Contains(got, c.id) {
			t.Errorf("%s: %q gives %v", c.id, c.fires, got)
		}
		if got := ids(assess(c.class, near)); near != "" && slices.Contains(got, c.id) {
			t.Errorf("%s: %q fires it", c.id, c.not)
		}
	}
	facts := func(change func(*Facts)) []string {
		f := Facts{Text: sound, Class: contract, Confidence: 1}
		change(&f)
		return ids(Assess(f))
	}
	for id, change := range map[string]func(*Facts){
		"unredacted-personal-data":   func(f *Facts) { f.Left = map[string]int{"PERSON": 1} },
		"findings-without-redaction": func(f *Facts) { f.Found = map[string]int{"PERSON": 1} },
		"much-personal-data":         func(f *Facts) { f.Text += strings.Repeat(" <PERSON>", 10) },
		"uncertain-class":            func(f *Facts) { f.Confidence = 0.59 },
		"short-text":                 func(f *Facts) { f.Text = "Signed 3 March 2026. Liable. Governed by the laws of Ireland." },
	} {
		delete(unfired, id)
		if got := facts(change); !slices.Equal(got, []string{id}) {
			t.Errorf("%s: the facts give %v", id, got)
		}
	}
	if got := facts(func(f *Facts) { f.Found, f.Text = map[string]int{"PERSON": 1}, f.Text+" <PERSON>" }); len(got) != 0 {
		t.Errorf("a redacted finding gives %v", got)
	}
	for id := range unfired {
		t.Errorf("%s has no test", id)
	}
}

func TestRulesAreForTheirClasses(t *testing.T) {
	text := sound + " It renews automatically. Your salary rises. This invoice is overdue. Click here to verify your account."
	for class, want := range map[string]string{contract: "auto-renewal", hr: "pay", invoice: "overdue", email: "credentials"} {
		got := ids(assess(class, text))
		for _, other := range []string{"auto-renewal", "pay", "overdue", "credentials"} {
			if slices.Contains(got, other) != (other == want) {
				t.Errorf("a %s gives %v", class, got)
			}
		}
	}
	if got := ids(assess("recipe", text)); len(got) != 0 {
		t.Errorf("a document of another class gives %v", got)
	}
}

// TestLevels holds levels and scores to what the reasons add up to.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		add  string
		risk string
	}{
		{"", Low},
		{" No confidential matter.", Low},
		{" Subcontractors may be used.", Low}, // .15
		{" Subcontractors may be used. Strictly confidential.", Low},                     // .235
		{" It renews automatically.", Medium},                                            // .30
		{" The contractor's liability shall be unlimited.", Medium},                      // .50
		{" The contractor's liability shall be unlimited. Delay costs a penalty.", High}, // .65
		{" The contractor's liability shall be unlimited. Delay costs a penalty. It renews automatically. It cost EUR 2 million.", High},
	} {
		a := assess(contract, sound+c.add)
		safe := 1.0
		for _, r := range a.Reasons {
			safe *= 1 - r.Weight
		}
		if a.Risk != c.risk || math.Abs(a.Score-(1-safe)) > 0.005+1e-9 {
			t.Errorf("%q is %s at %v for %v; want %s at %.3f", c.add, a.Risk, a.Score, ids(a), c.risk, 1-safe)
		}
		if !slices.IsSortedFunc(a.Reasons, func(x, y Reason) int { return int(100*y.Weight) - int(100*x.Weight) }) {
			t.Errorf("%q: the heaviest reason is not the first: %v", c.add, a.Reasons)
		}
	}
	low, medium, high := assess(contract, sound), assess(contract, sound+" It renews automatically."), assess(medical, sound+" Legal proceedings began.")
	if low.Recommendation == medium.Recommendation || medium.Recommendation == high.Recommendation || high.Risk != High {
		t.Errorf("recommendations %q, %q, %q", low.Recommendation, medium.Recommendation, high.Recommendation)
	}
}

func TestReasonsQuoteNothing(t *testing.T) {
	text := sound + " Miriam Castellane shall pay a penalty of EUR 1,234,567 and her liability is unlimited."
	texts := map[string]bool{}
	for _, r := range rules() {
		texts[r.text] = true
	}
	a := assess(contract, text)
	if len(a.Reasons) < 3 {
		t.Fatalf("%v", ids(a))
	}
	for _, r := range a.Reasons {
		if !texts[r.Text] {
			t.Errorf("%q is not the checklist's wording", r.Text)
		}
	}
}

func TestLargest(t *testing.T) {
	for text, want := range map[string]float64{
		"a fee of € 1,250.50":   1250.5,
		"a fee of 1.250,50 EUR": 1250.5,
		"chf 1'250'000.00":      1250000,
		"EUR 5 million":         5e6,
		"5 million euros":       5e6,
		"2,5 Mio. €":            2.5e6,
		"2.5m euros":            2.5e6,
		"€2.5m":                 2.5e6,
		"$300k":                 3e5,
		"300 thousand dollars":  3e5,
		"3 bn usd":              3e9,
		"3 billion euros":       3e9,
		"zwei Milliarden, genau 2 Milliarden Euro": 2e9,
		"€5 monthly":                      5,
		"€20 kept":                        20,
		"1,250,000 rows and 3 March 2026": 0,
		"12 euros and 14 euros":           14,
		"€ 99999999999999999999":          0, // no amount that anybody pays
		"100,000":                         0,
	} {
		d := &reading{words: strings.ToLower(text)}
		if got := d.largest(); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestDates(t *testing.T) {
	for text, dated := range map[string]bool{
		"on 3 March 2026":            true,
		"on March 3, 2026":           true,
		"on March 3rd, 2026":         true,
		"on the 21st of march 2026":  true,
		"March 2026":                 true,
		"am 3. März 2026":            true,
		"2026-03-03":                 true,
		"dated 3.3.26":               true,
		"03/03/2026":                 true,
		"03. 03. 2026":               true,
		"version 1.2.3":              false,
		"they may 2 times a week":    false,
		"march on":                   false,
		"call 030-901820":            false,
		"in the year 2026":           false,
		"between 1.000.000 and more": false,
		"":                           false,
		"the month of december":      false,
		"in december 18 people":      false,
	} {
		d := &reading{Facts: Facts{Text: text}, lower: strings.ToLower(text)}
		d.words = strings.Join(strings.Fields(d.lower), " ")
		if undated(d) == dated {
			t.Errorf("%q: dated %v, want %v", text, !dated, dated)
		}
	}
}

func TestNegation(t *testing.T) {
	for text, says := range map[string]bool{
		"a penalty":                                   true,
		"no penalty":                                  false,
		"without any penalty":                         false,
		"no excuses. a penalty":                       true,
		"the casino shall then pay a penalty":         true, // not a "no" that the window cut out of a word
		"it is not so that there is, ever, a penalty": true, // too far away
		"antipenalty":                                 false,
		"penalties":                                   true,
	} {
		d := &reading{words: text}
		if got := d.says("penalt"); got != says {
			t.Errorf("%q: %v, want %v", text, got, says)
		}
	}
}

func FuzzAssess(f *testing.F) {
	f.Add(sound, contract, 0.9, 3, 0)
	f.Add("€2.5m by March 3rd, 2026; 1'250'000.00 CHF", invoice, 0.1, -1, math.MaxInt)
	f.Add("Kündigungsfrist vierzehn Tage, kein Wettbewerbsverbot.", hr, 0.0, 0, 1)
	f.Fuzz(func(t *testing.T, text, class string, confidence float64, found, left int) {
		facts := Facts{Text: text, Class: class, Confidence: confidence, Found: map[string]int{"A": found, "B": math.MaxInt}, Left: map[string]int{"A": left, "B": left}}
		a := Assess(facts)
		if a.Score < 0 || a.Score > 1 || (a.Score > 0) != (len(a.Reasons) > 0) {
			t.Fatalf("score %v for %v", a.Score, ids(a))
		}
		if want := map[bool]string{a.Score >= highFrom: High, a.Score < mediumFrom: Low}[true]; want != "" && a.Risk != want {
			t.Fatalf("%s at %v", a.Risk, a.Score)
		}
		if left > 0 && !slices.Contains(ids(a), "unredacted-personal-data") {
			t.Fatalf("personal data in %d places passes: %v", left, ids(a))
		}
		if again := Assess(facts); !slices.Equal(a.Reasons, again.Reasons) {
			t.Fatal("the same facts give other reasons")
		}
	})
}
