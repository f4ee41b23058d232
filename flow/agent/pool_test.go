package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fednode/flow/agent/builtin"
)

const invoice = "Invoice no. 17. Please pay the amount of 120 euro by 1 May to IBAN DE89 3704 0044 0532 0130 00."

// idle waits until the pool has its fresh workers and nothing is under way, and returns the workers.
func idle(t testing.TB, p *pool) (fresh, warm []*worker) {
	t.Helper()
	p.ready()
	eventually(t, "fresh workers wait", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		fresh, warm = append([]*worker(nil), p.fresh...), append([]*worker(nil), p.warm...)
		return len(fresh) == keepFresh && p.starts == 0
	})
	return fresh, warm
}

// halt stops a worker, and returns when all its threads have stopped.
func halt(t testing.TB, w *worker) {
	t.Helper()
	if err := unix.Kill(w.cmd.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker has stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", w.cmd.Process.Pid))
		for _, name := range threads {
			stat, err := os.ReadFile(name)
			if _, state, _ := strings.Cut(string(stat), ") "); err == nil && !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return err == nil && len(threads) > 0
	})
}

func TestBuiltinsInWorkers(t *testing.T) {
	s, _ := newTestSet(t, nil)
	for _, c := range []struct{ agent, output, headline string }{
		{"document-uploader", builtin.Document, "text"}, {"document-classifier", builtin.Classification, "invoice"}, {"pii-detector", builtin.Findings, ""},
	} {
		for _, restricted := range []bool{false, true} {
			res, err := get(t, s, c.agent).Run(t.Context(), Task{Inputs: textDocument(invoice), NoStorage: restricted, NoExtraction: restricted})
			if err != nil {
				t.Fatal(err)
			}
			if res.Outputs[0].Type != c.output || !strings.Contains(res.Headline, c.headline) {
				t.Errorf("%s: %s, %q", c.agent, res.Outputs[0].Type, res.Headline)
			}
		}
	}
	text, err := s.ExtractText(t.Context(), Artifact{Type: builtin.Document, MediaType: "text/html", Name: "a.html", Data: []byte("<html><body><p>some <b>words</b></body></html>")})
	if err != nil || !strings.Contains(string(text), "some words") {
		t.Errorf("text %q, %v", text, err)
	}
}

func TestBuiltinRefusesBadInput(t *testing.T) {
	s, _ := newTestSet(t, nil)
	_, err := get(t, s, "document-classifier").Run(t.Context(), Task{})
	wantKind(t, err, KindInput)
	junk := []Artifact{{Type: builtin.Document, Name: "a.pdf", MediaType: "application/pdf", Data: []byte("%PDF-1.7 junk")}}
	_, err = get(t, s, "document-classifier").Run(t.Context(), Task{Inputs: junk})
	wantKind(t, err, KindInput)
	_, err = s.ExtractText(t.Context(), junk[0])
	wantKind(t, err, KindInput)
	_, warm := idle(t, s.pool)
	if len(warm) != 1 {
		t.Errorf("%d warm workers after a refused input, want the one that refused", len(warm))
	}
}

// TestWorkerSealed: every thread of a worker has the filter and no_new_privs.
func TestWorkerSealed(t *testing.T) {
	s, _ := newTestSet(t, nil)
	fresh, _ := idle(t, s.pool)
	for _, w := range fresh {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", w.cmd.Process.Pid))
		if err != nil || len(threads) == 0 {
			t.Fatal(threads, err)
		}
		for _, f := range threads {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"} {
				if !strings.Contains(string(b), want) {
					t.Errorf("%s lacks %q", f, want)
				}
			}
		}
	}
}

