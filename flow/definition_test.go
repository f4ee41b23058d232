package flow

import (
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

func TestDefinitionRefusals(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"two initiators", "role: processor", "role: initiator", "exactly one must have role initiator"},
		{"unknown role", "role: processor", "role: procesor", "procesor"},
		{"unknown key", "next: classify", "nxt: classify", "nxt"},
		{"duplicate step", "id: review, organization", "id: classify, organization", "appears twice"},
		{"stranger runs a step", "organization: lab", "organization: lap", "not a participant"},
		{"stranger shares", "from: lab", "from: lap", "not a participant"},
		{"next is no step", "next: classify", "next: clasify", "is no step"},
		{"circle", "next: null", "next: upload", "circle"},
		{"two heads", "next: classify", "next: null", "could be first"},
		{"two into one", "next: classify", "next: review", "two steps lead"},
		{"unknown restriction", "[no-storage]", "[no-copying]", "no-copying"},
		{"timeout", "timeout: 20s", "timeout: 99y", "timeout"},
		{"priority", "timeout: 20s", "priority: urgent", "urgent"},
		{"shares with itself", "to: audit", "to: lab", "both"},
		{"other type", "type: federated", "type: local", "federated"},
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
		if r := d.review(p.ID); len(r.Runs) == 0 {
			t.Errorf("%s has nothing to run", p.ID)
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
