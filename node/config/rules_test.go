package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"fednode/store/strictyaml"
)

// edit changes the first occurrence of a text in the example of a kind.
func edit(t *testing.T, k Kind, old, new string) (example, int) {
	t.Helper()
	e := one(t, k)
	at := strings.Index(string(e.data), old)
	if at < 0 {
		t.Fatalf("%s has no %q", e.name, old)
	}
	e.data = []byte(strings.Replace(string(e.data), old, new, 1))
	return e, 1 + strings.Count(string(e.data[:at]), "\n")
}

func TestFieldsAreComparedWithEachOther(t *testing.T) {
	for _, c := range []struct {
		kind       Kind
		old, new   string
		path, text string
		suggestion string
	}{
		{KindAudit, "category: authorization", "category: authentication", "audit.events[1].category", "there already, in line", ""},
		{KindAudit, "include_fields: [timestamp, policy_id, action", "include_fields: [timestamp, purpose, action", "audit.events[3].include_fields[1]", "have no purpose", ""},
		{KindAudit, "[timestamp, user_id, data_category", "[user_id, data_category", "audit.events[2].include_fields", "add timestamp", "timestamp"},
		{KindAudit, "[timestamp, user_id, data_category", "[timestamp, user_id, user_id, data_category", "audit.events[2].include_fields[2]", "there already", ""},
		{KindAudit, "name: yearly-review", "name: weekly-access", "audit.reporting.scheduled_reports[1].name", "there already", ""},
		{KindAudit, "board@city-registry.example", "board", "audit.reporting.scheduled_reports[1].recipients[0]", "e-mail", ""},
		{KindDeployment, "id: city-registry", "id: harbour-lab", "federation.partners[1].id", "there already", ""},
		{KindDeployment, "- id: harbour-lab", "- id: north-clinic", "federation.partners[0].id", "the others", ""},
		{KindDeployment, "source: [harbour-lab", "source: [harbor-lab", "networking.firewall.inbound_rules[0].source[0]", "neither", "harbour-lab"},
		{KindDeployment, "198.51.100.0/24", "198.51.100.9/24", "networking.firewall.inbound_rules[1].source[0]", "198.51.100.0/24", ""},
		{KindDeployment, "port: 51820\n        protocol: udp\n        source: [198.51.100.0/24]", "port: 443\n        protocol: tcp\n        source: [harbour-lab]", "networking.firewall.inbound_rules[1].source[0]", "443/tcp", ""},
		{KindDeployment, "port: 51820", "port: 70000", "networking.firewall.inbound_rules[1].port", "1 to 65535", ""},
		{KindDeployment, "environment: hybrid", "environment: cloud", "deployment.environment", "on_premises_components", "hybrid"},
		{KindDeployment, "environment: hybrid", "environment: on-premises", "deployment.environment", "cloud_components", "hybrid"},
		{KindDeployment, "- name: spare", "- name: main", "networking.vpn.endpoints[1].name", "there already", ""},
		{KindDeployment, "https://fed.harbour-lab", "http://fed.harbour-lab", "federation.partners[0].endpoint", "https", ""},
		{KindDeployment, "domain: north-clinic.example", "domain: north-clinic", "organization.domain", "not a domain", ""},
		{KindIAM, "organization: harbour-lab", "organization: north-clinic", "identity_providers[1].organization", "there already", ""},
		{KindIAM, "realms/lab\n", "realms/lab?x=1\n", "identity_providers[1].issuer", "no query", ""},
		{KindIAM, "type: mtls", "type: jwt", "authentication.methods[1].type", "there already", ""},
		{KindIAM, "- type: mtls\n      required: true", "- type: mtls\n      required: true\n      lifetime: 60", "authentication.methods[1].lifetime", "only jwt", ""},
		{KindIAM, "lifetime: 900", "rotation_days: 9", "authentication.methods[0].rotation_days", "only api-key", ""},
		{KindIAM, "default_policy: deny-all", "default_policy: allow-all", "authorization.default_policy", "write deny-all", ""},
		{KindIncident, "type: node_takeover", "type: record_leak", "incident_types[1].type", "there already", ""},
		{KindIncident, "phase: eradication", "phase: containment", "response_procedures[2].phase", "there already", ""},
		{KindIncident, "phase: eradication", "phase: detection", "response_procedures[2].phase", "in their order", ""},
		{KindIncident, "Within 2 days of detection", "in two days", "communication.regulatory.timeframe", "Within 72 hours", ""},
		{KindLearning, "min_participants: 2", "min_participants: 7", "aggregation.min_participants", "above max_participants", ""},
		{KindLearning, "min_participants: 2", "min_participants: 3", "aggregation.min_participants", "names 2", ""},
		{KindLearning, "min_participants: 2", "min_participants: 1", "aggregation.min_participants", "secure sum", ""},
		{KindLearning, "max_participants: 6", "max_participants: 1", "aggregation.max_participants", "names 2", ""},
		{KindLearning, "dropout_tolerance: 0.25", "dropout_tolerance: 1.5", "aggregation.dropout_tolerance", "0 to 1", ""},
		{KindLearning, "dropout_tolerance: 0.25", "dropout_tolerance: .nan", "aggregation.dropout_tolerance", "", ""},
		{KindLearning, "dropout_tolerance: 0.25", "dropout_tolerance: 1", "aggregation.dropout_tolerance", "drop out", ""},
		{KindLearning, "microbatches: 8", "microbatches: 7", "privacy.microbatches", "evenly", ""},
		{KindLearning, "  l2_norm_clip: 1.5\n", "", "privacy", "bounds nothing", "l2_norm_clip"},
		{KindLearning, "id: harbour-lab", "id: north-clinic", "participants[1].id", "there already", ""},
		{KindLearning, "min_samples: 300", "min_samples: 10", "participants[1].min_samples", "one batch", ""},
		{KindLearning, `"type": "lstm", "units": 24`, `"type": "lstm", "units": 24, "activation": "relu"`, "model.architecture.layers[1].activation", "no activation", ""},
		{KindLearning, `{"type": "lstm", "units": 24},`, ``, "model.architecture.layers[1].type", "lstm between", ""},
		{KindLearning, `{"type": "embedding", "vocab_size": 4000, "embedding_dim": 32},`, ``, "", "", ""},
		{KindLearning, `"units": 16, "activation": "tanh"`, `"units": 16, "activation": "softmax"`, "model.architecture.layers[2].activation", "last layer", ""},
		{KindLearning, `"type": "dense", "units": 16, "activation": "tanh"`, `"type": "lstm", "units": 16`, "model.architecture.layers[2].type", "reads a sequence", ""},
		{KindLearning, `"type": "dense", "units": 16, "activation": "tanh"`, `"type": "embedding", "vocab_size": 9, "embedding_dim": 2`, "model.architecture.layers[2].type", "first layer", ""},
		{KindLearning, `"vocab_size": 4000, `, ``, "model.architecture.layers[0]", "needs vocab_size", "vocab_size"},
		{KindLearning, `"units": 4, "activation": "softmax"`, `"units": 4, "activation": "relu"`, "model.architecture.layers[3]", "categorical_crossentropy", "softmax"},
		{KindLearning, `"vocab_size": 4000`, `"vocab_size": 900000000`, "model.architecture.layers", "limit", ""},
		{KindMonitoring, "timeout: 5", "timeout: 50", "monitoring.federation_health.timeout", "longer than", ""},
		{KindMonitoring, "organization: harbour-lab", "organization: north-clinic", "monitoring.federation_health.endpoints[1].organization", "there already", ""},
		{KindMonitoring, "name: policy_violations", "name: data_transfer_volume", "monitoring.policy_compliance.metrics[0].name", "there already", ""},
		{KindMonitoring, "federation_health_status != 'healthy'", "federation_health_statis != 'healthy'", "alerting.rules[0].condition", "unknown name", "federation_health_status"},
		{KindMonitoring, "federation_health_status != 'healthy'", "federation_health_status", "alerting.rules[0].condition", "bool", ""},
		{KindMonitoring, "federation_health_status != 'healthy'", "federation_health_status > 3", "alerting.rules[0].condition", "doesn't compile", ""},
		{KindMonitoring, "federation_health_status != 'healthy'", "len(federation_health_status) > 3", "alerting.rules[0].condition", "doesn't compile", ""},
		{KindMonitoring, "notify: [everyone]", "notify: [everybody]", "alerting.rules[0].notify[0]", "alerting.endpoints", "everyone"},
		{KindMonitoring, "name: harbour-lab-pager", "name: harbour-labs-pager", "alerting.rules[1].notify[1]", "harbour-lab-pager", "harbour-labs-pager"},
		{KindMonitoring, `"${organization}-pager"`, `"${org}-pager"`, "alerting.rules[1].notify[1]", "only variable", ""},
		{KindSecurity, "renewal_threshold: 20d", "renewal_threshold: 180d", "certificate_management.renewal_threshold", "validity_period", ""},
		{KindSecurity, "key_size: 256", "key_size: 2048", "certificate_management.key_size", "256, 384 or 521", ""},
		{KindSecurity, "recovery_threshold: 2", "recovery_threshold: 5", "key_management.recovery_threshold", "above recovery_shares", ""},
		{KindSecurity, "recovery_threshold: 2", "recovery_threshold: 1", "key_management.recovery_threshold", "single share", ""},
		{KindSecurity, "  recovery_shares: 4\n", "", "key_management", "needs recovery_shares", "recovery_shares"},
		{KindSecurity, "technology: intel-sgx\n", "attestation: enabled\n", "", "", ""},
		{KindSecurity, "critical: 12h", "critical: 30d", "vulnerability_management.remediation_sla.critical", "more than", ""},
		{KindSecurity, "- TLS_AES_256_GCM_SHA384", "- TLS_CHACHA20_POLY1305_SHA256", "communication.cipher_suites[1]", "there already", ""},
		{KindStorage, "organization: harbour-lab", "organization: north-clinic", "storage_nodes[1].organization", "there already", ""},
		{KindStorage, "[patient-data, visit-data]", "[patient-data, patient-data]", "storage_nodes[0].data_categories[1]", "there already", ""},
		{KindStorage, "patient-data: 10y", "patients-data: 10y", "compliance.data_retention.override_by_category.patients-data", "no storage node", "patient-data"},
		{KindStorage, "    default_period: 180d\n", "", "compliance.data_retention", "default_period", "default_period"},
		{KindStorage, "    propagation_time: 12h\n", "", "compliance.right_to_be_forgotten", "propagation_time", "propagation_time"},
		{KindComputation, "threshold: 2", "threshold: 4", "security.key_management.threshold", "above participants", ""},
		{KindComputation, "supported_operations: [addition]", "supported_operations: [comparison]", "computation_types[1].supported_operations[0]", "can't compare", ""},
		{KindComputation, "libraries: [seal]", "libraries: [mp-spdz]", "computation_types[1].libraries[0]", "engine for mpc", ""},
		{KindComputation, "protocol: spdz", "scheme: bfv", "computation_types[0]", "needs protocol", "protocol"},
		{KindComputation, "type: homomorphic", "type: mpc", "computation_types[1].type", "there already", ""},
		{KindComputation, "    proofs: [input-validity]\n", "", "security.computation_verification", "proofs", "proofs"},
		{KindWorkflow, "role: processor", "role: initiator", "participants[1].role", "initiator already", ""},
		{KindWorkflow, "role: initiator", "role: observer", "participants", "exactly one", ""},
		{KindWorkflow, "next: measure", "next: measures", "workflow.steps[0].next", "no step", "measure"},
		{KindWorkflow, "next: null", "next: measure", "workflow.steps[2].next", "there already", ""},
		{KindWorkflow, "next: null", "next: take-in", "workflow.steps", "circle", ""},
		{KindWorkflow, "next: measure", "next: null", "workflow.steps[1].id", "one chain", ""},
		{KindWorkflow, "next: look-over", "next: measure", "workflow.steps[1].next", "there already", ""},
		{KindWorkflow, "organization: harbour-lab", "organization: harbour-lap", "workflow.steps[1].organization", "no participant", "harbour-lab"},
		{KindWorkflow, "to: city-registry", "to: harbour-lab", "governance.data_sharing[1].to", "both harbour-lab", ""},
		{KindPolicy, "data_category: visit-data", "data_category: visits-data", "rules[1].data_category", "no data category", "visit-data"},
		{KindPolicy, `prohibited_purposes: ["marketing"]`, `prohibited_purposes: ["treatment"]`, "rules[0].prohibited_purposes[0]", "allowed and prohibited", ""},
		{KindPolicy, "2031-02-01", "2026-01-01", "expiration_date", "before it begins", ""},
		{KindPolicy, "2031-02-01", "2031-02-31", "expiration_date", "not a date", ""},
		{KindPolicy, "name: visits", "name: patients", "rules[1].name", "there already", ""},
		{KindMessage, `"instance_id": "bench-3"`, `"instance_id": "bench 3"`, "recipient.instance_id", "", ""},
	} {
		e, _ := edit(t, c.kind, c.old, c.new)
		_, err := Check(e.name, e.data, bare())
		if c.path == "" && c.text == "" {
			continue // only must not panic
		}
		found := false
		for _, single := range flatten(err) {
			var p *strictyaml.Error
			if errors.As(single, &p) && p.Path == c.path && strings.Contains(p.Error(), c.text) && (c.suggestion == "" || p.Suggestion == c.suggestion) {
				found = true
				if p.Line < 2 && c.kind != KindMessage {
					t.Errorf("%s: no position: %v", c.kind, p)
				}
			}
		}
		if !found {
			t.Errorf("%s: %q for %q: want %s: …%s… (%s), got %v", c.kind, c.new, c.old, c.path, c.text, c.suggestion, err)
		}
	}
}

