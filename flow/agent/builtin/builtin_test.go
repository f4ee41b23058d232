package builtin

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"fednode/flow/agent/builtin/document"
)

const lease = `LEASE AGREEMENT

This lease is made on 3 March 2026 between Harbour Estates Ltd, the landlord, and Ms Miriam Castellane, the tenant, born
on 14 July 1984, e-mail miriam.castellane@example.org, telephone +49 30 901820.

1. Rent. The tenant shall pay a rent of 1,240 euros a month in advance, to IBAN DE89 3704 0044 0532 0130 00.
2. Liability. Each party is liable for damage that it causes by negligence.
3. Notice. Either party may end the tenancy with three months' notice in writing after the first year.
4. Law. This lease is governed by the laws of Ireland.

Signed: Ms Miriam Castellane
`

// run runs an agent on a document and, where given, further artifacts.
func run(t testing.TB, agent, name string, data []byte, more ...Artifact) (*Output, error) {
	t.Helper()
	return Run(t.Context(), agent, Input{Artifacts: append([]Artifact{{Type: Document, Name: name, Data: data}}, more...), Purpose: "test"})
}

// must returns the output of a run that has to succeed.
func must(out *Output, err error) func(testing.TB) *Output {
	return func(t testing.TB) *Output {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// made decodes the one artifact of a type that an agent made.
func made[T any](t testing.TB, out *Output, kind string) (v T) {
	t.Helper()
	for _, a := range out.Artifacts {
		if a.Type == kind {
			if err := json.Unmarshal(a.Data, &v); err != nil || a.MediaType != mediaJSON {
				t.Fatalf("%s of %s: %v", kind, a.MediaType, err)
			}
			return v
		}
	}
	t.Fatalf("no %s among %d artifacts", kind, len(out.Artifacts))
	return v
}

func classified(label string, score float64) Artifact {
	return Artifact{Type: Classification, Data: fmt.Appendf(nil, `{"label":%q,"score":%v}`, label, score)}
}

// zipped is a ZIP file of names and contents.
func zipped(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		w, err := z.Create(parts[i])
		if err == nil {
			_, err = w.Write([]byte(parts[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func word(t testing.TB, text string) []byte {
	return zipped(t, "[Content_Types].xml", "<Types/>", "word/document.xml",
		`<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>`+text+`</w:t></w:r></w:p></w:body></w:document>`)
}

func TestTheLoaderPassesTheOriginalOn(t *testing.T) {
	for _, c := range []struct {
		name           string
		data           []byte
		kind, headline string
	}{
		{"lease.txt", []byte(lease), document.Text, "text, "},
		{"lease.docx", word(t, "The tenant shall pay."), document.DOCX, "DOCX, 4 words"},
		{"lease.md", []byte("# Lease\n\nThe tenant shall pay.\n"), document.Markdown, "Markdown, 6 words"},
		{"lease.html", []byte("<!doctype html><html><body><p>The tenant shall pay.</p></body></html>"), document.HTML, "HTML, 4 words"},
		{"lease.eml", []byte("From: a@example.org\r\nTo: b@example.org\r\nSubject: Lease\r\nDate: Tue, 3 Mar 2026 10:00:00 +0000\r\n\r\nThe tenant shall pay.\r\n"), document.Mail, "e-mail, "},
	} {
		out, err := run(t, Loader, c.name, c.data)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		a := out.Artifacts[0]
		if len(out.Artifacts) != 1 || a.Type != Document || a.Name != c.name || a.MediaType != c.kind || !bytes.Equal(a.Data, c.data) {
			t.Errorf("%s: %s %s of %s, %d bytes", c.name, a.Type, a.Name, a.MediaType, len(a.Data))
		}
		if !strings.HasPrefix(out.Headline, c.headline) {
			t.Errorf("%s: headline %q, want %q", c.name, out.Headline, c.headline)
		}
	}
}

// TestUnreadableDocuments has every agent refuse what cannot be read, with what is wrong and how to mend it, and nothing
// of what the document says.
func TestUnreadableDocuments(t *testing.T) {
	encrypted, err := os.ReadFile("pdf/testdata/encrypted.pdf")
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 4096)
	for i := range junk {
		junk[i] = byte(i * i * 7 >> 3)
	}
	for _, c := range []struct {
		what, name string
		data       []byte
		problem    document.Problem
		mend       string
	}{
		{"empty", "secret.txt", nil, document.Empty, "send"},
		{"binary junk", "secret.bin", junk, document.Unsupported, "PDF, DOCX"},
		{"binary junk named PDF", "secret.pdf", junk, document.Mismatch, "export it again"},
		{"an encrypted PDF", "secret.pdf", encrypted, document.Encrypted, "decrypt it first"},
		{"a cut DOCX", "secret.docx", word(t, "secret")[:120], document.Damaged, "again"},
		{"a DOCX that is a bomb", "secret.docx", word(t, "secret"+strings.Repeat("</w:t></w:r></w:p><w:p><w:r><w:t>"+strings.Repeat(" ", 1<<16), 600)), document.Bomb, "save it again"},
		{"no text", "secret.html", []byte("<html><script>secret</script></html>"), document.NoText, "ocrmypdf"},
	} {
		for agent := range Specs() {
			out, err := run(t, agent, c.name, c.data, classified("contract", 0.9))
			if out != nil || !errors.Is(err, c.problem) {
				t.Errorf("%s, %s: %v; want problem %s", agent, c.what, err, c.problem)
				continue
			}
			if text := err.Error(); !strings.HasPrefix(text, agent+": the document ") || !strings.Contains(text, c.mend) || strings.Contains(text, "secret") || len(text) > 300 {
				t.Errorf("%s, %s: %q; want one that begins with the agent, says %q, and quotes nothing", agent, c.what, text, c.mend)
			}
		}
	}
}

func TestTheClassifierJudges(t *testing.T) {
	out := must(run(t, Classifier, "lease.txt", []byte(lease)))(t)
	j := made[Judgement](t, out, Classification)
	sum := 0.0
	for _, p := range j.Scores {
		sum += p
	}
	if j.Label != "contract" || j.Score < 0.6 || j.Score != j.Scores["contract"] || sum < 0.99 || sum > 1.01 || len(j.Model) != 64 {
		t.Errorf("%+v", j)
	}
	if !strings.HasPrefix(out.Headline, "contract .") {
		t.Errorf("headline %q", out.Headline)
	}
	if bytes.Contains(out.Artifacts[0].Data, []byte("Castellane")) {
		t.Error("the classification quotes the document")
	}
	in := Input{Artifacts: []Artifact{{Type: Document, Name: "lease.txt", Data: []byte(lease)}}, Model: []byte("not a model")}
	if _, err := Run(t.Context(), Classifier, in); err == nil || !strings.Contains(err.Error(), "model") {
		t.Errorf("a model that is none: %v", err)
	}
}

func TestTheDetectorFindsAndRedacts(t *testing.T) {
	out := must(run(t, Detector, "lease.pdf.txt", []byte(lease)))(t)
	f := made[PIIFindings](t, out, Findings)
	for _, kind := range []string{"EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "DATE_OF_BIRTH", "PERSON"} {
		if f.Counts[kind] == 0 {
			t.Errorf("no %s among %v", kind, f.Counts)
		}
	}
	var redacted Artifact
	for _, a := range out.Artifacts {
		if a.Type == Document {
			redacted = a
		}
	}
	if redacted.Name != "lease.pdf.redacted.txt" || !strings.HasPrefix(redacted.MediaType, "text/plain") {
		t.Errorf("redacted document %q of %s", redacted.Name, redacted.MediaType)
	}
	for _, word := range []string{"castellane", "Castellane", "DE89", "901820", "14 July 1984"} {
		if bytes.Contains(redacted.Data, []byte(word)) {
			t.Errorf("the redacted document still says %s", word)
		}
		for _, a := range out.Artifacts {
			if a.Type == Findings && bytes.Contains(a.Data, []byte(word)) {
				t.Errorf("the findings quote %s", word)
			}
		}
	}
	if !bytes.Contains(redacted.Data, []byte("tenant shall pay")) {
		t.Error("the redacted document lost its text")
	}
	if f.TextLength == 0 || len(f.Findings) == 0 {
		t.Errorf("%d findings in %d bytes", len(f.Findings), f.TextLength)
	}
	for _, x := range f.Findings {
		if x.Start < 0 || x.End <= x.Start || x.End > f.TextLength {
			t.Errorf("finding %+v in %d bytes", x, f.TextLength)
		}
	}

	again := must(run(t, Detector, redacted.Name, redacted.Data))(t)
	if again.Headline != "no personal data" || string(made[json.RawMessage](t, again, Findings)) == "" {
		t.Errorf("in what was redacted: %s", again.Headline)
	}
	if n := again.Artifacts[1].Name; n != redacted.Name {
		t.Errorf("redacted twice it is called %s", n)
	}
	if data := again.Artifacts[0].Data; !bytes.Contains(data, []byte(`"findings":[]`)) {
		t.Errorf("no findings are written as %s", data)
	}
}

func TestTheDetectorRefusesMoreThanItCanList(t *testing.T) {
	text := strings.Repeat("a@example.org ", maxFindings+1)
	if _, err := run(t, Detector, "list.txt", []byte(text)); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "split the document") {
		t.Errorf("%v", err)
	}
}

func TestTheReviewerUsesWhatItGets(t *testing.T) {
	redacted := must(run(t, Detector, "lease.txt", []byte(lease)))(t)
	var doc, findings Artifact
	for _, a := range redacted.Artifacts {
		if a.Type == Document {
			doc = a
		} else {
			findings = a
		}
	}
	reasons := func(data []byte, more ...Artifact) map[string]bool {
		out := must(run(t, Reviewer, "lease.txt", data, more...))(t)
		r := made[ReviewResult](t, out, Review)
		if out.Headline != r.Risk || r.Recommendation == "" {
			t.Errorf("headline %q for %+v", out.Headline, r)
		}
		if bytes.Contains(out.Artifacts[0].Data, []byte("Castellane")) || bytes.Contains(out.Artifacts[0].Data, []byte("tenant")) {
			t.Errorf("the review quotes the document: %s", out.Artifacts[0].Data)
		}
		ids := map[string]bool{}
		for _, x := range r.Reasons {
			ids[x.Rule] = true
		}
		return ids
	}
	if ids := reasons([]byte(lease), classified("contract", 0.9)); !ids["unredacted-personal-data"] {
		t.Errorf("of the document as it came: %v", ids)
	}
	if ids := reasons(doc.Data, classified("contract", 0.9), findings); ids["unredacted-personal-data"] || ids["findings-without-redaction"] || ids["uncertain-class"] {
		t.Errorf("of the redacted document: %v", ids)
	}
	if ids := reasons([]byte("A lease of many words without anybody in it."), classified("contract", 0.4), findings); !ids["findings-without-redaction"] || !ids["uncertain-class"] || !ids["short-text"] {
		t.Errorf("of a document that does not match its findings: %v", ids)
	}
	// The last version given is in force.
	if ids := reasons([]byte(lease), Artifact{Type: Document, Name: "x.txt", Data: doc.Data}, classified("contract", 0.9)); ids["unredacted-personal-data"] {
		t.Errorf("of the newer version: %v", ids)
	}
}

func TestUnfitInputs(t *testing.T) {
	doc := Artifact{Type: Document, Name: "lease.txt", Data: []byte(lease)}
	for what, c := range map[string]struct {
		agent string
		in    Input
		want  string
	}{
		"no document":              {Classifier, Input{}, "needs a document"},
		"no classification":        {Reviewer, Input{Artifacts: []Artifact{doc}}, "needs a classification"},
		"a classification of junk": {Reviewer, Input{Artifacts: []Artifact{doc, {Type: Classification, Data: []byte("{")}}}, "not JSON with label and score"},
		"a score beyond 1":         {Reviewer, Input{Artifacts: []Artifact{doc, classified("contract", 1.5)}}, "between 0 and 1"},
		"a negative score":         {Reviewer, Input{Artifacts: []Artifact{doc, classified("contract", -1)}}, "between 0 and 1"},
		"no label":                 {Reviewer, Input{Artifacts: []Artifact{doc, classified("", 1)}}, "label"},
		"a label with words":       {Reviewer, Input{Artifacts: []Artifact{doc, classified("pay the tenant", 1)}}, "label"},
		"an endless label":         {Reviewer, Input{Artifacts: []Artifact{doc, classified(strings.Repeat("x", 65), 1)}}, "label"},
		"findings of junk":         {Reviewer, Input{Artifacts: []Artifact{doc, classified("contract", 1), {Type: Findings, Data: []byte("[]")}}}, "not the JSON that pii-detector makes"},
		"parameters":               {Loader, Input{Artifacts: []Artifact{doc}, Parameters: json.RawMessage(`{"language":"de"}`)}, "take no parameters; remove them"},
		"parameters of junk":       {Loader, Input{Artifacts: []Artifact{doc}, Parameters: json.RawMessage(`[`)}, "not a JSON object"},
	} {
		out, err := Run(t.Context(), c.agent, c.in)
		if out != nil || !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), c.agent+": ") {
			t.Errorf("%s: %v; want one of %s that says %q", what, err, c.agent, c.want)
		}
	}
	if _, err := Run(t.Context(), "summariser", Input{}); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "summariser") {
		t.Errorf("an unknown agent: %v", err)
	}
	if _, err := Run(t.Context(), Loader, Input{Artifacts: []Artifact{doc}, Parameters: json.RawMessage(`{}`)}); err != nil {
		t.Errorf("no parameters: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for agent := range Specs() {
		if _, err := Run(ended, agent, Input{Artifacts: []Artifact{doc, classified("contract", 1)}}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s after its end: %v", agent, err)
		}
	}
}

// TestAgentsMakeWhatTheyDeclare runs every agent on what its Spec asks for.
func TestAgentsMakeWhatTheyDeclare(t *testing.T) {
	all := map[string]Artifact{Document: {Type: Document, Name: "lease.txt", Data: []byte(lease)}, Classification: classified("contract", 0.9),
		Findings: {Type: Findings, Data: []byte(`{"findings":[],"counts":{},"text_length":1}`)}}
	for agent, spec := range Specs() {
		var in Input
		for _, kind := range append(append([]string{}, spec.Inputs...), spec.Optional...) {
			in.Artifacts = append(in.Artifacts, all[kind])
		}
		out, err := Run(t.Context(), agent, in)
		if err != nil {
			t.Errorf("%s: %v", agent, err)
			continue
		}
		var kinds []string
		for _, a := range out.Artifacts {
			kinds = append(kinds, a.Type)
		}
		if strings.Join(kinds, " ") != strings.Join(spec.Outputs, " ") {
			t.Errorf("%s made %v; it declares %v", agent, kinds, spec.Outputs)
		}
	}
}

func TestTrain(t *testing.T) {
	fsys := fstest.MapFS{".git/config": {Data: []byte("x")}, "invoice/.hidden": {Data: []byte("x")}, "readme.txt": {Data: []byte("x")},
		"contract/broken.pdf": {Data: []byte("%PDF-1.7 and no more of it")}}
	for i := range 6 {
		fsys[fmt.Sprintf("contract/%d.txt", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "The tenant shall pay rent to the landlord; clause %d binds both parties to the lease.", i)}
		fsys[fmt.Sprintf("invoice/%d.docx", i)] = &fstest.MapFile{Data: word(t, fmt.Sprintf("Invoice number %d, amount due in euros, VAT included, payable within thirty days.", i))}
	}
	model, report, err := Train(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(report.Classes, " ") != "contract invoice" || report.Documents[0] != 6 || report.Documents[1] != 6 {
		t.Errorf("classes %v of %v documents", report.Classes, report.Documents)
	}
	if len(report.Skipped) != 1 || !strings.HasPrefix(report.Skipped[0], "contract/broken.pdf ") {
		t.Errorf("skipped %q", report.Skipped)
	}
	data, err := model.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Artifacts: []Artifact{{Type: Document, Name: "x.txt", Data: []byte("An invoice with its amount due and VAT, payable in euros.")}}, Model: data}
	out := must(Run(t.Context(), Classifier, in))(t)
	if j := made[Judgement](t, out, Classification); j.Label != "invoice" || j.Model != report.Model {
		t.Errorf("the trained model says %+v", j)
	}
	delete(fsys, "invoice/0.docx")
	delete(fsys, "invoice/1.docx")
	if _, _, err := Train(fsys); err == nil || !strings.Contains(err.Error(), "invoice") {
		t.Errorf("four documents of a class: %v", err)
	}
}

// FuzzReviewer gives the reviewer what another organisation's agents made: it must answer or refuse, never quote.
func FuzzReviewer(f *testing.F) {
	f.Add([]byte(`{"label":"contract","score":0.9}`), []byte(`{"findings":[],"counts":{"PERSON":3},"text_length":10}`), lease)
	f.Add([]byte(`{"label":"invoice","score":1e-9}`), []byte(`{"counts":{"X":-9223372036854775808,"Y":9223372036854775807}}`), "Pay €2.5m by 3rd of March")
	f.Add([]byte(`null`), []byte(`null`), "Kündigungsfrist: vierzehn Tage. 1'250'000.00 CHF")
	f.Fuzz(func(t *testing.T, classification, findings []byte, text string) {
		out, err := run(t, Reviewer, "x.txt", []byte(text), Artifact{Type: Classification, Data: classification}, Artifact{Type: Findings, Data: findings})
		if err != nil {
			return
		}
		r := made[ReviewResult](t, out, Review)
		if r.Score < 0 || r.Score > 1 || r.Risk != "low" && r.Risk != "medium" && r.Risk != "high" {
			t.Fatalf("%+v", r)
		}
	})
}
