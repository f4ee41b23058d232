package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fednode/flow/agent/builtin"
	"fednode/flow/agent/builtin/document"
)

// WorkerArg is the first argument of a re-executed worker.
const WorkerArg = "agent-worker"

// What may follow it: lock the memory, or become the program of the exec spec that follows.
const (
	argLock = "lock"
	argExec = "exec"
)

// opText is what a worker is asked for beside the builtins' names: a document's text.
const opText = "text"

// The first byte that a worker says, a builtin's on its standard output, a program's on its status file.
const (
	saysReady      = 'R' // confined
	saysSwappable  = 'S' // confined, but its memory could not be locked
	saysUnsealed   = 'X' // not confined; the reason follows
	saysUnstarted  = 'N' // confined, but the program cannot be executed; the reason follows
	exitNotStarted = 125
	statusFile     = 3
)

const (
	workerMemory = 1 << 30 // bytes of data that a builtin worker may have
	workerCPU    = 3600    // seconds of processor time in its life
	retireCPU    = 600     // seconds after which it is not given a further task
)

// WorkerMain is the whole program of a worker; it returns the exit code. The program's main calls it when the first
// argument is [WorkerArg].
func WorkerMain() int {
	switch args := os.Args[2:]; {
	case len(args) == 2 && args[0] == argExec:
		return execMain(args[1])
	case len(args) == 0 || args[0] == argLock:
		return builtinMain(len(args) > 0)
	}
	return 2
}

func builtinMain(lock bool) int {
	debug.SetMemoryLimit(workerMemory * 3 / 4)
	ready := byte(saysReady)
	if lock && unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE) != nil {
		ready = saysSwappable
	}
	err := closeInherited()
	if err == nil {
		err = confine(profile{memory: workerMemory, seconds: workerCPU})
	}
	if err != nil {
		fmt.Fprintf(os.Stdout, "%c%v", saysUnsealed, err)
		return exitNotStarted
	}
	if _, err := os.Stdout.Write([]byte{ready}); err != nil {
		return 1
	}
	return serve(os.Stdin, os.Stdout, work)
}

// serve does tasks until there are no more.
func serve(r io.Reader, w io.Writer, work func(*message) *message) int {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for {
		m, err := readMessage(in, MaxData)
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			return 4
		}
		reply := work(m)
		reply.Retire = processorTime() > retireCPU*time.Second
		if err := reply.write(out); err != nil {
			return 5
		}
		if err := out.Flush(); err != nil {
			return 5
		}
	}
}

func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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

// execMain confines this process and becomes the program. What goes wrong before is said on the status file, which the
// program does not inherit, so that no program can claim it.
func execMain(spec string) int {
	runtime.LockOSThread() // capabilities are the thread's, and it is this one that becomes the program
	unix.CloseOnExec(statusFile)
	status := os.NewFile(statusFile, "status")
	var s execSpec
	err := json.Unmarshal([]byte(spec), &s)
	if err == nil {
		err = closeInherited(statusFile)
	}
	if err == nil {
		err = confine(profile{exec: true, readable: s.Readable, scratch: s.Scratch, memory: s.Memory, seconds: s.Seconds})
	}
	if err != nil {
		fmt.Fprintf(status, "%c%v", saysUnsealed, err)
		return exitNotStarted
	}
	// Last, because a small limit leaves this Go program no room.
	if err = setLimit(unix.RLIMIT_AS, s.Memory); err == nil {
		err = syscall.Exec(s.Program, append([]string{s.Program}, s.Args...), s.Env)
	}
	fmt.Fprintf(status, "%c%v", saysUnstarted, err)
	return exitNotStarted
}
