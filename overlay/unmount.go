package overlay

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	busyTries = 5
	busyPause = 2 * time.Millisecond
)

// Unmount unmounts target, or the topmost of several mounts there. If the mount is busy
// for 10 ms, it is detached: it disappears from the tree, and the kernel unmounts it
// after its last use ends (umount2(2), MNT_DETACH). If the last component of target is a
// symbolic link, it is not followed. Unmount returns ErrNotMounted if target is not a
// mount point.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	for try := 1; errors.Is(err, unix.EBUSY) && try < busyTries; try++ {
		// Processes of a container that was just killed may still be closing their files.
		time.Sleep(busyPause)
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	}
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) {
		err = ErrNotMounted
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}
