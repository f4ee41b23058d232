package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A worker is a confined process that runs builtins, one task after the other.
type worker struct {
	*process
	in        io.WriteCloser
	out       io.ReadCloser
	swappable bool // was asked to lock its memory and could not
}

// startWorker runs a worker and waits until it is confined. With lock its memory does not reach a swap device.
func (p *processes) startWorker(ctx context.Context, lock bool) (*worker, error) {
	if isWorker() { // a program whose main does not call WorkerMain would start itself for ever
		return nil, errors.New("this process is a worker itself, whose program does not call agent.WorkerMain")
	}
	cmd := exec.Command("/proc/self/exe", WorkerArg)
	if lock {
		cmd.Args = append(cmd.Args, argLock)
	}
	cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	cmd.Dir = "/"
	// Pipes of our own: those of exec.Cmd close when the process ends, with what it said last unread.
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	defer childOut.Close()
	cmd.Stdin, cmd.Stdout = childIn, childOut
	x, err := p.start(cmd)
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("start worker: %w", err)
	}
	childOut.Close()
	w := &worker{process: x, in: in, out: out}
	undo := w.killWith(ctx)
	defer undo()
	var first [1]byte
	_, err = io.ReadFull(out, first[:])
	switch {
	case err == nil && first[0] == saysReady:
		return w, nil
	case err == nil && first[0] == saysSwappable:
		w.swappable = true
		return w, nil
	case err == nil && first[0] == saysUnsealed:
		reason, _ := io.ReadAll(io.LimitReader(out, 1024))
		w.end()
		return nil, fmt.Errorf("worker is not confined: %s", printable(string(reason), 1024))
	}
	w.end()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("worker is not confined: it ended with %s", w.cmd.ProcessState)
}

func isWorker() bool { return len(os.Args) > 1 && os.Args[1] == WorkerArg }

// end kills the worker and waits for its end.
func (w *worker) end() {
	w.kill()
	<-w.done
	w.in.Close()
	w.out.Close()
}

// run gives the worker one task. Unless it returns nil, the worker is of no more use.
func (w *worker) run(ctx context.Context, m *message) (*message, error) {
	undo := w.killWith(ctx)
	defer undo()
	if err := m.write(w.in); err != nil {
		return nil, err
	}
	return readMessage(w.out, MaxData)
}

// A pool keeps workers ready. A fresh one, confined and unused, waits for each restricted task; the others are used
// again.
type pool struct {
	*processes
	root string // under which the kernel's files about swap are

	mu     sync.Mutex
	fresh  []*worker
	warm   []*worker
	starts int // under way
	closed bool
	refill sync.WaitGroup
}

const (
	keepFresh = 2
	keepWarm  = 2

	readyWithin = 30 * time.Second // for a worker that is started in advance
)

func newPool() *pool { return &pool{processes: &processes{}, root: "/"} }

func (p *pool) swapActive() bool { return swapActive(p.root) }

// take returns a worker: an unused one for a restricted task, and one with locked memory if there is swap.
func (p *pool) take(ctx context.Context, restricted bool) (*worker, error) {
	if restricted && p.swapActive() {
		return p.startWorker(ctx, true)
	}
	p.mu.Lock()
	from := &p.warm
	if restricted {
		from = &p.fresh
	}
	w := pop(from)
	if w == nil && !restricted {
		w = pop(&p.fresh)
	}
	p.mu.Unlock()
	if w != nil {
		return w, nil
	}
	return p.startWorker(ctx, false)
}

// pop takes the last living worker.
func pop(from *[]*worker) *worker {
	for n := len(*from); n > 0; n = len(*from) {
		w := (*from)[n-1]
		*from = (*from)[:n-1]
		if w.alive() {
			return w
		}
		w.end()
	}
	return nil
}

// ready starts workers in the background until enough wait.
func (p *pool) ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for ; len(p.fresh)+p.starts < keepFresh; p.starts++ {
		p.refill.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
			defer cancel()
			w, err := p.startWorker(ctx, false)
			p.mu.Lock()
			p.starts--
			keep := err == nil && !p.closed
			if keep {
				p.fresh = append(p.fresh, w)
			}
			p.mu.Unlock()
			if err == nil && !keep {
				w.end()
			} // of an error the task that needs the worker will find out, and say so
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
		w.end()
	}
}

// close ends all workers, the working ones too: their tasks fail.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	waiting := append(p.fresh, p.warm...)
	p.fresh, p.warm = nil, nil
	p.mu.Unlock()
	p.processes.close()
	for _, w := range waiting {
		w.end()
	}
	p.refill.Wait()
}

// do runs one message in a worker under the restrictions of t; agent is the name for errors.
func (p *pool) do(ctx context.Context, agent string, t Task, m *message) (*message, error) {
	w, err := p.take(ctx, t.restricted())
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fail(agent, KindTimeout, "did not start in time; raise the step's timeout")
	case errors.Is(err, errClosed):
		return nil, fail(agent, KindUnavailable, "was not started: %v", errClosed)
	case err != nil:
		return nil, fail(agent, KindIsolation, "%v", err)
	case t.NoStorage && w.swappable:
		w.end()
		return nil, fail(agent, KindRefused, "%s", swapRefusal)
	}
	defer p.ready()
	out, err := w.run(ctx, m)
	if err != nil || t.restricted() || out.Retire {
		w.end()
	} else {
		p.give(w)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fail(agent, KindTimeout, "did not finish in time; raise the step's timeout")
	case errors.Is(err, errMessage):
		return nil, fail(agent, KindOutput, "its worker's answer is not one: %v", err)
	case err != nil:
		return nil, fail(agent, KindCrashed, "its worker ended: %s; the document may be hostile, or need more than %d MiB", w.cmd.ProcessState, workerMemory>>20)
	case out.Failure != nil:
		return nil, out.Failure.from(agent)
	}
	return out, nil
}

const swapRefusal = "refused no-storage data: swap is active, to which its memory could be written; run swapoff -a, or start the node with MemorySwapMax=0 (" + WithoutSwap + "); for builtins LimitMEMLOCK=infinity does, too"

// from is a failure as a worker tells it, in the words of which nothing is trusted.
func (e *Error) from(agent string) *Error {
	kind := e.Kind
	if kind != KindInput && kind != KindCrashed {
		kind = KindOutput
	}
	return &Error{agent, kind, printable(e.Text, 300)}
}
