package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	fproof "github.com/transparency-dev/formats/proof"

	"fednode/store"
)

func BenchmarkAppend(b *testing.B) {
	for _, clients := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			db, l := openLog(b, filepath.Join(b.TempDir(), "node.db"))
			key := testKey()
			body := bytes.Repeat([]byte("x"), 1100)
			b.ResetTimer()
			var wg sync.WaitGroup
			work := make(chan int)
			for range clients {
				wg.Go(func() {
					for i := range work {
						e := fmt.Appendf(nil, `{"body":"%s","n":%d}`, body, i)
						e = append(e, ed25519.Sign(key, e)...)
						err := db.Update(context.Background(), func(tx *store.Tx) error {
							_, err := l.Append(tx, e)
							return err
						})
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
		})
	}
}

func benchLog(b *testing.B) *Log {
	db, l := openLog(b, filepath.Join(b.TempDir(), "node.db"))
	for i := range 100 {
		var batch [][]byte
		for j := range 1000 {
			batch = append(batch, entryOf(i*1000+j))
		}
		appendAll(b, db, l, batch...)
	}
	return l
}

func BenchmarkProve(b *testing.B) {
	l := benchLog(b)
	rng := rand.New(rand.NewPCG(3, 4))
	for b.Loop() {
		if _, err := l.Prove(rng.Int64N(100_000)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyProof(b *testing.B) {
	l := benchLog(b)
	p, err := l.Prove(4711)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("signature and path", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := VerifyProof(p, entryOf(4711), l.Verifier()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("path", func(b *testing.B) {
		var parsed fproof.TLogProof
		if err := parsed.Unmarshal(p); err != nil {
			b.Fatal(err)
		}
		entry, head := entryOf(4711), l.Head()
		for b.Loop() {
			if err := verifyInclusion(parsed, entry, head); err != nil {
				b.Fatal(err)
			}
		}
	})
}
