package transport

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefusedWhileStarting dials somebody who begins to listen while UDP to it hangs: TCP, refused at first, is what connects.
func TestRefusedWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, tries := time.Now(), 0
		hangs := func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		starts := func(context.Context) (string, error) {
			if tries++; time.Since(from) < 2*time.Second {
				return "", fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
			}
			return "tcp", nil
		}
		conn, which, err := race(t.Context(), []way[string]{{"quic", 0, hangs}, {"tcp", raceDelay, starts}}, func(string) { t.Error("dropped a connection") })
		if conn != "tcp" || which != 1 || err != nil || time.Since(from) > 2*time.Second+retryRefused || tries > 6 {
			t.Errorf("%q after %v and %d tries: %v", conn, time.Since(from), tries, err)
		}
	})
}

// TestRaceIsOverWhenAllHaveFailed does not wait for who refuses once nothing else is being tried, and keeps no connection.
func TestRaceIsOverWhenAllHaveFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := time.Now()
		var dropped atomic.Int64
		refuses := func(context.Context) (string, error) { return "", syscall.ECONNREFUSED }
		late := func(context.Context) (string, error) { time.Sleep(time.Second); return "", errors.New("no answer") }
		_, _, err := race(t.Context(), []way[string]{{"tcp", 0, refuses}, {"quic", raceDelay, late}}, func(string) { dropped.Add(1) })
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || time.Since(from) != time.Second {
			t.Errorf("after %v: %v", time.Since(from), err)
		}
		slow := func(context.Context) (string, error) { time.Sleep(time.Second); return "slow", nil }
		fast := func(context.Context) (string, error) { return "fast", nil }
		if conn, _, err := race(t.Context(), []way[string]{{"a", 0, slow}, {"b", raceDelay, fast}}, func(string) { dropped.Add(1) }); conn != "fast" || err != nil {
			t.Errorf("%q: %v", conn, err)
		}
		time.Sleep(2 * time.Second)
		if n := dropped.Load(); n != 1 {
			t.Errorf("%d connections dropped, want the slower one", n)
		}
	})
}
