package plain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
	"github.com/shale-build/shale/overlay/diff"
)

// Tree is a directory that holds copies of what a listing shows. It is used by
// one goroutine at a time.
type Tree struct {
	dir string
	fd  int
	// Spared returns what is no part of the tree; nil spares nothing.
	spared func() (*Spared, error)
	// nursery is where the directories at the top are made; empty for in dir.
	nursery string

	// rec is what the directory held when it was last looked at.
	rec *record
	now *Listing
	// dirty: something may have been changed since.
	dirty bool
}

// Spared are paths below a tree, clean and without leading slash, that are no
// part of it: they are neither listed, nor changed, nor removed.
type Spared struct {
	paths map[string]bool
	// above are the directories that lead to them.
	above map[string]bool
}

// NewSpared makes one of a list of paths.
func NewSpared(paths []string) *Spared {
	s := &Spared{paths: map[string]bool{}, above: map[string]bool{}}
	for _, p := range paths {
		s.paths[p] = true
		for up := path.Dir(p); up != "." && up != "/"; up = path.Dir(up) {
			s.above[up] = true
		}
	}
	return s
}

// Has tells whether path itself is spared.
func (s *Spared) Has(path string) bool { return s.paths[path] }

// Above tells whether something below path is spared.
func (s *Spared) Above(path string) bool { return s.above[path] }

// record is one file of a tree.
type record struct {
	meta

	// origin is the file that it is a copy of; nil when nobody knows.
	origin   *Node
	children map[string]*record
}

// OpenTree takes over dir, whose content but for what is spared is the tree's
// from now on. Close ends that.
func OpenTree(dir string, spared func() (*Spared, error)) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if spared == nil {
		spared = func() (*Spared, error) { return NewSpared(nil), nil }
	}
	return &Tree{dir: dir, fd: fd, spared: spared, now: Empty(), rec: &record{}, dirty: true}, nil
}

// OpenLinked takes over a directory that Link, with the same paths, made of l.
// Files in it may be replaced, but not written to.
func (l *Listing) OpenLinked(dir string, paths ...string) (*Tree, error) {
	t, err := OpenTree(dir, nil)
	if err != nil {
		return nil, err
	}
	root := l.root
	if len(paths) > 0 {
		root = l.part(paths)
	}
	if t.rec, err = scan(t.fd, nil, NewSpared(nil)); err != nil {
		return nil, errors.Join(fmt.Errorf("look through %s: %w", dir, err), t.Close())
	}
	trace(t.rec, root)
	t.now = l
	return t, nil
}

// trace notes where the files of r come from.
func trace(r *record, n *Node) {
	r.origin = n
	for name, c := range n.children {
		if have := r.children[name]; have != nil {
			trace(have, c)
		}
	}
}

// Close leaves the directory as it is.
func (t *Tree) Close() error { return unix.Close(t.fd) }

// Dir is the directory.
func (t *Tree) Dir() string { return t.dir }

// MakeIn has directories at the top of the tree, and beside what is spared, be made
// in another directory of the same mount and moved from there: file systems decide by where a directory
// is made where on the disk it and all that is below it goes (see
// storage.Spread).
func (t *Tree) MakeIn(dir string) { t.nursery = dir }

// Touch says that the content may have been changed.
func (t *Tree) Touch() { t.dirty = true }

// Become makes the tree what l shows. What is it already is not touched. A file
// that cannot be placed because something spared is in its way is an error.
func (t *Tree) Become(ctx context.Context, l *Listing) error {
	spared, err := t.spared()
	if err != nil {
		return err
	}
	if t.dirty {
		if t.rec, err = scan(t.fd, t.rec, spared); err != nil {
			return fmt.Errorf("look through %s: %w", t.dir, err)
		}
	}
	t.dirty = true
	p := &placer{
		linker: newLinker(t.fd, l.owners),
		ctx:    ctx, spared: spared, nursery: t.nursery, helpers: newHelpers(),
	}
	defer p.close()
	p.split(t.rec, l.root)
	if _, err := p.dir(t.fd, "", t.rec, l.root); err != nil {
		return fmt.Errorf("fill %s: %w", t.dir, err)
	}
	t.rec.origin = l.root
	if p.relinked.Load() {
		// Further links gave files that were noted before new change times.
		if err := refresh(t.fd, t.rec); err != nil {
			return fmt.Errorf("look through %s: %w", t.dir, err)
		}
	}
	t.now, t.dirty = l, false
	return nil
}

