package fileop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
)

// treeCopy copies one pick and everything below it. One goroutine walks the tree and
// creates directories, links and special files. Other goroutines copy the regular files.
type treeCopy struct {
	*copying
	files *errgroup.Group
	// links maps each file with several names to its first copy. It is valid for one pick
	// only, because another pick may replace the copy.
	links map[inode]string
	// noRange is set if copy_file_range(2) fails between the two file systems.
	noRange atomic.Bool
}

// inode identifies a file with several names.
type inode struct{ dev, ino uint64 }

// openDir is a directory that is being filled. When all its entries are complete, it gets
// its metadata and is closed.
type openDir struct {
	fd     int
	rel    string
	fresh  bool // created by this copy, so it has no other entries
	up     *openDir
	left   atomic.Int64
	finish func() error
}

// enter adds one pending entry to d.
func (d *openDir) enter() { d.left.Add(1) }

// leave removes one pending entry. It must be called once for every enter.
func (d *openDir) leave(ok bool) error {
	if d.left.Add(-1) > 0 {
		return nil
	}
	var err error
	if ok && d.finish != nil {
		err = d.finish()
	}
	_ = unix.Close(d.fd)
	if d.up == nil {
		return err
	}
	return errors.Join(err, d.up.leave(ok && err == nil))
}

// tree copies p to target.
func (c *copying) tree(ctx context.Context, p *local.Pick, target string) error {
	fd, err := c.dst.openDir(path.Dir(target))
	if err != nil {
		return err
	}
	base := &openDir{fd: fd, rel: path.Dir(target)}
	base.enter()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, min(runtime.GOMAXPROCS(0), 8)))
	t := &treeCopy{copying: c, files: g, links: map[inode]string{}}
	walkErr := t.entry(ctx, p, base, path.Base(target), true)
	fileErr := g.Wait()
	leaveErr := base.leave(walkErr == nil && fileErr == nil)
	if fileErr != nil {
		return fileErr // the walk then returned only the cancellation
	}
	return errors.Join(walkErr, leaveErr)
}

// entry copies p to name in the directory at.
func (t *treeCopy) entry(ctx context.Context, p *local.Pick, at *openDir, name string, top bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.replace(p, at, name); err != nil {
		return err
	}
	st := p.Stat()
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return t.dir(ctx, p, at, name, top)
	}
	if kind == unix.S_IFREG && st.Nlink == 1 {
		at.enter()
		t.files.Go(func() error {
			err := ctx.Err()
			if err == nil {
				err = t.file(p, at, name)
			}
			return errors.Join(err, at.leave(err == nil))
		})
		return nil
	}
	if kind == unix.S_IFREG {
		return t.linked(p, at, name)
	}
	if !at.fresh {
		if err := makeWay(at.fd, name, path.Join(at.rel, name)); err != nil {
			return err
		}
	}
	if kind == unix.S_IFLNK {
		return t.symlink(p, at, name)
	}
	return t.special(p, at, name)
}

