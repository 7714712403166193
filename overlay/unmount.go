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

// Unmount takes away what is mounted at target, the topmost mount if there
// are several. What stays busy for 10 ms is detached: gone from the tree, and
// unmounted by the kernel when its last user ends (umount2(2), MNT_DETACH). A
// last component that is a symbolic link is not followed. It returns
// ErrNotMounted if nothing is mounted there.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	for try := 1; errors.Is(err, unix.EBUSY) && try < busyTries; try++ {
		// Processes of a container that was just killed may still be letting
		// go of their files.
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