// codeOf returns the finding about a field.
func codeOf(t *testing.T, r *Report, path string) Code {
	t.Helper()
	c := codes(r, path)
	if len(c) == 0 {
		return ""
	}
	return c[0]
}

func TestFieldsAreRuledAsTheyAre(t *testing.T) {
	for _, c := range []struct {
		kind     Kind
		old, new string
		path     string
		want     Code
	}{
		{KindAudit, "", "", "audit.storage.implementation", CodeSelectsBuiltin},
		{KindAudit, "hyperledger-fabric", "builtin", "audit.storage.implementation", ""},
		{KindAudit, "", "", "audit.storage.retention_period", CodeNotEnforced},
		{KindAudit, "", "", "audit.events[].include_fields[]", ""},
		{KindAudit, "", "", "audit.events[].category", ""},
		{KindDeployment, "", "", "networking.vpn.type", CodeRefused},
		{KindDeployment, "type: ipsec", "type: wireguard", "networking.vpn.type", CodeNotEnforced},
		{KindDeployment, "enabled: true", "enabled: false", "networking.vpn.type", ""},
		{KindDeployment, "enabled: true", "enabled: false", "networking.vpn.enabled", ""},
		{KindIAM, "", "", "authorization.policy_engine", CodeRefused},
		{KindIAM, "open-policy-agent", "builtin", "authorization.policy_engine", ""},
		{KindIAM, "", "", "authorization.default_policy", ""},
		{KindLearning, "", "", "model.format", CodeBuiltinMissing},
		{KindLearning, "differential_privacy: true", "differential_privacy: false", "privacy.noise_multiplier", ""},
		{KindLearning, "", "", "privacy.noise_multiplier", CodeNotEnforced},
		{KindSecurity, "", "", "communication.protocol", ""},
		{KindSecurity, "", "", "communication.cipher_suites[]", ""},
		{KindSecurity, "mtls-1.3", "mtls-1.2", "communication.protocol", CodeRefused},
		{KindSecurity, "    - TLS_AES_256_GCM_SHA384\n", "", "communication.cipher_suites[0]", CodeRefused},
		{KindSecurity, "- TLS_AES_256_GCM_SHA384", "- TLS_AES_128_GCM_SHA256", "communication.cipher_suites[]", CodeRefused},
		{KindSecurity, "", "", "key_management.storage", CodeRefused},
		{KindSecurity, "", "", "secure_enclaves.technology", CodeRefused},
		{KindSecurity, "enabled: true", "enabled: false", "secure_enclaves.technology", ""},
		{KindSecurity, "", "", "intrusion_detection.anomaly_detection", ""}, // disabled
		{KindSecurity, "", "", "intrusion_detection.network_monitoring", CodeNotEnforced},
		{KindStorage, "", "", "encryption.data_in_use", ""}, // false
		{KindStorage, "", "", "encryption.data_at_rest", CodeNotEnforced},
		{KindWorkflow, "", "", "governance.audit.retention_period", CodePartly},
		{KindWorkflow, "", "", "participants[0]", CodeNotCompared},
		{KindWorkflow, "", "", "workflow.steps[].agent", ""},
		{KindPolicy, "", "", "enforcement.audit_frequency", CodeNotEnforced},
		{KindPolicy, "", "", "rules[].retention_period", ""},
		{KindComputation, "", "", "computation_types[0].libraries[0]", CodeBuiltinMissing},
		{KindComputation, "", "", "computation_types[2].framework", CodeBuiltinMissing},
		{KindMessage, "", "", "signature", CodeUnsigned},
	} {
		e := one(t, c.kind)
		if c.old != "" {
			e, _ = edit(t, c.kind, c.old, c.new)
		}
		r, err := Check(e.name, e.data, bare())
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		if got := codeOf(t, r, c.path); got != c.want {
			t.Errorf("%s with %q: %s is %q, want %q", c.kind, c.new, c.path, got, c.want)
		}
	}
}

