package plain

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
	"github.com/shale-build/shale/overlay/diff"
)

// Link fills the empty directory dst with the files of l, as hard links to those of the
// layers. The files may be removed or replaced, and new ones may be added, but they must
// not be written to. A file that cannot be linked is copied.
//
// If paths are given, Link creates only the files at these paths and below. It includes
// everything that a process with root directory dst needs to reach them, and follows
// symbolic links on the way.
func (l *Listing) Link(dst string, paths ...string) error {
	root := l.root
	if len(paths) > 0 {
		root = l.part(paths)
	}
	fd, err := unix.Open(dst, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dst, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	k := newLinker(fd, l.owners)
	defer k.close()
	if err := k.contents(fd, root, ""); err != nil {
		return fmt.Errorf("show layers in %s: %w", dst, err)
	}
	return k.dirMeta(fd, root, "")
}

// linker fills one directory.
type linker struct {
	copies copies

	mu      sync.Mutex
	sources map[string]*os.File
}

func newLinker(root int, owners Owners) linker {
	return linker{copies: newCopies(root, owners), sources: map[string]*os.File{}}
}

func (k *linker) close() {
	for _, f := range k.sources {
		_ = f.Close()
	}
}

// layer opens the directory of a layer.
func (k *linker) layer(dir string) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.sources[dir]
	if f == nil {
		var err error
		if f, err = os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
		k.sources[dir] = f
	}
	return f, nil
}

// source opens the directory dir in the layer of n.
func (k *linker) source(n *Node, dir string) (int, error) {
	f, err := k.layer(n.layer)
	if err != nil {
		return -1, err
	}
	return openBeneath(int(f.Fd()), dir)
}

// openBeneath opens the directory dir below root without following symbolic links.
func openBeneath(root int, dir string) (int, error) {
	if dir == "" {
		dir = "."
	}
	return confine.Open(root, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, confine.Beneath|confine.NoSymlinks)
}

// place is an open directory of a view or tree. It keeps the directories of the layers
// open that its files are linked to or copied from.
type place struct {
	*linker
	fd   int
	rel  string
	open map[string]int // by layer
}

func (at *place) close() {
	for _, fd := range at.open {
		_ = unix.Close(fd)
	}
}

// from returns the open directory with the same path in the layer of n.
func (at *place) from(n *Node) (int, error) {
	if fd, ok := at.open[n.layer]; ok {
		return fd, nil
	}
	fd, err := at.source(n, at.rel)
	if err != nil {
		return -1, fmt.Errorf("open /%s in its layer: %w", at.rel, err)
	}
	if at.open == nil {
		at.open = map[string]int{}
	}
	at.open[n.layer] = fd
	return fd, nil
}

// contents creates the children of n in the open directory. dir is its path.
func (k *linker) contents(fd int, n *Node, dir string) error {
	at := &place{linker: k, fd: fd, rel: dir}
	defer at.close()
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		c, rel := n.children[name], path.Join(dir, name)
		if c.isDir() {
			if err := k.directory(fd, c, name, rel); err != nil {
				return err
			}
			continue
		}
		from, err := at.from(c)
		if err != nil {
			return err
		}
		if err := k.file(from, fd, c, name, rel); err != nil {
			return fmt.Errorf("/%s: %w", rel, err)
		}
	}
	return nil
}

func (k *linker) directory(fd int, n *Node, name, rel string) error {
	if err := unix.Mkdirat(fd, name, 0o700); err != nil {
		return fmt.Errorf("make /%s: %w", rel, err)
	}
	sub, err := openDir(fd, name)
	if err != nil {
		return fmt.Errorf("open /%s: %w", rel, err)
	}
	defer func() { _ = unix.Close(sub) }()
	if err := k.contents(sub, n, rel); err != nil {
		return err
	}
	return k.dirMeta(sub, n, rel)
}

