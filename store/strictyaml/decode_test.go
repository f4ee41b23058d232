package strictyaml

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

type list struct {
	Name  string            `yaml:"name" required:"true"`
	Kind  string            `yaml:"kind" oneof:"document,classification,review"`
	Kinds []string          `yaml:"kinds" oneof:"document,classification"`
	Port  uint16            `yaml:"port"`
	Small int8              `yaml:"small"`
	Count *int              `yaml:"count"`
	Ratio float32           `yaml:"ratio"`
	On    bool              `yaml:"on"`
	Wait  Duration          `yaml:"wait"`
	Size  Size              `yaml:"size"`
	Items []item            `yaml:"items"`
	Tags  map[string]string `yaml:"tags"`
	Any   any               `yaml:"any"`
	Plain string            // no tag: not a key
}

type item struct {
	ID string `yaml:"id" required:"true"`
}

func TestDecode(t *testing.T) {
	var v list
	err := Decode("f.yaml", []byte(`
name: 1.0.0
kind: review
kinds: [document]
port: 65535
small: -128
count: 3
ratio: 0.5
on: true
wait: 24h
size: 10MB
items: [{id: a}, {id: "b"}]
tags: {x: 2025-01-01, "yes": no}
any: {a: [1, 2.5, true, null, 2025-01-01, .nan, 010, text], b: {c: d}}
`), &v)
	if err != nil {
		t.Fatal(err)
	}
	three := 3
	want := list{Name: "1.0.0", Kind: "review", Kinds: []string{"document"}, Port: 65535, Small: -128, Count: &three, Ratio: 0.5, On: true,
		Wait: Duration(24 * time.Hour), Size: 10 << 20, Items: []item{{"a"}, {"b"}}, Tags: map[string]string{"x": "2025-01-01", "yes": "no"},
		Any: map[string]any{"a": []any{1, 2.5, true, nil, "2025-01-01", ".nan", "010", "text"}, "b": map[string]any{"c": "d"}}}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("%+v\nwant\n%+v", v, want)
	}
	if _, err := json.Marshal(v.Any); err != nil {
		t.Errorf("what is untyped is not JSON: %v", err)
	}
}

