package node

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"fednode/store/ledger"
	"fednode/transport"
)

// serveWeb answers whoever speaks HTTP to the port of the federation: /health to everybody, in one word, and to members,
// shown by certificate, the read paths of tlog-tiles under each log's origin.
func (n *Node) serveWeb(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
	case r.URL.Path == "/health":
		n.webHealth(w)
	default:
		n.webLog(w, r)
	}
}

func (n *Node) webHealth(w http.ResponseWriter) {
	status := n.Health().Status
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Date", n.site.now().UTC().Format(http.TimeFormat)) // a peer's doctor reads the clock here
	if status != "healthy" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"status": status}) // the error is that nobody reads it
}

func (n *Node) webLog(w http.ResponseWriter, r *http.Request) {
	reader, err := n.transport.WebPeer(r)
	if err != nil {
		http.Error(w, "for members, shown by their node's certificate", http.StatusForbidden)
		return
	}
	gov := n.site.members.Log()
	for _, log := range []*ledger.Log{n.Log, gov} {
		path, ok := strings.CutPrefix(strings.TrimPrefix(r.URL.Path, "/"), log.Origin()+"/")
		if !ok {
			continue
		}
		b, err := log.ReadPath(path)
		if err == nil && log != gov && strings.HasPrefix(path, "tile/entries/") {
			err = mayRead(reader, b)
		}
		var denied *transport.Error
		switch {
		case errors.As(err, &denied):
			http.Error(w, denied.Text, http.StatusForbidden)
		case err != nil:
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", contentType(path))
			_, _ = w.Write(b) // the error is that nobody reads it
		}
		return
	}
	http.NotFound(w, r)
}

func contentType(path string) string {
	if path == "checkpoint" {
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// mayRead refuses a bundle of entries that holds any to which reader is no party: a bundle is shown whole or not at all.
func mayRead(reader transport.OrgID, bundle []byte) error {
	for len(bundle) > 0 {
		if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return errors.New("bundle is cut short")
		}
		size := int(binary.BigEndian.Uint16(bundle))
		e, err := ledger.ParseEntry(bundle[2 : 2+size])
		if err != nil {
			return fmt.Errorf("entry of a bundle: %w", err)
		}
		var parties struct {
			Sender, Recipient transport.Address
		}
		if e.Envelope != nil {
			if err := json.Unmarshal(e.Envelope, &parties); err != nil {
				return fmt.Errorf("envelope of an entry: %w", err)
			}
		}
		if parties.Sender.OrganizationID != reader && parties.Recipient.OrganizationID != reader {
			return &transport.Error{Code: transport.CodeDenied, Text: "the bundle holds entries that are not yours; yours are in your receipts, with proofs that hash tiles and checkpoint confirm"}
		}
		bundle = bundle[2+size:]
	}
	return nil
}
