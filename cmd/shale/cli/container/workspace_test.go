package container

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWorkspace(t *testing.T) {
	parent := t.TempDir()
	alive, err := openWorkspace(parent)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := openWorkspace(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed.dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := killed.lock.Close(); err != nil { // what the kernel does for a killed process
		t.Fatal(err)
	}
	next, err := openWorkspace(parent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed.dir); !os.IsNotExist(err) {
		t.Errorf("the killed process's directory is still there: %v", err)
	}
	if _, err := os.Stat(alive.dir); err != nil {
		t.Errorf("a live container's directory was swept: %v", err)
	}
	for _, w := range []*workspace{alive, next} {
		if err := w.remove(); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