// TestErrors wants place, path and suggestion.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"unknown key":        {"name: a\nitms: []", `f.yaml:2:1: unknown key "itms"; did you mean "items"?`},
		"swapped letters":    {"name: a\nkidn: review", `f.yaml:2:1: unknown key "kidn"; did you mean "kind"?`},
		"far from any":       {"name: a\nzzzzzz: 1", `f.yaml:2:1: unknown key "zzzzzz"`},
		"untagged field":     {"name: a\nPlain: x", `f.yaml:2:1: unknown key "Plain"`},
		"nested":             {"name: a\nitems:\n  - id: x\n  - idd: y", `f.yaml:4:5: unknown key "idd" in items[1]; did you mean "id"?`},
		"missing nested":     {"name: a\nitems:\n  - {}", `f.yaml:3:5: key "id" is missing or empty in items[0]`},
		"missing":            {"kind: review", `f.yaml:1:1: key "name" is missing or empty`},
		"required but empty": {"name: a\nitems:\n  - id:", `f.yaml:3:8: null, want text in items[0].id`},
		"duplicate":          {"name: a\nkind: review\nname: b", `f.yaml:3:1: key "name" appears twice; first in line 1`},
		"duplicate in map":   {"name: a\ntags:\n  x: 1\n  x: 2", `f.yaml:4:3: key "x" appears twice; first in line 3 in tags`},
		"duplicate in any":   {"name: a\nany:\n  x: 1\n  x: 2", `f.yaml:4:3: key "x" appears twice; first in line 3 in any`},
		"not one of":         {"name: a\nkind: reviw", `f.yaml:2:7: "reviw", want one of document, classification, review in kind; did you mean "review"?`},
		"not one of, list":   {"name: a\nkinds: [document, video]", `f.yaml:2:19: "video", want one of document, classification in kinds[1]`},
		"text for number":    {"name: a\nport: many", `f.yaml:2:7: "many", want a whole number in port`},
		"too large":          {"name: a\nport: 65536", `f.yaml:2:7: "65536", want a whole number in port`},
		"negative":           {"name: a\nport: -1", `f.yaml:2:7: "-1", want a whole number in port`},
		"octal":              {"name: a\nport: 010", `f.yaml:2:7: "010", want a whole number in port`},
		"hexadecimal":        {"name: a\nport: 0x10", `f.yaml:2:7: "0x10", want a whole number in port`},
		"underscore":         {"name: a\nport: 1_0", `f.yaml:2:7: "1_0", want a whole number in port`},
		"fraction":           {"name: a\nport: 1.0", `f.yaml:2:7: "1.0", want a whole number in port`},
		"quoted number":      {"name: a\nport: \"1\"", `f.yaml:2:7: "1", want a whole number in port`},
		"int8":               {"name: a\nsmall: 128", `f.yaml:2:8: "128", want a whole number in small`},
		"infinite":           {"name: a\nratio: .inf", `f.yaml:2:8: ".inf", want a number in ratio`},
		"not a number":       {"name: a\nratio: .nan", `f.yaml:2:8: ".nan", want a number in ratio`},
		"float32":            {"name: a\nratio: 1e300", `f.yaml:2:8: "1e300", want a number in ratio`},
		"yes for true":       {"name: a\non: yes", `f.yaml:2:5: "yes", want true or false in on`},
		"quoted true":        {"name: a\non: \"true\"", `f.yaml:2:5: "true", want true or false in on`},
		"null":               {"name: a\nport: ~", `f.yaml:2:7: null, want a whole number in port`},
		"list for text":      {"name: [a]", `f.yaml:1:7: a list, want text in name`},
		"text for list":      {"name: a\nitems: x", `f.yaml:2:8: "x", want a list in items`},
		"text for mapping":   {"name: a\nitems: [x]", `f.yaml:2:9: "x", want a mapping in items[0]`},
		"text for map":       {"name: a\ntags: x", `f.yaml:2:7: "x", want a mapping in tags`},
		"bad unit":           {"name: a\nwait: 5w", `f.yaml:2:7: "5w", want a whole number and a unit of y, d, h, m, s in wait`},
		"bad size":           {"name: a\nsize: 10mb", `f.yaml:2:7: "10mb", want a whole number and a unit of TB, GB, MB, KB, B in size`},
		"list for duration":  {"name: a\nwait: [1]", `f.yaml:2:7: a list, want a duration such as 300s, 24h or 90d in wait`},
		"list for size":      {"name: a\nsize: {a: 1}", `f.yaml:2:7: a mapping, want a size such as 10MB or 32GB in size`},
		"second document":    {"name: a\n---\nname: b", `f.yaml:2:1: a second document; a file holds one`},
		"empty second":       {"name: a\n---\n", `f.yaml:2:1: a second document; a file holds one`},
		"empty":              {"", `f.yaml:1:1: the file is empty`},
		"comment only":       {"# nothing", `f.yaml:1:1: the file is empty`},
		"anchor":             {"name: &x a", `f.yaml:1:7: anchors and aliases are not allowed; write the value out in name`},
		"alias":              {"tags: {a: &x b}\nname: *x", `f.yaml:2:7: anchors and aliases are not allowed; write the value out in name`},
		"merge":              {"name: a\ntags:\n  <<: {a: b}", `f.yaml:3:3: a key must be plain text in tags`},
		"key with anchor":    {"&x name: a", `f.yaml:1:1: a key must be plain text`},
		"key with tag":       {"!!str name: a", `f.yaml:1:1: a key must be plain text`},
		"null key":           {"name: a\ntags: {~: b}", `f.yaml:2:8: a key must be plain text in tags`},
		"list as key":        {"name: a\n? [x]\n: y", `f.yaml:2:3: a key must be plain text`},
		"tag":                {"name: !!binary YQ==", `f.yaml:1:7: tag !!binary is not allowed in name`},
		"own tag":            {"name: !secret a", `f.yaml:1:7: tag !secret is not allowed in name`},
		"not a mapping":      {"- a", `f.yaml:1:1: a list, want a mapping`},
		"deep":               {"name: a\nany: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), `f.yaml:2:38: nested deeper than 32 in any` + strings.Repeat("[0]", 32)},
		"too deep":           {strings.Repeat("[", 1000), `f.yaml:1:1: brackets nested deeper than 32`},
		"too long":           {strings.Repeat("#", MaxSize+1), `f.yaml:1:1: the file has 1048577 bytes; at most 1048576`},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode("f.yaml", []byte(c.in), &list{})
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.Split(err.Error(), "\n"); !contains(got, c.want) {
				t.Errorf("%s\nwant %s", err, c.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.File != "f.yaml" || e.Line < 1 || e.Col < 1 {
				t.Errorf("%#v has no place", err)
			}
		})
	}
}

