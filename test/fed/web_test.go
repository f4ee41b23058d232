package fed

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"fednode/store/ledger"
)

// web returns a client of org-a's port for the rest of the world, with a certificate or none, in HTTP/2 or HTTP/1.1.
func (f *Federation) web(cert *tls.Certificate, protocol string) *http.Client {
	at := f.Orgs[0].addr.String()
	tr := &http.Transport{Protocols: new(http.Protocols), DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := f.Network.host(f.Orgs[1]).Dial(ctx, at)
		if err != nil {
			return nil, err
		}
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
		if cert != nil {
			conf.Certificates = []tls.Certificate{*cert}
		}
		t := tls.Client(c, conf)
		return t, t.HandshakeContext(ctx)
	}}
	tr.Protocols.SetHTTP1(protocol == "http/1.1")
	tr.Protocols.SetHTTP2(protocol == "h2")
	return &http.Client{Transport: tr}
}

func (f *Federation) get(c *http.Client, path string) (int, string) {
	f.t.Helper()
	r, err := c.Get("https://" + f.Orgs[0].addr.String() + "/" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	f.must(err)
	return r.StatusCode, string(b)
}

// The port is also a web server: health for everybody, the logs for members, entries for those they are about.
func TestWebShowsAReaderOnlyWhatItMaySee(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(t, Options{Orgs: 2, Hostile: map[int]bool{1: true}})
				h := f.Orgs[1].Hostile()
				for range 3 {
					h.call(f.Orgs[0], h.step(strings.Repeat("00", 32), "run-1", "s1", 1, object{}, nil))
				}
				f.must(f.Orgs[0].Node.Engine.RecordOperation(t.Context(), "tester", "test", "test", "nobody's", ""))
				log := f.Orgs[0].Node.Log
				own, gov := log.Origin()+"/", h.Members.GovOrigin()+"/"
				size := strconv.FormatInt(log.Head().Size, 10)
				stranger, member := f.web(nil, protocol), f.web(h.Leaf.Leaf(), protocol)
				defer stranger.CloseIdleConnections()
				defer member.CloseIdleConnections()
				mine := 0 // entries at the beginning of the log that org-b is a party to
				for _, b := range log.Entries(0, log.Head().Size) {
					if !strings.Contains(string(b), `"organization_id":"org-b"`) {
						break
					}
					mine++
				}
				for _, c := range []struct {
					client *http.Client
					path   string
					want   int
				}{
					{stranger, "health", 200}, {member, "health", 200},
					{stranger, own + "checkpoint", 403}, {member, own + "checkpoint", 200},
					{stranger, own + "tile/0/000.p/" + size, 403}, {member, own + "tile/0/000.p/" + size, 200},
					{stranger, gov + "tile/entries/000.p/1", 403}, {member, gov + "tile/entries/000.p/1", 200},
					{stranger, own + "tile/entries/000.p/1", 403},
					{member, own + "tile/0/000.p/255", 404}, {member, own + "../checkpoint", 404}, {member, "v1/status", 404}, {member, "", 404},
				} {
					if got, body := f.get(c.client, c.path); got != c.want {
						t.Errorf("%s: %d %s; want %d", c.path, got, body, c.want)
					}
				}
				_, body := f.get(stranger, "health")
				var health map[string]any
				if err := json.Unmarshal([]byte(body), &health); err != nil || len(health) != 1 || health["status"] != "healthy" {
					t.Errorf("health says %s", body)
				}
				_, checkpoint := f.get(member, own+"checkpoint")
				m, _ := h.Members.Get("org-a")
				if head, err := ledger.ParseCheckpoint([]byte(checkpoint), m.LogVerifier()); err != nil || head.Size != log.Head().Size {
					t.Errorf("checkpoint: %+v, %v", head, err)
				}
				if mine == 0 || int64(mine) == log.Head().Size {
					t.Fatalf("%d of %s entries are org-b's", mine, size)
				}
				if got, body := f.get(member, own+"tile/entries/000.p/"+strconv.Itoa(mine)); got != 200 {
					t.Errorf("its own entries: %d %s", got, body)
				}
				if got, body := f.get(member, own+"tile/entries/000.p/"+size); got != 403 || !strings.Contains(body, "not yours") {
					t.Errorf("entries of others: %d %s", got, body)
				}
				r, err := member.Post("https://"+f.Orgs[0].addr.String()+"/health", "text/plain", strings.NewReader("x"))
				f.must(err)
				r.Body.Close()
				if r.StatusCode != 405 {
					t.Errorf("POST: %s", r.Status)
				}
			})
		})
	}
}
