package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"k8s.io/klog/v2"

	"fednode/store"
	"fednode/store/ledger"
)

func TestMain(m *testing.M) {
	klog.LogToStderr(false) // Tessera's, in the middle of the figures
	klog.SetOutput(io.Discard)
	m.Run()
}

// BenchmarkAppend appends signed entries of 1.2 KB. An append returns once its entry is on the disk under a signed
// checkpoint. Tessera's "sequenced" returns earlier: the entry has its index, and is on the disk.
func BenchmarkAppend(b *testing.B) {
	for _, clients := range []int{1, 1024} {
		b.Run(fmt.Sprintf("fednode-%d", clients), func(b *testing.B) { benchmarkAppend(b, clients, fednodeLog(b)) })
		b.Run(fmt.Sprintf("tessera-sequenced-%d", clients), func(b *testing.B) { benchmarkAppend(b, clients, tesseraLog(b, false)) })
		b.Run(fmt.Sprintf("tessera-published-%d", clients), func(b *testing.B) { benchmarkAppend(b, clients, tesseraLog(b, true)) })
	}
}

func benchmarkAppend(b *testing.B, clients int, add func([]byte) error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	body := strings.Repeat("x", 1100)
	work := make(chan int)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range work {
				e := fmt.Appendf(nil, `{"body":"%s","n":%d}`, body, i)
				if err := add(append(e, ed25519.Sign(key, e)...)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

func newSigner(b *testing.B, origin string) note.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	s, err := ledger.NewSigner(origin, key)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func fednodeLog(b *testing.B) func([]byte) error {
	_, add := openLog(b)
	return add
}

func openLog(b *testing.B) (*ledger.Log, func([]byte) error) {
	db, err := store.Open(filepath.Join(b.TempDir(), "node.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	l, err := ledger.Open(db, ledger.Config{Name: "own", Origin: "example.org/log", Signer: newSigner(b, "example.org/log")})
	if err != nil {
		b.Fatal(err)
	}
	return l, func(e []byte) error {
		return db.Update(context.Background(), func(tx *store.Tx) error {
			_, err := l.Append(tx, e)
			return err
		})
	}
}

func tesseraLog(b *testing.B, published bool) func([]byte) error {
	dir, err := os.MkdirTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { // what it writes in the background may still be on its way when it is shut down
		for limit := time.Now().Add(5 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(limit); {
			time.Sleep(50 * time.Millisecond)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		b.Fatal(err)
	}
	skey, _, err := note.GenerateKey(rand.Reader, "example.org/log")
	if err != nil {
		b.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		b.Fatal(err)
	}
	o := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(1024, time.Millisecond).WithCheckpointInterval(100 * time.Millisecond)
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := shutdown(ctx); err != nil {
			b.Error(err)
		}
	})
	if !published {
		return func(e []byte) error {
			_, err := appender.Add(ctx, tessera.NewEntry(e))()
			return err
		}
	}
	awaiter := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, time.Millisecond)
	return func(e []byte) error {
		_, _, err := awaiter.Await(ctx, appender.Add(ctx, tessera.NewEntry(e)))
		return err
	}
}

// BenchmarkProof makes and checks inclusion proofs in a log of 100,000 entries; the peers hold all hashes in memory.
func BenchmarkProof(b *testing.B) {
	const size = 100_000
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = hashes[x]
		}
		return out, nil
	})
	l, add := openLog(b)
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			for i := range size / 1000 {
				if err := add(fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, e := range l.Entries(0, size) {
		more, err := tlog.StoredHashes(i, e, reader)
		if err != nil {
			b.Fatal(err)
		}
		hashes = append(hashes, more...)
	}
	const index = 4711
	entry, err := l.Entry(index)
	if err != nil {
		b.Fatal(err)
	}
	head := l.Head()
	b.Run("prove-fednode", func(b *testing.B) { // and format, as a .tlog-proof with its checkpoint
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i = (i + 7919) % size {
			if _, err := l.Prove(i); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("prove-tlog", func(b *testing.B) {
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i = (i + 7919) % size {
			if _, err := tlog.ProveRecord(size, i, reader); err != nil {
				b.Fatal(err)
			}
		}
	})
	p, err := tlog.ProveRecord(size, index, reader)
	if err != nil {
		b.Fatal(err)
	}
	text, err := l.Prove(index)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("verify-fednode", func(b *testing.B) { // text, signature and path
		for b.Loop() {
			if _, _, err := ledger.VerifyProof(text, entry, l.Verifier()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify-path-tlog", func(b *testing.B) { // what fednode calls
		for b.Loop() {
			if err := tlog.CheckRecord(p, size, head.Root, index, tlog.RecordHash(entry)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify-path-merkle", func(b *testing.B) {
		raw := make([][]byte, len(p))
		for i := range p {
			raw[i] = p[i][:]
		}
		for b.Loop() {
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, rfc6962.DefaultHasher.HashLeaf(entry), raw, head.Root[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
