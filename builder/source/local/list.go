package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local/beneath"
)

// maxKept limits the entries that a tree keeps in memory, with about 300 bytes each. A
// tree with more entries reads directories again when they are needed again.
const maxKept = 1 << 15

// directory is the state of a directory.
type directory struct {
	within matched // result of its path for the patterns of the view

	mu      sync.Mutex
	listed  bool
	xattrs  []Xattr
	entries []*Entry // sorted by name, with hidden entries; nil unless kept
	shown   []*Entry // the entries in the view; nil unless kept and requested
}

// list returns the entries of a directory, and nil for any other file.
func (e *Entry) list() ([]*Entry, error) {
	d := e.dir
	if d == nil {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entries != nil {
		return d.entries, nil
	}
	entries, err := e.readDir()
	if err != nil {
		return nil, err
	}
	d.listed = true
	if e.kept && e.tree.kept.Add(int64(len(entries))) <= e.tree.maxKept {
		for _, c := range entries {
			c.kept = true
		}
		d.entries = entries
	} else {
		e.tree.compareListing(e, entries)
	}
	return entries, nil
}

// Children returns the entries of a directory, sorted by name, without the entries that
// the view hides. It returns nil for any other file.
func (e *Entry) Children() ([]*Entry, error) {
	all, err := e.list()
	if err != nil || e.tree.view == nil || len(all) == 0 {
		return all, err
	}
	e.dir.mu.Lock()
	shown := e.dir.shown
	e.dir.mu.Unlock()
	if shown != nil {
		return shown, nil
	}
	shown = make([]*Entry, 0, len(all))
	for _, c := range all {
		ok, err := e.shows(c)
		if err != nil {
			return nil, err
		}
		if ok {
			shown = append(shown, c)
		}
	}
	if all[0].kept {
		e.dir.mu.Lock()
		e.dir.shown = shown
		e.dir.mu.Unlock()
	}
	return shown, nil
}

// shows reports whether the entry c of the directory e is part of the view. A directory
// that no pattern matches is part of the view if an entry below it is.
func (e *Entry) shows(c *Entry) (bool, error) {
	e.dir.mu.Lock()
	within := e.dir.within
	e.dir.mu.Unlock()
	picked, below, within, err := e.tree.view.test(c.rel(), within)
	if err != nil || c.dir == nil {
		return picked, err
	}
	c.dir.mu.Lock()
	c.dir.within = within
	c.dir.mu.Unlock()
	if picked || !below {
		return picked, nil
	}
	all, err := c.list()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil // the directory itself was not requested
	}
	if err != nil {
		return false, err
	}
	for _, below := range all {
		if ok, err := c.shows(below); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// child returns the entry name of a directory. It returns nil if there is no such entry,
// if e is not a directory, or if it cannot be listed.
func (e *Entry) child(name string) *Entry {
	children, err := e.Children()
	if err != nil {
		return nil
	}
	return find(children, name)
}

// find returns the entry name of a sorted list, or nil if it is not there.
func find(entries []*Entry, name string) *Entry {
	i, ok := sort.Find(len(entries), func(i int) int { return strings.Compare(name, entries[i].name) })
	if !ok {
		return nil
	}
	return entries[i]
}

// DirXattrs returns the xattrs of a directory that copies keep, and nil for any other
// file.
func (e *Entry) DirXattrs() ([]Xattr, error) {
	if e.dir == nil {
		return nil, nil
	}
	e.dir.mu.Lock()
	xattrs, listed := e.dir.xattrs, e.dir.listed
	e.dir.mu.Unlock()
	if listed {
		return xattrs, nil
	}
	if _, err := e.list(); err != nil {
		return nil, err
	}
	e.dir.mu.Lock()
	defer e.dir.mu.Unlock()
	return e.dir.xattrs, nil
}

func (e *Entry) readDir() ([]*Entry, error) {
	fd, err := beneath.Open(e.tree.fd(), e.rel(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), e.Path())
	defer func() { _ = dir.Close() }()
	if e.dir.xattrs, err = e.Xattrs(fd); err != nil {
		return nil, fmt.Errorf("list %s: %w", e.Path(), err)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", e.Path(), err)
	}
	slices.Sort(names)
	slab := make([]Entry, len(names))
	entries := make([]*Entry, 0, len(names))
	for i, name := range names {
		c := &slab[i]
		c.tree, c.parent, c.name = e.tree, e, name
		err := c.read(fd, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, c)
	}
	return entries, nil
}

// compareListing marks the tree as changed if a directory is read again and differs from
// the last time.
func (t *Tree) compareListing(e *Entry, entries []*Entry) {
	var h maphash.Hash
	h.SetSeed(t.seed)
	var buf []byte
	for _, c := range entries {
		st := &c.st
		buf = append(buf[:0], c.name...)
		buf = append(append(append(buf, 0), c.link...), 0)
		numbers := []uint64{
			st.Dev, st.Ino, uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), st.Rdev,
			uint64(st.Size), uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano()), uint64(st.Nlink), //nolint:unconvert // 32 bits on arm64
		}
		if c.IsDir() {
			numbers = numbers[:6] // the rest changes with what is in it
		}
		for _, n := range numbers {
			buf = binary.LittleEndian.AppendUint64(buf, n)
		}
		_, _ = h.Write(buf)
	}
	sum, id := h.Sum64(), inode{e.st.Dev, e.st.Ino}
	t.mu.Lock()
	was, ok := t.listings[id]
	t.listings[id] = sum
	t.mu.Unlock()
	if ok && was != sum {
		t.setChanged(e.Path())
	}
}
