//go:build !race

package agent

import (
	"strings"
	"testing"
)

// TestExecMemory: a program that wants more than its configuration allows does not get it, and one that does not runs
// within less than the worker needs that becomes it.
func TestExecMemory(t *testing.T) {
	for _, c := range []struct {
		bytes string
		fits  bool
	}{{"1000000", true}, {"200000000", false}} {
		config := shell(`head -c ` + c.bytes + ` /dev/zero | tail -c ` + c.bytes + ` >/dev/null && ` + answerOf + `fits`)
		config.Memory = 64 << 20
		s, _ := newTestSet(t, map[string]Config{"sh": config})
		res, err := get(t, s, "sh").Run(t.Context(), Task{})
		if c.fits && err != nil {
			t.Errorf("%s bytes: %v", c.bytes, err)
		}
		if !c.fits {
			if err == nil {
				t.Errorf("%s bytes: %v", c.bytes, res)
				continue
			}
			if text := wantKind(t, err, KindCrashed); !strings.Contains(text, "exit status") {
				t.Error(text)
			}
		}
	}
}
