package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"fednode/flow/agent/builtin/pii"
	"fednode/flow/agent/builtin/review"
)

// ReviewResult is the review-result artifact.
type ReviewResult = review.Assessment

// reviewDocument rates the document by its text, its class and, where given, what the detector found.
func reviewDocument(ctx context.Context, in Input) (*Output, error) {
	judgement, err := in.judgement()
	if err != nil {
		return nil, err
	}
	_, doc, err := in.text(ctx)
	if err != nil {
		return nil, err
	}
	facts := review.Facts{Text: doc.Text, Class: judgement.Label, Confidence: judgement.Score, Left: pii.Counts(pii.Find(doc.Text))}
	if a, ok := in.one(Findings); ok {
		var f PIIFindings
		if err := json.Unmarshal(a.Data, &f); err != nil {
			return nil, fmt.Errorf("%w: the %s are not the JSON that pii-detector makes", ErrInput, Findings)
		}
		facts.Found = f.Counts
	}
	result := review.Assess(facts)
	a, err := jsonArtifact(Review, result)
	if err != nil {
		return nil, err
	}
	return &Output{Artifacts: []Artifact{a}, Headline: result.Risk}, nil
}

// judgement reads the classification. Another classifier may have made it: fields beyond label and score are passed
// over, and the label, which stands in the result, must be a name.
func (in Input) judgement() (Judgement, error) {
	var j Judgement
	a, err := in.must(Classification)
	if err != nil {
		return j, err
	}
	var wire struct {
		Label string  `json:"label"`
		Score float64 `json:"score"`
	}
	if err := json.Unmarshal(a.Data, &wire); err != nil {
		return j, fmt.Errorf("%w: the %s is not JSON with label and score", ErrInput, Classification)
	}
	j.Label, j.Score = wire.Label, wire.Score
	if j.Label == "" || len(j.Label) > 64 || strings.ContainsFunc(j.Label, unfit) {
		return j, fmt.Errorf("%w: the %s's label is not a name of letters, digits, hyphens, underscores and full stops", ErrInput, Classification)
	}
	if j.Score < 0 || j.Score > 1 {
		return j, fmt.Errorf("%w: the %s's score is not between 0 and 1", ErrInput, Classification)
	}
	return j, nil
}

func unfit(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}
