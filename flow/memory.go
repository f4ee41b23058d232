package flow

import (
	"bytes"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// memoryOnly reports whether bytes kept in this process stay off the disk: no swap is active, or all of the process's
// pages are locked. Core dumps are switched off by node at its start. The answer is found once per process.
var memoryOnly = sync.OnceValue(func() error {
	swaps, err := os.ReadFile("/proc/swaps")
	if err == nil && bytes.Count(bytes.TrimSpace(swaps), []byte("\n")) == 0 {
		return nil
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("no-storage data refused: swap is active and memory cannot be locked (%w); run swapoff -a, or give the service LimitMEMLOCK=infinity", err)
	}
	return nil
})
