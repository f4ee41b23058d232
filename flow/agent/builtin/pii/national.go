package pii

import "strings"

// ssn finds US social security numbers: 3-2-4 digits; areas 000, 666 and 9xx, group 00 and serial 0000 are never given
// out. Nine digits without hyphens count with context only.
func (s *scan) ssn(i int) {
	f := s.form(i, 10, false, "- ")
	if !f.stops(9) || !s.ends(f.ends[8]) || i > 0 && s.text[i-1] == '-' {
		return
	}
	if area := f.value(0, 3); area == 0 || area == 666 || area >= 900 || f.value(3, 5) == 0 || f.value(5, 9) == 0 {
		return
	}
	from := max(0, i-reach)
	named := s.nearest(from, i, "ssn|social security|social-security")
	known := named >= 0 && named > s.nearest(from, i, "passport")
	switch {
	case f.grouped(9, 3, 2) && known:
		s.add(USSSN, i, f.ends[8], 0.98, "ssn/context")
	case f.grouped(9, 3, 2) && f.seps[3] == '-':
		s.add(USSSN, i, f.ends[8], 0.75, "ssn/form")
	case f.plain(9) && known:
		s.add(USSSN, i, f.ends[8], 0.85, "ssn/context")
	}
}

// passport finds US passport numbers, nine digits or a letter and eight, with context only: they have no check digit.
func (s *scan) passport(i int) {
	f := s.form(i, 10, true, "")
	if f.n == 9 && s.ends(f.ends[8]) && f.digits(1, 9) && s.context(i, "passport") {
		s.add(USPassport, i, f.ends[8], 0.8, "passport/context")
	}
}

// nino finds UK national insurance numbers (HMRC NIM39110).
func (s *scan) nino(i int) {
	f := s.form(i, 10, true, " ")
	if f.n < 9 || !s.ends(f.ends[8]) || !f.digits(2, 8) || f.chars[8] > 'D' || f.chars[8] < 'A' {
		return
	}
	prefix := f.string(2)
	if within("DFIQUV", prefix[0]) || within("DFIOQUV", prefix[1]) || strings.Contains("BG GB NK KN TN NT ZZ", prefix) {
		return
	}
	if f.even(9, 2) || f.grouped(9, 2, 6) {
		s.add(UKNINO, i, f.ends[8], 0.9, "nino/form")
	}
}

// nhs finds UK NHS numbers: ten digits, the last a check digit by mod 11.
func (s *scan) nhs(i int) {
	f := s.form(i, 11, false, " -")
	if !f.stops(10) || !s.ends(f.ends[9]) || !f.plain(10) && !f.grouped(10, 3, 3) {
		return
	}
	sum := 0
	for k := range 9 {
		sum += f.d(k) * (10 - k)
	}
	if (11-sum%11)%11 != f.d(9) {
		return
	}
	switch known := s.context(i, "nhs|national health"); {
	case known:
		s.add(UKNHS, i, f.ends[9], 0.98, "nhs/mod11+context")
	case f.grouped(10, 3, 3) && f.seps[3] == ' ':
		s.add(UKNHS, i, f.ends[9], 0.7, "nhs/mod11")
	}
}

// taxID finds German tax identification numbers (§ 139b AO): eleven digits, the first not 0, of the first ten exactly
// one twice or thrice, check digit by ISO 7064 MOD 11,10.
func (s *scan) taxID(i int) {
	f := s.form(i, 12, false, " ")
	if !f.stops(11) || !s.ends(f.ends[10]) || f.chars[0] == '0' || !f.plain(11) && !f.grouped(11, 2, 3, 3) {
		return
	}
	var times [10]int
	product := 10
	for k := range 10 {
		times[f.d(k)]++
		sum := (f.d(k) + product) % 10
		if sum == 0 {
			sum = 10
		}
		product = sum * 2 % 11
	}
	repeated := 0
	for _, n := range times {
		if n > 3 {
			return
		}
		if n > 1 {
			repeated++
		}
	}
	if repeated != 1 || (11-product)%10 != f.d(10) {
		return
	}
	score, by := 0.65, "tax-id/mod11"
	if s.context(i, "steuer|idnr|id-nr|tin|tax|identifikationsnummer") {
		score, by = 0.98, "tax-id/mod11+context"
	}
	s.add(DETaxID, i, f.ends[10], score, by)
}