// refresh notes the files of r again.
func refresh(dir int, r *record) error {
	for name, c := range r.children {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("stat %s: %w", name, err)
		}
		c.meta = metaOf(&st)
		if !c.isDir() {
			continue
		}
		fd, err := openDir(dir, name)
		if err != nil {
			return err
		}
		err = refresh(fd, c)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// placer makes a tree what a listing shows.
type placer struct {
	linker
	ctx     context.Context //nolint:containedctx // lives as long as one Become
	spared  *Spared
	nursery string
	// broken are files of several names of which one has to be placed: then
	// all are, or they would not be one file.
	broken   map[inode]bool
	relinked atomic.Bool
	helpers  helpers
}

// split finds the files of several names that are not all in place.
func (p *placer) split(r *record, n *Node) {
	if p.broken == nil {
		p.broken = map[inode]bool{}
	}
	for name, c := range n.children {
		var have *record
		if r != nil {
			have = r.children[name]
		}
		if c.isDir() {
			p.split(have, c)
			continue
		}
		if c.nlink > 1 && (have == nil || have.origin != c) {
			p.broken[c.inode()] = true
		}
	}
}

// inPlace tells whether the directory r and all that is below it are what n shows,
// so that nothing of it needs to be opened.
func (p *placer) inPlace(rel string, r *record, n *Node) bool {
	if r.origin != n || r.mtim != n.mtim || len(r.children) > len(n.children) {
		return false
	}
	around := p.spared.Above(rel)
	matched := 0
	for name, c := range n.children {
		if around && p.spared.Has(path.Join(rel, name)) {
			continue
		}
		have := r.children[name]
		if have == nil || have.isDir() != c.isDir() || have.origin != c {
			return false
		}
		if c.isDir() {
			if !p.inPlace(path.Join(rel, name), have, c) {
				return false
			}
		} else if c.nlink > 1 && p.broken[c.inode()] {
			return false
		}
		matched++
	}
	return matched == len(r.children)
}

// dir makes the open directory what n, nil for nothing, shows and keeps r true.
// It tells whether anything in it had to be done.
func (p *placer) dir(fd int, rel string, r *record, n *Node) (changed bool, err error) {
	if err := p.ctx.Err(); err != nil {
		return false, context.Cause(p.ctx)
	}
	var want map[string]*Node
	if n != nil {
		want = n.children
	}
	for _, name := range slices.Sorted(maps.Keys(r.children)) {
		if want[name] != nil {
			continue
		}
		changed = true
		gone, err := p.clear(fd, path.Join(rel, name), name, r.children[name])
		if err != nil {
			return changed, err
		}
		if gone {
			delete(r.children, name)
		}
	}
	did, err := p.entries(fd, rel, r, want)
	return changed || did, err
}

// entries makes what is in the open directory what want says: the files first, then
// what is in its directories, in some of them at the same time.
func (p *placer) entries(fd int, rel string, r *record, want map[string]*Node) (changed bool, err error) {
	at := &place{linker: &p.linker, fd: fd, rel: rel}
	defer at.close()
	var dirs []*below
	for _, name := range slices.Sorted(maps.Keys(want)) {
		n := want[name]
		if p.spared.Has(path.Join(rel, name)) {
			continue
		}
		if !n.isDir() {
			did, err := p.file(at, name, r, n)
			changed = changed || did
			if err != nil {
				return changed, err
			}
			continue
		}
		made, err := p.directory(fd, path.Join(rel, name), name, r)
		changed = changed || made
		if err != nil {
			return changed, err
		}
		dirs = append(dirs, &below{name: name, rel: path.Join(rel, name), made: made, record: r.children[name], node: n})
	}
	var wait sync.WaitGroup
	for _, d := range dirs {
		p.helpers.do(&wait, func() { d.changed, d.err = p.below(fd, d) })
	}
	wait.Wait()
	for _, d := range dirs {
		if d.err != nil {
			return true, d.err
		}
		changed = changed || d.changed
	}
	return changed, nil
}

// below is a directory in another one.
type below struct {
	name, rel string
	made      bool
	record    *record
	node      *Node

	changed bool
	err     error
}

// clear removes what nobody wants, but for directories that lead to something
// spared. It tells whether nothing is left.
func (p *placer) clear(dir int, rel, name string, r *record) (gone bool, err error) {
	if !r.isDir() {
		return true, unix.Unlinkat(dir, name, 0)
	}
	fd, err := openDir(dir, name)
	if err != nil {
		return false, fmt.Errorf("open /%s: %w", rel, err)
	}
	_, err = p.dir(fd, rel, r, nil)
	_ = unix.Close(fd)
	if errors.Is(err, unix.EMFILE) && !p.spared.Above(rel) {
		return true, rmtree.At(dir, name) // it is deeper than there are descriptors
	}
	if err != nil {
		return false, err
	}
	r.origin = nil
	if p.spared.Above(rel) || len(r.children) > 0 {
		return false, nil
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil {
		return false, fmt.Errorf("remove /%s: %w", rel, err)
	}
	return true, nil
}

// file makes one name the file n.
func (p *placer) file(at *place, name string, r *record, n *Node) (changed bool, err error) {
	rel := path.Join(at.rel, name)
	have := r.children[name]
	if have != nil && have.origin == n && !p.broken[n.inode()] {
		return false, nil
	}
	if have != nil {
		gone, err := p.clear(at.fd, rel, name, have)
		if err != nil {
			return true, err
		}
		if !gone {
			return true, fmt.Errorf("/%s: the image has a file where a directory is that shale needs for itself: give --root and TMPDIR another place", rel)
		}
	}
	from, err := at.from(n)
	if err != nil {
		return true, err
	}
	linked, err := p.copies.add(from, at.fd, n, name, rel)
	if err != nil {
		return true, fmt.Errorf("/%s: %w", rel, err)
	}
	if linked {
		p.relinked.Store(true)
	}
	return true, r.note(at.fd, name, n)
}

// note records a file that was just placed.
func (r *record) note(dir int, name string, n *Node) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	if r.children == nil {
		r.children = map[string]*record{}
	}
	r.children[name] = &record{meta: metaOf(&st), origin: n}
	return nil
}

// directory has a directory be there, which rel is the path of.
func (p *placer) directory(fd int, rel, name string, r *record) (made bool, err error) {
	have := r.children[name]
	if have != nil && have.isDir() {
		return false, nil
	}
	if have != nil {
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return true, fmt.Errorf("remove /%s: %w", rel, err)
		}
		delete(r.children, name)
	}
	if err := p.mkdir(fd, rel, name); err != nil {
		return true, fmt.Errorf("make /%s: %w", rel, err)
	}
	if r.children == nil {
		r.children = map[string]*record{}
	}
	r.children[name] = &record{meta: meta{mode: unix.S_IFDIR}, children: map[string]*record{}}
	return true, nil
}

