package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestConditions(t *testing.T) {
	r := Request{Subject: "bank", Action: ActionShare, Resource: "document", Categories: []string{"document", "index"}, Purpose: "claims",
		Recipient: "lab", Jurisdiction: "DE", Agreement: agreement(), Context: map[string]any{"level": 3, "tags": []any{"x"}}}
	for when, holds := range map[string]bool{
		`action == "artifact.share"`:                                true,
		`subject == "bank" and recipient in agreement.participants`: true,
		`recipient in ["audit", "bank"]`:                            false,
		`"index" in categories && jurisdiction == "DE"`:             true,
		`all(categories, {# != "photograph"})`:                      true,
		`purpose startsWith "claim" && resource == "document"`:      true,
		`context.level >= 3 && "x" in context.tags`:                 true,
		`context.missing == nil`:                                    true,
		`agreement.in_force && agreement.name == "claims"`:          true,
		`agreement.initiator == subject`:                            true,
		`now.Year() == 2026 && now.Hour() < 12`:                     true,
		`subject matches "^ba"`:                                     true,
	} {
		e := engine(t, Sources{Local: local(t, rule("r", "deny", when))})
		d := e.Decide(r)
		if denied := d.Effect == Deny; denied != holds {
			t.Errorf("%s: holds %v, want %v (%s)", when, denied, holds, d)
		}
	}
}

func TestAConditionThatFailsDenies(t *testing.T) {
	for when, words := range map[string]string{
		`context.level > 3`:                "its condition failed",
		`[1, 2][len(categories)] == 1`:     "its condition failed: index out of range",
		`context.a.b.c == 1`:               "its condition failed",
		`int(purpose) > 3`:                 "its condition failed",
		`len(repeat("a", 1000000)) > 3`:    "its condition failed: memory budget exceeded",
		`len(map(1..1000000, {#})) > 3`:    "its condition failed: memory budget exceeded",
		`all(1..9000, {len(1..9000) > 0})`: "its condition failed: memory budget exceeded",
	} {
		for _, effect := range []string{"allow", "deny"} {
			e := engine(t, Sources{Local: local(t, rule("broken", effect, when)+rule("sound", "allow", "true"))})
			r := share("bank", "lab", "document", "index")
			d := e.Decide(r)
			decided(t, when, d, Deny, words)
			for _, reason := range d.Reasons {
				if strings.Contains(reason.Text, "\n") {
					t.Errorf("%s: a reason of several lines: %q", when, reason.Text)
				}
			}
			// What it used up must not be missing to rules and requests that come after it.
			if !strings.Contains(d.String(), "sound allow") {
				t.Errorf("%s: the rule after it was not evaluated: %s", when, d)
			}
		}
	}
}

func TestARuleForOneActionIsSilentAboutOthers(t *testing.T) {
	for _, when := range []string{`action == "run.start" && context.level > 3`, `context.level > 3 && action == "run.start"`, `action == "run.start"`} {
		e := engine(t, Sources{Local: local(t, rule("r", "deny", when))})
		decided(t, when, e.Decide(share("bank", "lab", "document")), Allow, "")
		if d := e.Decide(Request{Subject: "bank", Action: ActionStart, Agreement: agreement()}); d.Effect != Deny {
			t.Errorf("%s: %s", when, d)
		}
	}
	for _, when := range []string{`action == "run.start" || true`, `action != "run.start"`, `not (action == "run.start")`, `action in ["artifact.share"]`, `"artifact.share" == action`} {
		e := engine(t, Sources{Local: local(t, rule("r", "deny", when))})
		decided(t, when, e.Decide(share("bank", "lab", "document")), Deny, "r deny")
	}
}

