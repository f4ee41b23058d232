package bench

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/open-policy-agent/opa/v1/rego"

	"fednode/flow/policy"
)

// The same question to every engine: eleven rules, of which ten deny strangers and one allows what is asked; default
// deny, deny overrides. Fednode and OPA also answer why; Casbin and CEL answer yes or no.
const strangers = 10

func condition(i int) (action, subject string) {
	actions := policy.Actions()
	return actions[i%len(actions)], fmt.Sprintf("stranger%d", i)
}

func BenchmarkPolicy(b *testing.B) {
	b.Run("fednode", func(b *testing.B) {
		var rules strings.Builder
		rules.WriteString("version: 1\ndefault: deny\nrules:\n")
		for i := range strangers {
			action, subject := condition(i)
			fmt.Fprintf(&rules, "  - {name: r%d, effect: deny, when: 'action == %q && subject == %q'}\n", i, action, subject)
		}
		fmt.Fprintf(&rules, "  - {name: share, effect: allow, when: 'action == %q && subject == \"bank\" && recipient == \"lab\"'}\n", policy.ActionShare)
		local, err := policy.ParseLocal("policy.yaml", []byte(rules.String()))
		if err != nil {
			b.Fatal(err)
		}
		e, err := policy.Compile(policy.Sources{Local: local})
		if err != nil {
			b.Fatal(err)
		}
		r := policy.Request{Subject: "bank", Action: policy.ActionShare, Recipient: "lab", Categories: []string{"document"}, Purpose: "claims"}
		b.ReportAllocs()
		for b.Loop() {
			if d := e.Decide(r); d.Effect != policy.Allow || len(d.Reasons) == 0 {
				b.Fatal(d)
			}
		}
	})
	b.Run("opa", func(b *testing.B) {
		var module strings.Builder
		module.WriteString("package p\n\ndefault allow := false\n\nallow if {\n\tcount(allowing) > 0\n\tcount(denying) == 0\n}\n\n")
		for i := range strangers {
			action, subject := condition(i)
			fmt.Fprintf(&module, "denying contains \"r%d\" if {\n\tinput.action == %q\n\tinput.subject == %q\n}\n\n", i, action, subject)
		}
		fmt.Fprintf(&module, "allowing contains \"share\" if {\n\tinput.action == %q\n\tinput.subject == \"bank\"\n\tinput.recipient == \"lab\"\n}\n", policy.ActionShare)
		q, err := rego.New(rego.Query("x := data.p"), rego.Module("p.rego", module.String())).PrepareForEval(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		in := map[string]any{"subject": "bank", "action": policy.ActionShare, "recipient": "lab", "categories": []string{"document"}, "purpose": "claims"}
		b.ReportAllocs()
		for b.Loop() {
			rs, err := q.Eval(context.Background(), rego.EvalInput(in))
			if err != nil || rs[0].Bindings["x"].(map[string]any)["allow"] != true {
				b.Fatal(rs, err)
			}
		}
	})
	b.Run("casbin", func(b *testing.B) {
		m, err := model.NewModelFromString("[request_definition]\nr = sub, act, to\n[policy_definition]\np = sub, act, to, eft\n" +
			"[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n" +
			"[matchers]\nm = r.sub == p.sub && r.act == p.act && (p.to == '*' || r.to == p.to)\n")
		if err != nil {
			b.Fatal(err)
		}
		e, err := casbin.NewEnforcer(m)
		if err != nil {
			b.Fatal(err)
		}
		for i := range strangers {
			action, subject := condition(i)
			if _, err := e.AddPolicy(subject, action, "*", "deny"); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := e.AddPolicy("bank", policy.ActionShare, "lab", "allow"); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := e.Enforce("bank", policy.ActionShare, "lab"); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("cel", func(b *testing.B) {
		env, err := cel.NewEnv(cel.Variable("action", cel.StringType), cel.Variable("subject", cel.StringType), cel.Variable("recipient", cel.StringType))
		if err != nil {
			b.Fatal(err)
		}
		compile := func(expr string) cel.Program {
			ast, issues := env.Compile(expr)
			if issues.Err() != nil {
				b.Fatal(issues.Err())
			}
			p, err := env.Program(ast)
			if err != nil {
				b.Fatal(err)
			}
			return p
		}
		var denying []cel.Program
		for i := range strangers {
			action, subject := condition(i)
			denying = append(denying, compile(fmt.Sprintf("action == %q && subject == %q", action, subject)))
		}
		allowing := compile(fmt.Sprintf(`action == %q && subject == "bank" && recipient == "lab"`, policy.ActionShare))
		in := map[string]any{"subject": "bank", "action": policy.ActionShare, "recipient": "lab"}
		b.ReportAllocs()
		for b.Loop() {
			v, _, err := allowing.Eval(in)
			if err != nil || v.Value() != true {
				b.Fatal(v, err)
			}
			for _, p := range denying {
				if v, _, err := p.Eval(in); err != nil || v.Value() != false {
					b.Fatal(v, err)
				}
			}
		}
	})
}
