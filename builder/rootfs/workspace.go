package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/internal/rmtree"
)

// Workspace is a build's, or a container's, own directory in the store's file
// system. A lock on it (flock(2)) tells others that it is in use; one that
// nobody holds was left by a process that was killed, and is removed by the next.
type Workspace struct {
	// Dir is private and empty at first.
	Dir  string
	lock *os.File
}

// OpenWorkspace makes a workspace below parent, which must exist, after
// removing those that were left behind.
func OpenWorkspace(ctx context.Context, parent string) (*Workspace, error) {
	if err := sweep(parent); err != nil {
		return nil, err
	}
	lock, err := os.CreateTemp(parent, "build-*.lock")
	if err != nil {
		return nil, fmt.Errorf("make the build's directory: %w", err)
	}
	// Waits for a sweep that has just found the file, which then is gone.
	if err := filelock.Lock(ctx, lock, filelock.Exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the build's directory: %w", err), lock.Close())
	}
	w := &Workspace{Dir: dirOf(lock.Name()), lock: lock}
	if _, err := os.Lstat(lock.Name()); err != nil {
		_ = lock.Close()
		return OpenWorkspace(ctx, parent)
	}
	if err := os.Mkdir(w.Dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make the build's directory: %w", err), w.Remove())
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
		if locked, err := filelock.Try(lock, filelock.Exclusive); !locked || err != nil {
			_ = lock.Close() // in use
			continue
		}
		left := Workspace{Dir: dirOf(path), lock: lock}
		// Another sweep may have been faster.
		if err := left.Remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what a killed build left: %w", err)
		}
	}
	return nil
}

// Remove deletes the workspace. The caller has unmounted all that was mounted
// in it.
func (w *Workspace) Remove() error {
	err := rmtree.Remove(w.Dir)
	if err == nil {
		err = os.Remove(w.lock.Name())
	}
	return errors.Join(err, w.lock.Close())
}
