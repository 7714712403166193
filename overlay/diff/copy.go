package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Copy copies the directory src to dst, which must be an empty directory. It keeps the
// same data as Clone but never uses hard links to src, so both trees may be written to
// afterwards. Files share blocks if the file system supports this. If ctx ends, Copy
// returns its cause. After an error the caller must remove the contents of dst.
func Copy(ctx context.Context, src, dst string) error {
	if err := clone(ctx, src, dst, nil); err != nil {
		return fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	return nil
}

// CopyFile copies the non-directory name in the open directory from to newName in the
// open directory to. It keeps owner, mode, times and extended attributes. If newName
// exists, CopyFile returns an error that wraps EEXIST.
func CopyFile(from int, name string, to int, newName string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	if err := copyFile(func() error { return nil }, from, to, name, newName, &st); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}

// CopyMetadata copies owner, mode, times and extended attributes of the open directory
// from to the open directory to. It does not copy the marks of overlayfs. It removes
// attributes that from does not have.
func CopyMetadata(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := dropXattrs(from, to); err != nil {
		return err
	}
	if err := copyXattrs(from, to, unmarked); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func unmarked(name string) bool {
	return clonedXattr(name) && !strings.HasPrefix(name, "user.overlay.") && !strings.HasPrefix(name, "trusted.")
}

// dropXattrs removes the attributes of to that from does not have.
func dropXattrs(from, to int) error {
	have, err := listXattrs(to)
	if err != nil || len(have) == 0 {
		return err
	}
	want, err := listXattrs(from)
	if err != nil {
		return err
	}
	for raw := range bytes.SplitSeq(have, []byte{0}) {
		name := string(raw)
		if !unmarked(name) || bytes.Contains(append([]byte{0}, want...), []byte("\x00"+name+"\x00")) {
			continue
		}
		if err := unix.Fremovexattr(to, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove xattr %s: %w", name, err)
		}
	}
	return nil
}

// SameContent reports whether two regular files, or two directories, are the same in
// their contents and in the extended attributes that a layer keeps. For directories it
// compares only the attributes. For files, size is the size of both. It returns an error
// that wraps ErrChanged if a file is shorter. Package overlay/plain uses it to find out
// whether a touched file still equals the one in its layer.
func SameContent(dirA int, nameA string, dirB int, nameB string, size int64, isDir bool) (bool, error) {
	scope, flags := fileXattrs, 0
	if isDir {
		scope, flags = dirXattrs, unix.O_DIRECTORY
	}
	var fds [2]int
	var attrs [2]xattrs
	for i, at := range []struct {
		dir  int
		name string
	}{{dirA, nameA}, {dirB, nameB}} {
		fd, err := openAt(at.dir, at.name, flags)
		if err != nil {
			return false, fmt.Errorf("open %s: %w", at.name, err)
		}
		defer unix.Close(fd) //nolint:errcheck // read only
		fds[i] = fd
		if attrs[i], err = readXattrs(fd, "user.overlay.", scope); err != nil {
			return false, err
		}
	}
	if !sameRecords(attrs[0].records, attrs[1].records) {
		return false, nil
	}
	if isDir {
		return true, nil
	}
	one, two := make([]byte, min(size, slabSize)), make([]byte, min(size, slabSize))
	for size > 0 {
		n := min(size, slabSize)
		if err := errors.Join(readFull(fds[0], one[:n]), readFull(fds[1], two[:n])); err != nil {
			return false, err
		}
		if !bytes.Equal(one[:n], two[:n]) {
			return false, nil
		}
		size -= n
	}
	return true, nil
}
