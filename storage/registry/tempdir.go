package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tempDir makes a directory for an archive beside the store. It is locked
// (flock(2)) as long as it is in use; those that a killed process left behind are
// removed on the occasion.
func (c *Client) tempDir() (dir string, remove func(), err error) {
	if c.store == nil {
		return "", nil, errNoStore
	}
	parent, err := c.store.StateDir("archives")
	if err != nil {
		return "", nil, err
	}
	// One at a time, so that nobody meets a directory that is not locked yet.
	unlock, err := lockDir(parent, unix.LOCK_EX)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	c.reap(parent)
	if dir, err = os.MkdirTemp(parent, "archive-"); err != nil {
		return "", nil, fmt.Errorf("create temporary directory: %w", err)
	}
	release, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return "", nil, err
	}
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			c.logger.Warn("a temporary directory stays behind", "path", dir, "error", err)
		}
		release()
	}, nil
}

func (c *Client) reap(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		release, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			c.logger.Warn("a temporary directory stays behind", "path", dir, "error", err)
		}
		release()
	}
}

func lockDir(dir string, how int) (func(), error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
