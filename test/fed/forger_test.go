package fed

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/transparency-dev/formats/proof"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/pki"
)

// A forger is a hostile member that puts on the wire what no node would.
type forger struct {
	*Hostile
	t     *testing.T
	rng   *rand.Rand
	to    *Org
	hash  string // of an agreement that it may drive
	udp   *quic.Transport
	conn  *quic.Conn
	steps int
}

// A message is the parts of one request: what goes over the wire is its header and two frames.
type message struct{ header, envelope, proof []byte }

func (m message) bytes() []byte {
	return frame(frame(bytes.Clone(m.header), m.envelope), m.proof)
}

func frame(b, f []byte) []byte { return append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...) }

// newForger makes org-c of a forger, with an agreement under which it may ask org-b.
func newForger(t *testing.T, f *Federation, rng *rand.Rand) *forger {
	x := &forger{Hostile: f.Orgs[2].Hostile(), t: t, rng: rng, to: f.Orgs[1], udp: &quic.Transport{Conn: f.outside}}
	x.hash = x.seize(exchange)
	x.dial()
	return x
}

// end closes the forger's connection after everything that it asked for has been answered.
func (x *forger) end() {
	time.Sleep(time.Minute)
	x.Org.f.must(x.conn.CloseWithError(0, ""))
	x.Org.f.must(x.udp.Close())
}

// dial opens a connection as the member that the forger is.
func (x *forger) dial() {
	conf := pki.BaseTLS()
	conf.NextProtos, conf.InsecureSkipVerify, conf.GetClientCertificate = []string{"fednode/1"}, true, x.Leaf.GetClientCertificate
	var err error
	x.conn, err = x.udp.Dial(context.Background(), x.to.addr, conf, &quic.Config{KeepAlivePeriod: 10 * time.Second})
	x.Org.f.must(err)
}

// request seals a request, puts it on record and proves it, as an honest node does; what it signs may be changed before.
func (x *forger) request(change ...func(*forger, *transport.Envelope)) message {
	f, now := x.Org.f, x.Org.now()
	x.steps++
	payload, err := jcs.Marshal(request("document-classifier", 30))
	f.must(err)
	e := &transport.Envelope{MessageID: transport.NewMessageID(), Timestamp: transport.NewTime(now), MessageType: "step-execution-request",
		Sender: transport.Address{OrganizationID: x.Org.ID, InstanceID: "org-c-1"}, Recipient: transport.Address{OrganizationID: x.to.ID},
		WorkflowID: transport.RunID(fmt.Sprintf("run-%012d", x.steps)), StepID: "classify", Payload: payload,
		Binding: &transport.Binding{Version: transport.Version, FederationID: x.Members.FederationID(), KeyID: x.KeyID, Alg: transport.Ed25519, Agreement: x.hash,
			Attempt: 1, ExpiresAt: transport.NewTime(now.Add(5 * time.Minute))}}
	for _, c := range change {
		c(x, e)
	}
	if err := e.Seal(x.Key); err != nil { // it cannot even be said
		return x.request()
	}
	form, err := e.LedgerForm()
	f.must(err)
	wire, err := e.Marshal()
	f.must(err)
	entry := ledger.Entry{V: 1, Type: "request-sent", Category: ledger.DataAccess, Timestamp: e.Timestamp.String(), UserID: commitment(salt(1), nil), OrganizationID: string(x.Org.ID),
		Resource: "step", Action: "step.execute", Result: "ok", DataCategory: "step", Purpose: "step", Reference: string(e.WorkflowID) + "/" + e.StepID + "/1", Envelope: form}
	b, err := entry.Marshal()
	f.must(err)
	var i int64
	f.must(x.DB.Update(context.Background(), func(tx *store.Tx) (err error) { i, err = x.Log.Append(tx, b); return err }))
	text, err := x.Log.Prove(i)
	f.must(err)
	var p proof.TLogProof
	f.must(p.Unmarshal(text))
	entry.Envelope = nil
	p.ExtraData, err = jcs.Marshal(entry)
	f.must(err)
	return message{[]byte{1, transport.Version, 0, 0, 0, 0, 0x75, 0x30, 0, 0, 0, 0, 0, 0, 0, 0}, wire, p.Marshal()}
}

// send writes the bytes in pieces on a stream of their own, ends or breaks it, and takes what comes.
func (x *forger) send(b []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := x.conn.OpenStreamSync(ctx)
	if err != nil {
		x.conn.CloseWithError(0, "")
		x.dial()
		return
	}
	_ = s.SetDeadline(time.Now().Add(2 * time.Second))
	for len(b) > 0 {
		n := min(len(b), 1+x.rng.IntN(4096))
		if _, err := s.Write(b[:n]); err != nil {
			break
		}
		if b = b[n:]; x.rng.IntN(20) == 0 {
			time.Sleep(time.Duration(x.rng.IntN(100)) * time.Millisecond)
		}
	}
	switch x.rng.IntN(8) {
	case 0:
		s.CancelWrite(quic.StreamErrorCode(x.rng.IntN(100)))
		s.CancelRead(quic.StreamErrorCode(x.rng.IntN(100)))
		return
	case 1:
		s.CancelRead(1)
	}
	_ = s.Close()
	buf := make([]byte, 4096)
	for {
		if _, err := s.Read(buf); err != nil {
			return
		}
	}
}

