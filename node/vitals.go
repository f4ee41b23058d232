package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minFreeDisk is below what a node calls itself unhealthy, and lowFreeDisk below what it warns, in bytes.
	minFreeDisk = 64 << 20
	lowFreeDisk = 1 << 30
	// slowFsync is above what each step of a workflow takes seconds, and poorFsync above what a disk is not made for logs.
	slowFsync = 200 * time.Millisecond
	poorFsync = 50 * time.Millisecond
	// fsyncs is how often it is measured; the median counts.
	fsyncs = 5
)

// vitals are the state of the disk under a data directory.
type vitals struct {
	free  uint64 // bytes
	fsync time.Duration
}

// measure looks at the disk. It writes a small file and removes it.
func measure(dir string) (v vitals, err error) {
	if v.free, err = freeDisk(dir); err != nil {
		return v, err
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	took := make([]time.Duration, fsyncs)
	page := make([]byte, 4096)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return v, err
		}
		if err := f.Sync(); err != nil {
			return v, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	v.fsync = took[fsyncs/2]
	return v, nil
}

// vitals judges what was measured.
func (c *chart) vitals(v vitals, err error) {
	const room = "make room, or move the data directory to a larger disk"
	if err != nil {
		mend := "look at the disk: dmesg, and fednode status"
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			mend = room
		}
		c.problem(CheckDisk, err.Error(), mend)
		c.skip("nothing can be written", CheckFsync)
		return
	}
	free := fmt.Sprintf("%.1f GiB free", float64(v.free)/(1<<30))
	if v.free < lowFreeDisk {
		free = fmt.Sprintf("%d MiB free", v.free>>20)
	}
	switch {
	case v.free < minFreeDisk:
		c.problem(CheckDisk, fmt.Sprintf("%s; the node needs %d MiB", free, minFreeDisk>>20), room)
	case v.free < lowFreeDisk:
		c.warning(CheckDisk, free, room)
	default:
		c.ok(CheckDisk, free)
	}
	const faster = "put the data directory on a local SSD, not on a network file system, and see who else writes there"
	took := fmt.Sprintf("%s to write a page through to the disk", v.fsync.Round(10*time.Microsecond))
	switch {
	case v.fsync > slowFsync:
		c.problem(CheckFsync, took, faster)
	case v.fsync > poorFsync:
		c.warning(CheckFsync, took, faster)
	default:
		c.ok(CheckFsync, took)
	}
}

func freeDisk(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("free disk of %s: %w", dir, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}
