package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"fednode/flow/agent"
	"fednode/flow/agent/builtin"
)

// A trace is a place on a disk where something stands that was not to be stored.
type trace struct {
	File   string `json:"file"`
	Offset int    `json:"offset"`
	What   string `json:"what"` // the document, and what of it
}

// A traceScanner looks for data in files: windows of its bytes, taken at every multiple of half the length that counts
// as a trace, and short values as a whole; both plainly and in base64 at its three alignments.
type traceScanner struct {
	windows map[[window]byte]source     // → what it is a piece of
	values  map[[minValue]byte][]needle // by their beginning
}

// A source is what a trace came from: a document, and what of it or made of it.
type source struct{ document, what string }

func (s source) String() string {
	if s.what == "" {
		return s.document
	}
	return s.what + " of " + s.document
}

type needle struct {
	bytes []byte
	of    source
}

const (
	window     = 16
	traceBytes = 2 * window // of consecutive bytes are found, wherever they begin
	minValue   = 10         // bytes of a value that is looked for; shorter ones occur by themselves
	maxWindows = 1 << 16    // of one piece of data, to bound memory: beyond 1 MiB they are taken further apart
)

func newTraceScanner() *traceScanner {
	return &traceScanner{map[[window]byte]source{}, map[[minValue]byte][]needle{}}
}

// add makes the scanner look for data. Runs of one byte and the formats' own boilerplate, which two documents share,
// are no traces.
func (s *traceScanner) add(of source, data []byte) {
	s.addWindows(of, data)
	for shift := range min(3, len(data)) {
		s.addWindows(of, []byte(base64.StdEncoding.EncodeToString(data[shift:])))
	}
}

func (s *traceScanner) addWindows(of source, data []byte) {
	step := max(window, len(data)/maxWindows)
	for i := 0; i+window <= len(data); i += step {
		w := [window]byte(data[i:])
		if bytes.Count(w[:], w[:1]) >= window-2 {
			continue
		}
		switch other, ok := s.windows[w]; {
		case !ok:
			s.windows[w] = of
		case other.document != of.document:
			s.windows[w] = source{} // shared by two documents: boilerplate
		}
	}
}

// addValue makes the scanner look for a value as a whole. In base64 the characters at either end depend on what stands
// beside it; it is found by those between.
func (s *traceScanner) addValue(of source, value string) {
	forms := []string{value}
	for before := range 3 {
		padded := base64.RawStdEncoding.EncodeToString([]byte("\x00\x00"[:before] + value))
		forms = append(forms, padded[(before*8+5)/6:(before+len(value))*8/6])
	}
	for _, form := range forms {
		if len(value) >= minValue && len(form) >= minValue {
			at := [minValue]byte([]byte(form))
			s.values[at] = append(s.values[at], needle{[]byte(form), of})
		}
	}
}

// find returns what b holds a trace of, and where.
func (s *traceScanner) find(b []byte) (of source, offset int, found bool) {
	for i := 0; i+minValue <= len(b); i++ {
		if i+window <= len(b) {
			if of := s.windows[[window]byte(b[i:])]; of != (source{}) {
				return of, i, true
			}
		}
		for _, n := range s.values[[minValue]byte(b[i:])] {
			if bytes.HasPrefix(b[i:], n.bytes) {
				return n.of, i, true
			}
		}
	}
	return source{}, 0, false
}

// search looks through all files in dir; the traces name them relative to root.
func (s *traceScanner) search(root, dir string) (files int, traces []trace, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if of, at, found := s.find(b); found {
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			traces = append(traces, trace{name, at, of.String()})
		}
		return nil
	})
	return files, traces, err
}

// unreadable reports whether an agent failed of the document, as it would have at the node that runs it.
func unreadable(err error) bool {
	e := new(agent.Error)
	return errors.As(err, &e) && (e.Kind == agent.KindInput || e.Kind == agent.KindCrashed)
}

// addDocument makes the scanner look for a document: its bytes as they came, the text in it, what classifier and
// detector make of it, and each thing that the detector found. Documents are read in confined workers, as by the nodes;
// of one that an agent can't read, what that agent would make is not looked for, since nobody can have it.
func (s *traceScanner) addDocument(ctx context.Context, agents *agent.Set, doc document) error {
	s.add(source{doc.name, ""}, doc.data)
	in := agent.Artifact{Type: builtin.Document, Name: agent.Label(doc.name), MediaType: mediaType(doc.name), Data: doc.data}
	text, err := agents.ExtractText(ctx, in)
	if unreadable(err) {
		return nil
	} else if err != nil {
		return err
	}
	s.add(source{doc.name, "the text"}, text)
	for _, name := range []string{"document-classifier", "pii-detector"} {
		a, ok := agents.Get(name)
		if !ok {
			return fmt.Errorf("there is no agent %s", name)
		}
		res, err := a.Run(ctx, agent.Task{Inputs: []agent.Artifact{in}, NoExtraction: true}) // this process has the document anyhow
		if unreadable(err) {
			continue
		} else if err != nil {
			return err
		}
		for _, out := range res.Outputs {
			of := source{doc.name, "the " + out.Type + " made"}
			s.add(of, out.Data)
			s.addValue(of, string(out.Data)) // two documents may have the same classification
			if out.Type != builtin.Findings {
				continue
			}
			var found builtin.PIIFindings
			if err := json.Unmarshal(out.Data, &found); err != nil {
				return err
			}
			for _, f := range found.Findings {
				if f.Start < 0 || f.End > len(text) || f.Start > f.End {
					return fmt.Errorf("%s: a finding lies outside of the text", doc.name)
				}
				s.addValue(source{doc.name, "a " + f.Type}, string(text[f.Start:f.End]))
			}
		}
	}
	return nil
}

// scan searches the data directories of the organisations that were not to store anything for traces of the documents.
// The agents that read them once more work in scratch.
func (d *demo) scan(ctx context.Context, docs []document, scratch string) (err error) {
	agents, err := agent.NewSet(nil, agent.Env{Dir: scratch})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agents.Close()) }()
	s := newTraceScanner()
	for _, doc := range docs {
		if doc.err != nil {
			continue
		}
		if err := s.addDocument(ctx, agents, doc); err != nil {
			return fmt.Errorf("disk scan: %s: %w", doc.name, err)
		}
	}
	scan := &d.result.Scan
	scan.Traces = []trace{}
	for _, o := range d.orgs[1:] {
		files, traces, err := s.search(filepath.Dir(o.dir), o.dir)
		if err != nil {
			return fmt.Errorf("disk scan: %w", err)
		}
		scan.Files += files
		scan.Traces = append(scan.Traces, traces...)
	}
	for _, t := range scan.Traces {
		fmt.Fprintf(d.text, "%s %s holds a trace of %s at offset %d\n", d.paint.bad("✗"), t.File, clean(t.What), t.Offset)
	}
	if len(scan.Traces) == 0 {
		fmt.Fprintf(d.text, "%s disk scan: 0 traces of no-storage data in %d files of org-b and org-c\n", d.paint.good("✓"), scan.Files)
	}
	return nil
}
