package storetest_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shale-build/shale/storage/storetest"
)

// A sweep must remove abandoned directories without a lock. It must keep those that a
// process has only just made.
func TestReapUnlocked(t *testing.T) {
	roots := storetest.NewRoots(t)
	s := storetest.Open(t, roots)
	base := filepath.Join(roots.Graph, "overlay", "staging")
	for name, d := range map[string]struct {
		age  time.Duration
		full bool
	}{
		"empty-new": {-time.Minute, false}, "empty-old": {3 * time.Second, false},
		"full-new": {3 * time.Second, true}, "full-old": {2 * time.Minute, true},
	} {
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if d.full {
			write(t, filepath.Join(dir, "file"), "content")
		}
		at := time.Now().Add(-d.age)
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
	create(t, s, "", file("a", "1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"empty-new", "full-new"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
}

// A build that makes no layer must also remove the staging directories of killed builds.
func TestSweep(t *testing.T) {
	roots := storetest.NewRoots(t)
	storetest.Open(t, roots)
	if err := storetest.Command(t, "die", roots.Graph, roots.Run).Run(); err == nil {
		t.Fatal("helper was not killed")
	}
	base := filepath.Join(roots.Graph, "shale", "staging")
	if left, err := os.ReadDir(base); err != nil || len(left) != 2 {
		t.Fatalf("the killed process left %v, %v; want a directory and its lock", left, err)
	}
	s := storetest.Open(t, roots)
	s.Sweep()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkNothingStaged(t, s)
}
