package service

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// become takes on another user with all threads, keeping CAP_NET_BIND_SERVICE and no other capability. Programs that this
// process starts have none.
func become(uid, gid int) error {
	// In a program that links C, the runtime does not know all threads: then no capability is kept.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
	if errno != 0 && errno != unix.ENOTSUP {
		return fmt.Errorf("PR_SET_KEEPCAPS: %w", errno)
	}
	keeps := errno == 0
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	if !keeps {
		return nil
	}
	// No program that this one starts gains anything, setuid or not, as under the unit.
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", errno)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	const bind = 1 << unix.CAP_NET_BIND_SERVICE
	data := [2]unix.CapUserData{{Effective: bind, Permitted: bind}}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		// Root may have been without that capability to begin with. Without any, it cannot have kept another.
		none := [2]unix.CapUserData{}
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 {
			return fmt.Errorf("capset: %w", errno)
		}
	}
	return nil
}
