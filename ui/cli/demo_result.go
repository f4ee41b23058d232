package cli

import (
	"errors"
	"fmt"

	"fednode/flow"
	"fednode/transport"
)

// A demoResult is what the demo came to, as --output json prints it.
type demoResult struct {
	FederationID string                                `json:"federation_id"`
	Agreement    string                                `json:"agreement"` // hash
	Documents    []demoDocument                        `json:"documents"`
	Withheld     []withheld                            `json:"withheld"`
	Saw          map[transport.OrgID]map[string]string `json:"saw"` // what of each data type, by the organisation's own account
	Scan         demoScan                              `json:"disk_scan"`
	Receipts     int                                   `json:"receipts"` // verified
	Logs         int                                   `json:"logs"`     // that they are in
	Unproven     []string                              `json:"unproven"` // what did not verify
	Seconds      float64                               `json:"seconds"`
}

// A demoDocument is one document's way through the workflow.
type demoDocument struct {
	Name  string     `json:"name"`
	Run   flow.RunID `json:"run,omitempty"`
	State flow.State `json:"state"`
	Error string     `json:"error,omitempty"` // of a document for which no run began
	Steps []demoStep `json:"steps"`           // as far as the run came
}

type demoStep struct {
	ID           string          `json:"id"`
	Organization transport.OrgID `json:"organization_id"`
	Agent        string          `json:"agent"`
	State        flow.State      `json:"state"`
	Headline     string          `json:"headline,omitempty"`
	Automatic    bool            `json:"automatic,omitempty"`
	Error        string          `json:"error,omitempty"`
}

// withheld counts how often a data type was not passed on.
type withheld struct {
	flow.Withheld
	Times int `json:"times"`
}

// A demoScan is what the search of the disks found.
type demoScan struct {
	Files  int     `json:"files"`
	Traces []trace `json:"traces"`
}

// failure is the error of a demo that did not show what it promises.
func (r *demoResult) failure() error {
	var errs []error
	if n := len(r.Scan.Traces); n > 0 {
		errs = append(errs, fmt.Errorf("%s of data that was not to be stored", plural(n, "trace")))
	}
	if n := len(r.Unproven); n > 0 {
		errs = append(errs, fmt.Errorf("%s failed", plural(n, "verification")))
	}
	return errors.Join(errs...)
}

// incomplete is the error of a demo some of whose documents did not go through.
func (r *demoResult) incomplete() error {
	n := 0
	for _, doc := range r.Documents {
		if doc.State != flow.StateCompleted {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d documents did not go through; each says above why", n, len(r.Documents))
}
