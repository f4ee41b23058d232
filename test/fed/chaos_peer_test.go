//go:build chaos

package fed

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// mutate changes bytes: flips, cuts, repeats, inserts.
func (x *forger) mutate(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + x.rng.IntN(3) {
		if len(b) == 0 {
			return []byte{byte(x.rng.Uint32())}
		}
		at := x.rng.IntN(len(b))
		to := min(len(b), at+1+x.rng.IntN(64))
		switch x.rng.IntN(5) {
		case 0:
			b[at] ^= 1 << x.rng.IntN(8)
		case 1:
			b = append(b[:at:at], b[to:]...)
		case 2:
			b = append(b[:to:to], b[at:]...)
		case 3:
			b = append(append(b[:at:at], byte(x.rng.Uint32()), byte(x.rng.Uint32())), b[at:]...)
		case 4:
			b = b[:at]
		}
	}
	return b
}

// attack is the bytes of one attempt, made of a new message and those that were sent.
func (x *forger) attack(sent *[]message) []byte {
	var changes []func(*forger, *transport.Envelope)
	for x.rng.IntN(3) == 0 {
		changes = append(changes, lies[x.rng.IntN(len(lies))])
	}
	m := x.request(changes...)
	*sent = append(*sent, m)
	other := (*sent)[x.rng.IntN(len(*sent))]
	switch x.rng.IntN(12) {
	case 0:
		return other.bytes() // a replay, maybe of what was never accepted
	case 1:
		m.envelope = x.mutate(m.envelope)
	case 2:
		m.proof = x.mutate(m.proof)
	case 3:
		m.header = x.mutate(m.header)
	case 4:
		return x.mutate(m.bytes())
	case 5:
		m.proof = other.proof
	case 6:
		m.envelope, m.proof = m.proof, m.envelope
	case 7:
		m.envelope = x.splice(m.envelope, other.envelope)
	case 8:
		m.proof = nil
	case 9:
		return append(m.bytes(), other.bytes()...)
	case 10:
		b := m.bytes()
		binary.BigEndian.PutUint32(b[16:], x.rng.Uint32()) // a frame that announces another length
		return b
	case 11: // as it is
	}
	return m.bytes()
}

// splice gives one envelope a field of another.
func (x *forger) splice(a, b []byte) []byte {
	var to, from map[string]json.RawMessage
	if json.Unmarshal(a, &to) != nil || json.Unmarshal(b, &from) != nil {
		return a
	}
	fields := []string{"signature", "payload", "salt", "binding", "message_id", "timestamp", "workflow_id", "recipient"}
	k := fields[x.rng.IntN(len(fields))]
	to[k] = from[k]
	out, err := jcs.Marshal(to)
	x.Org.f.must(err)
	return out
}

// TestChaosHostilePeer has a member in good standing put mutated, replayed, reordered, spliced and truncated messages on
// the wire, thousands of them, and answer steps with garbled results. Nothing may be taken for its word that it has not
// signed, nothing twice; and the runs of others go on.
func TestChaosHostilePeer(t *testing.T) {
	chaos(t, func(t *testing.T, rng *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			var x *forger
			f := New(t, Options{Seed: rng.Uint64(), Latency: time.Millisecond, Hostile: map[int]bool{2: true},
				Limits: transport.Limits{RequestsPerSecond: 1e6, RequestBurst: 1e6, HandshakesPerSec: 1e6},
				Handlers: executor(func(*Hostile, *transport.Request) object {
					b, err := jcs.Marshal(made(nil))
					if err != nil {
						t.Fatal(err)
					}
					var o object
					if json.Unmarshal(x.garble(bytes.Replace(b, []byte("version\":1"), []byte("version\":30"), 1)), &o) != nil || o == nil {
						o = object{"status": "completed", "outputs": 1}
					}
					return o
				})})
			x = newForger(t, f, rng)
			honest := f.Agree(short)
			lied := f.Agree(strings.NewReplacer("org-b", "org-c", "name: short", "name: lied").Replace(short))
			var sent []message
			x.send(x.request().bytes())
			control := 1
			for i := range 3000 {
				x.send(x.attack(&sent))
				if i%500 == 499 {
					if run := f.Finish(f.Begin(honest, "lease.txt", Lease).ID); run.State != flow.StateCompleted {
						t.Errorf("after %d attacks a run is %s: %v", i+1, run.State, run.Error)
					}
					run := f.Finish(f.Begin(lied, "lease.txt", Lease).ID)
					if run.State != flow.StateFailed && run.State != flow.StateCompleted {
						t.Errorf("a run at org-c is %s: %v", run.State, run.Error)
					}
					x.send(x.request().bytes())
					control++
				}
			}
			x.end()
			accepted := x.verify()
			if accepted < control {
				t.Errorf("%d requests of org-c were accepted; %d of them were honest", accepted, control)
			}
			t.Logf("%d messages signed, %d accepted", x.steps, accepted)
			f.Verify()
		})
	})
}

// verify looks through the log of who was attacked for what it took for somebody's word that is not in their log, and for
// what it took or did twice. It returns how many of the forger's requests were accepted.
func (x *forger) verify() (accepted int) {
	f := x.Org.f
	said := map[string]transport.OrgID{} // by ledger form
	for i, b := range x.Log.Entries(0, x.Log.Head().Size) {
		e, err := ledger.ParseEntry(b)
		if err != nil {
			x.t.Fatalf("entry %d: %v", i, err)
		}
		said[string(e.Envelope)] = x.Org.ID
	}
	for _, e := range f.Orgs[0].entries(x.t, "request-sent", "") {
		said[string(e.Envelope)] = f.Orgs[0].ID
	}
	seen, executed := map[string]bool{}, map[string]int{}
	for _, e := range x.to.entries(x.t, "request-received", "") {
		form := string(e.Envelope)
		var claims struct {
			Sender transport.Address `json:"sender"`
		}
		f.must(json.Unmarshal(e.Envelope, &claims))
		if who, ok := said[form]; !ok || who != claims.Sender.OrganizationID || string(who) != e.OrganizationID {
			x.t.Errorf("on record as said by %s; it is in the log of %q: %.400s", e.OrganizationID, who, form)
		}
		if e.Result != "ok" {
			continue // a refusal is on record as often as there was something to refuse
		}
		if seen[form] {
			x.t.Errorf("accepted twice: %.400s", form)
		}
		if seen[form] = true; claims.Sender.OrganizationID == x.Org.ID {
			accepted++
		}
	}
	for _, e := range x.to.entries(x.t, "step-executed", "") {
		if executed[e.Reference]++; executed[e.Reference] > 1 {
			x.t.Errorf("%s was executed %d times", e.Reference, executed[e.Reference])
		}
	}
	return accepted
}
