package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a document.
const (
	MaxSize   = 1 << 20 // bytes
	MaxDepth  = 32      // nested mappings and sequences
	maxErrors = 20      // reported together
)

// An Error is one thing wrong with a file. Line and Col count from 1.
type Error struct {
	File       string
	Line, Col  int
	Path       string // of the mapping or value, such as workflow.steps[2]
	Text       string // what is wrong
	Suggestion string // the nearest known key or value
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Text)
	if e.Path != "" {
		s += " in " + e.Path
	}
	if e.Suggestion != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Suggestion)
	}
	return s
}

// Decode decodes the one document in data into the value that v points to; name is the file's name for errors. Struct
// fields are matched by their yaml tag. Two more tags are known: required:"true", and oneof:"a,b,c" on strings and
// slices of strings. Types may decode themselves by UnmarshalYAML(*yaml.Node) error. The error joins up to 20 [*Error].
func Decode(name string, data []byte, v any) error {
	root, err := parse(name, data)
	if err != nil {
		return err
	}
	d := &decoder{file: name}
	d.value(root, reflect.ValueOf(v).Elem(), "", "", 0)
	return errors.Join(d.errs...)
}

// Keys returns the keys of the document's top-level mapping, in order.
func Keys(data []byte) ([]string, error) {
	root, err := parse("", data)
	if err != nil {
		return nil, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, &Error{Line: root.Line, Col: root.Column, Text: "want a mapping of keys to values"}
	}
	var keys []string
	for i := 0; i < len(root.Content); i += 2 {
		keys = append(keys, root.Content[i].Value)
	}
	return keys, nil
}

// The library counts from 0 in the errors of its parser, and from 1 in those of its scanner.
var (
	positionRE = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	parserRE   = regexp.MustCompile(`^did not find expected (key|node content|'-' indicator|',' or|<)`)
)

func parse(name string, data []byte) (*yaml.Node, error) {
	fail := func(line int, format string, a ...any) error {
		return &Error{File: name, Line: line, Col: 1, Text: fmt.Sprintf(format, a...)}
	}
	if len(data) > MaxSize {
		return nil, fail(1, "the file has %d bytes; at most %d", len(data), MaxSize)
	}
	if depth := flowDepth(data); depth > 4*MaxDepth {
		return nil, fail(1, "brackets nested deeper than %d", MaxDepth)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, fail(1, "the file is empty")
	case err != nil:
		m := positionRE.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
		if m == nil {
			return nil, fail(1, "%v", err)
		}
		line, _ := strconv.Atoi(m[1])
		if parserRE.MatchString(m[2]) {
			line++
		}
		return nil, fail(max(line, 1), "not YAML: %s", m[2])
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fail(max(second.Line, 1), "a second document; a file holds one")
	}
	if len(doc.Content) != 1 {
		return nil, fail(1, "the file is empty")
	}
	return doc.Content[0], nil
}

// flowDepth returns how deep brackets are nested at most, so that the parser, which recurses, is never given what
// would exhaust its stack. Brackets in quoted text count too, which only makes the bound stricter.
func flowDepth(data []byte) int {
	depth, deepest := 0, 0
	for _, c := range data {
		switch c {
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return deepest
}

type decoder struct {
	file string
	errs []error
}

func (d *decoder) fail(n *yaml.Node, path, suggestion, format string, a ...any) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, &Error{d.file, n.Line, n.Column, path, fmt.Sprintf(format, a...), suggestion})
	}
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

// value decodes n into v. oneof is the tag of the struct field that v is or belongs to.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path, oneof string, depth int) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(n, path, "", "anchors and aliases are not allowed; write the value out")
		return
	case depth > MaxDepth:
		d.fail(n, path, "", "nested deeper than %d", MaxDepth)
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, path, "", "tag %s is not allowed", n.Tag)
		return
	}
	if reflect.PointerTo(v.Type()).Implements(unmarshaler) {
		if err := v.Addr().Interface().(yaml.Unmarshaler).UnmarshalYAML(n); err != nil {
			var e *Error
			if errors.As(err, &e) {
				e.File, e.Path = d.file, path
				if len(d.errs) < maxErrors {
					d.errs = append(d.errs, e)
				}
				return
			}
			d.fail(n, path, "", "%v", err)
		}
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
			v.SetZero()
		default:
			d.fail(n, path, "", "null, want %s", want(v.Type()))
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path, oneof, depth)
	case reflect.Struct:
		d.structure(n, v, path, depth)
	case reflect.Map:
		d.mapping(n, v, path, oneof, depth)
	case reflect.Slice:
		d.sequence(n, v, path, oneof, depth)
	case reflect.Interface:
		d.untyped(n, v, path, depth)
	default:
		d.scalar(n, v, path, oneof)
	}
}

