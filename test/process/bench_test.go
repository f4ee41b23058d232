package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fednode/test/netns"
	"fednode/transport"
	"fednode/ui"
)

// build returns the path of the static binary.
func build(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "fednode")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "fednode")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// found lays out a federation of three and returns its data directories.
func found(b *testing.B) (dirs []string) {
	p := netns.Plan{Name: "benchmark", Dir: b.TempDir()}
	var held []io.Closer // until all ports are known, so that they differ
	for _, id := range []transport.OrgID{"org-a", "org-b", "org-c"} {
		udp, tcp, err := transport.Listen("127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		held = append(held, udp, tcp)
		p.Orgs = append(p.Orgs, netns.Org{ID: id, Address: udp.LocalAddr().String()})
		dirs = append(dirs, p.DataDir(id))
	}
	for _, c := range held {
		c.Close()
	}
	if _, err := p.Found(b.Context()); err != nil {
		b.Fatal(err)
	}
	return dirs
}

// A process is a running node.
type process struct {
	*exec.Cmd
	log bytes.Buffer
}

func run(b *testing.B, program, dir string) *process {
	p := &process{Cmd: exec.Command(program, "-D", dir, "run")}
	p.Stdout, p.Stderr = &p.log, &p.log
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	return p
}

func (p *process) stop(b *testing.B) {
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	if err := p.Wait(); err != nil {
		b.Errorf("%v\n%s", err, &p.log)
	}
}

// ready waits until the node on dir answers /readyz, asking every half millisecond.
func ready(b *testing.B, dir string) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, ui.SocketName))
	}}
	defer tr.CloseIdleConnections()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(500 * time.Microsecond) {
		resp, err := (&http.Client{Transport: tr}).Get("http://node/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	b.Fatalf("%s is not ready after a minute", dir)
}

// report gives the median and the best of what was measured.
func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[0].Seconds()*1e3, "best-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBinary reports the size of the static binary. Target: ≤ 25 MB.
func BenchmarkBinary(b *testing.B) {
	program := build(b)
	var size int64
	for b.Loop() {
		st, err := os.Stat(program)
		if err != nil {
			b.Fatal(err)
		}
		size = st.Size()
	}
	b.ReportMetric(float64(size)/1e6, "MB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCommand is the smallest command, from start to end: what every command and every agent's worker pays.
func BenchmarkCommand(b *testing.B) {
	program := build(b)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := exec.Command(program, "version").Run(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

// BenchmarkReady is a node of three, from the start of its process until it serves, with keys that need no derivation.
// Target: ≤ 150 ms.
func BenchmarkReady(b *testing.B) {
	program, dir := build(b), found(b)[0]
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		p := run(b, program, dir)
		ready(b, dir)
		took = append(took, time.Since(start))
		p.stop(b)
	}
	report(b, took)
}

// BenchmarkIdle reports the resident memory of a node that is connected to its two peers and has nothing to do, alone
// and with its two waiting agent workers; the largest of the three nodes. Target: ≤ 60 MB.
func BenchmarkIdle(b *testing.B) {
	program, dirs := build(b), found(b)
	var nodes []*process
	for _, dir := range dirs {
		nodes = append(nodes, run(b, program, dir))
	}
	for _, dir := range dirs {
		ready(b, dir)
	}
	time.Sleep(5 * time.Second) // until they have found each other, and are idle
	var node, all int
	for b.Loop() {
		for _, p := range nodes {
			own := resident(b, p.Process.Pid)
			node, all = max(node, own), max(all, own+workers(b, p.Process.Pid))
		}
	}
	b.ReportMetric(float64(node)/1e6, "MB")
	b.ReportMetric(float64(all)/1e6, "MB-with-workers")
	b.ReportMetric(0, "ns/op")
	for _, p := range nodes {
		p.stop(b)
	}
}

// status returns a field of /proc/PID/status.
func status(b *testing.B, pid int, field string) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	b.Fatalf("process %d has no %s", pid, field)
	return ""
}

// resident returns a process's resident memory in bytes.
func resident(b *testing.B, pid int) int {
	v := status(b, pid, "VmRSS")
	kib, err := strconv.Atoi(strings.TrimSuffix(v, " kB"))
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// workers returns the resident memory of a process's children. What they share with it, its binary, is counted again.
func workers(b *testing.B, pid int) (sum int) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range all {
		stat, err := os.ReadFile(path + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) < 2 || f[1] != strconv.Itoa(pid) {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			b.Fatal(err)
		}
		sum += resident(b, child)
	}
	return sum
}

// BenchmarkDemo is the whole demo: three organisations founded, twelve documents through the workflow, disks searched,
// receipts verified. Target: < 10 s.
func BenchmarkDemo(b *testing.B) {
	program := build(b)
	var took []time.Duration
	var peak int64
	for b.Loop() {
		start := time.Now()
		cmd := exec.Command(program, "demo")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		took = append(took, time.Since(start))
		peak = max(peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
	}
	report(b, took)
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
}
