package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func reference(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("FEDNODE_REFERENCE")
	if dir == "" {
		dir = "testdata"
	}
	b, err := os.ReadFile(filepath.Join(dir, "governance-policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// governance is the reference policy, which was in force in 2025, with old replaced by new.
func governance(t testing.TB, old, new string) *GovernancePolicy {
	t.Helper()
	text := reference(t)
	if old != new {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q to replace", old)
		}
		text = strings.Replace(text, old, new, 1)
	}
	g, err := ParseGovernance("governance-policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// inForce is the reference policy with a longer life.
func inForce(t testing.TB) *GovernancePolicy {
	return governance(t, "expiration_date: 2026-01-01", "expiration_date: 2027-01-01")
}

func TestGovernanceRestrictsAndNeverAllows(t *testing.T) {
	g := []*GovernancePolicy{inForce(t)}
	r := Request{Subject: "org-a", Action: ActionShare, Categories: []string{"transaction-data"}, Purpose: "analytics", Recipient: "org-c"}
	decided(t, "no rule beside it", engine(t, Sources{Governance: g}).Decide(r), Deny, "transaction-data-processing permit (within its terms); fednode  deny (no rule allows it (default deny))")
	d := engine(t, Sources{Governance: g, Local: local(t, rule("all", "allow", "true"))}).Decide(r)
	decided(t, "with a rule that allows", d, Allow, "transaction-data-processing permit")
	if len(d.Obligations) != 1 || d.Obligations[0] != (Obligation{"retention_period", "1y", "governance:gdpr-compliant-sharing"}) {
		t.Errorf("obligations %v", d.Obligations)
	}
}

func TestGovernanceTerms(t *testing.T) {
	e := engine(t, Sources{Governance: []*GovernancePolicy{inForce(t)}, Local: local(t, rule("all", "allow", "true"))})
	consented := map[string]any{"consent": true, "owner_jurisdiction": "DE"}
	for _, c := range []struct {
		what                      string
		category, purpose, to, at string
		context                   map[string]any
		effect                    Effect
		words                     string
	}{
		{"all terms met", "personal-data", "legal-obligation", "org-b", "DE", consented, Allow, "within its terms"},
		{"a prohibited purpose", "personal-data", "marketing", "org-b", "DE", consented, Deny, "purpose marketing is prohibited"},
		{"a purpose that is not listed", "personal-data", "curiosity", "org-b", "DE", consented, Deny, "purpose curiosity is not among the allowed"},
		{"no purpose", "personal-data", "", "org-b", "DE", consented, Deny, "purpose (none) is not among the allowed"},
		{"another recipient", "personal-data", "legal-obligation", "org-c", "DE", consented, Deny, "org-c is not among the allowed recipients"},
		{"no word of consent", "personal-data", "legal-obligation", "org-b", "DE", map[string]any{"owner_jurisdiction": "DE"}, Deny, "consent is required"},
		{"consent in other words", "personal-data", "legal-obligation", "org-b", "DE", map[string]any{"consent": "yes", "owner_jurisdiction": "DE"}, Deny, "consent is required"},
		{"consent refused", "personal-data", "legal-obligation", "org-b", "DE", map[string]any{"consent": false, "owner_jurisdiction": "DE"}, Deny, "consent is required"},
		{"over a border", "personal-data", "legal-obligation", "org-b", "US", consented, Deny, "cross-border transfer from DE to US is excluded"},
		{"to nobody knows where", "personal-data", "legal-obligation", "org-b", "", consented, Deny, "jurisdiction is unknown"},
		{"from nobody knows where", "personal-data", "legal-obligation", "org-b", "DE", map[string]any{"consent": true}, Deny, "jurisdiction is unknown"},
		{"within the organisation", "personal-data", "legal-obligation", "org-a", "", map[string]any{"consent": true}, Allow, "within its terms"},
		{"over a border where that may be", "transaction-data", "analytics", "org-c", "US", nil, Allow, "within its terms"},
		{"a category without terms", "weather", "curiosity", "org-z", "", nil, Allow, "all allow"},
	} {
		d := e.Decide(Request{Subject: "org-a", Action: ActionShare, Categories: []string{c.category}, Purpose: c.purpose, Recipient: c.to, Jurisdiction: c.at, Context: c.context})
		decided(t, c.what, d, c.effect, c.words)
	}
	both := Request{Subject: "org-a", Action: ActionShare, Categories: []string{"transaction-data", "personal-data"}, Purpose: "analytics", Recipient: "org-b"}
	decided(t, "one category in its terms, one not", e.Decide(both), Deny, "personal-data-processing deny (purpose analytics is not among the allowed)")
}

func TestGovernanceDates(t *testing.T) {
	everything := local(t, rule("all", "allow", "true"))
	r := Request{Subject: "org-a", Action: ActionShare, Categories: []string{"analytics-data"}, Purpose: "analytics", Recipient: "org-b"}
	for at, c := range map[string]struct {
		effect Effect
		words  string
	}{
		"2024-12-31T23:59:59Z": {Deny, "takes effect on 2025-01-01"},
		"2025-01-01T00:00:00Z": {Allow, "within its terms"},
		"2025-12-31T23:59:59Z": {Allow, "within its terms"},
		"2026-01-01T00:00:00Z": {Deny, "expired on 2026-01-01; put a renewed one into force with fednode apply"},
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		e := engine(t, Sources{Local: everything, Governance: []*GovernancePolicy{governance(t, "", "")}, Now: func() time.Time { return now }})
		decided(t, at, e.Decide(r), c.effect, c.words)
	}
}

func TestGovernanceRefusals(t *testing.T) {
	for _, c := range []struct{ what, old, new, want string }{
		{"an unknown key", "allowed_purposes", "allowed_purpose", `did you mean "allowed_purposes"?`},
		{"an unknown sensitivity", "sensitivity: high", "sensitivity: hihg", "hihg"},
		{"a date that is none", "effective_date: 2025-01-01", "effective_date: 1.1.2025", `effective_date "1.1.2025": write it as 2025-01-31`},
		{"no such day", "expiration_date: 2026-01-01", "expiration_date: 2026-02-30", "expiration_date"},
		{"its end before its beginning", "expiration_date: 2026-01-01", "expiration_date: 2024-01-01", "before it takes effect"},
		{"a rule for no category", "data_category: personal-data", "data_category: personal", `rules[0] personal-data-processing: data_category "personal" is not among data_categories`},
		{"a category twice", "name: analytics-data", "name: personal-data", "appears twice"},
		{"a purpose allowed and prohibited", `["marketing", "profiling"]`, `["marketing", "legal-obligation"]`, `purpose "legal-obligation" is both allowed and prohibited`},
		{"a retention in weeks", "retention_period: 90d", "retention_period: 12w", "12w"},
		{"no id", "policy_id: gdpr-compliant-sharing", "policy_id: ''", "policy_id"},
	} {
		text := strings.Replace(reference(t), c.old, c.new, 1)
		if text == reference(t) {
			t.Fatalf("%s: the case changes nothing", c.what)
		}
		_, err := ParseGovernance("gov.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "gov.yaml") {
			t.Errorf("%s: error %v; want one that names gov.yaml and %q", c.what, err, c.want)
		}
	}
	if _, err := Compile(Sources{Governance: []*GovernancePolicy{governance(t, "", ""), inForce(t)}}); err == nil || !strings.Contains(err.Error(), "gdpr-compliant-sharing") {
		t.Errorf("two policies of one name: %v", err)
	}
}

func FuzzGovernance(f *testing.F) {
	f.Add([]byte(reference(f)))
	everything, err := ParseLocal("policy.yaml", []byte("version: 1\ndefault: deny\nrules:\n  - {name: all, effect: allow, when: 'true'}\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseGovernance("f", b)
		if err != nil {
			return
		}
		e, err := Compile(Sources{Local: everything, Governance: []*GovernancePolicy{g}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range g.Rules {
			d := e.Decide(Request{Subject: "a", Action: ActionShare, Categories: []string{r.DataCategory}, Purpose: "p", Recipient: "b"})
			for _, reason := range d.Reasons {
				if reason.Effect == Allow && reason.Source != localSource {
					t.Fatalf("a governance policy allows: %s", d)
				}
			}
		}
	})
}
