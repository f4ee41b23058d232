package compute

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"sync"
)

// kem is the key encapsulation of private messages: X-Wing, which holds while either
// of ML-KEM-768 and X25519 does.
func kem() hpke.KEM { return hpke.MLKEM768X25519() }

const (
	kemKeySize = 1184 + 32
	// sealOverhead is what encryption adds to a private message: encapsulated
	// keys and a tag.
	sealOverhead = 1088 + 32 + 16
	saltSize     = 32
)

// begin checks that a round may start.
func (s *Session) begin(label string) error {
	if s.err != nil {
		return fmt.Errorf("%w: %w", ErrOver, s.err)
	}
	if len(label) > maxLabel {
		return s.end(fmt.Errorf("label %q has more than %d bytes", label, maxLabel))
	}
	return nil
}

// Broadcast sends payload to all and returns what every party sent, by place, its
// own included: at all parties that return without an error the same. No payload
// has more than limit bytes. Nobody changes one: parties of a process may share it.
func (s *Session) Broadcast(ctx context.Context, label string, payload []byte, limit int) ([][]byte, error) {
	if err := s.begin(label); err != nil {
		return nil, err
	}
	own, err := s.newFrame(kindBroadcast, label, everybody, payload)
	if err != nil {
		return nil, s.end(err)
	}
	heard := make([]*frame, len(s.config.Roster))
	heard[s.config.Self] = own
	b := own.marshal()
	err = s.swap(ctx, label, limit, func(int) ([]byte, error) { return b, nil }, func(from int, f *frame) error {
		if err := expect(f, kindBroadcast, label, limit); err != nil {
			return err
		}
		if !f.verify(s.config.Roster[from].Key, everybody) {
			return fmt.Errorf("%w: a broadcast whose signature does not verify", ErrMisbehaved)
		}
		heard[from] = f
		return nil
	})
	if err != nil {
		return nil, s.end(err)
	}
	if err := s.echo(ctx, label, heard); err != nil {
		return nil, s.end(err)
	}
	s.sequence++
	out := make([][]byte, len(heard))
	for i, f := range heard {
		out[i] = f.payload
	}
	return out, nil
}

// A record is what a party needs of a broadcast to show who sent it.
const recordSize = sha256.Size + ed25519.SignatureSize

// echo compares what the parties have heard, by hash, and where it differs, by
// signatures.
func (s *Session) echo(ctx context.Context, label string, heard []*frame) error {
	var list []byte
	for _, f := range heard {
		digest := f.digest()
		list = append(append(list, digest[:]...), f.signature...)
	}
	own := sha256.Sum256(list)
	f, err := s.newFrame(kindEcho, label, everybody, own[:])
	if err != nil {
		return err
	}
	b := f.marshal()
	echoes := make([][]byte, len(heard))
	err = s.swap(ctx, label, len(own), func(int) ([]byte, error) { return b, nil }, func(from int, f *frame) error {
		if err := expect(f, kindEcho, label, len(own)); err != nil {
			return err
		}
		echoes[from] = f.payload
		return nil
	})
	if err != nil {
		return err
	}
	for i, e := range echoes {
		if i != s.config.Self && !bytes.Equal(e, own[:]) {
			return s.evidence(ctx, label, list, echoes)
		}
	}
	return nil
}

// evidence exchanges what was heard with signatures, and names who signed two
// payloads, or who echoed what it can't account for.
func (s *Session) evidence(ctx context.Context, label string, list []byte, echoes [][]byte) error {
	f, err := s.newFrame(kindEvidence, label, everybody, list)
	if err != nil {
		return err
	}
	b := f.marshal()
	own := sha256.Sum256(list)
	lists := s.collect(ctx, label, b, len(list), func(i int) bool {
		return i != s.config.Self && !bytes.Equal(echoes[i], own[:])
	})
	suspect := -1
	for i, theirs := range lists {
		got := sha256.Sum256(theirs)
		if theirs == nil || len(theirs) != len(list) || !bytes.Equal(got[:], echoes[i]) {
			suspect = i
			continue
		}
		if named := s.compare(i, label, list, theirs); named != nil {
			return named
		}
	}
	return &PartyError{s.config.Roster[suspect].Name, label,
		fmt.Errorf("%w: it says that it heard something else and does not show what", ErrMisbehaved)}
}

// collect sends b to all and returns the evidence of those who are asked, nil for one
// that has none to show. Nobody's failure keeps another from being heard.
func (s *Session) collect(ctx context.Context, label string, b []byte, limit int, asked func(int) bool) map[int][]byte {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	var mu sync.Mutex
	var sending, receiving sync.WaitGroup
	lists := make(map[int][]byte)
	for i := range s.config.Roster {
		if i == s.config.Self {
			continue
		}
		sending.Go(func() { s.net.Send(ctx, i, b) })
		if !asked(i) {
			continue
		}
		receiving.Go(func() {
			f, err := s.receive(ctx, i, limit)
			mu.Lock()
			defer mu.Unlock()
			lists[i] = nil
			if err == nil && f.kind == kindEvidence && f.label == label {
				lists[i] = f.payload
			}
		})
	}
	receiving.Wait()
	sending.Wait()
	return lists
}

