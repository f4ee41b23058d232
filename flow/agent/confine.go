package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// A profile is what a worker is confined to.
type profile struct {
	exec     bool     // will become the program that readable names
	readable []string // files and folders to read and execute
	scratch  string   // folder to write in, if any
	memory   uint64   // bytes: of data for a builtin, which as a Go program maps far more than it uses, else of address space
	seconds  uint64   // of processor time
}

const (
	abiFirst         = 1 // Landlock's first, of Linux 5.13: files and folders
	abiScopedSignals = 6 // Linux 6.12

	// What a program and all of its user's processes may be more than all processes of the machine now: the kernel
	// counts by user, and a user's are not more than the machine's. Root is not counted.
	spareProcesses = 256
)

// confine gives up, for this process and whatever it becomes, all that the profile does not name. It cannot be undone.
// For an exec profile the calling thread has to be locked, and memory is left to limitMemory.
func confine(p profile) error {
	if err := limit(p); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	abi, err := landlocksys.LandlockGetABIVersion()
	if err != nil || abi < abiFirst {
		return errors.New("this kernel has no Landlock; it needs Linux 5.13 or newer with landlock among the lsm= of the kernel's command line or CONFIG_LSM")
	}
	if err := restrictPaths(p); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	if p.exec {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	return restrictCalls(p.exec, abi >= abiScopedSignals)
}

func limit(p profile) error {
	type bound struct {
		resource int
		max      uint64
	}
	// A core limit of 1 byte makes no file, and the kernel starts no core handler either, which it would for 0.
	bounds := []bound{{unix.RLIMIT_CORE, 1}, {unix.RLIMIT_CPU, p.seconds}, {unix.RLIMIT_FSIZE, 0}, {unix.RLIMIT_NOFILE, 64}}
	if p.scratch != "" {
		bounds[2].max = p.memory
	}
	if p.exec {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return fmt.Errorf("sysinfo: %w", err)
		}
		bounds[3].max = 256
		bounds = append(bounds, bound{unix.RLIMIT_NPROC, uint64(info.Procs) + spareProcesses})
	} else if !sanitized {
		bounds = append(bounds, bound{unix.RLIMIT_DATA, p.memory})
	}
	for _, b := range bounds {
		if err := setLimit(b.resource, b.max); err != nil {
			return err
		}
	}
	return nil
}

// setLimit never asks for more than the node itself may have.
func setLimit(resource int, max uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("rlimit %d: %w", resource, err)
	}
	max = min(max, now.Max)
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: max, Max: max}); err != nil {
		return fmt.Errorf("rlimit %d: %w", resource, err)
	}
	return nil
}

// restrictPaths allows what the profile names, and nothing else that this kernel's Landlock can deny: files and
// folders, and from newer ABIs on TCP, device controls, abstract sockets and signals to processes outside.
func restrictPaths(p profile) error {
	var rules []landlock.Rule
	for _, path := range p.readable {
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // a default that this system lacks; configured paths were looked at when the agent was made
		case err != nil:
			return err
		case st.IsDir():
			rules = append(rules, landlock.RODirs(path))
		default:
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	if p.exec {
		rules = append(rules, landlock.RWFiles("/dev/null"), landlock.ROFiles("/dev/urandom", "/dev/zero"))
	}
	if p.scratch != "" {
		rules = append(rules, landlock.RWDirs(p.scratch))
	}
	return landlock.V11.BestEffort().Restrict(rules...)
}

// dropCapabilities gives up the calling thread's; with no_new_privs, which Landlock has set, no program brings them
// back. A builtin keeps root's, because none of its few calls asks for one.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// closeInherited closes what the node's own parent left open to it. What this process opened itself closes on exec.
func closeInherited(except ...int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("inherited files: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || slices.Contains(except, fd) {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			if err := unix.Close(fd); err != nil {
				return fmt.Errorf("inherited file %d: %w", fd, err)
			}
		}
	}
	return nil
}
