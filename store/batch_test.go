package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func open(t testing.TB, o Options) *DB {
	t.Helper()
	db, err := Open(filepath.Join(t.TempDir(), "node.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

var errRefused = errors.New("refused by the test")

func put(key string) func(*Tx) error {
	return func(tx *Tx) error { return tx.Bucket("b").Put([]byte(key), []byte("v")) }
}

// keys returns the keys of bucket b.
func keys(t testing.TB, db *DB) (out []string) {
	t.Helper()
	err := db.View(func(tx *Tx) error {
		if b := tx.Bucket("b"); b != nil {
			return b.ForEach(func(k, _ []byte) error { out = append(out, string(k)); return nil })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hold keeps the writer busy until release is called, so that what is queued meanwhile is one batch.
func hold(t testing.TB, db *DB) (release func()) {
	t.Helper()
	begun, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.Update(context.Background(), func(*Tx) error { close(begun); <-gate; return nil })
	}()
	<-begun
	return func() {
		close(gate)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// together runs the changes in one batch, in order, and returns what each Update returned.
func together(t testing.TB, db *DB, changes ...func(*Tx) error) []error {
	t.Helper()
	release := hold(t, db)
	errs := make([]error, len(changes))
	var wg sync.WaitGroup
	for i, fn := range changes {
		wg.Go(func() { errs[i] = db.Update(context.Background(), fn) })
		for len(db.queue) <= i {
			runtime.Gosched()
		}
	}
	release()
	wg.Wait()
	return errs
}

func TestOneFailureIsNobodyElses(t *testing.T) {
	db := open(t, Options{})
	errs := together(t, db,
		put("0"),
		func(tx *Tx) error { return errors.Join(put("1")(tx), errRefused) },
		put("2"),
		func(tx *Tx) error { put("3")(tx); panic("boom") },
		func(tx *Tx) error { put("4")(tx); return tx.Bucket("b").Tx().Commit() },
		func(tx *Tx) error { var b []byte; b[5] = 1; return nil },
		put("6"),
	)
	for i, want := range []error{nil, errRefused, nil, errPanic, errPanic, errPanic, nil} {
		if !errors.Is(errs[i], want) || want == nil && errs[i] != nil {
			t.Errorf("change %d: %v, want %v", i, errs[i], want)
		}
	}
	if got := keys(t, db); !slices.Equal(got, []string{"0", "2", "6"}) {
		t.Errorf("keys %v", got)
	}
}

// TestRandomFailures compares many concurrent changes, of which some fail, with what was acknowledged.
func TestRandomFailures(t *testing.T) {
	for _, size := range []int{1, 3, 1024} {
		db := open(t, Options{MaxBatch: size})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var acked []string
		for w := range 16 {
			wg.Go(func() {
				for i := range 8 {
					key := fmt.Sprintf("%02d-%02d", w, i)
					err := db.Update(t.Context(), func(tx *Tx) error {
						if err := put(key)(tx); err != nil {
							return err
						}
						switch (w + i) % 5 {
						case 1:
							return errRefused
						case 2:
							panic("boom")
						}
						return nil
					})
					if fails := (w+i)%5 == 1 || (w+i)%5 == 2; fails != (err != nil) {
						t.Errorf("%s: %v", key, err)
					}
					if err == nil {
						mu.Lock()
						acked = append(acked, key)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		slices.Sort(acked)
		if got := keys(t, db); !slices.Equal(got, acked) {
			t.Errorf("batches of %d: %v\nacknowledged %v", size, got, acked)
		}
	}
}

// TestFloodOfRefusals wants work that does not grow with the square of the batch when half of it fails.
func TestFloodOfRefusals(t *testing.T) {
	db := open(t, Options{MaxBatch: 1024})
	const n = 1000
	runs := 0
	changes := make([]func(*Tx) error, n)
	for i := range changes {
		changes[i] = func(tx *Tx) error {
			runs++
			if i%2 == 1 {
				return errRefused
			}
			return put(fmt.Sprintf("%04d", i))(tx)
		}
	}
	for i, err := range together(t, db, changes...) {
		if fails := i%2 == 1; fails != errors.Is(err, errRefused) || !fails && err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
	if got := len(keys(t, db)); got != n/2 {
		t.Errorf("%d keys", got)
	}
	if runs > n*(rerun+1) {
		t.Errorf("%d changes were run %d times", n, runs)
	}
}

func TestHooksAndValues(t *testing.T) {
	db := open(t, Options{})
	var order []string // hooks run in the one writing goroutine; Update orders them before what follows here
	change := func(name string, fail error) func(*Tx) error {
		return func(tx *Tx) error {
			n, _ := tx.Value("n").(int)
			tx.SetValue("n", n+1)
			tx.BeforeCommit("sum", func() error {
				order = append(order, fmt.Sprintf("sum of %v", tx.Value("n")))
				tx.BeforeCommit("late", func() error { order = append(order, "late"); return put("late")(tx) })
				return nil
			})
			tx.AfterCommit(func() { order = append(order, "after "+name) })
			return fail
		}
	}
	together(t, db, change("a", nil), change("b", errRefused), change("c", nil))
	if want := []string{"sum of 2", "late", "after a", "after c"}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
	if got := keys(t, db); !slices.Equal(got, []string{"late"}) {
		t.Errorf("keys %v", got)
	}
	order = nil
	together(t, db, change("d", nil))
	if !slices.Contains(order, "sum of 1") {
		t.Errorf("values outlive their batch: %q", order)
	}
}

func TestBeforeCommitFailsTheBatch(t *testing.T) {
	for name, hook := range map[string]func() error{"error": func() error { return errRefused }, "panic": func() error { panic("boom") }} {
		t.Run(name, func(t *testing.T) {
			db := open(t, Options{})
			after := false
			errs := together(t, db, put("0"), func(tx *Tx) error {
				tx.BeforeCommit("k", hook)
				tx.AfterCommit(func() { after = true })
				return put("1")(tx)
			})
			if errs[0] == nil || errs[1] == nil || after || len(keys(t, db)) != 0 {
				t.Errorf("errors %v, after %v, keys %v", errs, after, keys(t, db))
			}
			if !strings.Contains(errs[0].Error(), "nothing was written") {
				t.Errorf("%v does not say that nothing was written", errs[0])
			}
			if err := db.Update(t.Context(), put("2")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPanicAfterCommit(t *testing.T) {
	db := open(t, Options{})
	var ran atomic.Bool
	errs := together(t, db,
		func(tx *Tx) error { tx.AfterCommit(func() { panic("boom") }); return put("0")(tx) },
		func(tx *Tx) error { tx.AfterCommit(func() { ran.Store(true) }); return put("1")(tx) })
	if errs[0] != nil || errs[1] != nil || !ran.Load() || len(keys(t, db)) != 2 {
		t.Errorf("%v, ran %v, keys %v", errs, ran.Load(), keys(t, db))
	}
}

// TestUnconfirmedCommit has a commit end in an error after its version became visible, as when the last fsync fails.
func TestUnconfirmedCommit(t *testing.T) {
	db := open(t, Options{})
	errs := together(t, db, put("0"), func(tx *Tx) error {
		tx.Bucket("b").Tx().OnCommit(func() { panic("no confirmation") })
		return nil
	})
	for _, err := range append(errs, db.Update(t.Context(), put("1"))) {
		if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "restart") {
			t.Errorf("%v, want %v and the mend", err, ErrUnknown)
		}
	}
	if got := keys(t, db); slices.Contains(got, "1") {
		t.Errorf("written after an unknown outcome: %v", got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(db.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Update(t.Context(), put("2")); err != nil {
		t.Error(err)
	}
}

func TestContext(t *testing.T) {
	db := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	release := hold(t, db)
	queued := make(chan error, 1)
	go func() { queued <- db.Update(ctx, put("queued")) }()
	for len(db.queue) == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-queued; !errors.Is(err, context.Canceled) {
		t.Errorf("queued: %v", err)
	}
	release()
	if err := db.Update(ctx, put("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	// Once it has begun it runs to its end, and its result is the truth.
	ctx, cancel = context.WithCancel(t.Context())
	if err := db.Update(ctx, func(tx *Tx) error { cancel(); return put("begun")(tx) }); err != nil {
		t.Errorf("begun: %v", err)
	}
	if got := keys(t, db); !slices.Equal(got, []string{"begun"}) {
		t.Errorf("keys %v", got)
	}
}

func TestFullQueueHonoursContext(t *testing.T) {
	db := open(t, Options{MaxBatch: 1})
	release := hold(t, db)
	first := make(chan error, 1)
	go func() { first <- db.Update(context.Background(), put("first")) }()
	for len(db.queue) == 0 {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { second <- db.Update(ctx, put("second")) }()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestCloseWhileBusy closes under load: every Update either is on the disk or says that it isn't.
func TestCloseWhileBusy(t *testing.T) {
	db := open(t, Options{MaxBatch: 4})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var acked []string
	enough := make(chan struct{})
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%06d", w, i)
				switch err := db.Update(context.Background(), put(key)); {
				case errors.Is(err, ErrClosed):
					return
				case err != nil:
					t.Errorf("%s: %v", key, err)
					return
				}
				mu.Lock()
				if acked = append(acked, key); len(acked) == 20 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := db.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := db.Update(t.Context(), put("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	if err := db.View(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("View after Close: %v", err)
	}
	db, err := Open(db.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got := keys(t, db)
	slices.Sort(acked)
	for _, k := range acked {
		if _, ok := slices.BinarySearch(got, k); !ok {
			t.Errorf("%s was acknowledged and is lost", k)
		}
	}
}

func TestViewSeesOneVersion(t *testing.T) {
	db := open(t, Options{})
	value := func(tx *Tx) (n [2]uint64) {
		for i := range n {
			if b := tx.Bucket("b"); b != nil {
				if v := b.Get([]byte{byte(i)}); v != nil {
					n[i] = binary.BigEndian.Uint64(v)
				}
			}
		}
		return n
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := db.View(func(tx *Tx) error {
					if n := value(tx); n[0] != n[1] {
						return fmt.Errorf("half of a change is visible: %v", n)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 30 {
		err := db.Update(t.Context(), func(tx *Tx) error {
			n := value(tx)
			for i := range n {
				if err := tx.Bucket("b").Put([]byte{byte(i)}, binary.BigEndian.AppendUint64(nil, n[i]+1)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// BenchmarkSync is what bounds a single writer: 4 KiB overwritten in place and synced to the disk, by bare system calls. A
// commit of bbolt takes two, one of its pages and one of its root.
func BenchmarkSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 64<<10)
	if _, err := f.WriteAt(page, 0); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(page[:4096], int64(i%16)*4096); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			db := open(b, Options{})
			var next atomic.Uint64
			b.SetParallelism(max(1, clients/runtime.GOMAXPROCS(0)))
			if clients == 1 {
				for b.Loop() {
					if err := db.Update(context.Background(), put(fmt.Sprint(next.Add(1)))); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := db.Update(context.Background(), put(fmt.Sprint(next.Add(1)))); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
