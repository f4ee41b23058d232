package config

import (
	"fmt"
	"slices"
	"strings"
)

// rule says of every field of a file what this version does with it: one
// finding for each field that isn't simply honoured, at its first occurrence.
func (k kind) rule(c *checker) []Finding {
	byPattern := map[string][]leaf{}
	for _, l := range c.leaves {
		byPattern[l.pattern] = append(byPattern[l.pattern], l)
	}
	idle := k.idle(byPattern)
	var out []Finding
	for _, row := range k.rows {
		leaves := slices.DeleteFunc(byPattern[row.Path], func(l leaf) bool { return isIdle(idle, l.path) })
		if len(leaves) == 0 {
			continue
		}
		if len(row.Fixed) > 0 {
			out = append(out, row.ruleFixed(leaves)...)
			continue
		}
		for _, group := range row.group(leaves) {
			if f, ok := group.ruling.finding(row, group.leaves); ok {
				out = append(out, f)
			}
		}
	}
	return out
}

// idle lists the switched-off sections: what else they say needs no
// enforcement.
func (k kind) idle(byPattern map[string][]leaf) []leaf {
	var out []leaf
	for _, row := range k.rows {
		if !row.Switch {
			continue
		}
		for _, l := range byPattern[row.Path] {
			if l.value == "false" {
				out = append(out, l)
			}
		}
	}
	return out
}

func isIdle(idle []leaf, path string) bool {
	return slices.ContainsFunc(idle, func(l leaf) bool {
		section := l.path[:strings.LastIndexByte(l.path, '.')+1]
		return path != l.path && strings.HasPrefix(path, section)
	})
}

// ruled is a ruling and the leaves it applies to.
type ruled struct {
	ruling Ruling
	leaves []leaf
}

// group sorts leaves by the ruling that applies to them, in the order of their
// first occurrence.
func (row Row) group(leaves []leaf) []ruled {
	var out []ruled
	for _, l := range leaves {
		r := Ruling{Status: row.Status, Why: row.Why}
		if i := slices.IndexFunc(row.Rulings, func(r Ruling) bool { return r.Value == l.value }); i >= 0 {
			r = row.Rulings[i]
		}
		if i := slices.IndexFunc(out, func(g ruled) bool { return g.ruling == r }); i >= 0 {
			out[i].leaves = append(out[i].leaves, l)
			continue
		}
		out = append(out, ruled{ruling: r, leaves: []leaf{l}})
	}
	return out
}

// ruleFixed compares a field with what fednode does, whatever the order.
func (row Row) ruleFixed(leaves []leaf) []Finding {
	var said []string
	for _, l := range leaves {
		said = append(said, l.value)
	}
	if slices.Equal(slices.Sorted(slices.Values(said)), slices.Sorted(slices.Values(row.Fixed))) {
		return nil
	}
	f := found(row, leaves)
	f.Code = CodeRefused
	f.Text = fmt.Sprintf("the file says %s, but %s", strings.Join(said, ", "), row.Why)
	f.Mend = "write " + strings.Join(row.Fixed, ", ")
	return []Finding{f}
}

// found is a finding at the first of some leaves.
func found(row Row, leaves []leaf) Finding {
	first := leaves[0]
	f := Finding{Path: first.path, Line: first.node.Line, Col: first.node.Column, Severity: SeverityWarning}
	if len(leaves) > 1 {
		f.Path = row.Path
	}
	return f
}

const untilThen = "apply refuses the file until then"

// finding puts a ruling into words; honoured fields need none.
func (r Ruling) finding(row Row, leaves []leaf) (Finding, bool) {
	f := found(row, leaves)
	switch {
	case r.Status == Honoured && row.Partly && r.Value == "":
		f.Code, f.Text = CodePartly, "partly enforced: "+r.Why
	case r.Status == Honoured:
		return Finding{}, false
	case r.Status == SelectsBuiltin && r.Pending:
		f.Code = CodeBuiltinMissing
		f.Text = fmt.Sprintf("%s selects %s, which this version doesn't have yet", r.Value, r.Why)
		f.Mend = untilThen
	case r.Status == SelectsBuiltin:
		f.Code = CodeSelectsBuiltin
		f.Text = fmt.Sprintf("%s selects the built-in that does its work: %s", r.Value, r.Why)
	case r.Status == Refused:
		f.Code = CodeRefused
		f.Text = fmt.Sprintf("apply will refuse %s by name: %s", r.Value, r.Why)
	default:
		f.Code, f.Text, f.Mend = CodeNotEnforced, "not yet enforced: "+r.Why, untilThen
	}
	if n := len(leaves); n > 1 {
		f.Text += fmt.Sprintf(" (%d values in this file)", n)
	}
	return f, true
}
