package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// A worker is a confined process that runs builtins, one task after the other.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
}

// start runs a worker and waits until it is confined.
func start() (*worker, error) {
	cmd := exec.Command("/proc/self/exe", WorkerArg)
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	w := &worker{cmd, in, out}
	var first [1]byte
	if _, err := io.ReadFull(out, first[:]); err != nil || first[0] != saysReady {
		reason, _ := io.ReadAll(io.LimitReader(out, 1024))
		w.kill()
		return nil, fmt.Errorf("worker is not confined: %s", reason)
	}
	return w, nil
}

// kill ends the worker and everything it may have started, and waits for its end.
func (w *worker) kill() {
	_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
	_ = w.cmd.Process.Kill()
	_ = w.in.Close()
	_ = w.cmd.Wait()
}

// run gives the worker one task. Unless it returns nil, the worker is of no more use.
func (w *worker) run(ctx context.Context, m *message) (*message, error) {
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	if err := m.write(w.in); err != nil {
		return nil, err
	}
	return readMessage(w.out, MaxData)
}

// A pool keeps workers ready. A fresh one, confined and unused, waits for each restricted task; the others are used
// again.
type pool struct {
	mu     sync.Mutex
	fresh  []*worker
	warm   []*worker
	refill sync.WaitGroup
	closed bool
}

const (
	keepFresh = 2
	keepWarm  = 2
)

// take returns a worker: an unused one for a restricted task.
func (p *pool) take(restricted bool) (*worker, error) {
	p.mu.Lock()
	from := &p.warm
	if restricted || len(p.warm) == 0 {
		from = &p.fresh
	}
	if n := len(*from); n > 0 {
		w := (*from)[n-1]
		*from = (*from)[:n-1]
		p.mu.Unlock()
		return w, nil
	}
	p.mu.Unlock()
	return start()
}

// ready starts workers in the background until enough wait.
func (p *pool) ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for range keepFresh - len(p.fresh) {
		p.refill.Go(func() {
			w, err := start()
			if err != nil {
				return // the task that needs one will find out, and say so
			}
			p.mu.Lock()
			full := p.closed || len(p.fresh) >= keepFresh
			if !full {
				p.fresh = append(p.fresh, w)
			}
			p.mu.Unlock()
			if full {
				w.kill()
			}
		})
	}
}

// give returns a worker that has done an unrestricted task.
func (p *pool) give(w *worker) {
	p.mu.Lock()
	full := p.closed || len(p.warm) >= keepWarm
	if !full {
		p.warm = append(p.warm, w)
	}
	p.mu.Unlock()
	if full {
		w.kill()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	all := append(p.fresh, p.warm...)
	p.fresh, p.warm = nil, nil
	p.mu.Unlock()
	p.refill.Wait()
	for _, w := range all {
		w.kill()
	}
}

// do runs one message in a worker, of which agent is the name for errors.
func (p *pool) do(ctx context.Context, agent string, restricted bool, m *message) (*message, error) {
	w, err := p.take(restricted)
	if err != nil {
		return nil, fail(agent, KindIsolation, "%v", err)
	}
	defer p.ready()
	out, err := w.run(ctx, m)
	switch {
	case ctx.Err() != nil:
		w.kill()
		return nil, fail(agent, KindTimeout, "did not finish in time; raise the step's timeout")
	case err != nil:
		w.kill()
		return nil, fail(agent, KindCrashed, "its worker ended: %s; the document may be hostile, or need more than %d MiB", ended(w.cmd.ProcessState), workerMemory>>20)
	case restricted:
		w.kill()
	default:
		p.give(w)
	}
	if out.Failure != nil {
		out.Failure.Agent = agent
		return nil, out.Failure
	}
	return out, nil
}

func ended(s *os.ProcessState) string {
	if s == nil {
		return "unknown"
	}
	return s.String()
}
