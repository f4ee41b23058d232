package flow

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"fednode/flow/agent"
)

func artifactsOf(t string, data []byte) []agent.Artifact {
	return []agent.Artifact{{Type: t, MediaType: "application/json", Data: data}}
}

func TestSlotsServePriorityThenArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		if err := s.acquire(t.Context(), "low"); err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, w := range []struct{ name, priority string }{{"n1", "normal"}, {"l1", "low"}, {"h1", "high"}, {"n2", "normal"}, {"h2", "high"}} {
			go func() {
				if err := s.acquire(t.Context(), w.priority); err == nil {
					order = append(order, w.name)
					s.release()
				}
			}()
			synctest.Wait()
		}
		s.release()
		synctest.Wait()
		if want := []string{"h1", "h2", "n1", "n2", "l1"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
	})
}

func TestSlotsGivenUpAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2)
		for range 2 {
			if err := s.acquire(t.Context(), "normal"); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 10)
		for range 10 {
			go func() { errs <- s.acquire(ctx, "high") }()
		}
		synctest.Wait()
		cancel()
		for range 10 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Fatalf("acquire = %v", err)
			}
		}
		s.release()
		s.release()
		for range 2 {
			if err := s.acquire(t.Context(), "low"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
