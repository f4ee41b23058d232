package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"time"
)

// maxFile is the largest file Check reads, in bytes.
const maxFile = 1 << 20

// ErrNotAppliable is what [Report.Appliable] wraps.
var ErrNotAppliable = errors.New("the file can't be applied")

// Env is what a check may look at beside the file. The zero value looks at this
// machine's files and clock, and at no member entries.
type Env struct {
	// Now reads the wall clock; nil is time.Now.
	Now func() time.Time
	// FS is the folder of the file, where relative paths begin; nil is that
	// folder on this machine.
	FS fs.FS
	// Root is the file tree that absolute paths lead through, from "/" on; nil is
	// this machine's. Only certificates are read; of private keys only the
	// permissions are looked at.
	Root fs.FS
	// Member looks an organisation up in the member set; nil means that no
	// member set is at hand, and endpoints and certificates are not compared.
	Member func(OrgID) (Member, bool)
}

// Member is what a check compares with a member entry.
type Member struct {
	Endpoints []string // "host:port"
	Roots     []*x509.Certificate
}

func (e Env) now() time.Time {
	if e.Now == nil {
		return time.Now()
	}
	return e.Now()
}

// FindingSeverity says whether a file can be used.
type FindingSeverity string

// A warning leaves the file usable; an error doesn't.
const (
	SeverityWarning FindingSeverity = "warning"
	SeverityError   FindingSeverity = "error"
)

// Code names a class of findings. The list only grows.
type Code string

// The classes of findings.
const (
	CodeInvalid        Code = "invalid"          // the only error: see the text
	CodeNotEnforced    Code = "not-enforced"     // blocks apply
	CodeRefused        Code = "refused-by-apply" // blocks apply
	CodeBuiltinMissing Code = "builtin-missing"  // a foreign engine whose built-in isn't in this version; blocks apply
	CodeMemberDiffers  Code = "member-differs"   // contradicts the member entry; blocks apply
	CodeNotMember      Code = "not-a-member"     // blocks apply
	CodePartly         Code = "partly-enforced"
	CodeSelectsBuiltin Code = "selects-builtin"
	CodeNotCompared    Code = "not-compared" // no member set at hand
	CodeMissingFile    Code = "missing-file"
	CodeBadFile        Code = "bad-file"
	CodeExpired        Code = "expired"
	CodeNotYet         Code = "not-yet-effective"
	CodeUnsigned       Code = "unsigned" // an envelope the wire refuses
)

// Blocks reports whether a finding of this class keeps apply from working.
func (c Code) Blocks() bool {
	switch c {
	case CodeInvalid, CodeNotEnforced, CodeRefused, CodeBuiltinMissing, CodeMemberDiffers, CodeNotMember:
		return true
	}
	return false
}

// A Finding is one thing an operator should know about a file. Line and Col
// count from 1. Path names a place (participants[0].id), or a field wherever it
// stands (participants[].id); then the position is the first one.
type Finding struct {
	Path     string          `json:"path"`
	Line     int             `json:"line"`
	Col      int             `json:"col"`
	Severity FindingSeverity `json:"severity"`
	Code     Code            `json:"code"`
	Text     string          `json:"text"`
	Mend     string          `json:"mend,omitempty"`
}

// String is the finding in one line, without the file's name.
func (f Finding) String() string {
	s := fmt.Sprintf("%d:%d: %s: ", f.Line, f.Col, f.Severity)
	if f.Path != "" {
		s += f.Path + ": "
	}
	s += f.Text
	if f.Mend != "" {
		s += "; " + f.Mend
	}
	return s
}

// Report is what a check found in one file. Fields counts the values in it.
type Report struct {
	Kind     Kind      `json:"kind"`
	Name     string    `json:"name"`
	Fields   int       `json:"fields"`
	Findings []Finding `json:"findings"`
}

// Failed reports whether the file can't be used at all.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == SeverityError })
}

// Appliable returns nil when this version honours every field of the file, and
// otherwise an error that wraps [ErrNotAppliable] and names each field it
// doesn't.
func (r *Report) Appliable() error {
	var reasons []string
	for _, f := range r.Findings {
		if f.Code.Blocks() {
			reasons = append(reasons, fmt.Sprintf("line %d: %s: %s", f.Line, f.Path, f.Text))
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return fmt.Errorf("%s (%s): %w: %d of its fields would have to be honoured and are not:\n  %s",
		r.Name, r.Kind, ErrNotAppliable, len(reasons), strings.Join(reasons, "\n  "))
}

// Check reads a configuration file of any kind, or a reference envelope, and
// reports what this version makes of it. Name is used in messages, and its
// folder is where relative paths in the file begin.
//
// The error is nil for a usable file, whatever the warnings. Otherwise it joins
// one *strictyaml.Error for everything that is wrong, in the order of the file;
// the report, never nil, lists the same as findings of severity error.
func Check(name string, data []byte, env Env) (*Report, error) {
	r := &Report{Name: name}
	if len(data) > maxFile {
		return r.fail(fmt.Errorf("%s has %d bytes; %d is the limit", name, len(data), maxFile))
	}
	k, err := recognise(name, data)
	if err != nil {
		return r.fail(err)
	}
	r.Kind = k.name
	c, _, err := k.inspect(name, data, env)
	if c != nil {
		r.Fields = len(c.leaves)
	}
	if err != nil {
		return r.fail(err)
	}
	r.Findings = append(c.findings, k.rule(c)...)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return r, nil
}

// fail turns the errors in err into findings.
func (r *Report) fail(err error) (*Report, error) {
	for _, e := range flatten(err) {
		p := asError(r.Name, e)
		f := Finding{Path: p.Path, Line: p.Line, Col: p.Col, Severity: SeverityError, Code: CodeInvalid, Text: p.Text}
		if p.Suggestion != "" {
			f.Mend = fmt.Sprintf("did you mean %q?", p.Suggestion)
		}
		r.Findings = append(r.Findings, f)
	}
	return r, err
}

// inspect decodes a file of this kind and checks it to the last key. The
// checker is nil when the file couldn't be decoded.
func (k kind) inspect(name string, data []byte, env Env) (*checker, any, error) {
	document, err := k.decode(name, data)
	if err != nil {
		return nil, nil, err
	}
	c, err := newChecker(name, data, env)
	if err != nil {
		return nil, nil, err
	}
	required := map[string]bool{}
	for _, p := range k.required {
		required[p] = true
	}
	c.walk(reflect.ValueOf(document), c.root, "", "", required)
	k.check(c, document)
	slices.SortStableFunc(c.errs, func(a, b error) int {
		x, y := asError(name, a), asError(name, b)
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Col, y.Col))
	})
	return c, document, errors.Join(c.errs...)
}

// Document is any of the typed documents of this package.
type Document interface {
	Audit | Deployment | IAM | IncidentResponse | Learning | Monitoring | Security | Storage | Computation
}

// Parse reads a file that is known to be of one kind. The error joins one
// *strictyaml.Error for everything that is wrong with it.
func Parse[T Document](name string, data []byte) (*T, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s has %d bytes; %d is the limit", name, len(data), maxFile)
	}
	for _, k := range kinds() {
		if _, ok := k.document.(T); !ok {
			continue
		}
		_, document, err := k.inspect(name, data, Env{FS: noFiles{}, Root: noFiles{}})
		if err != nil {
			return nil, err
		}
		return document.(*T), nil
	}
	return nil, fmt.Errorf("%s: no kind has documents of type %T", name, *new(T))
}

// noFiles is a machine without files.
type noFiles struct{}

func (noFiles) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}