func contains(lines []string, want string) bool {
	for _, l := range lines {
		if l == want {
			return true
		}
	}
	return false
}

func TestSyntaxErrorsHaveLines(t *testing.T) {
	for in, line := range map[string]int{"a: b\nc: [1, 2\nd: e\n": 2, "a: b\n\tc: d": 2, "a:\n  - b\n  c: d\n": 2, "a: 'x": 1, "a: b: c": 1, "a: \x01": 1, "a: \xff": 1} {
		err := Decode("f.yaml", []byte(in), &list{})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Text, "not YAML: ") || e.Line != line {
			t.Errorf("%q: %v; want line %d", in, err, line)
		}
	}
}

func TestErrorsAreReportedTogether(t *testing.T) {
	err := Decode("f.yaml", []byte("port: x\nitems: [{}]\nzzz: 1"), &list{})
	if got := strings.Count(err.Error(), "f.yaml:"); got != 4 {
		t.Errorf("%d errors, want 4:\n%v", got, err)
	}
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "key%d: 1\n", i)
	}
	err = Decode("f.yaml", []byte(b.String()), &list{})
	if got := strings.Count(err.Error(), "f.yaml:"); got != maxErrors {
		t.Errorf("%d errors, want %d", got, maxErrors)
	}
}

// TestBombs has the documents that make a careless decoder take gigabytes, minutes, or its whole stack.
func TestBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [lol]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9))
	}
	for name, in := range map[string]string{
		"billion laughs":   laughs.String(),
		"self reference":   "a: &a [*a]",
		"merge loop":       "a: &a\n  <<: *a",
		"open brackets":    strings.Repeat("[", MaxSize),
		"open braces":      strings.Repeat("{a: ", MaxSize/4),
		"nested sequences": strings.Repeat("- ", MaxSize/2),
		"nested mappings":  strings.Repeat("? ", MaxSize/2),
		"nested keys":      strings.Repeat("a: ", 10_000),
		"indentation":      indented(500),
		"anchors":          strings.Repeat("- &a b\n", MaxSize/8),
		"tags":             strings.Repeat("!", 100_000),
		"quotes":           strings.Repeat(`"`, 100_001),
	} {
		t.Run(name, func(t *testing.T) {
			if err := Decode("f.yaml", []byte(in), &list{}); err == nil {
				t.Error("taken")
			}
			var untyped any
			if err := Decode("f.yaml", []byte(in), &untyped); err == nil {
				t.Error("taken as untyped")
			}
		})
	}
}