func TestWarmWorkersForUnrestrictedTasks(t *testing.T) {
	s, _ := newTestSet(t, nil)
	a := get(t, s, "document-uploader")
	run := func(task Task) {
		t.Helper()
		task.Inputs = textDocument(invoice)
		if _, err := a.Run(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	run(Task{})
	_, warm := idle(t, s.pool)
	if len(warm) != 1 {
		t.Fatalf("%d warm workers, want 1", len(warm))
	}
	first := warm[0]
	run(Task{})
	if _, warm = idle(t, s.pool); len(warm) != 1 || warm[0] != first {
		t.Error("an unrestricted task did not use the warm worker")
	}
	for _, task := range []Task{{NoStorage: true}, {NoExtraction: true}} {
		before, _ := idle(t, s.pool)
		run(task)
		after, warm := idle(t, s.pool)
		if len(warm) != 1 || warm[0] != first {
			t.Error("a restricted task touched the warm workers")
		}
		used := before[len(before)-1]
		if used.alive() || used == after[len(after)-1] {
			t.Error("the worker of a restricted task lives on")
		}
	}
}

func TestDeadWorkersReplaced(t *testing.T) {
	s, _ := newTestSet(t, nil)
	a := get(t, s, "document-uploader")
	if _, err := a.Run(t.Context(), Task{Inputs: textDocument(invoice)}); err != nil {
		t.Fatal(err)
	}
	fresh, warm := idle(t, s.pool)
	for _, w := range append(fresh, warm...) {
		if err := unix.Kill(w.cmd.Process.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the worker has ended", func() bool { return !w.alive() })
	}
	for _, restricted := range []bool{true, false} {
		if _, err := a.Run(t.Context(), Task{Inputs: textDocument(invoice), NoExtraction: restricted}); err != nil {
			t.Error(err)
		}
	}
}

// TestWorkerDiesAtWork: the task says so, and the next one has another worker.
func TestWorkerDiesAtWork(t *testing.T) {
	s, _ := newTestSet(t, nil)
	fresh, _ := idle(t, s.pool)
	victim := fresh[len(fresh)-1]
	halt(t, victim)
	failed := make(chan error)
	go func() {
		_, err := get(t, s, "document-uploader").Run(t.Context(), Task{Inputs: textDocument(invoice), NoStorage: true})
		failed <- err
	}()
	eventually(t, "the stopped worker has been taken", func() bool {
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		return len(s.pool.fresh) == 0 || s.pool.fresh[len(s.pool.fresh)-1] != victim
	})
	if err := unix.Kill(victim.cmd.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if text := wantKind(t, <-failed, KindCrashed); !strings.Contains(text, "killed") {
		t.Error(text)
	}
	if _, err := get(t, s, "document-uploader").Run(t.Context(), Task{Inputs: textDocument(invoice), NoStorage: true}); err != nil {
		t.Error(err)
	}
}

func TestWorkerKilledAtDeadline(t *testing.T) {
	s, _ := newTestSet(t, nil)
	fresh, _ := idle(t, s.pool)
	for _, w := range fresh {
		halt(t, w)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := get(t, s, "document-uploader").Run(ctx, Task{Inputs: textDocument(invoice), NoStorage: true})
	wantKind(t, err, KindTimeout)
	if fresh[len(fresh)-1].alive() {
		t.Error("the hanging worker lives")
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	before := children(t)
	s, err := NewSet(nil, Env{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := get(t, s, "document-classifier").Run(t.Context(), Task{Inputs: textDocument(invoice), NoExtraction: i%2 == 0})
			var e *Error
			if err != nil && !errors.As(err, &e) {
				t.Error(err)
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if after := children(t); len(after) > len(before) {
		t.Errorf("children before %v, after %v", before, after)
	}
	_, err = get(t, s, "document-classifier").Run(t.Context(), Task{Inputs: textDocument(invoice)})
	wantKind(t, err, KindUnavailable)
}

func TestBuiltinsConcurrently(t *testing.T) {
	s, _ := newTestSet(t, nil)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			text := fmt.Sprintf("Document number %d.", i)
			res, err := get(t, s, "document-uploader").Run(t.Context(), Task{Inputs: textDocument(text), NoExtraction: i%3 == 0})
			if err != nil || string(res.Outputs[0].Data) != text {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
	wg.Wait()
}

// TestRetiredWorkerEnds: a worker that has used much processor time is not used again.
func TestRetiredWorkerEnds(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newPool()
	defer p.close()
	w, err := p.startWorker(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	w.out.Close()
	w.out = in // answers in the worker's place
	p.warm = []*worker{w}
	go func() {
		defer out.Close()
		if err := (&message{Retire: true}).write(out); err != nil {
			t.Error(err)
		}
	}()
	if _, err := p.do(t.Context(), "x", Task{}, &message{Agent: builtin.Loader}); err != nil {
		t.Fatal(err)
	}
	if w.alive() {
		t.Error("the worker lives")
	}
}

func TestNoStorageBesideSwap(t *testing.T) {
	s, _ := newTestSet(t, nil)
	idle(t, s.pool)
	s.pool.root = swapping(t)
	w, err := s.pool.take(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if unlocked := strings.Contains(string(b), "\nVmLck:\t       0 kB\n"); unlocked != w.swappable {
		t.Errorf("memory unlocked %v, worker says swappable %v", unlocked, w.swappable)
	}
	w.end()

	_, err = get(t, s, "document-uploader").Run(t.Context(), Task{Inputs: textDocument(invoice), NoStorage: true})
	if w.swappable {
		wantKind(t, err, KindRefused)
	} else if err != nil {
		t.Error(err)
	}
	if _, err := s.ExtractText(t.Context(), textDocument(invoice)[0]); err != nil {
		t.Error(err)
	}
}

// TestHostileWorker: a parser that was taken over says what it likes to the node; nothing of it passes.
func TestHostileWorker(t *testing.T) {
	e := (&Error{Agent: "other", Kind: KindIsolation, Text: "a\x1b[2Jb\n" + strings.Repeat("x", 1000)}).from("mine")
	if e.Agent != "mine" || e.Kind != KindOutput || len(e.Text) > 310 || strings.ContainsAny(e.Text, "\x1b\n") {
		t.Errorf("%+v", e)
	}
	spec := Spec{Name: "x", Outputs: []string{"document"}}
	for name, o := range map[string]Artifact{"undeclared": {Type: "secret"}, "long name": {Type: "document", Name: strings.Repeat("n", 256)},
		"escape in a name": {Type: "document", Name: "\x1b"}, "bad UTF-8": {Type: "document", Name: "\xff"}, "long media type": {Type: "document", MediaType: strings.Repeat("n", 129)}} {
		if checkOutputs(spec, []Artifact{o}) == nil {
			t.Errorf("%s passes", name)
		}
	}
}
