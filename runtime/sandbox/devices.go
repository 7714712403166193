package sandbox

import (
	"fmt"
	"os"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules, without which root's containers are refused
	"golang.org/x/sys/unix"
)

// deviceCgroup tells whether a container's access to devices can be limited
// by a cgroup. Only the machine's root needs it: in any other user namespace
// the kernel opens no device through a node made or unpacked there.
func deviceCgroup() bool {
	dir := "/sys/fs/cgroup/devices"
	if cgroups.IsCgroup2UnifiedMode() {
		dir = "/sys/fs/cgroup"
	}
	return unix.Access(dir, unix.W_OK) == nil
}

// withoutDevices mounts rootfs once more, at dir, such that no device node in
// it opens anything: the substitute for a device cgroup, at the price that
// mknod is refused. Needs mount_setattr(2), Linux 5.12.
func withoutDevices(rootfs, dir string) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, rootfs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, fmt.Errorf("clone mount %s: %w", rootfs, err)
	}
	defer unix.Close(fd) //nolint:errcheck // the tree is attached or given up
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
		return nil, fmt.Errorf("forbid devices in %s: %w", rootfs, err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("mount %s without devices: %w", rootfs, err)
	}
	return func() error {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return os.Remove(dir)
	}, nil
}
