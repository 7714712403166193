package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const lockSuffix = ".lock"

// workspace is the directory of one container. As long as its lock is held
// (flock(2), so at most as long as the process lives) nobody takes it away.
type workspace struct {
	dir  string
	lock *os.File
}

// openWorkspace makes a workspace below parent and removes those that killed
// processes left there; their mounts went with their mount namespaces.
func openWorkspace(parent string) (*workspace, error) {
	if err := sweep(parent); err != nil {
		return nil, err
	}
	// The directory comes into being after the lock is held, so a sweep never
	// meets one whose owner has not locked it yet.
	lock, err := os.CreateTemp(parent, "run-*"+lockSuffix)
	if err != nil {
		return nil, fmt.Errorf("make the container's directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the container's directory: %w", err), lock.Close())
	}
	if _, err := os.Lstat(lock.Name()); err != nil {
		// A sweep came between creation and lock.
		return openAgain(parent, lock)
	}
	w := &workspace{dir: strings.TrimSuffix(lock.Name(), lockSuffix), lock: lock}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make the container's directory: %w", err), w.remove())
	}
	return w, nil
}

func openAgain(parent string, lost *os.File) (*workspace, error) {
	if err := lost.Close(); err != nil {
		return nil, err
	}
	return openWorkspace(parent)
}

// remove deletes the workspace. All that was mounted in it is unmounted.
func (w *workspace) remove() error {
	err := os.RemoveAll(w.dir)
	if err == nil {
		err = os.Remove(w.lock.Name())
	}
	return errors.Join(err, w.lock.Close())
}

// sweep removes the workspaces whose lock nobody holds.
func sweep(parent string) error {
	locks, err := filepath.Glob(filepath.Join(parent, "run-*"+lockSuffix))
	if err != nil {
		return fmt.Errorf("look for left containers: %w", err)
	}
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // gone meanwhile
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			_ = lock.Close()
			continue
		}
		left := &workspace{dir: strings.TrimSuffix(path, lockSuffix), lock: lock}
		if err := left.remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what a killed container left: %w", err)
		}
	}
	return nil
}
