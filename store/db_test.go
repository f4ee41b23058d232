package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// Modes of the test binary as a child process.
const (
	childEnv    = "FEDNODE_STORE_TEST_CHILD"
	modeOpen    = "open"
	modeAppend  = "append"
	modeFill    = "fill"
	exitRefused = 3
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		os.Exit(child(mode, os.Args[1]))
	}
	os.Exit(m.Run())
}

// command returns the test binary as a child that works on a database.
func command(mode, path string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", path)
	c.Env = append(os.Environ(), childEnv+"="+mode)
	return c
}

func child(mode, path string) int {
	db, err := Open(path, Options{})
	if err != nil {
		for class, name := range map[error]string{ErrLocked: "locked: ", ErrReadOnly: "read-only: "} {
			if errors.Is(err, class) {
				fmt.Print(name)
			}
		}
		fmt.Print(err)
		return exitRefused
	}
	switch mode {
	case modeAppend:
		return childAppend(db)
	case modeFill:
		return childFill(db)
	}
	return 0
}

// childAppend puts keys for ever, and prints each once it is acknowledged.
func childAppend(db *DB) int {
	run := rand.Uint64()
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%016x-%d-%06d", run, w, i)
				if err := db.Update(context.Background(), put(key)); err != nil {
					panic(err)
				}
				out.Lock()
				os.Stdout.WriteString(key + "\n")
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return 0
}

// childFill puts values until the file cannot grow, and then again once it can. It prints what was acknowledged.
func childFill(db *DB) int {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		panic(err)
	}
	limit := func(n uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: old.Max}); err != nil {
			panic(err)
		}
	}
	write := func(i int) error {
		return db.Update(context.Background(), func(tx *Tx) error {
			return tx.Bucket("b").Put(fmt.Appendf(nil, "%06d", i), bytes.Repeat([]byte("x"), 5000))
		})
	}
	limit(300_000)
	i, full := 0, 0
	for ; full < 3; i++ { // three refusals: the first must not break what follows
		switch err := write(i); {
		case err == nil:
			fmt.Printf("%06d\n", i)
		case strings.Contains(err.Error(), "nothing was written to "+db.Path()):
			full++
		default:
			panic(err)
		}
	}
	limit(old.Cur)
	if err := write(i); err != nil {
		panic(err)
	}
	fmt.Printf("%06d\n", i)
	return 0
}

func wantKeys(t *testing.T, path string, acked []string) {
	t.Helper()
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got := keys(t, db)
	for _, k := range acked {
		if _, ok := slices.BinarySearch(got, k); !ok {
			t.Errorf("%s was acknowledged and is lost", k)
		}
	}
	if err := db.bolt.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	var acked []string
	for range 6 {
		c := command(modeAppend, path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for until := 1 + rand.IntN(100); until > 0 && lines.Scan(); until-- {
			acked = append(acked, lines.Text())
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it managed to say before it died; a line is one write
			acked = append(acked, lines.Text())
		}
		var exit *exec.ExitError
		if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v", err)
		}
		wantKeys(t, path, acked)
	}
}

func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	c := command(modeFill, path)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	acked := strings.Fields(string(out))
	if len(acked) < 10 {
		t.Fatalf("only %d changes before the disk was full", len(acked))
	}
	wantKeys(t, path, acked)
}

// refused runs a child that must not be able to open the database, and returns what it says.
func refused(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	c.Stderr = os.Stderr
	out, err := c.Output()
	if c.ProcessState.ExitCode() != exitRefused {
		t.Fatalf("child: %v, %s", err, out)
	}
	return string(out)
}

func TestSecondProcess(t *testing.T) {
	db := open(t, Options{})
	if out := refused(t, command(modeOpen, db.Path())); !strings.HasPrefix(out, "locked: ") || !strings.Contains(out, "-D") {
		t.Errorf("%q is not a refusal with a mend", out)
	}
	if _, err := Open(db.Path(), Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open in this process: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := command(modeOpen, db.Path()).Output(); err != nil {
		t.Errorf("after Close: %v, %s", err, out)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // reachable for the unprivileged child
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := command(modeOpen, filepath.Join(dir, "node.db"))
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if out := refused(t, c); !strings.HasPrefix(out, "read-only: ") || !strings.Contains(out, "make the data directory writable") {
		t.Errorf("%q is not a refusal with a mend", out)
	}
}

func TestReadOnly(t *testing.T) {
	db := open(t, Options{})
	if err := db.Update(t.Context(), put("0")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := Open(db.Path(), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Open(db.Path(), Options{ReadOnly: true}) // readers share
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := keys(t, a); !slices.Equal(got, []string{"0"}) {
		t.Errorf("keys %v", got)
	}
	if err := a.Update(t.Context(), put("1")); err == nil {
		t.Error("a read-only database was written")
	}
}

func TestNewerSchema(t *testing.T) {
	db := open(t, Options{})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	set := func(v []byte) {
		b, err := bolt.Open(db.Path(), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(schemaKey, v) }); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a refusal leaves no lock behind
		set(binary.BigEndian.AppendUint64(nil, Schema+1))
		if _, err := Open(db.Path(), Options{}); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "upgrade fednode") {
			t.Errorf("newer schema: %v", err)
		}
		set([]byte("1"))
		if _, err := Open(db.Path(), Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("damaged schema: %v", err)
		}
	}
}

func TestForeignDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	b, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("wallet")); return err })
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "wallet") {
		t.Errorf("another program's database: %v", err)
	}
}

func TestBadPaths(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := Open(filepath.Join(dir, "none", "node.db"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no data directory: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "node.db"), Options{}); err == nil {
		t.Error("a file was used as data directory")
	}
	db, err := Open(filepath.Join(dir, "node.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if st, err := os.Stat(db.Path()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// TestDamaged cuts and garbles a database. Each is refused as damaged, or what is still readable is read; nothing kills
// the process.
func TestDamaged(t *testing.T) {
	db := open(t, Options{})
	for i := range 40 {
		err := db.Update(t.Context(), func(tx *Tx) error {
			for j := range 20 {
				if err := tx.Bucket("b").Put(fmt.Appendf(nil, "%04d", i*20+j), bytes.Repeat([]byte{byte(i)}, 300)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	size := int64(0)
	if err := db.bolt.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	try := func(bad []byte) error {
		path := filepath.Join(t.TempDir(), "node.db")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(path, Options{})
		if err != nil {
			return err
		}
		defer db.Close()
		return errors.Join(
			db.View(func(tx *Tx) error {
				if b := tx.Bucket("b"); b != nil {
					return b.ForEach(func(_, v []byte) error { _, err := io.Discard.Write(v); return err })
				}
				return nil
			}),
			db.Update(context.Background(), put("0100")))
	}
	if err := try(good); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, 4096, 3*4096 + 1, 4 * 4096, 8 * 4096, size / 2, size - 4096, size - 1} {
		if err := try(good[:n]); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("cut to %d of %d bytes: %v", n, size, err)
		}
	}
	if err := try(bytes.Repeat([]byte("garbage "), 4096)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("garbage: %v", err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		bad := bytes.Clone(good)
		page := rng.IntN(int(size) / 4096)
		switch rng.IntN(3) {
		case 0:
			clear(bad[page*4096 : (page+1)*4096])
		case 1:
			for i := range 4096 {
				bad[page*4096+i] = byte(rng.Uint32())
			}
		case 2:
			bad[page*4096+rng.IntN(16)] ^= 1 << rng.IntN(8) // its header
		}
		if err := try(bad); err != nil && err.Error() == "" {
			t.Errorf("page %d: an error that says nothing", page)
		}
	}
}
