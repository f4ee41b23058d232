package builtin

import (
	"context"
	"fmt"
	"path"
	"strings"

	"fednode/flow/agent/builtin/document"
	"fednode/flow/agent/builtin/pii"
)

// maxFindings of one document; more is refused, since a list cut short would be taken for all.
const maxFindings = 100_000

// PIIFindings is the pii-findings artifact. Spans are bytes of the text extracted from the document, before redaction.
type PIIFindings struct {
	Findings   []pii.Finding  `json:"findings"`
	Counts     map[string]int `json:"counts"`
	TextLength int            `json:"text_length"` // bytes
}

// detect makes the findings, and the document as text with every finding replaced by its type.
func detect(ctx context.Context, in Input) (*Output, error) {
	a, doc, err := in.text(ctx)
	if err != nil {
		return nil, err
	}
	found := pii.Find(doc.Text)
	if len(found) > maxFindings {
		return nil, fmt.Errorf("%w: personal data in more than %d places; split the document", ErrInput, maxFindings)
	}
	counts := pii.Counts(found)
	if found == nil {
		found = []pii.Finding{}
	}
	findings, err := jsonArtifact(Findings, PIIFindings{found, counts, len(doc.Text)})
	if err != nil {
		return nil, err
	}
	name, mediaType := redactedName(a.Name, doc.MediaType)
	redacted := Artifact{Type: Document, Name: name, MediaType: mediaType, Data: []byte(pii.Redact(doc.Text, found))}
	headline := "no personal data"
	if len(found) > 0 {
		types := "types"
		if len(counts) == 1 {
			types = "type"
		}
		headline = fmt.Sprintf("%d found, %d %s", len(found), len(counts), types)
	}
	return &Output{Artifacts: []Artifact{findings, redacted}, Headline: headline}, nil
}

// redactedName turns contract.pdf into contract.redacted.txt; Markdown stays Markdown, and a redacted document keeps its
// name.
func redactedName(name, kind string) (string, string) {
	suffix, mediaType := ".txt", "text/plain; charset=utf-8"
	if kind == document.Markdown {
		suffix, mediaType = ".md", "text/markdown; charset=utf-8"
	}
	base := strings.TrimSuffix(path.Base(name), path.Ext(name))
	if name == "" || base == "" || base == "." {
		base = "document"
	}
	return strings.TrimSuffix(base, ".redacted") + ".redacted" + suffix, mediaType
}
