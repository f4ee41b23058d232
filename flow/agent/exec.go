package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
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
}

func newExec(name string, c Config, env Env) (Agent, error) {
	if st, err := os.Stat(c.Command[0]); err != nil {
		return nil, configError(name, "command: %w", err)
	} else if st.IsDir() || st.Mode()&0o111 == 0 {
		return nil, configError(name, "command: %s is not executable; chmod +x it", c.Command[0])
	}
	scratch := filepath.Join(env.Dir, "scratch")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, configError(name, "scratch folder: %w", err)
	}
	log := env.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &execAgent{Spec{name, "exec", c.Inputs, c.Optional, c.Outputs}, c, scratch, log}, nil
}

func (a *execAgent) Spec() Spec { return a.spec }

func (a *execAgent) Run(ctx context.Context, t Task) (*Result, error) {
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
	dir := "/"
	if !t.restricted() { // restricted data gets no folder that could be written to
		if spec.Scratch, err = os.MkdirTemp(a.scratch, "task-"); err != nil {
			return nil, fail(a.spec.Name, KindIsolation, "scratch folder: %v", err)
		}
		defer os.RemoveAll(spec.Scratch)
		dir = spec.Scratch
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fail(a.spec.Name, KindIsolation, "%v", err)
	}
	return a.program(ctx, t, string(text), dir, in)
}

func (a *execAgent) program(ctx context.Context, t Task, spec, dir string, in []byte) (*Result, error) {
	cmd := exec.Command("/proc/self/exe", WorkerArg, spec)
	cmd.Env = []string{}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = 2 * time.Second // for what the program started and left behind, holding its pipes
	out, stderr := &bounded{limit: maxReply}, &bounded{limit: maxStderr, drop: true}
	cmd.Stdout, cmd.Stderr = out, stderr
	if err := cmd.Start(); err != nil {
		return nil, fail(a.spec.Name, KindIsolation, "cannot be started: %v", err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out.full = kill
	stop := context.AfterFunc(ctx, kill)
	err := cmd.Wait()
	stop()
	kill() // whatever it started and left
	if stderr.Len() > 0 && !t.restricted() {
		a.log.Info("agent wrote to standard error", "agent", a.spec.Name, "run", t.Run, "text", stderr.String())
	}
	var exit *exec.ExitError
	switch {
	case out.over:
		return nil, fail(a.spec.Name, KindFlood, "wrote more than %d bytes", maxReply)
	case ctx.Err() != nil:
		return nil, fail(a.spec.Name, KindTimeout, "did not finish in time; raise its timeout or the step's")
	case errors.As(err, &exit) && exit.ExitCode() == exitNotConfined:
		return nil, fail(a.spec.Name, KindIsolation, "was not started: its process could not be confined (%s)", bytes.TrimSpace(stderr.Bytes()))
	case errors.As(err, &exit) && exit.ExitCode() == exitNotStarted:
		return nil, fail(a.spec.Name, KindCrashed, "%s cannot be executed; check the file, its interpreter and paths", a.config.Command[0])
	case errors.As(err, &exit):
		return nil, fail(a.spec.Name, KindCrashed, "%s ended with %s", filepath.Base(a.config.Command[0]), exit.ProcessState)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, io.ErrShortWrite):
		return nil, fail(a.spec.Name, KindCrashed, "its pipes failed: %v", err)
	}
	return decodeReply(a.spec, out.Bytes())
}

// bounded keeps what is written up to a limit. Beyond it, it drops the rest or fails, having called full once.
type bounded struct {
	bytes.Buffer
	limit int
	drop  bool
	over  bool
	full  func()
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.Len()
	if len(p) <= room {
		return b.Buffer.Write(p)
	}
	b.Buffer.Write(p[:max(room, 0)])
	if b.drop {
		return len(p), nil
	}
	if !b.over && b.full != nil {
		b.full()
	}
	b.over = true
	return 0, io.ErrShortWrite
}
