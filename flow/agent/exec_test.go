package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const answerOf = `printf '{"outputs":[{"type":"answer","text":"%s"}]}' `

// runShell runs a script as an exec agent's program.
func runShell(t *testing.T, script string, task Task) (*Result, error) {
	t.Helper()
	s, _ := newTestSet(t, map[string]Config{"sh": shell(script)})
	return get(t, s, "sh").Run(t.Context(), task)
}

func TestExecAnswers(t *testing.T) {
	answer := `cat >/dev/null; printf %s '{"outputs":[{"type":"answer","name":"a.bin","data":"AAEC"},{"type":"answer","text":"é"}],"headline":"two\u001b[31m\nlines"}'`
	res, err := runShell(t, answer, Task{Inputs: textDocument("x")})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Outputs) != 2 || !bytes.Equal(res.Outputs[0].Data, []byte{0, 1, 2}) || res.Outputs[0].MediaType != "application/octet-stream" ||
		string(res.Outputs[1].Data) != "é" || res.Outputs[1].MediaType != "text/plain; charset=utf-8" {
		t.Errorf("outputs %+v", res.Outputs)
	}
	if res.Headline != "two[31m" {
		t.Errorf("headline %q, want the first line without control characters", res.Headline)
	}
}

func TestExecFailures(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for _, c := range []struct {
		name, script string
		kind         Kind
		says         string
	}{
		{"exit code", "echo 'secret' >&2; exit 7", KindCrashed, "exit status 7"},
		{"the isolation's exit code", "echo secret >&2; exit 125", KindCrashed, "exit status 125"},
		{"signal", "kill -SEGV $$", KindCrashed, "segmentation fault"},
		{"nothing", "exit 0", KindOutput, "without an answer"},
		{"blanks", "echo; echo", KindOutput, "without an answer"},
		{"no JSON", "echo '{'", KindOutput, "not one JSON value"},
		{"null", "echo null", KindOutput, "no outputs"},
		{"an array", "echo '[]'", KindOutput, "another type"},
		{"deep", `echo '{"outputs":` + deep + `}'`, KindOutput, "nesting beyond"},
		{"more after it", `echo '{"outputs":[]}}'`, KindOutput, "not one JSON value"},
		{"two answers", `echo '{"outputs":[]}{"outputs":[]}'`, KindOutput, "not one JSON value"},
		{"a name twice", `echo '{"outputs":[],"outputs":[{"type":"answer","text":"x"}]}'`, KindOutput, "duplicate"},
		{"unknown field", `echo '{"outputs":[],"secret":1}'`, KindOutput, "unknown"},
		{"text and data", `echo '{"outputs":[{"type":"answer","text":"x","data":"AA=="}]}'`, KindOutput, "not both"},
		{"neither", `echo '{"outputs":[{"type":"answer"}]}'`, KindOutput, "not both"},
		{"bad base64", `echo '{"outputs":[{"type":"answer","data":"*"}]}'`, KindOutput, "another type"},
		{"control characters in a name", `echo '{"outputs":[{"type":"answer","text":"x","name":"a\u001bb"}]}'`, KindOutput, "control characters"},
		{"undeclared type", `echo '{"outputs":[{"type":"secret","text":"x"}]}'`, KindUndeclared, "does not declare"},
		{"too many outputs", `i=0; printf '{"outputs":['; while [ $i -lt 70 ]; do printf '{"type":"answer","text":""},'; i=$((i+1)); done; ` +
			`echo '{"type":"answer","text":""}]}'`, KindFlood, "71 outputs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := runShell(t, c.script, Task{Inputs: textDocument("x")})
			text := wantKind(t, err, c.kind)
			if !strings.Contains(text, c.says) {
				t.Errorf("%q does not say %q", text, c.says)
			}
			if strings.Contains(text, "secret") {
				t.Errorf("%q tells what the agent said", text)
			}
		})
	}
}

