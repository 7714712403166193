package plain

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// whiteoutPrefix begins the names of whiteouts in archives and in layer directories that
// are not mounted. opaqueName is the entry that makes a directory opaque.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// Node is one file of a listing.
type Node struct {
	meta

	// layer is the layer directory that contains the file. The path in it is the path in
	// the listing.
	layer string
	// children are the entries of a directory by name.
	children map[string]*Node
}

// meta is the metadata by which an unchanged file is recognized.
type meta struct {
	dev, ino   uint64
	mode       uint32
	uid, gid   uint32
	nlink      uint64
	rdev       uint64
	size       int64
	mtim, ctim unix.Timespec
}

func metaOf(st *unix.Stat_t) meta {
	return meta{
		dev: st.Dev, ino: st.Ino, mode: st.Mode, uid: st.Uid, gid: st.Gid, nlink: uint64(st.Nlink), //nolint:unconvert // 32 bits on arm64
		rdev: st.Rdev, size: st.Size, mtim: st.Mtim, ctim: st.Ctim,
	}
}

func (m *meta) kind() uint32 { return m.mode & unix.S_IFMT }

func (m *meta) isDir() bool { return m.kind() == unix.S_IFDIR }

// inode identifies a file independently of its names.
type inode struct{ dev, ino uint64 }

func (m *meta) inode() inode { return inode{m.dev, m.ino} }

// Listing describes the merged contents of a stack of layers. It does not change after it
// is created. It shares nodes with the listing that it was created from.
type Listing struct {
	root *Node
	// owners is nil if files really have their owners.
	owners Owners
}

// Empty returns a listing without files.
func Empty() *Listing {
	return &Listing{root: &Node{meta: meta{mode: unix.S_IFDIR | 0o755}}}
}

// Over returns the listing with the layer directory dir on top of l. It accepts three
// kinds of whiteouts: character devices 0:0, empty files with an extended attribute, and
// files named .wh.NAME.
func (l *Listing) Over(dir string) (*Listing, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	r := reader{layer: dir}
	root, err := r.dir(fd, "", l.root)
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", dir, err)
	}
	return &Listing{root: root, owners: l.owners}, nil
}

// Stack returns the listing of the layer directories dirs, topmost first as for overlays.
func Stack(dirs []string) (*Listing, error) {
	l := Empty()
	for _, dir := range slices.Backward(dirs) {
		var err error
		if l, err = l.Over(dir); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// at returns the node at path, nil if there is none. path must be clean and without
// leading slash. Symbolic links are not followed.
func (l *Listing) at(path string) *Node {
	n := l.root
	if path == "" || path == "." {
		return n
	}
	for name := range strings.SplitSeq(path, "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// Has reports whether a file exists at path, which must be clean and without leading
// slash. Symbolic links are not followed.
func (l *Listing) Has(path string) bool { return l.at(path) != nil }

// Fills reports whether path is a file, or a directory with entries. path must be clean
// and without leading slash.
func (l *Listing) Fills(path string) bool {
	n := l.at(path)
	return n != nil && (!n.isDir() || len(n.children) > 0)
}

// reader lists one layer.
type reader struct{ layer string }

// dir returns the node of the open directory on top of below, which may be nil.
func (r *reader) dir(fd int, path string, below *Node) (*Node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat /%s: %w", path, err)
	}
	n := &Node{meta: metaOf(&st), layer: r.layer, children: map[string]*Node{}}
	names, err := list(fd)
	if err != nil {
		return nil, fmt.Errorf("list /%s: %w", path, err)
	}
	opaque, err := isOpaque(fd)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", path, err)
	}
	if below != nil && !opaque && !slices.Contains(names, opaqueName) {
		maps.Copy(n.children, below.children)
	}
	for _, name := range names {
		if gone, ok := strings.CutPrefix(name, whiteoutPrefix); ok {
			if !slices.Contains(names, gone) {
				delete(n.children, gone)
			}
			continue
		}
		if err := r.child(fd, name, filepath.Join(path, name), n); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (r *reader) child(dir int, name, path string, into *Node) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat /%s: %w", path, err)
	}
	n := &Node{meta: metaOf(&st), layer: r.layer}
	switch {
	case n.isDir():
		fd, err := openDir(dir, name)
		if err != nil {
			return fmt.Errorf("open /%s: %w", path, err)
		}
		defer func() { _ = unix.Close(fd) }()
		below := into.children[name]
		if below != nil && !below.isDir() {
			below = nil
		}
		if n, err = r.dir(fd, path, below); err != nil {
			return err
		}
	case n.kind() == unix.S_IFCHR && st.Rdev == 0:
		delete(into.children, name)
		return nil
	case n.kind() == unix.S_IFREG && st.Size == 0:
		gone, err := isMarked(dir, name)
		if err != nil {
			return fmt.Errorf("/%s: %w", path, err)
		}
		if gone {
			delete(into.children, name)
			return nil
		}
	}
	into.children[name] = n
	return nil
}

// prefixes are the prefixes of the extended attributes of overlayfs.
var prefixes = []string{"user.overlay.", "trusted.overlay."}

func isOpaque(fd int) (bool, error) {
	for _, prefix := range prefixes {
		var buf [8]byte
		n, err := unix.Fgetxattr(fd, prefix+"opaque", buf[:])
		if err == nil {
			return string(buf[:n]) == "y", nil
		}
		if !noXattr(err) {
			return false, os.NewSyscallError("getxattr", err)
		}
	}
	return false, nil
}

// isMarked reports whether an empty file is a whiteout.
func isMarked(dir int, name string) (bool, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	for _, prefix := range prefixes {
		_, err := unix.Fgetxattr(fd, prefix+"whiteout", nil)
		if err == nil {
			return true, nil
		}
		if !noXattr(err) {
			return false, os.NewSyscallError("getxattr", err)
		}
	}
	return false, nil
}

func noXattr(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)
}

func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// list returns the sorted names in a directory. It seeks to the start first.
func list(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func readLink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(bytes.Clone(buf[:n])), nil
}
