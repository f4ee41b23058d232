package flow

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"fednode/flow/agent"
	"fednode/flow/policy"
	"fednode/hsm"
	"fednode/store"
	"fednode/store/ledger"
	"fednode/transport"
	"fednode/transport/member"
)

// Message types of package flow; append-only.
const (
	msgProposal   = "agreement-proposal"
	msgAcceptance = "agreement-acceptance"
	msgInForce    = "agreement-in-force"
	msgWithdrawal = "agreement-withdrawal"
	msgStep       = "step-execution-request"
	msgCancel     = "step-cancellation"
	msgRunClosed  = "run-closed"
	msgFetch      = "artifact-fetch"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrMisuse   = errors.New("cannot be done")
)

// memberSet is what an acceptance or a grant is verified against.
type memberSet interface {
	FederationID() string
	Get(transport.OrgID) (*member.Member, bool)
}

// Config is what an Engine is built from.
type Config struct {
	Org         transport.OrgID
	Key         crypto.Signer // Ed25519 message key
	KeyID       string
	Node        *transport.Node
	DB          *store.DB
	Log         *ledger.Log
	Members     func() *member.Set
	Policy      *policy.Engine
	Agents      *agent.Set
	ArtifactDir string
	Sealer      hsm.Sealer
	MemoryLimit int64 // for no-storage artifacts, in bytes; default 512 MiB
	Slots       int   // agents running at once; default 4
	// UpToDate says, before anything new is granted or begun, that the members in force are known; optional. It may wait.
	UpToDate func(context.Context) error
	Now      func() time.Time
	Logger   *slog.Logger
	Metrics  *metrics.Set
}

// An Engine drives the runs that this organisation initiates and executes the steps that are its own.
type Engine struct {
	c         Config
	m         meters
	policy    atomic.Pointer[policy.Engine]
	key       atomic.Pointer[signingKey]
	artifacts *artifacts
	slots     *slots
	events    broker
	heads     headlines
	reminders reminders
	age       age

	mu      sync.Mutex
	base    context.Context // of Run; nil while the engine is not running
	work    sync.WaitGroup
	flights map[attemptKey]*flight
	drivers map[RunID]context.CancelCauseFunc
	waiting map[string]chan Verdict // approval id → its verdict
}

// New builds an Engine and registers its message handlers with c.Node. Nothing runs before [Engine.Run].
func New(c Config) (*Engine, error) {
	if c.MemoryLimit == 0 {
		c.MemoryLimit = 512 << 20
	}
	if c.Slots == 0 {
		c.Slots = 4
	}
	if err := os.MkdirAll(c.ArtifactDir, 0o700); err != nil {
		return nil, fmt.Errorf("artifact directory: %w", err)
	}
	e := &Engine{
		c: c, m: newMeters(c.Metrics),
		artifacts: &artifacts{dir: c.ArtifactDir, sealer: c.Sealer, limit: c.MemoryLimit, mem: map[string]*content{}},
		slots:     newSlots(c.Slots),
		flights:   map[attemptKey]*flight{},
		drivers:   map[RunID]context.CancelCauseFunc{},
		waiting:   map[string]chan Verdict{},
	}
	if c.UpToDate == nil {
		e.c.UpToDate = func(context.Context) error { return nil }
	}
	var err error
	if e.age, err = loadAge(c.DB); err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	e.policy.Store(c.Policy)
	e.SetKey(c.KeyID, c.Key)
	c.Node.Handle(msgProposal, e.handleProposal)
	c.Node.Handle(msgAcceptance, e.handleAcceptance)
	c.Node.Handle(msgInForce, e.handleInForce)
	c.Node.Handle(msgWithdrawal, e.handleWithdrawal)
	c.Node.Handle(msgStep, e.handleStep)
	c.Node.Handle(msgCancel, e.handleCancel)
	c.Node.Handle(msgRunClosed, e.handleRunClosed)
	c.Node.HandleFetch(e.handleFetch)
	return e, nil
}

