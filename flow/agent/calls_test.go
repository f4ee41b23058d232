package agent

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge runs a filter on one call. The VM reads big-endian words, the kernel the machine's.
func judge(t *testing.T, filter []bpf.Instruction, abi arch.AuditArch, number int, args ...uint64) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(filter)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64) // struct seccomp_data
	binary.BigEndian.PutUint32(data[offsetNumber:], uint32(number))
	binary.BigEndian.PutUint32(data[offsetArch:], uint32(abi))
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offsetArgument+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offsetArgument+8*i+4:], uint32(a>>32))
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

const (
	self  = 4711
	other = 1
)

func TestCallPolicies(t *testing.T) {
	const high = 1 << 40 // bits that the kernel does not look at
	for _, c := range []struct {
		call                      string
		args                      []uint64
		builtin, scoped, unscoped uint32
	}{
		{"read", nil, allow, allow, allow},
		{"futex", nil, allow, allow, allow},
		{"openat", nil, refuse, allow, allow},
		{"execve", nil, refuse, allow, allow},
		{"execveat", nil, refuse, allow, allow},
		{"socket", nil, refuse, refuse, refuse},
		{"io_uring_setup", nil, refuse, refuse, refuse},
		{"fchmodat2", nil, refuse, refuse, refuse},
		{"setxattrat", nil, refuse, refuse, refuse},
		{"open_tree_attr", nil, refuse, refuse, refuse},
		{"clone3", nil, unknown, unknown, unknown},
		{"clone", []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow, allow, allow},
		{"clone", []uint64{uint64(unix.SIGCHLD)}, refuse, allow, allow},
		{"clone", []uint64{uint64(unix.SIGCHLD) | unix.CLONE_NEWUSER}, refuse, refuse, refuse},
		{"clone", []uint64{high | unix.CLONE_THREAD | unix.CLONE_NEWNS}, refuse, refuse, refuse},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow, allow, allow},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse, allow, allow},
		{"mprotect", []uint64{0, 4096, unix.PROT_EXEC}, refuse, allow, allow},
		{"prlimit64", []uint64{0}, refuse, allow, allow},
		{"prlimit64", []uint64{other}, refuse, refuse, refuse},
		{"sched_setaffinity", []uint64{high}, refuse, allow, allow},
		{"kill", []uint64{other}, refuse, allow, refuse},
		{"kill", []uint64{self}, refuse, allow, refuse},
		{"tgkill", []uint64{self, 1}, allow, allow, allow},
		{"tgkill", []uint64{other, 1}, refuse, allow, refuse},
		{"prctl", []uint64{unix.PR_SET_VMA}, allow, allow, allow},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, refuse, allow, allow},
		{"setsid", nil, refuse, refuse, refuse},
	} {
		for _, machine := range []*arch.Info{arch.X86_64, arch.AARCH64} {
			number, ok := machine.SyscallNames[c.call]
			if !ok {
				t.Fatalf("%s has no %s", machine.Name, c.call)
			}
			for policy, want := range map[*callPolicy]uint32{builtinPolicy(self): c.builtin, execPolicy(self, true): c.scoped, execPolicy(self, false): c.unscoped} {
				if got := judge(t, policy.assemble(machine), machine.ID, number, c.args...); got != want {
					t.Errorf("%s %s%x: verdict %#x, want %#x", machine.Name, c.call, c.args, got, want)
				}
			}
		}
	}
}

// TestForeignCalls: calls of another ABI, of x32 and of kernels to come find no way around the names.
func TestForeignCalls(t *testing.T) {
	for _, policy := range []*callPolicy{builtinPolicy(self), execPolicy(self, true)} {
		filter := policy.assemble(arch.X86_64)
		if got := judge(t, filter, arch.I386.ID, arch.I386.SyscallNames["exit"]); got != deadly {
			t.Errorf("i386 call: %#x, want the process's end", got)
		}
		if got := judge(t, policy.assemble(arch.AARCH64), arch.ARM.ID, 1); got != deadly {
			t.Errorf("32-bit call on arm64: %#x, want the process's end", got)
		}
		for _, number := range []int{0x40000000, 0x40000000 + 41, 5000, 0x7fffffff, 0xffffffff} {
			if got := judge(t, filter, arch.X86_64.ID, number); got != unknown {
				t.Errorf("call %#x: %#x, want ENOSYS", number, got)
			}
		}
	}
}

// TestEveryCallJudged compares the filter with the rules, call by call.
func TestEveryCallJudged(t *testing.T) {
	for _, machine := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		builtin, program := builtinPolicy(self).assemble(machine), execPolicy(self, true).assemble(machine)
		for name, number := range machine.SyscallNames {
			if conditional := []string{"mmap", "mprotect", "clone", "clone3", "tgkill", "prctl"}; slices.Contains(conditional, name) || slices.Contains(onOthers, name) {
				continue
			}
			if got, want := judge(t, builtin, machine.ID, number) == allow, slices.Contains(builtinCalls, name); got != want {
				t.Errorf("%s builtin %s: allowed %v, want %v", machine.Name, name, got, want)
			}
			if got, want := judge(t, program, machine.ID, number) == refuse, slices.Contains(execDenied, name); got != want {
				t.Errorf("%s exec %s: refused %v, want %v", machine.Name, name, got, want)
			}
		}
	}
}

// TestCallNames: a name that no architecture knows is a typing error, which would leave a call open.
func TestCallNames(t *testing.T) {
	for _, r := range append(builtinPolicy(self).rules, execPolicy(self, false).rules...) {
		_, amd64 := arch.X86_64.SyscallNames[r.name]
		_, arm64 := arch.AARCH64.SyscallNames[r.name]
		if !amd64 && !arm64 {
			t.Errorf("no system call is called %s", r.name)
		}
	}
}
