package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Supervisor is the service manager that started this process, as sd_notify(3) has it. Without one, telling it
// anything does nothing.
type Supervisor struct {
	mu       sync.Mutex
	conn     *net.UnixConn
	watchdog time.Duration
}

// Supervise returns this process's supervisor. It takes the variables that name it out of the environment, so that no
// program started from here speaks in the node's name.
func Supervise() (*Supervisor, error) {
	s := &Supervisor{}
	at, limit, pid := take("NOTIFY_SOCKET"), take("WATCHDOG_USEC"), take("WATCHDOG_PID")
	if at == "" {
		return s, nil
	}
	if !strings.HasPrefix(at, "/") && !strings.HasPrefix(at, "@") {
		return nil, fmt.Errorf("$NOTIFY_SOCKET %.200q: only paths and abstract sockets are supported", at)
	}
	var err error
	if s.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: at, Net: "unixgram"}); err != nil {
		return nil, fmt.Errorf("$NOTIFY_SOCKET: %w", err)
	}
	if limit != "" && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		usec, err := strconv.ParseInt(limit, 10, 64)
		if err != nil || usec <= 0 {
			return nil, errors.Join(fmt.Errorf("$WATCHDOG_USEC %.40q is not a number of microseconds", limit), s.conn.Close())
		}
		s.watchdog = time.Duration(usec) * time.Microsecond
	}
	return s, nil
}

func take(name string) string {
	v := os.Getenv(name)
	os.Unsetenv(name)
	return v
}

// Present reports whether there is one.
func (s *Supervisor) Present() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// Ready says that the node serves. A supervisor that was told cannot be told that it does not.
func (s *Supervisor) Ready(status string) error { return s.tell("READY=1\nSTATUS=" + oneLine(status)) }

// Stopping says that the node stops in good order.
func (s *Supervisor) Stopping() error { return s.tell("STOPPING=1\nSTATUS=stopping") }

// Watch has alive asked three times in each interval of the watchdog's, and tells the watchdog when it has answered in
// time and without error; the status line that it returns goes along. A node that does not answer any more is killed and
// started again by its supervisor. Watch returns when ctx ends, at once if there is no watchdog. Errors are for the log.
func (s *Supervisor) Watch(ctx context.Context, alive func(context.Context) (status string, err error), log func(error)) {
	if s.watchdog == 0 {
		return
	}
	every := s.watchdog / 3
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, every)
		status, err := alive(asked)
		cancel()
		if err == nil {
			err = s.tell("WATCHDOG=1\nSTATUS=" + oneLine(status))
		}
		if err != nil && ctx.Err() == nil {
			log(fmt.Errorf("the watchdog was not told that the node is alive: %w", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Close lets go of the supervisor.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

func (s *Supervisor) tell(state string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	if _, err := s.conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}

// oneLine keeps text from being read as further assignments.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
}
