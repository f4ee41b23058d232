package pii

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// found lists what is found in a text as "TYPE text".
func found(text string) (out []string) {
	for _, f := range Find(text) {
		out = append(out, f.Type+" "+text[f.Start:f.End])
	}
	return out
}

// finds wants exactly these findings.
func finds(t *testing.T, text string, want ...string) {
	t.Helper()
	if got := found(text); !slices.Equal(got, want) {
		t.Errorf("%q: found %q, want %q", text, got, want)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		kind  string
		valid []string
		near  []string // one digit, group or word away from it
	}{
		{IBAN,
			[]string{"DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19", "GB29-NWBK-6016-1331-9268-19", "NO93 8601 1117 947",
				"MT84MALT011000012345MTLCAST001S", "FR14 2004 1010 0505 0001 3M02 606", "LC55 HEMM 0001 0001 0012 0012 0002 3015", "DE89 3704 0044\n0532 0130 00"},
			[]string{"DE88370400440532013000", "DE89 3704 0044 0532 0130 01", "DE89 3704 0044 0532 0130 0", "DE89 37040 044 0532 0130 00", "XX89370400440532013000",
				"ADE89370400440532013000", "DE893704004405320130001", "DE89  3704 0044 0532 0130 00", "DEXX370400440532013000"}},
		{CreditCard,
			[]string{"4111111111111111", "4111 1111 1111 1111", "5555-5555-5555-4444", "2223003122003222", "3782 822463 10005", "30569309025904", "6011111111111117", "3530111333300000", "6759649826438453"},
			[]string{"4111111111111112", "4111 1111 1111 111", "41111 111 1111 1111", "1111111111111117", "9111111111111111", "41111111111111111", "x4111111111111111", "4111 1111-1111 11111"}},
		{UKNINO, []string{"AB123456C", "AB 12 34 56 C", "AB 123456 C", "JG 10 37 59 A"}, []string{"QT123456C", "AO123456C", "GB123456A", "AB123456E", "AB12345C", "AB 12345 6C", "ZAB123456C"}},
		{FRNIR, []string{"185057512345673", "1 85 05 75 123 456 73", "2 91 03 69 987 654 28"}, []string{"185057512345674", "985057512345673", "185137512345673", "18505751234567"}},
		{ESDNI, []string{"12345678Z", "12345678-Z", "X1234567L", "45872310Y"}, []string{"12345678A", "1234567Z", "W1234567L", "12345678ZZ"}},
		{ITFiscalCode, []string{"RSSMRA85T10A562S", "BNCLRA90D52F205U"}, []string{"RSSMRA85T10A562T", "RSSMRA85Z10A562S", "RSSMRA85T10A562", "RSSMRA85T10A5624"}},
		{CHAHV, []string{"756.9217.0485.62", "7569217048562", "756 9217 0485 62"}, []string{"756.9217.0485.61", "757.9217.0485.62", "756.92170.485.62", "756.9217.0485.6"}},
		{DETaxID, []string{"86095742719", "86 095 742 719", "Steuer-ID 47036892816"}, []string{"86095742718", "06095742719", "11111111111", "12345678901", "860 957 42719"}},
		{USSSN, []string{"536-22-8714", "SSN 536 22 8714", "SSN: 536228714"}, []string{"666-22-8714", "000-22-8714", "900-22-8714", "536-00-8714", "536-22-0000", "536228714", "536-2-28714", "1-536-22-8714"}},
		{UKNHS, []string{"943 476 5919", "NHS 9434765919", "NHS no: 943-476-5919"}, []string{"943 476 5918", "NHS 9434765918", "9434765919"}},
		{NLBSN, []string{"BSN 111222333", "Burgerservicenummer: 738912049", "BSN 1112.22.333"}, []string{"BSN 111222334", "111222333", "BSN 000000000"}},
		{USPassport, []string{"passport 548812093", "Passport no. A12345678"}, []string{"548812093", "passport 54881209", "passport AB1234567"}},
	} {
		for _, v := range c.valid {
			if got := found("Text " + v + " and 7 more."); len(got) != 1 || !strings.HasPrefix(got[0], c.kind+" ") || !strings.HasSuffix(v, strings.TrimPrefix(got[0], c.kind+" ")) {
				t.Errorf("%s %q: %q", c.kind, v, got)
			}
		}
		for _, v := range c.near {
			for _, got := range found("Text " + v + " and more.") {
				if strings.HasPrefix(got, c.kind+" ") {
					t.Errorf("%q is no %s, found %q", v, c.kind, got)
				}
			}
		}
	}
}

