package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStandIn(t *testing.T) {
	dir := t.TempDir()
	open, link := filepath.Join(dir, "open"), filepath.Join(dir, "link")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "own")
	got, err := standIn(isRefused, filepath.Join(dir, "none", "below"), open, link, want)
	if err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got, err = standIn(isRefused, want); err != nil || got != want {
		t.Errorf("again: got %q, %v", got, err)
	}
	if _, err := standIn(isRefused, open); err == nil || !strings.Contains(err.Error(), "--runroot") {
		t.Errorf("another's directory: %v", err)
	}
	all := func(int64) bool { return true }
	if _, err := standIn(all, want); err == nil {
		t.Error("a refused file system is taken")
	}
}
