package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fednode/flow"
	"fednode/node"
	"fednode/store/ledger"
)

// SocketName is the file in the data directory that the local API listens on.
const SocketName = "fednode.sock"

// maxBody bounds what a request to the API may carry, in bytes.
const maxBody = flow.MaxArtifact + 1<<20

// A Server answers the local API for one node.
type Server struct {
	node *node.Node
	log  *slog.Logger
	mux  *http.ServeMux
}

// NewServer returns the API of n.
func NewServer(n *node.Node, log *slog.Logger) *Server {
	s := &Server{node: n, log: log, mux: http.NewServeMux()}
	s.routes()
	return s
}

// Listen makes the socket in dir, for its owner only. A socket left by a process that is gone is replaced; the data
// directory's lock has made sure that no other process serves it.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	if len(path) > 107 { // sun_path, unix(7)
		return nil, fmt.Errorf("socket path %s is %d bytes; the system allows 107: use a shorter data directory", path, len(path))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

type userKey struct{}

// Serve answers on l until ctx ends, then lets requests under way finish for a moment.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.mux, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, userKey{}, peerUser(c))
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// peerUser returns the uid at the socket's other end (SO_PEERCRED).
func peerUser(c net.Conn) flow.User {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "unknown"
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "unknown"
	}
	user := flow.User("unknown")
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			user = flow.User(fmt.Sprintf("uid:%d", cred.Uid))
		}
	})
	return user
}

func caller(r *http.Request) flow.User {
	u, _ := r.Context().Value(userKey{}).(flow.User)
	return u
}

// handle registers a call that answers with JSON.
func (s *Server) handle(pattern string, fn func(r *http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := fn(r)
		if err != nil {
			s.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			s.log.Debug("answer not written", "path", r.URL.Path, "err", err)
		}
	})
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	p := problem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// decode reads a request's JSON body strictly.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: request body: %w", flow.ErrMisuse, err)
	}
	return nil
}

// list answers with the items, [] if there are none.
func list[T any](items []T, err error) (any, error) {
	if items == nil {
		items = []T{}
	}
	return items, err
}

func (s *Server) routes() {
	e := s.node.Engine
	s.handle("GET /v1/status", func(r *http.Request) (any, error) { return s.node.Status() })
	s.handle("GET /v1/members", func(r *http.Request) (any, error) { return list(s.node.Members(), nil) })
	s.memberRoutes()
	s.handle("POST /v1/apply", func(r *http.Request) (any, error) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
		}
		return s.node.Apply(r.Context(), caller(r), r.FormValue("file"), data)
	})
	s.handle("GET /v1/agents", func(r *http.Request) (any, error) { return list(e.Agents(), nil) })
	s.handle("GET /v1/agreements", func(r *http.Request) (any, error) { return list(e.Agreements()) })
	s.handle("POST /v1/agreements", s.submit)
	s.handle("GET /v1/agreements/{hash}", func(r *http.Request) (any, error) { return e.Agreement(r.PathValue("hash")) })
	s.handle("GET /v1/agreements/{hash}/review", func(r *http.Request) (any, error) { return e.Review(r.PathValue("hash")) })
	s.handle("POST /v1/agreements/{hash}/accept", func(r *http.Request) (any, error) {
		return agreementReply(e.Accept(r.Context(), caller(r), r.PathValue("hash")))
	})
	s.handle("POST /v1/agreements/{hash}/withdraw", func(r *http.Request) (any, error) {
		var q WithdrawRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return agreementReply(e.Withdraw(r.Context(), caller(r), r.PathValue("hash"), q.Reason))
	})
	s.handle("GET /v1/runs", func(r *http.Request) (any, error) { return list(e.Runs()) })
	s.handle("POST /v1/runs", s.start)
	s.handle("GET /v1/runs/{id}", func(r *http.Request) (any, error) { return e.GetRun(r.PathValue("id")) })
	s.handle("POST /v1/runs/{id}/cancel", func(r *http.Request) (any, error) {
		return e.Cancel(r.Context(), caller(r), r.PathValue("id"))
	})
	s.handle("POST /v1/runs/{id}/verdict", func(r *http.Request) (any, error) {
		var q VerdictRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return e.Decide(r.Context(), caller(r), r.PathValue("id"), q.Approved, q.Reason)
	})
	s.handle("GET /v1/approvals", func(r *http.Request) (any, error) { return list(e.Approvals()) })
	s.handle("GET /v1/executions", func(r *http.Request) (any, error) { return list(e.Executions(flow.RunID(r.FormValue("run")))) })
	s.handle("GET /v1/holdings", func(r *http.Request) (any, error) { return list(e.Holdings(flow.RunID(r.FormValue("run")))) })
	s.handle("POST /v1/policy/explain", func(r *http.Request) (any, error) {
		var q ExplainRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return e.Explain(q.policy(), q.Agreement)
	})
	s.handle("GET /v1/audit/entries", s.entries)
	s.mux.HandleFunc("GET /v1/audit/proof/{index}", s.proof)
	s.mux.HandleFunc("GET /v1/audit/prove", s.prove)
	s.mux.HandleFunc("GET /v1/audit/archive", s.archive)
	s.mux.HandleFunc("GET /v1/artifacts/{run}/{id}", s.artifact)
	s.mux.HandleFunc("GET /v1/events", s.events)
	s.mux.HandleFunc("GET /tlog/{path...}", s.tlog)
	s.monitorRoutes(s.mux)
}

func (s *Server) monitorRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { s.node.WriteMetrics(w) })
	for _, path := range []string{"/health", "/livez", "/readyz"} {
		mux.HandleFunc("GET "+path, s.health(path))
	}
}

