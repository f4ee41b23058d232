package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.yaml.in/yaml/v3"

	"fednode/store/strictyaml"
)

// example is one configuration file that tests start from.
type example struct {
	name string // file name without folder
	data []byte
}

func (e example) kind() Kind {
	return Kind(strings.TrimSuffix(e.name, filepath.Ext(e.name)))
}

// examples are the files in testdata, and those of FEDNODE_REFERENCE=DIR beside
// them.
func examples(t testing.TB) []example {
	t.Helper()
	dirs := []string{filepath.Join("testdata", "kinds")}
	if dir := os.Getenv("FEDNODE_REFERENCE"); dir != "" {
		dirs = append(dirs, dir)
	}
	var out []example
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext != ".yaml" && ext != ".json" {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, example{e.Name(), data})
			n++
		}
		if n != 12 {
			t.Fatalf("%s has %d configuration files, want 12", dir, n)
		}
	}
	return out
}

// one returns the example of a kind in testdata.
func one(t testing.TB, k Kind) example {
	t.Helper()
	for _, e := range examples(t) {
		if e.kind() == k {
			return e
		}
	}
	t.Fatalf("no example of kind %s", k)
	return example{}
}

func noon() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

// bare is an environment without certificate files and member entries.
func bare() Env { return Env{Now: noon, FS: fstest.MapFS{}, Root: fstest.MapFS{}} }

func TestExamplesPassWithWarnings(t *testing.T) {
	for _, e := range examples(t) {
		r, err := Check(e.name, e.data, bare())
		if err != nil {
			t.Errorf("%s: %v", e.name, err)
			continue
		}
		if r.Kind != e.kind() {
			t.Errorf("%s is taken for %s", e.name, r.Kind)
		}
		if r.Fields < 8 || len(r.Findings) == 0 {
			t.Errorf("%s: %d fields, %d findings", e.name, r.Fields, len(r.Findings))
		}
		for _, f := range r.Findings {
			if f.Severity != SeverityWarning || f.Line < 1 || f.Col < 1 || f.Text == "" || f.Code == "" {
				t.Errorf("%s: %+v", e.name, f)
			}
		}
	}
}

func TestExamplesHaveTheKeysOfTheReference(t *testing.T) {
	patterns := map[Kind]map[string]bool{}
	for _, e := range examples(t) {
		k := kindNamed(t, e.kind())
		c, _, err := k.inspect(e.name, e.data, bare())
		if err != nil {
			t.Fatal(err)
		}
		if patterns[e.kind()] == nil {
			patterns[e.kind()] = map[string]bool{}
			for _, l := range c.leaves {
				patterns[e.kind()][l.pattern] = true
			}
			continue
		}
		for _, l := range c.leaves { // the reference files come second
			if !patterns[e.kind()][l.pattern] && !strings.HasPrefix(l.pattern, "payload.") {
				t.Errorf("%s: no example has %s", e.kind(), l.pattern)
			}
		}
	}
}

func kindNamed(t testing.TB, name Kind) kind {
	t.Helper()
	for _, k := range kinds() {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("no kind %s", name)
	return kind{}
}

func TestEveryFieldHasAStatus(t *testing.T) {
	for _, k := range kinds() {
		declared := map[string]bool{}
		for _, row := range k.rows {
			if declared[row.Path] {
				t.Errorf("%s: %s is declared twice", k.name, row.Path)
			}
			declared[row.Path] = true
			switch row.Status {
			case Honoured, SelectsBuiltin, Refused:
			case NotEnforced:
				if row.Why == "" {
					t.Errorf("%s: %s isn't enforced, and nothing says why", k.name, row.Path)
				}
			default:
				t.Errorf("%s: %s has status %q", k.name, row.Path, row.Status)
			}
			if row.Meaning == "" {
				t.Errorf("%s: %s has no meaning", k.name, row.Path)
			}
		}
		leaves := map[string]reflect.Type{}
		leafTypes(reflect.TypeOf(k.document), "", leaves)
		for _, path := range sortedKeys(leaves) {
			if !declared[path] {
				t.Errorf("%s: field %s has no status", k.name, path)
			}
			delete(declared, path)
		}
		for path := range declared {
			t.Errorf("%s: %s has a status, but is no field", k.name, path)
		}
	}
}

func TestRulingsAreAboutValuesThatExist(t *testing.T) {
	for _, k := range kinds() {
		leaves := map[string]reflect.Type{}
		leafTypes(reflect.TypeOf(k.document), "", leaves)
		for _, row := range k.rows {
			values := slices.Clone(row.Fixed)
			for _, r := range row.Rulings {
				values = append(values, r.Value)
				if r.Why == "" {
					t.Errorf("%s: the ruling on %s: %s has no reason", k.name, row.Path, r.Value)
				}
			}
			for _, v := range values {
				ok := leaves[row.Path].Kind() == reflect.Bool && (v == "true" || v == "false")
				if e, is := reflect.Zero(leaves[row.Path]).Interface().(enumerated); is {
					ok = slices.Contains(e.Values(), v)
				}
				if !ok {
					t.Errorf("%s: %s can't be %q", k.name, row.Path, v)
				}
			}
		}
	}
}

func TestRequiredKeysExist(t *testing.T) {
	for _, k := range kinds() {
		for _, p := range k.required {
			known := false
			leaves := map[string]reflect.Type{}
			leafTypes(reflect.TypeOf(k.document), "", leaves)
			for path := range leaves {
				rest, ok := strings.CutPrefix(path, p)
				known = known || ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
			}
			if !known {
				t.Errorf("%s requires %s, which isn't a key", k.name, p)
			}
		}
	}
}

// token is a key or a value in a file.
type token struct {
	path, pattern string
	node          *yaml.Node
}

// tokens lists the keys and the scalar values of a file, with their patterns.
func tokens(t testing.TB, data []byte) (keys, values []token) {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	var walk func(n *yaml.Node, path, pattern string)
	walk = func(n *yaml.Node, path, pattern string) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := n.Content[i]
				keys = append(keys, token{under(path, key.Value), under(pattern, key.Value), key})
				walk(n.Content[i+1], under(path, key.Value), under(pattern, key.Value))
			}
		case yaml.SequenceNode:
			for i, entry := range n.Content {
				walk(entry, index(path, i), pattern+"[]")
			}
		case yaml.ScalarNode:
			values = append(values, token{path, pattern, n})
		}
	}
	walk(document.Content[0], "", "")
	return keys, values
}

