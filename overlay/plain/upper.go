package plain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay/diff"
)

// Into writes the changes to the empty directory upper, as an overlay over the former
// contents of the tree would have done. There are no opaque directories; each deleted
// name is marked. If the file system does not allow devices, the whiteout of NAME is an
// empty file .wh.NAME, see diff.Options. Into returns an error that wraps
// diff.ErrReservedName if a step created such a name.
func (c *Changes) Into(ctx context.Context, upper string) error {
	return c.into(ctx, upper, &writer{})
}

// MoveInto is like Into but moves files and whole new directories out of the tree. The
// tree must be on the file system of upper and must not be used afterwards.
func (c *Changes) MoveInto(ctx context.Context, upper string) error {
	return c.into(ctx, upper, &writer{move: true})
}

func (c *Changes) into(ctx context.Context, upper string, w *writer) error {
	fd, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: upper, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	w.ctx, w.from, w.to, w.copies, w.made = ctx, c.tree.fd, fd, newCopies(fd, c.tree.now.owners), map[string]bool{"": true, ".": true}
	moved := map[string]bool{}
	for _, rel := range c.put {
		if strings.HasPrefix(path.Base(rel), whiteoutPrefix) {
			return fmt.Errorf("pack the layer: /%s: %w", rel, diff.ErrReservedName) // the same error as in diff.Pack
		}
		if w.move && within(moved, rel) {
			continue
		}
		if w.move && c.whole[rel] {
			moved[rel] = true
			if err := w.rename(rel); err != nil {
				return fmt.Errorf("take /%s into the layer: %w", rel, err)
			}
			continue
		}
		if err := w.put(rel); err != nil {
			return fmt.Errorf("take /%s into the layer: %w", rel, err)
		}
	}
	for _, rel := range c.gone {
		if err := w.mark(rel); err != nil {
			return fmt.Errorf("mark /%s as deleted: %w", rel, err)
		}
	}
	return w.finish()
}

// within reports whether rel is in one of the directories.
func within(dirs map[string]bool, rel string) bool {
	for up := parent(rel); len(dirs) > 0 && up != ""; up = parent(up) {
		if dirs[up] {
			return true
		}
	}
	return false
}

// writer fills an upper directory.
type writer struct {
	ctx      context.Context //nolint:containedctx // lives as long as one Into
	from, to int
	copies   copies
	made     map[string]bool // the directories that exist
	move     bool
	order    []madeDir
	// noDevices is set if whiteouts are empty files with reserved names.
	noDevices bool
}

// madeDir is a directory of the upper directory, with its times in the tree.
type madeDir struct {
	path  string
	times []unix.Timespec
}

// parents creates dir and its missing parents, without their metadata.
func (w *writer) parents(dir string) error {
	if w.made[dir] {
		return nil
	}
	if err := w.parents(path.Dir(dir)); err != nil {
		return err
	}
	at, err := openBeneath(w.to, parent(dir))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(at) }()
	if err := unix.Mkdirat(at, path.Base(dir), 0o700); err != nil {
		return err
	}
	w.made[dir] = true
	// Read the times now, because moving files out of the directory changes them.
	var st unix.Stat_t
	from, err := openBeneath(w.from, dir)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }()
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	w.order = append(w.order, madeDir{dir, []unix.Timespec{st.Atim, st.Mtim}})
	return nil
}

func parent(rel string) string {
	if d := path.Dir(rel); d != "." {
		return d
	}
	return ""
}

func (w *writer) put(rel string) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	from, err := openBeneath(w.from, parent(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }()
	var st unix.Stat_t
	if err := unix.Fstatat(from, path.Base(rel), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return w.parents(rel)
	}
	if w.move {
		return w.rename(rel)
	}
	if err := w.parents(parent(rel)); err != nil {
		return err
	}
	to, err := openBeneath(w.to, parent(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }()
	n := &Node{meta: metaOf(&st)}
	_, err = w.copies.add(from, to, n, path.Base(rel), rel)
	return err
}

// rename moves a file or directory.
func (w *writer) rename(rel string) error {
	if err := w.parents(parent(rel)); err != nil {
		return err
	}
	from, err := openBeneath(w.from, parent(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }()
	to, err := openBeneath(w.to, parent(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }()
	return unix.Renameat(from, path.Base(rel), to, path.Base(rel))
}

// mark creates a whiteout.
func (w *writer) mark(rel string) error {
	if err := w.parents(parent(rel)); err != nil {
		return err
	}
	to, err := openBeneath(w.to, parent(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }()
	name := path.Base(rel)
	if !w.noDevices {
		err := unix.Mknodat(to, name, unix.S_IFCHR, 0)
		if !refusesDevices(err) {
			return err
		}
		w.noDevices = true
	}
	fd, err := unix.Openat(to, whiteoutPrefix+name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// refusesDevices reports whether err means that the file system does not allow a device.
// Overlayfs reserves device 0/0 for itself, if the store is on an overlay. A file server
// may not allow any devices.
func refusesDevices(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// finish copies the metadata of the directories from the tree, innermost first.
func (w *writer) finish() error {
	for _, dir := range slices.Backward(w.order) {
		from, err := openBeneath(w.from, dir.path)
		if err != nil {
			return err
		}
		to, err := openBeneath(w.to, dir.path)
		if err == nil {
			err = copied(w.copies.owners, from, ".", to, ".", diff.CopyMetadata(from, to))
			if err == nil {
				err = unix.UtimesNanoAt(to, "", dir.times, unix.AT_EMPTY_PATH)
			}
			_ = unix.Close(to)
		}
		_ = unix.Close(from)
		if err != nil {
			return fmt.Errorf("/%s: %w", dir.path, err)
		}
	}
	return nil
}

// Copy copies the file or directory src with all metadata to dst, which must not exist or
// be an empty directory. It never uses hard links to src.
func Copy(ctx context.Context, src, dst string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if err := os.Mkdir(dst, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return diff.Copy(ctx, src, dst)
	}
	from, err := unix.Open(path.Dir(src), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path.Dir(src), Err: err}
	}
	defer func() { _ = unix.Close(from) }()
	to, err := unix.Open(path.Dir(dst), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path.Dir(dst), Err: err}
	}
	defer func() { _ = unix.Close(to) }()
	return diff.CopyFile(from, path.Base(src), to, path.Base(dst))
}
