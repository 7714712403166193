package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/shale-build/shale/internal/filelock"
)

// A Runner keeps the state of its containers in a directory of its own, which is locked
// while the Runner exists. An unlocked directory belongs to a builder that was killed.
// The kernel has killed its processes, but its cgroups and state files still exist.

// openState creates a directory and locks it. It holds a lock on the parent meanwhile, so
// that no sweep removes the directory before it is locked.
func openState(ctx context.Context, dir string) (lock *os.File, err error) {
	parent, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	own, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	return lockDir(ctx, own)
}

func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := filelock.Lock(ctx, f, filelock.Exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("lock state directory: %w", err), f.Close())
	}
	return f, nil
}

// sweep destroys the containers and removes the directories of builders that were killed.
// It continues after errors.
func sweep(ctx context.Context, dir string) error {
	parent, err := lockDir(ctx, dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	left, err := filepath.Glob(filepath.Join(dir, "run-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range left {
		errs = append(errs, sweepOne(d))
	}
	return errors.Join(errs...)
}

func sweepOne(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	if locked, err := filelock.Try(f, filelock.Exclusive); !locked || err != nil {
		return nil
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if c, err := libcontainer.Load(dir, e.Name()); err == nil {
			errs = append(errs, c.Destroy())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}
