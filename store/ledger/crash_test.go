package ledger

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"fednode/store"
)

const childEnv = "FEDNODE_LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		appendForEver(path)
	}
	os.Exit(m.Run())
}

// appendForEver is the child: it appends from several clients, and prints "index number" once an entry is acknowledged.
func appendForEver(path string) {
	db, err := store.Open(path, store.Options{})
	if err != nil {
		panic(err)
	}
	s, err := NewSigner(origin, testKey())
	if err != nil {
		panic(err)
	}
	l, err := Open(db, Config{Name: "own", Origin: origin, Signer: s})
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	var out sync.Mutex
	for range 16 {
		wg.Go(func() {
			for {
				n, index := rand.IntN(1<<40), int64(0)
				err := db.Update(context.Background(), func(tx *store.Tx) (err error) { index, err = l.Append(tx, entryOf(n)); return err })
				if err != nil {
					panic(err)
				}
				out.Lock()
				fmt.Printf("%d %d\n", index, n)
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKilled kills an appending process at random moments. Whatever it acknowledged is there, at its index; the log opens
// and verifies from its entries up; and it goes on from where it was.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	acked := map[int64]int{}
	last := Head{}
	for range 5 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), childEnv+"="+path)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		read := func() bool {
			if !lines.Scan() {
				return false
			}
			var index int64
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "%d %d", &index, &n); err != nil {
				t.Errorf("the child says %q", lines.Text())
			}
			acked[index] = n
			return true
		}
		for until := 1 + rand.IntN(300); until > 0 && read(); until-- {
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for read() {
		}
		var exit *exec.ExitError
		if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v", err)
		}
		db, l := openLog(t, path)
		for i, n := range acked {
			if e, err := l.Entry(i); err != nil || !bytes.Equal(e, entryOf(n)) {
				t.Errorf("entry %d is %s, %v; %d was acknowledged", i, e, err, n)
			}
		}
		head, err := VerifyDir(files(t, l), l.Verifier(), nil)
		if err != nil || head != l.Head() || head.Size < last.Size || head.Size < int64(len(acked)) {
			t.Errorf("%v, %v after %v and %d acknowledged", head, err, last, len(acked))
		}
		last = head
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
