package builder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// workspace is a build's own directory in the store's file system. A lock on it
// tells other builds that it is in use; one that nobody holds was left by a
// build that was killed, and is removed by the next.
type workspace struct {
	dir  string
	lock *os.File
}

// openWorkspace makes a workspace below parent, which must exist, after
// removing those that were left behind.
func openWorkspace(parent string) (*workspace, error) {
	if err := sweep(parent); err != nil {
		return nil, err
	}
	lock, err := os.CreateTemp(parent, "build-*.lock")
	if err != nil {
		return nil, fmt.Errorf("make the build's directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the build's directory: %w", err), lock.Close())
	}
	w := &workspace{dir: dirOf(lock.Name()), lock: lock}
	// A sweep between creation and lock may have taken the file away.
	if _, err := os.Lstat(lock.Name()); err != nil {
		_ = lock.Close()
		return openWorkspace(parent)
	}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make the build's directory: %w", err), w.remove())
	}
	return w, nil
}

func dirOf(lock string) string { return lock[:len(lock)-len(".lock")] }

// sweep removes the workspaces whose lock nobody holds.
func sweep(parent string) error {
	locks, err := filepath.Glob(filepath.Join(parent, "build-*.lock"))
	if err != nil {
		return fmt.Errorf("look for old build directories: %w", err)
	}
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // gone, or another user's
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			w := workspace{dir: dirOf(path), lock: lock}
			err = w.remove()
		} else {
			err = lock.Close()
		}
		if err != nil {
			return fmt.Errorf("remove what a killed build left: %w", err)
		}
	}
	return nil
}

// remove deletes the workspace. The caller has unmounted all that was mounted
// in it.
func (w *workspace) remove() error {
	err := os.RemoveAll(w.dir)
	if err == nil {
		err = os.Remove(w.lock.Name())
	}
	return errors.Join(err, w.lock.Close())
}