// dirMeta copies the metadata of a directory from its layer to the open directory.
func (k *linker) dirMeta(fd int, n *Node, rel string) error {
	if n.layer == "" {
		return nil // the root of an empty listing
	}
	from, err := k.source(n, rel)
	if err != nil {
		return fmt.Errorf("open /%s in its layer: %w", rel, err)
	}
	defer func() { _ = unix.Close(from) }()
	if err := copied(k.copies.owners, from, ".", fd, ".", diff.CopyMetadata(from, fd)); err != nil {
		return fmt.Errorf("/%s: %w", rel, err)
	}
	return nil
}

func (k *linker) file(from, to int, n *Node, name, rel string) error {
	err := unix.Linkat(from, name, to, name, 0)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EPERM):
		return err
	}
	_, err = k.copies.add(from, to, n, name, rel)
	return err
}

// copies creates copies of files below one directory. It copies a file with several names
// only once.
type copies struct {
	root   int
	owners Owners
	// mu is held while a file with several names is copied or linked.
	mu    sync.Mutex
	first map[inode]string
}

func newCopies(root int, owners Owners) copies {
	return copies{root: root, owners: owners, first: map[inode]string{}}
}

// add copies a file. If another name of the same file was copied before, add links to
// that copy and reports true.
func (c *copies) add(from, to int, n *Node, name, rel string) (linked bool, err error) {
	if n.nlink <= 1 {
		return false, c.copy(from, to, name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first, ok := c.first[n.inode()]
	if !ok {
		err := c.copy(from, to, name)
		if err == nil {
			c.first[n.inode()] = rel
		}
		return false, err
	}
	dir, err := openBeneath(c.root, parent(first))
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(dir) }()
	return true, unix.Linkat(dir, filepath.Base(first), to, name, 0)
}

// copy copies a file with its owner, including a recorded owner. The copy has a new
// inode.
func (c *copies) copy(from, to int, name string) error {
	return copied(c.owners, from, name, to, name, diff.CopyFile(from, name, to, name))
}

// part returns the part of the listing that paths lead through, with everything below the
// ends of the paths.
func (l *Listing) part(paths []string) *Node {
	p := parter{from: l}
	root := *l.root
	root.children = map[string]*Node{}
	p.root = &root
	for _, name := range paths {
		p.add(name)
	}
	return p.root
}

type parter struct {
	from *Listing
	root *Node
}

// maxLinks is the number of symbolic links that Linux follows in one path.
const maxLinks = 40

// add adds the nodes on the way of name. It resolves name like the kernel.
func (p *parter) add(name string) {
	rest := strings.Split(name, "/")
	var at []string
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(0, len(at)-1)]
			continue
		}
		here := append(slices.Clone(at), part)
		n := p.from.at(path.Join(here...))
		if n == nil {
			return // it will be created, and the listing has nothing that hides it
		}
		p.include(here, n, false)
		if n.kind() != unix.S_IFLNK {
			at = here
			continue
		}
		if links++; links > maxLinks {
			return
		}
		target, err := os.Readlink(filepath.Join(n.layer, path.Join(here...)))
		if err != nil {
			return
		}
		if path.IsAbs(target) {
			at = nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	p.include(at, p.from.at(path.Join(at...)), true)
}

// include adds the node at path. If deep is set, it also adds everything below it.
func (p *parter) include(at []string, n *Node, deep bool) {
	if len(at) == 0 {
		if deep {
			p.root = n
		}
		return
	}
	into := p.root
	if into == p.from.root {
		return // everything is included
	}
	for i, name := range at {
		orig := p.from.at(path.Join(at[:i+1]...))
		have := into.children[name]
		switch {
		case i == len(at)-1 && deep:
			into.children[name] = orig
			return
		case have == orig:
			return // included with everything below it
		case have == nil:
			shallow := *orig
			if orig.isDir() {
				shallow.children = map[string]*Node{}
			}
			have = &shallow
			into.children[name] = have
		}
		into = have
	}
}
