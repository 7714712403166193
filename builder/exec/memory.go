package exec

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/inplace"
)

// memory returns a directory of the step whose files exist only in memory. The directory
// is removed when the step ends, or when this process ends. It is on a ramfs, because the
// kernel may write a tmpfs to swap. An unprivileged process cannot forbid that (tmpfs(5),
// noswap).
func (s *mountSet) memory() (string, error) {
	if s.memoryDir != "" {
		return s.memoryDir, nil
	}
	if s.exec.Mounts.InPlace() {
		return s.memoryInPlace()
	}
	dir := filepath.Join(s.dir, "memory")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory in memory: %w", err)
	}
	if err := unix.Mount("ramfs", dir, "ramfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		return "", fmt.Errorf("mount a file system in memory: %w", err)
	}
	s.undo = append(s.undo, func() error { return overlay.Unmount(dir) })
	s.memoryDir = dir
	return dir, nil
}

// memoryInPlace creates the directory on a memory file system of the container. All users
// may search the directory, because the files in it have their own owners.
func (s *mountSet) memoryInPlace() (string, error) {
	parent, err := inplace.Memory()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, ".shale-")
	if err == nil {
		err = os.Chmod(dir, 0o711) //nolint:gosec // as it says
	}
	if err != nil {
		return "", fmt.Errorf("make a directory in memory: %w", err)
	}
	s.undo = append(s.undo, func() error { return os.RemoveAll(dir) })
	s.memoryDir = dir
	return dir, nil
}

// own sets the owner of path to the owner that a mount requests.
func (e *Executor) own(path string, uid, gid uint32) error {
	if owners := e.Mounts.Owners(); owners != nil {
		if err := owners.Chown(unix.AT_FDCWD, path, uid, gid); err != nil {
			return fmt.Errorf("record the owner %d:%d: %w", uid, gid, err)
		}
		return nil
	}
	if err := os.Lchown(path, int(uid), int(gid)); err != nil {
		return fmt.Errorf("give it the owner %d:%d: %w", uid, gid, err)
	}
	return nil
}
