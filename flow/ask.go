package flow

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"fednode/store"
	"fednode/store/jcs"
	"fednode/store/ledger"
	"fednode/transport"
)

// remote asks the step's organisation until it answers or the step's timeout is over. Redelivery uses the same
// payload and salt, so that the executor knows the attempt again.
func (d *driver) remote(ctx context.Context, s *StepRun, def Step, extra func(*store.Tx) error) (*stepResult, error) {
	timeout := def.timeout()
	left := timeout + 5*time.Second
	if started, err := time.Parse(timeFormat, s.Started); extra == nil && err == nil { // resumed
		passed := d.e.c.Now().Sub(started)
		if passed > max(timeout, redeliver) {
			d.close(context.WithoutCancel(ctx), s, "overdue")
			text := fmt.Sprintf("this node was away for %v, and %s may have forgotten the attempt", passed.Round(time.Minute), s.Organization)
			return &stepResult{Status: "failed", Error: &StepError{Code: codeGrantExpired, Text: text}}, nil
		}
		left = min(left, timeout+redeliver-passed)
	}
	until := time.Now().Add(left)
	tctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	m := transport.Message{To: s.Organization, Type: msgStep, Run: string(d.run.ID), Step: s.ID, Payload: s.Request, Salt: s.Salt,
		Agreement: d.a.Hash, Attempt: s.Attempt, Governance: d.governance(def, s),
		Audit: transport.AuditInfo{Category: ledger.DataAccess, Action: "step.execute", Resource: def.Agent, DataCategory: "step", Purpose: def.purpose()}}
	backoff := 100 * time.Millisecond
	first, told, said := true, false, ""
	for {
		m.ExpiresAt = d.e.c.Now().Add(time.Until(until) + time.Minute) // the clock may have been set since the last time
		with := d.saving(nil)
		if first {
			with = d.saving(func(tx *store.Tx) error {
				tx.AfterCommit(func() { first = false })
				if extra == nil {
					return nil
				}
				return extra(tx)
			})
		}
		limit := 5 * time.Second // of the pause
		reply, err := d.e.c.Node.Call(tctx, m, with)
		switch {
		case err == nil:
			d.pending = append(d.pending, reply.Record)
			if reply.Refusal == nil {
				return d.parseResult(reply.Payload), nil
			}
			if reply.Refusal.Code == transport.CodeClockSkew { // nothing has begun, and clocks get set
				said = "; it last said: " + printable(reply.Refusal.Text)
				backoff, limit = max(backoff, skewPause), maxSkewPause
				d.publish(s, "asking again: "+printable(reply.Refusal.Text))
				break
			}
			if d.retryable(ctx, reply.Refusal, &told) {
				break
			}
			return &stepResult{Status: "failed", Error: &StepError{Code: string(reply.Refusal.Code), Text: string(s.Organization) + ": " + reply.Refusal.Text}}, nil
		case context.Cause(ctx) != nil: // stopping, or cancelled by the operator
			if errors.Is(context.Cause(ctx), errCancelled) {
				d.close(context.WithoutCancel(ctx), s, "cancelled")
			}
			return nil, context.Cause(ctx)
		case notMember(err) != nil:
			d.close(context.WithoutCancel(ctx), s, "not-member")
			return &stepResult{Status: "failed", Error: &StepError{Code: string(transport.CodeNotMember), Text: notMember(err).Text}}, nil
		case tctx.Err() == nil:
			d.publish(s, "no answer yet, asking again: "+err.Error())
		}
		if tctx.Err() != nil {
			d.close(context.WithoutCancel(ctx), s, "timeout")
			text := fmt.Sprintf("no answer from %s within %v; whether the step ran is unknown, and a late result will not be used%s", s.Organization, timeout, said)
			return &stepResult{Status: "failed", Error: &StepError{Code: "timeout", Text: text}}, nil
		}
		pause(tctx, backoff+jitter(backoff))
		backoff = min(2*backoff, limit)
	}
}

