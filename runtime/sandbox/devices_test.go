package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways to disable device nodes in a root file system must keep the other options of
// its mount.
func TestWithoutDevices(t *testing.T) {
	for name, mount := range map[string]func(rootfs, dir string) error{
		"mount_setattr": cloneWithoutDevices, "remount": bindWithoutDevices,
	} {
		t.Run(name, func(t *testing.T) {
			rootfs, dir := t.TempDir(), t.TempDir()
			if err := unix.Mount("tmpfs", rootfs, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Unmount(rootfs, unix.MNT_DETACH) }()
			if err := os.WriteFile(filepath.Join(rootfs, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := mount(rootfs, dir); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				t.Fatal(err)
			}
			const want = unix.ST_NODEV | unix.ST_NOSUID | unix.ST_NOEXEC
			if st.Flags&want != want {
				t.Errorf("flags of the mount are %#x, want %#x among them", st.Flags, want)
			}
			if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
				t.Error(err)
			}
			// Only the machine's root can create a device node.
			node := filepath.Join(rootfs, "null")
			if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); errors.Is(err, unix.EPERM) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			if f, err := os.Open(filepath.Join(dir, "null")); !errors.Is(err, unix.EACCES) {
				_ = f.Close()
				t.Errorf("open a device: %v, want %v", err, unix.EACCES)
			}
		})
	}
}
