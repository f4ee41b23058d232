package threshold

import (
	"context"
	"errors"
	"testing"

	"fednode/compute"
)

// A mortal is a network whose party dies in place of sending its last frame.
type mortal struct {
	compute.Net
	sent, last int
}

func (m *mortal) Send(ctx context.Context, to int, frame []byte) error {
	if m.sent++; m.sent > m.last {
		m.Net.Close()
		return compute.ErrOver
	}
	return m.Net.Send(ctx, to, frame)
}

// TestDeathWhileResharing: whichever of its last messages a party dies before, what the stores then hold is a key: the
// old sharing, or, if anyone uses the new one, the new one, which the others have pending.
func TestDeathWhileResharing(t *testing.T) {
	p := small(t)
	plan := Plan{Parameters: p, From: orgs(2), To: orgs(2), Policy: Policy{Threshold: 2, Quota: 100}}
	attempt := func(last int) (members []*member, sent int) {
		members = generated(t, p, plan.Policy, 2)
		locals := compute.NewLocal(2)
		dying := &mortal{Net: locals[1], last: last}
		over(t, []compute.Net{locals[0], dying}, members, func(s *compute.Session, m *member) error {
			_, err := Reshare(t.Context(), s, m.store, m.share, plan)
			m.share = nil
			return err
		})
		return members, dying.sent
	}
	_, all := attempt(1 << 20)
	olds, news := 0, 0
	for last := all - 4; last <= all; last++ {
		members, _ := attempt(last)
		id, err := members[0].store.Keys()
		must(t, err)
		used := false
		for _, m := range members {
			k, err := m.store.Load(id[0])
			must(t, err)
			used = used || k.Epoch() == 1
			m.share = k
		}
		for _, m := range members {
			if used && m.share.Epoch() == 0 {
				must(t, m.store.Promote(id[0], 1))
				m.share, err = m.store.Load(id[0])
				must(t, err)
			}
		}
		if used {
			news++
		} else {
			olds++
			must(t, errors.Join(reshare(t, members, plan)...)) // it can be done again
		}
		want := []int64{5, -5}
		wantValues(t, decrypted(t, members, encrypt(t, members[0].share.Key, want)).Plaintext, false, want)
	}
	if olds == 0 || news == 0 {
		t.Errorf("%d ends with the old sharing, %d with the new: the deaths were not where they matter", olds, news)
	}
}
