//go:build chaos

package fed

import (
	"testing"
	"testing/synctest"
)

// TestChaosTwentyMembers is TestMembersJoinOneAfterTheOther at the size of a large federation.
func TestChaosTwentyMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { joinAll(t, 19) })
}
