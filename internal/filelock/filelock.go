// Package filelock locks whole files, or directories, between processes (flock(2)).
//
// A lock belongs to the open file: closing it unlocks, and so does the end of the
// process, however it ends. Two opens of one file exclude each other within a process,
// too. Callers open files themselves, confined to a directory where the path is not
// their own; that is why no library for paths does.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is how a file is locked.
type Mode int

// Any number of holders share a file, or one has it alone.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// Lock waits until f is locked or ctx ends, and returns the cause of the latter. A
// lock of f in another mode is changed, and may be lost to another process meanwhile.
// The error is errors.ErrUnsupported on a file system without locks.
func Lock(ctx context.Context, f *os.File, mode Mode) error {
	// flock(2) itself can only be interrupted by a signal.
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		locked, err := Try(f, mode)
		if locked || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// What waits asks again after pauses between these.
const (
	firstPause   = time.Millisecond
	longestPause = 20 * time.Millisecond
)

// Try reports whether it locked f, which it does unless another has it.
func Try(f *os.File, mode Mode) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), int(mode)|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EBADF):
			// NFS without a lock daemon, and for a directory, which is not open for
			// writing (flock(2)); ENOTSUP is ErrUnsupported already.
			return false, fmt.Errorf("lock %s: %w: %w", f.Name(), errors.ErrUnsupported, err)
		case !errors.Is(err, unix.EINTR):
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

// Dir opens files: an *os.Root, or the zero value of Host.
type Dir interface {
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Stat(name string) (fs.FileInfo, error)
}

// Host is the whole file system.
type Host struct{}

// OpenFile implements Dir.
func (Host) OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm)
}

// Stat implements Dir.
func (Host) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Open opens the lock file called name, making it if there is none, and waits until it
// is locked or ctx ends. It may be one that its holders remove: the file that is
// returned is locked and has the name. Whoever removes it holds it exclusively.
func Open(ctx context.Context, dir Dir, name string, mode Mode) (*os.File, error) {
	for {
		f, err := open(dir, name, func(f *os.File) (bool, error) {
			err := Lock(ctx, f, mode)
			return err == nil, err
		})
		if f != nil || err != nil {
			return f, err
		}
	}
}

// TryOpen is Open without waiting: it returns nil if another has the lock.
func TryOpen(dir Dir, name string, mode Mode) (*os.File, error) {
	return open(dir, name, func(f *os.File) (bool, error) { return Try(f, mode) })
}

// open returns nil also if the file does not have the name any more when it is locked.
func open(dir Dir, name string, lock func(*os.File) (bool, error)) (*os.File, error) {
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	locked, err := lock(f)
	if !locked || err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open lock: %w", err), f.Close())
	}
	if there, err := dir.Stat(name); err != nil || !os.SameFile(mine, there) {
		return nil, f.Close()
	}
	return f, nil
}
