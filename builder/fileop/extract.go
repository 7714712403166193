package fileop

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/builder/source/local/beneath"
)

// maxEntry bounds the size an archive may claim for one file. Sparse entries
// cost nothing in the archive and would be written for ever.
const maxEntry = 1 << 40

// ErrBadArchive tells that an archive holds something no honest one does.
var ErrBadArchive = errors.New("bad archive")

// extractor unpacks one archive. Names are resolved inside the directory, the
// archive's own links included, so that neither "..", absolute names, links nor
// hard links lead out of it.
type extractor struct {
	at     *root
	owner  *ids
	logger *slog.Logger
	dirs   []dirTime
}

// dirTime is the time of a directory, set when all is unpacked.
type dirTime struct {
	rel   string
	mtime time.Time
}

// xattrPrefix is how PAX records name extended attributes.
const xattrPrefix = "SCHILY.xattr."

func (x *extractor) all(ctx context.Context, tr *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x.setDirTimes()
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.entry(ctx, h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

// entry unpacks one entry.
func (x *extractor) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	a, err := x.attrs(h)
	if err != nil {
		return err
	}
	rel, err := x.place(h.Name)
	if err != nil {
		return err
	}
	if rel == "." {
		// The directory that is unpacked into keeps its own metadata.
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: replaces the destination", ErrBadArchive)
		}
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		return x.link(h, rel, a)
	}
	if err := x.makeWay(rel, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	return x.at.in(rel, func(dir int, name string) error {
		made, err := x.make(ctx, h, content, dir, name)
		if err != nil || !made {
			return err
		}
		return x.finish(h, dir, name, rel, a)
	})
}

// place resolves the directory of name and makes what is missing of it.
func (x *extractor) place(name string) (string, error) {
	name = path.Join("/", name)
	if name == "/" {
		return ".", nil
	}
	dir, err := x.at.resolve(path.Dir(name))
	if err != nil {
		return "", err
	}
	mode := uint32(0o755)
	if _, err := x.at.mkdirAll(dir, attrs{owner: &ids{}, mode: &mode}); err != nil {
		return "", err
	}
	return path.Join(dir, path.Base(name)), nil
}

// makeWay removes what is at rel, but a directory where a directory comes.
func (x *extractor) makeWay(rel string, dirComes bool) error {
	st, err := x.at.lstat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && dirComes {
		return nil
	}
	return x.at.remove(rel)
}

// make creates the entry; it reports false for what is left out.
func (x *extractor) make(ctx context.Context, h *tar.Header, content io.Reader, dir int, name string) (bool, error) {
	switch h.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(dir, name, 0o700)
		if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		return true, wrap("mkdir", h.Name, err)
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // old archives have it
		return true, x.file(ctx, h, content, dir, name)
	case tar.TypeSymlink:
		return true, wrap("symlink", h.Name, unix.Symlinkat(h.Linkname, dir, name))
	case tar.TypeFifo:
		return true, wrap("mknod", h.Name, unix.Mknodat(dir, name, unix.S_IFIFO|0o600, 0))
	case tar.TypeChar, tar.TypeBlock:
		return x.device(h, dir, name)
	}
	return false, fmt.Errorf("%w: unknown type %q", ErrBadArchive, h.Typeflag)
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// device makes a device where that is allowed. In a user namespace it is not,
// and an archive of a root file system is of use without its /dev.
func (x *extractor) device(h *tar.Header, dir int, name string) (bool, error) {
	kind := uint32(unix.S_IFBLK)
	if h.Typeflag == tar.TypeChar {
		kind = unix.S_IFCHR
	}
	if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
		return false, fmt.Errorf("%w: device number %d:%d", ErrBadArchive, h.Devmajor, h.Devminor)
	}
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if kind == unix.S_IFCHR && dev == 0 {
		x.logger.Warn("device 0:0 of an archive left out: it would hide files of the image", "name", h.Name)
		return false, nil
	}
	err := unix.Mknodat(dir, name, kind|0o600, int(dev))
	if errors.Is(err, unix.EPERM) {
		x.logger.Warn("device of an archive left out: not allowed in a user namespace", "name", h.Name)
		return false, nil
	}
	return true, wrap("mknod", h.Name, err)
}

// file writes a regular file, leaving holes where the content is zero.
func (x *extractor) file(ctx context.Context, h *tar.Header, content io.Reader, dir int, name string) error {
	if h.Size > maxEntry {
		return fmt.Errorf("%w: file of %d bytes", ErrBadArchive, h.Size)
	}
	f, err := createAt(dir, name, name)
	if err != nil {
		return err
	}
	err = writeHoles(ctx, f, content)
	return errors.Join(err, f.Close())
}