// compare looks for the first difference between our list and a witness's.
func (s *Session) compare(witness int, label string, own, other []byte) error {
	for i, p := range s.config.Roster {
		a, b := own[i*recordSize:(i+1)*recordSize], other[i*recordSize:(i+1)*recordSize]
		if bytes.Equal(a, b) {
			continue
		}
		f := frame{kind: kindBroadcast, sender: i, sequence: s.sequence, session: s.id, label: label}
		text := f.signedText(everybody, [32]byte(b[:sha256.Size]))
		if !ed25519.Verify(p.Key, text, b[sha256.Size:]) {
			return &PartyError{s.config.Roster[witness].Name, label,
				fmt.Errorf("%w: what it says %q told it is not signed by that party", ErrMisbehaved, p.Name)}
		}
		return &PartyError{p.Name, label, fmt.Errorf("%w: to %q and to %q", ErrEquivocated,
			s.config.Roster[witness].Name, s.config.Roster[s.config.Self].Name)}
	}
	return nil
}

// Simultaneous is a Broadcast in which nobody's payload can depend on another's of
// the same round: hashes go first.
func (s *Session) Simultaneous(ctx context.Context, label string, payload []byte, limit int) ([][]byte, error) {
	salted := make([]byte, saltSize, saltSize+len(payload))
	rand.Read(salted) // never fails (Go 1.24)
	salted = append(salted, payload...)
	commitment := s.commitment(s.config.Self, label, salted)
	commitments, err := s.Broadcast(ctx, label+", committed", commitment[:], len(commitment))
	if err != nil {
		return nil, err
	}
	out, err := s.Broadcast(ctx, label, salted, saltSize+limit)
	if err != nil {
		return nil, err
	}
	for i := range out {
		want := s.commitment(i, label, out[i])
		if len(out[i]) < saltSize || !bytes.Equal(want[:], commitments[i]) {
			return nil, s.Blame(i, label, fmt.Errorf("%w: it committed to something else", ErrMisbehaved))
		}
		out[i] = out[i][saltSize:]
	}
	return out, nil
}

func (s *Session) commitment(party int, label string, salted []byte) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "fednode/compute/commitment/v1\n%d\n%s\n", party, label)
	h.Write(s.id[:])
	h.Write(salted)
	return [32]byte(h.Sum(nil))
}

// Coin returns 32 bytes that no party could choose or foresee before all had
// committed: a common reference string. A party that dislikes the outcome can only
// end the session, and is named for it.
func (s *Session) Coin(ctx context.Context, label string) ([32]byte, error) {
	own := make([]byte, 32)
	rand.Read(own) // never fails (Go 1.24)
	all, err := s.Simultaneous(ctx, label, own, len(own))
	if err != nil {
		return [32]byte{}, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "fednode/compute/coin/v1\n%s\n", label)
	h.Write(s.id[:])
	for i, b := range all {
		if len(b) != len(own) {
			return [32]byte{}, s.Blame(i, label, fmt.Errorf("%w: %d bytes of randomness, not %d", ErrMisbehaved, len(b), len(own)))
		}
		h.Write(b)
	}
	return [32]byte(h.Sum(nil)), nil
}

// Exchange sends out[i] to party i alone and returns what each sent to this one; the
// own place is passed through. Messages may be secret: the caller clears them.
func (s *Session) Exchange(ctx context.Context, label string, out [][]byte, limit int) ([][]byte, error) {
	if err := s.begin(label); err != nil {
		return nil, err
	}
	in := make([][]byte, len(s.config.Roster))
	in[s.config.Self] = out[s.config.Self]
	give := func(to int) ([]byte, error) {
		sealed, err := hpke.Seal(s.public[to], hpke.HKDFSHA256(), hpke.AES256GCM(), s.privateInfo(label, s.config.Self, to), out[to])
		if err != nil {
			return nil, err
		}
		f, err := s.newFrame(kindPrivate, label, to, sealed)
		if err != nil {
			return nil, err
		}
		return f.marshal(), nil
	}
	err := s.swap(ctx, label, limit+sealOverhead, give, func(from int, f *frame) (err error) {
		if err = expect(f, kindPrivate, label, limit+sealOverhead); err != nil {
			return err
		}
		if !f.verify(s.config.Roster[from].Key, s.config.Self) {
			return fmt.Errorf("%w: a private message whose signature does not verify", ErrMisbehaved)
		}
		in[from], err = hpke.Open(s.private, hpke.HKDFSHA256(), hpke.AES256GCM(), s.privateInfo(label, from, s.config.Self), f.payload)
		if err != nil {
			return fmt.Errorf("%w: a private message that does not open", ErrMisbehaved)
		}
		return nil
	})
	if err != nil {
		return nil, s.end(err)
	}
	s.sequence++
	return in, nil
}

func (s *Session) privateInfo(label string, from, to int) []byte {
	return fmt.Appendf(nil, "fednode/compute/private/v1\n%x\n%d\n%s\n%d\n%d", s.id, s.sequence, label, from, to)
}

// Agree ends with ErrMisbehaved unless all parties have the same value: the last
// round of protocols whose outcome must be common.
func (s *Session) Agree(ctx context.Context, label string, value [32]byte) error {
	all, err := s.Broadcast(ctx, label, value[:], len(value))
	if err != nil {
		return err
	}
	for i, b := range all {
		if subtle.ConstantTimeCompare(b, value[:]) == 0 {
			return s.Blame(i, label, fmt.Errorf("%w: what it has is not what this party has", ErrMisbehaved))
		}
	}
	return nil
}
