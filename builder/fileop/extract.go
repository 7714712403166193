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

// maxEntry limits the size of one file of an archive. A sparse entry can claim any size
// without data in the archive, and writing it would take very long.
const maxEntry = 1 << 40

// ErrBadArchive is returned if an archive contains an entry that is not valid.
var ErrBadArchive = errors.New("bad archive")

// extractor unpacks one archive. All names and links are resolved inside the destination
// directory, also the links that the archive creates. So "..", absolute names, symbolic
// links and hard links cannot lead out of it.
type extractor struct {
	at     *root
	owner  *ids
	logger *slog.Logger
	dirs   []dirTime
}

// dirTime is the modification time of a directory. It is set after all entries are
// unpacked.
type dirTime struct {
	rel   string
	mtime time.Time
}

// xattrPrefix is the prefix of extended attributes in PAX records.
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
		// The destination directory keeps its own metadata.
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

// place resolves the directory of name and creates its missing components.
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

// makeWay removes the existing file at rel. A directory is kept if the new entry is also
// a directory.
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

// make creates the entry. It returns false if the entry is skipped.
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

// device creates a device. This is not allowed in a user namespace. In that case the
// device is skipped with a warning, because an archive of a root file system is useful
// without /dev.
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

// file writes a regular file. Blocks of zeros become holes.
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

// hole is the size of a block that becomes a hole if it contains only zeros.
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

// fillBuffer reads until buf is full. Unlike io.ReadFull, it returns the reader's own
// error, so that a truncated archive is not mistaken for a complete one.
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

// link creates a hard link to an earlier entry or to an existing file. If the target
// itself is a symbolic link, it is not followed.
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

// attrs returns the owner, mode and time of an entry. Times before 1970 become
// 1970-01-01.
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

// finish sets the metadata of a new entry. The xattrs are set after the owner, because
// chown(2) removes file capabilities. The time is set last.
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

// xattrs sets the extended attributes of an entry that local.CopiesXattr accepts. It
// ignores all others.
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

// setDirTimes sets the times of the directories that still exist.
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

// gone reports whether err means that a later entry of the archive replaced a directory
// in the path.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ELOOP) || errors.Is(err, beneath.ErrNotRegular)
}
