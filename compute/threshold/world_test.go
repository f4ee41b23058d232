package threshold

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/hsm"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// wantParty checks that an error names a party for a reason.
func wantParty(t testing.TB, err error, name string, reason error) {
	t.Helper()
	var named *compute.PartyError
	if !errors.As(err, &named) || named.Party != name || !errors.Is(err, reason) {
		t.Errorf("got %v; want %q named: %v", err, name, reason)
	}
}

// patience is for machines that do much else.
const patience = 2 * time.Minute

func identity(name string) (compute.Party, ed25519.PrivateKey) {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return compute.Party{Name: name, Key: key.Public().(ed25519.PublicKey)}, key
}

// A member is a party with its store and, once there is a key, its share.
type member struct {
	party compute.Party
	key   ed25519.PrivateKey
	store *Store
	share *KeyShare
}

func newMembers(t testing.TB, names ...string) []*member {
	t.Helper()
	keyring, err := hsm.CreateKeyring(filepath.Join(t.TempDir(), "keys"), hsm.Unprotected())
	must(t, err)
	var out []*member
	for _, name := range names {
		m := new(member)
		m.party, m.key = identity(name)
		m.store, err = OpenStore(filepath.Join(t.TempDir(), "shares"), keyring.Sealer())
		must(t, err)
		out = append(out, m)
	}
	return out
}

func orgs(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("org-%02d", i)
	}
	return out
}

func rosterOf(members []*member) compute.Roster {
	var out compute.Roster
	for _, m := range members {
		out = append(out, m.party)
	}
	return out
}

// inSession has members run a session in a process and returns their errors.
func inSession(t testing.TB, members []*member, act func(s *compute.Session, m *member) error) []error {
	t.Helper()
	var nets []compute.Net
	for _, l := range compute.NewLocal(len(members)) {
		nets = append(nets, l)
	}
	return over(t, nets, members, act)
}

func over(t testing.TB, nets []compute.Net, members []*member, act func(s *compute.Session, m *member) error) []error {
	t.Helper()
	roster := rosterOf(members)
	errs := make([]error, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		group.Go(func() {
			s, err := compute.Open(t.Context(), nets[i], compute.Config{Name: t.Name(), Roster: roster, Self: i, Key: m.key, Timeout: patience})
			if err == nil {
				err = act(s, m)
			}
			errs[i] = err
		})
	}
	group.Wait()
	for _, n := range nets {
		n.Close()
	}
	return errs
}

// tcpNets connects members over TCP on the loopback.
func tcpNets(t testing.TB, members []*member) []compute.Net {
	t.Helper()
	roster := rosterOf(members)
	listeners, addresses := make([]net.Listener, len(members)), make([]string, len(members))
	for i := range members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		listeners[i], addresses[i] = l, l.Addr().String()
	}
	out, errs := make([]compute.Net, len(members)), make([]error, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		group.Go(func() {
			out[i], errs[i] = compute.DialTCP(t.Context(), compute.TCPConfig{Roster: roster, Self: i, Key: m.key, Addresses: addresses, Listener: listeners[i]})
		})
	}
	group.Wait()
	must(t, errors.Join(errs...))
	return out
}

// generated returns members that hold a key.
func generated(t testing.TB, p *he.Parameters, policy Policy, n int) []*member {
	t.Helper()
	return generatedBy(t, p, policy, newMembers(t, orgs(n)...))
}

func generatedBy(t testing.TB, p *he.Parameters, policy Policy, members []*member) []*member {
	t.Helper()
	must(t, errors.Join(inSession(t, members, func(s *compute.Session, m *member) (err error) {
		m.share, err = Generate(t.Context(), s, m.store, p, policy)
		return err
	})...))
	return members
}

// decrypted has members decrypt ct and returns what they get, checked to be the same for all.
func decrypted(t testing.TB, members []*member, ct *he.Ciphertext) *Decryption {
	t.Helper()
	out := make([]*Decryption, len(members))
	must(t, errors.Join(inSession(t, members, func(s *compute.Session, m *member) (err error) {
		out[s.Self()], err = m.share.Decrypt(t.Context(), s, m.store, ct)
		return err
	})...))
	for _, d := range out[1:] {
		if !d.Plaintext.Equal(out[0].Plaintext) || fmt.Sprint(d.Suspects) != fmt.Sprint(out[0].Suspects) {
			t.Error("parties came to different results")
		}
	}
	return out[0]
}

// pick returns some of members, by number.
func pick(members []*member, numbers ...int) (out []*member) {
	for _, i := range numbers {
		out = append(out, members[i])
	}
	return out
}

var worlds sync.Map

// parameters are costly: one of each for all tests.
func parameters(t testing.TB, set he.Set, plain ...uint64) *he.Parameters {
	t.Helper()
	name := fmt.Sprint(set, plain)
	if p, ok := worlds.Load(name); ok {
		return p.(*he.Parameters)
	}
	p, err := he.New(set, plain...)
	must(t, err)
	worlds.Store(name, p)
	return p
}

// small are the smallest parameters with room for smudging: t = 17 at N = 4096.
func small(t testing.TB) *he.Parameters { return parameters(t, he.Set4096, 17) }

var smallPolicy = Policy{Threshold: 3, Quota: 100}

func encrypt(t testing.TB, k *Key, values []int64) *he.Ciphertext {
	t.Helper()
	pk, err := k.PublicKey()
	must(t, err)
	encode := k.Parameters().EncodeCoefficients
	if k.Parameters().Slots() > 0 {
		encode = k.Parameters().EncodeSlots
	}
	pt, err := encode(values)
	must(t, err)
	ct, err := pk.Encrypt(pt)
	must(t, err)
	return ct
}

func wantValues(t testing.TB, pt *he.Plaintext, slots bool, want []int64) {
	t.Helper()
	got, err := pt.Coefficients()
	if slots {
		got, err = pt.Slots()
	}
	must(t, err)
	if !slices.Equal(got[:len(want)], want) {
		t.Errorf("decrypted to %v…, want %v…", got[:min(8, len(want))], want[:min(8, len(want))])
	}
}

func says(t testing.TB, err error, what string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), what) {
		t.Errorf("%v does not say %q", err, what)
	}
}