// below makes d, a directory in the open one, what its node shows. It touches no
// record but d's and those below.
func (p *placer) below(dir int, d *below) (changed bool, err error) {
	r, n := d.record, d.node
	if !d.made && p.inPlace(d.rel, r, n) {
		return false, nil
	}
	fd, err := openDir(dir, d.name)
	if err != nil {
		return false, fmt.Errorf("open /%s: %w", d.rel, err)
	}
	defer func() { _ = unix.Close(fd) }()
	inside, err := p.dir(fd, d.rel, r, n)
	if err != nil {
		return true, err
	}
	if !inside && r.origin == n && r.mtim == n.mtim {
		return false, nil
	}
	if err := p.dirMeta(fd, n, d.rel); err != nil {
		return true, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return true, fmt.Errorf("stat /%s: %w", d.rel, err)
	}
	r.meta, r.origin = metaOf(&st), n
	return true, nil
}

// mkdir makes a directory in the open one, by way of the nursery where that one is
// not the tree's alone and thus was not made there. The name in there is another each time, as it is what ext4 begins to look for room
// with.
func (p *placer) mkdir(fd int, rel, name string) error {
	if up := path.Dir(rel); p.nursery == "" || up != "." && !p.spared.Above(up) {
		return unix.Mkdirat(fd, name, 0o700)
	}
	made, err := os.MkdirTemp(p.nursery, "")
	if err != nil {
		return err
	}
	if err := unix.Renameat(unix.AT_FDCWD, made, fd, name); err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return nil
}

