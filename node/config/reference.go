package config

import (
	"fmt"
	"reflect"
	"strings"

	"fednode/store/strictyaml"
)

// Reference is the description of every field of every kind, in Markdown:
// packaging/doc/CONFIG.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	all := append(kinds(), nodeKind())
	for _, k := range all {
		fmt.Fprintf(&b, "- [%s](#%s)\n", k.name, k.name)
	}
	for _, k := range all {
		k.describe(&b)
	}
	return b.String()
}

const referenceHead = `# Configuration files

Eleven kinds of YAML files, and the reference envelope. ` + "`fednode check FILE`" + ` recognises each by its content and reads it to the
last key; a mistake is an error with file, line and column. It exits 0 with warnings. ` + "`fednode apply FILE`" + ` honours every
field of a file or refuses the whole file, naming each field it doesn't honour. Both know a node's
own policy.yaml too, which says in its comments what may stand in it, and ` + "`check`" + ` its node.yaml.

How this version treats a field:

| status | meaning |
|---|---|
| honoured | the node does what the field says |
| partly enforced | the node does what the field says, but for what is named; ` + "`check`" + ` warns, ` + "`apply`" + ` works |
| selects the built-in | the value names another engine; the built-in one does that work, and ` + "`check`" + ` says so |
| not yet enforced | understood and checked, without effect; ` + "`check`" + ` warns, ` + "`apply`" + ` refuses the file |
| refused by apply | a security mechanism that is the real thing or nothing |

A section whose ` + "`enabled`" + ` is ` + "`false`" + ` asks for nothing, and nothing in it keeps ` + "`apply`" + ` from working.

Periods are written ` + "`30s`, `15m`, `24h`, `90d`, `7y`" + `; a bare number is seconds. Sizes are written ` + "`10MB`, `32GB`, `1TB`" + `. In paths,
` + "`[]`" + ` stands for every entry of a list and ` + "`*`" + ` for every key of a map. A field marked ● must be there, wherever the section around it is.

This file is generated from the tables in node/config.

`

// describe writes the section of one kind.
func (k kind) describe(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| field | value | meaning | in this version |\n|---|---|---|---|\n", k.name, k.about)
	types := map[string]reflect.Type{}
	leafTypes(reflect.TypeOf(k.document), "", types)
	required := map[string]bool{}
	for _, p := range k.required {
		required[p] = true
	}
	for _, row := range k.rows {
		mark := ""
		if required[row.Path] || required[strings.TrimSuffix(row.Path, "[]")] {
			mark = " ●"
		}
		fmt.Fprintf(b, "| `%s`%s | %s | %s | %s |\n", row.Path, mark, valueOf(types[row.Path]), cell(row.Meaning), cell(row.treatment()))
	}
}

// cell keeps a text from ending its table cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// leafTypes lists the fields of a document type by pattern.
func leafTypes(t reflect.Type, pattern string, out map[string]reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isLeaf(t):
		out[pattern] = t
	case t.Kind() == reflect.Slice:
		leafTypes(t.Elem(), pattern+"[]", out)
	case t.Kind() == reflect.Map:
		leafTypes(t.Elem(), under(pattern, "*"), out)
	default:
		for _, f := range fields(t) {
			leafTypes(t.FieldByIndex(f.index).Type, under(pattern, f.key), out)
		}
	}
}

// valueOf says what may be written in a field.
func valueOf(t reflect.Type) string {
	switch x := reflect.Zero(t).Interface().(type) {
	case enumerated:
		var words []string
		for _, v := range x.Values() {
			words = append(words, "`"+v+"`")
		}
		return strings.Join(words, ", ")
	case scalar:
		return cell(x.describe())
	case strictyaml.Duration:
		return "period"
	case strictyaml.Size:
		return "size"
	case bool:
		return "`true`, `false`"
	case int:
		return "whole number"
	case nil:
		return "any"
	}
	return "text"
}

// treatment says what this version does with a field, and with which values
// it deals otherwise.
func (row Row) treatment() string {
	var parts []string
	switch {
	case len(row.Fixed) > 0:
		parts = append(parts, fmt.Sprintf("honoured when it says `%s`: %s; anything else is refused by apply", strings.Join(row.Fixed, "`, `"), row.Why))
	case row.Partly:
		parts = append(parts, "honoured, partly enforced: "+row.Why)
	case row.Status == Honoured && row.Why != "":
		parts = append(parts, "honoured: "+row.Why)
	case row.Status == Honoured:
		parts = append(parts, "honoured")
	default:
		parts = append(parts, "not yet enforced: "+row.Why)
	}
	for _, r := range row.Rulings {
		switch {
		case r.Status == SelectsBuiltin && r.Pending:
			parts = append(parts, fmt.Sprintf("`%s` selects %s, which is still to come", r.Value, r.Why))
		case r.Status == SelectsBuiltin:
			parts = append(parts, fmt.Sprintf("`%s` selects the built-in: %s", r.Value, r.Why))
		case r.Status == Refused:
			parts = append(parts, fmt.Sprintf("`%s` is refused by apply: %s", r.Value, r.Why))
		default:
			parts = append(parts, fmt.Sprintf("`%s` is honoured: %s", r.Value, r.Why))
		}
	}
	return strings.Join(parts, ". ")
}