// replace puts text in the place of a scalar.
func replace(t testing.TB, data []byte, n *yaml.Node, text string) []byte {
	t.Helper()
	lines := strings.SplitAfter(string(data), "\n")
	line := lines[n.Line-1]
	raw := n.Value
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		raw = line[n.Column-1:n.Column] + n.Value + line[n.Column-1:n.Column]
	}
	if !strings.HasPrefix(line[n.Column-1:], raw) {
		t.Fatalf("line %d has no %s at column %d: %s", n.Line, raw, n.Column, line)
	}
	lines[n.Line-1] = line[:n.Column-1] + text + line[n.Column-1+len(raw):]
	return []byte(strings.Join(lines, ""))
}

// free reports whether a place takes any keys.
func free(k Kind, pattern string) bool {
	return k == KindMessage && strings.HasPrefix(pattern, "payload.") ||
		k == KindStorage && strings.HasPrefix(pattern, "compliance.data_retention.override_by_category.")
}

// errorAt finds the error at a line.
func errorAt(err error, line int) *strictyaml.Error {
	for _, e := range flatten(err) {
		var p *strictyaml.Error
		if errors.As(e, &p) && p.Line == line {
			return p
		}
	}
	return nil
}

func TestMistypedKeysAreNamedWithLineAndSuggestion(t *testing.T) {
	t.Parallel()
	for _, e := range examples(t) {
		keys, _ := tokens(t, e.data)
		for _, key := range keys {
			if free(e.kind(), key.pattern) {
				continue
			}
			for _, typo := range typos(key.node.Value) {
				text := typo
				if key.node.Style&yaml.DoubleQuotedStyle != 0 {
					text = `"` + typo + `"`
				}
				_, err := Check(e.name, replace(t, e.data, key.node, text), bare())
				at := errorAt(err, key.node.Line)
				if at == nil {
					t.Errorf("%s: %s as %s in line %d: %v", e.name, key.path, typo, key.node.Line, err)
					continue
				}
				if at.Suggestion != key.node.Value || !strings.Contains(at.Error(), typo) || !strings.HasPrefix(at.Error(), fmt.Sprintf("%s:%d:%d: ", e.name, key.node.Line, key.node.Column)) {
					t.Errorf("%s: %s as %s: suggestion %q: %v", e.name, key.path, typo, at.Suggestion, at)
				}
			}
		}
	}
}

// typos are a word with one letter changed, one lost and one added.
func typos(word string) []string {
	middle := len(word) / 2
	out := []string{word[:middle] + "q" + word[middle+1:], word + "q"}
	if len(word) > 3 {
		out = append(out, word[:middle]+word[middle+1:])
	}
	return out
}

