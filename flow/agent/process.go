package agent

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

var errClosed = errors.New("the node is shutting down")

// processes are the children of a Set that live, so that closing it leaves none.
type processes struct {
	mu     sync.Mutex
	closed bool
	live   map[*process]struct{}
	ended  sync.WaitGroup
}

// A process is a child with a process group of its own, which it cannot leave: the filter refuses setpgid and setsid.
type process struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	reaped bool          // or about to be: its number may soon be another's
	await  func()        // begins to wait for its end
	done   chan struct{} // closed when it and its whole group have ended, after await
	err    error         // of cmd.Wait, once done
}

// start runs cmd. The goroutine that starts it keeps its thread until the child ends, because the kernel sends the
// parent-death signal when the thread ends that made the child, not the process. An idle child costs no system call:
// who expects its end calls await.
func (p *processes) start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	expected := make(chan struct{})
	x := &process{cmd: cmd, await: sync.OnceFunc(func() { close(expected) }), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	started := make(chan error)
	p.ended.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		<-expected
		x.wait()
		p.mu.Lock()
		delete(p.live, x)
		p.mu.Unlock()
		close(x.done)
	})
	if err := <-started; err != nil {
		return nil, err
	}
	if p.live == nil {
		p.live = map[*process]struct{}{}
	}
	p.live[x] = struct{}{}
	return x, nil
}

// wait waits for the end of the child, ends what it left in its group, and only then gives its number back.
func (x *process) wait() {
	for {
		if err := unix.Waitid(unix.P_PID, x.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	x.mu.Lock()
	x.signal()
	x.reaped = true
	x.mu.Unlock()
	x.err = x.cmd.Wait()
}

func (x *process) signal() { _ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL) }

// kill ends the whole group; it does not wait.
func (x *process) kill() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.reaped {
		x.signal()
	}
	x.await()
}

// alive reports whether the child has not ended.
func (x *process) alive() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.reaped {
		return false
	}
	var info unix.Siginfo // all zero if there is nothing to report
	err := unix.Waitid(unix.P_PID, x.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err == nil && info.Signo == 0
}

// killWith ends the group when ctx ends. The returned function undoes that.
func (x *process) killWith(ctx context.Context) (undo func() bool) {
	return context.AfterFunc(ctx, x.kill)
}

// close ends all children, lets no further one start, and waits for their ends.
func (p *processes) close() {
	p.mu.Lock()
	p.closed = true
	for x := range p.live {
		x.kill()
	}
	p.mu.Unlock()
	p.ended.Wait()
}
