package agent

import (
	"os"
	"path/filepath"
	"testing"
)

// machine makes the files of a machine, as far as they say whether there is swap, and returns the folder they are in.
func machine(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	noSwaps = "Filename Type Size Used Priority\n"
	aSwap   = noSwaps + "/dev/sda2 partition 8388604 0 -2\n"
)

func swapping(t *testing.T) (root string) { return machine(t, map[string]string{"proc/swaps": aSwap}) }

func TestSwapActive(t *testing.T) {
	const group, inner, outer = "proc/self/cgroup", "sys/fs/cgroup/user.slice/run-1.scope/memory.swap.max", "sys/fs/cgroup/user.slice/memory.swap.max"
	for name, c := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"no device":             {map[string]string{"proc/swaps": noSwaps}, false},
		"a device":              {map[string]string{"proc/swaps": aSwap}, true},
		"nothing known":         {nil, true},
		"forbidden here":        {map[string]string{"proc/swaps": aSwap, group: "0::/user.slice/run-1.scope\n", inner: "0\n", outer: "max\n"}, false},
		"forbidden above":       {map[string]string{"proc/swaps": aSwap, group: "0::/user.slice/run-1.scope\n", inner: "max\n", outer: "0\n"}, false},
		"limited":               {map[string]string{"proc/swaps": aSwap, group: "0::/user.slice/run-1.scope\n", inner: "4096\n"}, true},
		"forbidden elsewhere":   {map[string]string{"proc/swaps": aSwap, group: "0::/user.slice\n", inner: "0\n"}, true},
		"in a container":        {map[string]string{"proc/swaps": aSwap, group: "0::/\n", "sys/fs/cgroup/memory.swap.max": "0\n"}, false},
		"outside its namespace": {map[string]string{"proc/swaps": aSwap, group: "0::/../other\n", "sys/fs/cgroup/other/memory.swap.max": "0\n", "sys/fs/cgroup/memory.swap.max": "0\n"}, true},
		"cgroup v1":             {map[string]string{"proc/swaps": aSwap, group: "4:memory:/user.slice/run-1.scope\n", inner: "0\n"}, true},
	} {
		if got := swapActive(machine(t, c.files)); got != c.want {
			t.Errorf("%s: active %v", name, got)
		}
	}
}