// hole is the size from which zeros are not written.
const hole = 64 << 10

func writeHoles(ctx context.Context, f *os.File, r io.Reader) error {
	buf := make([]byte, hole)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := fillBuffer(r, buf)
		if n == hole && allZero(buf) {
			size += hole
		} else if n > 0 {
			if _, err := f.WriteAt(buf[:n], size); err != nil {
				return err
			}
			size += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return f.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}

// fillBuffer reads until buf is full. Unlike io.ReadFull it keeps the reader's
// own error: an archive that is cut off must not look like one that ends.
func fillBuffer(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	return n, err
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// link makes a hard link to an earlier entry or to a file that is there. A
// link in its target's last component is not followed.
func (x *extractor) link(h *tar.Header, rel string, a attrs) error {
	target := path.Join("/", h.Linkname) //nolint:gosec // resolved inside the destination by the next line
	dir, err := x.at.resolve(path.Dir(target))
	if err != nil {
		return err
	}
	old := path.Join(dir, path.Base(target))
	if old == rel {
		return nil
	}
	st, err := x.at.lstat(old)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	if err := x.at.own(old, &st); err != nil {
		return err
	}
	if err := x.at.note(old); err != nil {
		return err
	}
	if err := x.makeWay(rel, false); err != nil {
		return err
	}
	err = x.at.in(rel, func(dir int, name string) error {
		return x.at.in(old, func(from int, oldName string) error {
			return wrap("link", h.Name, unix.Linkat(from, oldName, dir, name, 0))
		})
	})
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return err
	}
	return x.at.in(rel, func(dir int, name string) error { return x.at.apply(dir, name, rel, a) })
}

// attrs reads owner, mode and time of an entry.
func (x *extractor) attrs(h *tar.Header) (attrs, error) {
	owner := x.owner
	if owner == nil {
		if h.Uid < 0 || h.Uid >= math.MaxUint32 || h.Gid < 0 || h.Gid >= math.MaxUint32 {
			return attrs{}, fmt.Errorf("%w: owner %d:%d", ErrBadArchive, h.Uid, h.Gid)
		}
		owner = &ids{uint32(h.Uid), uint32(h.Gid)}
	}
	mode := uint32(h.Mode & 0o7777)
	mtime := h.ModTime
	if mtime.Before(time.Unix(0, 0)) {
		mtime = time.Unix(0, 0)
	}
	return attrs{owner: owner, mode: &mode, mtime: &mtime}, nil
}

// finish gives a new entry its metadata: attributes after the owner, whose
// change drops file capabilities, the time at last.
func (x *extractor) finish(h *tar.Header, dir int, name, rel string, a attrs) error {
	mtime := *a.mtime
	a.mtime = nil
	if h.Typeflag == tar.TypeSymlink {
		a.mode = nil
	}
	if err := x.at.apply(dir, name, rel, a); err != nil {
		return err
	}
	if err := x.xattrs(h, dir, name, rel); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		x.dirs = append(x.dirs, dirTime{rel, mtime})
		return nil
	}
	return setTimes(dir, name, rel, mtime, mtime)
}

// xattrs sets the attributes that copies keep; others are dropped, whatever
// the archive says.
func (x *extractor) xattrs(h *tar.Header, dir int, name, rel string) error {
	var keep []string
	for key := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, xattrPrefix); ok && local.CopiesXattr(attr) {
			keep = append(keep, attr)
		}
	}
	if len(keep) == 0 || (h.Typeflag != tar.TypeDir && !isRegular(h.Typeflag)) {
		return nil
	}
	slices.Sort(keep)
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", rel, err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, attr := range keep {
		if err := unix.Fsetxattr(fd, attr, []byte(h.PAXRecords[xattrPrefix+attr]), 0); err != nil {
			x.logger.Debug("extended attribute not kept", "path", "/"+rel, "name", attr, "error", err)
		}
	}
	return nil
}

func isRegular(flag byte) bool {
	switch flag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // old archives have it
		return true
	}
	return false
}

// setDirTimes sets the times of directories that are still there.
func (x *extractor) setDirTimes() error {
	for _, d := range slices.Backward(x.dirs) {
		err := x.at.in(d.rel, func(dir int, name string) error {
			if !isDirAt(dir, name) {
				return nil
			}
			return setTimes(dir, name, d.rel, d.mtime, d.mtime)
		})
		if err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// gone tells that a later entry of the archive replaced a directory on the way.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ELOOP) || errors.Is(err, beneath.ErrNotRegular)
}
