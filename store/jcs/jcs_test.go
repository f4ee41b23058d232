package jcs

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// numbers are the vectors of RFC 8785 appendix B: the bits of a binary64 and its form.
var numbers = []struct {
	bits uint64
	text string
}{
	{0x0000000000000000, "0"},
	{0x8000000000000000, "0"},
	{0x0000000000000001, "5e-324"},
	{0x8000000000000001, "-5e-324"},
	{0x7fefffffffffffff, "1.7976931348623157e+308"},
	{0xffefffffffffffff, "-1.7976931348623157e+308"},
	{0x4340000000000000, "9007199254740992"},
	{0xc340000000000000, "-9007199254740992"},
	{0x4430000000000000, "295147905179352830000"},
	{0x44b52d02c7e14af5, "9.999999999999997e+22"},
	{0x44b52d02c7e14af6, "1e+23"},
	{0x44b52d02c7e14af7, "1.0000000000000001e+23"},
	{0x444b1ae4d6e2ef4e, "999999999999999700000"},
	{0x444b1ae4d6e2ef4f, "999999999999999900000"},
	{0x444b1ae4d6e2ef50, "1e+21"},
	{0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
	{0x3eb0c6f7a0b5ed8d, "0.000001"},
	{0x41b3de4355555553, "333333333.3333332"},
	{0x41b3de4355555554, "333333333.33333325"},
	{0x41b3de4355555555, "333333333.3333333"},
	{0x41b3de4355555556, "333333333.3333334"},
	{0x41b3de4355555557, "333333333.33333343"},
	{0xbecbf647612f3696, "-0.0000033333333333333333"},
	{0x43143ff3c1cb0959, "1424953923781206.2"},
}

func TestNumbersOfTheRFC(t *testing.T) {
	for _, c := range numbers {
		if got := appendNumber(nil, math.Float64frombits(c.bits)); string(got) != c.text {
			t.Errorf("%x is written %s, want %s", c.bits, got, c.text)
		}
		if got, err := Transform([]byte(c.text)); err != nil || string(got) != c.text {
			t.Errorf("Transform(%s) = %s, %v", c.text, got, err)
		}
		if c.bits == 0x8000000000000000 {
			continue // minus zero is written as zero
		}
		if f, err := strconv.ParseFloat(c.text, 64); err != nil || math.Float64bits(f) != c.bits {
			t.Errorf("%s reads as %x, want %x", c.text, math.Float64bits(f), c.bits)
		}
	}
}

// TestObjectsOfTheRFC has the examples of RFC 8785: section 3.2.2 with its result in section 3.2.4, and section 3.2.3.
// The RFC's 333333333.33333329 is refused here, being another number in canonical form; it stands rounded.
func TestObjectsOfTheRFC(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"3.2.2": {
			"{\n  \"numbers\": [333333333.3333333, 1E30, 4.50,\n              2e-3, 0.000000000000000000000000001],\n" +
				"  \"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n  \"literals\": [null, true, false]\n}",
			`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		},
		"3.2.3": {
			`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",` +
				`"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`,
			`{"\r":"Carriage Return","1":"One","` + "\u0080" + `":"Control","ö":"Latin Small Letter O With Diaeresis",` +
				`"€":"Euro Sign","😀":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
		},
		// The test suite that the RFC's author publishes (cyberphone/json-canonicalization, testdata).
		"arrays": {`[ 56, { "d": true, "10": null, "1": [ ] } ]`, `[56,{"1":[],"10":null,"d":true}]`},
		"french": {
			`{"peach":"This sorting order","péché":"is wrong according to French","pêche":"but canonicalization MUST","sin":"ignore locale"}`,
			`{"peach":"This sorting order","péché":"is wrong according to French","pêche":"but canonicalization MUST","sin":"ignore locale"}`,
		},
		"structures": {
			`{"1": {"f": {"f": "hi","F": 5} ,"\n": 56.0}, "10": { }, "": "empty", "a": { }, "111": [ {"e": "yes","E": "no" } ], "A": { }}`,
			`{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}`,
		},
		"unicode": {"{\n  \"Unnormalized Unicode\":\"A\u030a\"\n}", "{\"Unnormalized Unicode\":\"A\u030a\"}"},
		"weird": {
			`{"\u20ac":"Euro Sign","\r":"Carriage Return","\u000a":"Newline","1":"One","\u0080":"Control\u007f","\ud83d\ude02":"Smiley",` +
				`"\u00f6":"Latin Small Letter O With Diaeresis","\ufb33":"Hebrew Letter Dalet With Dagesh","</script>":"Browser Challenge"}`,
			`{"\n":"Newline","\r":"Carriage Return","1":"One","</script>":"Browser Challenge","` + "\u0080\":\"Control\u007f" +
				`","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😂":"Smiley","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
		},
	} {
		got, err := Transform([]byte(c.in))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, c.want)
		}
	}
}

func TestTransform(t *testing.T) {
	for in, want := range map[string]string{
		" \t\r\n null ":          "null",
		"-0":                     "0",
		"-0.0e5":                 "0",
		"1.50":                   "1.5",
		"0.97":                   "0.97",
		"100e-2":                 "1",
		"1E2":                    "100",
		"9007199254740993.0e0":   "",
		"12345678901234567890":   "",
		"0.1000000000000000055":  "",
		"1e400":                  "",
		"1e-400":                 "",
		"1e999999999999":         "",
		"1e-999999999999":        "",
		"333333333.33333329":     "",
		"9007199254740992":       "9007199254740992",
		`"\u0041\ud834\udd1e"`:   `"A𝄞"`,
		`"\ufffd"`:               `"` + "\ufffd" + `"`,
		`"\b\f\n\r\t\"\\\/"`:     `"\b\f\n\r\t\"\\/"`,
		`"` + "\u2028\x7f" + `"`: `"` + "\u2028\x7f" + `"`,
		`[[],{}]`:                `[[],{}]`,
	} {
		got, err := Transform([]byte(in))
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("Transform(%s) = %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for what, in := range map[string]string{
		"nothing":                "",
		"space":                  "  ",
		"two values":             "1 2",
		"trailing comma":         "[1,]",
		"leading comma":          "[,1]",
		"object trailing comma":  `{"a":1,}`,
		"object leading comma":   `{,"a":1}`,
		"no colon":               `{"a" 1}`,
		"unquoted name":          `{a:1}`,
		"no value":               `{"a":}`,
		"missing comma":          `{"a":1 "b":2}`,
		"cut object":             `{"a":1`,
		"cut array":              `[1`,
		"cut string":             `"a`,
		"cut escape":             `"\`,
		"cut unit":               `"\u00`,
		"cut literal":            "tru",
		"joined literals":        "truefalse",
		"capital literal":        "True",
		"NaN":                    "NaN",
		"infinity":               "Infinity",
		"plus":                   "+1",
		"leading zero":           "01",
		"bare point":             "1.",
		"no integer part":        ".5",
		"bare exponent":          "1e",
		"minus":                  "-",
		"hexadecimal":            "0x10",
		"comment":                "1 //",
		"byte order mark":        "\ufeff1",
		"single quotes":          "'a'",
		"unknown escape":         `"\x41"`,
		"sign in a unit":         `"\u+041"`,
		"newline in a string":    "\"a\nb\"",
		"null in a string":       "\"a\x00b\"",
		"invalid UTF-8":          "\"\xff\"",
		"overlong UTF-8":         "\"\xc0\xaf\"",
		"UTF-8 surrogate":        "\"\xed\xa0\x80\"",
		"cut UTF-8":              "\"\xe2\x82\"",
		"invalid after escape":   "\"\\n\xff\"",
		"invalid name":           "{\"\xff\":1}",
		"lone high surrogate":    `"\ud800"`,
		"lone low surrogate":     `"\udc00"`,
		"swapped surrogates":     `"\udc00\ud800"`,
		"two high surrogates":    `"\ud800\ud800"`,
		"high, then text":        `"\ud800A"`,
		"high, then escape":      `"\ud800\n"`,
		"high, then not low":     `"\ud800\u0041"`,
		"duplicate":              `{"a":1,"b":2,"a":1}`,
		"duplicate by escape":    `{"a":1,"\u0061":2}`,
		"duplicate far inside":   `[{"x":{"a":1,"a":1}}]`,
		"depth":                  strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		"depth of objects":       strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1),
		"depth without an end":   strings.Repeat("[", 1<<20),
		"a number without end":   strings.Repeat("1", 1<<20),
		"a fraction without end": "0." + strings.Repeat("1", 1<<20),
	} {
		if got, err := Transform([]byte(in)); err == nil {
			t.Errorf("%s: became %s", what, got)
		}
	}
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	if got, err := Transform([]byte(deep)); err != nil || string(got) != deep {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
}

// TestOrder sorts names as the standard's own way of comparing does: by UTF-16 code units.
func TestOrder(t *testing.T) {
	names := []string{"", "\n", "1", "10", "2", "A", "a", "aa", "\u0080", "é", "\ud7ff", "\U00010000", "\U0001f600", "\U0010ffff", "\ue000", "\ufb33", "\uffff"}
	for i, a := range names {
		for j, b := range names {
			if got := compareUTF16(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%q against %q: %d", a, b, got)
			}
		}
	}
}

func TestMarshal(t *testing.T) {
	b, err := Marshal(map[string]any{"b": "<&>\u2028", "a": []byte{1}, "c": 1.5, "d": "\ufffd"})
	if want := `{"a":"AQ==","b":"<&>` + "\u2028" + `","c":1.5,"d":"` + "\ufffd" + `"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v; want %s", b, err, want)
	}
	if b, err := Marshal(`\ufffd`); err != nil || string(b) != `"\\ufffd"` {
		t.Errorf("%s, %v", b, err)
	}
	for what, v := range map[string]any{
		"text that is not UTF-8": map[string]string{"a": "x\xffy"},
		"name that is not UTF-8": map[string]string{"\xff": "a"},
		"inexact integer":        int64(1<<53 + 1),
		"channel":                make(chan int),
		"NaN":                    math.NaN(),
	} {
		if b, err := Marshal(v); err == nil {
			t.Errorf("%s: became %s", what, b)
		}
	}
}

func TestUnmarshal(t *testing.T) {
	type inner struct {
		Name string `json:"name,omitempty"`
		Key  []byte `json:"key,omitempty"`
	}
	var v inner
	if err := Unmarshal([]byte(` {"name" : "x"} `), &v); err != nil || v.Name != "x" {
		t.Errorf("%+v, %v", v, err)
	}
	for _, in := range []string{`{"nam":"x"}`, `{"name":"x","name":"y"}`, `{"name":1}`, `{"name":"x"} {}`, ``} {
		if err := Unmarshal([]byte(in), &v); err == nil {
			t.Errorf("Unmarshal(%s) = %+v", in, v)
		}
	}
	v = inner{}
	if err := UnmarshalCanonical([]byte(`{"key":"AQ==","name":"x"}`), &v); err != nil || v.Name != "x" {
		t.Errorf("%+v, %v", v, err)
	}
	for what, in := range map[string]string{
		"space": `{"name": "x"}`, "another case": `{"Name":"x"}`, "empty": `{"name":""}`, "null": `{"name":null}`, "sloppy base64": `{"key":"AR=="}`,
		"order": `{"name":"x","key":"AQ=="}`, "null value": `null`, "unknown": `{"nom":"x"}`,
	} {
		if err := UnmarshalCanonical([]byte(in), &inner{}); err == nil {
			t.Errorf("%s: %s was taken", what, in)
		}
	}
}

func FuzzTransform(f *testing.F) {
	for _, c := range numbers {
		f.Add([]byte(c.text))
	}
	for _, s := range []string{`{"b":[1,2.50,{"a":"\u20ac\ud83d\ude00"}],"a":null}`, `{"a":1,"\u0061":2}`, `"\ud800"`, "\"\xff\"", `[1e-7,1E+21,-0]`, " true", `{"":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Transform(in)
		if err != nil {
			return
		}
		if again, err := Transform(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("not idempotent: %q then %q, %v", out, again, err)
		}
		var was, is any
		if err := json.Unmarshal(in, &was); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", in, err)
		}
		if err := json.Unmarshal(out, &is); err != nil {
			t.Fatalf("encoding/json refuses its canonical form %q: %v", out, err)
		}
		if !reflect.DeepEqual(was, is) {
			t.Fatalf("another value: %v, was %v", is, was)
		}
		if written, err := Marshal(is); err != nil || !bytes.Equal(written, out) {
			t.Fatalf("Marshal of the value gives %q, %v; want %q", written, err, out)
		}
	})
}

func BenchmarkTransform(b *testing.B) {
	in := []byte(`{"message_id":"msg-1234","timestamp":"2026-01-01T00:00:00.000Z","payload":{"input":{"artifacts":[{"id":"a","size":1234567,` +
		`"type":"document"},{"id":"b","size":0.97,"type":"classification"}]}},"sender":"org-a","recipient":"org-b","signature":"` + strings.Repeat("A", 86) + `=="}`)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, err := Transform(in); err != nil {
			b.Fatal(err)
		}
	}
}
