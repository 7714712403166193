package registry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/internal/filelock"
)

// tempDir creates a temporary directory for an archive next to the store. The directory
// is locked with flock(2) while it is in use. The caller must call remove in the end.
// tempDir also removes the directories that killed processes have left.
func (c *Client) tempDir(ctx context.Context) (dir string, remove func(), err error) {
	if c.store == nil {
		return "", nil, errNoStore
	}
	parent, err := c.store.StateDir("archives")
	if err != nil {
		return "", nil, err
	}
	// Lock the parent, so that another process does not find and remove the new directory
	// before it is locked.
	one, err := os.Open(parent)
	if err != nil {
		return "", nil, fmt.Errorf("create temporary directory: %w", err)
	}
	defer one.Close()
	if err := filelock.Lock(ctx, one, filelock.Exclusive); err != nil {
		return "", nil, fmt.Errorf("create temporary directory: %w", err)
	}
	c.reap(parent)
	if dir, err = os.MkdirTemp(parent, "archive-"); err != nil {
		return "", nil, fmt.Errorf("create temporary directory: %w", err)
	}
	lock := lockDir(dir)
	if lock == nil {
		return "", nil, fmt.Errorf("create temporary directory: lock %s", dir)
	}
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			c.logger.Warn("a temporary directory stays behind", "path", dir, "error", err)
		}
		_ = lock.Close()
	}, nil
}

// reap removes the directories below parent that are not locked.
func (c *Client) reap(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		lock := lockDir(dir)
		if lock == nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			c.logger.Warn("a temporary directory stays behind", "path", dir, "error", err)
		}
		_ = lock.Close()
	}
}

// lockDir locks a directory. It returns nil if another process has locked it or if it
// cannot be opened. Closing the result releases the lock.
func lockDir(dir string) *os.File {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	if locked, err := filelock.Try(f, filelock.Exclusive); !locked || err != nil {
		_ = f.Close()
		return nil
	}
	return f
}
