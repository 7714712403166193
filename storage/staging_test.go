package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A sweep must keep the staging directories of live processes, also while they are being
// made. It must remove the others.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	const made = 300
	done := make(chan struct{})
	var sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				for _, path := range list(base) {
					if err := sweepOne(path); err != nil && !errors.Is(err, errOwned) && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range made {
		dir, err := newStagingDir(base)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir.path, "dir"), 0o555); err != nil {
			t.Fatal(err)
		}
		if err := dir.remove(); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	sweepers.Wait()

	alive, err := newStagingDir(base)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := newStagingDir(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(base, "unlocked", "dir", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "alone"+lockSuffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range list(base) {
		if err := sweepOne(path); err != nil && !errors.Is(err, errOwned) && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
	left := list(base)
	if len(left) != 2 || left[0] != alive.path || left[1] != alive.path+lockSuffix {
		t.Errorf("left are %q, want only %s and its lock", left, alive.path)
	}
	if err := alive.finish(); err != nil {
		t.Error(err)
	}
	if left := list(base); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// Staging directories must get the SELinux label of the directory of layers.
func TestCopyLabel(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := copyLabel(from, to); err != nil {
		t.Errorf("without a label: %v", err)
	}
	const label = "system_u:object_r:container_ro_file_t:s0\x00"
	err := unix.Lsetxattr(from, selinuxLabel, []byte(label), 0)
	if os.Geteuid() != 0 && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP)) {
		t.Skip("setting attributes named security.* needs root:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := copyLabel(from, to); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 256)
	n, err := unix.Lgetxattr(to, selinuxLabel, got)
	if err != nil || string(got[:n]) != label {
		t.Errorf("label = %q, %v; want %q", got[:n], err, label)
	}
}
