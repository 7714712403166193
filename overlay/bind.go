package overlay

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// BindOptions restrict a bind mount. They can add restrictions to those of the source,
// but never remove one.
type BindOptions struct {
	// ReadOnly, NoSuid, NoDev and NoExec restrict the new mount. With Recursive they also
	// restrict every mount below it.
	ReadOnly, NoSuid, NoDev, NoExec bool
	// Recursive includes the mounts below the source. In a user namespace, a source with
	// mounts from outside the namespace below it can only be bound recursively.
	Recursive bool
}

// Bind mounts the open file or directory source at target, which must exist and be of the
// same kind. source may be opened with O_PATH. Another process cannot replace the source
// meanwhile, because no path is used. On Linux 5.12, with open_tree(2) and
// mount_setattr(2), the restrictions apply before the mount is visible. On older kernels,
// or if a filter refuses these calls, Bind uses mount(2) and remounts.
func Bind(source *os.File, target string, o BindOptions) error {
	if err := bind(source, place{path: target}, o, cloneTree, remountBind); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source.Name(), target, err)
	}
	return nil
}

// BindOnto is like Bind, but the target is an open file descriptor too, which may be
// opened with O_PATH. It is for targets in a root file system whose paths are not
// trusted.
func BindOnto(source, target *os.File, o BindOptions) error {
	if err := bind(source, place{file: target}, o, cloneTree, remountBind); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source.Name(), target.Name(), err)
	}
	return nil
}

// place is the target of a mount: a path or an open file.
type place struct {
	path string
	file *os.File
}

// binder is one way to make a bind mount.
type binder func(source *os.File, target place, o BindOptions) error

// bind tries the ways in order until one is not refused. If the refusal is deliberate,
// the last way returns it again.
func bind(source *os.File, target place, o BindOptions, ways ...binder) error {
	var err error
	for _, way := range ways {
		err = way(source, target, o)
		if !refused(err) {
			return err
		}
	}
	return err
}

// cloneTree clones the mount detached, restricts it, and then attaches it.
func cloneTree(source *os.File, target place, o BindOptions) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	var recursive uint
	if o.Recursive {
		recursive = unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(int(source.Fd()), "", flags|recursive)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree) //nolint:errcheck // the tree is attached or given up
	if attr := o.attributes(); attr != 0 {
		err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|recursive, &unix.MountAttr{Attr_set: attr})
		if err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
	}
	if target.file != nil {
		err = unix.MoveMount(tree, "", int(target.file.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	} else {
		err = unix.MoveMount(tree, "", unix.AT_FDCWD, target.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

func (o BindOptions) attributes() uint64 {
	var attr uint64
	for _, f := range []struct {
		on   bool
		attr uint64
	}{
		{o.ReadOnly, unix.MOUNT_ATTR_RDONLY},
		{o.NoSuid, unix.MOUNT_ATTR_NOSUID},
		{o.NoDev, unix.MOUNT_ATTR_NODEV},
		{o.NoExec, unix.MOUNT_ATTR_NOEXEC},
	} {
		if f.on {
			attr |= f.attr
		}
	}
	return attr
}

// fdPath returns a path of an open file, for system calls that accept only paths.
func fdPath(f *os.File) string {
	return procFD + "/" + strconv.FormatUint(uint64(f.Fd()), 10)
}
