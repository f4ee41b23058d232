package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"fednode/store/strictyaml"
)

// checker carries one file through its checks: where everything stands, and
// what was found.
type checker struct {
	file     string
	env      Env
	root     *yaml.Node
	nodes    map[string]*yaml.Node // by path, containers included
	leaves   []leaf
	errs     []error
	findings []Finding
}

// leaf is one value of a file.
type leaf struct {
	path    string // workflow.steps[2].agent
	pattern string // workflow.steps[].agent
	value   string // as written
	node    *yaml.Node
}

// newChecker parses data once more, for positions. Data has passed
// strictyaml.Decode, which bounds its size, depth and aliases.
func newChecker(file string, data []byte, env Env) (*checker, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(document.Content) == 0 {
		return nil, fmt.Errorf("%s: the file is empty", file)
	}
	return &checker{file: file, env: env, root: document.Content[0], nodes: map[string]*yaml.Node{}}, nil
}

// fail records an error at a path. A path that isn't in the file stands for its
// nearest ancestor that is.
func (c *checker) fail(path, suggestion, format string, args ...any) {
	line, col := c.position(path)
	c.errs = append(c.errs, &strictyaml.Error{
		File: c.file, Line: line, Col: col, Path: path,
		Text: fmt.Sprintf(format, args...), Suggestion: suggestion,
	})
}

// warn records a finding at a path.
func (c *checker) warn(path string, code Code, mend, format string, args ...any) {
	line, col := c.position(path)
	c.findings = append(c.findings, Finding{
		Path: path, Line: line, Col: col, Severity: SeverityWarning, Code: code,
		Text: fmt.Sprintf(format, args...), Mend: mend,
	})
}

// position returns the line and column of a path, both from 1.
func (c *checker) position(path string) (line, col int) {
	for path != "" {
		if n, ok := c.nodes[path]; ok {
			return n.Line, n.Column
		}
		path = path[:max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['), 0)]
	}
	return c.root.Line, c.root.Column
}

// walk visits a typed value beside the node it was decoded from: it notes
// positions, collects the leaves, and lets every leaf check itself.
func (c *checker) walk(v reflect.Value, n *yaml.Node, path, pattern string, required map[string]bool) {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if absent(n) {
		return
	}
	c.nodes[path] = n
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if isLeaf(v.Type()) {
		c.leaves = append(c.leaves, leaf{path: path, pattern: pattern, value: n.Value, node: n})
		if text, suggestion := problemOf(v); text != "" {
			c.fail(path, suggestion, "%s", text)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		c.walkStruct(v, n, path, pattern, required)
	case reflect.Slice:
		for i := range min(v.Len(), len(n.Content)) {
			c.walk(v.Index(i), n.Content[i], index(path, i), pattern+"[]", required)
		}
	case reflect.Map:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			value := v.MapIndex(reflect.ValueOf(key).Convert(v.Type().Key()))
			if !value.IsValid() {
				continue
			}
			if k, ok := reflect.ValueOf(key).Convert(v.Type().Key()).Interface().(scalar); ok && k.problem() != "" {
				c.nodes[under(path, key)] = n.Content[i]
				c.fail(under(path, key), "", "%s", k.problem())
				continue
			}
			c.walk(value, n.Content[i+1], under(path, key), under(pattern, "*"), required)
		}
	}
}

func (c *checker) walkStruct(v reflect.Value, n *yaml.Node, path, pattern string, required map[string]bool) {
	for _, f := range fields(v.Type()) {
		here, kindOf := under(path, f.key), under(pattern, f.key)
		child := lookup(n, f.key)
		before := len(c.errs)
		c.walk(v.FieldByIndex(f.index), child, here, kindOf, required)
		switch {
		case !required[kindOf] || !empty(child) || len(c.errs) > before:
		case child == nil:
			c.fail(path, "", "the key %s is missing; add it", f.key)
		default:
			c.nodes[here] = child
			c.fail(here, "", "%s is empty; fill it in", f.key)
		}
	}
}

// field is a key of a struct.
type field struct {
	key   string
	index []int
}

// fields lists the keys of a struct type in order, inlined structs included.
func fields(t reflect.Type) []field {
	var out []field
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() {
			continue
		}
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "-" || options == "inline" || f.Anonymous && key == "" {
			continue
		}
		if key == "" {
			key = strings.ToLower(f.Name)
		}
		out = append(out, field{key: key, index: f.Index})
	}
	return out
}

// isLeaf reports whether a type is one value for the user: a scalar, or a
// struct that reads itself from one.
func isLeaf(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := reflect.PointerTo(t)
	if p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Map:
		return false
	}
	return true
}

// problemOf lets a leaf check its own syntax. It returns "" when all is well.
func problemOf(v reflect.Value) (text, suggestion string) {
	switch x := v.Interface().(type) {
	case enumerated:
		return enumText(v.String(), x.Values())
	case scalar:
		return x.problem(), ""
	case strictyaml.Duration:
		if x <= 0 {
			return "a period must be longer than nothing; write one such as 30s, 24h or 90d", ""
		}
	case strictyaml.Size:
		if x <= 0 {
			return "a size must be more than nothing; write one such as 10MB", ""
		}
	}
	return "", ""
}

func enumText(value string, values []string) (text, suggestion string) {
	if slices.Contains(values, value) {
		return "", ""
	}
	return fmt.Sprintf("%.80q is not known here; write %s", value, join(values)), nearest(value, values)
}

// enumProblem says what is wrong with a value of a closed vocabulary.
func enumProblem(v enumerated) string {
	text, _ := enumText(reflect.ValueOf(v).String(), v.Values())
	return text
}

// lookup returns the value of a key of a mapping, nil when it isn't there.
func lookup(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// absent reports whether a node stands for no value at all.
func absent(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// empty reports whether a node holds nothing a required key could do with.
func empty(n *yaml.Node) bool {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return absent(n) || n.Kind != yaml.ScalarNode && len(n.Content) == 0
}

// index is the path of entry i of a list.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// under is the path of a key under a path.
func under(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// unique refuses the second of two equal names in one list.
type unique[T comparable] struct {
	c    *checker
	what string
	seen map[T]string
}

func (u *unique[T]) add(path string, name T) {
	var none T
	if name == none {
		return
	}
	if u.seen == nil {
		u.seen = map[T]string{}
	}
	if first, ok := u.seen[name]; ok {
		line, _ := u.c.position(first)
		u.c.fail(path, "", "%s %v is there already, in line %d; remove one of the two", u.what, name, line)
		return
	}
	u.seen[name] = path
}

// flatten returns the single errors of a joined one.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range many.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

// asError returns the positioned error in err, or one at the file's start.
func asError(file string, err error) *strictyaml.Error {
	var e *strictyaml.Error
	if errors.As(err, &e) {
		return e
	}
	return &strictyaml.Error{File: file, Line: 1, Col: 1, Text: err.Error()}
}
