package threshold_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/threshold"
	"fednode/hsm"
)

// Three organisations in one process make a key; two of them decrypt what was encrypted to it.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(dir)
	keyring, err := hsm.CreateKeyring(filepath.Join(dir, "keys"), hsm.Unprotected())
	check(err)
	parameters, err := he.New(he.Set4096, 17)
	check(err)

	var roster compute.Roster
	var signers []ed25519.PrivateKey
	var stores []*threshold.Store
	for _, name := range []string{"org-a", "org-b", "org-c"} {
		public, private, err := ed25519.GenerateKey(nil)
		check(err)
		store, err := threshold.OpenStore(filepath.Join(dir, name), keyring.Sealer())
		check(err)
		roster = append(roster, compute.Party{Name: name, Key: public})
		signers, stores = append(signers, private), append(stores, store)
	}
	// together runs what every party does in a process of its own, over TCP or the federation's transport.
	together := func(job string, parties int, act func(ctx context.Context, s *compute.Session, i int)) {
		var group sync.WaitGroup
		for i, net := range compute.NewLocal(parties) {
			group.Go(func() {
				ctx := context.Background()
				s, err := compute.Open(ctx, net, compute.Config{Name: job, Roster: roster[:parties], Self: i, Key: signers[i]})
				check(err)
				act(ctx, s, i)
			})
		}
		group.Wait()
	}

	shares := make([]*threshold.KeyShare, 3)
	together("make a key", 3, func(ctx context.Context, s *compute.Session, i int) {
		var err error
		shares[i], err = threshold.Generate(ctx, s, stores[i], parameters, threshold.Policy{Threshold: 2, Quota: 1})
		check(err)
	})
	public, err := shares[2].PublicKey()
	check(err)
	plain, err := parameters.EncodeCoefficients([]int64{3, -1, 4})
	check(err)
	ciphertext, err := public.Encrypt(plain)
	check(err)

	together("decrypt it", 2, func(ctx context.Context, s *compute.Session, i int) {
		d, err := shares[i].Decrypt(ctx, s, stores[i], ciphertext)
		check(err)
		values, err := d.Plaintext.Coefficients()
		check(err)
		if i == 0 {
			fmt.Println(values[:3])
		}
	})
	// Output: [3 -1 4]
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