// awaitTick returns when a change from now on gives a change time later than
// those that were noted: kernels before 6.13 count these in ticks.
func awaitTick() {
	var start, now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &start) != nil {
		return
	}
	for range 20 {
		if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil || now != start {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Settle has to be called between Become and whoever changes the tree.
func (t *Tree) Settle() { awaitTick() }

// Adopt says that what was found changed is now what layer, a directory of
// which l is the listing with it on top, holds.
func (t *Tree) Adopt(l *Listing, layer string) {
	adopt(t.rec, l.root, layer)
	t.now, t.dirty = l, false
}

func adopt(r *record, n *Node, layer string) {
	r.origin = n
	for name, c := range n.children {
		have := r.children[name]
		if c.layer != layer || have == nil || have.isDir() != c.isDir() {
			continue
		}
		if c.isDir() {
			adopt(have, c, layer)
			continue
		}
		have.origin = c
	}
}

// Changes are what became different in a tree.
type Changes struct {
	tree *Tree
	// put are the files and directories that are new or different, gone the
	// names that are there no more, both without leading slash. Directories
	// come before what is in them.
	put, gone []string
	// whole are the directories that are new and of which everything is in put.
	whole map[string]bool
}

// Len counts them.
func (c *Changes) Len() int { return len(c.put) + len(c.gone) }

// Changes looks through the tree and finds what is not as Become left it: one
// stat for each file, and a look inside those that were touched.
func (t *Tree) Changes(ctx context.Context) (*Changes, error) {
	spared, err := t.spared()
	if err != nil {
		return nil, err
	}
	t.dirty = true
	after, err := scan(t.fd, t.rec, spared)
	if err != nil {
		return nil, fmt.Errorf("look through %s: %w", t.dir, err)
	}
	f := &finder{ctx: ctx, spared: spared, owners: t.now.owners, out: &Changes{tree: t, whole: map[string]bool{}}, lost: map[inode]bool{}, linked: map[inode]bool{}}
	if _, err := f.dir(&lazyDir{fd: t.fd}, "", t.rec, after); err != nil {
		return nil, fmt.Errorf("compare %s with the layers: %w", t.dir, err)
	}
	f.partners(after)
	slices.Sort(f.out.put)
	f.out.put = slices.Compact(f.out.put)
	slices.Sort(f.out.gone)
	t.rec = after
	return f.out, nil
}

// finder compares two records of a tree.
type finder struct {
	ctx    context.Context //nolint:containedctx // lives as long as one Changes
	spared *Spared
	owners Owners
	out    *Changes
	// lost are files of which a name is gone, linked those of several names
	// of which one is new.
	lost, linked map[inode]bool
	// left counts what is in the tree and does not get into a layer.
	left int
}

// lazyDir is a directory that is opened when somebody looks into it: few of those
// of a tree need to be.
type lazyDir struct {
	up   *lazyDir
	name string
	fd   int // negative before
}

func (d *lazyDir) open() (int, error) {
	if d.fd >= 0 {
		return d.fd, nil
	}
	up, err := d.up.open()
	if err != nil {
		return -1, err
	}
	fd, err := openDir(up, d.name)
	if err != nil {
		return -1, err
	}
	d.fd = fd
	return fd, nil
}

func (d *lazyDir) close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
	}
}

