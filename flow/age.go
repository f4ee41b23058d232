package flow

import (
	"context"
	"time"

	"fednode/store"
)

// saveAgeEvery is how much of its age a node may forget in a crash: what it keeps by its age, it keeps that much longer.
const saveAgeEvery = 10 * time.Minute

// An age is for how long a node has run, all its starts together, by a clock that cannot be set. It grows by no more than
// the time that passes. What must not be forgotten too early is kept by it, for the clock on the wall may be wrong.
type age struct {
	before time.Duration // of the starts before this one
	began  time.Time
	saved  time.Duration // for pruneAttempts alone
}

func loadAge(db *store.DB) (a age, err error) {
	err = db.View(func(tx *store.Tx) error {
		a.before, _, err = get[time.Duration](tx, bucketAge, ageKey)
		return err
	})
	a.began, a.saved = time.Now(), a.before
	return a, err
}

func (a *age) now() time.Duration { return a.before + time.Since(a.began) }

// pruneAttempts forgets attempts that no redelivery can reach any more: a day after their end, by both clocks.
func (e *Engine) pruneAttempts(ctx context.Context) error {
	horizon, now := stamp(e.c.Now().Add(-graceAttempts)), e.age.now()
	var old []string
	err := e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketAttempts, "", func(k string, a attempt) error {
			if a.Expires < horizon && now-a.Begun >= a.Lasts+graceAttempts && len(old) < 1000 {
				old = append(old, k)
			}
			return nil
		})
	})
	if err != nil || len(old) == 0 && now-e.age.saved < saveAgeEvery {
		return err
	}
	err = e.c.DB.Update(ctx, func(tx *store.Tx) error {
		for _, k := range old {
			if err := tx.Bucket(bucketAttempts).Delete([]byte(k)); err != nil {
				return err
			}
		}
		return put(tx, bucketAge, ageKey, now)
	})
	if err == nil {
		e.age.saved = now
	}
	return err
}
