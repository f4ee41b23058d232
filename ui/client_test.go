package ui

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fednode/node"
)

// answering serves a node's socket in a new data directory with handler, and returns a client of it.
func answering(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, node.ConfigName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	c := NewClient(dir)
	t.Cleanup(c.Close)
	return c
}

// TestWaitReadySaysWhatItWaitedFor: who starts nodes reads which check failed, not that one did.
func TestWaitReadySaysWhatItWaitedFor(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(node.Health{Status: "unhealthy", Checks: map[string]string{"serving": "ok", "disk": "3 MiB free; the node needs 64"}})
	})
	err := c.WaitReady(t.Context(), 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "disk: 3 MiB free; the node needs 64") || strings.Contains(err.Error(), "serving") {
		t.Errorf("%v", err)
	}
}

// TestErrorsOfTheSocketAreMended: whatever is wrong with the socket, the error says what to do.
func TestErrorsOfTheSocketAreMended(t *testing.T) {
	gone := answering(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	empty, stopped := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(stopped, node.ConfigName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		client *Client
		mend   string
	}{
		"no data directory": {NewClient(empty), "-D or $FEDNODE_DIR"},
		"no node":           {NewClient(stopped), "start it with: fednode -D " + stopped + " run"},
		"it ended":          {gone, "its log says why"},
	} {
		if _, err := c.client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), c.mend) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestListenReplacesWhatACrashLeft: a socket of a process that is gone is in nobody's way, and the new one is its owner's.
func TestListenReplacesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(dir, SocketName))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("socket: %v, %v", st, err)
		}
		t.Cleanup(func() { l.Close() }) // later, so that the second finds the first's
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if _, err := Listen(long); err == nil || !strings.Contains(err.Error(), "use a shorter data directory") {
		t.Errorf("a path too long for a socket: %v", err)
	}
}
