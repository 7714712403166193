package storage

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// topDir is EXT4_TOPDIR_FL, chattr(1)'s T.
const topDir = 0x20000

// spread is Spread where it does not matter whether it succeeds.
func (s *Store) spread(dir string) {
	if err := Spread(dir); err != nil {
		s.logger.Debug("directories are not spread over the file system", "error", err)
	}
}

// Spread tells the file system that the directories in dir have nothing to do
// with each other. ext4 then puts each of them, with all that it will hold, into
// a part of the disk of its own (Orlov's allocator, EXT4_TOPDIR_FL). Else it
// keeps them together, and whoever makes files where as many were deleted within
// the last minutes waits for ext4 to look at every one of those, for each file
// that it makes: it gives out no inode that was deleted a moment ago. A file
// system that knows no such hint is none the worse: nothing is done, and no error
// returned.
func Spread(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	// An overlay hands attributes on to what its upper directory lies on
	// (Linux 5.15), which may know nothing of this one.
	onOverlay := st.Type == unix.OVERLAYFS_SUPER_MAGIC
	if st.Type != unix.EXT4_SUPER_MAGIC && !onOverlay {
		return nil
	}
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if onOverlay && unknown(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read attributes of %s: %w", dir, err)
	}
	if flags&topDir != 0 {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|topDir)); err != nil {
		if onOverlay && unknown(err) {
			return nil
		}
		return fmt.Errorf("set attribute T of %s: %w", dir, err)
	}
	return nil
}

// unknown tells that a file system has no such attribute (ioctl_iflags(2)).
func unknown(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}
