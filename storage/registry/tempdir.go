package registry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/internal/filelock"
)

// tempDir makes a directory for an archive beside the store. It is locked
// (flock(2)) as long as it is in use; those that a killed process left behind are
// removed on the occasion.
func (c *Client) tempDir(ctx context.Context) (dir string, remove func(), err error) {
	if c.store == nil {
		return "", nil, errNoStore
	}
	parent, err := c.store.StateDir("archives")
	if err != nil {
		return "", nil, err
	}
	// One at a time, so that nobody meets a directory that is not locked yet.
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

// lockDir locks a directory, nil if another process has it. Closing it unlocks.
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
