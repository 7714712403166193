// Package confine opens files by paths that are not to be trusted: inside image
// layers, root file systems and build contexts.
//
// It is openat2(2), and does the same without it on kernels before Linux 5.6 and
// under seccomp profiles that do not know the call, as docker's before 20.10.
package confine

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Flags of Open that say how a path may lead, as RESOLVE_ flags do in openat2(2).
const (
	Beneath      = unix.RESOLVE_BENEATH
	InRoot       = unix.RESOLVE_IN_ROOT
	NoSymlinks   = unix.RESOLVE_NO_SYMLINKS
	NoMagicLinks = unix.RESOLVE_NO_MAGICLINKS
	NoXDev       = unix.RESOLVE_NO_XDEV
)

// Open opens path below the open directory root (O_PATH suffices) and returns a
// descriptor that the caller owns. flags are those of openat(2), O_CLOEXEC is
// always set; resolve must have Beneath or InRoot. An error is a bare errno, those
// of openat2(2): EXDEV for a path that leads out, ELOOP for a link that is refused.
func Open(root int, path string, flags int, mode uint32, resolve uint64) (int, error) {
	if resolve&(Beneath|InRoot) == 0 {
		return -1, unix.EINVAL
	}
	flags |= unix.O_CLOEXEC
	how := &unix.OpenHow{Flags: uint64(flags), Mode: uint64(mode), Resolve: resolve}
	fd, err := retry(func() (int, error) { return unix.Openat2(root, path, how) })
	// EPERM may also be the file's own answer; it is the same again then.
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return stepwise(root, path, flags, mode, resolve)
	}
	return fd, err
}

// retry repeats what a signal interrupted, and what a rename or mount anywhere on
// the machine made inconclusive, for which openat2(2) has EAGAIN.
func retry(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
