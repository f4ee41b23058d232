package compute

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// patience is for machines that do much else.
const patience = 2 * time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// parties returns a roster and its private keys.
func parties(n int) (Roster, []ed25519.PrivateKey) {
	roster, keys := make(Roster, n), make([]ed25519.PrivateKey, n)
	for i := range n {
		seed := sha256.Sum256(fmt.Appendf(nil, "party %d", i))
		keys[i] = ed25519.NewKeyFromSeed(seed[:])
		roster[i] = Party{Name: fmt.Sprintf("org-%c", 'a'+i), Key: keys[i].Public().(ed25519.PublicKey)}
	}
	return roster, keys
}

// A maker returns the ends of a network.
type maker struct {
	name string
	make func(t testing.TB, n int) []Net
}

var makers = []maker{{"local", localNets}, {"tcp", tcpNets}}

func localNets(_ testing.TB, n int) []Net {
	out := make([]Net, n)
	for i, l := range NewLocal(n) {
		out[i] = l
	}
	return out
}

func tcpNets(t testing.TB, n int) []Net {
	t.Helper()
	roster, keys := parties(n)
	listeners, addresses := make([]net.Listener, n), make([]string, n)
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		listeners[i], addresses[i] = l, l.Addr().String()
	}
	out, errs := make([]Net, n), make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			var end *TCP
			end, errs[i] = DialTCP(t.Context(), TCPConfig{roster, i, keys[i], addresses, listeners[i]})
			out[i] = end
		})
	}
	group.Wait()
	must(t, errors.Join(errs...))
	return out
}

// run has every party open a session and act in it, and returns their errors. A
// party that fails, or is done, leaves the network.
func run(t testing.TB, nets []Net, act func(s *Session, self int) error) []error {
	t.Helper()
	roster, keys := parties(len(nets))
	errs := make([]error, len(nets))
	var group sync.WaitGroup
	for i := range nets {
		group.Go(func() {
			s, err := Open(t.Context(), nets[i], Config{Name: "test", Roster: roster, Self: i, Key: keys[i], Timeout: patience})
			if err == nil {
				err = act(s, i)
			}
			errs[i] = err
		})
	}
	group.Wait()
	for _, n := range nets {
		n.Close()
	}
	return errs
}

// wantParty checks that an error names a party for a reason.
func wantParty(t testing.TB, err error, name string, reason error) {
	t.Helper()
	var named *PartyError
	if !errors.As(err, &named) || named.Party != name || !errors.Is(err, reason) {
		t.Errorf("got %v; want %q named: %v", err, name, reason)
	}
}

func TestRounds(t *testing.T) {
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			var mu sync.Mutex
			ids, coins := map[[32]byte]int{}, map[[32]byte]int{}
			errs := run(t, m.make(t, 4), func(s *Session, self int) error {
				big := bytes.Repeat([]byte{byte(self)}, 100_000)
				all, err := s.Broadcast(t.Context(), "big", big, len(big))
				if err != nil {
					return err
				}
				for i, b := range all {
					if want := bytes.Repeat([]byte{byte(i)}, 100_000); !bytes.Equal(b, want) {
						return fmt.Errorf("party %d's broadcast came as %d bytes of %d", i, len(b), b[0])
					}
				}
				out := make([][]byte, 4)
				for i := range out {
					out[i] = fmt.Appendf(nil, "%d to %d", self, i)
				}
				in, err := s.Exchange(t.Context(), "private", out, 10)
				if err != nil {
					return err
				}
				for i, b := range in {
					if want := fmt.Sprintf("%d to %d", i, self); string(b) != want {
						return fmt.Errorf("got %q, want %q", b, want)
					}
				}
				if all, err = s.Simultaneous(t.Context(), "together", []byte{byte(self)}, 1); err != nil {
					return err
				} else if got := bytes.Join(all, nil); !bytes.Equal(got, []byte{0, 1, 2, 3}) {
					return fmt.Errorf("together: %v", got)
				}
				coin, err := s.Coin(t.Context(), "coin")
				mu.Lock()
				ids[s.ID()]++
				coins[coin]++
				mu.Unlock()
				if err != nil {
					return err
				}
				return s.Agree(t.Context(), "outcome", coin)
			})
			must(t, errors.Join(errs...))
			if len(ids) != 1 || len(coins) != 1 {
				t.Errorf("%d identifiers and %d coins, want one of each", len(ids), len(coins))
			}
		})
	}
}

// say sends party self's broadcasts with a payload for each recipient, and goes on as if they had been the same.
func say(t testing.TB, s *Session, label string, payload func(to int) []byte) error {
	ctx := t.Context()
	heard := make([]*frame, len(s.config.Roster))
	frames := make([]*frame, len(heard))
	for to := range frames {
		f, err := s.newFrame(kindBroadcast, label, everybody, payload(to))
		if err != nil {
			return err
		}
		frames[to] = f
	}
	heard[s.config.Self] = frames[s.config.Self]
	err := s.swap(ctx, label, 100, func(to int) ([]byte, error) { return frames[to].marshal(), nil }, func(from int, f *frame) error {
		heard[from] = f
		return nil
	})
	if err != nil {
		return err
	}
	return s.echo(ctx, label, heard)
}