// TestCheckDigits changes every digit of valid numbers: none may pass that has a check digit for it.
func TestCheckDigits(t *testing.T) {
	for kind, valid := range map[string]string{IBAN: "DE89370400440532013000", CreditCard: "4111111111111111", FRNIR: "185057512345673", ESDNI: "12345678Z",
		CHAHV: "7569217048562", DETaxID: "86095742719", UKNHS: "NHS 9434765919", NLBSN: "BSN 111222333", ITFiscalCode: "RSSMRA85T10A562S"} {
		for i := range valid {
			if !digit(valid[i]) {
				continue
			}
			for d := byte('0'); d <= '9'; d++ {
				if d == valid[i] {
					continue
				}
				text := valid[:i] + string(d) + valid[i+1:]
				for _, f := range Find(text) {
					if f.Type == kind {
						t.Errorf("%s: %q passes", kind, text)
					}
				}
			}
		}
	}
}

func TestContacts(t *testing.T) {
	finds(t, "mail a.b+c@x-y.example.com, please", "EMAIL_ADDRESS a.b+c@x-y.example.com")
	finds(t, "<jörg@köln.example>.", "EMAIL_ADDRESS jörg@köln.example")
	finds(t, "see mailto:a@b.example?subject=x", "EMAIL_ADDRESS a@b.example")
	finds(t, "ends a@b.example.", "EMAIL_ADDRESS a@b.example")
	for _, text := range []string{"a@b", "@handle", "a@b.c", "a@.example", "a@b..example", "a@b.123", "x @ y.example", "@@@@", "a@"} {
		finds(t, text)
	}
	for _, phone := range []string{"+49 40 5550 2718", "+44 (0)20 7946 0991", "+1-212-555-0187", "+41 44 555 02 19", "0049 40 5550 2718", "(212) 555-0187", "212-555-0187",
		"0117 496 0288", "+33.1.55.50.01.99", "+4940123456"} {
		finds(t, "x "+phone+" y", "PHONE_NUMBER "+phone)
	}
	finds(t, "Tel. 089/5550123", "PHONE_NUMBER 089/5550123")
	finds(t, "call 555 0187", "PHONE_NUMBER 555 0187")
	for _, text := range []string{"555 0187", "on 12.04.2025", "call on 2025-04-12", "tel 12.04.2025", "1234567", "order 2025-118-4470", "EUR 12,702.00", "+0 123 456 789", "+49 40",
		"12345678901234567890", "a+4940123456"} {
		finds(t, text)
	}
	for _, ip := range []string{"192.0.2.1", "255.255.255.255", "2001:db8::1", "::1", "fe80::1ff:fe23:4567:890a", "2001:db8:0:0:0:0:2:1", "::ffff:192.0.2.1", "AB::CD"} {
		finds(t, "from "+ip+", then", "IP_ADDRESS "+ip)
	}
	finds(t, "dev 192.0.2.1", "IP_ADDRESS 192.0.2.1")
	for _, text := range []string{"256.0.0.1", "192.0.2", "192.0.2.1.5", "version 1.2.3.4", "Section 1.2.3.4", "at 12:30:45", "ratio 1:2", "a::b::c", "std::vector", "v1.2.3.4", "01.2.3.4.5"} {
		finds(t, text)
	}
}