func TestWrongTypesAreNamedWithLine(t *testing.T) {
	t.Parallel()
	for _, e := range examples(t) {
		_, values := tokens(t, e.data)
		for _, v := range values {
			if free(e.kind(), v.pattern) {
				continue
			}
			// No text field takes control characters either.
			wrong := []string{`{"a": "b"}`, `["a", "b"]`, `"?!\u0000"`}
			for _, text := range wrong {
				if _, err := Check(e.name, replace(t, e.data, v.node, text), bare()); errorAt(err, v.node.Line) == nil {
					t.Errorf("%s: %s: %s in line %d gives %v", e.name, v.path, text, v.node.Line, err)
				}
			}
		}
	}
}

func TestEveryRequiredKeyIsMissed(t *testing.T) {
	for _, k := range kinds() {
		for _, pattern := range k.required {
			e := one(t, k.name)
			var document yaml.Node
			if err := yaml.Unmarshal(e.data, &document); err != nil {
				t.Fatal(err)
			}
			removed := remove(document.Content[0], "", pattern)
			if !removed {
				t.Errorf("%s: the example has no %s to remove", k.name, pattern)
				continue
			}
			data, err := yaml.Marshal(&document)
			if err != nil {
				t.Fatal(err)
			}
			// The kind is given: a file without its main key may be anything.
			_, _, err = k.inspect(e.name, data, bare())
			key := pattern[strings.LastIndexByte(pattern, '.')+1:]
			if err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%s without %s: %v", k.name, pattern, err)
			}
		}
	}
}

// remove takes the first key with a pattern out of a document.
func remove(n *yaml.Node, at, pattern string) bool {
	if n.Kind == yaml.SequenceNode {
		return slices.ContainsFunc(n.Content, func(entry *yaml.Node) bool { return remove(entry, at+"[]", pattern) })
	}
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		here := under(at, n.Content[i].Value)
		if here == pattern {
			n.Content = slices.Delete(n.Content, i, i+2)
			return true
		}
		if remove(n.Content[i+1], here, pattern) {
			return true
		}
	}
	return false
}

func TestUnknownFilesListTheKinds(t *testing.T) {
	for name, c := range map[string]struct{ data, suggestion string }{
		"empty.yaml":             {"", ""},
		"list.yaml":              {"- a\n- b\n", ""},
		"compose.yaml":           {"services:\n  web:\n    image: x\n", ""},
		"federated-audits.yaml":  {"zzz: 1\n", "federated-audit"},
		"generic.yaml":           {"name: x\n", ""},
		"participants-only.yaml": {"participants:\n  - id: a\n", ""},
	} {
		r, err := Check(name, []byte(c.data), bare())
		if err == nil {
			t.Errorf("%s passes as %s", name, r.Kind)
			continue
		}
		for _, k := range kinds()[:11] {
			if !strings.Contains(err.Error(), string(k.name)) {
				t.Errorf("%s: the error doesn't name %s: %v", name, k.name, err)
			}
		}
		if c.suggestion != "" && errorAt(err, 1).Suggestion != c.suggestion {
			t.Errorf("%s: %v", name, err)
		}
		if len(r.Findings) == 0 || r.Findings[0].Severity != SeverityError {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestSecondDocumentsAndDuplicateKeysAreRefused(t *testing.T) {
	for _, e := range examples(t) {
		if filepath.Ext(e.name) == ".json" {
			continue
		}
		if _, err := Check(e.name, append(slices.Clone(e.data), "\n---\na: b\n"...), bare()); err == nil {
			t.Errorf("%s: a second document passes", e.name)
		}
		if _, err := Check(e.name, append(slices.Clone(e.data), e.data...), bare()); err == nil {
			t.Errorf("%s: every key twice passes", e.name)
		}
	}
}

func TestOversizedFilesAreRefused(t *testing.T) {
	big := append(slices.Clone(one(t, KindAudit).data), strings.Repeat("# filler\n", maxFile/9)...)
	if _, err := Check("big.yaml", big, bare()); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("%v", err)
	}
	if _, err := Parse[Audit]("big.yaml", big); err == nil {
		t.Error("Parse takes it")
	}
}

func TestParseReturnsTheTypedDocument(t *testing.T) {
	l, err := Parse[Learning]("l.yaml", one(t, KindLearning).data)
	if err != nil {
		t.Fatal(err)
	}
	if l.Model.Architecture.Layers[1].Units != 24 || l.Training.LearningRate != 0.01 || l.Aggregation.Dropout != 0.25 {
		t.Errorf("%+v", l)
	}
	i, err := Parse[IncidentResponse]("i.yaml", one(t, KindIncident).data)
	if err != nil {
		t.Fatal(err)
	}
	if d, event := i.Communication.Regulatory.Timeframe.After(); d != 48*time.Hour || event != "detection" {
		t.Errorf("%v of %s", d, event)
	}
	if _, err := Parse[Audit]("l.yaml", one(t, KindLearning).data); err == nil {
		t.Error("a learning file passes as audit")
	}
}
