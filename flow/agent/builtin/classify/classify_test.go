package classify

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "train the model that comes with fednode again")

// fillings is how many documents a template of the corpus makes.
const fillings = 3

// documents reads testdata/DIR/<class>.txt: documents between lines of four hyphens. In templates, [a|b|c] is a, b or c.
func documents(tb testing.TB, dir string, fillings int) []Example {
	tb.Helper()
	var out []Example
	fsys := os.DirFS("testdata/" + dir)
	names, err := fs.Glob(fsys, "*.txt")
	if err != nil || len(names) == 0 {
		tb.Fatalf("no documents in %s: %v", dir, err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			tb.Fatal(err)
		}
		label := strings.TrimSuffix(path.Base(name), ".txt")
		for i, text := range strings.Split(string(data), "\n----\n") {
			for k := range fillings {
				out = append(out, Example{label, fill(text, k), fmt.Sprintf("%s/%d", label, i)})
			}
		}
	}
	return out
}

// fill takes the (k + position of the choice)th way of every choice, so that fillings differ in more than one manner.
func fill(text string, k int) string {
	var b strings.Builder
	for at := 0; ; at++ {
		before, rest, ok := strings.Cut(text, "[")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		inner, after, _ := strings.Cut(rest, "]")
		ways := strings.Split(inner, "|")
		b.WriteString(ways[(k+at*k)%len(ways)])
		text = after
	}
}

func trained(tb testing.TB) (*Model, Report) {
	tb.Helper()
	m, r, err := Train(documents(tb, "corpus", fillings))
	if err != nil {
		tb.Fatal(err)
	}
	return m, r
}

