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

// A Runner keeps its containers' state in a directory of its own, locked for
// as long as it lives: what lies in an unlocked one belongs to a builder that
// was killed. Its processes died with it; cgroups and state files did not.

// openState makes and locks a directory. A lock on the parent keeps a sweep
// from taking it in between.
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

// sweep destroys what killed builders left, as far as that is possible.
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
