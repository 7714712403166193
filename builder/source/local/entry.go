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

// Entry is a file of a Tree as its directory's listing showed it.
type Entry struct {
	tree   *Tree
	parent *Entry
	name   string
	st     unix.Stat_t
	link   string
	dir    *directory // of a directory
	// kept tells that the listing the entry is in stays in memory.
	kept bool

	sum atomic.Pointer[sums] // of a regular file, once hashed
}

// Name returns the last component of the entry's path, "." for the root.
func (e *Entry) Name() string { return e.name }

// Path returns the entry's absolute path inside the tree.
func (e *Entry) Path() string { return path.Join("/", e.rel()) }

// rel is the clean path below the root, "." for the root.
func (e *Entry) rel() string {
	if e.parent == nil || e.parent.parent == nil {
		return e.name
	}
	return e.parent.rel() + "/" + e.name
}

// IsDir reports whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.kind() == unix.S_IFDIR }

// Stat returns what the kernel told about the entry, owner and root mode
// replaced as the tree's options ask.
func (e *Entry) Stat() unix.Stat_t { return e.st }

// Link returns the target of a symbolic link.
func (e *Entry) Link() string { return e.link }

// Mode returns type and permissions the way package os has them.
func (e *Entry) Mode() fs.FileMode { return fileMode(e.st.Mode) }

// ModTime returns the time of the last change of content.
func (e *Entry) ModTime() time.Time { return time.Unix(e.st.Mtim.Unix()) }

func (e *Entry) kind() uint32 { return e.st.Mode & unix.S_IFMT }

// Open opens a regular file for reading. When it is no longer the file that
// the listing showed the tree is marked as changed.
func (e *Entry) Open() (*os.File, error) {
	fd, err := e.OpenFD()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), e.Path()), nil
}

// OpenFD is Open for callers that want the descriptor, which they close.
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

// Recheck marks the tree as changed when the file that Open or OpenFD opened as
// fd has changed since. Who copies a file asks after reading it.
func (e *Entry) Recheck(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: e.Path(), Err: err}
	}
	e.compare(&st)
	return nil
}

// compare marks the tree as changed when st is not what the listing showed.
func (e *Entry) compare(st *unix.Stat_t) {
	if !e.same(st) {
		e.tree.setChanged(e.Path())
	}
}

func (e *Entry) same(st *unix.Stat_t) bool {
	return st.Ino == e.st.Ino && st.Dev == e.st.Dev && st.Size == e.st.Size &&
		st.Mtim == e.st.Mtim && st.Ctim == e.st.Ctim
}

// Xattrs returns the attributes that copies of e, open as fd, keep. Files of
// somebody's machine have none: what a browser or a desktop noted about them
// belongs into no image.
func (e *Entry) Xattrs(fd int) ([]Xattr, error) {
	if !e.tree.opts.KeepOwners {
		return nil, nil
	}
	return readXattrs(fd)
}

// read fills in what the entry called name in the directory dir is.
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

// stat converts the entry for fsutil.
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
