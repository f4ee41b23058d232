package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"

	"fednode/flow/agent/builtin"
	"fednode/flow/agent/builtin/document"
)

// WorkerArg is the first argument of a re-executed worker.
const WorkerArg = "agent-worker"

// opText is what a worker is asked for beside the builtins' names: a document's text.
const opText = "text"

// The worker's first byte on its standard output: confined, or not, in which case the reason follows.
const (
	saysReady    = 'R'
	saysUnsealed = 'X'
)

const workerMemory = 1 << 30 // bytes of data that a builtin worker may have

// WorkerMain is the whole program of a worker; it returns the exit code. The program's main calls it when the first
// argument is [WorkerArg].
func WorkerMain() int {
	if len(os.Args) > 2 {
		return execMain(os.Args[2])
	}
	debug.SetMemoryLimit(workerMemory * 3 / 4)
	out := bufio.NewWriter(os.Stdout)
	if err := confine(profile{memory: workerMemory, seconds: 600}); err != nil {
		fmt.Fprintf(os.Stdout, "%c%v", saysUnsealed, err)
		return 3
	}
	if _, err := os.Stdout.Write([]byte{saysReady}); err != nil {
		return 1
	}
	in := bufio.NewReader(os.Stdin)
	for {
		m, err := readMessage(in, MaxData)
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			return 4
		}
		if err := work(m).write(out); err != nil {
			return 5
		}
		if err := out.Flush(); err != nil {
			return 5
		}
	}
}

// work does one task; a panic in a parser is that task's failure.
func work(m *message) (out *message) {
	defer func() {
		if p := recover(); p != nil {
			out = &message{Failure: fail(m.Agent, KindCrashed, "the document made its reader fail; it is damaged or hostile")}
		}
	}()
	if m.Agent == opText {
		return text(m)
	}
	in := builtin.Input{Purpose: m.Input.Purpose, Parameters: m.Input.Parameters, NoStorage: m.Input.NoStorage, NoExtraction: m.Input.NoExtraction, Model: m.Input.Model}
	for _, a := range m.artifacts() {
		in.Artifacts = append(in.Artifacts, builtin.Artifact(a))
	}
	res, err := builtin.Run(context.Background(), m.Agent, in)
	if err != nil {
		return &message{Failure: fail(m.Agent, KindInput, "%v", err)}
	}
	out = &message{Headline: res.Headline}
	for _, a := range res.Artifacts {
		out.add(Artifact(a))
	}
	return out
}

func text(m *message) *message {
	if len(m.data) != 1 {
		return &message{Failure: fail(opText, KindInput, "one document at a time")}
	}
	a := m.artifacts()[0]
	doc, err := document.Read(context.Background(), document.File{Name: a.Name, MediaType: a.MediaType, Data: a.Data})
	if err != nil {
		return &message{Failure: fail(opText, KindInput, "the document %v", err)}
	}
	out := &message{}
	out.add(Artifact{Type: a.Type, MediaType: "text/plain; charset=utf-8", Data: []byte(doc.Text)})
	return out
}

// An execSpec tells a worker what to become.
type execSpec struct {
	Program  string   `json:"program"`
	Args     []string `json:"args"`
	Env      []string `json:"env"`
	Readable []string `json:"readable"`
	Scratch  string   `json:"scratch,omitempty"`
	Memory   uint64   `json:"memory"`
	Seconds  uint64   `json:"seconds"`
}

// execMain confines this process and becomes the program. What goes wrong before is said on standard error, with an
// exit code of its own.
func execMain(spec string) int {
	var s execSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitNotConfined
	}
	if err := confine(profile{exec: true, readable: s.Readable, scratch: s.Scratch, memory: s.Memory, seconds: s.Seconds}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitNotConfined
	}
	err := syscall.Exec(s.Program, append([]string{s.Program}, s.Args...), s.Env)
	fmt.Fprintln(os.Stderr, err)
	return exitNotStarted
}

const (
	exitNotConfined = 125
	exitNotStarted  = 126
)
