package program

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSharesAreDue(t *testing.T) {
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		age  time.Duration
		says string
	}{"new": {0, ""}, "a clock that is a little behind": {-time.Hour, ""}, "in time": {90 * 24 * time.Hour, ""},
		"old": {91 * 24 * time.Hour, "91 days old"}, "from the future": {-365 * 24 * time.Hour, "2027-11-26T00:00:00Z"}, "of 1970": {now.Sub(time.Unix(0, 0)), "days old"}} {
		err := due(now.Add(-c.age), now, 90)
		if (err != nil) != (c.says != "") || err != nil && (!errors.Is(err, ErrOverdue) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
