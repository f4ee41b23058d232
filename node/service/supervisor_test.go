package service

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// manager listens like a service manager and sets the variables that name it.
func manager(t *testing.T, pid, usec string) *net.UnixConn {
	t.Helper()
	at := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for name, v := range map[string]string{"NOTIFY_SOCKET": at, "WATCHDOG_PID": pid, "WATCHDOG_USEC": usec} {
		t.Setenv(name, v)
	}
	return c
}

func told(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func supervise(t *testing.T) *Supervisor {
	t.Helper()
	s, err := Supervise()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSupervisorIsTold(t *testing.T) {
	c := manager(t, "", "")
	s := supervise(t)
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left to child processes", name, v)
		}
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return s.Ready("3 members\nWATCHDOG=trigger") }, "READY=1\nSTATUS=3 members WATCHDOG=trigger"},
		{s.Stopping, "STOPPING=1\nSTATUS=stopping"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := told(t, c); got != step.want {
			t.Errorf("told %q, want %q", got, step.want)
		}
	}
}

// TestWatchdogHearsOfLifeOnly has a node that answers, does not answer, and answers again.
func TestWatchdogHearsOfLifeOnly(t *testing.T) {
	c := manager(t, strconv.Itoa(os.Getpid()), "30000") // 30 ms: asked every 10
	s := supervise(t)
	ctx, cancel := context.WithCancel(context.Background())
	asked, failed := 0, 0
	alive := func(ctx context.Context) (string, error) {
		switch asked++; asked {
		case 2:
			<-ctx.Done()
			return "", ctx.Err()
		case 3:
			return "", errors.New("no answer")
		}
		return "asked " + strconv.Itoa(asked), nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, alive, func(error) { failed++ })
	}()
	for _, want := range []string{"WATCHDOG=1\nSTATUS=asked 1", "WATCHDOG=1\nSTATUS=asked 4"} {
		if got := told(t, c); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	cancel()
	<-done
	if failed != 2 {
		t.Errorf("%d failures were logged", failed)
	}
}

// TestWatchdogOfAnotherProcess must not be fed.
func TestWatchdogOfAnotherProcess(t *testing.T) {
	manager(t, "1", "30000")
	s := supervise(t)
	s.Watch(context.Background(), func(context.Context) (string, error) { t.Error("asked"); return "", nil }, func(error) {})
}

func TestWithoutSupervisor(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s := supervise(t)
	if err := errors.Join(s.Ready("x"), s.Stopping()); err != nil {
		t.Error(err)
	}
	s.Watch(context.Background(), nil, nil)
}

func TestSupervisorRefusesNonsense(t *testing.T) {
	manager(t, "", "soon")
	if _, err := Supervise(); err == nil {
		t.Error("a watchdog interval that is no number was accepted")
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1")
	if _, err := Supervise(); err == nil {
		t.Error("a socket of an unsupported kind was accepted")
	}
}