// nir finds French social security numbers: 13 characters and a key, 97 less the number mod 97; Corsica's 2A and 2B
// count as 19 and 18.
func (s *scan) nir(i int) {
	f := s.form(i, 16, true, " ")
	if f.n < 15 || !s.ends(f.ends[14]) || !within("123478", f.chars[0]) || !f.digits(0, 6) || !f.digits(7, 15) {
		return
	}
	if month := f.value(3, 5); month == 0 || month > 12 && month < 20 || month > 42 && month < 50 {
		return
	}
	number := []byte(f.string(13))
	switch number[6] {
	case 'A':
		number[5], number[6] = '1', '9'
	case 'B':
		number[5], number[6] = '1', '8'
	}
	v := 0
	for _, c := range number {
		if !digit(c) {
			return
		}
		v = (v*10 + int(c-'0')) % 97
	}
	if 97-v == f.value(13, 15) {
		s.add(FRNIR, i, f.ends[14], 0.95, "nir/mod97")
	}
}

// dni finds Spanish DNI (eight digits and a letter) and NIE (X, Y or Z, seven digits and a letter), the letter by mod 23.
func (s *scan) dni(i int) {
	f := s.form(i, 10, true, "-")
	if f.n < 9 || !s.ends(f.ends[8]) || !f.digits(1, 8) {
		return
	}
	v := 0
	switch c := f.chars[0]; {
	case digit(c):
		v = f.value(0, 8)
	case c >= 'X' && c <= 'Z':
		v = int(c-'X')*1e7 + f.value(1, 8)
	default:
		return
	}
	if f.chars[8] == "TRWAGMYFPDXBNJZSQVHLCKE"[v%23] {
		s.add(ESDNI, i, f.ends[8], 0.9, "dni/mod23")
	}
}

// bsn finds Dutch citizen service numbers: nine digits that pass the eleven test. One in eleven of any nine digits
// does, so context is needed.
func (s *scan) bsn(i int) {
	f := s.form(i, 10, false, ".")
	if !f.stops(9) || !s.ends(f.ends[8]) || !f.plain(9) && !f.grouped(9, 3, 3) && !f.grouped(9, 4, 2) {
		return
	}
	sum := -f.d(8)
	for k := range 8 {
		sum += f.d(k) * (9 - k)
	}
	if sum%11 == 0 && f.value(0, 9) > 0 && s.context(i, "bsn|burgerservice|sofi|citizen service") {
		s.add(NLBSN, i, f.ends[8], 0.95, "bsn/mod11+context")
	}
}

// ahv finds Swiss social security numbers: 756 and ten digits, the last a check digit as in EAN-13.
func (s *scan) ahv(i int) {
	if !strings.HasPrefix(s.text[i:], "756") {
		return
	}
	f := s.form(i, 14, false, ". ")
	if !f.stops(13) || !s.ends(f.ends[12]) || !f.plain(13) && !f.grouped(13, 3, 4, 4) {
		return
	}
	sum := 0
	for k := range 12 {
		sum += f.d(k) * (1 + 2*(k%2))
	}
	if (10-sum%10)%10 != f.d(12) {
		return
	}
	score := 0.8
	if !f.plain(13) {
		score = 0.98
	}
	s.add(CHAHV, i, f.ends[12], score, "ahv/ean13")
}

// fiscalCode finds Italian codici fiscali (D.M. 12/3/1974): form, month letter, and check character. Letters may stand
// for digits where two people's codes would collide.
func (s *scan) fiscalCode(i int) {
	f := s.form(i, 17, true, "")
	if f.n != 16 || !s.ends(f.ends[15]) {
		return
	}
	const shape = "LLLLLLddMddLdddL" // d: a digit or one of LMNPQRSTUV; M: a month
	for k := range 16 {
		c := f.chars[k]
		fits := false
		switch shape[k] {
		case 'L':
			fits = c >= 'A'
		case 'd':
			fits = digit(c) || within("LMNPQRSTUV", c)
		case 'M':
			fits = within("ABCDEHLMPRST", c)
		}
		if !fits {
			return
		}
	}
	// Values of characters at odd places, 0 to 9 and A to Z; at even places they count for themselves.
	odd := [26]int{1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23}
	sum := 0
	for k := range 15 {
		v := int(f.chars[k]) - 'A'
		if digit(f.chars[k]) {
			v = f.d(k)
		}
		if k%2 == 0 {
			v = odd[v]
		}
		sum += v
	}
	if byte('A'+sum%26) == f.chars[15] {
		s.add(ITFiscalCode, i, f.ends[15], 0.98, "fiscal-code/mod26")
	}
}