func TestExecCannotBeExecuted(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"bad-interpreter": "#!/no/such/program\n", "junk": "\x7fELF junk"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		s, _ := newTestSet(t, map[string]Config{"x": {Kind: "exec", Command: []string{file}, Outputs: []string{"answer"}}})
		_, err := get(t, s, "x").Run(t.Context(), Task{})
		if text := wantKind(t, err, KindCrashed); !strings.Contains(text, "cannot be executed") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// TestExecReadsDeclaredPaths: the program's own file and the paths of its configuration, no neighbour of theirs.
func TestExecReadsDeclaredPaths(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"declared", "other"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := shell(answerOf + `"$(cat ` + dir + `/declared; cat ` + dir + `/other 2>/dev/null; echo x >` + dir + `/declared 2>/dev/null || echo refused)"`)
	c.Paths = []string{filepath.Join(dir, "declared")}
	s, _ := newTestSet(t, map[string]Config{"sh": c})
	res, err := get(t, s, "sh").Run(t.Context(), Task{})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Outputs[0].Data); got != "declaredrefused" {
		t.Errorf("the program got %q", got)
	}
}

// TestExecScratch: unrestricted tasks may write in their scratch folder, and nothing stays; restricted ones have none.
func TestExecScratch(t *testing.T) {
	script := `mkdir -m 0300 dark 2>/dev/null && echo x >dark/f; pwd >f 2>/dev/null; ` + answerOf + `"$(cat f 2>/dev/null || echo none)"`
	s, home := newTestSet(t, map[string]Config{"sh": shell(script)})
	scratch := filepath.Join(home, "scratch")
	for _, task := range []Task{{}, {NoStorage: true}, {NoExtraction: true}} {
		res, err := get(t, s, "sh").Run(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		got := string(res.Outputs[0].Data)
		if task.restricted() != (got == "none") || !task.restricted() && !strings.HasPrefix(got, scratch) {
			t.Errorf("%+v: wrote %q", task, got)
		}
		if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}

// TestScratchOfDeadNode: what a killed node left is gone when the next one starts, and a relative folder works.
func TestScratchOfDeadNode(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("node/scratch/task-1/dark", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("node/scratch/task-1/dark", 0); err != nil {
		t.Fatal(err)
	}
	s, err := newSet(map[string]Config{"sh": shell(`echo x >f && ` + answerOf + `"$(cat f)"`)}, Env{Dir: "node"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left, err := os.ReadDir("node/scratch"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	res, err := get(t, s, "sh").Run(t.Context(), Task{})
	if err != nil || string(res.Outputs[0].Data) != "x" {
		t.Errorf("%v, %v", res, err)
	}
}

// hanging starts a script that writes its and its child's process numbers, and hangs; it returns them once they are
// written.
func hanging(t *testing.T, home string) (pids []int) {
	eventually(t, "the program has started its child", func() bool {
		files, _ := filepath.Glob(filepath.Join(home, "scratch/task-*/pids"))
		pids = nil
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for _, w := range strings.Fields(string(b)) {
				pid, err := strconv.Atoi(w)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
		}
		return len(pids) == 2
	})
	return pids
}

const hang = `sleep 1000 & echo $$ $! >p; mv p pids; wait`

func TestExecKilledAtDeadline(t *testing.T) {
	s, home := newTestSet(t, map[string]Config{"sh": shell(hang)})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := get(t, s, "sh").Run(ctx, Task{})
		failed <- err
	}()
	pids := hanging(t, home)
	cancel()
	wantKind(t, <-failed, KindTimeout)
	eventually(t, "the program and its child have ended", func() bool { return !runs(pids[0]) && !runs(pids[1]) })
}

func TestExecKilledByOwnTimeout(t *testing.T) {
	c := shell("sleep 1000")
	c.Timeout = 1
	s, _ := newTestSet(t, map[string]Config{"sh": c})
	_, err := get(t, s, "sh").Run(t.Context(), Task{})
	if text := wantKind(t, err, KindTimeout); !strings.Contains(text, "own timeout") {
		t.Error(text)
	}
}

func TestExecLeavesNoChildren(t *testing.T) {
	for name, script := range map[string]string{
		"that hold its pipes": `sleep 1000 & ` + answerOf + `$!`,
		"that hold nothing":   `sleep 1000 >/dev/null 2>&1 </dev/null & ` + answerOf + `$!`,
		"that want away":      `setsid sleep 1000 >/dev/null 2>&1 & sh -c 'set -m; sleep 1000 & echo $!' >f 2>/dev/null; ` + answerOf + `"$(cat f)"`,
	} {
		t.Run(name, func(t *testing.T) {
			res, err := runShell(t, script, Task{})
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(string(res.Outputs[0].Data))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the child has ended", func() bool { return !runs(pid) })
		})
	}
}

func TestExecEndsWithSet(t *testing.T) {
	s, home := newTestSet(t, map[string]Config{"sh": shell(hang)})
	failed := make(chan error)
	go func() {
		_, err := get(t, s, "sh").Run(t.Context(), Task{})
		failed <- err
	}()
	pids := hanging(t, home)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantKind(t, <-failed, KindCrashed)
	eventually(t, "the program and its child have ended", func() bool { return !runs(pids[0]) && !runs(pids[1]) })
	_, err := get(t, s, "sh").Run(t.Context(), Task{})
	wantKind(t, err, KindUnavailable)
}

func TestExecFloods(t *testing.T) {
	_, err := runShell(t, "cat /dev/zero", Task{})
	wantKind(t, err, KindFlood)

	var log bytes.Buffer
	s, err := newSet(map[string]Config{"sh": shell(`head -c 10000000 /dev/zero >&2; ` + answerOf + `x`)},
		Env{Dir: t.TempDir(), Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := get(t, s, "sh").Run(t.Context(), Task{NoExtraction: true}); err != nil || log.Len() > 0 {
		t.Errorf("restricted: %v, logged %d bytes", err, log.Len())
	}
	if _, err := get(t, s, "sh").Run(t.Context(), Task{}); err != nil {
		t.Error(err)
	}
	var entry struct{ Text string }
	if err := json.Unmarshal(log.Bytes(), &entry); err != nil || len(entry.Text) != maxStderr {
		t.Errorf("logged %d bytes of %q, want %d (%v)", len(entry.Text), log.String()[:100], maxStderr, err)
	}
}

// TestExecIgnoresInput: a program need not read what it gets.
func TestExecIgnoresInput(t *testing.T) {
	big := []Artifact{{Type: "document", MediaType: "application/pdf", Data: make([]byte, 8<<20)}}
	if _, err := runShell(t, answerOf+"x", Task{Inputs: big}); err != nil {
		t.Error(err)
	}
}

func TestExecFileSize(t *testing.T) {
	c := shell(`head -c 3000000 /dev/zero >f; ` + answerOf + `$(wc -c <f)`)
	c.Memory = 256 << 20
	s, _ := newTestSet(t, map[string]Config{"sh": c})
	if res, err := get(t, s, "sh").Run(t.Context(), Task{}); err != nil || string(res.Outputs[0].Data) != "3000000" {
		t.Errorf("%v, %v", res, err)
	}
}

func TestExecConcurrently(t *testing.T) {
	s, _ := newTestSet(t, map[string]Config{"sh": shell(answerOf + `$FEDNODE_IDEMPOTENCY_KEY`)})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			key := fmt.Sprint("key-", i)
			res, err := get(t, s, "sh").Run(t.Context(), Task{IdempotencyKey: key, NoExtraction: i%2 == 0})
			if err != nil || string(res.Outputs[0].Data) != key {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
	wg.Wait()
}

func TestExecRefusesNoStorageBesideSwap(t *testing.T) {
	s, _ := newTestSet(t, map[string]Config{"sh": shell(answerOf + `x`)})
	s.pool.root = swapping(t)
	_, err := get(t, s, "sh").Run(t.Context(), Task{NoStorage: true})
	wantKind(t, err, KindRefused)
	if _, err := get(t, s, "sh").Run(t.Context(), Task{NoExtraction: true}); err != nil {
		t.Error(err)
	}
}
