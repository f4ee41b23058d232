package pii

// A form is a run of digits and capital letters with single separators between: how people write long numbers. It holds
// the characters without separators.
type form struct {
	chars [32]byte
	ends  [32]int // byte offset after each character
	seps  [32]byte
	n     int
}

// form reads characters from i on: digits, capitals where letters is set, and single bytes of seps between them. It
// stops before what doesn't fit, after at most limit (≤ 32) characters.
func (s *scan) form(i, limit int, letters bool, seps string) form {
	var f form
	var sep byte
	for i < len(s.text) && f.n < limit {
		c := s.text[i]
		switch {
		case digit(c), letters && c >= 'A' && c <= 'Z':
			f.chars[f.n], f.ends[f.n], f.seps[f.n] = c, i+1, sep
			f.n++
			sep = 0
		case sep == 0 && f.n > 0 && within(seps, c):
			sep = c
		default:
			return f
		}
		i++
	}
	return f
}

func within(seps string, c byte) bool {
	for i := range len(seps) {
		if seps[i] == c {
			return true
		}
	}
	return false
}

// string returns the first n characters.
func (f *form) string(n int) string { return string(f.chars[:n]) }

// grouped reports whether the first n characters stand in groups of these lengths, the last group as long as is left,
// and with one separator throughout.
func (f *form) grouped(n int, groups ...int) bool {
	at := 0
	var sep byte
	for _, g := range groups {
		at += g
		if at >= n {
			break
		}
		if f.seps[at] == 0 || sep != 0 && f.seps[at] != sep {
			return false
		}
		sep = f.seps[at]
	}
	count := 0
	for i := 1; i < n; i++ {
		if f.seps[i] != 0 {
			count++
		}
	}
	return count == len(groups)
}

// stops reports whether a number of n characters ends there: nothing follows, or a separator and something else.
func (f *form) stops(n int) bool { return f.n == n || f.n > n && f.seps[n] != 0 }

// plain reports whether the first n characters have no separators.
func (f *form) plain(n int) bool {
	for i := 1; i < n; i++ {
		if f.seps[i] != 0 {
			return false
		}
	}
	return true
}

// even reports whether the first n characters stand in groups of size g (the last may be shorter), or have no separators.
func (f *form) even(n, g int) bool {
	if f.plain(n) {
		return true
	}
	for i := 1; i < n; i++ {
		if (f.seps[i] != 0) != (i%g == 0) {
			return false
		}
	}
	return true
}

func (f *form) digits(from, to int) bool {
	for _, c := range f.chars[from:to] {
		if !digit(c) {
			return false
		}
	}
	return true
}

func (f *form) value(from, to int) int {
	v := 0
	for _, c := range f.chars[from:to] {
		v = v*10 + int(c-'0')
	}
	return v
}

// d is the digit at i.
func (f *form) d(i int) int { return int(f.chars[i] - '0') }
