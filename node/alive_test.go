package node

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"fednode/hsm"
	"fednode/store"
)

// TestAlive has a disk that hangs: what is asked does not answer until it goes on.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site, err := Create(filepath.Join(t.TempDir(), "org-a"), Options{Org: "org-a", Advertise: []string{"127.0.0.1:443"}, Listen: "127.0.0.1:0", Passphrase: hsm.Unprotected()})
		if err != nil {
			t.Fatal(err)
		}
		if err := site.Found(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		n, err := New(site, Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		alive := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return n.Alive(ctx)
		}
		if err := alive(); err != nil {
			t.Error(err)
		}
		hangs, goOn := make(chan struct{}), make(chan struct{})
		done := make(chan error)
		go func() {
			done <- site.db.Update(context.Background(), func(*store.Tx) error {
				close(hangs)
				<-goOn
				return nil
			})
		}()
		<-hangs
		if err := alive(); err == nil {
			t.Error("alive, while nothing is written")
		}
		close(goOn)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := alive(); err != nil {
			t.Error(err)
		}
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
}