func TestBirth(t *testing.T) {
	for _, date := range []string{"12.03.1958", "12. 3. 1958", "03/12/58", "04/23/1958", "1958-03-12", "12 March 1958", "12th of March 1958", "12. März 1958", "March 12, 1958", "Mar 12 1958", "5 December\n1989", "3. Okt. 1990"} {
		for _, word := range []string{"born", "Date of birth:", "DOB", "geboren am", "geb.", "né le", "nato il"} {
			finds(t, "x, "+word+" "+date+".", "DATE_OF_BIRTH "+date)
		}
		finds(t, "signed on "+date)
		finds(t, "newborn "+date)
	}
	finds(t, "DOB 12.03.1958, admitted 2 May 2026", "DATE_OF_BIRTH 12.03.1958")
	finds(t, "Date of birth | Ward\n12.03.1958 | 5B", "DATE_OF_BIRTH 12.03.1958")
	for _, text := range []string{"born 32.03.1958", "born 12.13.1958x", "born 13.13.1958", "born 12.03.1758", "born 12.03-1958", "born 12 Smarch 1958", "born " + strings.Repeat("long ago ", 9) + "12.03.1958"} {
		finds(t, text)
	}
}

func TestPersons(t *testing.T) {
	for text, want := range map[string][]string{
		"Mr Smith came":                                 {"Smith"},
		"Prof. Dr. med. Anna-Lena O'Brien spoke":        {"Anna-Lena O'Brien"},
		"Herrn Jürgen von der Heide, Köln":              {"Jürgen von der Heide"},
		"MR JOHN SMITH":                                 {"JOHN SMITH"},
		"Frau\nAnnelies Rottmayr\nAm Weg 3":             {"Annelies Rottmayr"},
		"Dear Bettina,":                                 {"Bettina"},
		"Dear Mrs Tranter, ...":                         {"Tranter"},
		"Name: Ada Byron King\nAge: 36":                 {"Ada Byron King"},
		"Patient:\tHarriet Loxworth":                    {"Harriet Loxworth"},
		"Yours sincerely,\n\nWinifred Castellane\nHR":   {"Winifred Castellane"},
		"Mit freundlichen Grüßen\nKorbinian Brandhuber": {"Korbinian Brandhuber"},
		"told Sarah Mossgrave yesterday":                {"Sarah Mossgrave"},
		"Mr Ferncastle paid. Ferncastle left.":          {"Ferncastle", "Ferncastle"},
		"Dear Sir or Madam":                             nil,
		"Dear Customer":                                 nil,
		"HR Business Partner":                           nil,
		"MS Office":                                     nil,
		"Dear Mr <PERSON>":                              nil,
		"Name: see below":                               nil,
		"Subject: Mill Lane":                            nil,
		"Yours sincerely\n\nthe team":                   nil,
		"With best wishes\nAccounts Department":         nil,
		"The Board met in May":                          nil,
		"Mr":                                            nil,
	} {
		var names []string
		for _, f := range Find(text) {
			if f.Type == Person {
				names = append(names, text[f.Start:f.End])
			}
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q: %q, want %q", text, names, want)
		}
	}
}

// TestContext wants words nearby to raise scores, and nothing else.
func TestContext(t *testing.T) {
	score := func(text string) float64 {
		f := Find(text)
		if len(f) != 1 {
			t.Fatalf("%q: %v", text, f)
		}
		return f[0].Score
	}
	for _, c := range [][2]string{
		{"number 4111111111111111", "card number 4111111111111111"},
		{"number 86095742719", "tax number 86095742719"},
		{"number 536-22-8714", "social security number 536-22-8714"},
		{"number 943 476 5919", "NHS number 943 476 5919"},
		{"number 0117 496 0288", "phone number 0117 496 0288"},
	} {
		if plain, known := score(c[0]), score(c[1]); known <= plain || plain < Threshold || known > 1 {
			t.Errorf("%q %.2f, %q %.2f", c[0], plain, c[1], known)
		}
	}
	if far := score("phone" + strings.Repeat(" ", reach) + "0117 496 0288"); far != score("0117 496 0288") {
		t.Errorf("a word too far away counts: %.2f", far)
	}
}

