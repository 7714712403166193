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

// whiteoutPrefix begins the names by which an archive, and a store that no
// kernel mounts, marks deleted ones; opaqueName is what makes a directory hide
// all that is below it.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// Node is one file of a listing.
type Node struct {
	meta

	// layer is the directory of the layer that the file is in; its path there
	// is that in the listing.
	layer string
	// children are a directory's, by name.
	children map[string]*Node
}

// meta is what tells whether a file is the same as before.
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

// inode identifies a file whatever its names.
type inode struct{ dev, ino uint64 }

func (m *meta) inode() inode { return inode{m.dev, m.ino} }

// Listing is what a stack of layers shows. It is not changed once it is made,
// and shares its nodes with those it was made from.
type Listing struct {
	root *Node
	// owners is nil where each file has its owner.
	owners Owners
}

// Empty shows nothing.
func Empty() *Listing {
	return &Listing{root: &Node{meta: meta{mode: unix.S_IFDIR | 0o755}}}
}

// Over returns what shows when the layer directory dir lies over l. Deleted
// names may be marked in any of the ways that there are: character devices 0:0,
// empty files with an attribute, or files called .wh.NAME.
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

// Stack lists the layer directories, topmost first as overlays want them.
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

// at returns the node of a clean path without leading slash, nil if there is
// none. Links are not followed.
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

// Has tells whether there is anything at a clean path without leading slash,
// on the way to which no link is followed.
func (l *Listing) Has(path string) bool { return l.at(path) != nil }

// Fills tells whether there is a file, or a directory with something in it.
func (l *Listing) Fills(path string) bool {
	n := l.at(path)
	return n != nil && (!n.isDir() || len(n.children) > 0)
}

// reader lists one layer.
type reader struct{ layer string }

// dir returns what shows of the open directory over below, which may be nil.
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

// prefixes are where overlays keep their marks.
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

// isMarked tells whether an empty file stands for a deleted one.
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

// list returns the names in a directory, sorted. fd may have been read before.
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