func TestDefaultModelIsCurrent(t *testing.T) {
	m, r := trained(t)
	t.Logf("cross-validated by template:\n%s", r)
	if *update {
		if err := os.WriteFile("default.model", m.bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(m.bytes, defaultBytes) {
		t.Fatal("default.model is not what the corpus gives; run go generate ./flow/agent/builtin/classify")
	}
	if r.Accuracy < 0.85 {
		t.Errorf("cross-validated accuracy %.3f, want 0.85 or more", r.Accuracy)
	}
	if r.ECE > 0.1 || r.LogLoss > r.Raw {
		t.Errorf("calibration: ECE %.3f, log-loss %.3f, before %.3f", r.ECE, r.LogLoss, r.Raw)
	}
}

// TestHeldOut publishes the accuracy on documents written apart from the corpus and never trained on.
func TestHeldOut(t *testing.T) {
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	held := documents(t, "heldout", 1)
	s, err := m.Measure(held)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d held-out documents: accuracy %.3f, log-loss %.3f, calibration error %.3f\n%s",
		len(held), s.Accuracy, s.LogLoss, s.ECE, Table(m.labels, s.Confusion))
	for _, e := range held {
		if v := m.Classify(e.Text); v.Label != e.Label {
			t.Logf("%s judged %s %.2f: %.60q", e.Group, v.Label, v.Score, e.Text)
		}
	}
	if s.Accuracy < 0.85 {
		t.Errorf("accuracy %.3f, want 0.85 or more", s.Accuracy)
	}
	for i, row := range s.Confusion {
		n := 0
		for _, c := range row {
			n += c
		}
		if n < 8 {
			t.Errorf("%s has %d held-out documents, want 8", m.labels[i], n)
		}
	}
}

func TestCorpusIsLargeAndApart(t *testing.T) {
	corpus, seen := documents(t, "corpus", fillings), map[string]bool{}
	perClass := map[string]int{}
	for _, e := range corpus {
		perClass[e.Label]++
		if strings.ContainsAny(e.Text, "[|]") {
			t.Errorf("%s: a choice is malformed: %q", e.Group, e.Text)
		}
		if seen[e.Text] {
			t.Errorf("%s comes twice", e.Group)
		}
		for line := range strings.Lines(e.Text) {
			seen[line] = true
		}
		seen[e.Text] = true
	}
	for label, n := range perClass {
		if n < 40 {
			t.Errorf("%d documents of %s, want 40", n, label)
		}
	}
	for _, e := range documents(t, "heldout", 1) {
		for line := range strings.Lines(e.Text) {
			if len(line) > 30 && seen[line] {
				t.Errorf("%s: a held-out line stands in the corpus: %q", e.Group, line)
			}
		}
	}
	if len(defaultBytes) > 1<<20 {
		t.Errorf("the model has %d bytes", len(defaultBytes))
	}
}

func TestClassify(t *testing.T) {
	m, _ := Default()
	long := strings.Repeat("The tenant shall pay the rent in advance and this agreement is governed by the law of England. ", 2000)
	for name, text := range map[string]string{"empty": "", "unknown words": "qzx vfg 一二三", "long": long, "placeholders": "<PERSON> <IBAN_CODE>"} {
		v := m.Classify(text)
		sum := 0.0
		for _, p := range v.Scores {
			sum += p
			if p < 0 || p > 1 || math.IsNaN(p) {
				t.Errorf("%s: score %v", name, p)
			}
		}
		if math.Abs(sum-1) > 0.001 || v.Scores[v.Label] != v.Score {
			t.Errorf("%s: %+v", name, v)
		}
		if (name == "empty" || name == "placeholders") && v.Score > 0.2 {
			t.Errorf("%s: sure of nothing: %+v", name, v)
		}
	}
	if v := m.Classify(long); v.Label != "contract" {
		t.Errorf("long: %+v", v)
	}
}

func TestTrainRefuses(t *testing.T) {
	many := func(label string, n int) (out []Example) {
		for i := range n {
			out = append(out, Example{label, fmt.Sprintf("word%d of %s", i, label), fmt.Sprint(i)})
		}
		return out
	}
	for name, examples := range map[string][]Example{
		"none":      nil,
		"one class": many("a", 9),
		"too few":   append(many("a", 9), many("b", MinPerClass-1)...),
		"bad label": append(many("a", 9), many("two words", 9)...),
	} {
		if _, _, err := Train(examples); err == nil {
			t.Errorf("%s: trained", name)
		}
	}
	m, r, err := Train(append(many("a", 9), many("b", 9)...))
	if err != nil || len(r.Classes) != 2 || !strings.Contains(r.String(), "accuracy") {
		t.Fatalf("%v %v", r, err)
	}
	if v := m.Classify("something of b"); v.Label != "b" {
		t.Errorf("%+v", v)
	}
}

func TestParseRefuses(t *testing.T) {
	m, _ := Default()
	good, _ := m.MarshalBinary()
	again, err := Parse(good)
	if err != nil || again.Hash() != m.Hash() || again.Words() != m.Words() {
		t.Fatalf("its own bytes: %v", err)
	}
	for i := 0; i < len(good); i += 97 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := Parse(bad); err == nil {
			t.Fatalf("byte %d changed and accepted", i)
		}
		if _, err := Parse(good[:i]); err == nil {
			t.Fatalf("cut at %d and accepted", i)
		}
	}
	if _, err := Parse(append(bytes.Clone(good), 0)); err == nil {
		t.Error("a byte appended and accepted")
	}
}