func TestAPolicyOutOfItsTermIsSaidSo(t *testing.T) {
	for _, c := range []struct {
		old, new, path string
		code           Code
		text           string
	}{
		{"2031-02-01", "2026-06-01", "expiration_date", CodeExpired, "2026-06-01"}, // the first instant of the day is the end
		{"2026-02-01", "2026-06-02", "effective_date", CodeNotYet, "2026-06-02"},
		{"2031-02-01", "2026-06-02", "expiration_date", "", ""},
	} {
		e, _ := edit(t, KindPolicy, c.old, c.new)
		r, err := Check(e.name, e.data, bare())
		if err != nil {
			t.Fatal(err)
		}
		if got := codeOf(t, r, c.path); got != c.code {
			t.Errorf("%s: %q, want %q", c.new, got, c.code)
		}
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == c.code && strings.Contains(f.Text, c.text) }) && c.code != "" {
			t.Errorf("%s: %v", c.new, r.Findings)
		}
	}
}

func TestAppliableNamesWhatIsNotHonoured(t *testing.T) {
	e := one(t, KindSecurity)
	r, err := Check(e.name, e.data, bare())
	if err != nil {
		t.Fatal(err)
	}
	err = r.Appliable()
	if !errors.Is(err, ErrNotAppliable) {
		t.Fatalf("%v", err)
	}
	for _, word := range []string{"hardware-security-module", "intel-sgx", "key_management.rotation_period", "federated-security"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the refusal doesn't name %s: %v", word, err)
		}
	}
	for _, word := range []string{"communication.protocol", "anomaly_detection"} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("the refusal names %s, which is honoured", word)
		}
	}

	const applied = `communication:
  protocol: mtls-1.3
  cipher_suites: [TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256]
  certificate_verification: strict
  certificate_transparency: disabled
key_management:
  storage: file
  backup: disabled
secure_enclaves:
  enabled: false
  technology: intel-sgx
`
	if r, err = Check("s.yaml", []byte(applied), bare()); err != nil {
		t.Fatal(err)
	}
	if err := r.Appliable(); err != nil || len(r.Findings) != 0 {
		t.Errorf("a file that asks for what the node does is refused: %v %v", err, r.Findings)
	}
}

