package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fednode/hsm"
	"fednode/store/jcs"
)

// one returns the state of the only finding of a check.
func one(t *testing.T, c chart, check string) (out Finding) {
	t.Helper()
	n := 0
	for _, f := range c.findings {
		if f.Check == check {
			out = f
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d findings of %s in %+v", n, check, c.findings)
	}
	return out
}

func TestDoctorJudgesTheDisk(t *testing.T) {
	for _, c := range []struct {
		v           vitals
		err         error
		disk, fsync string
		mend        string
	}{
		{vitals{100 << 30, time.Millisecond}, nil, FindingOK, FindingOK, ""},
		{vitals{500 << 20, time.Millisecond}, nil, FindingWarning, FindingOK, "make room"},
		{vitals{10 << 20, time.Millisecond}, nil, FindingProblem, FindingOK, "make room"},
		{vitals{100 << 30, 80 * time.Millisecond}, nil, FindingOK, FindingWarning, "SSD"},
		{vitals{100 << 30, time.Second}, nil, FindingOK, FindingProblem, "SSD"},
		{vitals{}, &os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}, FindingProblem, FindingSkipped, "make room"},
		{vitals{}, &os.PathError{Op: "write", Path: "x", Err: unix.EROFS}, FindingProblem, FindingSkipped, "dmesg"},
	} {
		var got chart
		got.vitals(c.v, c.err)
		disk, fsync := one(t, got, CheckDisk), one(t, got, CheckFsync)
		if disk.State != c.disk || fsync.State != c.fsync || !strings.Contains(disk.Mend+fsync.Mend, c.mend) {
			t.Errorf("%+v, %v: %+v", c.v, c.err, got.findings)
		}
	}
}

// TestMeasure leaves nothing behind, and fails where nothing can be written.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	v, err := measure(dir)
	if err != nil || v.free == 0 || v.fsync <= 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := measure(filepath.Join(dir, "missing")); err == nil {
		t.Error("a directory that is not there was measured")
	}
}

// TestDoctorJudgesLanes has each outcome of the two tries.
func TestDoctorJudgesLanes(t *testing.T) {
	good := probe{at: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443}, rtt: time.Millisecond}
	late := probe{err: fmt.Errorf("x: %w", context.DeadlineExceeded)}
	refused := probe{err: fmt.Errorf("x: %w", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		udp, tcp probe
		want     string // states of udp and tcp
		answers  bool
		text     string
	}{
		{good, good, "ok ok", true, "10.0.0.1:443 in 1ms"},
		{late, good, "problem ok", true, "everything goes over TCP"},
		{good, refused, "ok problem", true, "nothing listens there"},
		{late, late, "problem problem", false, "see whether"},
	} {
		got := chart{by: "org-a", about: "org-b"}
		answers := got.lanes(c.udp, c.tcp, time.Time{}, func() (time.Duration, error) { return 0, errors.New("not asked") })
		states := one(t, got, CheckUDP).State + " " + one(t, got, CheckTCP).State
		text := fmt.Sprint(got.findings)
		if states != c.want || answers != c.answers || !strings.Contains(text, c.text) {
			t.Errorf("%v %v: %s %v\n%s", c.udp, c.tcp, states, answers, text)
		}
	}
}

// TestDoctorOfflineNamesTheFault looks at directories of nodes that do not run.
func TestDoctorOfflineNamesTheFault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "org-a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	site, err := Create(dir, Options{Org: "org-a", Listen: l.Addr().String(), Advertise: []string{"127.0.0.1:443"}, Passphrase: hsm.Unprotected()})
	if err != nil {
		t.Fatal(err)
	}
	if err := site.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now  time.Time
		away string // a key that is taken away first
		want map[string]string
	}{
		{time.Now(), "", map[string]string{CheckRunning: FindingProblem, CheckTCP: FindingProblem, CheckUDP: FindingOK, CheckCertificate: FindingOK, CheckDNS: FindingOK, CheckDisk: FindingOK}},
		{time.Now().Add(360 * 24 * time.Hour), "", map[string]string{CheckCertificate: FindingOK}}, // renewed at its start
		{time.Now().Add(400 * 24 * time.Hour), "", map[string]string{CheckCertificate: FindingWarning}},
		{time.Now().Add(350 * 24 * time.Hour), "root.key", map[string]string{CheckCertificate: FindingWarning}},
		{time.Now().Add(360 * 24 * time.Hour), "issuing.key", map[string]string{CheckCertificate: FindingProblem}},
		{time.Now().Add(400 * 24 * time.Hour), "", map[string]string{CheckCertificate: FindingProblem}},
	} {
		if c.away != "" {
			if err := os.Remove(filepath.Join(dir, keyDir, c.away)); err != nil {
				t.Fatal(err)
			}
		}
		d, err := DoctorOffline(t.Context(), dir, c.now)
		if err != nil || d.Running || d.Organization != "org-a" {
			t.Fatalf("%+v, %v", d, err)
		}
		for check, state := range c.want {
			if f := one(t, chart{findings: d.Findings}, check); f.State != state || state == FindingProblem && f.Mend == "" {
				t.Errorf("%+v, want %s", f, state)
			}
		}
	}
	if _, err := DoctorOffline(t.Context(), t.TempDir(), time.Now()); err == nil {
		t.Error("an empty directory has a diagnosis")
	}
}

// FuzzParseLookback feeds what a member may answer.
func FuzzParseLookback(f *testing.F) {
	for _, s := range []string{`{}`, `{"findings":[{"about":"org-a","by":"x","check":"udp","mend":"","state":"ok","text":"\u0000"}],"governance":1,"log":2,"seen":1,"version":"1","wire":[1]}`,
		`{"findings":[{"about":"org-z","state":"ok"}]}`, `{"log":-1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		canonical, err := jcs.Transform(payload)
		if err != nil {
			return
		}
		b, err := parseLookback(canonical, "org-b", "org-a")
		if err != nil {
			return
		}
		c := &chart{by: "org-a", about: "org-b"}
		c.compare(b, comparison{now: time.Now(), alarm: time.Hour})
		for _, x := range append(b.Findings, c.findings...) {
			if x.State == "" || x.By != "org-b" && x.By != "org-a" || len(x.Text) > 2*maxFindingText {
				t.Errorf("%+v", x)
			}
		}
		if _, err := json.Marshal(b); err != nil {
			t.Error(err)
		}
	})
}
