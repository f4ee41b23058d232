//go:build e2e

package netns

import "testing"

// TestQuietWithoutPressureFigures runs a command where the kernel has no pressure figures, as in a namespace of ip-netns(8),
// whose /sys is another: nothing but what the command is for is printed.
func TestQuietWithoutPressureFigures(t *testing.T) {
	l := newLab(t, 1)
	if out, err := l.inside("org-a", "cat", "/sys/fs/cgroup/cpu.pressure").CombinedOutput(); err == nil {
		t.Logf("this kernel shows pressure figures in a namespace too: %s", out)
	}
	out, err := l.inside("org-a", l.binary, "version", "--output", "json").CombinedOutput()
	if err != nil || len(out) == 0 || out[0] != '{' {
		t.Fatalf("fednode version: %v\n%s", err, out)
	}
}