func want(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Pointer:
		return want(t.Elem())
	}
	return "a whole number"
}

// given describes what stands in the file.
func given(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	v := n.Value
	if len(v) > 40 {
		v = v[:40] + "…"
	}
	return strconv.Quote(v)
}

// keys calls fn for each key of a mapping, and refuses duplicates and merge keys.
func (d *decoder) keys(n *yaml.Node, path string, fn func(key, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch line, dup := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 || k.Tag == "!!merge" || k.Tag == "!!null":
			d.fail(k, path, "", "a key must be plain text")
		case dup:
			d.fail(k, path, "", "key %q appears twice; first in line %d", k.Value, line)
		default:
			seen[k.Value] = k.Line
			fn(k, n.Content[i+1])
		}
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "", "%s, want a mapping", given(n))
		return
	}
	fields := map[string]reflect.StructField{}
	var names []string
	for _, f := range reflect.VisibleFields(v.Type()) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if f.IsExported() && name != "" && name != "-" {
			fields[name] = f
			names = append(names, name)
		}
	}
	found := map[string]bool{}
	d.keys(n, path, func(k, val *yaml.Node) {
		f, ok := fields[k.Value]
		if !ok {
			d.fail(k, path, nearest(k.Value, names), "unknown key %q", k.Value)
			return
		}
		found[k.Value] = val.Tag != "!!null"
		d.value(val, v.FieldByIndex(f.Index), join(path, k.Value), f.Tag.Get("oneof"), depth+1)
	})
	for _, name := range names {
		if !found[name] && fields[name].Tag.Get("required") == "true" {
			d.fail(n, path, "", "key %q is missing or empty", name)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path, oneof string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "", "%s, want a mapping", given(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.keys(n, path, func(k, val *yaml.Node) {
		key := reflect.New(v.Type().Key()).Elem()
		if key.Kind() != reflect.String {
			d.fail(k, path, "", "a key of type %s is not supported", key.Type())
			return
		}
		key.SetString(k.Value)
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(val, elem, join(path, k.Value), oneof, depth+1)
		v.SetMapIndex(key, elem)
	})
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path, oneof string, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "", "%s, want a list", given(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		d.value(c, v.Index(i), fmt.Sprintf("%s[%d]", path, i), oneof, depth+1)
	}
}

// untyped decodes into an any what JSON could hold, for schemas and parameters that are checked elsewhere.
func (d *decoder) untyped(n *yaml.Node, v reflect.Value, path string, depth int) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		d.mapping(n, reflect.ValueOf(&m).Elem(), path, "", depth)
		v.Set(reflect.ValueOf(m))
	case yaml.SequenceNode:
		s := []any{}
		d.sequence(n, reflect.ValueOf(&s).Elem(), path, "", depth)
		v.Set(reflect.ValueOf(s))
	default:
		var x any = n.Value // what JSON has no type for keeps its spelling: dates, .nan
		switch n.Tag {
		case "!!bool", "!!int", "!!float":
			if json.Valid([]byte(n.Value)) {
				if err := n.Decode(&x); err != nil {
					d.fail(n, path, "", "%s cannot be read", given(n))
					return
				}
			}
		}
		v.Set(reflect.ValueOf(x))
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path, oneof string) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, path, "", "%s, want %s", given(n), want(v.Type()))
		return
	}
	bad := func() { d.fail(n, path, "", "%s, want %s", given(n), want(v.Type())) }
	switch v.Kind() {
	case reflect.String:
		// Numbers, dates and booleans keep their spelling where text is wanted: version: 1.0.0, effective_date: 2025-01-01.
		// A plain yes, true or 1 where a name is wanted is more likely a mistake that the type's own check finds.
		v.SetString(n.Value)
		if values := strings.Split(oneof, ","); oneof != "" && !slices.Contains(values, n.Value) {
			d.fail(n, path, nearest(n.Value, values), "%s, want one of %s", given(n), strings.Join(values, ", "))
		}
	case reflect.Bool:
		if n.Tag != "!!bool" {
			bad()
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	// One spelling for whole numbers: 010 is eight in YAML 1.1 and ten in 1.2.
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Tag != "!!int" || err != nil || v.OverflowInt(i) || strconv.FormatInt(i, 10) != n.Value {
			bad()
			return
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(n.Value, 10, 64)
		if n.Tag != "!!int" || err != nil || v.OverflowUint(u) || strconv.FormatUint(u, 10) != n.Value {
			bad()
			return
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if n.Tag != "!!int" && n.Tag != "!!float" || err != nil || math.IsInf(f, 0) || math.IsNaN(f) || v.OverflowFloat(f) {
			bad()
			return
		}
		v.SetFloat(f)
	default:
		d.fail(n, path, "", "values of type %s are not supported", v.Type())
	}
}
