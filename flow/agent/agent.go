// Package agent runs the agents that do a step's work.
//
// Its three nouns: an [Agent] takes artifacts and gives artifacts, as its [Spec] declares; a worker is the confined
// process in which local agents run, builtins too, because they read what strangers wrote; a [Set] is the agents that
// one node has, by name.
//
// It promises that an agent gets no socket, no file and no program that its configuration does not name; that data
// under no-storage or no-extraction gets a fresh worker without a writable path; that what an agent does wrong (hanging,
// crashing, flooding, lying about its outputs) fails its own task with an [Error] that says what, and nothing else.
package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxData bounds what a task takes and gives together, in bytes.
const MaxData = 192 << 20

// An Artifact is an input or output in full.
type Artifact struct {
	Type      string // data type
	Name      string // file name, if it has one
	MediaType string
	Data      []byte
}

// A Spec says what an agent takes and gives, as data types.
type Spec struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Inputs   []string `json:"inputs"`             // it cannot do without
	Optional []string `json:"optional,omitempty"` // it uses when it gets them
	Outputs  []string `json:"outputs"`
}

// A Task is one execution.
type Task struct {
	IdempotencyKey string
	Run            string
	Step           string
	Agent          string
	Attempt        int
	Purpose        string
	Inputs         []Artifact
	Parameters     json.RawMessage
	NoStorage      bool
	NoExtraction   bool

	OwnerAllowsCallOut bool // the data's owner lets it go to an http or llm agent's service
}

func (t Task) restricted() bool { return t.NoStorage || t.NoExtraction }

// A Result is what a task came to. The headline is for this organisation's people; it lives in memory only.
type Result struct {
	Outputs          []Artifact
	Headline         string
	PromptCommitment []byte // of an llm: HMAC-SHA-256(PromptSalt, prompt)
	PromptSalt       []byte
}

// An Agent does one kind of work. Run may be called concurrently.
type Agent interface {
	Spec() Spec
	Run(ctx context.Context, t Task) (*Result, error)
}

// A Kind classifies what an agent did wrong. Kinds are append-only: they are told to the other organisation.
type Kind string

// The kinds of errors.
const (
	KindIsolation   Kind = "isolation"   // the worker could not be confined
	KindRefused     Kind = "refused"     // the data's restrictions exclude this agent
	KindInput       Kind = "input"       // the input cannot be read
	KindTimeout     Kind = "timeout"     // no result in time
	KindCrashed     Kind = "crashed"     // ended by a signal or an exit code
	KindOutput      Kind = "output"      // the output is not what the protocol asks for
	KindUndeclared  Kind = "undeclared"  // an output of a type that was not declared
	KindFlood       Kind = "flood"       // more output than allowed
	KindUnavailable Kind = "unavailable" // the service does not answer
	KindSchema      Kind = "schema"      // the model's answer does not fit the schema
	KindBudget      Kind = "budget"      // more tokens than allowed
)

// An Error is what an agent's task failed of. Its text never holds data of the task.
type Error struct {
	Agent string
	Kind  Kind
	Text  string
}

func (e *Error) Error() string { return fmt.Sprintf("agent %s: %s", e.Agent, e.Text) }

func fail(agent string, kind Kind, format string, a ...any) *Error {
	return &Error{agent, kind, fmt.Sprintf(format, a...)}
}

// maxName bounds the name of an artifact, in bytes.
const maxName = 255

// checkOutputs refuses what the spec does not declare, and names that are none.
func checkOutputs(s Spec, outputs []Artifact) error {
	for i, o := range outputs {
		if !isLabel(o.Name, maxName) || !isLabel(o.MediaType, 128) {
			return fail(s.Name, KindOutput, "outputs[%d] has a name or media type that is too long or has control characters", i)
		}
		if !slices.Contains(s.Outputs, o.Type) {
			return fail(s.Name, KindUndeclared, "made an output of a type that it does not declare; it declares %v", s.Outputs)
		}
	}
	return nil
}

// Label makes a file name that people or peers gave fit for an artifact: what is no character to be seen becomes '_', and
// what is too long is cut.
func Label(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, name)
	for len(name) > maxName {
		_, size := utf8.DecodeRuneInString(name) // from the front: the extension says what it is
		name = name[size:]
	}
	return name
}

func isLabel(s string, longest int) bool {
	return len(s) <= longest && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