// TestParseRefusesForgeries gives bodies a right checksum: what stands in them must still be sound.
func TestParseRefusesForgeries(t *testing.T) {
	label := func(name string) []byte { return append(append([]byte{byte(len(name))}, name...), 5) }
	body := func(parts ...[]byte) []byte { return checksummed(slices.Concat(parts...)) }
	head, word := []byte{100, 100, 2}, []byte{1, 0, 1, 'x', 3, 4}
	if m, err := Parse(body(head, label("a"), label("b"), word)); err != nil || !slices.Equal(m.Labels(), []string{"a", "b"}) {
		t.Fatalf("the sound one: %v", err)
	}
	for name, data := range map[string][]byte{
		"empty":               checksummed(nil),
		"labels twice":        body(head, label("a"), label("a"), word),
		"labels out of order": body(head, label("b"), label("a"), word),
		"label of two words":  body(head, label("a"), label("b c"), word),
		"one class":           body([]byte{100, 100, 1}, label("a"), []byte{1, 0, 1, 'x', 3}),
		"no words":            body(head, label("a"), label("b"), []byte{0}),
		"no smoothing":        body([]byte{0, 100, 2}, label("a"), label("b"), word),
		"no temperature":      body([]byte{100, 0, 2}, label("a"), label("b"), word),
		"65 classes":          body([]byte{100, 100, 65}),
		"words out of order":  body(head, label("a"), label("b"), []byte{2, 0, 1, 'x', 3, 4, 0, 1, 'a', 3, 4}),
		"sharing too much":    body(head, label("a"), label("b"), []byte{1, 9, 1, 'x', 3, 4}),
		"sharing too little":  body(head, label("a"), label("b"), []byte{2, 0, 1, 'x', 3, 4, 0, 2, 'x', 'y', 3, 4}),
		"a long varint":       body([]byte{0xe4, 0, 100, 2}, label("a"), label("b"), word),
		"a billion words":     body(head, label("a"), label("b"), []byte{0x80, 0x94, 0xeb, 0xdc, 3}),
		"more than it says":   body(head, label("a"), label("b"), word, []byte{7}),
	} {
		if _, err := Parse(data); !errors.Is(err, ErrModel) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(make([]byte, MaxModel+1)); !errors.Is(err, ErrModel) {
		t.Errorf("too large: %v", err)
	}
}

// TestTrainIsDeterministic wants the same bytes for the same examples, whatever goes on in maps.
func TestTrainIsDeterministic(t *testing.T) {
	a, _ := trained(t)
	b, _ := trained(t)
	if !bytes.Equal(a.bytes, b.bytes) {
		t.Error("two trainings gave two models")
	}
}

// TestClassifyIsSteady changes texts in ways that say nothing about their class.
func TestClassifyIsSteady(t *testing.T) {
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range documents(t, "heldout", 1) {
		v := m.Classify(e.Text)
		for name, text := range map[string]string{
			"redacted names": strings.ReplaceAll(e.Text, "\n", " <PERSON>\n"),
			"Windows lines":  strings.ReplaceAll(e.Text, "\n", "\r\n"),
			"blank lines":    strings.ReplaceAll(e.Text, "\n", "\n\n"),
			"capitals":       strings.ToUpper(e.Text),
		} {
			if name == "capitals" && strings.ContainsAny(e.Text, "ßµ") { // these have other letters when capital
				continue
			}
			if w := m.Classify(text); w.Label != v.Label || math.Abs(w.Score-v.Score) > 1e-9 {
				t.Errorf("%s, %s: %s %.4f became %s %.4f", e.Group, name, v.Label, v.Score, w.Label, w.Score)
			}
		}
		if twice := m.Classify(e.Text + "\n" + e.Text); twice.Label != v.Label && v.Score > 0.9 {
			t.Errorf("%s said twice is %s", e.Group, twice.Label)
		}
	}
}

// TestMeasureRefuses wants an error for classes that the model doesn't know and for no examples.
func TestMeasureRefuses(t *testing.T) {
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, examples := range [][]Example{nil, {{Label: "poem", Text: "roses are red"}}} {
		if _, err := m.Measure(examples); !errors.Is(err, ErrExamples) {
			t.Errorf("%v: %v", examples, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(magic))
	small, _, err := Train([]Example{{"a", "x", "1"}, {"a", "x y", "2"}, {"a", "x z", "3"}, {"a", "x", "4"}, {"a", "x", "5"},
		{"b", "q", "1"}, {"b", "q r", "2"}, {"b", "q", "3"}, {"b", "q", "4"}, {"b", "q", "5"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small.bytes)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			// The checksum stops nearly everything; give the body a right one.
			m, err = Parse(checksummed(data))
		}
		if err != nil {
			return
		}
		sum, v := 0.0, m.Classify("x q dear sir 12.50 EUR")
		for _, p := range v.Scores {
			sum += p
		}
		if math.Abs(sum-1) > 0.01 || v.Scores[v.Label] != v.Score {
			t.Fatalf("%+v", v)
		}
		again, err := Parse(m.bytes)
		if err != nil || again.Hash() != m.Hash() {
			t.Fatalf("its own bytes: %v", err)
		}
	})
}

func checksummed(body []byte) []byte {
	data := append([]byte(magic), body...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

func BenchmarkClassify(b *testing.B) {
	m, _ := Default()
	text := documents(b, "corpus", 1)[3].Text
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m.Classify(text)
	}
}

func BenchmarkParseModel(b *testing.B) {
	for b.Loop() {
		if _, err := Parse(defaultBytes); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTrain(b *testing.B) {
	examples := documents(b, "corpus", fillings)
	for b.Loop() {
		if _, _, err := Train(examples); err != nil {
			b.Fatal(err)
		}
	}
}