// TestOverlap wants one finding where several recognizers see something.
func TestOverlap(t *testing.T) {
	finds(t, "IBAN GB29 NWBK 6016 1331 9268 19 card", "IBAN_CODE GB29 NWBK 6016 1331 9268 19")
	finds(t, "Email: dr.smith@x.example", "EMAIL_ADDRESS dr.smith@x.example")
	finds(t, "tel 756.9217.0485.62", "CH_AHV 756.9217.0485.62")
	got := resolve([]Finding{{"A", 0, 5, 0.6, ""}, {"B", 3, 9, 0.9, ""}, {"C", 8, 12, 0.7, ""}, {"D", 20, 22, 0.4, ""}, {"E", 30, 33, 0.6, ""}, {"F", 30, 35, 0.6, ""}})
	var kinds string
	for _, f := range got {
		kinds += f.Type
	}
	if kinds != "BF" {
		t.Errorf("kept %s", kinds)
	}
}

func TestRedact(t *testing.T) {
	text := "Dear Mr Smith,\nyour card 4111 1111 1111 1111 (IBAN DE89370400440532013000) – thank you: a@b.example!\n"
	const want = "Dear Mr <PERSON>,\nyour card <CREDIT_CARD> (IBAN <IBAN_CODE>) – thank you: <EMAIL_ADDRESS>!\n"
	f := Find(text)
	if got := Redact(text, f); got != want {
		t.Errorf("%q", got)
	}
	if c := Counts(f); c[Person] != 1 || c[CreditCard] != 1 || c[IBAN] != 1 || c[EmailAddress] != 1 || len(c) != 4 {
		t.Errorf("%v", c)
	}
	if got := Redact(text, nil); got != text {
		t.Error("no findings, and the text changed")
	}
	for _, example := range labelled(t) {
		redacted := Redact(example.text, Find(example.text))
		if again := found(redacted); len(again) > 0 {
			t.Errorf("%q still holds %q", redacted, again)
		}
	}
}

// An example is a text and what is in it.
type example struct {
	text string
	want []Finding
}

// labelled reads testdata/labelled.txt, where [TYPE:text] marks what is to be found. A line that ends a letter belongs to
// the next.
func labelled(tb testing.TB) (out []example) {
	tb.Helper()
	data, err := os.ReadFile("testdata/labelled.txt")
	if err != nil {
		tb.Fatal(err)
	}
	file := strings.ReplaceAll(string(data), "sincerely\n", "sincerely\x00")
	for line := range strings.Lines(file) {
		var e example
		rest := strings.ReplaceAll(strings.TrimSpace(line), "\x00", "\n")
		for {
			before, after, ok := strings.Cut(rest, "[")
			e.text += before
			if !ok {
				break
			}
			mark, tail, _ := strings.Cut(after, "]")
			kind, value, _ := strings.Cut(mark, ":")
			e.want = append(e.want, Finding{Type: kind, Start: len(e.text), End: len(e.text) + len(value)})
			e.text += value
			rest = tail
		}
		out = append(out, e)
	}
	return out
}