func indented(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestKeys(t *testing.T) {
	keys, err := Keys([]byte("b: 1\na: {c: 2}\n"))
	if err != nil || !reflect.DeepEqual(keys, []string{"b", "a"}) {
		t.Errorf("%v, %v", keys, err)
	}
	for _, in := range []string{"- a", "x", "", "a: [", "a: 1\n---\nb: 2"} {
		if keys, err := Keys([]byte(in)); err == nil {
			t.Errorf("Keys(%q) = %v", in, keys)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"retention_period", "allowed_purposes", "name", "id"}
	for typed, want := range map[string]string{
		"retention_perod": "retention_period", "retentionperiod": "retention_period", "alowed_purpose": "allowed_purposes", "nmae": "name",
		"nam": "name", "names": "name", "di": "id", "": "", "xyz": "", "completely_else": "", strings.Repeat("retention", 10): "",
	} {
		if got := nearest(typed, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", typed, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"ca", "abc", 3}, {"abcd", "abcd", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestUnits(t *testing.T) {
	for in, want := range map[string]time.Duration{"0": 0, "90": 90 * time.Second, "300s": 5 * time.Minute, "5m": 5 * time.Minute, "24h": 24 * time.Hour,
		"90d": 90 * 24 * time.Hour, "7y": 7 * 365 * 24 * time.Hour, "0d": 0} {
		if got, err := ParseDuration(in); err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %v, %v", in, got, err)
		}
	}
	for in, want := range map[string]Size{"0": 0, "7": 7, "1B": 1, "2KB": 2048, "10MB": 10 << 20, "32GB": 32 << 30, "1TB": 1 << 40} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "s", "-1s", "+1s", "1 s", " 1s", "1.5h", "1S", "1ms", "1h30m", "1e3s", "١s", "9223372036854775808", "300y", "1_0s", "0x1s", "MB", "9999999999GB"} {
		if d, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v", in, d)
		}
		if s, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %v", in, s)
		}
	}
	for d, want := range map[Duration]string{0: "0s", Duration(24 * time.Hour): "1d", Duration(36 * time.Hour): "36h", Duration(365 * 24 * time.Hour): "1y",
		Duration(1500 * time.Millisecond): "1.5s", Duration(-time.Hour): "-1h"} {
		if d.String() != want {
			t.Errorf("%d is written %s, want %s", int64(d), d, want)
		}
	}
	if s := Size(1536).String(); s != "1536B" {
		t.Errorf("1536 bytes are written %s", s)
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	type units struct {
		D Duration `yaml:"d" json:"d"`
		S Size     `yaml:"s" json:"s"`
	}
	want := units{Duration(90 * 24 * time.Hour), 32 << 30}
	text, err := yaml.Marshal(want)
	if err != nil || string(text) != "d: 90d\ns: 32GB\n" {
		t.Errorf("%s, %v", text, err)
	}
	var got units
	if err := Decode("f", text, &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	js, err := json.Marshal(want)
	if err != nil || string(js) != `{"d":"90d","s":"32GB"}` {
		t.Errorf("%s, %v", js, err)
	}
	got = units{}
	if err := json.Unmarshal(js, &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, in := range []string{`{"d":5}`, `{"s":5}`, `{"d":"x"}`, `{"s":"x"}`} {
		if err := json.Unmarshal([]byte(in), &got); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

// A picky value decodes itself, and fails with a place of its own.
type picky struct{}

func (*picky) UnmarshalYAML(n *yaml.Node) error {
	return &Error{Line: n.Line + 1, Col: 7, Text: "not to my liking"}
}

func TestUnmarshalerErrors(t *testing.T) {
	var v struct {
		P []picky `yaml:"p"`
	}
	err := Decode("f.yaml", []byte("p: [x]"), &v)
	if err == nil || err.Error() != "f.yaml:2:7: not to my liking in p[0]" {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name: a\nitems: [{id: x}]\nwait: 5m", "a: &a [*a]", "a: 1\na: 2", "--- a\n--- b", "? [a]\n: b", "<<: {a: b}", "!!binary x", "{[", "a:\n\t- b",
		"any: {a: 010, b: 2025-01-01, c: .nan, d: ~}", "tags: {a: |\n  x\n}", "\xff\xfea\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v list
		if err := Decode("f", in, &v); err == nil {
			if v.Name == "" && !strings.Contains(string(in), `""`) && !strings.Contains(string(in), "''") && !strings.ContainsAny(string(in), "|>\"'\x00") {
				t.Fatalf("%q lacks what is required", in)
			}
			if _, err := json.Marshal(v.Any); err != nil {
				t.Fatalf("%q: untyped value is not JSON: %v", in, err)
			}
		} else {
			for _, line := range strings.SplitN(err.Error(), "\n", 2)[:1] {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("%q: error without place: %s", in, line)
				}
			}
		}
		var untyped any
		if Decode("f", in, &untyped) == nil {
			if _, err := json.Marshal(untyped); err != nil {
				t.Fatalf("%q: untyped value is not JSON: %v", in, err)
			}
		}
		if keys, err := Keys(in); err == nil && keys == nil && !strings.ContainsAny(string(in), "{}\x00") {
			t.Fatalf("%q: no keys, no error", in)
		}
	})
}
