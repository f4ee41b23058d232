package agent

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A callRule says what becomes of a system call. Of several rules for one call the first whose conditions all hold
// decides.
type callRule struct {
	name    string
	verdict uint32 // SECCOMP_RET_…
	when    []condition
}

// A condition compares the low 32 bits of an argument, which is all that the kernel takes of those compared here:
// process numbers, clone flags and memory protections.
type condition struct {
	argument uint32
	test     bpf.JumpTest
	value    uint32
}

const (
	allow   = uint32(unix.SECCOMP_RET_ALLOW)
	refuse  = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	unknown = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
	deadly  = uint32(unix.SECCOMP_RET_KILL_PROCESS)

	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
)

// builtinCalls are the calls that a Go program needs which reads and writes pipes. Every other one is refused.
var builtinCalls = []string{
	"read", "write", "readv", "writev", "close", "fstat", "lseek", "fcntl",
	"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2",
	"munmap", "mremap", "madvise", "mincore", "brk",
	"futex", "sched_yield", "sched_getaffinity", "getcpu", "membarrier", "set_robust_list", "set_tid_address", "rseq",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	"getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrandom", "getrusage", "uname", "exit", "exit_group",
}

// execDenied are the calls that a program does without: whatever makes sockets, reaches other processes or leaves the
// process group, keeps data outside the files that Landlock watches, changes the files that Landlock does not watch
// (modes, owners, times, attributes), or widens what the kernel offers.
var execDenied = []string{
	"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg",
	"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
	"kcmp", "migrate_pages", "move_pages", "setpriority", "ioprio_set", "setpgid", "setsid",
	"shmget", "shmat", "shmctl", "shmdt", "msgget", "msgsnd", "msgrcv", "msgctl", "semget", "semop", "semctl", "semtimedop", "mq_open", "mq_unlink",
	"memfd_create", "memfd_secret", "keyctl", "add_key", "request_key",
	"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat", "utimensat",
	"setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd", "fanotify_init", "fanotify_mark", "inotify_add_watch",
	"mount", "umount2", "pivot_root", "open_tree", "open_tree_attr", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount", "fspick",
	"unshare", "setns", "chroot", "name_to_handle_at", "open_by_handle_at", "personality", "modify_ldt",
	"reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "swapon", "swapoff", "syslog", "quotactl",
	"quotactl_fd", "acct", "sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "iopl", "ioperm", "vhangup",
	"lookup_dcookie", "nfsservctl", "uselib",
}

// onOthers are calls whose first argument is the process that they act on, 0 for the caller.
var onOthers = []string{"prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"}

// unscopedSignals send signals to any process of the same user, unless Landlock (ABI 6) keeps them within the worker.
var unscopedSignals = []string{"kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}

// A callPolicy is the rules and what becomes of a call that none decides.
type callPolicy struct {
	rules     []callRule
	otherwise uint32
}

func (p *callPolicy) add(verdict uint32, names []string, when ...condition) {
	for _, n := range names {
		p.rules = append(p.rules, callRule{n, verdict, when})
	}
}

// builtinPolicy starts threads, which the Go runtime needs, but no process and no program; it maps nothing executable.
// clone3, whose flags a filter cannot see, is said not to exist: C libraries then use clone.
func builtinPolicy(pid uint32) *callPolicy {
	p := &callPolicy{otherwise: refuse}
	p.add(allow, builtinCalls)
	p.add(allow, []string{"mmap", "mprotect"}, condition{2, bpf.JumpBitsNotSet, unix.PROT_EXEC})
	p.add(allow, []string{"clone"}, condition{0, bpf.JumpBitsSet, unix.CLONE_THREAD}, condition{0, bpf.JumpBitsNotSet, newNamespaces})
	p.add(allow, []string{"tgkill"}, condition{0, bpf.JumpEqual, pid})
	p.add(allow, []string{"prctl"}, condition{0, bpf.JumpEqual, unix.PR_SET_VMA})
	p.add(unknown, []string{"clone3"})
	return p
}

// execPolicy is for programs of any kind. Without scoped signals a program may signal itself alone.
func execPolicy(pid uint32, scopedSignals bool) *callPolicy {
	p := &callPolicy{otherwise: allow}
	p.add(refuse, execDenied)
	p.add(refuse, onOthers, condition{0, bpf.JumpNotEqual, 0})
	p.add(refuse, []string{"clone"}, condition{0, bpf.JumpBitsSet, newNamespaces})
	p.add(unknown, []string{"clone3"})
	if !scopedSignals {
		p.add(refuse, unscopedSignals)
		p.add(refuse, []string{"tgkill"}, condition{0, bpf.JumpNotEqual, pid})
	}
	return p
}

// Offsets in struct seccomp_data; arguments follow, 8 bytes each, low word first on the architectures that Go has here.
const (
	offsetNumber   = 0
	offsetArch     = 4
	offsetArgument = 16
)

// assemble writes the filter for an architecture. Calls of another ABI of the same machine (i386 on amd64) end the
// process: their numbers mean other calls. Calls newer than the table, and those of x32, are said not to exist. Names
// that the architecture does not have (fork on arm64) need no rule there.
func (p *callPolicy) assemble(a *arch.Info) []bpf.Instruction {
	last := uint32(slices.Max(slices.Collect(maps.Keys(a.SyscallNumbers))))
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.ID), SkipTrue: 1},
		bpf.RetConstant{Val: deadly},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: last, SkipTrue: 1},
		bpf.RetConstant{Val: unknown},
	}
	for _, r := range p.rules {
		number, ok := a.SyscallNames[r.name]
		if !ok {
			continue
		}
		// if number { if argument… { return verdict }; reload number }
		body := []bpf.Instruction{bpf.RetConstant{Val: r.verdict}}
		if len(r.when) > 0 {
			body = append(body, bpf.LoadAbsolute{Off: offsetNumber, Size: 4})
		}
		for i := len(r.when) - 1; i >= 0; i-- {
			c := r.when[i]
			body = append([]bpf.Instruction{bpf.LoadAbsolute{Off: offsetArgument + 8*c.argument, Size: 4},
				bpf.JumpIf{Cond: c.test, Val: c.value, SkipFalse: uint8(len(body) - 1)}}, body...)
		}
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(number), SkipFalse: uint8(len(body))})
		out = append(out, body...)
	}
	return append(out, bpf.RetConstant{Val: p.otherwise})
}

// restrictCalls puts the filter in force on all threads. They have no_new_privs already.
func restrictCalls(exec, scopedSignals bool) error {
	a, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	policy := builtinPolicy(uint32(os.Getpid()))
	if exec {
		policy = execPolicy(uint32(os.Getpid()), scopedSignals)
	}
	raw, err := bpf.Assemble(policy.assemble(a))
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w; it needs a kernel with CONFIG_SECCOMP_FILTER", errno)
	case thread != 0:
		return fmt.Errorf("seccomp: thread %d did not take the filter", thread)
	}
	return nil
}
