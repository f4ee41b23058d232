package threshold

import (
	"errors"
	"fmt"
	"testing"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// The benchmarks run all parties on this machine: wall time is that of n parties on its processors.

type connector struct {
	name string
	nets func(t testing.TB, members []*member) []compute.Net
}

var connectors = []connector{
	{"local", func(_ testing.TB, members []*member) (out []compute.Net) {
		for _, l := range compute.NewLocal(len(members)) {
			out = append(out, l)
		}
		return out
	}},
	{"tcp", tcpNets},
}

// timed has members act in one session b.N times and reports the time of the acts alone.
func timed(b *testing.B, c connector, members []*member, act func(s *compute.Session, m *member) error) {
	b.Helper()
	nets := c.nets(b, members)
	ready := make(chan struct{})
	opened := make(chan struct{}, len(members))
	go func() {
		for range members {
			<-opened
		}
		b.ResetTimer()
		close(ready)
	}()
	must(b, errors.Join(over(b, nets, members, func(s *compute.Session, m *member) error {
		opened <- struct{}{}
		<-ready
		for range b.N {
			if err := act(s, m); err != nil {
				return err
			}
		}
		return nil
	})...))
}

func BenchmarkGenerate(b *testing.B) {
	p := parameters(b, he.Set8192, he.T16)
	for _, c := range connectors {
		b.Run(fmt.Sprintf("5 parties/N=8192/%s", c.name), func(b *testing.B) {
			timed(b, c, newMembers(b, orgs(5)...), func(s *compute.Session, m *member) error {
				_, err := Generate(b.Context(), s, m.store, p, Policy{Threshold: 3, Quota: 1})
				return err
			})
		})
	}
}

func BenchmarkEvaluationKeys(b *testing.B) {
	members := generated(b, parameters(b, he.Set8192, he.T16), Policy{Threshold: 3, Quota: 1}, 5)
	for _, c := range connectors {
		for what, elements := range map[string][]uint64{"relinearisation": nil, "relinearisation and one rotation": {3}} {
			b.Run(fmt.Sprintf("5 parties/N=8192/%s/%s", what, c.name), func(b *testing.B) {
				timed(b, c, members, func(s *compute.Session, m *member) error {
					_, err := m.share.EvaluationKeys(b.Context(), s, elements...)
					return err
				})
			})
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	members := generated(b, parameters(b, he.Set8192, he.T16), Policy{Threshold: 3, Quota: MaxQuota}, 5)
	ct := encrypt(b, members[0].share.Key, []int64{1, 2, 3})
	m := members[0]
	set := []int{0, 1, 2}
	b.Run("share/N=8192", func(b *testing.B) {
		for range b.N {
			if _, err := m.share.DecryptionShare(m.store, m.key, ring.NewSeed(), ct, set); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("share without the disk/N=8192", func(b *testing.B) {
		for range b.N {
			m.share.floodedParts(ring.FreshSource(), ct, set, [32]byte{}, 100)
		}
	})
	var shares []*DecryptionShare
	for _, m := range members[:3] {
		d, err := m.share.DecryptionShare(m.store, m.key, SessionID("combine"), ct, set)
		must(b, err)
		shares = append(shares, d)
	}
	b.Run("combine 3/N=8192", func(b *testing.B) {
		for range b.N {
			if _, err := m.share.Combine(SessionID("combine"), ct, shares); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, c := range connectors {
		b.Run("session of 3/N=8192/"+c.name, func(b *testing.B) {
			nets := c.nets(b, members[:3])
			b.ResetTimer()
			for range b.N {
				// A session decrypts a ciphertext once.
				must(b, errors.Join(reuse(b, nets, members[:3], func(s *compute.Session, m *member) error {
					_, err := m.share.Decrypt(b.Context(), s, m.store, ct)
					return err
				})...))
			}
			b.StopTimer()
			for _, n := range nets {
				n.Close()
			}
		})
	}
}

// reuse is over on a network that stays.
func reuse(b *testing.B, nets []compute.Net, members []*member, act func(s *compute.Session, m *member) error) []error {
	b.Helper()
	kept := make([]compute.Net, len(nets))
	for i, n := range nets {
		kept[i] = stays{n}
	}
	return over(b, kept, members, act)
}

type stays struct{ compute.Net }

func (stays) Close() error { return nil }
