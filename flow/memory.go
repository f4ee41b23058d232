package flow

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"fednode/flow/agent"
)

// memoryOnly reports whether bytes kept in this process stay off the disk: the process is not swapped, or all of the process's
// pages are locked. Core dumps are switched off by node at its start. The answer is found once per process.
var memoryOnly = sync.OnceValue(func() error {
	if !agent.SwapActive() {
		return nil
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("no-storage data refused: swap is active and memory cannot be locked (%w); run swapoff -a, or start the node with MemorySwapMax=0 (%s) or LimitMEMLOCK=infinity", err, agent.WithoutSwap)
	}
	return nil
})
