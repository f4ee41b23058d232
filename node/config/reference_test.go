package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write packaging/doc/CONFIG.md anew")

func TestTheReferenceIsUpToDate(t *testing.T) {
	file := filepath.Join("..", "..", "packaging", "doc", "CONFIG.md")
	want := []byte(Reference())
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s isn't what the tables say; go test ./node/config -run Reference -update", file)
	}
}
