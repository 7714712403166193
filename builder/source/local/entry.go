package local

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync/atomic"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local/beneath"
)

// Entry is a file of a Tree, with its metadata from the time when its directory was
// listed.
type Entry struct {
	tree   *Tree
	parent *Entry
	name   string
	st     unix.Stat_t
	link   string
	dir    *directory // for directories
	// kept reports whether the listing with this entry stays in memory.
	kept bool

	sum atomic.Pointer[sums] // for regular files, after they are hashed
}

// Name returns the last component of the entry's path. It is "." for the root.
func (e *Entry) Name() string { return e.name }

// Path returns the entry's absolute path inside the tree.
func (e *Entry) Path() string { return path.Join("/", e.rel()) }

// rel returns the clean path below the root. It is "." for the root.
func (e *Entry) rel() string {
	if e.parent == nil || e.parent.parent == nil {
		return e.name
	}
	return e.parent.rel() + "/" + e.name
}

// IsDir reports whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.kind() == unix.S_IFDIR }

// Stat returns the entry's metadata from the kernel. The options of the tree may replace
// the owner, and the mode of the root.
func (e *Entry) Stat() unix.Stat_t { return e.st }

// Link returns the target of a symbolic link.
func (e *Entry) Link() string { return e.link }

// Mode returns the type and the permissions in the format of package os.
func (e *Entry) Mode() fs.FileMode { return fileMode(e.st.Mode) }

// ModTime returns the modification time.
func (e *Entry) ModTime() time.Time { return time.Unix(e.st.Mtim.Unix()) }

func (e *Entry) kind() uint32 { return e.st.Mode & unix.S_IFMT }

// Open opens a regular file for reading. If the file differs from the listing, the tree
// is marked as changed. Open returns beneath.ErrNotRegular for other types of files.
func (e *Entry) Open() (*os.File, error) {
	fd, err := e.OpenFD()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), e.Path()), nil
}

// OpenFD is like Open but returns a file descriptor. The caller must close it.
func (e *Entry) OpenFD() (int, error) {
	if e.kind() != unix.S_IFREG {
		return -1, fmt.Errorf("open %s: %w", e.Path(), beneath.ErrNotRegular)
	}
	fd, err := beneath.Open(e.tree.fd(), e.rel(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, &os.PathError{Op: "stat", Path: e.Path(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("open %s: %w", e.Path(), beneath.ErrNotRegular)
	}
	e.compare(&st)
	return fd, nil
}

// Recheck marks the tree as changed if the open file fd of this entry has changed. It
// must be called after a copy of the file is complete.
func (e *Entry) Recheck(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: e.Path(), Err: err}
	}
	e.compare(&st)
	return nil
}

// compare marks the tree as changed if st differs from the listing.
func (e *Entry) compare(st *unix.Stat_t) {
	if !e.same(st) {
		e.tree.setChanged(e.Path())
	}
}

func (e *Entry) same(st *unix.Stat_t) bool {
	return st.Ino == e.st.Ino && st.Dev == e.st.Dev && st.Size == e.st.Size &&
		st.Mtim == e.st.Mtim && st.Ctim == e.st.Ctim
}

// Xattrs returns the xattrs of e that copies keep. fd must be the open file e. It returns
// nil if KeepOwners is not set: the files of a user may have xattrs of a browser or a
// desktop, which must not become part of an image.
func (e *Entry) Xattrs(fd int) ([]Xattr, error) {
	if !e.tree.opts.KeepOwners {
		return nil, nil
	}
	return readXattrs(fd)
}

// read reads the metadata of the entry name in the directory dir.
func (e *Entry) read(dir int, name string) error {
	if err := unix.Fstatat(dir, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: e.Path(), Err: err}
	}
	if e.IsDir() {
		e.dir = &directory{}
	}
	if e.kind() == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return &os.PathError{Op: "readlink", Path: e.Path(), Err: err}
		}
		e.link = string(buf[:n])
	}
	return e.setOwner(dir, name)
}

func (e *Entry) setOwner(dir int, name string) error {
	opts := &e.tree.opts
	if !opts.KeepOwners {
		e.st.Uid, e.st.Gid = 0, 0
		return nil
	}
	if opts.OwnerOf == nil {
		return nil
	}
	uid, gid, err := opts.OwnerOf(dir, name, &e.st)
	if err != nil {
		return fmt.Errorf("read owner of %s: %w", e.Path(), err)
	}
	e.st.Uid, e.st.Gid = uid, gid
	return nil
}

// stat converts the entry to the type of fsutil.
func (e *Entry) stat() *types.Stat {
	st := &types.Stat{
		Path: e.rel(), Mode: uint32(e.Mode() &^ fs.ModeSocket), Uid: e.st.Uid, Gid: e.st.Gid,
		ModTime: e.st.Mtim.Nano(), Linkname: e.link,
	}
	switch e.kind() {
	case unix.S_IFDIR:
	case unix.S_IFCHR, unix.S_IFBLK:
		st.Devmajor, st.Devminor = int64(unix.Major(e.st.Rdev)), int64(unix.Minor(e.st.Rdev))
	default:
		st.Size = e.st.Size
	}
	return st
}

// fileMode converts st_mode.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}
