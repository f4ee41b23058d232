package pdf

import (
	"strconv"
	"strings"
)

// glyphs holds names of the Adobe Glyph List for Latin text, each before its character; letters with accents are
// composed in accented.
const glyphs = `space   exclam ! quotedbl " numbersign # dollar $ percent % ampersand & quotesingle ' parenleft ( parenright ) ` +
	`asterisk * plus + comma , hyphen - minus − period . slash / zero 0 one 1 two 2 three 3 four 4 five 5 six 6 seven 7 ` +
	`eight 8 nine 9 colon : semicolon ; less < equal = greater > question ? at @ bracketleft [ backslash \ bracketright ] ` +
	`asciicircum ^ underscore _ grave ` + "`" + ` braceleft { bar | braceright } asciitilde ~ quoteleft ‘ quoteright ’ ` +
	`quotedblleft “ quotedblright ” quotesinglbase ‚ quotedblbase „ guillemotleft « guillemotright » guilsinglleft ‹ ` +
	`guilsinglright › endash – emdash — bullet • ellipsis … dagger † daggerdbl ‡ trademark ™ Euro € sterling £ yen ¥ cent ¢ ` +
	`currency ¤ section § paragraph ¶ copyright © registered ® degree ° plusminus ± multiply × divide ÷ mu µ ` +
	`periodcentered · fraction ⁄ onehalf ½ onequarter ¼ threequarters ¾ onesuperior ¹ twosuperior ² threesuperior ³ ` +
	`ordfeminine ª ordmasculine º exclamdown ¡ questiondown ¿ brokenbar ¦ logicalnot ¬ perthousand ‰ florin ƒ ` +
	`germandbls ß AE Æ ae æ OE Œ oe œ Oslash Ø oslash ø Lslash Ł lslash ł Eth Ð eth ð Thorn Þ thorn þ dotlessi ı Dcroat Đ ` +
	`dcroat đ fi ﬁ fl ﬂ ff ﬀ ffi ﬃ ffl ﬄ nbspace   sfthyphen - `

// accents holds, for each accent's name, letters and what they become.
const accents = `acute AÁEÉIÍOÓUÚYÝaáeéiíoóuúyýCĆcćNŃnńSŚsśZŹzźLĹlĺRŔrŕ ` +
	`grave AÀEÈIÌOÒUÙaàeèiìoòuù circumflex AÂEÊIÎOÔUÛaâeêiîoôuû dieresis AÄEËIÏOÖUÜYŸaäeëiïoöuüyÿ ` +
	`tilde AÃNÑOÕaãnñoõ caron CČcčDĎdďEĚeěNŇnňRŘrřSŠsšTŤtťZŽzž cedilla CÇcçSŞsşTŢtţ ring AÅaåUŮuů ` +
	`ogonek AĄaąEĘeę macron AĀaāEĒeēIĪiīOŌoōUŪuū breve AĂaăGĞgğ dotaccent ZŻzżEĖeėIİ hungarumlaut OŐoőUŰuű ` +
	`commaaccent SȘsșTȚtțGĢKĶkķLĻlļNŅnņ `

// glyph returns the character of a glyph name, 0 if unknown.
func glyph(n string) rune {
	if i := strings.IndexByte(n, '.'); i > 0 { // a variant, as in "a.alt"
		n = n[:i]
	}
	if len(n) == 1 {
		return rune(n[0])
	}
	for _, prefix := range []string{"uni", "u"} {
		if hex, ok := strings.CutPrefix(n, prefix); ok && len(hex) >= 4 && len(hex) <= 6 {
			if v, err := strconv.ParseUint(hex, 16, 21); err == nil {
				return rune(v)
			}
		}
	}
	if r := accented(n); r != 0 {
		return r
	}
	if n == "" || strings.ContainsAny(n, " ") {
		return 0
	}
	i := strings.Index(glyphs, n+" ")
	for i > 0 && glyphs[i-1] != ' ' {
		j := strings.Index(glyphs[i+1:], n+" ")
		if j < 0 {
			return 0
		}
		i += 1 + j
	}
	if i < 0 {
		return 0
	}
	for _, r := range glyphs[i+len(n)+1:] {
		return r
	}
	return 0
}

func accented(n string) rune {
	if len(n) < 4 {
		return 0
	}
	_, after, found := strings.Cut(" "+accents, " "+n[1:]+" ")
	if !found {
		return 0
	}
	pairs, _, _ := strings.Cut(after, " ")
	take := false
	for i, r := range []rune(pairs) {
		if take {
			return r
		}
		take = i%2 == 0 && r == rune(n[0])
	}
	return 0
}
