// Package filelock locks whole files or directories between processes (flock(2)).
//
// A lock belongs to the open file. It is released if the file is closed or the process
// ends for any reason. Two opens of the same file exclude each other even in one process.
// Callers open the files themselves, and confine the path to a directory if it is
// untrusted. Libraries that take paths do not allow this.
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

// Mode is the kind of a lock.
type Mode int

// Any number of holders may share a lock. An exclusive lock has only one holder.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// Lock waits until f is locked. If ctx ends first, it returns the cause of ctx. If f is
// already locked in another mode, the lock is converted; another process may take it
// during the conversion. The error wraps errors.ErrUnsupported if the file system has no
// locks.
func Lock(ctx context.Context, f *os.File, mode Mode) error {
	// A blocking flock(2) could only be interrupted by a signal, so poll.
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

// Lock tries again after pauses that grow from firstPause to longestPause.
const (
	firstPause   = time.Millisecond
	longestPause = 20 * time.Millisecond
)

// Try locks f without waiting and reports whether it did. It returns false and no error
// if another open file holds a conflicting lock.
func Try(f *os.File, mode Mode) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), int(mode)|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EBADF) && isDir(f):
			// NFS returns ENOLCK without a lock daemon, and EBADF for a directory, which
			// is not open for writing (flock(2)). ENOTSUP already is
			// errors.ErrUnsupported.
			return false, fmt.Errorf("lock %s: %w: %w", f.Name(), errors.ErrUnsupported, err)
		case !errors.Is(err, unix.EINTR):
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

func isDir(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.IsDir()
}

// Dir opens files. It is an *os.Root or the zero value of Host.
type Dir interface {
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Stat(name string) (fs.FileInfo, error)
}

// Host implements Dir for the whole file system.
type Host struct{}

// OpenFile implements Dir.
func (Host) OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm)
}

// Stat implements Dir.
func (Host) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Open opens the lock file name in dir, creates it if it does not exist, and waits until
// it is locked. If ctx ends first, it returns the cause of ctx. Holders may remove the
// lock file, but only while they hold it exclusively. Open therefore checks that the
// locked file still has the name, and tries again if it does not.
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

// TryOpen is like Open but does not wait. It returns nil and no error if another open
// file holds the lock, or if the lock file was removed meanwhile.
func TryOpen(dir Dir, name string, mode Mode) (*os.File, error) {
	return open(dir, name, func(f *os.File) (bool, error) { return Try(f, mode) })
}

// open returns nil and no error if lock reports false, or if the locked file no longer
// has the name.
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
