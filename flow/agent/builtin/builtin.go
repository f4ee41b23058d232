// Package builtin holds the agents that come with fednode: loader, classifier, pii-detector and reviewer. Its nouns are
// the Artifact an agent takes or makes, the Spec that declares an agent's data types, and the Model that the classifier
// judges by. They are functions from bytes to bytes: they open no file, no socket and no clock, keep nothing between
// calls, and promise to survive hostile documents with an error that says what is wrong, how to mend it, and nothing of
// what the document says. Every output but a document is built from fixed words and numbers, so that it quotes nothing.
//
// What they are not: the classifier is naive Bayes over words (accuracy and calibration: packages classify and
// packaging/doc/adr/0009), the detector is rules in the manner of Presidio, the reviewer is a checklist. None of them
// replaces a person's reading.
package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"fednode/flow/agent/builtin/document"
)

// Names of the agents.
const (
	Loader     = "loader"
	Classifier = "classifier"
	Detector   = "pii-detector"
	Reviewer   = "reviewer"
)

// Data types that the agents take and make.
const (
	Document       = "document"
	Classification = "classification"
	Findings       = "pii-findings"
	Review         = "review-result"
)

const mediaJSON = "application/json"

// An Artifact is one input or output: its data type, file name, media type and bytes.
type Artifact struct {
	Type      string
	Name      string
	MediaType string
	Data      []byte
}

// Input is what one run of an agent gets. Model is the classifier's, nil for the one that comes with fednode.
// NoStorage and NoExtraction are the obligations on the artifacts; the agents keep and quote nothing either way.
type Input struct {
	Artifacts    []Artifact
	Purpose      string
	Parameters   json.RawMessage
	NoStorage    bool
	NoExtraction bool
	Model        []byte
}

// Output is what it made. Headline is a few words for people, e.g. "contract .93".
type Output struct {
	Artifacts []Artifact
	Headline  string
}

// A Spec declares an agent's data types: Inputs it must have, Optional ones it uses, Outputs it makes.
type Spec struct {
	Inputs, Optional, Outputs []string
}

// Errors of a run. Documents that can't be read give a *document.Error.
var (
	ErrUnknown = errors.New("no built-in agent of that name; there are loader, classifier, pii-detector and reviewer")
	ErrInput   = errors.New("unfit input")
)

// Specs returns the agents and their data types.
func Specs() map[string]Spec {
	return map[string]Spec{
		Loader:     {Inputs: []string{Document}, Outputs: []string{Document}},
		Classifier: {Inputs: []string{Document}, Outputs: []string{Classification}},
		Detector:   {Inputs: []string{Document}, Outputs: []string{Findings, Document}},
		Reviewer:   {Inputs: []string{Document, Classification}, Optional: []string{Findings}, Outputs: []string{Review}},
	}
}

// Run runs the named agent. It returns ErrUnknown, ErrInput, a *document.Error, ctx's error, or what is wrong with the
// model.
func Run(ctx context.Context, agent string, in Input) (*Output, error) {
	var run func(context.Context, Input) (*Output, error)
	switch agent {
	case Loader:
		run = load
	case Classifier:
		run = classifyDocument
	case Detector:
		run = detect
	case Reviewer:
		run = reviewDocument
	default:
		return nil, fmt.Errorf("%.40q: %w", agent, ErrUnknown)
	}
	if err := parameterless(in.Parameters); err != nil {
		return nil, fmt.Errorf("%s: %w", agent, err)
	}
	out, err := run(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", agent, err)
	}
	return out, nil
}

// parameterless refuses parameters: no agent has any yet, and one that is ignored in silence would be believed.
func parameterless(raw json.RawMessage) error {
	if len(raw) == 0 {
		return nil
	}
	var p map[string]json.RawMessage
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("%w: parameters are not a JSON object", ErrInput)
	}
	if len(p) > 0 {
		return fmt.Errorf("%w: built-in agents take no parameters; remove them from the step", ErrInput)
	}
	return nil
}

// one returns the artifact of a type. Of several versions the last given is in force.
func (in Input) one(kind string) (Artifact, bool) {
	for i := len(in.Artifacts) - 1; i >= 0; i-- {
		if in.Artifacts[i].Type == kind {
			return in.Artifacts[i], true
		}
	}
	return Artifact{}, false
}

func (in Input) must(kind string) (Artifact, error) {
	a, ok := in.one(kind)
	if !ok {
		return a, fmt.Errorf("%w: needs a %s; let an earlier step make one and a data_sharing rule pass it on", ErrInput, kind)
	}
	return a, nil
}

// text reads the input's document.
func (in Input) text(ctx context.Context) (Artifact, *document.Document, error) {
	a, err := in.must(Document)
	if err != nil {
		return a, nil, err
	}
	doc, err := document.Read(ctx, document.File{Name: a.Name, MediaType: a.MediaType, Data: a.Data})
	if err != nil {
		return a, nil, fmt.Errorf("the document %w", err)
	}
	return a, doc, nil
}

func jsonArtifact(kind string, v any) (Artifact, error) {
	data, err := json.Marshal(v)
	return Artifact{Type: kind, Name: kind + ".json", MediaType: mediaJSON, Data: data}, err
}

// load checks that the document can be read and passes the original bytes on, with the media type that they have.
func load(ctx context.Context, in Input) (*Output, error) {
	a, doc, err := in.text(ctx)
	if err != nil {
		return nil, err
	}
	a.MediaType = doc.MediaType
	headline := fmt.Sprintf("%s, %d words", title(doc.MediaType), doc.Words())
	if doc.Pages > 1 {
		headline = fmt.Sprintf("%s, %d pages, %d words", title(doc.MediaType), doc.Pages, doc.Words())
	}
	return &Output{Artifacts: []Artifact{a}, Headline: headline}, nil
}

func title(mediaType string) string {
	switch mediaType {
	case document.PDF:
		return "PDF"
	case document.DOCX:
		return "DOCX"
	case document.Mail:
		return "e-mail"
	case document.HTML:
		return "HTML"
	case document.Markdown:
		return "Markdown"
	}
	return "text"
}
