package compute

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

// TestMalformedFrames: whatever party 1 sends in place of a broadcast, it is named.
func TestMalformedFrames(t *testing.T) {
	good := func(s *Session) *frame {
		f, _ := s.newFrame(kindBroadcast, "vote", everybody, []byte{1})
		return f
	}
	for what, c := range map[string]struct {
		frame  func(s *Session) []byte
		reason error
	}{
		"nothing":  {func(*Session) []byte { return nil }, ErrMisbehaved},
		"noise":    {func(*Session) []byte { return bytes.Repeat([]byte{0xaa}, 80) }, ErrMisbehaved},
		"too much": {func(s *Session) []byte { return make([]byte, 5000) }, ErrTooLong},
		"a long payload": {func(s *Session) []byte {
			f, _ := s.newFrame(kindBroadcast, "vote", everybody, make([]byte, 2))
			return f.marshal()
		}, ErrTooLong},
		"another's name":       {func(s *Session) []byte { f := good(s); f.sender = 0; return f.marshal() }, ErrMisbehaved},
		"a wrong signature":    {func(s *Session) []byte { f := good(s); f.signature[3]++; return f.marshal() }, ErrMisbehaved},
		"a changed payload":    {func(s *Session) []byte { f := good(s); f.payload = []byte{2}; return f.marshal() }, ErrMisbehaved},
		"another round":        {func(s *Session) []byte { f := good(s); f.label = "veto"; return f.marshal() }, ErrInconsistent},
		"another kind":         {func(s *Session) []byte { f := good(s); f.kind = kindPrivate; return f.marshal() }, ErrInconsistent},
		"another exchange":     {func(s *Session) []byte { f := good(s); f.sequence++; return f.marshal() }, ErrInconsistent},
		"another session":      {func(s *Session) []byte { f := good(s); f.session[0]++; return f.marshal() }, ErrInconsistent},
		"no room for a label":  {func(s *Session) []byte { b := good(s).marshal(); b[44] = 65; return b }, ErrMisbehaved},
		"an unknown kind":      {func(s *Session) []byte { b := good(s).marshal(); b[5] = 99; return b }, ErrMisbehaved},
		"no room to be signed": {func(s *Session) []byte { return good(s).marshal()[:60] }, ErrMisbehaved},
	} {
		t.Run(what, func(t *testing.T) {
			errs := run(t, localNets(t, 2), func(s *Session, self int) error {
				if self == 1 {
					return s.net.Send(t.Context(), 0, c.frame(s))
				}
				_, err := s.Broadcast(t.Context(), "vote", []byte{1}, 1)
				return err
			})
			wantParty(t, errs[0], "org-b", c.reason)
		})
	}
}

func FuzzFrame(f *testing.F) {
	for _, k := range []kind{kindHello, kindBroadcast, kindPrivate, kindAbort} {
		in := frame{kind: k, sender: 3, sequence: 7, label: "round", payload: []byte("payload")}
		if k.signed() {
			in.signature = make([]byte, ed25519.SignatureSize)
		}
		f.Add(in.marshal())
	}
	f.Add([]byte(frameMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := parseFrame(b)
		if err != nil {
			return
		}
		if again := in.marshal(); !bytes.Equal(again, b) {
			t.Errorf("%x was read and written as %x", b, again)
		}
	})
}