func TestLocalRefusals(t *testing.T) {
	head := "version: 1\ndefault: deny\nrules:\n"
	many := head
	for i := range maxRules + 1 {
		many += rule(fmt.Sprintf("r%d", i), "deny", "true")
	}
	for what, c := range map[string]struct{ text, want string }{
		"empty":                     {"", "empty"},
		"another version":           {"version: 2\ndefault: deny\nrules: []\n", "version 2; this fednode knows 1"},
		"default allow":             {"version: 1\ndefault: allow\nrules: []\n", "default"},
		"no default":                {"version: 1\nrules: []\n", `"default" is missing`},
		"an unknown key":            {head + "  - {nam: x, effect: deny, when: 'true'}\n", `did you mean "name"?`},
		"an unknown effect":         {head + rule("x", "permit", "true"), "permit"},
		"no condition":              {head + "  - {name: x, effect: deny}\n", `"when" is missing`},
		"a name with a blank":       {head + rule("'a b'", "deny", "true"), `name "a b"`},
		"a name twice":              {head + rule("x", "deny", "true") + rule("x", "allow", "true"), "rules[1]"},
		"an action with a typo":     {head + rule("x", "deny", `action == "run.stat"`), `rules[0] x: when: action "run.stat" is not one of agreement.accept, run.start`},
		"an unknown name":           {head + rule("x", "deny", `sender == "bank"`), "unknown name sender"},
		"no condition but a value":  {head + rule("x", "deny", `subject`), "rules[0] x: when: expected bool"},
		"half an expression":        {head + rule("x", "deny", `subject ==`), "rules[0] x: when: unexpected token"},
		"types that never compare":  {head + rule("x", "deny", `subject == 3`), "rules[0] x: when: invalid operation"},
		"a function that isn't one": {head + rule("x", "deny", `env("HOME") != ""`), "unknown name env"},
		"too many nodes":            {head + rule("x", "deny", "true"+strings.Repeat(" && subject == recipient", maxNodes)), "rules[0] x: when:"},
		"too long":                  {head + rule("x", "deny", strings.Repeat("(", 400_000)+"true"+strings.Repeat(")", 400_000)), "800004 bytes; at most 8192"},
		"loops within loops":        {head + rule("x", "deny", `let a = 1..5000; all(a, {any(a, {none(a, {# > 1})})})`), "predicates stand within each other 3 deep; at most 2"},
		"too many rules":            {many, "1001 rules; at most 1000"},
	} {
		_, err := ParseLocal("policy.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "policy.yaml") {
			t.Errorf("%s: error %.300v; want one that names policy.yaml and %q", what, err, c.want)
		}
	}
}

// TestTheDefaultPolicyIsSoundWithItsExamples loads what a new node gets, as it comes and with its examples taken in.
func TestTheDefaultPolicyIsSoundWithItsExamples(t *testing.T) {
	text := string(DefaultYAML())
	p, err := ParseLocal("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	decided(t, "as it comes", engine(t, Sources{Local: p}).Decide(Request{Subject: "org-a", Action: ActionAccept}), Deny, "default deny")
	text, examples, ok := strings.Cut(strings.Replace(text, "rules: []", "rules:", 1), "# Examples:\n")
	if !ok {
		t.Fatal("no examples")
	}
	for line := range strings.Lines(examples) {
		line = strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
		text += "  " + line
	}
	p, err = ParseLocal("policy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	at := today
	e := engine(t, Sources{Local: p, Now: func() time.Time { return at }})
	decided(t, "a partner's proposal", e.Decide(Request{Subject: "org-a", Action: ActionAccept}), Allow, "sign what org-a proposes")
	decided(t, "a stranger's proposal", e.Decide(Request{Subject: "org-b", Action: ActionAccept}), Deny, "default deny")
	decided(t, "the model", e.Decide(Request{Subject: "org-a", Action: ActionCallOut, Resource: "contract-summary"}), Allow, "local-llm")
	execute := Request{Subject: "bank", Action: ActionExecute, Recipient: "lab", Resource: "classifier", Agreement: agreement()}
	decided(t, "by day", e.Decide(execute), Allow, "")
	at = time.Date(2026, 3, 14, 23, 0, 0, 0, time.UTC)
	decided(t, "by night", e.Decide(execute), Deny, "office-hours deny")
}

func FuzzCondition(f *testing.F) {
	for _, s := range []string{`true`, `action == "run.start" && subject == "bank"`, `any(categories, {# == "document"})`, `context.level > 3`, `now.Hour() < 6`,
		`agreement.in_force ? subject == "a" : false`, `len(filter(1..100, {# % 2 == 0})) > 3`, `subject matches "^b"`, `let a = categories; a[0] == "x"`,
		`reduce(categories, #acc + #, "") == ""`, `fromJSON("[1]")[0] == 1`, `duration("1h").Hours() > 0.5`, `not not (true)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, when string) {
		if !utf8.ValidString(when) {
			return // no YAML file holds it
		}
		r := &LocalRule{Name: "fuzzed", Effect: Allow, When: when}
		action, err := r.compile()
		if err != nil {
			return
		}
		p := &LocalPolicy{Version: 1, Default: "deny", Rules: []LocalRule{*r}, others: []*LocalRule{r}, byAction: map[string][]*LocalRule{}, machines: newMachines()}
		e := engine(t, Sources{Local: p})
		for _, a := range Actions() {
			q := share("bank", "lab", "document", "index")
			q.Agreement, q.Action = nil, a
			d := e.Decide(q)
			failed := strings.Contains(d.String(), "its condition failed")
			if failed && d.Effect != Deny {
				t.Fatalf("%q failed and allowed: %s", when, d)
			}
			// Rules are sorted by the action that they are certain to ask for: for any other they must not hold.
			if action != "" && a != action && d.Effect == Allow {
				t.Fatalf("%q was taken for a rule of %s, and allows %s", when, action, a)
			}
		}
	})
}
