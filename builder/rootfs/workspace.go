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

// Workspace is the private directory of a build or a container, on the file system of the
// store. Its owner holds a lock (flock(2)) while it is in use. If a process is killed,
// its workspace has no lock any more, and the next OpenWorkspace removes it.
type Workspace struct {
	// Dir is empty at first and accessible only to this user.
	Dir  string
	lock *os.File
}

// OpenWorkspace creates a workspace in parent, which must exist. Before that, it removes
// workspaces that are not locked. The caller must call Remove.
func OpenWorkspace(ctx context.Context, parent string) (*Workspace, error) {
	if err := sweep(parent); err != nil {
		return nil, err
	}
	lock, err := os.CreateTemp(parent, "build-*.lock")
	if err != nil {
		return nil, fmt.Errorf("make the build's directory: %w", err)
	}
	// The sweep of another process may have locked the new file. It removes the file, so
	// retry if the file does not exist after the lock is acquired.
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

// sweep removes the workspaces that are not locked.
func sweep(parent string) error {
	locks, err := filepath.Glob(filepath.Join(parent, "build-*.lock"))
	if err != nil {
		return fmt.Errorf("look for old build directories: %w", err)
	}
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // it was removed, or belongs to another user
		}
		if locked, err := filelock.Try(lock, filelock.Exclusive); !locked || err != nil {
			_ = lock.Close() // in use
			continue
		}
		left := Workspace{Dir: dirOf(path), lock: lock}
		// Another sweep may have removed it first.
		if err := left.Remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the files of a killed build: %w", err)
		}
	}
	return nil
}

// Remove deletes the workspace and releases its lock. The caller must unmount all file
// systems in it first.
func (w *Workspace) Remove() error {
	err := rmtree.Remove(w.Dir)
	if err == nil {
		err = os.Remove(w.lock.Name())
	}
	return errors.Join(err, w.lock.Close())
}
