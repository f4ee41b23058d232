package ui

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"fednode/flow"
	"fednode/flow/agent"
	"fednode/flow/policy"
	"fednode/node"
)

// A Client calls the local API of the node that runs on a data directory.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient returns a client of the node on data directory dir. Nothing is connected before the first call.
func NewClient(dir string) *Client {
	socket := filepath.Join(dir, SocketName)
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return &Client{dir: dir, http: &http.Client{Transport: t}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request and returns the answer's body, which the caller closes. An answer other than success is a
// [*Problem].
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, contentType string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://fednode"+path, body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &Problem{Status: resp.StatusCode, Code: "failed"}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(p); err != nil || p.Text == "" {
		p.Text = "the node answered " + resp.Status
	}
	return nil, p
}

// unreachable explains why the socket could not be called.
func (c *Client) unreachable(err error) error {
	text := err.Error()
	_, missing := os.Stat(filepath.Join(c.dir, node.ConfigName))
	switch {
	case errors.Is(missing, fs.ErrNotExist):
		text = fmt.Sprintf("no node in %s: %s is missing; make one with fednode init or fednode join, or name the data directory with -D or $FEDNODE_DIR", c.dir, node.ConfigName)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("no node is running on %s; start it with: fednode -D %s run; if it is not a member yet, go on with fednode join", c.dir, c.dir)
	case errors.Is(err, fs.ErrPermission):
		text = fmt.Sprintf("no permission for the socket in %s; run the command as the user that the node runs as", c.dir)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = fmt.Sprintf("the node on %s ended before it answered; its log says why, and fednode -D %s run starts it again", c.dir, c.dir)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return &Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Text: text}
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (v T, err error) {
	var r io.Reader
	contentType := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return v, err
		}
		r, contentType = bytes.NewReader(b), "application/json"
	}
	return callRaw[T](ctx, c, method, path, r, contentType)
}

func callRaw[T any](ctx context.Context, c *Client, method, path string, body io.Reader, contentType string) (v T, err error) {
	resp, err := c.do(ctx, method, path, body, contentType)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("the node's answer: %w", err)
	}
	return v, nil
}

// Status returns the node's state at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, "GET", "/v1/status", nil)
}

// WaitReady waits until the node serves, at most for limit. The error says what it still waited for.
func (c *Client) WaitReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		_, err := call[node.Health](ctx, c, "GET", "/readyz", nil)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", c.unready(context.WithoutCancel(ctx), err))
		}
	}
}

// unready returns the checks that the node fails, or err where it cannot say.
func (c *Client) unready(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	h, failed := c.Health(ctx)
	if failed != nil || h.Status == "healthy" {
		return err
	}
	var errs []error
	for _, check := range slices.Sorted(maps.Keys(h.Checks)) {
		if text := h.Checks[check]; text != "ok" {
			errs = append(errs, fmt.Errorf("%s: %s", check, text))
		}
	}
	return errors.Join(errs...)
}