// TestEquivocation: party 2 tells party 3 something else than the others; all three honest parties name it.
func TestEquivocation(t *testing.T) {
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			errs := run(t, m.make(t, 4), func(s *Session, self int) error {
				if self == 2 {
					return say(t, s, "vote", func(to int) []byte { return []byte{byte(to / 3)} })
				}
				_, err := s.Broadcast(t.Context(), "vote", []byte{9}, 1)
				return err
			})
			for _, i := range []int{0, 1, 3} {
				wantParty(t, errs[i], "org-c", ErrEquivocated)
			}
		})
	}
}

// TestFalseEvidence: party 1 claims that party 0 told it something else. Without party 0's signature, it is the one named.
func TestFalseEvidence(t *testing.T) {
	for _, show := range []bool{false, true} {
		errs := run(t, localNets(t, 3), func(s *Session, self int) error {
			if self != 1 {
				_, err := s.Broadcast(t.Context(), "vote", []byte{9}, 1)
				return err
			}
			heard := make([]*frame, 3)
			heard[1], _ = s.newFrame(kindBroadcast, "vote", everybody, []byte{9})
			err := s.swap(t.Context(), "vote", 100, func(int) ([]byte, error) { return heard[1].marshal(), nil }, func(from int, f *frame) error {
				heard[from] = f
				return nil
			})
			if err != nil {
				return err
			}
			heard[0].payload = []byte{8}
			if show {
				return s.echo(t.Context(), "vote", heard)
			}
			lie, _ := s.newFrame(kindEcho, "vote", everybody, make([]byte, 32))
			s.swap(t.Context(), "vote", 100, func(int) ([]byte, error) { return lie.marshal(), nil }, func(int, *frame) error { return nil })
			return s.Fail(errors.New("enough"))
		})
		wantParty(t, errs[0], "org-b", ErrMisbehaved)
		wantParty(t, errs[2], "org-b", ErrMisbehaved)
	}
}

// TestSilence: a party that stops is named when the time is up, whatever the others then tell each other.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var waiting sync.WaitGroup
		waiting.Add(3)
		go func() { waiting.Wait(); close(release) }()
		errs := run(t, localNets(t, 4), func(s *Session, self int) error {
			if self == 1 {
				<-release
				return nil
			}
			defer waiting.Done()
			_, err := s.Broadcast(t.Context(), "vote", []byte{1}, 1)
			return err
		})
		for _, i := range []int{0, 2, 3} {
			wantParty(t, errs[i], "org-b", ErrMissing)
		}
	})
}

// TestLeaving: a party whose network ends is named at once.
func TestLeaving(t *testing.T) {
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			nets := m.make(t, 3)
			errs := run(t, nets, func(s *Session, self int) error {
				if self == 1 {
					return nets[1].Close()
				}
				_, err := s.Broadcast(t.Context(), "vote", []byte{1}, 1)
				return err
			})
			for _, i := range []int{0, 2} {
				var named *PartyError
				if !errors.As(errs[i], &named) || !errors.Is(errs[i], ErrMissing) && !errors.Is(errs[i], ErrAborted) {
					t.Errorf("party %d: %v", i, errs[i])
				}
			}
			if err := errors.Join(errs...); !strings.Contains(err.Error(), "org-b") {
				t.Errorf("nobody names the party that left: %v", err)
			}
		})
	}
}

// A tap records what one party sends, or sends what was recorded in place of it.
type tap struct {
	Net
	mu     sync.Mutex
	record map[int][][]byte
	replay map[int][][]byte
	from   int // the number of frames to each party before replay begins
	sent   map[int]int
}

func (r *tap) Send(ctx context.Context, to int, frame []byte) error {
	r.mu.Lock()
	at := r.sent[to]
	r.sent[to]++
	r.record[to] = append(r.record[to], frame)
	if r.replay != nil && at >= r.from && at < len(r.replay[to]) {
		frame = r.replay[to][at]
	}
	r.mu.Unlock()
	return r.Net.Send(ctx, to, frame)
}

func newTap(n Net) *tap { return &tap{Net: n, record: map[int][][]byte{}, sent: map[int]int{}} }

// TestReplayAcrossSessions: what a party sent in one session is refused in the next, from its first signed frame on, even if its hello is replayed too.
func TestReplayAcrossSessions(t *testing.T) {
	vote := func(s *Session, self int) error {
		_, err := s.Broadcast(t.Context(), "vote", []byte{byte(self)}, 1)
		return err
	}
	nets := localNets(t, 3)
	first := newTap(nets[1])
	nets[1] = first
	must(t, errors.Join(run(t, nets, vote)...))
	for from := range 5 {
		nets := localNets(t, 3)
		second := newTap(nets[1])
		second.replay, second.from = first.record, from
		nets[1] = second
		errs := run(t, nets, vote)
		if errs[0] == nil || errs[2] == nil {
			t.Fatalf("from frame %d on: a replayed session was taken: %v", from, errs)
		}
		wantParty(t, errs[0], "org-b", ErrInconsistent)
	}
}

