package cli

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A traceScanner looks for pieces of documents in files: windows of their bytes, taken at every multiple of half the
// length that counts as a trace, plainly and in base64 at its three alignments.
type traceScanner struct {
	needles map[[traceBytes / 2]byte]string // window → document
}

// traceBytes is how many consecutive bytes of a document count as a trace of it.
const traceBytes = 32

func newTraceScanner() *traceScanner {
	return &traceScanner{needles: map[[traceBytes / 2]byte]string{}}
}

// add makes the scanner look for data. Runs of one byte and the formats' own boilerplate, which two documents share,
// are no traces.
func (s *traceScanner) add(name string, data []byte) {
	s.windows(name, data)
	for shift := range 3 {
		if len(data) > shift {
			s.windows(name, []byte(base64.StdEncoding.EncodeToString(data[shift:])))
		}
	}
}

func (s *traceScanner) windows(name string, data []byte) {
	const n = traceBytes / 2
	for i := 0; i+n <= len(data); i += n {
		w := [n]byte(data[i:])
		if bytes.Count(w[:], w[:1]) >= n-2 {
			continue
		}
		if other, ok := s.needles[w]; ok && other != name {
			s.needles[w] = "" // shared by two documents: boilerplate
			continue
		}
		s.needles[w] = name
	}
}

// find returns the document that b holds a trace of.
func (s *traceScanner) find(b []byte) (document string, offset int, found bool) {
	const n = traceBytes / 2
	for i := 0; i+n <= len(b); i++ {
		if name := s.needles[[n]byte(b[i:])]; name != "" {
			return name, i, true
		}
	}
	return "", 0, false
}

// scan searches the data directories of the organisations that were not to store anything for traces of the
// documents, and of the text in those that are plain text.
func (d *demo) scan(docs []document) error {
	s := newTraceScanner()
	for _, doc := range docs {
		s.add(doc.name, doc.data)
	}
	files, traces := 0, 0
	for _, o := range d.orgs[1:] {
		err := filepath.WalkDir(o.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			if name, at, found := s.find(b); found {
				traces++
				fmt.Fprintf(d.out, "%s %s holds a trace of %s at offset %d\n", d.paint.bad("✗"), strings.TrimPrefix(path, filepath.Dir(o.dir)+"/"), name, at)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if traces > 0 {
		d.failed++
		return nil
	}
	fmt.Fprintf(d.out, "%s disk scan: 0 traces of no-storage data in %d files of org-b and org-c\n", d.paint.good("✓"), files)
	return nil
}
