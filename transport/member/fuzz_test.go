package member

import (
	"bytes"
	"encoding/json"
	"testing"

	"fednode/store/jcs"
)

// The fuzz targets start from the fixture, which is the same in every process: what differs from it nobody signed.

func goldenBundle(t testing.TB) (b bundle) {
	t.Helper()
	if err := jcs.UnmarshalCanonical(golden(t), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range goldenBundle(f).Entries {
		f.Add([]byte(e))
	}
	f.Add([]byte(`{"v":1,"type":"genesis"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := parseEntry(in)
		if err != nil {
			return
		}
		if b, err := e.marshal(); err != nil || !bytes.Equal(b, in) {
			t.Fatalf("%q is read, but written as %q, %v", in, b, err)
		}
		if s, err := Fold([][]byte{in}); err == nil && s.FederationID() != goldenFederation {
			t.Fatalf("%q founds another federation", in)
		}
	})
}

func FuzzRecord(f *testing.F) {
	known := map[string]bool{}
	for _, e := range goldenBundle(f).Entries {
		if m := must(parseEntry(e)).Member; m != nil {
			f.Add(must(json.Marshal(m)))
			known[must(m.Record.Hash())] = true
		}
	}
	f.Add([]byte(`{"record":{"organization_id":"org-a","name":"x","sequence":1}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s SignedRecord
		if err := jcs.Unmarshal(in, &s); err != nil {
			return
		}
		if v, err := s.verify(); err == nil && !known[v.hash] {
			t.Fatalf("%q is a record that nobody signed", in)
		}
	})
}

func FuzzReadBundle(f *testing.F) {
	good := golden(f)
	f.Add(good)
	f.Add([]byte(`{"checkpoint":"","entries":[{}],"format":"fednode/governance-bundle/v1"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := ReadBundle(bytes.NewReader(in), goldenFederation); err == nil && !bytes.Equal(in, good) {
			t.Fatalf("%q is a bundle that its chair did not sign", in)
		}
	})
}