// lies are changes to what is about to be signed.
var lies = []func(x *forger, e *transport.Envelope){
	func(x *forger, e *transport.Envelope) { e.Sender.OrganizationID = x.anybody() },
	func(x *forger, e *transport.Envelope) { e.Recipient.OrganizationID = x.anybody() },
	func(x *forger, e *transport.Envelope) {
		e.Timestamp = transport.NewTime(e.Timestamp.Add(x.aroundNow()))
	},
	func(x *forger, e *transport.Envelope) {
		e.Binding.ExpiresAt = transport.NewTime(e.Timestamp.Add(x.aroundNow()))
	},
	func(x *forger, e *transport.Envelope) { e.Binding.Agreement = strings.Repeat("ab", 32) },
	func(x *forger, e *transport.Envelope) { e.Binding.Attempt = x.rng.IntN(1<<31) - 1<<30 },
	func(x *forger, e *transport.Envelope) { e.Binding.FederationID = strings.Repeat("cd", 32) },
	func(x *forger, e *transport.Envelope) {
		e.MessageType = []string{"agreement-in-force", "agreement-withdrawal", "run-closed", "step-cancellation", "step-execution-request-refusal", "step-execution-reply",
			"governance-entries", "artifact-fetch", "no-such-type"}[x.rng.IntN(9)]
	},
	func(x *forger, e *transport.Envelope) {
		e.WorkflowID, e.StepID = e.WorkflowID+"-x", []string{"", "upload", "back", "classify"}[x.rng.IntN(4)]
	},
	func(x *forger, e *transport.Envelope) { e.Payload = x.garble(e.Payload) },
	func(x *forger, e *transport.Envelope) { e.Binding.InReplyTo = strings.Repeat("ef", 32) },
	func(x *forger, e *transport.Envelope) {
		e.Binding.GovernanceHead = fmt.Sprintf("%d:%s", x.rng.IntN(20), strings.Repeat("01", 32))
	},
}

func (x *forger) anybody() transport.OrgID {
	return []transport.OrgID{"org-a", "org-b", "org-c", "org-z"}[x.rng.IntN(4)]
}

func (x *forger) aroundNow() time.Duration { return time.Duration(x.rng.IntN(600)-300) * time.Second }

// garble changes JSON so that it stays JSON, mostly.
func (x *forger) garble(b []byte) []byte {
	for range 1 + x.rng.IntN(3) {
		switch x.rng.IntN(6) {
		case 0:
			b = bytes.Replace(b, []byte(`"`), []byte(`"\u0000`), 1)
		case 1:
			b = bytes.Replace(b, []byte(`30`), []byte([]string{"-1", "1e308", "9007199254740991", "null", `"30"`, "[30]"}[x.rng.IntN(6)]), 1)
		case 2:
			b = bytes.Replace(b, []byte(`[]`), fmt.Appendf(nil, `[%s]`, []string{"null", "{}", `{"artifact_id":"a/b","size":-1}`, strings.Repeat("[", 40) + strings.Repeat("]", 40)}[x.rng.IntN(4)]), 1)
		case 3:
			b = bytes.Replace(b, []byte(`{`), fmt.Appendf(nil, `{"x%d":1,`, x.rng.IntN(9)), 1)
		case 4:
			b = bytes.Replace(b, []byte(`document`), bytes.Repeat([]byte("d"), x.rng.IntN(3000)), 1)
		case 5:
			b = []byte([]string{`{}`, `null`, `[]`, `""`, `0`}[x.rng.IntN(5)])
		}
	}
	return b
}

// TestWhatIsRefusedSpoilsNoArchive has a member sign and record what no honest one says. It is refused, and the audit
// archive of whoever has it on record still verifies.
func TestWhatIsRefusedSpoilsNoArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Hostile: map[int]bool{2: true}, Handlers: serveDocument})
		x := newForger(t, f, rand.New(rand.NewPCG(1, 2)))
		x.send(x.request().bytes())
		for _, lie := range lies {
			for range 5 {
				x.send(x.request(lie).bytes())
			}
		}
		x.end()
		if n := len(f.Orgs[1].entries(t, "step-executed", "run-000000000001")); n != 1 {
			t.Errorf("the honest request was executed %d times", n)
		}
		refused := 0
		for _, e := range f.Orgs[1].entries(t, "request-received", "") {
			if e.Result != "ok" {
				refused++
			}
		}
		if refused < 2*len(lies) {
			t.Errorf("%d refusals are on record", refused)
		}
		f.Verify()
	})
}
