package flow

import (
	"context"
	"sync"
)

// An Event is one change in a run, as its initiator or an executor sees it.
type Event struct {
	Time         string `json:"time"`
	Run          RunID  `json:"run"`
	Step         string `json:"step,omitempty"`
	Attempt      int    `json:"attempt,omitempty"`
	Organization string `json:"organization_id,omitempty"`
	State        string `json:"state"` // of the step or, without a step, of the run
	Text         string `json:"text,omitempty"`
}

// broker fans events out to watchers. A watcher that does not keep up loses its oldest events, never the work.
type broker struct {
	mu   sync.Mutex
	subs map[chan Event]RunID
}

func (e *Engine) publish(ev Event) {
	ev.Time = stamp(e.c.Now())
	e.events.mu.Lock()
	defer e.events.mu.Unlock()
	for ch, run := range e.events.subs {
		if run != "" && run != ev.Run {
			continue
		}
		for sent := false; !sent; {
			select {
			case ch <- ev:
				sent = true
			default:
				select {
				case <-ch:
				default:
				}
			}
		}
	}
}

// Watch returns the events of a run, or of all runs with run empty, until ctx ends; then the channel is closed. The
// first event of a run that this organisation initiated says where it stands: it may have ended already.
func (e *Engine) Watch(ctx context.Context, run RunID) <-chan Event {
	ch := make(chan Event, 256)
	e.events.mu.Lock()
	if e.events.subs == nil {
		e.events.subs = map[chan Event]RunID{}
	}
	e.events.subs[ch] = run
	e.events.mu.Unlock()
	if r, err := e.GetRun(string(run)); run != "" && err == nil {
		ev := Event{Time: stamp(e.c.Now()), Run: r.ID, State: string(r.State)}
		if r.Error != nil {
			ev.Text = r.Error.Error()
		}
		select {
		case ch <- ev:
		default: // it is full of later ones
		}
	}
	context.AfterFunc(ctx, func() {
		e.events.mu.Lock()
		defer e.events.mu.Unlock()
		delete(e.events.subs, ch)
		close(ch)
	})
	return ch
}

// headlines keeps the short human line of the latest attempts in memory only: it may tell what a no-storage document
// is about.
type headlines struct {
	mu    sync.Mutex
	lines map[attemptKey]string
	order []attemptKey
}

const maxHeadlines = 4096

func (h *headlines) set(k attemptKey, line string) {
	if line == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lines == nil {
		h.lines = map[attemptKey]string{}
	}
	if _, ok := h.lines[k]; !ok {
		h.order = append(h.order, k)
	}
	h.lines[k] = line
	if len(h.order) > maxHeadlines {
		delete(h.lines, h.order[0])
		h.order = h.order[1:]
	}
}

func (h *headlines) get(k attemptKey) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lines[k]
}