func TestTheExampleWorkflowIsAppliable(t *testing.T) {
	e := one(t, KindWorkflow)
	r, err := Check(e.name, e.data, bare())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Appliable(); err != nil {
		t.Error(err)
	}
}

func TestFindingsComeInTheOrderOfTheFile(t *testing.T) {
	for _, e := range examples(t) {
		r, err := Check(e.name, e.data, bare())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(r.Findings, func(a, b Finding) int { return a.Line - b.Line }) {
			t.Errorf("%s: %v", e.name, r.Findings)
		}
	}
}

func TestRelativePathsBeginInTheFolderOfTheFile(t *testing.T) {
	e, _ := edit(t, KindDeployment, "/etc/fednode/pki/harbour-lab.crt", "pki/harbour-lab.crt")
	env := bare()
	env.FS = fstest.MapFS{"pki/harbour-lab.crt": {Data: []byte("x"), Mode: 0o644}}
	for _, env := range []Env{env, {Now: noon, Root: fstest.MapFS{}}} {
		name := e.name
		if env.FS == nil {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "pki"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "pki", "harbour-lab.crt"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			name = filepath.Join(dir, name)
		}
		r, err := Check(name, e.data, env)
		if err != nil {
			t.Fatal(err)
		}
		if got := codes(r, "federation.partners[0].certificate"); !slices.Contains(got, CodeBadFile) {
			t.Errorf("%v", got)
		}
	}
}

