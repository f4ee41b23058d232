package transport

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMemberThatComesLate is called before it is there. Once it is, and shows it by a call of its own, nobody waits for
// packets that nobody was there to receive.
func TestMemberThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "org-a", "org-b")
		a := w.start("org-a", func(n *Node) { n.Handle("question", echo) })
		answered := make(chan error, 1)
		go func() {
			_, err := a.Call(t.Context(), ask("org-b"), nil)
			answered <- err
		}()
		time.Sleep(3 * time.Second)
		b := w.start("org-b", func(n *Node) { n.Handle("question", echo) })
		began := time.Now()
		if _, err := b.Call(t.Context(), ask("org-a"), nil); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Errorf("the call that came early: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it waited for %v after org-b was there", took)
		}
	})
}