// dir compares what is in a directory and tells whether anything is different.
func (f *finder) dir(fd *lazyDir, dir string, before, after *record) (changed bool, err error) {
	if err := f.ctx.Err(); err != nil {
		return false, context.Cause(f.ctx)
	}
	for name, b := range before.children {
		if after.children[name] != nil {
			continue
		}
		if b.origin == nil || f.spared.Above(path.Join(dir, name)) {
			continue // was never the image's
		}
		changed = true
		f.out.gone = append(f.out.gone, path.Join(dir, name))
		f.lose(b)
	}
	for name := range after.children {
		did, err := f.entry(fd, path.Join(dir, name), name, before.children[name], after.children[name])
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

func (f *finder) lose(r *record) {
	if !r.isDir() {
		if r.nlink > 1 {
			f.lost[r.inode()] = true
		}
		return
	}
	for _, c := range r.children {
		f.lose(c)
	}
}

func (f *finder) entry(dir *lazyDir, rel, name string, before, after *record) (changed bool, err error) {
	if before != nil && before.isDir() != after.isDir() {
		f.lose(before)
		before = nil
	}
	if !after.isDir() {
		if before != nil && before.meta == after.meta {
			return false, nil
		}
		if before != nil && before.origin != nil {
			same, err := f.sameAsOrigin(dir, rel, name, before.origin, after)
			if err != nil {
				return false, fmt.Errorf("/%s: %w", rel, err)
			}
			if same {
				if after.nlink == before.nlink {
					after.origin = before.origin
				}
				return false, nil
			}
		}
		if after.kind() == unix.S_IFSOCK {
			f.left++
			return false, nil // only a name to meet at
		}
		after.origin = nil
		f.out.put = append(f.out.put, rel)
		if after.nlink > 1 {
			f.linked[after.inode()] = true
		}
		return true, nil
	}
	return f.directory(dir, rel, name, before, after)
}

func (f *finder) directory(dir *lazyDir, rel, name string, before, after *record) (changed bool, err error) {
	fd := &lazyDir{up: dir, name: name, fd: -1}
	defer fd.close()
	old := before
	if old == nil {
		old = &record{}
	}
	left := f.left
	inside, err := f.dir(fd, rel, old, after)
	if err != nil {
		return false, err
	}
	switch {
	case before == nil:
		changed = true
		f.out.whole[rel] = f.left == left
	case before.origin == nil:
		changed = inside // not the image's, unless something of it is inside
	case before.ctim == after.ctim && before.ino == after.ino:
	default:
		same, err := f.sameAsOrigin(dir, rel, name, before.origin, after)
		if err != nil {
			return false, fmt.Errorf("/%s: %w", rel, err)
		}
		changed = !same
	}
	if changed {
		f.out.put = append(f.out.put, rel)
	}
	return changed || inside, nil
}

// partners adds an unchanged name of files that got another name: in an archive
// a link needs something to lead to. Of a file that was renamed there is none.
func (f *finder) partners(r *record) {
	if len(f.linked) == 0 {
		return
	}
	put := map[string]bool{}
	for _, p := range f.out.put {
		put[p] = true
	}
	first := map[inode]string{}
	var walk func(r *record, dir string)
	walk = func(r *record, dir string) {
		for name, c := range r.children {
			rel := path.Join(dir, name)
			if c.isDir() {
				walk(c, rel)
				continue
			}
			if id := c.inode(); f.linked[id] && !f.lost[id] && !put[rel] {
				if have, ok := first[id]; !ok || rel < have {
					first[id] = rel
				}
			}
		}
	}
	walk(r, "")
	for _, rel := range first {
		f.out.put = append(f.out.put, rel)
	}
}

// sameAsOrigin compares a file that was touched with the one in the layer that
// it is a copy of.
func (f *finder) sameAsOrigin(at *lazyDir, rel, name string, n *Node, r *record) (bool, error) {
	if r.mode != n.mode || r.uid != n.uid || r.gid != n.gid {
		return false, nil
	}
	isDir := r.isDir()
	if !isDir && (r.mtim != n.mtim || r.size != n.size || r.rdev != n.rdev) {
		return false, nil
	}
	dir, err := at.open()
	if err != nil {
		return false, fmt.Errorf("open the directory it is in: %w", err)
	}
	k := newLinker(-1, nil)
	defer k.close()
	from, err := k.source(n, path.Dir(rel))
	if err != nil {
		return false, fmt.Errorf("open its layer: %w", err)
	}
	defer func() { _ = unix.Close(from) }()
	if same, err := sameOwner(f.owners, dir, name, from, name); err != nil || !same {
		return false, err
	}
	switch n.kind() {
	case unix.S_IFREG, unix.S_IFDIR:
		return diff.SameContent(dir, name, from, name, n.size, isDir)
	case unix.S_IFLNK:
		one, err1 := readLink(dir, name)
		two, err2 := readLink(from, name)
		return one == two, errors.Join(err1, err2)
	}
	return true, nil
}