// TestPrivateMessagesAreForOne: a private message to another party, or one that was changed, is refused and its sender named.
func TestPrivateMessagesAreForOne(t *testing.T) {
	for what, change := range map[string]func(s *Session) []byte{
		"a plain one": func(s *Session) []byte {
			f, _ := s.newFrame(kindPrivate, "share", 0, make([]byte, sealOverhead+4))
			return f.marshal()
		},
		"one for another": func(s *Session) []byte {
			f, _ := s.newFrame(kindPrivate, "share", 1, make([]byte, sealOverhead+4))
			return f.marshal()
		},
	} {
		t.Run(what, func(t *testing.T) {
			errs := run(t, localNets(t, 2), func(s *Session, self int) error {
				if self == 1 {
					return s.net.Send(t.Context(), 0, change(s))
				}
				_, err := s.Exchange(t.Context(), "share", [][]byte{nil, []byte("four")}, 4)
				return err
			})
			wantParty(t, errs[0], "org-b", ErrMisbehaved)
		})
	}
}

// TestBrokenCommitment: who reveals another payload than the one committed to is named.
func TestBrokenCommitment(t *testing.T) {
	errs := run(t, localNets(t, 3), func(s *Session, self int) error {
		if self != 1 {
			_, err := s.Simultaneous(t.Context(), "bid", []byte{1}, 1)
			return err
		}
		if _, err := s.Broadcast(t.Context(), "bid, committed", make([]byte, 32), 32); err != nil {
			return err
		}
		_, err := s.Broadcast(t.Context(), "bid", make([]byte, 33), 33)
		return err
	})
	wantParty(t, errs[0], "org-b", ErrMisbehaved)
	wantParty(t, errs[2], "org-b", ErrMisbehaved)
}

func TestOutcomesThatDiffer(t *testing.T) {
	errs := run(t, localNets(t, 2), func(s *Session, self int) error {
		return s.Agree(t.Context(), "outcome", [32]byte{byte(self)})
	})
	wantParty(t, errs[0], "org-b", ErrMisbehaved)
	wantParty(t, errs[1], "org-a", ErrMisbehaved)
}

// TestSessionsThatDiffer: another name or another roster is noticed before anything is said.
func TestSessionsThatDiffer(t *testing.T) {
	roster, keys := parties(3)
	other := append(Roster(nil), roster...)
	other[2].Name = "org-x"
	for _, c := range []Config{
		{Name: "another", Roster: roster, Self: 1, Key: keys[1]},
		{Name: "test", Roster: other, Self: 1, Key: keys[1]},
	} {
		nets := localNets(t, 3)
		errs := make([]error, 3)
		var group sync.WaitGroup
		for i := range 3 {
			group.Go(func() {
				mine := Config{Name: "test", Roster: roster, Self: i, Key: keys[i]}
				if i == 1 {
					mine = c
				}
				_, errs[i] = Open(t.Context(), nets[i], mine)
			})
		}
		group.Wait()
		for _, i := range []int{0, 2} { // org-b may notice first, and say so
			reason := ErrInconsistent
			if errors.Is(errs[i], ErrAborted) {
				reason = ErrAborted
			}
			wantParty(t, errs[i], "org-b", reason)
		}
	}
}

func TestAfterAnErrorTheSessionIsOver(t *testing.T) {
	errs := run(t, localNets(t, 2), func(s *Session, self int) error {
		if self == 0 {
			s.Fail(errors.New("no room on /var/lib/secret"))
			_, err := s.Broadcast(t.Context(), "vote", nil, 0)
			return err
		}
		_, err := s.Broadcast(t.Context(), "vote", nil, 0)
		return err
	})
	if !errors.Is(errs[0], ErrOver) {
		t.Errorf("a round after the end: %v", errs[0])
	}
	wantParty(t, errs[1], "org-a", ErrAborted)
	if strings.Contains(errs[1].Error(), "secret") {
		t.Errorf("a reason got out: %v", errs[1])
	}
}

func TestRosters(t *testing.T) {
	roster, keys := parties(3)
	change := func(f func(r Roster)) Roster {
		r := append(Roster(nil), roster...)
		f(r)
		return r
	}
	for what, c := range map[string]Config{
		"one party":     {Name: "test", Roster: roster[:1], Key: keys[0]},
		"no name":       {Name: "test", Roster: change(func(r Roster) { r[1].Name = "" }), Key: keys[0]},
		"a name twice":  {Name: "test", Roster: change(func(r Roster) { r[1].Name = r[2].Name }), Key: keys[0]},
		"a key twice":   {Name: "test", Roster: change(func(r Roster) { r[1].Key = r[2].Key }), Key: keys[0]},
		"half a key":    {Name: "test", Roster: change(func(r Roster) { r[1].Key = r[1].Key[:16] }), Key: keys[0]},
		"another's key": {Name: "test", Roster: roster, Key: keys[1]},
		"a wrong place": {Name: "test", Roster: roster, Self: 3, Key: keys[0]},
		"no label":      {Roster: roster, Key: keys[0]},
	} {
		if _, err := Open(t.Context(), NewLocal(3)[0], c); !errors.Is(err, ErrRoster) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
