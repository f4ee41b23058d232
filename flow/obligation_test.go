package flow

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"fednode/transport"
)

func orgOf(s string) transport.OrgID { return transport.OrgID(s) }

const letter = `The tenant shall pay the rent of 1,200 euros by the third working day of each month to the account named in
annex B, and shall keep the premises in good repair for the whole term of this lease.`

func TestCopying(t *testing.T) {
	raw := []byte(letter)
	for _, c := range []struct {
		name, out string
		copies    bool
	}{
		{"fixed wording", `{"risk":"medium","reasons":["rent is due monthly","no break clause"]}`, false},
		{"a few of its words", "pay the rent of 1,200 euros", false},
		{"a sentence", "Summary: the tenant shall pay the rent of 1,200 euros by the third working day.", true},
		{"other case and punctuation", "TENANT SHALL PAY; THE RENT (OF) 1,200 EUROS — BY", true},
		{"base64 of it", base64.StdEncoding.EncodeToString(raw), true},
		{"base64 inside JSON, shifted", `{"x":"a` + base64.RawStdEncoding.EncodeToString(raw[7:120]) + `"}`, true},
		{"base64 of something else", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("nothing of that is in here; ", 10))), false},
		{"empty", "", false},
	} {
		if got := copiesWords(raw, []byte(c.out)) || copiesBytes(raw, []byte(c.out)); got != c.copies {
			t.Errorf("%s: copies = %v, want %v", c.name, got, c.copies)
		}
	}
}

func TestCopiedBytesAreFoundAtEveryOffset(t *testing.T) {
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte(i*i>>3 ^ i)
	}
	for off := 0; off+copiedBytes <= len(data); off++ {
		out := append([]byte("before "), data[off:off+copiedBytes]...)
		if !copiesBytes(data, out) {
			t.Fatalf("%d bytes copied from offset %d were not found", copiedBytes, off)
		}
	}
}

func TestApprovalRule(t *testing.T) {
	in := []byte(`{"risk":"medium","score":0.4}`)
	for rule, want := range map[string]bool{
		`review_result.risk != "high"`:                      true,
		`review_result.risk == "low"`:                       false,
		`review_result.score < 0.5 && review_result != nil`: true,
		`missing?.risk == "low"`:                            false,
	} {
		got, err := holdsFor(rule, artifactsOf("review-result", in))
		if err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", rule, got, err, want)
		}
	}
	if ok, err := holdsFor(`review_result.risk`, artifactsOf("review-result", in)); err == nil || ok {
		t.Errorf("a rule that is no condition: %v, %v", ok, err)
	}
	if !json.Valid(in) {
		t.Fatal("the test's input")
	}
}
