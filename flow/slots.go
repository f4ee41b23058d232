package flow

import (
	"container/heap"
	"context"
	"sync"
)

// slots bounds how many agents run at once; among those that wait, the higher priority goes first, and within a
// priority the one that came first.
type slots struct {
	mu    sync.Mutex
	free  int
	queue waiters
	count int // arrivals, for order within a priority
}

type waiter struct {
	rank, order int
	ready       chan struct{}
	index       int // in the heap; -1 when it was served
}

func newSlots(n int) *slots { return &slots{free: n} }

func rank(priority string) int {
	switch priority {
	case "high":
		return 0
	case "low":
		return 2
	}
	return 1
}

// acquire waits for a slot; the caller must release it.
func (s *slots) acquire(ctx context.Context, priority string) error {
	s.mu.Lock()
	if s.free > 0 && len(s.queue) == 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	s.count++
	w := &waiter{rank: rank(priority), order: s.count, ready: make(chan struct{})}
	heap.Push(&s.queue, w)
	s.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.index < 0 { // served at the same moment: pass it on
		s.grant()
	} else {
		heap.Remove(&s.queue, w.index)
	}
	return ctx.Err()
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grant()
}

func (s *slots) grant() {
	if len(s.queue) == 0 {
		s.free++
		return
	}
	close(heap.Pop(&s.queue).(*waiter).ready)
}

type waiters []*waiter

func (q waiters) Len() int { return len(q) }
func (q waiters) Less(i, j int) bool {
	return q[i].rank < q[j].rank || q[i].rank == q[j].rank && q[i].order < q[j].order
}
func (q waiters) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *waiters) Push(x any) {
	w := x.(*waiter)
	w.index = len(*q)
	*q = append(*q, w)
}
func (q *waiters) Pop() any {
	old := *q
	w := old[len(old)-1]
	w.index = -1
	*q = old[:len(old)-1]
	return w
}
