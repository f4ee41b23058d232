package fed

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkStep is one step that crosses organisations, over QUIC on loopback, from the initiator's request to its
// recorded reply: request on record at the initiator, key and request at the executor, the document fetched from the
// initiator, the classifier in a fresh confined worker, result and reply on record. Target: p50 ≤ 25 ms.
func BenchmarkStep(b *testing.B) {
	f := New(b, Options{Loopback: true, Hostile: map[int]bool{0: true, 2: true}, Handlers: serveDocument})
	a, executor, c := f.Orgs[0].Hostile(), f.Orgs[1], f.Orgs[2].Hostile()
	hash := seizeWithTwo(a, c)
	took := make([]time.Duration, 0, b.N)
	n := 0
	for b.Loop() {
		run := fmt.Sprintf("run-benchmark-%08d", n)
		n++
		p := request("document-classifier", 60)
		p["input"] = object{"artifacts": []any{a.lease(hash, run, "document-classification", nil)}}
		m := a.step(hash, run, "document-classification", 1, p, nil)
		start := time.Now()
		if r := a.call(executor, m); r.Refusal != nil {
			b.Fatal(r.Refusal)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
