package rootfs

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestWorkspace(t *testing.T) {
	parent := t.TempDir()
	a, err := OpenWorkspace(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenWorkspace(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	if a.Dir == b.Dir {
		t.Fatal("two builds share a directory")
	}
	// This is the state after a build was killed: the lock is released, but the directory
	// exists.
	if err := os.WriteFile(filepath.Join(a.Dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.lock.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := OpenWorkspace(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(a.Dir); !os.IsNotExist(err) {
		t.Errorf("what the killed build left is still there: %v", err)
	}
	if _, err := os.Lstat(b.Dir); err != nil {
		t.Errorf("the directory of a running build was removed: %v", err)
	}
	for _, w := range []*Workspace{b, c} {
		if err := w.Remove(); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestManyWorkspacesAtOnce(t *testing.T) {
	parent := t.TempDir()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				w, err := OpenWorkspace(t.Context(), parent)
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(w.Dir, "file"), nil, 0o600); err != nil {
					t.Errorf("the directory of a running build is gone: %v", err)
				}
				if err := w.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
