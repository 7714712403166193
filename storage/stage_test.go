package storage

import (
	"os"
	"path/filepath"
	"testing"
)

// The owner of a layer's directory must be able to write to it, also without
// capabilities.
func TestLetFill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := letFill(dir); err != nil {
		t.Fatal(err)
	}
	want := os.FileMode(0o755)
	if os.Geteuid() == 0 {
		want = 0o555 // CAP_DAC_OVERRIDE is enough
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
		t.Errorf("%v, %v; want %v", info.Mode(), err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Error(err)
	}
}