// replace removes the existing file at name if the action requires that. Existing
// directories are merged with new directories.
func (t *treeCopy) replace(p *local.Pick, at *openDir, name string) error {
	if !t.a.GetAlwaysReplaceExistingDestPaths() || !p.Direct || at.fresh {
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(at.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || (err == nil && p.IsDir() && st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: "/" + path.Join(at.rel, name), Err: err}
	}
	return t.dst.remove(path.Join(at.rel, name))
}

// dir creates or merges a directory and copies the entries below it.
func (t *treeCopy) dir(ctx context.Context, p *local.Pick, at *openDir, name string, top bool) error {
	rel := path.Join(at.rel, name)
	made, err := makeDir(at, name, rel)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	d := &openDir{fd: fd, rel: rel, fresh: made, up: at}
	d.finish = func() error { return t.finishDir(p, d, name, top) }
	at.enter()
	d.enter()
	err = t.below(ctx, p, d)
	return errors.Join(err, d.leave(err == nil))
}

func (t *treeCopy) below(ctx context.Context, p *local.Pick, d *openDir) error {
	below, err := p.Below()
	if err != nil {
		return err
	}
	for _, c := range below {
		if err := t.entry(ctx, c, d, c.Source, false); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(at *openDir, name, rel string) (made bool, err error) {
	err = unix.Mkdirat(at.fd, name, 0o700)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return false, &os.PathError{Op: "mkdir", Path: "/" + rel, Err: err}
	}
	if !isDirAt(at.fd, name) {
		return false, fmt.Errorf("cannot copy to non-directory: /%s", rel)
	}
	return false, nil
}

// finishDir sets the metadata of a directory. If the top directory of a copy existed
// before, only its time is set. If a directory is copied only because of an entry below
// it, and it existed before, only its mode is set.
func (t *treeCopy) finishDir(p *local.Pick, d *openDir, name string, top bool) error {
	mtime := t.mtime(p)
	switch {
	case d.fresh || (!top && p.Direct):
		a := t.attrs(p)
		a.mtime = nil
		if err := t.dst.apply(d.up.fd, name, d.rel, a); err != nil {
			return err
		}
		xattrs, err := p.DirXattrs()
		if err != nil {
			return err
		}
		t.setXattrs(d.fd, d.rel, xattrs)
	case !top:
		st := p.Stat()
		mode := st.Mode & 0o7777
		return t.dst.apply(d.up.fd, name, d.rel, attrs{mode: &mode})
	}
	return setTimes(d.up.fd, name, d.rel, mtime, mtime)
}

// linked copies a file with several names. The first name is copied, and the others
// become hard links.
func (t *treeCopy) linked(p *local.Pick, at *openDir, name string) error {
	st := p.Stat()
	id := inode{st.Dev, st.Ino}
	rel := path.Join(at.rel, name)
	first, ok := t.links[id]
	if !ok {
		if err := t.file(p, at, name); err != nil {
			return err
		}
		t.links[id] = rel
		return t.dst.note(rel)
	}
	if !at.fresh {
		if err := makeWay(at.fd, name, rel); err != nil {
			return err
		}
	}
	err := t.dst.in(first, func(dir int, old string) error { return unix.Linkat(dir, old, at.fd, name, 0) })
	if errors.Is(err, unix.EMLINK) {
		delete(t.links, id)
		return t.linked(p, at, name)
	}
	if err != nil {
		return fmt.Errorf("link /%s to /%s: %w", rel, first, err)
	}
	return nil
}

func (t *treeCopy) symlink(p *local.Pick, at *openDir, name string) error {
	rel := path.Join(at.rel, name)
	if err := unix.Symlinkat(p.Link(), at.fd, name); err != nil {
		return &os.PathError{Op: "symlink", Path: "/" + rel, Err: err}
	}
	a := t.attrs(p)
	a.mode = nil
	return t.dst.apply(at.fd, name, rel, a)
}

// special copies devices and FIFOs. A socket becomes an empty file, because no process
// listens on the copy.
func (t *treeCopy) special(p *local.Pick, at *openDir, name string) error {
	rel := path.Join(at.rel, name)
	st := p.Stat()
	kind, dev := st.Mode&unix.S_IFMT, st.Rdev
	switch {
	case kind == unix.S_IFSOCK:
		kind, dev = unix.S_IFREG, 0
	case kind == unix.S_IFIFO:
		dev = 0
	case kind == unix.S_IFCHR && dev == 0:
		return fmt.Errorf("copy /%s: a character device 0:0 would hide files of the image", rel)
	}
	if err := t.dst.makeNode(at.fd, name, kind|0o600, dev); err != nil {
		return &os.PathError{Op: "mknod", Path: "/" + rel, Err: err}
	}
	return t.dst.apply(at.fd, name, rel, t.attrs(p))
}

// file copies a regular file.
func (t *treeCopy) file(p *local.Pick, at *openDir, name string) error {
	rel := path.Join(at.rel, name)
	// The source must be opened first: it may be the file that makeWay removes.
	src, err := p.OpenFD()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(src) }()
	if !at.fresh {
		if err := makeWay(at.fd, name, rel); err != nil {
			return err
		}
	}
	a := t.attrs(p)
	dst, err := unix.Openat(at.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, *a.mode&0o777)
	if err != nil {
		return &os.PathError{Op: "create", Path: "/" + rel, Err: err}
	}
	if err := t.fill(dst, src, p, a, at.fd, name, rel); err != nil {
		_ = unix.Close(dst)
		return err
	}
	if err := unix.Close(dst); err != nil {
		return &os.PathError{Op: "close", Path: "/" + rel, Err: err}
	}
	return nil
}

// fill copies content and metadata. The xattrs are set after the owner, because chown(2)
// removes file capabilities. The time is set last.
func (t *treeCopy) fill(dst, src int, p *local.Pick, a attrs, dir int, name, rel string) error {
	if err := t.content(dst, src, p.Stat()); err != nil {
		return fmt.Errorf("copy %s to /%s: %w", p.Path(), rel, err)
	}
	if err := p.Recheck(src); err != nil {
		return err
	}
	mtime := a.mtime
	a.mtime = nil
	if err := t.dst.apply(dir, name, rel, t.dst.missing(dst, a)); err != nil {
		return err
	}
	xattrs, err := p.Xattrs(src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", p.Path(), err)
	}
	t.setXattrs(dst, rel, xattrs)
	return setTimes(dir, name, rel, *mtime, *mtime)
}

// attrs returns the attributes of a copy of p.
func (c *copying) attrs(p *local.Pick) attrs {
	st := p.Stat()
	owner := ids{st.Uid, st.Gid}
	if c.owner != nil {
		owner = *c.owner
	}
	mode := st.Mode & 0o7777
	switch {
	case c.change != nil:
		mode = permissions(c.change.Apply(p.Mode()))
	case c.mode != nil:
		mode = *c.mode
	}
	mtime := c.mtime(p)
	return attrs{owner: &owner, mode: &mode, mtime: &mtime}
}

func (c *copying) mtime(p *local.Pick) time.Time {
	if t := stamp(c.a.GetTimestamp()); t != nil {
		return *t
	}
	return p.ModTime()
}

// permissions converts the permission bits of a mode to st_mode.
func permissions(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, kernel := range map[os.FileMode]uint32{
		os.ModeSetuid: unix.S_ISUID, os.ModeSetgid: unix.S_ISGID, os.ModeSticky: unix.S_ISVTX,
	} {
		if m&bit != 0 {
			mode |= kernel
		}
	}
	return mode
}

// setXattrs sets extended attributes. It logs and ignores errors, because the file system
// may not support them.
func (c *copying) setXattrs(fd int, rel string, xattrs []local.Xattr) {
	for _, x := range xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			c.logger.Debug("extended attribute not kept", "path", "/"+rel, "name", x.Name, "error", err)
		}
	}
}
