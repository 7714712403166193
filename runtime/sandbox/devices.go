package sandbox

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/cgroups"
	// Device rules: without them libcontainer refuses root's containers.
	_ "github.com/opencontainers/cgroups/devices"
	"golang.org/x/sys/unix"
)

// deviceCgroup reports whether a cgroup can limit a container's access to devices. Only
// the machine's root needs that. In any other user namespace the kernel opens no device
// through a node that was created or unpacked there.
func deviceCgroup() bool {
	dir := "/sys/fs/cgroup/devices"
	if cgroups.IsCgroup2UnifiedMode() {
		dir = "/sys/fs/cgroup"
	}
	return unix.Access(dir, unix.W_OK) == nil
}

// withoutDevices mounts rootfs a second time, at dir, with the option nodev, so that no
// device node in it can be opened. It replaces a device cgroup. The disadvantage is that
// the container must also lose CAP_MKNOD. release unmounts and removes dir.
func withoutDevices(rootfs, dir string) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	err = cloneWithoutDevices(rootfs, dir)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		err = bindWithoutDevices(rootfs, dir)
	}
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return os.Remove(dir)
	}, nil
}

// cloneWithoutDevices sets nodev before the mount becomes visible. It needs
// mount_setattr(2), Linux 5.12.
func cloneWithoutDevices(rootfs, dir string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, rootfs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone mount %s: %w", rootfs, err)
	}
	defer unix.Close(fd) //nolint:errcheck // the tree is attached or given up
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
		return fmt.Errorf("forbid devices in %s: %w", rootfs, err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s without devices: %w", rootfs, err)
	}
	return nil
}

// bindWithoutDevices does the same as cloneWithoutDevices with mount(2). It does not
// handle mounts below rootfs; there must be none yet.
func bindWithoutDevices(rootfs, dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(rootfs, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", rootfs, err)
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NODEV)
	for has, add := range map[int64]uintptr{
		unix.ST_RDONLY: unix.MS_RDONLY, unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NOEXEC: unix.MS_NOEXEC,
		unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
	} {
		if st.Flags&has != 0 {
			flags |= add
		}
	}
	if err := unix.Mount(rootfs, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", rootfs, err)
	}
	for _, f := range []uintptr{unix.MS_PRIVATE, flags} {
		if err := unix.Mount("", dir, "", f, ""); err != nil {
			return errors.Join(fmt.Errorf("forbid devices in %s: %w", rootfs, err), unix.Unmount(dir, unix.MNT_DETACH))
		}
	}
	return nil
}
