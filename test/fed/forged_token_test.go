package fed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/node"
	"fednode/store"
	"fednode/transport"
	"fednode/transport/invite"
	"fednode/transport/member"
	"fednode/transport/pki"
)

// altered returns the token with a byte changed and the checksum made anew.
func altered(t *testing.T, token string, at int) string {
	t.Helper()
	b := tokenBytes(t, token)
	b[at] ^= 1
	sum := sha256.Sum256(b)
	return "fed1_" + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// forgetInvitations makes the organisation one that has invited nobody. Its node does not run.
func (o *Org) forgetInvitations() {
	o.f.t.Helper()
	db, err := store.Open(o.Dir+"/node.db", store.Options{})
	o.f.must(err)
	o.f.must(db.Update(context.Background(), func(tx *store.Tx) error {
		b := tx.Bucket("governance/invitations")
		var all [][]byte
		err := b.ForEach(func(k, _ []byte) error { all = append(all, bytes.Clone(k)); return nil })
		for _, k := range all {
			if err == nil {
				err = b.Delete(k)
			}
		}
		return err
	}))
	o.f.must(db.Close())
}

// A tokenForger speaks for a stranger with requests of the test's making.
type tokenForger struct {
	o     *Org
	token *invite.Token
}

func (g tokenForger) send(q invite.Request, root *x509.Certificate, secret invite.Secret, change func([]byte) []byte) (*invite.Answer, error) {
	ctx := context.Background()
	c, err := g.o.JoinDialer().Dial(ctx, g.token.Endpoints[0], func(chain []*x509.Certificate) error {
		_, _, err := pki.VerifyPinned(chain, g.token.Root, string(g.token.Inviter), g.token.FederationID, time.Now())
		return err
	})
	g.o.f.must(err)
	defer c.Close()
	sum := sha256.Sum256(root.Raw)
	q.Invitation, q.RootSHA256, q.Time = g.token.ID(), hex.EncodeToString(sum[:]), transport.NewTime(time.Now()).String()
	b, err := q.Seal(secret, c.Exporter())
	g.o.f.must(err)
	reply, err := c.Do(ctx, change(b))
	if err != nil {
		return nil, err
	}
	return invite.ParseAnswer(reply)
}

// TestRequestsOfForgers: a token's holder can ask in the invitee's name, as itself, in its own session, and nothing else.
func TestRequestsOfForgers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 2, Strangers: 2})
		a, b, c, d := f.Orgs[0], f.Orgs[1], f.Strangers[0], f.Strangers[1]
		i := f.invited(a, c)
		token, err := invite.Parse(i.Token)
		f.must(err)
		own, err := c.site.Record()
		f.must(err)
		others, err := d.site.Record()
		f.must(err)
		root, err := x509.ParseCertificate(own.Record.Roots[0])
		f.must(err)
		othersRoot, err := x509.ParseCertificate(others.Record.Roots[0])
		f.must(err)
		tampered := own
		tampered.Record.Name = "Somebody else"
		later := own
		later.Record.Sequence = 2
		same := func(b []byte) []byte { return b }
		var sent []byte
		guess, err := invite.SecretOf(make([]byte, 32))
		f.must(err)
		for _, x := range []struct {
			name   string
			q      invite.Request
			root   *x509.Certificate
			secret invite.Secret
			change func([]byte) []byte
			want   transport.Code
			text   string
		}{
			{"nonsense", invite.Request{Ask: invite.AskLog}, root, token.Secret(), func([]byte) []byte { return []byte("{}") }, transport.CodeMalformed, ""},
			{"something else", invite.Request{Ask: "keys"}, root, token.Secret(), same, transport.CodeUnknownType, ""},
			{"a guessed secret", invite.Request{Ask: invite.AskLog}, root, guess, same, transport.CodeDenied, "knows no such invitation"},
			{"an altered request", invite.Request{Ask: invite.AskLog, Offset: 1}, root, token.Secret(), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"offset":1`), []byte(`"offset":2`), 1)
			}, transport.CodeDenied, "knows no such invitation"},
			{"beyond the end", invite.Request{Ask: invite.AskLog, Offset: 1 << 40}, root, token.Secret(), same, transport.CodeMalformed, "beyond the end"},
			{"no record", invite.Request{Ask: invite.AskJoin}, root, token.Secret(), same, transport.CodeDenied, "no member record"},
			{"another organisation", invite.Request{Ask: invite.AskJoin, Member: &others}, othersRoot, token.Secret(), same, transport.CodeDenied, "the invitation is for org-c"},
			{"a stolen name", invite.Request{Ask: invite.AskJoin, Member: recordOf(f, a, b)}, rootOf(f, a, b), token.Secret(), same, transport.CodeDenied, "the invitation is for org-c"},
			{"another root", invite.Request{Ask: invite.AskJoin, Member: &own}, othersRoot, token.Secret(), same, transport.CodeDenied, "not the first one"},
			{"a tampered record", invite.Request{Ask: invite.AskJoin, Member: &tampered}, root, token.Secret(), same, transport.CodeDenied, "does not verify"},
			{"a later record", invite.Request{Ask: invite.AskJoin, Member: &later}, root, token.Secret(), same, transport.CodeDenied, "not the first one"},
			{"calling anybody", invite.Request{Ask: invite.AskReach}, root, token.Secret(), same, transport.CodeDenied, "no member record"},
			{"kept for replay", invite.Request{Ask: "keep"}, root, token.Secret(), func(b []byte) []byte { sent = b; return b }, transport.CodeUnknownType, ""},
			{"replayed", invite.Request{Ask: "keep"}, root, token.Secret(), func([]byte) []byte { return sent }, transport.CodeDenied, "knows no such invitation"},
		} {
			_, err := tokenForger{c, token}.send(x.q, x.root, x.secret, x.change)
			if code, text := joinRefusal(err); code != x.want || !strings.Contains(text, x.text) {
				t.Errorf("%s: %v; want %s: … %s", x.name, err, x.want, x.text)
			}
			time.Sleep(time.Second) // a stranger has a rate
		}
		if got, _ := a.Node.Invitations(); got[0].State != node.InvitationOpen || len(a.Node.Candidates()) != 0 {
			t.Errorf("%+v, %+v", got, a.Node.Candidates())
		}
	})
}

func recordOf(f *Federation, at, of *Org) *member.SignedRecord {
	f.t.Helper()
	rec, err := of.site.Record()
	f.must(err)
	return &rec
}

func rootOf(f *Federation, at, of *Org) *x509.Certificate {
	f.t.Helper()
	root, err := x509.ParseCertificate(recordOf(f, at, of).Record.Roots[0])
	f.must(err)
	return root
}

// TestFalseFederation: who puts a federation of its own in the place of the real one has other words; who puts its node
// there has another root.
func TestFalseFederation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(t, Options{Orgs: 1, Strangers: 1})
		lying := New(t, Options{Orgs: 1, Strangers: 1}) // alike in every name and address
		real, lie := f.invited(f.Orgs[0], f.Strangers[0]), lying.invited(lying.Orgs[0], lying.Strangers[0])
		j, err := lying.Strangers[0].Join(lie.Token)
		f.must(err)
		m, err := j.Meet(context.Background())
		f.must(err)
		if m.Federation != "test" || m.Chair != "org-a" || m.Words == real.Words || m.FederationID == real.FederationID {
			t.Errorf("%+v is not told apart from %+v", m, real)
		}
		k, err := lying.Strangers[0].Join(real.Token) // which leads to the false node
		f.must(err)
		if _, err = k.Meet(context.Background()); err == nil || !node.Final(err) || !strings.Contains(err.Error(), "its root is not the one that was named") {
			t.Errorf("met at a false node: %v", err)
		}
	})
}
