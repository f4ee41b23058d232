package agent

import (
	"fmt"
	"os"
	"syscall"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// denied are the system calls that no agent gets: whatever makes sockets, looks into other processes, or widens what
// the kernel offers.
var denied = []string{"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg", "ptrace",
	"process_vm_readv", "process_vm_writev", "pidfd_getfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_create", "memfd_secret",
	"mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "bpf", "perf_event_open", "keyctl", "add_key", "request_key",
	"userfaultfd", "unshare", "setns", "chroot", "reboot", "kexec_load", "init_module", "finit_module", "delete_module", "swapon", "swapoff",
	"syslog", "quotactl", "acct", "kcmp", "name_to_handle_at", "open_by_handle_at", "personality"}

// deniedToBuiltins goes further: a builtin starts no process and no program.
var deniedToBuiltins = []string{"execve", "execveat", "fork", "vfork", "kill", "tkill", "pidfd_open", "pidfd_send_signal", "inotify_init1", "fanotify_init"}

// A profile is what a worker is confined to.
type profile struct {
	exec     bool     // may start the program that paths let it read
	readable []string // files and folders to read and execute
	scratch  string   // folder to write in, if any
	memory   uint64   // bytes of data
	seconds  uint64   // of processor time
}

// confine gives up, for this process and whatever it becomes, all that the profile does not name. It cannot be undone.
func confine(p profile) error {
	limits := []struct {
		which int
		max   uint64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, 64}, {unix.RLIMIT_CPU, p.seconds}}
	if p.exec {
		limits = append(limits, struct {
			which int
			max   uint64
		}{unix.RLIMIT_AS, p.memory})
	} else { // a Go program maps far more than it uses
		limits = append(limits, struct {
			which int
			max   uint64
		}{unix.RLIMIT_DATA, p.memory})
	}
	fileSize := uint64(0)
	if p.scratch != "" {
		fileSize = p.memory
	}
	limits = append(limits, struct {
		which int
		max   uint64
	}{unix.RLIMIT_FSIZE, fileSize})
	for _, l := range limits {
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return fmt.Errorf("rlimit %d: %w", l.which, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	if err := restrictPaths(p); err != nil {
		return fmt.Errorf("landlock: %w; it needs Linux 5.13 with Landlock switched on", err)
	}
	return restrictCalls(p)
}

func restrictPaths(p profile) error {
	var rules []landlock.Rule
	for _, path := range p.readable {
		if st, err := os.Stat(path); err != nil {
			continue // a default that this system lacks
		} else if st.IsDir() {
			rules = append(rules, landlock.RODirs(path))
		} else {
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	if p.exec {
		rules = append(rules, landlock.RWFiles("/dev/null"), landlock.ROFiles("/dev/urandom", "/dev/zero"))
	}
	if p.scratch != "" {
		rules = append(rules, landlock.RWDirs(p.scratch))
	}
	// The newest ABI that this kernel has; the first one, of Linux 5.13, is the least that is accepted.
	for _, abi := range []landlock.Config{landlock.V5, landlock.V4, landlock.V3, landlock.V2, landlock.V1} {
		if err := abi.RestrictPaths(rules...); err == nil {
			return nil
		}
	}
	return landlock.V1.RestrictPaths(rules...)
}

func restrictCalls(p profile) error {
	names := denied
	group := []seccomp.SyscallGroup{{Names: names, Action: seccomp.ActionErrno | seccomp.Action(syscall.EPERM)}}
	if !p.exec {
		group[0].Names = append(names[:len(names):len(names)], deniedToBuiltins...)
		group = append(group,
			// Threads, which the Go runtime needs, but no processes: clone without CLONE_THREAD is refused, and clone3,
			// whose flags a filter cannot see, is said not to exist.
			seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(syscall.EPERM), NamesWithCondtions: []seccomp.NameWithConditions{
				{Name: "clone", Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.BitsNotSet, Value: unix.CLONE_THREAD}}}}},
			seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(syscall.ENOSYS), Names: []string{"clone3"}})
	}
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: group}})
	if err != nil {
		return fmt.Errorf("seccomp: %w; it needs a kernel with CONFIG_SECCOMP_FILTER", err)
	}
	return nil
}