// redeliver is for how long after its end an attempt is asked for again: its executor remembers it for a little longer.
const redeliver = graceAttempts - time.Hour

// skewPause is how soon an organisation is asked again that refuses because of the clocks, and maxSkewPause how often if that
// stays so: each time is an entry in two logs.
const (
	skewPause    = 30 * time.Second
	maxSkewPause = 10 * time.Minute
)

// notMember returns the refusal to have anything to do with an organisation that is not a member here, or is suspended.
func notMember(err error) *transport.Error {
	var e *transport.Error
	if errors.As(err, &e) && e.Code == transport.CodeNotMember && !errors.Is(err, transport.ErrUnknownOutcome) && !errors.Is(err, transport.ErrUnreachable) {
		return e
	}
	return nil
}

// jitter returns a random duration below d, so that peers that failed together don't come back together.
func jitter(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:])
	return time.Duration(binary.NativeEndian.Uint64(b[:]) % uint64(d))
}

// retryable reports whether a refusal is one to try again after: the executor is busy, or has not learnt that the
// agreement is in force, which it is then told.
func (d *driver) retryable(ctx context.Context, refusal *transport.Error, told *bool) bool {
	switch refusal.Code {
	case transport.CodeOverloaded:
		return true
	case transport.CodeNotInForce:
		if *told {
			return false
		}
		*told = true
		_, err := d.e.settle(ctx, d.a.Hash)
		return err == nil
	}
	return false
}

func (d *driver) governance(def Step, s *StepRun) transport.Governance {
	var g transport.Governance
	g.DataHandling.StorageAllowed = true
	var req stepRequest
	if json.Unmarshal(s.Request, &req) == nil {
		for _, in := range req.Input.Artifacts {
			if slices.Contains(in.Restrictions, NoStorage) {
				g.DataHandling.StorageAllowed = false
			}
		}
	}
	g.DataHandling.ProcessingPurpose = def.purpose()
	g.DataHandling.RetentionPeriod = d.a.Definition.Governance.Audit.RetentionPeriod.String()
	if !g.DataHandling.StorageAllowed {
		g.DataHandling.RetentionPeriod = "0s"
	}
	g.AuditRequirements.DetailLevel = d.a.Definition.Governance.Audit.Level
	g.AuditRequirements.StoreResult = g.DataHandling.StorageAllowed
	return g
}

func (d *driver) parseResult(payload []byte) *stepResult {
	res := new(stepResult)
	if err := jcs.Unmarshal(payload, res); err != nil || res.Status != "completed" && (res.Error == nil || !res.Error.tame()) {
		return &stepResult{Status: "failed", Error: &StepError{Code: "malformed", Text: "the executor's result cannot be read"}}
	}
	return res
}

// close logs that the attempt's result will never be used, and tells its executor to stop.
func (d *driver) close(ctx context.Context, s *StepRun, why string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := d.commit(ctx, func(tx *store.Tx) error {
		return d.e.record(tx, ledger.Entry{Type: "attempt-closed", Category: ledger.PolicyEnforcement, PolicyID: "agreement:" + d.a.Hash,
			Resource: "step:" + s.ID, Action: "step.close", Result: why, Reference: d.reference(s)})
	})
	if err == nil {
		err = d.e.tell(ctx, transport.Message{To: s.Organization, Type: msgCancel, Run: string(d.run.ID), Step: s.ID, Agreement: d.a.Hash, Attempt: s.Attempt,
			Payload: cancellation{Reason: why}, Audit: transport.AuditInfo{Category: ledger.Authorization, Action: "step.cancel", Resource: s.ID}})
	}
	if err != nil {
		d.e.c.Logger.Warn("executor was not told that an attempt is closed", "run", d.run.ID, "step", s.ID, "peer", s.Organization, "err", err)
	}
}
