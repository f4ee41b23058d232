package threshold

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"fednode/compute"
	"fednode/compute/he"
)

// maxSets bounds the sets of a cross-checked decryption.
const maxSets = 64

// A Decryption is a result.
type Decryption struct {
	Plaintext *he.Plaintext
	// Suspects is empty unless shares contradicted each other: then one of these
	// groups of parties computed wrongly. One group of one party is a proof against
	// it under the assumption of the session (see Decrypt).
	Suspects [][]string
}

// Decrypt decrypts ct with the parties of a session, which hold shares of k. All
// parties of the session learn the plaintext.
//
// With threshold parties, shares that fit no plaintext are ErrShares; a share made
// with skill to give another plaintext is not noticed. With more, every threshold of
// them decrypt and the results are compared: with t+2e parties the plaintext is
// right, and Suspects says who made wrong shares, if at most e did. Each set that a
// party is in counts for the quota.
func (k *KeyShare) Decrypt(ctx context.Context, s *compute.Session, store *Store, ct *he.Ciphertext) (*Decryption, error) {
	_, share, err := k.joint(s)
	if err != nil {
		return nil, s.Fail(err)
	}
	share.Wipe()
	if _, err := k.acceptable(ct, 0); err != nil {
		return nil, s.Fail(err)
	}
	_, places, err := k.pointsOf(s.Roster())
	if err != nil {
		return nil, s.Fail(err)
	}
	sets, err := subsets(places, k.policy.Threshold)
	if err != nil {
		return nil, s.Fail(err)
	}
	whole, _ := hashCiphertext(ct)
	if err := s.Agree(ctx, "decryption: ciphertext", k.agreement("decrypt", whole[:])); err != nil {
		return nil, err
	}
	own, err := k.release(store, s.Key(), s.ID(), ct, slices.DeleteFunc(slices.Clone(sets), func(set []int) bool { return !slices.Contains(set, k.self) }))
	if err != nil {
		return nil, s.Fail(err)
	}
	received, err := k.swap(ctx, s, ct, own)
	if err != nil {
		return nil, err
	}
	results, err := k.decodeAll(s, ct, sets, places, received)
	if err != nil {
		return nil, err
	}
	d, err := k.judge(sets, places, results)
	if err != nil {
		return nil, s.Fail(err)
	}
	return d, nil
}

// swap exchanges shares so that nobody's depends on another's, and returns them by
// the place in the session.
func (k *KeyShare) swap(ctx context.Context, s *compute.Session, ct *he.Ciphertext, own []*DecryptionShare) ([][]*DecryptionShare, error) {
	const round = "decryption: shares"
	size := k.shareSize(ct.Level())
	var payload []byte
	for _, d := range own {
		payload = append(payload, k.MarshalShare(d)...)
	}
	all, err := s.Simultaneous(ctx, round, payload, maxSets*size)
	if err != nil {
		return nil, err
	}
	out := make([][]*DecryptionShare, len(all))
	for i, b := range all {
		if len(b) != len(payload) { // everyone is in as many sets
			return nil, s.Blame(i, round, fmt.Errorf("%w: %d bytes of shares, not %d", compute.ErrMisbehaved, len(b), len(payload)))
		}
		for ; len(b) > 0; b = b[size:] {
			d, err := k.ParseShare(b[:size])
			if err != nil {
				return nil, s.Blame(i, round, fmt.Errorf("%w: %w", compute.ErrMisbehaved, err))
			}
			out[i] = append(out[i], d)
		}
	}
	return out, nil
}

// decodeAll returns the plaintext of every set, nil where its shares make none.
func (k *Key) decodeAll(s *compute.Session, ct *he.Ciphertext, sets [][]int, places []int, received [][]*DecryptionShare) ([]*he.Plaintext, error) {
	next := make([]int, len(received))
	out := make([]*he.Plaintext, len(sets))
	for n, set := range sets {
		var shares []*DecryptionShare
		for i, at := range places {
			if !slices.Contains(set, at) {
				continue
			}
			d := received[i][next[i]]
			next[i]++
			if d.self != at || !slices.Equal(d.set, set) {
				return nil, s.Blame(i, "decryption: shares", fmt.Errorf("%w: %w: a share of party %d in %v", compute.ErrMisbehaved, ErrForeign, d.self, d.set))
			}
			shares = append(shares, d)
		}
		pt, err := k.Combine(s.ID(), ct, shares)
		var named *compute.PartyError
		switch {
		case errors.As(err, &named):
			return nil, s.Blame(s.Roster().Index(named.Party), named.Round, fmt.Errorf("%w: %w", compute.ErrMisbehaved, named.Err))
		case err != nil && !errors.Is(err, ErrShares):
			return nil, s.Fail(err)
		case err != nil && len(sets) == 1:
			return nil, s.Fail(err)
		}
		out[n] = pt
	}
	return out, nil
}

// judge finds the smallest groups of liars that explain the results: groups without
// whom all sets agree on a plaintext. With m parties and at most (m-t)/2 liars, the
// honest ones are one such set of explanations, any two leave t parties in common,
// and so all give the same plaintext.
func (k *Key) judge(sets [][]int, places []int, results []*he.Plaintext) (*Decryption, error) {
	for liars := 0; liars <= (len(places)-k.policy.Threshold)/2; liars++ {
		groups, err := subsets(places, liars)
		if err != nil {
			return nil, err
		}
		d := new(Decryption)
		for _, group := range groups {
			pt, ok := agreed(sets, results, group)
			if !ok {
				continue
			}
			d.Plaintext = pt
			if liars > 0 {
				d.Suspects = append(d.Suspects, k.names(group))
			}
		}
		if d.Plaintext != nil {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w: the sets among %q do not agree; two more parties than the threshold tell which one lies", ErrShares, k.names(places))
}

// agreed returns the plaintext that all sets without the group have, if it is one.
func agreed(sets [][]int, results []*he.Plaintext, group []int) (pt *he.Plaintext, ok bool) {
	for n, set := range sets {
		if slices.ContainsFunc(set, func(at int) bool { return slices.Contains(group, at) }) {
			continue
		}
		if results[n] == nil || pt != nil && !pt.Equal(results[n]) {
			return nil, false
		}
		pt = results[n]
	}
	return pt, pt != nil
}

func (k *Key) names(places []int) []string {
	var out []string
	for _, at := range places {
		out = append(out, k.parties[at].Name)
	}
	return out
}

// subsets returns the sets of size among places, each ascending, in the order that
// every party has them in.
func subsets(places []int, size int) ([][]int, error) {
	sorted := slices.Sorted(slices.Values(places))
	var out [][]int
	var extend func(from int, head []int) bool
	extend = func(from int, head []int) bool {
		if len(head) == size {
			out = append(out, slices.Clone(head))
			return len(out) <= maxSets
		}
		for i := from; i < len(sorted); i++ {
			if !extend(i+1, append(slices.Clone(head), sorted[i])) {
				return false
			}
		}
		return true
	}
	if !extend(0, nil) {
		return nil, fmt.Errorf("%w: more than %d sets of %d among %d parties; decrypt with fewer", ErrPolicy, maxSets, size, len(places))
	}
	return out, nil
}