// WaitServing waits until the node serves, however healthy it is, or ctx ends.
func (c *Client) WaitServing(ctx context.Context) error {
	for {
		if h, err := c.Health(ctx); err == nil && h.Checks["serving"] == "ok" {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Health returns what the node says of its own health; it is unhealthy if the error is nil and the status says so.
func (c *Client) Health(ctx context.Context) (node.Health, error) {
	return call[node.Health](ctx, c, "GET", "/livez", nil)
}

// Apply puts a configuration file into force; file is its name in errors.
func (c *Client) Apply(ctx context.Context, file string, data []byte) (*node.Applied, error) {
	return callRaw[*node.Applied](ctx, c, "POST", "/v1/apply?"+url.Values{"file": {file}}.Encode(), bytes.NewReader(data), "application/yaml")
}

// Members returns the federation's members as this node's governance log has them.
func (c *Client) Members(ctx context.Context) ([]node.MemberView, error) {
	return call[[]node.MemberView](ctx, c, "GET", "/v1/members", nil)
}

// Agents returns the node's agents and the data types that they take and give.
func (c *Client) Agents(ctx context.Context) ([]agent.Spec, error) {
	return call[[]agent.Spec](ctx, c, "GET", "/v1/agents", nil)
}

// Submit proposes the workflow in YAML; file is its name in errors.
func (c *Client) Submit(ctx context.Context, file string, data []byte) (AgreementReply, error) {
	return callRaw[AgreementReply](ctx, c, "POST", "/v1/agreements?"+url.Values{"file": {file}}.Encode(), bytes.NewReader(data), "application/yaml")
}

// Agreements returns all agreements that the node knows.
func (c *Client) Agreements(ctx context.Context) ([]*flow.Agreement, error) {
	return call[[]*flow.Agreement](ctx, c, "GET", "/v1/agreements", nil)
}

// Agreement returns one agreement by hash, unique prefix, or the name of a workflow in force.
func (c *Client) Agreement(ctx context.Context, hash string) (*flow.Agreement, error) {
	return call[*flow.Agreement](ctx, c, "GET", "/v1/agreements/"+url.PathEscape(hash), nil)
}

// Review returns what an agreement would mean for the node's organisation.
func (c *Client) Review(ctx context.Context, hash string) (flow.Review, error) {
	return call[flow.Review](ctx, c, "GET", "/v1/agreements/"+url.PathEscape(hash)+"/review", nil)
}

// Accept signs a pending agreement.
func (c *Client) Accept(ctx context.Context, hash string) (AgreementReply, error) {
	return call[AgreementReply](ctx, c, "POST", "/v1/agreements/"+url.PathEscape(hash)+"/accept", nil)
}

// Withdraw takes the node's signature under an agreement back.
func (c *Client) Withdraw(ctx context.Context, hash, reason string) (AgreementReply, error) {
	return call[AgreementReply](ctx, c, "POST", "/v1/agreements/"+url.PathEscape(hash)+"/withdraw", WithdrawRequest{reason})
}

// Start begins a run of the named workflow over in.
func (c *Client) Start(ctx context.Context, workflow string, in flow.Input, priority string) (*flow.Run, error) {
	q := url.Values{"workflow": {workflow}, "name": {in.Name}, "type": {in.Type}, "priority": {priority}}
	return callRaw[*flow.Run](ctx, c, "POST", "/v1/runs?"+q.Encode(), bytes.NewReader(in.Data), in.MediaType)
}

// Runs returns the runs that this organisation initiated.
func (c *Client) Runs(ctx context.Context) ([]*flow.Run, error) {
	return call[[]*flow.Run](ctx, c, "GET", "/v1/runs", nil)
}

// Run returns one run by its id or a unique prefix.
func (c *Client) Run(ctx context.Context, id string) (*flow.Run, error) {
	return call[*flow.Run](ctx, c, "GET", "/v1/runs/"+url.PathEscape(id), nil)
}

// Cancel stops a run.
func (c *Client) Cancel(ctx context.Context, id string) (*flow.Run, error) {
	return call[*flow.Run](ctx, c, "POST", "/v1/runs/"+url.PathEscape(id)+"/cancel", nil)
}

// Verdict approves or rejects the step of a run that waits for a human here.
func (c *Client) Verdict(ctx context.Context, run string, approved bool, reason string) (*flow.Approval, error) {
	return call[*flow.Approval](ctx, c, "POST", "/v1/runs/"+url.PathEscape(run)+"/verdict", VerdictRequest{approved, reason})
}

// Approvals returns the steps that wait for a human here.
func (c *Client) Approvals(ctx context.Context) ([]flow.Approval, error) {
	return call[[]flow.Approval](ctx, c, "GET", "/v1/approvals", nil)
}

// Executions returns the steps that the node executed for others, of one run or, with run empty, of all.
func (c *Client) Executions(ctx context.Context, run flow.RunID) ([]flow.Execution, error) {
	return call[[]flow.Execution](ctx, c, "GET", "/v1/executions?"+url.Values{"run": {string(run)}}.Encode(), nil)
}

// Holdings returns what artifacts the organisation has or had, of one run or, with run empty, of all.
func (c *Client) Holdings(ctx context.Context, run flow.RunID) ([]flow.Holding, error) {
	return call[[]flow.Holding](ctx, c, "GET", "/v1/holdings?"+url.Values{"run": {string(run)}}.Encode(), nil)
}

// Artifact writes the bytes of an artifact held by the node to w.
func (c *Client) Artifact(ctx context.Context, run flow.RunID, id string, w io.Writer) error {
	return c.copy(ctx, "/v1/artifacts/"+url.PathEscape(string(run))+"/"+url.PathEscape(id), w)
}

// Explain asks the decision point without acting.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (policy.Decision, error) {
	return call[policy.Decision](ctx, c, "POST", "/v1/policy/explain", r)
}

// Entries returns the entries of the own log that q selects, in order.
func (c *Client) Entries(ctx context.Context, q EntryQuery) ([]LogEntry, error) {
	v := url.Values{"from": {strconv.FormatInt(q.From, 10)}, "limit": {strconv.FormatInt(q.Limit, 10)},
		"category": {string(q.Category)}, "reference": {q.Reference}}
	return call[[]LogEntry](ctx, c, "GET", "/v1/audit/entries?"+v.Encode(), nil)
}

// Proof writes the .tlog-proof of an entry of the own log to w.
func (c *Client) Proof(ctx context.Context, index int64, w io.Writer) error {
	return c.copy(ctx, "/v1/audit/proof/"+strconv.FormatInt(index, 10), w)
}

// ProveRun writes a proof file of everything in the own log that concerns a run to w.
func (c *Client) ProveRun(ctx context.Context, run string, w io.Writer) error {
	return c.copy(ctx, "/v1/audit/prove?"+url.Values{"run": {run}}.Encode(), w)
}

// ProveEntry writes a proof file of one entry of the own log to w.
func (c *Client) ProveEntry(ctx context.Context, index int64, w io.Writer) error {
	return c.copy(ctx, "/v1/audit/prove?index="+strconv.FormatInt(index, 10), w)
}

// Archive writes the node's audit archive, a tar stream, to w.
func (c *Client) Archive(ctx context.Context, w io.Writer) error {
	return c.copy(ctx, "/v1/audit/archive", w)
}

func (c *Client) copy(ctx context.Context, path string, w io.Writer) error {
	resp, err := c.do(ctx, "GET", path, nil, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// Watch calls fn for every event of a run, or of all runs with run empty, until ctx ends, the node stops or fn
// returns an error, which Watch returns.
func (c *Client) Watch(ctx context.Context, run flow.RunID, fn func(flow.Event) error) error {
	resp, err := c.do(ctx, "GET", "/v1/events?"+url.Values{"run": {string(run)}}.Encode(), nil, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		var ev flow.Event
		if err := json.Unmarshal(sc.Bytes(), &ev); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
	err = sc.Err()
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) { // it was killed
		return nil
	}
	if err != nil {
		return fmt.Errorf("events of the node: %w", err)
	}
	return nil
}
