package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// authority makes a root and a certificate it has issued, both PEM.
func authority(t *testing.T, until time.Time) (root *x509.Certificate, leaf []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root"}, NotBefore: noon().AddDate(-1, 0, 0),
		NotAfter: noon().AddDate(9, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	child := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Leaf"}, NotBefore: noon().AddDate(0, -1, 0), NotAfter: until}
	if der, err = x509.CreateCertificate(rand.Reader, child, root, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	return root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func codes(r *Report, path string) []Code {
	var out []Code
	for _, f := range r.Findings {
		if f.Path == path {
			out = append(out, f.Code)
		}
	}
	return out
}

func TestCertificateFilesAreLookedAt(t *testing.T) {
	_, good := authority(t, noon().AddDate(1, 0, 0))
	_, old := authority(t, noon().AddDate(0, 0, -1))
	e := one(t, KindDeployment)
	const dir = "etc/fednode/pki/"
	env := bare()
	env.Root = fstest.MapFS{
		dir + "north-clinic.crt":  {Data: good, Mode: 0o644},
		dir + "north-clinic.key":  {Data: []byte("secret"), Mode: 0o640},
		dir + "harbour-lab.crt":   {Data: old, Mode: 0o644},
		dir + "city-registry.crt": {Data: []byte("no certificate"), Mode: 0o644},
	}
	r, err := Check(e.name, e.data, env)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Code{
		"federation.gateway.private_key":     CodeBadFile,
		"federation.partners[0].certificate": CodeExpired,
		"federation.partners[1].certificate": CodeBadFile,
	} {
		if !slices.Contains(codes(r, path), want) {
			t.Errorf("%s: %v, want %s", path, codes(r, path), want)
		}
	}
	if got := codes(r, "federation.gateway.certificate"); !slices.Equal(got, []Code{CodeNotEnforced}) {
		t.Errorf("the good certificate: %v", got)
	}
	for _, f := range r.Findings {
		if strings.Contains(f.Text+f.Mend, "secret") {
			t.Errorf("a private key is repeated: %s", f)
		}
		if f.Code == CodeExpired && !strings.Contains(f.Text, "2026-05-31") {
			t.Errorf("no date: %s", f)
		}
	}
	if r, err = Check(e.name, e.data, bare()); err != nil {
		t.Fatal(err)
	}
	if got := codes(r, "federation.gateway.certificate"); !slices.Contains(got, CodeMissingFile) {
		t.Errorf("the missing certificate: %v", got)
	}
}

func TestParticipantsAreComparedWithMemberEntries(t *testing.T) {
	ours, good := authority(t, noon().AddDate(1, 0, 0))
	other, _ := authority(t, noon().AddDate(1, 0, 0))
	env := bare()
	env.Root = fstest.MapFS{
		"etc/fednode/pki/north-clinic.crt": {Data: good, Mode: 0o644},
		"etc/fednode/pki/harbour-lab.crt":  {Data: good, Mode: 0o644},
	}
	env.Member = func(id OrgID) (Member, bool) {
		m, ok := map[OrgID]Member{
			"north-clinic": {Endpoints: []string{"fed.north-clinic.example:8443"}, Roots: []*x509.Certificate{ours}},
			"harbour-lab":  {Endpoints: []string{"fed.harbour-lab.example:8443"}, Roots: []*x509.Certificate{other}},
		}[id]
		return m, ok
	}
	e := one(t, KindWorkflow)
	r, err := Check(e.name, e.data, env)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]Code{
		"participants[0].endpoint":    nil,
		"participants[0].certificate": nil,
		"participants[1].endpoint":    {CodeMemberDiffers},
		"participants[1].certificate": {CodeMemberDiffers},
		"participants[2].endpoint":    {CodeNotMember},
		"participants[2].certificate": {CodeMissingFile},
	} {
		if got := codes(r, path); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if err := r.Appliable(); !errors.Is(err, ErrNotAppliable) || !strings.Contains(err.Error(), "participants[1].endpoint") {
		t.Errorf("%v", err)
	}
}

func TestFilesThatAreNoFilesAreNotOpened(t *testing.T) {
	e := one(t, KindDeployment)
	env := bare()
	env.Root = fstest.MapFS{"etc/fednode/pki/north-clinic.crt": {Mode: fs.ModeNamedPipe | 0o644}}
	r, err := Check(e.name, e.data, env)
	if err != nil {
		t.Fatal(err)
	}
	if got := codes(r, "federation.gateway.certificate"); !slices.Contains(got, CodeBadFile) {
		t.Errorf("%v", got)
	}
}
