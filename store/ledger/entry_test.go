package ledger

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var commitment = base64.StdEncoding.EncodeToString(make([]byte, 32))

func envelope(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "test", "fed", "testdata", "envelope-v1", "ledger-form.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// examples returns a realistic entry of each category.
func examples() []Entry {
	const at = "2026-11-24T08:00:00.123Z"
	return []Entry{
		{V: 1, Type: "login", Category: Authentication, Timestamp: at, UserID: commitment, OrganizationID: "org-a", Result: "ok"},
		{V: 1, Type: "configuration-applied", Category: Authorization, Timestamp: at, UserID: commitment, OrganizationID: "org-a",
			Resource: "governance-policy.yaml", Action: "apply", Result: "ok", Commitment: commitment},
		{V: 1, Type: "artifact-share", Category: DataAccess, Timestamp: at, UserID: commitment, OrganizationID: "org-b", DataCategory: "document",
			Purpose: "contract-fulfillment", Action: "artifact.share", Reference: "run-0123456789abcdef01234567/classify/1"},
		{V: 1, Type: "policy-decision", Category: PolicyEnforcement, Timestamp: at, OrganizationID: "org-c",
			PolicyID: "agreement:9c1e33aa91b2#classify governance:gdpr-compliant-sharing#personal-data-processing", Resource: "document-classifier",
			Action: "step.execute", Result: "allow", Reference: "run-0123456789abcdef01234567/classify/1"},
		{V: 1, Type: "member-admitted", Category: FederationManagement, Timestamp: at, OrganizationID: "org-c", Action: "member", Result: "ok"},
	}
}

func TestEntries(t *testing.T) {
	for _, e := range examples() {
		b, err := e.Marshal()
		if err != nil {
			t.Errorf("%s: %v", e.Type, err)
			continue
		}
		if len(b) > 1024 {
			t.Errorf("%s has %d bytes; plain entries have at most 1 KB", e.Type, len(b))
		}
		back, err := ParseEntry(b)
		if err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if again, err := back.Marshal(); err != nil || string(again) != string(b) {
			t.Errorf("%s\ncomes back as\n%s, %v", b, again, err)
		}
		// Every field that the category needs is missed, by name.
		for _, f := range e.Category.Fields() {
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			delete(m, f)
			less, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseEntry(less); err == nil || !strings.Contains(err.Error(), f) {
				t.Errorf("%s without %s: %v", e.Type, f, err)
			}
		}
	}
}

func TestEntryWithEnvelope(t *testing.T) {
	e := examples()[2]
	e.Envelope = envelope(t)
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 1600 {
		t.Errorf("%d bytes; entries with an envelope have at most 1.6 KB", len(b))
	}
	if _, err := ParseEntry(b); err != nil {
		t.Error(err)
	}
}

func TestEntryRefusals(t *testing.T) {
	good, err := examples()[1].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for what, in := range map[string]string{
		"nothing":                 "",
		"no object":               "[]",
		"null":                    "null",
		"space":                   replace(`":"apply"`, `": "apply"`),
		"unknown field":           replace(`"v":1`, `"v":1,"w":1`),
		"name in another case":    replace(`"action"`, `"Action"`),
		"both cases":              replace(`{"action":"apply"`, `{"Action":"x","action":"apply"`),
		"duplicate":               replace(`"action":"apply"`, `"action":"apply","action":"apply"`),
		"order":                   `{"v":1,` + strings.TrimSuffix(string(good), `,"v":1}`)[1:] + "}",
		"null field":              replace(`"result":"ok"`, `"purpose":null,"result":"ok"`),
		"empty field":             replace(`"result":"ok"`, `"purpose":"","result":"ok"`),
		"number for text":         replace(`"result":"ok"`, `"result":1`),
		"version 0":               replace(`"v":1`, `"v":0`),
		"no version":              replace(`,"v":1`, ``),
		"no type":                 replace(`"type":"configuration-applied",`, ``),
		"no category":             replace(`"category":"authorization",`, ``),
		"unknown category":        replace(`"authorization"`, `"gossip"`),
		"user in the clear":       replace(`"user_id":"`+commitment, `"user_id":"alice@example.org`),
		"short commitment":        replace(`"commitment":"`+commitment, `"commitment":"AAAA`),
		"sloppy base64":           replace(`"commitment":"`+commitment, `"commitment":"`+strings.Replace(commitment, "A=", "B=", 1)),
		"local time":              replace(`.123Z`, `.123+01:00`),
		"no milliseconds":         replace(`.123Z`, `Z`),
		"microseconds":            replace(`.123Z`, `.123456Z`),
		"comma":                   replace(`.123Z`, `,123Z`),
		"no such day":             replace(`2026-11-24`, `2026-11-31`),
		"before the epoch":        replace(`2026`, `1969`),
		"envelope of null":        replace(`"organization_id"`, `"envelope":null,"organization_id"`),
		"envelope of text":        replace(`"organization_id"`, `"envelope":"x","organization_id"`),
		"more than 64 KiB":        replace(`"ok"`, `"`+strings.Repeat("x", MaxEntry)+`"`),
		"text that is not UTF-8":  replace(`"ok"`, "\"\xff\""),
		"something after its end": string(good) + "\n",
	} {
		if e, err := ParseEntry([]byte(in)); err == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
	long := examples()[0]
	long.Reference = strings.Repeat("x", MaxEntry)
	if _, err := long.Marshal(); err == nil {
		t.Error("an entry of more than 64 KiB was made")
	}
	long.Reference = "\xff"
	if _, err := long.Marshal(); err == nil {
		t.Error("text that is not UTF-8 was made an entry")
	}
	if f := Category("gossip").Fields(); f != nil {
		t.Errorf("a category that does not exist has fields %v", f)
	}
}