// TestPrecisionRecall publishes how much of a small labelled set is found, and how much of what is found is right. A
// finding is right if its type and span are.
func TestPrecisionRecall(t *testing.T) {
	type score struct{ right, wrong, missed int }
	scores := map[string]*score{}
	of := func(kind string) *score {
		if scores[kind] == nil {
			scores[kind] = &score{}
		}
		return scores[kind]
	}
	for _, e := range labelled(t) {
		got := Find(e.text)
		for _, f := range got {
			same := func(w Finding) bool { return w.Type == f.Type && w.Start == f.Start && w.End == f.End }
			if slices.ContainsFunc(e.want, same) {
				of(f.Type).right++
			} else {
				of(f.Type).wrong++
				t.Logf("wrong: %s %q", f.Type, e.text[f.Start:f.End])
			}
		}
		for _, w := range e.want {
			if !slices.ContainsFunc(got, func(f Finding) bool { return w.Type == f.Type && w.Start == f.Start && w.End == f.End }) {
				of(w.Type).missed++
				t.Logf("missed: %s %q", w.Type, e.text[w.Start:w.End])
			}
		}
	}
	var all, numbers score
	for _, kind := range slices.Sorted(maps.Keys(scores)) {
		s := scores[kind]
		t.Logf("%-15s precision %.2f recall %.2f of %d", kind, float64(s.right)/float64(max(s.right+s.wrong, 1)), float64(s.right)/float64(s.right+s.missed), s.right+s.missed)
		for _, sum := range []*score{&all, &numbers} {
			if sum == &numbers && kind == Person {
				continue
			}
			sum.right += s.right
			sum.wrong += s.wrong
			sum.missed += s.missed
		}
	}
	precision, recall := float64(all.right)/float64(all.right+all.wrong), float64(all.right)/float64(all.right+all.missed)
	t.Logf("all: precision %.3f, recall %.3f of %d", precision, recall, all.right+all.missed)
	if precision < 0.95 || recall < 0.9 {
		t.Errorf("precision %.3f, recall %.3f", precision, recall)
	}
	if numbers.wrong+numbers.missed > 0 {
		t.Errorf("apart from names: %d wrong, %d missed", numbers.wrong, numbers.missed)
	}
}

// FuzzFind wants spans in order, apart, on characters' borders and with sound scores.
func FuzzFind(f *testing.F) {
	f.Add("Mr Smith, IBAN DE89370400440532013000, 4111 1111 1111 1111")
	f.Add("born 12. März 1958, ::1, a@b.example, +49 40 5550 2718, Yours sincerely\n\nA B")
	f.Add("756.9217.0485.62 536-22-8714 AB 12 34 56 C RSSMRA85T10A562S X1234567L 2 91 03 69 987 654 28")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "\ufffd")
		at := 0
		findings := Find(text)
		for _, f := range findings {
			if f.Start < at || f.End <= f.Start || f.End > len(text) || f.Score < Threshold || f.Score > 1 || f.Recognizer == "" || !utf8.ValidString(text[f.Start:f.End]) {
				t.Fatalf("%+v after %d of %q", f, at, text)
			}
			at = f.End
		}
		if redacted := Redact(text, findings); !utf8.ValidString(redacted) || len(findings) == 0 && redacted != text {
			t.Fatalf("redacted %q", redacted)
		}
	})
}

// TestLinear feeds texts made to be slow: were any recognizer quadratic, this would not end.
func TestLinear(t *testing.T) {
	for _, piece := range []string{"@", "a@", "a.", "1", "1 ", "1.", "+", "(", ":", "::", "a:", "A", "Aa ", "Dr. ", "Mr ", "van ", "Dear ", "ß", "DE89", "born ", "\n", "sincerely\n", "Name:", "12.", "4111 "} {
		Find(strings.Repeat(piece, (512<<10)/len(piece)))
	}
}

// BenchmarkFind goes over letters with a finding in every other line; MB/s, and ns for each KB.
func BenchmarkFind(b *testing.B) {
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "Dear Mr Smith%d, the parties agree to what follows, and sign it in two copies on 12 May 2025.\n", i)
		fmt.Fprintf(&text, "Write to a%d@b.example or pay to DE89 3704 0044 0532 0130 00, telephone +49 40 5550 27%02d.\n", i, i%100)
	}
	s := text.String()
	b.SetBytes(int64(len(s)))
	n := 0
	for b.Loop() {
		n += len(Find(s))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(s))*1000, "ns/KB")
	if n == 0 {
		b.Fatal("nothing found")
	}
}