// Monitor answers metrics and health, and nothing else: it is for a listener that others can reach.
func (s *Server) Monitor() http.Handler {
	mux := http.NewServeMux()
	s.monitorRoutes(mux)
	return mux
}

func agreementReply(a *flow.Agreement, err error) (any, error) {
	if a == nil {
		return nil, err
	}
	reply := AgreementReply{Agreement: a}
	if err != nil {
		reply.Warning = err.Error()
	}
	return reply, nil
}

func (s *Server) submit(r *http.Request) (any, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	file := r.FormValue("file")
	if file == "" {
		file = "workflow"
	}
	d, err := flow.ParseDefinition(file, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", flow.ErrMisuse, err)
	}
	return agreementReply(s.node.Engine.Submit(r.Context(), caller(r), d))
}

func (s *Server) start(r *http.Request) (any, error) {
	q := r.URL.Query()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: input: %w; at most %d bytes", flow.ErrMisuse, err, flow.MaxArtifact)
	}
	in := flow.Input{Type: q.Get("type"), Name: q.Get("name"), MediaType: r.Header.Get("Content-Type"), Data: data}
	return s.node.Engine.Start(r.Context(), caller(r), q.Get("workflow"), in, q.Get("priority"))
}

// maxEntries bounds how many entries of the own log one call answers with.
const maxEntries = 10_000

// entries answers with the own log's entries that an [EntryQuery] selects.
func (s *Server) entries(r *http.Request) (any, error) {
	q := EntryQuery{From: -100, Limit: 100, Category: ledger.Category(r.FormValue("category")), Reference: r.FormValue("reference")}
	for name, v := range map[string]*int64{"from": &q.From, "limit": &q.Limit} {
		if f := r.FormValue(name); f != "" {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%w: %s %q is not a number", flow.ErrMisuse, name, f)
			}
			*v = n
		}
	}
	if q.Category != "" && q.Category.Fields() == nil {
		return nil, fmt.Errorf("%w: there is no category %.64q", flow.ErrMisuse, q.Category)
	}
	if q.Limit < 0 || q.Limit > maxEntries {
		return nil, fmt.Errorf("%w: limit %d: use 0 to %d", flow.ErrMisuse, q.Limit, maxEntries)
	}
	out := []LogEntry{}
	size := s.node.Log.Head().Size
	if q.From >= 0 {
		for i := q.From; i < size && int64(len(out)) < q.Limit; i++ {
			if err := s.appendMatch(&out, q, i); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	for i := size - 1; i >= 0 && int64(len(out)) < -q.From; i-- {
		if err := s.appendMatch(&out, q, i); err != nil {
			return nil, err
		}
	}
	slices.Reverse(out)
	return out[:min(int64(len(out)), q.Limit)], nil
}

// appendMatch appends entry i to out if q asks for it.
func (s *Server) appendMatch(out *[]LogEntry, q EntryQuery, i int64) error {
	b, err := s.node.Log.Entry(i)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte(q.Reference)) { // cheaper than to parse it
		return nil
	}
	e, err := ledger.ParseEntry(b)
	if err == nil && q.matches(e) {
		*out = append(*out, LogEntry{i, b})
	}
	return err
}

func (s *Server) proof(w http.ResponseWriter, r *http.Request) {
	i, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil || i < 0 || i >= s.node.Log.Head().Size {
		s.fail(w, fmt.Errorf("entry %q: %w; the log has %d", r.PathValue("index"), flow.ErrNotFound, s.node.Log.Head().Size))
		return
	}
	p, err := s.node.Log.Prove(i)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(p)
}

// prove answers with a proof file of what concerns a run, or of one entry.
func (s *Server) prove(w http.ResponseWriter, r *http.Request) {
	var data []byte
	i, err := strconv.ParseInt(r.FormValue("index"), 10, 64)
	switch run := r.FormValue("run"); {
	case run != "":
		data, err = s.node.ProveRun(run)
	case err == nil:
		data, err = s.node.ProveEntry(i)
	default:
		err = fmt.Errorf("%w: name a run or an index", flow.ErrMisuse)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

func (s *Server) archive(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-tar")
	if err := s.node.Archive(w); err != nil {
		s.log.Error("archive not written", "err", err)
		panic(http.ErrAbortHandler) // the only way to tell the client that the stream is cut short
	}
}

func (s *Server) artifact(w http.ResponseWriter, r *http.Request) {
	h, name, data, err := s.node.Engine.Artifact(flow.RunID(r.PathValue("run")), r.PathValue("id"))
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", h.Artifact.MediaType)
	if name != "" {
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	}
	_, _ = w.Write(data)
}

// events streams a run's events, or all, one JSON object a line, until the caller leaves.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	ch := s.node.Engine.Watch(r.Context(), flow.RunID(r.FormValue("run")))
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	enc := json.NewEncoder(w)
	for ev := range ch {
		if enc.Encode(ev) != nil || rc.Flush() != nil {
			return
		}
	}
}

// tlog serves the C2SP tlog-tiles read paths of the own log.
func (s *Server) tlog(w http.ResponseWriter, r *http.Request) {
	b, err := s.node.Log.ReadPath(r.PathValue("path"))
	if err != nil {
		s.fail(w, fmt.Errorf("%s: %w", r.PathValue("path"), flow.ErrNotFound))
		return
	}
	_, _ = w.Write(b)
}

func (s *Server) health(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := s.node.Health()
		w.Header().Set("Content-Type", "application/json")
		if path != "/livez" && h.Status != "healthy" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h)
	}
}
