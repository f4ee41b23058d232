package compute

import (
	"context"
	"fmt"
	"sync"
)

// A Net carries frames between the parties of a roster, counted by their places in
// it. Frames between two parties arrive as they were sent, in order, from whom they
// claim. One goroutine at a time sends to a party, one at a time receives from it.
type Net interface {
	// Send delivers a frame, or blocks until the recipient takes it. The frame
	// must not be changed afterwards, by sender or recipient.
	Send(ctx context.Context, to int, frame []byte) error
	// Receive returns the next frame from a party. It returns ErrTooLong, and
	// allocates nothing, if that has more than limit bytes.
	Receive(ctx context.Context, from, limit int) ([]byte, error)
	// Close ends the network for this party; the others see it as missing.
	Close() error
}

// A Local is a Net within a process.
type Local struct {
	self int
	lane [][]chan []byte // by sender and recipient
	gone []chan struct{} // closed when a party is
	once *sync.Once
}

// NewLocal returns the ends of n parties.
func NewLocal(n int) []*Local {
	lane, gone := make([][]chan []byte, n), make([]chan struct{}, n)
	for i := range n {
		lane[i], gone[i] = make([]chan []byte, n), make(chan struct{})
		for j := range n {
			lane[i][j] = make(chan []byte, 2)
		}
	}
	out := make([]*Local, n)
	for i := range out {
		out[i] = &Local{self: i, lane: lane, gone: gone, once: new(sync.Once)}
	}
	return out
}

// Send implements Net. The recipient gets the very frame.
func (l *Local) Send(ctx context.Context, to int, frame []byte) error {
	select {
	case <-l.gone[l.self]:
		return ErrOver
	default:
	}
	select {
	case l.lane[l.self][to] <- frame:
		return nil
	case <-l.gone[l.self]:
		return ErrOver
	case <-l.gone[to]:
		return fmt.Errorf("%w: its network ended", ErrMissing)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Receive implements Net.
func (l *Local) Receive(ctx context.Context, from, limit int) ([]byte, error) {
	lane := l.lane[from][l.self]
	var frame []byte
	select {
	case frame = <-lane:
	default:
		select {
		case frame = <-lane:
		case <-l.gone[l.self]:
			return nil, ErrOver
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.gone[from]:
			select { // what it sent before it went
			case frame = <-lane:
			default:
				return nil, fmt.Errorf("%w: its network ended", ErrMissing)
			}
		}
	}
	if len(frame) > limit {
		return nil, fmt.Errorf("%w: %d bytes where at most %d belong", ErrTooLong, len(frame), limit)
	}
	return frame, nil
}

// Close implements Net.
func (l *Local) Close() error {
	l.once.Do(func() { close(l.gone[l.self]) })
	return nil
}