func TestCredentialsInAnAddressAreNotRepeated(t *testing.T) {
	e, _ := edit(t, KindDeployment, "https://fed.harbour-lab.example", "https://user:hunter2@fed.harbour-lab.example")
	r, err := Check(e.name, e.data, bare())
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	for _, f := range r.Findings {
		if strings.Contains(f.String(), "hunter2") {
			t.Error(f)
		}
	}
}

func TestShapesOfAModel(t *testing.T) {
	l, err := Parse[Learning]("l.yaml", one(t, KindLearning).data)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{}
	got := checkLayers(c, "layers", l.Model.Architecture.Layers)
	want := []Shape{
		{Sequence: true, Width: 32, Parameters: 4000 * 32},
		{Width: 24, Parameters: 4 * 24 * (32 + 24 + 1)},
		{Width: 16, Parameters: 16 * (24 + 1)},
		{Width: 4, Parameters: 4 * (16 + 1)},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzCheck(f *testing.F) {
	for _, e := range examples(f) {
		f.Add(e.data)
	}
	for _, s := range []string{"", "a: &a [*a]\n", "audit: *x\n", "audit: {events: [1, [2]]}\n", "\xff\xfe", "audit:\n  events:\n  - <<: {category: authentication}\n", "---\n---\n", "storage_nodes: []\ncompliance: {data_retention: {override_by_category: {? [a] : b}}}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Check("fuzz.yaml", data, bare())
		if r == nil {
			t.Fatal("no report")
		}
		if err != nil != r.Failed() {
			t.Fatalf("error %v, report %+v", err, r)
		}
		for _, finding := range r.Findings {
			if finding.Line < 1 || finding.Col < 1 || finding.Text == "" {
				t.Fatalf("%+v", finding)
			}
		}
		if err == nil {
			again, err := Check("fuzz.yaml", data, bare())
			if err != nil || len(again.Findings) != len(r.Findings) {
				t.Fatalf("a second check differs: %v", err)
			}
		}
	})
}
