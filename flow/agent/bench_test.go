package agent

import (
	"io"
	"net/http"
	"testing"

	"fednode/flow/agent/builtin"
)

// BenchmarkWorker starts a process, confines it, gives it one task and ends it.
func BenchmarkWorker(b *testing.B) {
	p := newPool()
	defer p.close()
	for b.Loop() {
		w, err := p.startWorker(b.Context(), false)
		if err != nil {
			b.Fatal(err)
		}
		m := &message{Agent: builtin.Loader}
		m.add(textDocument(invoice)[0])
		if out, err := w.run(b.Context(), m); err != nil || out.Failure != nil {
			b.Fatal(err, out)
		}
		w.end()
	}
}

// BenchmarkStart starts and confines alone.
func BenchmarkStart(b *testing.B) {
	p := newPool()
	defer p.close()
	for b.Loop() {
		w, err := p.startWorker(b.Context(), false)
		if err != nil {
			b.Fatal(err)
		}
		w.end()
	}
}

func benchmarkTask(b *testing.B, config Config, task Task) {
	s, _ := newTestSet(b, map[string]Config{"x": config})
	a := get(b, s, "x")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Run(b.Context(), task); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWarmTask(b *testing.B) {
	benchmarkTask(b, Config{Kind: "builtin", Builtin: builtin.Loader}, Task{Inputs: textDocument(invoice)})
}

func BenchmarkWarmTask1MB(b *testing.B) {
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = "the quick brown fox \n"[i%21]
	}
	b.SetBytes(int64(len(data)))
	benchmarkTask(b, Config{Kind: "builtin", Builtin: builtin.Loader}, Task{Inputs: textDocument(string(data))})
}

// BenchmarkRestrictedTask uses up a fresh worker each time.
func BenchmarkRestrictedTask(b *testing.B) {
	benchmarkTask(b, Config{Kind: "builtin", Builtin: builtin.Loader}, Task{Inputs: textDocument(invoice), NoExtraction: true})
}

func BenchmarkExec(b *testing.B) {
	benchmarkTask(b, shell(answerOf+"x"), Task{Inputs: textDocument(invoice)})
}

func BenchmarkHTTP(b *testing.B) {
	srv := serveHTTP(b, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"outputs":[{"type":"answer","text":"x"}]}`)
	})
	benchmarkTask(b, httpConfig(srv.URL), Task{Inputs: textDocument(invoice)})
}
