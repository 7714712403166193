// Package confine opens files by untrusted paths, for example in image layers, root file
// systems and build contexts.
//
// It uses openat2(2). If that call is not available, it does the same with openat(2).
// This is the case before Linux 5.6 and under seccomp profiles that do not list the call,
// for example docker's before 20.10.
package confine

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Flags of Open that restrict how a path is resolved, see openat2(2).
const (
	Beneath      = unix.RESOLVE_BENEATH
	InRoot       = unix.RESOLVE_IN_ROOT
	NoSymlinks   = unix.RESOLVE_NO_SYMLINKS
	NoMagicLinks = unix.RESOLVE_NO_MAGICLINKS
	NoXDev       = unix.RESOLVE_NO_XDEV
)

// Open opens path below the open directory root, which may be opened with O_PATH. It
// returns a file descriptor that the caller owns. flags are those of openat(2); O_CLOEXEC
// is always set. resolve must contain Beneath or InRoot.
//
// Errors are the bare errno values of openat2(2). For example, EXDEV means that path
// leads out of root, and ELOOP that a symbolic link was refused.
func Open(root int, path string, flags int, mode uint32, resolve uint64) (int, error) {
	if resolve&(Beneath|InRoot) == 0 {
		return -1, unix.EINVAL
	}
	flags |= unix.O_CLOEXEC
	how := &unix.OpenHow{Flags: uint64(flags), Mode: uint64(mode), Resolve: resolve}
	fd, err := retry(func() (int, error) { return unix.Openat2(root, path, how) })
	// EPERM may also come from the file itself. Then stepwise returns it again.
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return stepwise(root, path, flags, mode, resolve)
	}
	return fd, err
}

// retry repeats open if a signal interrupted it (EINTR). It also repeats it on EAGAIN,
// which openat2(2) returns if a rename or mount anywhere on the machine made the lookup
// unreliable.
func retry(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
