package builder

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWorkspace(t *testing.T) {
	parent := t.TempDir()
	a, err := openWorkspace(parent)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openWorkspace(parent)
	if err != nil {
		t.Fatal(err)
	}
	if a.dir == b.dir {
		t.Fatal("two builds share a directory")
	}
	// A build that was killed: its lock went with it, its directory did not.
	if err := os.WriteFile(filepath.Join(a.dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.lock.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := openWorkspace(parent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(a.dir); !os.IsNotExist(err) {
		t.Errorf("what the killed build left is still there: %v", err)
	}
	if _, err := os.Lstat(b.dir); err != nil {
		t.Errorf("the directory of a running build was removed: %v", err)
	}
	for _, w := range []*workspace{b, c} {
		if err := w.remove(); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
