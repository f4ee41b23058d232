package threshold

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"fednode/compute/he"
	"fednode/hsm"
)

var update = flag.Bool("update", false, "write the golden files anew (a new version of the format)")

var golden = filepath.Join("testdata", "v1")

// goldenDir copies a directory of the fixture to where its files are private.
func goldenDir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	must(t, os.Mkdir(dir, 0o700))
	must(t, fs.WalkDir(os.DirFS(filepath.Join(golden, name)), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(golden, name, path))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, path), b, 0o600)
	}))
	return dir
}

func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(golden, name))
	must(t, err)
	return b
}

// TestGolden: shares, records of uses and decryption shares like these are on disks; they must open for ever.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	keyring, err := hsm.OpenKeyring(goldenDir(t, "keyring"), hsm.Unprotected())
	must(t, err)
	defer keyring.Close()
	st, err := OpenStore(goldenDir(t, "shares"), keyring.Sealer())
	must(t, err)
	ids, err := st.Keys()
	must(t, err)
	if len(ids) != 1 || ids[0].String() != string(bytes.TrimSpace(goldenFile(t, "key"))) {
		t.Fatalf("keys %v", ids)
	}
	k, err := st.Load(ids[0])
	must(t, err)
	if k.Party() != "org-00" || k.Policy() != (Policy{Threshold: 2, Smudging: 40, Quota: 2}) || k.Epoch() != 0 || len(k.Parties()) != 2 {
		t.Errorf("%s of %s, %+v", k.Key, k.Party(), k.Policy())
	}
	ct, err := k.Parameters().ParseCiphertext(goldenFile(t, "ciphertext"))
	must(t, err)
	var shares []*DecryptionShare
	for _, name := range []string{"org-00.decryption", "org-01.decryption"} {
		d, err := k.ParseShare(goldenFile(t, name))
		must(t, err)
		if again := k.MarshalShare(d); !bytes.Equal(again, goldenFile(t, name)) {
			t.Errorf("%s is written otherwise", name)
		}
		shares = append(shares, d)
	}
	pt, err := k.Combine(SessionID("golden"), ct, shares)
	must(t, err)
	wantValues(t, pt, false, []int64{3, 1, 4, 1, 5, -8})
	_, key := identity("org-00")
	_, err = k.DecryptionShare(st, key, SessionID("golden"), ct, []int{0, 1})
	wantError(t, err, ErrReplayed)
	d, err := k.DecryptionShare(st, key, SessionID("another"), ct, []int{0, 1})
	must(t, err)
	if d.Party() != 0 || len(d.Set()) != 2 {
		t.Errorf("a share of party %d in %v", d.Party(), d.Set())
	}
	_, err = k.DecryptionShare(st, key, SessionID("a third"), ct, []int{0, 1})
	wantError(t, err, ErrQuota)
}

func writeGolden(t *testing.T) {
	must(t, os.RemoveAll(golden))
	must(t, os.MkdirAll(golden, 0o755))
	keyring, err := hsm.CreateKeyring(filepath.Join(golden, "keyring"), hsm.Unprotected())
	must(t, err)
	members := generatedBy(t, small(t), Policy{Threshold: 2, Quota: 2}, func() []*member {
		members := newMembers(t, orgs(2)...)
		members[0].store, err = OpenStore(filepath.Join(golden, "shares"), keyring.Sealer())
		must(t, err)
		return members
	}())
	k := members[0].share.Key
	ct := encrypt(t, k, []int64{3, 1, 4, 1, 5, -8})
	shares, err := byFiles(t, members, "golden", ct, 0, 1)
	must(t, err)
	file, err := ct.Marshal()
	must(t, err)
	for name, b := range map[string][]byte{"ciphertext": file, "key": []byte(k.id.String() + "\n"),
		"org-00.decryption": k.MarshalShare(shares[0]), "org-01.decryption": k.MarshalShare(shares[1])} {
		must(t, os.WriteFile(filepath.Join(golden, name), b, 0o644))
	}
}

func FuzzKeyShare(f *testing.F) {
	p := small(f)
	k := generated(f, p, Policy{Threshold: 2, Quota: 1}, 2)[0].share
	f.Add(k.marshal())
	f.Add(k.marshal()[:200])
	f.Add(k.marshalPublic())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseKeyShare(p, b); err == nil && !bytes.Equal(k.marshal(), b) {
			t.Error("a share was read and is written otherwise")
		}
		if k, err := parseKey(p, b); err == nil && !bytes.Equal(k.MarshalPublic(), b) {
			t.Error("a key was read and is written otherwise")
		}
	})
}

func FuzzDecryptionShare(f *testing.F) {
	members := generated(f, small(f), Policy{Threshold: 2, Quota: 1}, 2)
	k := members[0].share
	d, err := k.DecryptionShare(members[0].store, members[0].key, SessionID("fuzz"), encrypt(f, k.Key, []int64{1}), []int{0, 1})
	must(f, err)
	good := k.MarshalShare(d)
	f.Add(good)
	f.Add(good[:150])
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := k.ParseShare(b); err == nil && !bytes.Equal(k.MarshalShare(d), b) {
			t.Error("a share was read and is written otherwise")
		}
	})
}

// FuzzOpening is what a dealer shows to all.
func FuzzOpening(f *testing.F) {
	r := smallRing(f)
	v := &dealing{ring: r, threshold: 2}
	f.Add(make([]byte, v.openSize()))
	f.Add(make([]byte, saltSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		polys, ok := v.polys(b, 2)
		var again []byte
		for _, p := range polys {
			again = he.AppendPoly(again, r, p)
		}
		if ok && !bytes.Equal(again, b) {
			t.Error("polynomials were read and are written otherwise")
		}
	})
}
