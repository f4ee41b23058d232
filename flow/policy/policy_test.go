package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var today = time.Date(2026, 3, 14, 10, 0, 0, 0, time.UTC)

// agreement is between three organisations: bank gives documents to lab, which gives classifications to audit.
func agreement() *Agreement {
	return &Agreement{Hash: strings.Repeat("ab", 32), Name: "claims", Version: "1.0.0", Initiator: "bank", Participants: []string{"bank", "lab", "audit"}, InForce: true,
		Sharing: []Sharing{
			{From: "bank", To: "lab", DataTypes: []string{"document"}, Restrictions: []string{"no-storage", "no-extraction"}},
			{From: "bank", To: "lab", DataTypes: []string{"document", "index"}, Restrictions: []string{"no-storage"}},
			{From: "lab", To: "audit", DataTypes: []string{"classification"}},
		},
		Steps: []Step{{"classify", "lab", "classifier", "claims"}, {"review", "audit", "reviewer", "claims"}}}
}

func local(t testing.TB, rules string) *LocalPolicy {
	t.Helper()
	p, err := ParseLocal("policy.yaml", []byte("version: 1\ndefault: deny\nrules:\n"+rules))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rule writes one local rule.
func rule(name, effect, when string) string {
	return fmt.Sprintf("  - {name: %s, effect: %s, when: '%s'}\n", name, effect, strings.ReplaceAll(when, "'", "''"))
}

func engine(t testing.TB, s Sources) *Engine {
	t.Helper()
	if s.Now == nil {
		s.Now = func() time.Time { return today }
	}
	e, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// decided fails unless the decision has the effect and a reason that holds the words.
func decided(t *testing.T, what string, d Decision, effect Effect, words string) {
	t.Helper()
	if d.Effect != effect || !strings.Contains(d.String(), words) {
		t.Errorf("%s: %s; want %s for %q", what, d, effect, words)
	}
	if len(d.Reasons) == 0 {
		t.Errorf("%s: decided without a reason", what)
	}
	if effect == Deny && len(d.Obligations) != 0 {
		t.Errorf("%s: obligations on a denial: %v", what, d.Obligations)
	}
}

func share(from, to string, categories ...string) Request {
	return Request{Subject: from, Action: ActionShare, Categories: categories, Purpose: "claims", Recipient: to, Agreement: agreement()}
}

func TestNothingIsAllowedThatNoRuleAllows(t *testing.T) {
	e := engine(t, Sources{})
	for _, action := range Actions() {
		decided(t, action, e.Decide(Request{Subject: "bank", Action: action}), Deny, "default deny")
	}
	decided(t, "an unknown action", e.Decide(Request{Action: "artifact.shar"}), Deny, `"artifact.shar" is not one of`)
	decided(t, "no action", e.Decide(Request{}), Deny, "is not one of")
}

func TestAnUnknownActionIsDeniedWhateverTheRulesSay(t *testing.T) {
	e := engine(t, Sources{Local: local(t, rule("all", "allow", "true"))})
	decided(t, "unknown", e.Decide(Request{Action: "federation.delete"}), Deny, "is not one of")
	decided(t, "known", e.Decide(Request{Action: ActionStart}), Allow, "its condition holds")
}

func TestAnAgreementAllowsWhatItsParticipantsSigned(t *testing.T) {
	e := engine(t, Sources{})
	execute := func(subject, recipient, agent string) Request {
		return Request{Subject: subject, Action: ActionExecute, Recipient: recipient, Resource: agent, Agreement: agreement()}
	}
	for _, c := range []struct {
		what   string
		r      Request
		effect Effect
		words  string
	}{
		{"a ruled type", share("bank", "lab", "document"), Allow, "bank → lab: document allow (a data_sharing rule lets it pass)"},
		{"the other way", share("lab", "bank", "document"), Deny, "lab → bank: document deny (no data_sharing rule)"},
		{"another type", share("bank", "lab", "classification"), Deny, "no data_sharing rule"},
		{"another recipient", share("bank", "audit", "document"), Deny, "no data_sharing rule"},
		{"one ruled, one not", share("bank", "lab", "document", "photograph"), Deny, "bank → lab: photograph deny"},
		{"no type named", share("bank", "lab"), Deny, "no data type named"},
		{"its step", execute("bank", "lab", "classifier"), Allow, "gives lab this step"},
		{"another's step", execute("bank", "audit", "classifier"), Deny, "gives audit no step with agent classifier"},
		{"another agent", execute("bank", "lab", "reviewer"), Deny, "gives lab no step with agent reviewer"},
		{"asked for by another", execute("audit", "lab", "classifier"), Deny, "asked for by its initiator, bank"},
		{"started by its initiator", Request{Subject: "bank", Action: ActionStart, Agreement: agreement()}, Allow, "the initiator starts runs"},
		{"started by another", Request{Subject: "lab", Action: ActionStart, Agreement: agreement()}, Deny, "started by its initiator, bank"},
		{"signing is not the agreement's to allow", Request{Subject: "bank", Action: ActionAccept, Agreement: agreement()}, Deny, "default deny"},
		{"calling a service is not either", Request{Subject: "lab", Action: ActionCallOut, Agreement: agreement()}, Deny, "default deny"},
	} {
		decided(t, c.what, e.Decide(c.r), c.effect, c.words)
	}
}

func TestAnAgreementThatIsOverDeniesEverything(t *testing.T) {
	everything := local(t, rule("everything", "allow", "true"))
	for _, c := range []struct {
		what   string
		change func(*Agreement)
		words  string
	}{
		{"withdrawn", func(a *Agreement) { a.Withdrawn = true }, "withdrawn"},
		{"not signed by all", func(a *Agreement) { a.InForce = false }, "not everybody has signed"},
		{"expired", func(a *Agreement) { a.Expires = today.Add(-time.Second) }, "expired on 2026-03-14"},
	} {
		for _, r := range []Request{share("bank", "lab", "document"), {Subject: "bank", Action: ActionStart}, {Subject: "bank", Action: ActionExecute, Recipient: "lab", Resource: "classifier"}} {
			r.Agreement = agreement()
			c.change(r.Agreement)
			decided(t, c.what+", "+r.Action, engine(t, Sources{Local: everything}).Decide(r), Deny, c.words)
		}
	}
	r := share("bank", "lab", "document")
	r.Agreement.Expires = today.Add(time.Second)
	decided(t, "a second before its end", engine(t, Sources{}).Decide(r), Allow, "")
}

func TestDenyOverridesInWhateverOrder(t *testing.T) {
	allow, deny := rule("a-allows", "allow", "true"), rule("z-denies", "deny", `subject == "bank"`)
	var answers []string
	for _, rules := range []string{allow + deny, deny + allow} {
		e := engine(t, Sources{Local: local(t, rules)})
		d := e.Decide(Request{Subject: "bank", Action: ActionStart})
		decided(t, rules, d, Deny, "z-denies deny")
		answers = append(answers, d.String())
		decided(t, "another subject", e.Decide(Request{Subject: "lab", Action: ActionStart}), Allow, "a-allows allow")
	}
	if answers[0] != answers[1] {
		t.Errorf("the order of rules changes the explanation:\n%s\n%s", answers[0], answers[1])
	}
	e := engine(t, Sources{Local: local(t, rule("not-to-lab", "deny", `action == "artifact.share" && recipient == "lab"`))})
	decided(t, "an agreement against a local rule", e.Decide(share("bank", "lab", "document")), Deny, "not-to-lab deny")
	decided(t, "the local rule elsewhere", e.Decide(share("lab", "audit", "classification")), Allow, "")
}

func TestObligationsComeFromWhatAllows(t *testing.T) {
	rules := "  - name: watched\n    effect: allow\n    when: recipient == \"lab\"\n    obligations: [no-extraction, 'retention_period:90d']\n" +
		"  - name: idle\n    effect: allow\n    when: recipient == \"audit\"\n    obligations: [no-storage]\n"
	e := engine(t, Sources{Local: local(t, rules)})
	d := e.Decide(share("bank", "lab", "document"))
	a := "agreement:" + agreement().Hash[:12]
	want := []Obligation{{"no-storage", "", a}, {"no-extraction", "", a}, {"no-extraction", "", localSource}, {"retention_period", "90d", localSource}}
	if d.Effect != Allow || !slices.Equal(d.Obligations, want) {
		t.Errorf("%s with %v; want %v", d.Effect, d.Obligations, want)
	}
	r := share("bank", "lab", "document", "photograph")
	if d := e.Decide(r); d.Effect != Deny || len(d.Obligations) != 0 {
		t.Errorf("denied, and yet %v", d.Obligations)
	}
}

func TestDecidingChangesNothing(t *testing.T) {
	e := engine(t, Sources{Local: local(t, rule("some", "allow", `any(categories, {# == "document"})`)+rule("broken", "deny", `context.level > 3`))})
	first := e.Decide(share("bank", "lab", "document")).String()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if again := e.Decide(share("bank", "lab", "document")).String(); again != first {
					t.Errorf("first %s, then %s", first, again)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestTheEpochNamesThePolicies(t *testing.T) {
	seen := map[string]string{}
	for what, s := range map[string]Sources{
		"nothing":              {},
		"a rule":               {Local: local(t, rule("a", "allow", "true"))},
		"another condition":    {Local: local(t, rule("a", "allow", "true || false"))},
		"another effect":       {Local: local(t, rule("a", "deny", "true"))},
		"a governance policy":  {Governance: []*GovernancePolicy{governance(t, "", "")}},
		"another recipient":    {Governance: []*GovernancePolicy{governance(t, `allowed_recipients: ["org-a", "org-b"]`, `allowed_recipients: ["org-a"]`)}},
		"another retention":    {Governance: []*GovernancePolicy{governance(t, "retention_period: 90d", "retention_period: 91d")}},
		"another end":          {Governance: []*GovernancePolicy{governance(t, "expiration_date: 2026-01-01", "expiration_date: 2027-01-01")}},
		"with a rule, as well": {Local: local(t, rule("a", "allow", "true")), Governance: []*GovernancePolicy{governance(t, "", "")}},
	} {
		epoch := engine(t, s).Decide(Request{Action: ActionStart}).Epoch
		if other, ok := seen[epoch]; ok || epoch == "" {
			t.Errorf("%q has epoch %q, as %q has", what, epoch, other)
		}
		seen[epoch] = what
	}
	again := engine(t, Sources{Local: local(t, rule("a", "allow", "true"))}).Decide(Request{}).Epoch
	if seen[again] != "a rule" {
		t.Errorf("the same policy has epoch %s, which was that of %q", again, seen[again])
	}
}

// BenchmarkDecide is one decision with its explanation: an agreement of three participants, a governance policy with terms
// for the data, and ten local rules, of which two concern the action. Target: ≤ 5 µs.
func BenchmarkDecide(b *testing.B) {
	var rules strings.Builder
	for i, action := range slices.Concat(Actions(), Actions()) {
		rules.WriteString(rule(fmt.Sprintf("r%d", i), "deny", fmt.Sprintf(`action == %q && subject == "stranger%d"`, action, i)))
	}
	terms := strings.NewReplacer("2026-01-01", "2027-01-01", "transaction-data", "document", "analytics", "claims", "org-c", "lab").Replace(reference(b))
	g, err := ParseGovernance("governance-policy.yaml", []byte(terms))
	if err != nil {
		b.Fatal(err)
	}
	e := engine(b, Sources{Local: local(b, rules.String()), Governance: []*GovernancePolicy{g}})
	r := share("bank", "lab", "document")
	b.ReportAllocs()
	for b.Loop() {
		if d := e.Decide(r); d.Effect != Allow || len(d.Reasons) != 2 {
			b.Fatal(d)
		}
	}
}
