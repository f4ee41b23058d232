package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// systemPaths are what programs and interpreters need to start, read and execute only.
var systemPaths = []string{"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives"}

const (
	defaultMemory = 2 << 30
	maxStderr     = 4 << 10
	execCPU       = 3600 // seconds of processor time
)

// execAgent runs a program for each task, confined.
type execAgent struct {
	spec    Spec
	config  Config
	scratch string
	log     *slog.Logger
	pool    *pool
}

func newExec(name string, c Config, scratch string, log *slog.Logger, p *pool) (Agent, error) {
	if st, err := os.Stat(c.Command[0]); err != nil {
		return nil, configError(name, "command: %w", err)
	} else if st.IsDir() || st.Mode()&0o111 == 0 {
		return nil, configError(name, "command: %s is not executable; chmod +x it", c.Command[0])
	}
	for _, path := range c.Paths {
		if _, err := os.Stat(path); err != nil {
			return nil, configError(name, "paths: %w", err)
		}
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, configError(name, "scratch folder: %w", err)
	}
	return &execAgent{Spec{name, "exec", c.Inputs, c.Optional, c.Outputs}, c, scratch, log, p}, nil
}

func (a *execAgent) Spec() Spec { return a.spec }

func (a *execAgent) Run(ctx context.Context, t Task) (*Result, error) {
	if t.NoStorage && a.pool.swapActive() { // a lock on memory does not outlive the start of a program
		return nil, fail(a.spec.Name, KindRefused, "%s", swapRefusal)
	}
	in, err := encodeTask(t)
	if err != nil {
		return nil, fail(a.spec.Name, KindInput, "task cannot be written: %v", err)
	}
	spec := execSpec{Program: a.config.Command[0], Args: a.config.Command[1:], Memory: uint64(a.config.Memory), Seconds: execCPU,
		Env:      []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "FEDNODE_IDEMPOTENCY_KEY=" + t.IdempotencyKey},
		Readable: append(append([]string{a.config.Command[0]}, systemPaths...), a.config.Paths...)}
	if spec.Memory == 0 {
		spec.Memory = defaultMemory
	}
	if !t.restricted() { // restricted data gets no folder that could be written to
		if spec.Scratch, err = os.MkdirTemp(a.scratch, "task-"); err != nil {
			return nil, fail(a.spec.Name, KindIsolation, "scratch folder: %v", err)
		}
		spec.Env = append(spec.Env, "TMPDIR="+spec.Scratch)
		defer func() {
			if err := discard(spec.Scratch); err != nil {
				a.log.Error("scratch folder of an agent cannot be removed", "agent", a.spec.Name, "run", t.Run, "err", err)
			}
		}()
	}
	return a.program(ctx, t, spec, in)
}

func (a *execAgent) program(ctx context.Context, t Task, spec execSpec, in []byte) (*Result, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fail(a.spec.Name, KindIsolation, "%v", err)
	}
	status, childStatus, err := os.Pipe()
	if err != nil {
		return nil, fail(a.spec.Name, KindIsolation, "cannot be started: %v", err)
	}
	defer status.Close()
	defer childStatus.Close()
	cmd := exec.Command("/proc/self/exe", WorkerArg, argExec, string(text))
	cmd.Env = []string{}
	if cmd.Dir = spec.Scratch; cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin = bytes.NewReader(in)
	cmd.ExtraFiles = []*os.File{childStatus} // descriptor statusFile there
	out, stderr := &bounded{limit: maxReply}, &bounded{limit: maxStderr, drop: true}
	cmd.Stdout, cmd.Stderr = out, stderr
	running := make(chan *process, 1)
	out.full = func() { (<-running).kill() }
	x, err := a.pool.start(cmd)
	switch {
	case errors.Is(err, errClosed):
		return nil, fail(a.spec.Name, KindUnavailable, "was not started: %v", errClosed)
	case err != nil:
		return nil, fail(a.spec.Name, KindIsolation, "cannot be started: %v", err)
	}
	running <- x
	undo := x.killWith(ctx)
	defer undo()
	childStatus.Close()
	x.await()
	<-x.done
	if stderr.kept.Len() > 0 && !t.restricted() { // it may quote the data: only for who debugs the agent
		a.log.Debug("agent wrote to standard error", "agent", a.spec.Name, "run", t.Run, "text", stderr.kept.String())
	}
	said, _ := io.ReadAll(io.LimitReader(status, 1024)) // ended: all who could write to it have
	if len(said) > 0 {
		reason := printable(string(said[1:]), 300)
		if said[0] == saysUnstarted {
			return nil, fail(a.spec.Name, KindCrashed, "%s cannot be executed (%s); check the file, its interpreter, memory and paths", a.config.Command[0], reason)
		}
		return nil, fail(a.spec.Name, KindIsolation, "was not started: its process could not be confined (%s)", reason)
	}
	return a.answer(ctx, x, out)
}

// answer judges how the program ended and reads what it wrote.
func (a *execAgent) answer(ctx context.Context, x *process, out *bounded) (*Result, error) {
	var exit *exec.ExitError
	switch {
	case out.over:
		return nil, fail(a.spec.Name, KindFlood, "wrote more than %d bytes", maxReply)
	case x.err != nil && ctx.Err() != nil:
		return nil, fail(a.spec.Name, KindTimeout, "did not finish in time; raise its timeout or the step's")
	case errors.As(x.err, &exit):
		return nil, fail(a.spec.Name, KindCrashed, "%s ended with %s", filepath.Base(a.config.Command[0]), exit.ProcessState)
	case x.err != nil && !errors.Is(x.err, syscall.EPIPE):
		return nil, fail(a.spec.Name, KindCrashed, "its pipes failed: %v", x.err)
	case len(bytes.TrimSpace(out.kept.Bytes())) == 0:
		return nil, fail(a.spec.Name, KindOutput, "ended without an answer on its standard output")
	}
	return decodeReply(a.spec, out.kept.Bytes())
}

// discard removes a scratch folder, also one whose folders the program made unreadable to their owner.
func discard(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// bounded keeps what is written up to a limit. Beyond it, it drops the rest or fails, having called full once. The
// buffer is not embedded: its ReadFrom, which io.Copy would find, knows no limit.
type bounded struct {
	kept  bytes.Buffer
	limit int
	drop  bool
	over  bool
	full  func()
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.kept.Len()
	if len(p) <= room {
		return b.kept.Write(p)
	}
	b.kept.Write(p[:room])
	if b.drop {
		return len(p), nil
	}
	if !b.over {
		b.over = true
		b.full()
	}
	return 0, fmt.Errorf("more than %d bytes: %w", b.limit, io.ErrShortWrite)
}
