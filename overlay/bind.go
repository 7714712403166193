package overlay

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// BindOptions say how a bind mount differs from what it shows. Restrictions
// can be added, never taken away.
type BindOptions struct {
	// ReadOnly, NoSuid, NoDev and NoExec restrict the new mount, and with
	// Recursive every mount below it.
	ReadOnly, NoSuid, NoDev, NoExec bool
	// Recursive takes the mounts below the source along. Inside a user
	// namespace a source that has mounts from outside below it can only be
	// bound recursively.
	Recursive bool
}

// Bind shows the file or directory that source is open on (O_PATH suffices)
// at target, which must exist and be of the same kind. No path leads to the
// source, so nobody can exchange it meanwhile. With open_tree(2) and
// mount_setattr(2), Linux 5.12, the restrictions hold before the mount can be
// seen; older kernels get mount(2) and a remount.
func Bind(source *os.File, target string, o BindOptions) error {
	if err := bind(source, place{path: target}, o, cloneTree, remountBind); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source.Name(), target, err)
	}
	return nil
}

// BindOnto is Bind with a target that is given by an open descriptor too
// (O_PATH suffices), as inside a root file system whose paths are not to be
// trusted.
func BindOnto(source, target *os.File, o BindOptions) error {
	if err := bind(source, place{file: target}, o, cloneTree, remountBind); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source.Name(), target.Name(), err)
	}
	return nil
}

// place is where a mount goes: a path or an open file.
type place struct {
	path string
	file *os.File
}

// binder is one way to have the kernel make a bind mount.
type binder func(source *os.File, target place, o BindOptions) error

// bind tries the ways in turn. If a refusal was meant, the last way says so again.
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

// cloneTree clones the mount detached, restricts it and only then attaches
// it.
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

// fdPath names an open file for calls that take paths only.
func fdPath(f *os.File) string {
	return procFD + "/" + strconv.FormatUint(uint64(f.Fd()), 10)
}
