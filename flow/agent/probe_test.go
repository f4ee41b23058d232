package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inheritedFD is a descriptor that the parent leaves open to its children.
const inheritedFD = 40

// probes are what a confined process has no business with. Each returns nil if it got its way. dir belongs to the
// process's user and has a file "key".
func probes(dir string) map[string]func() error {
	key := filepath.Join(dir, "key")
	call := func(number uintptr, args ...uintptr) func() error {
		return func() error {
			var a [6]uintptr
			copy(a[:], args)
			if _, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
				return errno
			}
			return nil
		}
	}
	socket := func(family, kind int) func() error {
		return func() error {
			fd, err := unix.Socket(family, kind, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	parent := os.Getppid()
	var space [4096]byte
	address := uintptr(unsafe.Pointer(&space[0]))
	name := append([]byte("/fednode-probe"), 0)
	return map[string]func() error{
		"TCP socket": socket(unix.AF_INET, unix.SOCK_STREAM), "UDP socket": socket(unix.AF_INET6, unix.SOCK_DGRAM),
		"unix socket": socket(unix.AF_UNIX, unix.SOCK_STREAM), "netlink socket": socket(unix.AF_NETLINK, unix.SOCK_RAW),
		"vsock":                     socket(unix.AF_VSOCK, unix.SOCK_STREAM),
		"socketpair":                func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"read passwd":               func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"read key":                  func() error { _, err := os.ReadFile(key); return err },
		"read parent's environment": func() error { _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", parent)); return err },
		"list root":                 func() error { _, err := os.ReadDir("/"); return err },
		"list own proc":             func() error { _, err := os.ReadDir("/proc/self/fd"); return err },
		"write":                     func() error { return os.WriteFile(filepath.Join(dir, "new"), []byte("x"), 0o600) },
		"write key":                 func() error { return os.WriteFile(key, []byte("x"), 0o600) },
		"write shm":                 func() error { return os.WriteFile("/dev/shm/fednode-probe", []byte("x"), 0o600) },
		"mkdir":                     func() error { return os.Mkdir(filepath.Join(dir, "sub"), 0o700) },
		"remove key":                func() error { return os.Remove(key) },
		"rename key":                func() error { return os.Rename(key, key+"2") },
		"link key":                  func() error { return os.Link(key, key+"3") },
		"truncate key":              func() error { return os.Truncate(key, 0) },
		"open tty":                  func() error { _, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); return err },
		"chmod key":                 func() error { return os.Chmod(key, 0o666) },
		"chmod folder":              func() error { return os.Chmod(dir, 0o777) },
		"chown key":                 func() error { return os.Chown(key, os.Getuid(), os.Getgid()) },
		"touch key":                 func() error { return os.Chtimes(key, time.Unix(1, 0), time.Unix(1, 0)) },
		"label key":                 func() error { return unix.Setxattr(key, "user.probe", []byte("x"), 0) },
		"signal parent":             func() error { return unix.Kill(parent, 0) },
		"trace parent":              func() error { return unix.PtraceAttach(parent) },
		"read parent's memory": func() error {
			_, err := unix.ProcessVMReadv(parent, []unix.Iovec{{Base: &space[0], Len: 8}}, nil, 0)
			return err
		},
		"open parent":     func() error { _, err := unix.PidfdOpen(parent, 0); return err },
		"limit parent":    func() error { return unix.Prlimit(parent, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) },
		"schedule parent": func() error { var set unix.CPUSet; set.Set(0); return unix.SchedSetaffinity(parent, &set) },
		"renice parent":   func() error { return unix.Setpriority(unix.PRIO_PROCESS, parent, 19) },
		"leave session":   func() error { _, err := unix.Setsid(); return err },
		"leave group":     call(unix.SYS_SETPGID, 0, 0),
		"shared memory":   call(unix.SYS_SHMGET, unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600),
		"message queue":   call(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o600),
		"semaphore":       call(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, unix.IPC_CREAT|0o600),
		"POSIX queue":     call(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600),
		"memory file":     func() error { _, err := unix.MemfdCreate("x", 0); return err },
		"io_uring":        call(unix.SYS_IO_URING_SETUP, 1, address),
		"keyring": func() error {
			_, err := unix.AddKey("user", "probe", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
			return err
		},
		"userfaultfd":      call(unix.SYS_USERFAULTFD, 0),
		"bpf":              call(unix.SYS_BPF, 0, address, 64),
		"perf":             func() error { _, err := unix.PerfEventOpen(&unix.PerfEventAttr{}, 0, -1, -1, 0); return err },
		"mount":            func() error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		"user namespace":   func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"chroot":           func() error { return unix.Chroot(dir) },
		"unknown call":     call(5000),
		"raise core limit": func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}) },
		"raise file limit": func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}) },
		"inherited file":   func() error { _, err := unix.FcntlInt(inheritedFD, unix.F_GETFD, 0); return err },
		"status file":      func() error { _, err := unix.Write(statusFile, []byte("Xforged")); return err },
		"set the clock":    func() error { var tv unix.Timeval; _ = unix.Gettimeofday(&tv); return unix.Settimeofday(&tv) },
		"child in a user namespace": func() error {
			pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			if pid == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			return nil
		},
	}
}

