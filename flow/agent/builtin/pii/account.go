package pii

import "strings"

// ibanLengths holds the countries of the SWIFT IBAN registry and the length of their IBANs.
const ibanLengths = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 " +
	"EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 " +
	"LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 " +
	"QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30 "

// iban finds International Bank Account Numbers (ISO 13616): country, length, check by mod 97.
func (s *scan) iban(i int) {
	if i+4 > len(s.text) || !digit(s.text[i+2]) || !digit(s.text[i+3]) {
		return
	}
	at := strings.Index(ibanLengths, s.text[i:i+2])
	if at < 0 || at%5 != 0 {
		return
	}
	want := int(ibanLengths[at+2]-'0')*10 + int(ibanLengths[at+3]-'0')
	f := s.form(i, min(want, 32), true, " -\n") // long as they are, they run over lines
	if want > 32 || f.n < want || !s.ends(f.ends[want-1]) || !f.even(want, 4) {
		return
	}
	if mod97(f.string(want)[4:]+f.string(4)) == 1 {
		s.add(IBAN, i, f.ends[want-1], 1, "iban/mod97")
	}
}

// mod97 is ISO 7064's MOD 97-10 over digits and letters, A being 10.
func mod97(str string) int {
	v := 0
	for i := range len(str) {
		if c := str[i]; digit(c) {
			v = (v*10 + int(c-'0')) % 97
		} else {
			v = (v*100 + int(c-'A') + 10) % 97
		}
	}
	return v
}

// card finds payment card numbers (ISO/IEC 7812): issuer prefix and length, check digit by Luhn.
func (s *scan) card(i int) {
	f := s.form(i, 20, false, " -")
	for _, n := range []int{19, 16, 15, 14, 13} {
		if f.n < n || !s.ends(f.ends[n-1]) || !issuer(&f, n) || !luhn(&f, n) {
			continue
		}
		if !f.even(n, 4) && !f.grouped(n, 4, 6) {
			continue
		}
		score := 0.7
		if !f.plain(n) {
			score = 0.9
		}
		if s.context(i, "card|visa|mastercard|amex|american express|diners|maestro|credit|debit|karte|kreditkarte|carte|tarjeta") {
			score = 1
		}
		s.add(CreditCard, i, f.ends[n-1], score, "card/luhn")
		return
	}
}

func issuer(f *form, n int) bool {
	two, three, four := f.value(0, 2), f.value(0, 3), f.value(0, 4)
	switch {
	case f.d(0) == 4: // Visa
		return n == 13 || n == 16 || n == 19
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720: // Mastercard
		return n == 16
	case two == 34, two == 37: // American Express
		return n == 15
	case three >= 300 && three <= 305, two == 36, two == 38: // Diners Club
		return n == 14
	case four >= 3528 && four <= 3589: // JCB
		return n == 16
	case four == 6011, three >= 644 && three <= 649, two == 65: // Discover
		return n == 16 || n == 19
	case two == 62: // UnionPay
		return n >= 16
	case four == 5018, four == 5020, four == 5038, four == 6304, four == 6759, four >= 6761 && four <= 6763: // Maestro
		return n == 16 || n == 19
	}
	return false
}

// luhn is ISO/IEC 7812-1 annex B.
func luhn(f *form, n int) bool {
	sum := 0
	for i := range n {
		d := f.d(n - 1 - i)
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
