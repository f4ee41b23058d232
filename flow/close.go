package flow

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fednode/hsm/durable"
	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// Payloads of the messages that end things.
type (
	cancellation struct {
		Reason string `json:"reason"`
	}
	runClosed struct {
		State State `json:"state"`
	}
)

// grace is how long after their deadlines in-memory artifacts and attempt records are kept.
const (
	graceMemory   = 10 * time.Minute
	graceAttempts = 24 * time.Hour
	sweepEvery    = time.Minute
)

// handleCancel closes an attempt: one under way is stopped, one never seen leaves a tombstone that refuses it later.
func (e *Engine) handleCancel(ctx context.Context, r *transport.Request) error {
	var c cancellation
	if err := jcs.Unmarshal(r.Payload, &c); err != nil || len(c.Reason) > 256 {
		return &transport.Error{Code: transport.CodeMalformed, Text: "step-cancellation: bad payload"}
	}
	env := r.Envelope
	a, err := e.Agreement(env.Binding.Agreement)
	if err != nil || a.Definition.Initiator() != r.From.ID {
		return &transport.Error{Code: transport.CodeNotFound, Text: "no such agreement of yours"}
	}
	key := attemptKey{r.From.ID, env.WorkflowID, env.StepID, env.Binding.Attempt}
	e.mu.Lock()
	if f := e.flights[key]; f != nil && f.cancel != nil {
		f.cancel(errCancelled)
	}
	e.mu.Unlock()
	audit := transport.AuditInfo{Category: ledger.Authorization, Action: "step.cancel", Resource: env.StepID}
	return r.Reply(ctx, acknowledged{true}, transport.ReplyOptions{Audit: audit}, func(tx *store.Tx) error {
		rec, _, err := get[attempt](tx, bucketAttempts, key.String())
		if err != nil || rec.State == attemptDone {
			return err
		}
		rec.State, rec.Reason = attemptClosed, c.Reason
		rec.last(e, e.c.Now().Add(maxStepTimeout))
		return put(tx, bucketAttempts, key.String(), rec)
	})
}

// handleRunClosed forgets what was held in memory for the run.
func (e *Engine) handleRunClosed(ctx context.Context, r *transport.Request) error {
	var c runClosed
	if err := jcs.Unmarshal(r.Payload, &c); err != nil || !c.State.Final() {
		return &transport.Error{Code: transport.CodeMalformed, Text: "run-closed: bad payload"}
	}
	run := r.Envelope.WorkflowID
	a, err := e.Agreement(r.Envelope.Binding.Agreement)
	if err != nil || a.Definition.Initiator() != r.From.ID {
		return &transport.Error{Code: transport.CodeNotFound, Text: "no such agreement of yours"}
	}
	var keys []string
	audit := transport.AuditInfo{Category: ledger.Authorization, Action: "run.close", Resource: "run:" + string(run)}
	err = r.Reply(ctx, acknowledged{true}, transport.ReplyOptions{Audit: audit}, func(tx *store.Tx) error {
		known := false
		err := each(tx, bucketAttempts, string(r.From.ID)+"/"+string(run)+"/", func(string, attempt) error { known = true; return nil })
		if err != nil || !known {
			return err
		}
		keys, err = e.markReleased(tx, run, a.Hash)
		return err
	})
	if err == nil && keys != nil {
		e.artifacts.release(keys)
		e.publish(Event{Run: run, Organization: string(r.From.ID), State: string(c.State)})
	}
	return err
}

// markReleased notes in the journal that the in-memory artifacts of a run under agreement are gone.
func (e *Engine) markReleased(tx *store.Tx, run RunID, agreement string) (keys []string, err error) {
	var held []Holding
	err = each(tx, bucketHoldings, holdingKey(run, agreement, ""), func(k string, h Holding) error {
		if h.Where == InMemory {
			held, keys = append(held, h), append(keys, k)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		h.Where = Released
		if err := put(tx, bucketHoldings, h.key(), h); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// releaseRun forgets what this organisation holds in memory for a run under agreement.
func (e *Engine) releaseRun(ctx context.Context, run RunID, agreement string) error {
	var keys []string
	err := e.c.DB.Update(ctx, func(tx *store.Tx) (err error) {
		keys, err = e.markReleased(tx, run, agreement)
		return err
	})
	if err == nil {
		e.artifacts.release(keys)
	}
	return err
}

// sweep forgets, until ctx ends, what nobody closed in time: in-memory artifacts of runs whose deadlines are over and
// attempt records that no redelivery can reach any more.
func (e *Engine) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if err := e.releaseOverdue(ctx); err != nil && ctx.Err() == nil {
			e.c.Logger.Error("overdue artifacts could not be released", "err", err)
		}
		if err := e.pruneAttempts(ctx); err != nil && ctx.Err() == nil {
			e.c.Logger.Error("attempt records could not be pruned", "err", err)
		}
	}
}

// releaseOverdue forgets in-memory artifacts that are past their deadline, journalled or not.
func (e *Engine) releaseOverdue(ctx context.Context) error {
	keys := e.artifacts.overdue(time.Now())
	if len(keys) == 0 {
		return nil
	}
	err := e.c.DB.Update(ctx, func(tx *store.Tx) error {
		for _, k := range keys {
			h, ok, err := get[Holding](tx, bucketHoldings, k)
			if err == nil && ok {
				h.Where = Released
				err = put(tx, bucketHoldings, k, h)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		e.artifacts.release(keys)
	}
	return err
}

// removeOrphans deletes files that no holding names: a crash came between a file and its journal record.
func (a *artifacts) removeOrphans(held []string) error {
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return fmt.Errorf("artifact directory: %w", err)
	}
	known := map[string]bool{}
	for _, k := range held {
		known[filepath.Base(a.path(k))] = true
	}
	for _, f := range files {
		if f.Type().IsRegular() && !known[f.Name()] && (strings.HasPrefix(f.Name(), durable.Prefix) || len(f.Name()) == 32) {
			if err := os.Remove(filepath.Join(a.dir, f.Name())); err != nil {
				return fmt.Errorf("artifact directory: %w", err)
			}
		}
	}
	return nil
}

// overdue returns the keys of in-memory artifacts that are past their deadline.
func (a *artifacts) overdue(now time.Time) (keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, c := range a.mem {
		if now.After(c.until) {
			keys = append(keys, k)
		}
	}
	return keys
}
