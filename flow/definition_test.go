package flow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const example = `name: claims-review
version: 1.0.0
type: federated
participants:
  - {id: bank, role: initiator}
  - {id: lab, role: processor}
  - {id: audit, role: reviewer}
workflow:
  steps:
    - {id: upload, organization: bank, agent: document-uploader, next: classify}
    - {id: classify, organization: lab, agent: document-classifier, next: review, timeout: 20s}
    - {id: review, organization: audit, agent: document-reviewer, next: null}
governance:
  data_sharing:
    - {from: bank, to: lab, data_types: [document], restrictions: [no-storage, no-extraction]}
    - {from: lab, to: audit, data_types: [document, classification], restrictions: [no-storage]}
  audit: {level: detailed, storage_location: all-participants, retention_period: 90d}
`

func parse(t testing.TB, text string) *Definition {
	t.Helper()
	d, err := ParseDefinition("wf.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDefinitionHashIsOfItsMeaning(t *testing.T) {
	d := parse(t, example)
	h, err := d.Hash()
	if err != nil {
		t.Fatal(err)
	}
	reordered := strings.Replace(example, "version: 1.0.0\n", "", 1) + "version: \"1.0.0\"   # a comment\n"
	if h2, _ := parse(t, reordered).Hash(); h2 != h {
		t.Errorf("order, quoting and comments changed the hash: %s, %s", h, h2)
	}
	if h2, _ := parse(t, strings.Replace(example, "[no-storage]", "[]", 1)).Hash(); h2 == h {
		t.Error("dropping a restriction did not change the hash")
	}
	canonical, err := d.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	again, err := decodeDefinition(canonical)
	if err != nil {
		t.Fatal(err)
	}
	if h2, _ := again.Hash(); h2 != h {
		t.Errorf("hash after the wire: %s, want %s", h2, h)
	}
}

// TestDefinitionRefusals wants every refusal to name the file and where in it the fault is.
func TestDefinitionRefusals(t *testing.T) {
	long := strings.Repeat("x", 129)
	for _, c := range []struct{ name, old, new, want string }{
		{"two initiators", "role: processor", "role: initiator", "participants: exactly one must have role initiator, found 2"},
		{"no initiator", "role: initiator", "role: observer", "participants: exactly one must have role initiator, found 0"},
		{"unknown role", "role: processor", "role: procesor", `in participants[1].role; did you mean "processor"?`},
		{"a participant twice", "id: audit, role", "id: lab, role", "participants: lab appears twice"},
		{"unknown key", "next: classify", "nxt: classify", `unknown key "nxt" in workflow.steps[0]; did you mean "next"?`},
		{"no name", "name: claims-review", "name: ''", `name ""`},
		{"a name with blanks", "name: claims-review", "name: claims review", `name "claims review": use letters`},
		{"an endless name", "name: claims-review", "name: " + long, "at most 128"},
		{"a version with an escape", "version: 1.0.0", `version: "1.0.0\e[2J"`, "version \"1.0.0\\x1b[2J\": use letters"},
		{"other type", "type: federated", "type: local", `"local", want one of federated in type`},
		{"duplicate step", "id: review, organization", "id: classify, organization", "workflow.steps[2]: id classify appears twice"},
		{"a step's id with a slash", "id: review, organization", "id: re/view, organization", `workflow.steps[2]: id "re/view"`},
		{"an agent with a path", "agent: document-reviewer", "agent: ../bin/sh", `workflow.steps[2]: id "review" and agent "../bin/sh"`},
		{"stranger runs a step", "organization: lab", "organization: lap", "workflow.steps[1] classify: lap is not a participant"},
		{"stranger shares", "from: lab", "from: lap", "governance.data_sharing[1]: lap is not a participant"},
		{"next is no step", "next: classify", "next: clasify", `workflow.steps[0] upload: next "clasify" is no step`},
		{"circle", "next: null", "next: upload", "the steps form a circle"},
		{"a circle beside the chain", "next: classify", "next: null", "both upload and classify could be first"},
		{"two into one", "next: classify", "next: review", "workflow.steps[1] classify: two steps lead to review"},
		{"unknown restriction", "[no-storage]", "[no-copying]", `governance.data_sharing[1]: restriction "no-copying" is not known; use no-storage or no-extraction`},
		{"a data type with a blank", "[document, classification]", "['the document']", `governance.data_sharing[1]: data type "the document"`},
		{"an input's data type", "next: null", "next: null, inputs: ['a b']", `workflow.steps[2] review: data type "a b"`},
		{"an output's data type", "next: null", "next: null, outputs: ['']", `workflow.steps[2] review: data type ""`},
		{"timeout", "timeout: 20s", "timeout: 99y", "workflow.steps[1] classify: timeout"},
		{"a timeout in weeks", "timeout: 20s", "timeout: 2w", "workflow.steps[1].timeout"},
		{"priority", "timeout: 20s", "priority: urgent", "workflow.steps[1].priority"},
		{"a purpose of two lines", "timeout: 20s", `purpose: "care\n  leaves: nothing"`, "workflow.steps[1] classify: purpose is longer than 512 bytes or not printable"},
		{"shares with itself", "to: audit", "to: lab", "governance.data_sharing[1]: from and to are both lab"},
		{"unknown audit level", "level: detailed", "level: everything", "governance.audit.level"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(example, c.old, c.new, 1)
			if text == example {
				t.Fatal("the case changes nothing")
			}
			_, err := ParseDefinition("wf.yaml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "wf.yaml") {
				t.Errorf("error %v; want one that names wf.yaml and %q", err, c.want)
			}
		})
	}
	chain := "workflow:\n  steps:\n"
	for i := range maxSteps + 1 {
		chain += fmt.Sprintf("    - {id: s%d, organization: bank, agent: a, next: s%d}\n", i, i+1)
	}
	head, rest, _ := strings.Cut(example, "workflow:\n")
	_, tail, _ := strings.Cut(rest, "governance:\n")
	if _, err := ParseDefinition("wf.yaml", []byte(head+chain+"governance:\n"+tail)); err == nil || !strings.Contains(err.Error(), "workflow.steps: 257, want 1 to 256") {
		t.Errorf("too many steps: %v", err)
	}
}

