package fed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fednode/flow"
	"fednode/node"
)

var writeSite = flag.Bool("write-site", false, "write testdata/site-v1 anew; only for a new version of the format")

// siteFixture holds the data directories of a federation that has signed an agreement, completed a run of it and stopped
// in the middle of another. They stand for every format on disk: node.yaml and policy.yaml, keyring and keys, seal key,
// database schema, logs, governance log, journal, agreement, acceptances, grants, artifact files.
const siteFixture = "testdata/site-v1.tar.gz"

// TestSiteFixture opens data directories that an earlier version wrote, and goes on where it was.
func TestSiteFixture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := Options{}
		if *writeSite {
			writeSiteFixture(t, options)
		}
		time.Sleep(time.Minute) // past the fixture's last moment, and not past what its second run waits for
		f := &Federation{t: t, options: options}
		f.options.Orgs, f.options.Latency = 3, 5*time.Millisecond
		f.connect()
		root := filepath.Dir(f.Orgs[0].Dir)
		f.must(unpack(siteFixture, root))
		for _, o := range f.Orgs {
			o.Start()
		}
		t.Cleanup(f.stop)

		agreements, err := f.Orgs[2].Node.Engine.Agreements()
		f.must(err)
		if len(agreements) != 1 || agreements[0].State != flow.InForce || len(agreements[0].Acceptances) != 3 {
			t.Fatalf("agreements at org-c: %+v", agreements)
		}
		d, err := flow.ParseDefinition("workflow.yaml", []byte(Workflow))
		f.must(err)
		if hash, err := d.Hash(); err != nil || hash != agreements[0].Hash {
			t.Errorf("the workflow's hash is %s, %v; it was %s", hash, err, agreements[0].Hash)
		}
		runs, err := f.Orgs[0].Node.Engine.Runs()
		f.must(err)
		if len(runs) != 2 {
			t.Fatalf("%d runs", len(runs))
		}
		for _, r := range runs {
			if r.State != flow.StateCompleted {
				f.approveWhenAsked(r.ID)
			}
			if run := f.Finish(r.ID); run.State != flow.StateCompleted {
				t.Errorf("%s is %s: %+v", r.ID, run.State, run.Error)
			}
			held, err := f.Orgs[0].Node.Engine.Holdings(r.ID)
			f.must(err)
			read := 0
			for _, h := range held {
				if h.How != flow.Owner {
					continue
				}
				_, name, data, err := f.Orgs[0].Node.Engine.Artifact(r.ID, h.Artifact.ID)
				if err != nil || name != "lease.txt" || string(data) != Lease {
					t.Errorf("artifact %s: %q, %d bytes, %v", h.Artifact.ID, name, len(data), err)
				}
				read++
			}
			if read != 1 {
				t.Errorf("%d documents of %s", read, r.ID)
			}
		}
		if run := f.Finish(f.approveWhenAsked(f.Begin(agreements[0], "lease.txt", Lease).ID)); run.State != flow.StateCompleted {
			t.Errorf("a new run is %s: %+v", run.State, run.Error)
		}
		f.Verify()
	})
}

// What others were given to verify: an archive of org-b's records, and a proof of a run by org-a.
const (
	archiveFixture = "testdata/archive-v1.tar"
	proofFixture   = "testdata/proof-v1.json"
)

func TestArchiveAndProofFixtures(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Open(archiveFixture)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := node.Unpack(file, dir); err != nil {
		t.Fatal(err)
	}
	a, err := node.OpenArchive(os.DirFS(dir), "")
	if err != nil {
		t.Fatal(err)
	}
	archived, err := a.Verify()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(proofFixture)
	if err != nil {
		t.Fatal(err)
	}
	proven, about, err := node.VerifyProof(data, archived.FederationID)
	if err != nil {
		t.Fatal(err)
	}
	if archived.Organization != "org-b" || archived.Receipts == 0 || proven.Organization != "org-a" || proven.Receipts == 0 || !strings.HasPrefix(about, "run-") {
		t.Errorf("archive %+v; proof of %s %+v", archived, about, proven)
	}
}

// approveWhenAsked approves the run at org-a as soon as it waits for that.
func (f *Federation) approveWhenAsked(id flow.RunID) flow.RunID {
	f.t.Helper()
	f.awaitApproval(id)
	_, err := f.Orgs[0].Node.Engine.Decide(context.Background(), "tester", string(id), true, "")
	f.must(err)
	return id
}

// awaitApproval waits until the run waits for a human at org-a.
func (f *Federation) awaitApproval(id flow.RunID) {
	f.t.Helper()
	f.Wait("a step that waits at org-a", func() bool {
		open, err := f.Orgs[0].Node.Engine.Approvals()
		f.must(err)
		return slices.ContainsFunc(open, func(a flow.Approval) bool { return a.Run == id && a.Verdict == nil })
	})
}

// unpack writes the files of a .tar.gz under dir.
func unpack(archive, dir string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			return err
		}
	}
}

func writeSiteFixture(t *testing.T, options Options) {
	f := New(t, options)
	a := f.Agree(Workflow)
	first := f.Finish(f.approveWhenAsked(f.Begin(a, "lease.txt", Lease).ID))
	second := f.Begin(a, "lease.txt", Lease)
	f.awaitApproval(second.ID)
	var archive, proof bytes.Buffer
	f.must(f.Orgs[1].Node.Archive(&archive))
	p, err := f.Orgs[0].Node.ProveRun(string(first.ID))
	f.must(err)
	proof.Write(p)
	f.must(errors.Join(os.WriteFile(archiveFixture, archive.Bytes(), 0o644), os.WriteFile(proofFixture, proof.Bytes(), 0o644)))
	for _, o := range f.Orgs {
		f.must(o.Stop())
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	root := filepath.Dir(f.Orgs[0].Dir)
	f.must(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}))
	f.must(errors.Join(w.Close(), z.Close(), os.WriteFile(siteFixture, buf.Bytes(), 0o644)))
}
