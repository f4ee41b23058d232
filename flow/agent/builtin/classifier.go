package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"fednode/flow/agent/builtin/classify"
	"fednode/flow/agent/builtin/document"
)

// A Model is what the classifier judges by; its bytes are Input.Model.
type Model = classify.Model

// A Report says how good a trained model is.
type Report = classify.Report

// A Judgement is the classification artifact.
type Judgement struct {
	Label  string             `json:"label"`
	Score  float64            `json:"score"`  // probability of Label, 0 to 1
	Scores map[string]float64 `json:"scores"` // of every class; they sum to 1 but for rounding
	Model  string             `json:"model"`  // SHA-256 of the model's bytes, hexadecimal
}

func classifyDocument(ctx context.Context, in Input) (*Output, error) {
	model, err := classify.Default()
	if in.Model != nil {
		model, err = classify.Parse(in.Model)
	}
	if err != nil {
		return nil, err
	}
	_, doc, err := in.text(ctx)
	if err != nil {
		return nil, err
	}
	v := model.Classify(doc.Text)
	a, err := jsonArtifact(Classification, Judgement{Label: v.Label, Score: v.Score, Scores: v.Scores, Model: model.Hash()})
	if err != nil {
		return nil, err
	}
	return &Output{Artifacts: []Artifact{a}, Headline: v.Label + " " + brief(v.Score)}, nil
}

// brief writes a probability as ".93"; certainty is not on offer.
func brief(p float64) string {
	return strings.TrimPrefix(fmt.Sprintf("%.2f", min(max(p, 0), 0.99)), "0")
}

// CheckModel says what is wrong with a model's bytes.
func CheckModel(data []byte) error {
	_, err := classify.Parse(data)
	return err
}

// Train makes a model of labelled documents in fsys, DIR/<class>/<file>, of any kind that the loader reads. Hidden files
// are passed over; files that can't be read are listed in the report and left out. It needs two classes of five
// documents or more.
func Train(fsys fs.FS) (*Model, Report, error) {
	ctx := context.Background()
	var examples []classify.Example
	var skipped []string
	classes, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, Report{}, fmt.Errorf("training documents: %w", err)
	}
	for _, class := range classes {
		if !class.IsDir() || strings.HasPrefix(class.Name(), ".") {
			continue
		}
		files, err := fs.ReadDir(fsys, class.Name())
		if err != nil {
			return nil, Report{}, fmt.Errorf("training documents: %w", err)
		}
		for _, file := range files {
			name := path.Join(class.Name(), file.Name())
			if file.IsDir() || strings.HasPrefix(file.Name(), ".") {
				continue
			}
			text, err := readExample(ctx, fsys, name)
			var unreadable *document.Error
			if errors.As(err, &unreadable) {
				skipped = append(skipped, name+" "+err.Error())
				continue
			}
			if err != nil {
				return nil, Report{}, fmt.Errorf("training documents: %w", err)
			}
			examples = append(examples, classify.Example{Label: class.Name(), Text: text, Group: name})
		}
	}
	model, report, err := classify.Train(examples)
	if err != nil {
		return nil, Report{}, err
	}
	report.Skipped = skipped
	return model, report, nil
}

func readExample(ctx context.Context, fsys fs.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, document.MaxBytes+1))
	if err != nil {
		return "", err
	}
	doc, err := document.Read(ctx, document.File{Name: path.Base(name), Data: data})
	if err != nil {
		return "", err
	}
	return doc.Text, nil
}
