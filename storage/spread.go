package storage

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// topDir is EXT4_TOPDIR_FL, attribute T of chattr(1).
const topDir = 0x20000

// spread calls Spread and only logs its error.
func (s *Store) spread(dir string) {
	if err := Spread(dir); err != nil {
		s.logger.Debug("directories are not spread over the file system", "error", err)
	}
}

// Spread sets a hint for the file system that the directories in dir are unrelated. ext4
// then puts each of them, with all its content, into its own part of the disk (Orlov's
// allocator, EXT4_TOPDIR_FL). Without the hint, ext4 keeps the directories together.
// Creating files there is then slow after many files were deleted. ext4 does not reuse an
// inode that was deleted in the last minutes, and it looks at all of these inodes for
// each new file. On a file system without such a hint, Spread does nothing and returns
// nil.
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
	// An overlay passes attributes on to the file system of its upper directory (Linux
	// 5.15), which may not support this one.
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

// unknown reports whether err says that a file system does not support the attribute
// (ioctl_iflags(2)).
func unknown(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}
