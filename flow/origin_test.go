package flow

import (
	"encoding/base64"
	"testing"

	"fednode/store/jcs"
	"fednode/transport"
)

func TestWhatIsMadeOfSeveralOrganisationsDataIsNobodysAlone(t *testing.T) {
	for _, c := range []struct {
		inputs []transport.OrgID
		want   transport.OrgID
	}{
		{nil, "org-b"},
		{[]transport.OrgID{"org-b"}, "org-b"},
		{[]transport.OrgID{"org-a", "org-a"}, "org-a"},
		{[]transport.OrgID{"org-a", "org-b"}, ""},
		{[]transport.OrgID{"org-a", "org-c"}, ""},
		{[]transport.OrgID{"org-a", ""}, ""},
	} {
		if got := derivedOrigin("org-b", c.inputs); got != c.want {
			t.Errorf("made by org-b of %q: origin %q, want %q", c.inputs, got, c.want)
		}
	}
}

// An executor that shakes a restriction off, or names an origin for which restrictions would be lifted, has its result
// refused by the initiator, who knows what went in.
func TestInitiatorRefusesOutputsThatShedTheirInputsRestrictions(t *testing.T) {
	def := &Definition{Workflow: Steps{Steps: []Step{{ID: "s", Organization: "org-b", Agent: "x"}}}}
	a := &Agreement{Definition: def, Acceptances: map[transport.OrgID]Acceptance{"org-b": {Steps: []StepDeclaration{{ID: "s", Outputs: []string{"note"}}}}}}
	input := func(o transport.OrgID, r ...string) inputRef {
		return inputRef{ArtifactRef: ArtifactRef{ID: "art-" + string(o), Type: "document", Origin: o, Restrictions: r}}
	}
	for _, c := range []struct {
		name         string
		inputs       []inputRef
		origin       transport.OrgID
		restrictions []string
		ok           bool
	}{
		{"inherits", []inputRef{input("org-a", NoStorage)}, "org-a", []string{NoStorage}, true},
		{"adds a restriction", []inputRef{input("org-a", NoStorage)}, "org-a", []string{NoExtraction, NoStorage}, true},
		{"sheds one", []inputRef{input("org-a", NoExtraction, NoStorage)}, "org-a", []string{NoStorage}, false},
		{"claims the data", []inputRef{input("org-a", NoStorage)}, "org-b", []string{NoStorage}, false},
		{"gives it to the next", []inputRef{input("org-a", NoStorage)}, "org-c", []string{NoStorage}, false},
		{"several origins", []inputRef{input("org-a", NoStorage), input("org-c")}, "", []string{NoStorage}, true},
		{"several origins, one named", []inputRef{input("org-a", NoStorage), input("org-c")}, "org-c", []string{NoStorage}, false},
		{"its own data is unrestricted at home", []inputRef{input("org-b", NoStorage)}, "org-b", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := jcs.Marshal(stepRequest{Input: stepInput{c.inputs}})
			if err != nil {
				t.Fatal(err)
			}
			d := &driver{run: &Run{}, a: a}
			s := &StepRun{ID: "s", Organization: "org-b", Request: req}
			out := ArtifactRef{ID: "art-out", Type: "note", MediaType: "text/plain", Commitment: base64.StdEncoding.EncodeToString(make([]byte, 32)),
				Origin: c.origin, Restrictions: c.restrictions}
			if serr := d.adopt(s, []ArtifactRef{out}); (serr == nil) != c.ok {
				t.Errorf("adopted: %v (%v), want %v", serr == nil, serr, c.ok)
			}
		})
	}
}
