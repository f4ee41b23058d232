package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fednode/flow/agent/builtin"
)

// First arguments of the test binary when it is a program under test: see probe_test.go.
const (
	argProbeExec    = "probe-exec"
	argProbeBuiltin = "probe-builtin"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case WorkerArg:
			os.Exit(WorkerMain())
		case argProbeExec:
			os.Exit(probeExec(os.Args[2:]))
		case argProbeBuiltin:
			os.Exit(probeBuiltin(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// newTestSet makes a set in a folder of its own, which closes with the test. No worker waits in it yet.
func newTestSet(t testing.TB, configs map[string]Config) (*Set, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := newSet(configs, Env{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, dir
}

func get(t testing.TB, s *Set, name string) Agent {
	t.Helper()
	a, ok := s.Get(name)
	if !ok {
		t.Fatalf("no agent %s", name)
	}
	return a
}

func shell(script string, outputs ...string) Config {
	return Config{Kind: "exec", Command: []string{"/bin/sh", "-c", script}, Inputs: []string{"document"}, Outputs: append(outputs, "answer")}
}

func textDocument(text string) []Artifact {
	return []Artifact{{Type: builtin.Document, Name: "a.txt", MediaType: "text/plain", Data: []byte(text)}}
}

// wantKind fails the test unless err is an agent's of that kind, and returns its text.
func wantKind(t *testing.T, err error, kind Kind) string {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no agent's error, want one of kind %s", err, kind)
	}
	if e.Kind != kind {
		t.Fatalf("%v is of kind %s, want %s", err, e.Kind, kind)
	}
	return e.Text
}

// eventually waits for a condition, for as long as the slowest machine may need.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// runs reports whether a process lives; one that nobody has reaped does not.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// children returns the living processes whose parent is this one.
func children(t testing.TB) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		t.Fatalf("no list of children: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		pids = append(pids, strings.Fields(string(b))...)
	}
	slices.Sort(pids)
	return pids
}
