package config

import (
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"fednode/store/strictyaml"
)

const wholeNode = `organization:
  id: north-clinic
  name: North Clinic
  domain: north-clinic.example
  jurisdiction: dk
instance: ward-1
listen: "0.0.0.0:7443"
advertise: ["fed.north-clinic.example:443", "[2001:db8::7]:7443"]
keys:
  passphrase: {file: secret/passphrase}
limits:
  requests: 200
  requests_per_peer: 50
  requests_per_second: 12.5
  bytes_per_second: 8MB
  artifact_size: 2GB
  call_timeout: 20s
  agents: 9
  memory: 64MB
log: {level: warn, format: json}
monitor: {listen: "127.0.0.1:9464"}
`

func TestANodeFileIsReadWhole(t *testing.T) {
	n, err := LoadNode("node.yaml", []byte(wholeNode))
	if err != nil {
		t.Fatal(err)
	}
	if n.Organization.ID != "north-clinic" || n.Instance != "ward-1" || n.Listen != "0.0.0.0:7443" || len(n.Advertise) != 2 ||
		n.Limits.RequestsPerPeer != 50 || n.Limits.Agents != 9 || n.Limits.Memory != 64<<20 || n.Log.Level.Slog() != slog.LevelWarn || n.Monitor.Listen != "127.0.0.1:9464" {
		t.Errorf("%+v", n)
	}
	if _, ok := n.Keys.Source("/etc"); !ok {
		t.Error("no passphrase source")
	}
}

func TestANodeFileHasDefaults(t *testing.T) {
	n, err := LoadNode("node.yaml", []byte("organization: {id: north-clinic, domain: north-clinic.example}\nlisten: \":7000\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if n.Organization.Name != "north-clinic" || n.Instance != "north-clinic-1" || n.Limits.Agents != 4 || n.Limits.Memory != 512<<20 || n.Log.Level != "info" || n.Log.Format != "text" {
		t.Errorf("%+v", n)
	}
	if len(n.Advertise) != 1 || n.Advertise[0] != "north-clinic.example:7000" {
		t.Errorf("advertises %v", n.Advertise)
	}
	if _, ok := n.Keys.Source("/etc"); ok {
		t.Error("a passphrase source out of nothing")
	}
	if n, err = LoadNode("node.yaml", []byte("organization: {id: a}\n")); err != nil || n.Listen != ":443" || n.Advertise != nil {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err = LoadNode("node.yaml", []byte("organization: {id: a}\nkeys: {unprotected: true}\n")); err != nil {
		t.Fatal(err)
	}
	if p, ok := n.Keys.Source(""); !ok || !p.IsUnprotected() {
		t.Error("unprotected isn't taken")
	}
}

func TestMistakesInANodeFileAreNamed(t *testing.T) {
	for _, c := range []struct{ old, new, path, text string }{
		{"organization:\n  id: north-clinic", "organization:", "organization", "the key id is missing"},
		{"id: north-clinic", "id: North", "organization.id", "organisation id"},
		{"0.0.0.0:7443", "7443", "listen", "host:port"},
		{"fed.north-clinic.example:443", ":443", "advertise[0]", "reached"},
		{"fed.north-clinic.example:443", "[2001:db8::7]:7443", "advertise[1]", "there already"},
		{"{file: secret/passphrase}", "{file: secret/passphrase, env: SECRET}", "keys", "one place"},
		{"{file: secret/passphrase}", "{file: secret/passphrase}\n  unprotected: true", "keys", "one place"},
		{"requests_per_peer: 50", "requests_per_peer: 500", "limits.requests_per_peer", "above requests"},
		{"level: warn", "level: warning", "log.level", "debug, info, warn or error"},
		{"127.0.0.1:9464", "0.0.0.0:7443", "monitor.listen", "already"},
	} {
		data := strings.Replace(wholeNode, c.old, c.new, 1)
		_, err := LoadNode("node.yaml", []byte(data))
		var p *strictyaml.Error
		if !errors.As(err, &p) || p.Path != c.path || !strings.Contains(p.Error(), c.text) || p.Line < 1 {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	for _, data := range []string{"", "organization: {id: a}\norganisation: {id: b}\n", "organization: {id: a}\n---\nx: 1\n"} {
		if n, err := LoadNode("node.yaml", []byte(data)); err == nil {
			t.Errorf("%q passes: %+v", data, n)
		}
	}
}

func TestAPassphraseInTheWrongPlaceIsNotRepeated(t *testing.T) {
	for _, place := range []string{"env", "credential"} {
		_, err := LoadNode("node.yaml", []byte("organization: {id: a}\nkeys: {passphrase: {"+place+": \"correct horse\"}}\n"))
		if err == nil || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: %v", place, err)
		}
	}
}

func FuzzLoadNode(f *testing.F) {
	f.Add([]byte(wholeNode))
	f.Add([]byte("organization: {id: a}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := LoadNode("node.yaml", data)
		if (n == nil) == (err == nil) {
			t.Fatalf("%v, %v", n, err)
		}
		if n != nil && (n.Listen == "" || n.Instance == "" || n.Organization.ID.problem() != "") {
			t.Fatalf("%+v", n)
		}
	})
}

func TestEveryKeyOfNodeYAMLIsDescribed(t *testing.T) {
	leaves := map[string]reflect.Type{}
	leafTypes(reflect.TypeFor[Node](), "", leaves)
	for _, r := range nodeRows() {
		if _, ok := leaves[r.Path]; !ok {
			t.Errorf("%s is described and isn't a key", r.Path)
		}
		delete(leaves, r.Path)
	}
	for path := range leaves {
		t.Errorf("%s isn't described", path)
	}
}

func TestCheckKnowsTheNodesOwnFiles(t *testing.T) {
	for _, c := range []struct {
		name, text, want string // want is part of the error, or the kind
	}{
		{"node.yaml", "organization: {id: org-a}\nlisten: \":443\"\n", "node"},
		{"node.yaml", "organization: {id: org-a}\nlissten: \":443\"\n", `node.yaml:2:1: unknown key "lissten"; did you mean "listen"?`},
		{"node.yaml", "organization: {id: org-a}\nlisten: here\n", `node.yaml:2:9: "here" is not an address`},
		{"node.yaml", "organization: {id: org-a}\nagents: {a: {kind: exec, outputs: [x]}}\n", `node.yaml:2:13: command: name the program`},
		{"policy.yaml", "version: 1\ndefault: deny\nrules: []\n", "policy"},
		{"policy.yaml", "version: 1\ndefault: deny\nrules: [{name: a, efect: deny}]\n", `did you mean "effect"?`},
		{"policy.yaml", "version: 1\ndefault: deny\nrules: [{name: a, effect: deny, when: subject ==}]\n", "policy.yaml: rules[0] a: when: "},
	} {
		r, err := Check(c.name, []byte(c.text), Env{})
		got := string(r.Kind)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s:\n%sgives %s, want %s", c.name, c.text, got, c.want)
		}
	}
}
