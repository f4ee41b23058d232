package agent

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// WithoutSwap is how people start a program that is not swapped, without privilege, where systemd is.
const WithoutSwap = "systemd-run --user --scope -p MemorySwapMax=0 fednode …"

// SwapActive reports whether this process's memory may be written to a swap device: there is one, and no control group
// that the process is in keeps it from that (memory.swap.max of cgroup v2, which is systemd's MemorySwapMax). Its workers
// are in the same groups and cannot leave them. What cannot be read is taken for yes.
func SwapActive() bool { return swapActive("/") }

// swapActive is SwapActive on a machine whose files are under root.
func swapActive(root string) bool {
	b, err := os.ReadFile(filepath.Join(root, "proc/swaps"))
	if err == nil && bytes.Count(bytes.TrimSpace(b), []byte("\n")) == 0 {
		return false
	}
	return !swapForbidden(root)
}

func swapForbidden(root string) bool {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		group, unified := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !unified || strings.Contains(group, "..") { // a group outside of the process's namespace has no files here
			continue
		}
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			limit, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", dir, "memory.swap.max"))
			if err == nil && strings.TrimSpace(string(limit)) == "0" {
				return true
			}
			if dir == "/" {
				break
			}
		}
	}
	return false
}