// builtinProbes go further.
func builtinProbes() map[string]func() error {
	return map[string]func() error{
		"run a program":    func() error { return exec.Command("/bin/true").Run() },
		"become a program": func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
		"fork": func() error {
			pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			if pid == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			return nil
		},
		"executable memory": func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		},
		"null device":     func() error { _, err := os.Open("/dev/null"); return err },
		"signal itself":   func() error { return unix.Kill(os.Getpid(), 0) },
		"read own limits": func() error { return unix.Getrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) },
	}
}

// succeeded returns the names of the probes that got their way.
func succeeded(all map[string]func() error) []string {
	won := []string{}
	for name, try := range all {
		if try() == nil {
			won = append(won, name)
		}
	}
	return won
}

// A probeReport is what a probe says of its surroundings.
type probeReport struct {
	Won   []string
	Env   []string
	Dir   string
	Core  uint64
	Files uint64
}

// probeBuiltin is a worker that probes in place of working.
func probeBuiltin(args []string) int {
	if err := errors.Join(closeInherited(), confine(profile{memory: workerMemory, seconds: workerCPU})); err != nil {
		fmt.Println(err)
		return 1
	}
	all := probes(args[0])
	for name, p := range builtinProbes() {
		all[name] = p
	}
	if err := json.NewEncoder(os.Stdout).Encode(succeeded(all)); err != nil {
		return 1
	}
	return 0
}

// probeExec is an exec agent that probes.
func probeExec(args []string) int {
	in, err := io.ReadAll(os.Stdin)
	if err != nil || !json.Valid(in) {
		return 1
	}
	r := probeReport{Won: succeeded(probes(args[0])), Env: os.Environ()}
	r.Dir, _ = os.Getwd()
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &l) == nil {
		r.Core = l.Max
	}
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		r.Files = l.Max
	}
	text, err := json.Marshal(r)
	if err != nil {
		return 1
	}
	s := string(text)
	if err := json.NewEncoder(os.Stdout).Encode(execOutput{Outputs: []execArtifact{{Type: "answer", Text: &s}, {Type: "task", Data: in}}}); err != nil {
		return 1
	}
	return 0
}

// probeFolder is a folder of this user's with a key in it, and leaves a descriptor open to children.
func probeFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), inheritedFD, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(inheritedFD) })
	return dir
}

// TestProbesWork guards against probes that fail by themselves: without confinement the ones that need no privilege
// and no particular kernel get their way.
func TestProbesWork(t *testing.T) {
	all := probes(probeFolder(t))
	for _, name := range []string{"TCP socket", "UDP socket", "unix socket", "netlink socket", "socketpair", "read passwd", "read key", "list root",
		"list own proc", "write", "write key", "mkdir", "chmod key", "chmod folder", "chown key", "touch key", "memory file",
		"inherited file", "truncate key", "link key", "rename key"} {
		if err := all[name](); err != nil {
			t.Errorf("%s, unconfined: %v", name, err)
		}
	}
	for _, name := range []string{"run a program", "null device", "signal itself", "read own limits", "executable memory", "fork"} {
		if err := builtinProbes()[name](); err != nil {
			t.Errorf("%s, unconfined: %v", name, err)
		}
	}
}

func TestBuiltinProfile(t *testing.T) {
	dir := probeFolder(t)
	out, err := exec.Command("/proc/self/exe", argProbeBuiltin, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.TrimSpace(string(out)) != "[]" {
		t.Errorf("a confined builtin succeeded in %s", out)
	}
}

func TestExecProfile(t *testing.T) {
	t.Setenv("FEDNODE_PASSPHRASE", "secret")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := probeFolder(t)
	c := Config{Kind: "exec", Command: []string{self, argProbeExec, dir}, Outputs: []string{"answer", "task"}}
	s, home := newTestSet(t, map[string]Config{"probe": c})
	for _, restricted := range []bool{false, true} {
		task := Task{IdempotencyKey: "fed/org-a/run-1/step/1", Run: "run-1", Inputs: textDocument("text"), NoStorage: restricted}
		res, err := get(t, s, "probe").Run(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		var r probeReport
		if err := json.Unmarshal(res.Outputs[0].Data, &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Won) > 0 {
			t.Errorf("a confined program (restricted %v) succeeded in %v", restricted, r.Won)
		}
		want := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "FEDNODE_IDEMPOTENCY_KEY=fed/org-a/run-1/step/1"}
		if !restricted {
			want = append(want, "TMPDIR="+r.Dir)
			if !strings.HasPrefix(r.Dir, filepath.Join(home, "scratch", "task-")) {
				t.Errorf("ran in %s, want a scratch folder", r.Dir)
			}
		}
		if strings.Join(r.Env, "\n") != strings.Join(want, "\n") {
			t.Errorf("environment %q, want %q", r.Env, want)
		}
		if r.Core > 1 || r.Files != 256 {
			t.Errorf("limits: core %d, files %d", r.Core, r.Files)
		}
		var in execInput
		if err := decodeStrict(res.Outputs[1].Data, &in); err != nil || in.Task.IdempotencyKey != task.IdempotencyKey || *in.Inputs[0].Text != "text" {
			t.Errorf("the program got %s (%v)", res.Outputs[1].Data, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(home, "scratch")); err != nil || len(left) > 0 {
		t.Errorf("scratch folders left: %v, %v", left, err)
	}
}
