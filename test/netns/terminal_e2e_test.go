//go:build e2e

package netns

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fednode/transport"
)

// A session is a fednode command on a terminal of its own, at which the test is the operator.
type session struct {
	l    *lab
	what string
	cmd  *exec.Cmd
	end  *os.File // the operator's, of the pseudo-terminal
	done chan error

	mu     sync.Mutex
	screen strings.Builder
}

// at runs a fednode command of an organisation on a terminal.
func (l *lab) at(id transport.OrgID, args ...string) *session {
	l.t.Helper()
	operator, program := terminal(l.t)
	s := &session{l: l, what: string(id) + "# fednode " + strings.Join(args, " "), end: operator, done: make(chan error, 1)}
	s.cmd = l.inside(id, l.binary, append([]string{"-D", l.plan.DataDir(id)}, args...)...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = program, program, program
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	_ = program.Close()
	go s.read()
	l.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = operator.Close()
		l.t.Logf("%s\n%s", s.what, s.shown())
	})
	return s
}

// terminal opens a pseudo-terminal, see pty(7).
func terminal(t *testing.T) (operator, program *os.File) {
	t.Helper()
	operator, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(operator.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(operator.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return operator, program
}

// read collects what is printed until the terminal is closed, as it is when the command has ended.
func (s *session) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.end.Read(buf)
		s.mu.Lock()
		s.screen.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			s.done <- s.cmd.Wait()
			return
		}
	}
}

// colour is what a terminal is told of colours.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// shown is everything printed so far, without its colours.
func (s *session) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return colour.ReplaceAllString(s.screen.String(), "")
}

// awaits waits until a text has been printed.
func (s *session) awaits(text string) {
	s.l.t.Helper()
	s.l.await(fmt.Sprintf("%q on the screen", text), func() bool {
		if strings.Contains(s.shown(), text) {
			return true
		}
		select {
		case err := <-s.done:
			s.l.t.Fatalf("%s ended (%v) without %q:\n%s", s.what, err, text, s.shown())
		default:
		}
		return false
	})
}

// types presses keys; \x03 is Ctrl-C.
func (s *session) types(keys string) {
	s.l.t.Helper()
	if _, err := s.end.WriteString(keys); err != nil {
		s.l.t.Fatal(err)
	}
}

// ends waits for the end of the command and returns everything it printed.
func (s *session) ends() (string, error) {
	err := <-s.done
	return s.shown(), err
}
