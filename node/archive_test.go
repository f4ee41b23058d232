package node

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

// The golden archive and proof are those of test/fed, which opens them on both sides of every change.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "test", "fed", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tarOf returns an archive of headers with as many bytes each as they announce.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sparseTar is a few bytes that unpack to size many: a file that is one hole, in the PAX form of GNU tar.
func sparseTar(t testing.TB, size int64) []byte {
	t.Helper()
	records := ""
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=log/checkpoint", fmt.Sprintf("GNU.sparse.realsize=%d", size)} {
		n := len(r) + 2
		for n != len(fmt.Sprintf("%d %s\n", n, r)) {
			n = len(fmt.Sprintf("%d %s\n", n, r))
		}
		records += fmt.Sprintf("%d %s\n", n, r)
	}
	block := func(s string) []byte { return append([]byte(s), make([]byte, 512-len(s))...) }
	header := func(kind byte, name string, size int) []byte {
		h := block(name)
		copy(h[100:], "0000644\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00", size))
		copy(h[148:], "        ")
		h[156] = kind
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return h
	}
	var b []byte
	b = append(b, header('x', "PaxHeaders/0", len(records))...)
	b = append(b, block(records)...)
	b = append(b, header('0', "GNUSparseFile.0/checkpoint", 512)...)
	b = append(b, block("1\n"+fmt.Sprint(size)+"\n0\n")...)
	return append(b, make([]byte, 1024)...)
}

func TestUnpackTakesNothingButTheFilesOfAnArchive(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Size: 3} }
	holes := sparseTar(t, 1<<40)
	if h, err := tar.NewReader(bytes.NewReader(holes)).Next(); err != nil || h.Size != 1<<40 || h.Name != "log/checkpoint" {
		t.Fatalf("the sparse archive is none: %+v, %v", h, err)
	}
	for name, archive := range map[string][]byte{
		"outside":          tarOf(t, file("../about.json")),
		"outside the log":  tarOf(t, file("log/../../x")),
		"absolute":         tarOf(t, file("/log/x")),
		"another file":     tarOf(t, file("node.yaml")),
		"a link":           tarOf(t, tar.Header{Name: "log/x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"a folder":         tarOf(t, tar.Header{Name: "log/", Typeflag: tar.TypeDir}),
		"a device":         tarOf(t, tar.Header{Name: "log/x", Typeflag: tar.TypeChar}),
		"a long name":      tarOf(t, file("log/"+strings.Repeat("x", 200))),
		"holes":            holes,
		"small holes":      sparseTar(t, 1<<20),
		"a file twice":     tarOf(t, file("log/x"), file("log/x")),
		"a file as folder": tarOf(t, file("log/x"), file("log/x/y")),
		"cut":              tarOf(t, file("log/x"))[:514],
		"junk":             bytes.Repeat([]byte("junk"), 512),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "in", "archive")
			if err := Unpack(bytes.NewReader(archive), dir); err == nil {
				t.Error("it is taken")
			}
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && !strings.HasPrefix(path, dir+"/log/") {
					t.Errorf("it wrote %s", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// An endless file, as a device would be.
type endless struct{ fstest.MapFS }

type endlessFile struct{ fs.File }

func (endlessFile) Read(b []byte) (int, error) { return len(b), nil }

func (e endless) Open(name string) (fs.File, error) {
	f, err := e.MapFS.Open(name)
	if err == nil && name != "." {
		f = endlessFile{f}
	}
	return f, err
}

func TestEndlessArchivesAreRefused(t *testing.T) {
	if _, err := OpenArchive(endless{fstest.MapFS{aboutFile: {}}}, ""); err == nil {
		t.Error("an endless about.json is taken")
	}
}

// openGolden unpacks the golden archive.
func openGolden(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := Unpack(bytes.NewReader(golden(t, "archive-v1.tar")), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func verifyDir(dir string) (*Verification, error) {
	a, err := OpenArchive(os.DirFS(dir), "")
	if err != nil {
		return nil, err
	}
	return a.Verify()
}

// TestArchivesWithoutAPieceDoNotVerify takes each file of an archive away, cuts it short, and changes a byte of it.
func TestArchivesWithoutAPieceDoNotVerify(t *testing.T) {
	dir := openGolden(t)
	if _, err := verifyDir(dir); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		flipped := bytes.Clone(data)
		flipped[len(data)/2] ^= 1
		for what, changed := range map[string][]byte{"cut": data[:len(data)/2], "changed": flipped, "missing": nil} {
			if changed == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, changed, 0o644)
			}
			if err != nil {
				return err
			}
			if v, err := verifyDir(dir); err == nil {
				t.Errorf("%s %s: verified, %+v", path, what, v)
			} else if len(err.Error()) > 1000 {
				t.Errorf("%s %s: the error has %d bytes", path, what, len(err.Error()))
			}
		}
		return os.WriteFile(path, data, 0o644)
	})
	if err != nil || files < 5 {
		t.Fatalf("%d files, %v", files, err)
	}
}

func TestSaveOverwritesNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.tar")
	if err := Save(strings.NewReader("one"), name); err != nil {
		t.Fatal(err)
	}
	if err := Save(strings.NewReader("two"), name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second archive under the name: %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "one" {
		t.Errorf("the first is %q now, %v", b, err)
	}
}

// TestSaveCutShort has the node fail in the middle: nothing is left, and what was there is not touched.
func TestSaveCutShort(t *testing.T) {
	whole := tarOf(t, tar.Header{Name: aboutFile, Size: 2000})
	dir := t.TempDir()
	for _, name := range []string{"a.tar", "a", "new/a/"} {
		gone := errors.New("gone")
		if err := Save(io.MultiReader(bytes.NewReader(whole[:1500]), iotest.ErrReader(gone)), filepath.Join(dir, name)); !errors.Is(err, gone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.Remove(filepath.Join(dir, "new")); err != nil {
		t.Errorf("what was made on the way: %v", err)
	}
	theirs := filepath.Join(dir, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Save(bytes.NewReader(whole), theirs); !errors.Is(err, fs.ErrExist) {
		t.Errorf("into a directory that is there: %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func FuzzVerifyProof(f *testing.F) {
	proof := golden(f, "proof-v1.json")
	f.Add(proof)
	f.Add(proof[:len(proof)/2])
	f.Add([]byte(`{"about":"run-1","entries":[],"format":"fednode/proof/v1","governance":{},"organization_id":"org-a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, about, err := VerifyProof(data, ""); err == nil && (v.Entries == 0 || about == "") {
			t.Fatalf("a proof of nothing verifies: %+v about %q", v, about)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(sparseTar(f, 1<<20))
	f.Add(tarOf(f, tar.Header{Name: aboutFile, Size: 9}, tar.Header{Name: governanceFile, Size: 9}))
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		dir := filepath.Join(root, "archive")
		if Unpack(bytes.NewReader(data), dir) == nil {
			_, _ = verifyDir(dir)
		}
		var size int64
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if !strings.HasPrefix(path, dir+"/") {
				t.Errorf("it wrote %s", path)
			}
			info, err := d.Info()
			if err == nil {
				size += info.Size()
			}
			return err
		})
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if size > int64(len(data)) {
			t.Fatalf("%d bytes of archive became %d", len(data), size)
		}
	})
}