// TestAPeersDefinitionIsCheckedLikeAFile has in JSON what YAML's decoder would refuse.
func TestAPeersDefinitionIsCheckedLikeAFile(t *testing.T) {
	good, err := parse(t, example).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown role", `"role":"processor"`, `"role":"procesor"`, `lab has role "procesor"`},
		{"an endpoint with an escape", `"id":"audit"`, `"endpoint":"https://\u001b[2J","id":"audit"`, "endpoint or certificate of audit"},
		{"unknown type", `"type":"federated"`, `"type":"local"`, `type "local"`},
		{"unknown priority", `"id":"review"`, `"id":"review","priority":"urgent"`, `workflow.steps[2] review: priority "urgent"`},
		{"a purpose that clears the screen", `"id":"review"`, `"id":"review","purpose":"\u001b[2Jcare"`, "workflow.steps[2] review: purpose"},
		{"a purpose written backwards", `"id":"review"`, `"id":"review","purpose":"\u202eerac"`, "workflow.steps[2] review: purpose"},
		{"a negative timeout", `"timeout":"20s"`, `"timeout":"-20s"`, ""},
		{"unknown audit level", `"level":"detailed"`, `"level":"none"`, "governance.audit"},
		{"other storage", `"all-participants"`, `"nowhere"`, "governance.audit"},
		{"an unknown field", `"name":"claims-review"`, `"name":"claims-review","command":"x"`, "command"},
		{"no steps", `"steps":[`, `"steps":[],"stepps":[`, ""},
	} {
		text := strings.Replace(string(good), c.old, c.new, 1)
		if text == string(good) {
			t.Fatalf("%s: the case changes nothing in %s", c.name, good)
		}
		if _, err := decodeDefinition([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v; want one that says %q", c.name, err, c.want)
		}
	}
	for _, text := range []string{``, `null`, `{}`, `[]`, `{"name":1}`} {
		if _, err := decodeDefinition([]byte(text)); err == nil {
			t.Errorf("%q is a definition", text)
		}
	}
}

func TestSharingIsPerPairAndType(t *testing.T) {
	d := parse(t, example)
	if r, ok := d.sharing("bank", "lab", "document"); !ok || strings.Join(r, " ") != "no-extraction no-storage" {
		t.Errorf("bank → lab document: %v, %v", r, ok)
	}
	for _, c := range [][3]string{{"lab", "bank", "document"}, {"bank", "audit", "document"}, {"bank", "lab", "classification"}} {
		if _, ok := d.sharing(orgOf(c[0]), orgOf(c[1]), c[2]); ok {
			t.Errorf("%v is shared without a rule", c)
		}
	}
}

func TestReferenceWorkflow(t *testing.T) {
	dir := os.Getenv("FEDNODE_REFERENCE")
	if dir == "" {
		dir = "testdata"
	}
	b, err := os.ReadFile(filepath.Join(dir, "federated-workflow.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDefinition("federated-workflow.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := d.chain()
	if err != nil || len(chain) != 5 {
		t.Fatalf("chain of %d steps, %v", len(chain), err)
	}
	for _, p := range d.Participants {
		r := d.review(p.ID)
		if len(r.Runs) == 0 {
			t.Errorf("%s has nothing to run", p.ID)
		}
		if kept := r.Kept[len(r.Kept)-1]; !strings.Contains(kept, "for good, though 90d is asked for") {
			t.Errorf("%s is told that the log is %q", p.ID, kept)
		}
	}
}

func FuzzDefinition(f *testing.F) {
	f.Add([]byte(example))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDefinition("f", b)
		if err != nil {
			return
		}
		h, err := d.Hash()
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeDefinition(c)
		if err != nil {
			t.Fatalf("canonical form is not accepted: %v\n%s", err, c)
		}
		if h2, _ := again.Hash(); h2 != h {
			t.Fatal("hash changes over the wire")
		}
	})
}