// Run forgets what memory lost at the last stop, resumes this organisation's unfinished runs, and serves until ctx
// ends; it returns when all work has stopped.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.recover(ctx); err != nil {
		return fmt.Errorf("flow: %w", err)
	}
	e.mu.Lock()
	e.base = ctx
	e.mu.Unlock()
	open, err := e.Runs()
	if err != nil {
		return fmt.Errorf("flow: %w", err)
	}
	for _, r := range open {
		if !r.State.Final() {
			e.startDriver(r.ID)
		}
	}
	e.work.Go(func() { e.remind(ctx) })
	e.sweep(ctx)
	e.mu.Lock()
	e.base = nil
	e.mu.Unlock()
	e.work.Wait()
	return nil
}

// recover marks artifacts that were in memory as released, for a stop forgets them, and removes files that a crash left
// without a record.
func (e *Engine) recover(ctx context.Context) error {
	var lost []Holding
	var stored []string
	err := e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketHoldings, "", func(k string, h Holding) error {
			switch h.Where {
			case InMemory:
				lost = append(lost, h)
			case OnDisk:
				stored = append(stored, k)
			}
			return nil
		})
	})
	if err == nil {
		err = e.artifacts.removeOrphans(stored)
	}
	if err != nil || len(lost) == 0 {
		return err
	}
	return e.c.DB.Update(ctx, func(tx *store.Tx) error {
		for _, h := range lost {
			h.Where = Released
			if err := put(tx, bucketHoldings, h.key(), h); err != nil {
				return err
			}
		}
		return nil
	})
}

// errNotRunning is also what a peer is told, who then asks again.
var errNotRunning = &transport.Error{Code: transport.CodeOverloaded, Text: "the node is starting or stopping; try again"}

func (e *Engine) running() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.base != nil
}

// spawn runs fn on the engine's own context, so that it outlives the request that asked for it.
func (e *Engine) spawn(fn func(ctx context.Context)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.base == nil {
		return errNotRunning
	}
	ctx := e.base
	e.work.Go(func() { fn(ctx) })
	return nil
}

// A signingKey is a message key and what the member record calls it.
type signingKey struct {
	id  string
	key crypto.Signer
}

// SetKey makes acceptances and grants be signed with another message key that the member record in force lists.
func (e *Engine) SetKey(keyID string, key crypto.Signer) { e.key.Store(&signingKey{keyID, key}) }

// SetPolicy replaces the policy for all decisions from now on.
func (e *Engine) SetPolicy(p *policy.Engine) { e.policy.Store(p) }

// Explain evaluates a request without acting on it; agreement, if not empty, names the agreement it would rest on.
func (e *Engine) Explain(r policy.Request, agreement string) (policy.Decision, error) {
	if agreement != "" {
		a, err := e.Agreement(agreement)
		if err != nil {
			return policy.Decision{}, err
		}
		r.Agreement = a.policyView()
	}
	if r.Action == policy.ActionExecute && r.Recipient == "" { // who asks, asks whether the step may run here
		r.Recipient = string(e.c.Org)
	}
	return e.decide(r), nil
}

// Agents returns what this organisation's agents take and give.
func (e *Engine) Agents() []agent.Spec { return e.c.Agents.Specs() }

// meters are the metric names of the federated-monitoring configuration.
type meters struct {
	set                      *metrics.Set
	runs, runsOK, violations *metrics.Counter
	duration                 *metrics.Histogram
}

func newMeters(s *metrics.Set) meters {
	return meters{
		set:        s,
		runs:       s.NewCounter("cross_org_workflow_count"),
		runsOK:     s.NewCounter("cross_org_workflow_success_count"),
		duration:   s.NewHistogram("cross_org_workflow_duration_seconds"),
		violations: s.NewCounter("policy_violations"),
	}
}

func (m meters) decisions(effect string) *metrics.Counter {
	return m.set.GetOrCreateCounter(`policy_decisions{effect="` + effect + `"}`)
}
